"""`orlop run`, `orlop create`: make a container, and start it in the foreground or not."""

from __future__ import annotations

import os
import sys

from ....spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from .. import request
from ..command import Command, Invocation, for_output, warn, write_line
from ..flags import EXIT_FLAGS, EXIT_USAGE, Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ....spec.container import ContainerRequest
    from ...native.client import Engine

    Result = TypeVar("Result")

LAZY = "lazy"  # a missing image runs before it is here
PULL_POLICIES = ("always", "missing", "never", LAZY)
STREAMS = frozenset(("stdin", "stdout", "stderr"))
# Addresses, names of resolv.conf, --rm with --restart: docker's client refuses them, here it is the engine.
_READ_BY_CLIENTS = ("(E0709)", "(E0717)", "(E1107)")
_READ_BY_DAEMONS = ("(E0105)", "(E0710)")  # an image's name, an address: here it is the command line
_SYSTEMD, _LINGERS = "/run/systemd/system", "/var/lib/systemd/linger"


def _run(invocation: Invocation) -> int:
    options = invocation.options
    attached = attached_streams(options)
    wanted = request.container_request(options, invocation.arguments, attached)
    if options["dry-run"]:
        return _print_plan(invocation, wanted)
    with ContainerIdFile(options["cidfile"]) as id_file:
        if options["detach"]:
            return _run_detached(invocation, wanted, id_file)
        return _run_attached(invocation, wanted, attached, id_file)


def _replace(engine: Engine, invocation: Invocation) -> None:
    """--replace: remove the container that has the name."""
    name: str = invocation.options["name"]
    if invocation.options["replace"] and name:
        try:
            engine.call("containers.remove", {"container": name, "force": True, "volumes": False})
        except NotFound:
            pass


def _write_pid(engine: Engine, path: str, container: str) -> None:
    """--pidfile. Raises Unavailable when it can't be written."""
    if not path:
        return
    found = engine.call("containers.inspect", {"container": container})
    state = found.get("State") if isinstance(found, dict) else None
    pid = state.get("Pid") if isinstance(state, dict) else None
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{pid}")
    except OSError as wrong:
        hint = "name a file in a directory that you can write to"
        raise Unavailable("write", f"pid file {path}", wrong.strerror or str(wrong), hint=hint) from None


def _run_detached(invocation: Invocation, wanted: ContainerRequest, id_file: ContainerIdFile) -> int:
    args: dict[str, object] = {"request": wanted.to_json(), "attached": False, "console_size": None}
    with invocation.connect() as engine:
        _replace(engine, invocation)
        result = with_image(invocation, wanted.image, lambda: engine.call("containers.run", args))
        container = id_of(result)
        _write_pid(engine, invocation.options["pidfile"], container)
    id_file.write(container)
    write_line(container)
    if os.path.isdir(_SYSTEMD) and (user := os.geteuid()):
        _warn_of_logout(user)
    return 0


def _warn_of_logout(uid: int) -> None:
    """Say to an ordinary user who does not linger that a logout ends the engine and what runs below it (P39)."""
    from ....engine.rootless.enter import user_name

    name = user_name(uid)
    if not os.path.exists(f"{_LINGERS}/{name}"):
        warn(f"WARNING: It may end with your last session. As root: loginctl enable-linger {for_output(name)}")


def _run_attached(
    invocation: Invocation, wanted: ContainerRequest, attached: frozenset[str], id_file: ContainerIdFile
) -> int:
    from .. import foreground

    options = invocation.options
    foreground.check_terminal(terminal=wanted.terminal, stdin="stdin" in attached)
    connected = foreground.attachment(
        stdin="stdin" in attached,
        stdout="stdout" in attached,
        stderr="stderr" in attached,
        terminal=wanted.terminal,
        detach_keys=options["detach-keys"],
        proxy_signals=options["sig-proxy"],
    )
    container = wanted.name
    connected.resized = lambda *size: foreground.tell(invocation, container, "resize", size=size)
    with invocation.connect() as engine:
        _replace(engine, invocation)

        def started(result: dict[str, object]) -> None:
            nonlocal container
            container = id_of(result)
            id_file.write(container)
            _write_pid(engine, options["pidfile"], container)

        args: dict[str, object] = {"request": wanted.to_json()}
        session = with_image(
            invocation,
            wanted.image,
            lambda: foreground.run_attached(engine, "containers.run", args, connected, started),
        )
        if wanted.auto_remove and container and session.exit_code is not None:
            foreground.wait_until_removed(invocation, engine, container)
    return foreground.status_of(session, invocation, container)


def _of_the_line(wrong: OrlopError) -> UsageError:
    """Return an error as one of the command line: docker's create ends with 125 for these, and 1 for its daemon's."""
    from ....spec import catalog

    code = catalog.code_of(wrong)
    return UsageError(f"orlop: {wrong}", f"{wrong.hint or f'orlop explain {code}'} ({code})", shows_usage=False)


def _create(invocation: Invocation) -> int:
    options = invocation.options
    try:
        wanted = request.container_request(options, invocation.arguments, attached_streams(options))
    except OrlopError as wrong:
        found = _of_the_line(wrong)
        raise (wrong if found.hint.endswith(_READ_BY_DAEMONS) else found) from None
    if options["dry-run"]:
        return _print_plan(invocation, wanted)
    with ContainerIdFile(options["cidfile"]) as id_file, invocation.connect() as engine:
        _replace(engine, invocation)
        args: dict[str, object] = {"request": wanted.to_json()}
        try:
            container = id_of(with_image(invocation, wanted.image, lambda: engine.call("containers.create", args)))
        except Invalid as wrong:
            found = _of_the_line(wrong)
            raise (found if found.hint.endswith(_READ_BY_CLIENTS) else wrong) from None
        id_file.write(container)
    write_line(container)
    return 0


def with_image(invocation: Invocation, image: str, act: Callable[[], Result]) -> Result:
    """Return what act returns; an image that is not here is pulled first, as --pull says."""
    policy = invocation.options["pull"]
    if policy not in PULL_POLICIES:
        cause = f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"'
        raise UsageError(cause, "", EXIT_FLAGS, shows_usage=False)
    if policy == "always" and image:
        _pull_for(invocation, image)
    try:
        return act()
    except NotFound as wrong:
        if policy not in ("missing", LAZY) or not image or not _is_about(wrong, image):
            raise
    _pull_for(invocation, image)
    return act()


def _is_about(wrong: NotFound, image: str) -> bool:
    """Say whether it is this image that is not here: what a mount names may be missing, too."""
    from ....spec.reference import Reference

    before, _, missing = wrong.cause.partition("No such image: ")
    return not before and missing in (image, Reference.parse(image).tagged().familiar)


def _pull_for(invocation: Invocation, image: str) -> None:
    """Pull an image before its container is made; what there is to say goes to standard error, as docker's does."""
    from ....spec.reference import Reference
    from ..images.pull import pull_image

    reference = Reference.parse(image).tagged()
    quiet = invocation.options["quiet"]
    if invocation.options["pull"] != "always" and not quiet:
        warn(f"Unable to find image '{reference.familiar}' locally")
    with invocation.connect() as engine:
        platform = invocation.options["platform"]
        wanted = ("lazy",) if invocation.options["pull"] == LAZY else ()
        pull_image(engine, str(reference), platform=platform, wanted=wanted, output=None if quiet else sys.stderr)


def attached_streams(options: Options) -> frozenset[str]:
    chosen = frozenset(options["attach"])
    if "detach" in options.given and options["detach"]:
        if chosen:
            raise UsageError(
                "conflicting options: cannot specify both --attach and --detach",
                "leave one away",
                EXIT_USAGE,
                shows_usage=False,
            )
        return frozenset()
    chosen = chosen or STREAMS - {"stdin"}
    return chosen | {"stdin"} if options["interactive"] else chosen


def _print_plan(invocation: Invocation, wanted: ContainerRequest) -> int:
    from ..verbs.explain import print_steps

    with invocation.connect() as engine:
        print_steps(engine.call("containers.plan", {"request": wanted.to_json()}))
    return 0


def id_of(result: object) -> str:
    """Return the id in a reply of run or create, after its warnings were printed."""
    if not isinstance(result, dict) or not isinstance(result.get("id"), str):
        raise Unavailable("read", "the engine's reply", "it names no container")
    warn_of(result)
    return str(result["id"])


def warn_of(result: dict[str, object]) -> None:
    warnings = result.get("warnings")
    for text in warnings if isinstance(warnings, list) else ():
        warn(f"WARNING: {text}")


class ContainerIdFile:
    """--cidfile: reserved before the container is made, so that no two runs share it; removed when none was made."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> ContainerIdFile:
        if self._path:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                raise Conflict(
                    "write",
                    f"container ID file {self._path}",
                    "container ID file found",
                    hint=f"make sure the other container isn't running or delete {self._path}",
                ) from None
            except OSError as wrong:
                raise Unavailable(
                    "write",
                    f"container ID file {self._path}",
                    wrong.strerror or str(wrong),
                    hint="name a file in a directory that you can write to",
                ) from None
        return self

    def write(self, container: str) -> None:
        if self._fd >= 0:
            os.write(self._fd, container.encode())
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            os.unlink(self._path)


RUN = Command(
    _run,
    "Create and run a new container from an image",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=request.RUN_FLAGS,
    arguments=(1, None),
    instead="rootfs",
    interspersed=False,
    aliases=("container run", "run"),
    exit_failure=125,
    passes_command_status=True,
)
CREATE = Command(
    _create,
    "Create a new container",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=request.CONTAINER_FLAGS,
    arguments=(1, None),
    instead="rootfs",
    interspersed=False,
    aliases=("container create", "create"),
)
