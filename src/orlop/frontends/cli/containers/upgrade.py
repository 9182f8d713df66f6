"""`orlop upgrade`: another image below a container that stays what it is otherwise, and the old one back if that fails.

    pull -> make the new one -> stop the old one -> change the names -> start the new one -> ready? -> remove the old

What undoes a step is on a stack before the step is taken: a failure, or an interruption, takes all of them back.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from ....spec.container import ContainerRequest
from ....spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ...compose.observed import image_id
from ...compose.steps import with_nameless_volumes
from ..command import Command, Invocation, for_output, warn, write_line
from ..flags import BOOL, INT, STRING, Flag
from .run import id_of, with_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...native.client import Engine

WAIT_S_DEFAULT = 120
SETTLE_S_DEFAULT = 2
POLL_S = 0.1
_UP = ("running", "paused", "restarting")


class _Change:
    """The old container and the new one, and the verbs that lead from one to the other."""

    def __init__(self, engine: Engine, old: str, name: str) -> None:
        self._engine = engine
        self.old, self.name = old, name
        mark = os.urandom(4).hex()
        self.aside = f"{name}-before-{mark}"  # what the old one is called meanwhile
        self.temporary = f"{name}-after-{mark}"
        self.new = ""

    def create(self, request: ContainerRequest) -> None:
        wanted = with_nameless_volumes(self._engine, self.old, request.replace(name=self.temporary))
        self.new = id_of(self._engine.call("containers.create", {"request": wanted.to_json()}))

    def start(self, container: str) -> None:
        self._engine.call("containers.start", {"container": container, "attached": False, "console_size": None})

    def stop(self, container: str, timeout_s: int | None = None) -> None:
        self._engine.call("containers.stop", {"container": container, "timeout_s": timeout_s, "signal": ""})

    def rename(self, container: str, name: str) -> None:
        self._engine.call("containers.rename", {"container": container, "name": name})

    def remove(self, container: str) -> None:
        self._engine.call("containers.remove", {"container": container, "force": True, "volumes": False})

    def wait_until_ready(self, timeout_s: int, settle_s: int) -> None:
        """Return when the new one is healthy or, without a check, has run for settle_s or ended well.

        Raises Unavailable with what it said last.
        """
        began = time.monotonic()
        while True:
            state = _inspect(self._engine, self.new)["State"]
            health = (state.get("Health") or {}).get("Status", "")
            if state["Status"] == "exited" and state["ExitCode"] == 0:
                return
            if state["Status"] != "running" or health == "unhealthy":
                raise self._unready()
            if health == "healthy" or (health in ("", "none") and time.monotonic() - began >= settle_s):
                return
            if health == "starting" and time.monotonic() - began > timeout_s:
                raise Unavailable("upgrade", self.subject, f"the new one was not healthy within {timeout_s} s")
            time.sleep(POLL_S)

    @property
    def subject(self) -> str:
        return f"container {self.name}"

    def _unready(self) -> Unavailable:
        told = self._engine.call("containers.why", {"container": self.new})
        facts: dict[str, Any] = told if isinstance(told, dict) else {}
        output = "".join(f"\n  {line}" for line in facts.get("last_output", ()))
        cause = f"the new one failed: {facts.get('summary', 'it is not ready')}{output}"
        return Unavailable("upgrade", self.subject, cause, hint=facts.get("remedy", ""))


def _upgrade(invocation: Invocation) -> int:
    reference, *more = invocation.arguments
    options = invocation.options
    with invocation.connect() as engine:
        facts = _inspect(engine, reference)
        found = engine.call("containers.request", {"container": facts["Id"]})
        request = ContainerRequest.from_json(found["again"] if isinstance(found, dict) else {}, reference)
        name = str(facts["Name"]).removeprefix("/")
        _check(request, f"container {name}")
        image = more[0] if more else request.image
        wanted = with_image(invocation, image, lambda: _known(engine, image))
        if wanted == facts["Image"] and not options["force"]:
            warn(f"{for_output(name)} has this image already")
            write_line(str(facts["Id"]))
            return 0
        change = _Change(engine, str(facts["Id"]), name)
        sharers = _sharers(engine, change)
        _carry_out(change, request.replace(image=image), runs=facts["State"]["Status"] in _UP, invocation=invocation)
        for other in sharers:
            warn(f"WARNING: {for_output(other)} shares namespaces with the old one: make it anew")
        if not options["keep"]:
            change.remove(change.old)
    write_line(change.new)
    return 0


def _carry_out(change: _Change, request: ContainerRequest, *, runs: bool, invocation: Invocation) -> None:
    """Put the new one in the old one's place. Raises what failed, when the old one is back."""
    options = invocation.options
    with ExitStack() as undo:
        change.create(request)
        undo.callback(_undo, change.remove, change.new)
        if runs:
            undo.callback(_undo, change.start, change.old)
            change.stop(change.old, options["timeout"])
        undo.callback(_undo, change.rename, change.old, change.name)
        change.rename(change.old, change.aside)
        undo.callback(_undo, change.rename, change.new, change.temporary)
        change.rename(change.new, change.name)
        if runs:
            undo.callback(_undo, change.stop, change.new, 0)
            change.start(change.new)
            change.wait_until_ready(options["wait-timeout"], options["settle"])
        undo.pop_all()


def _undo(act: Callable[..., None], *args: object) -> None:
    """Take a step back; one that can't be is told, and the others are taken back all the same."""
    try:
        act(*args)
    except OrlopError as wrong:
        warn(f"WARNING: {wrong}")


def _check(request: ContainerRequest, subject: str) -> None:
    if not request.image:
        hint = "change the directory, and restart it"
        raise Invalid("upgrade", subject, "it runs from a directory and has no image", hint=hint)
    if request.auto_remove:
        cause = "it is removed when it stops (--rm), so that there would be no way back"
        raise Conflict("upgrade", subject, cause, hint="stop it, and run the new image")


def _known(engine: Engine, image: str) -> str:
    found = image_id(engine, image)
    if not found:
        raise NotFound("upgrade", "the container", f"No such image: {image}", hint=f"orlop pull {image}", code="E0801")
    return found


def _sharers(engine: Engine, change: _Change) -> list[str]:
    """Return the names of the containers that run in the old one's namespaces."""
    modes = {f"container:{change.old}", f"container:{change.name}"}
    found = engine.call("containers.list", {"all": False})
    names = []
    for one in found if isinstance(found, list) else ():
        host = _inspect(engine, one["Id"])["HostConfig"]
        if modes & {host["NetworkMode"], host["IpcMode"], host["PidMode"]}:
            names.append(str(one["Names"][0]).removeprefix("/"))
    return names


def _inspect(engine: Engine, container: str) -> dict[str, Any]:
    found = engine.call("containers.inspect", {"container": container, "size": False})
    if not isinstance(found, dict):
        raise Unavailable("read", "the engine's reply", "it is no container")
    return found


UPGRADE = Command(
    _upgrade,
    "Put another image below a container, and the old one back if the new one fails",
    "[OPTIONS] CONTAINER [IMAGE]",
    flags=(
        Flag("force", "f", BOOL, "Make it anew although it has the image", default=False),
        Flag("keep", "", BOOL, "Keep the old one, stopped, as NAME-before-...", default=False),
        Flag("platform", "", STRING, "Platform of an image that is pulled", default=""),
        Flag("pull", "", STRING, 'Pull image before ("always", "missing", "never")', default="missing"),
        Flag("quiet", "q", BOOL, "Do not show the pull", default=False),
        Flag("settle", "", INT, "Seconds that one without a health check must run", default=SETTLE_S_DEFAULT),
        Flag("timeout", "t", INT, "Seconds to wait before killing the old one"),
        Flag("wait-timeout", "", INT, "Seconds until the new one must be healthy", default=WAIT_S_DEFAULT),
    ),
    arguments=(1, 2),
    aliases=("container upgrade", "upgrade"),
)
