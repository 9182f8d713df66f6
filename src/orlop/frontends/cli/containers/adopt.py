"""`orlop adopt`: a container of docker's or podman's, read through docker's API, made here anew. Nothing changes there.

It is the definition that is taken: what `docker inspect` says, and the image where it is not here. What the other
engine keeps of its own is not: what the container wrote, what is in its named volumes, the addresses that it had.
"""

from __future__ import annotations

import os
import socket
from urllib.parse import quote

from ....spec import jsonio
from ....spec.errors import Invalid, NotFound, Unavailable
from ..command import Command, Invocation, for_output, warn, write_line
from ..flags import BOOL, STRING, Flag
from .run import id_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse
    from typing import Any

    from ....spec.container import ContainerRequest
    from ...docker.creation import Reader
    from ...native.client import Engine

SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock")
SILENCE_S_MAX = 60.0
VERSION = "v1.40"  # which docker from 19.03 on speaks, and podman from 3.0 on
_UNIX = "unix://"
_LOG_DRIVERS = {"k8s-file": "json-file", "journald": "journald", "passthrough": "json-file"}
_HEX = frozenset("0123456789abcdef")
_ID_LENGTH, _SHORT = 64, 12
# What an engine says of itself in a container's definition: its runtime, its cgroups, and what it masks by default.
_OF_THE_ENGINE = ("Runtime", "CgroupParent", "Cgroup", "ContainerIDFile", "ConsoleSize", "MaskedPaths", "ReadonlyPaths")


def adopted(found: dict[str, Any]) -> tuple[ContainerRequest, list[str]]:
    """Return what makes the container that docker's object tells of, and what of it stays behind. Raises Invalid,
    Unsupported."""
    from ...docker.creation import Reader, container

    told = Reader(found, "the container")
    config, host = told.entries("Config"), told.entries("HostConfig")
    identifier, name = told.text("Id"), told.text("Name").removeprefix("/")
    if identifier.startswith(str(config.get("Hostname") or "-")):
        config["Hostname"] = ""
    for field in _OF_THE_ENGINE:
        host.pop(field, None)
    left = []
    log = Reader(host.get("LogConfig"), "LogConfig")
    if log.text("Type") in _LOG_DRIVERS:
        driver = _LOG_DRIVERS[log.text("Type")]
        host["LogConfig"] = {"Type": driver, "Config": {}}
        left.append(f"its log driver {log.text('Type')}: it is {driver} here")
    host["Binds"] = [_bind(one, left) for one in Reader(host, "HostConfig").texts("Binds")]
    host["Ulimits"] = [_ulimit(one) for one in Reader(host, "HostConfig").parts("Ulimits")]
    for point in told.parts("Mounts"):
        if point.text("Type") == "volume" and not _is_id(point.text("Name")):
            left.append(
                f"what is in its volume {point.text('Name')}: one of that name begins empty here, if there is none"
            )
    networks = told.part("NetworkSettings").entries("Networks")
    endpoints = {name: _endpoint(Reader(one, "Networks"), identifier) for name, one in networks.items()}
    body = config | {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}
    return container(body, name, ""), left


def _bind(text: str, left: list[str]) -> str:
    """Return docker's form of a bind in podman's, which tells all options of the mount."""
    place, separator, options = text.rpartition(":")
    if not (separator and ":" in place):
        return text
    silent = {"rbind", "nosuid", "nodev"} | (set() if place.startswith("/") else {"rprivate", "private"})
    words = [word for word in options.split(",") if word not in silent]
    left += [f"{word} of {place}" for word in ("nosuid", "nodev") if word in options.split(",")]
    return f"{place}:{','.join(words)}"


def _ulimit(one: Reader) -> dict[str, object]:
    """Return docker's form of a limit; podman writes its name as the system does."""
    name = one.text("Name").lower().removeprefix("rlimit_")
    return {"Name": name, "Soft": one.number("Soft"), "Hard": one.number("Hard")}


def _is_id(text: str) -> bool:
    return len(text) == _ID_LENGTH and not set(text) - _HEX


def _endpoint(one: Reader, identifier: str) -> dict[str, object]:
    """Return the wishes of a place in a network: without the address that its engine chose, and its own short id."""
    ipam = one.entries("IPAMConfig")
    aliases = [alias for alias in one.texts("Aliases") if not identifier.startswith(alias)]
    return {"Aliases": aliases, "IPAMConfig": ipam or None, "Links": one.texts("Links") or None}


class _Other:
    """The other engine, behind a unix socket."""

    def __init__(self, place: str) -> None:
        self.place = place

    def document(self, path: str) -> dict[str, Any]:
        """Return a JSON object. Raises NotFound, Unavailable, Invalid."""
        with self._get(path) as answer:
            data = answer.read(jsonio.DOCUMENT_BYTES_MAX + 1)
        return jsonio.parse_object(data, f"the answer of {self.place}")

    def archive(self, image: str) -> int:
        """Return a descriptor of an image's archive. Raises NotFound, Unavailable."""
        from ..images.fetch import kept

        with self._get(f"/images/{quote(image, safe='')}/get") as answer:
            return kept(f"{self.place} {image}", answer)

    def _get(self, path: str) -> HTTPResponse:
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection("engine", timeout=SILENCE_S_MAX)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SILENCE_S_MAX)
        try:
            connection.sock.connect(self.place)
            connection.request("GET", f"/{VERSION}{path}", headers={"Connection": "close"})
            answer = connection.getresponse()
        except (OSError, HTTPException) as wrong:
            cause = getattr(wrong, "strerror", None) or str(wrong)
            hint = "name the other engine's socket: --from unix:///run/docker.sock"
            raise Unavailable("ask", self.place, str(cause).lower(), hint=hint) from None
        if answer.status == 404:
            raise NotFound("find", path.split("/")[2], f"{self.place} knows none of that name", hint="list them there")
        if answer.status != 200:
            said = answer.read(400).decode(errors="replace")
            raise Unavailable("ask", self.place, f"it answers {answer.status}: {said}", hint="look at its log")
        return answer


def _place(text: str) -> str:
    wanted = text or os.environ.get("DOCKER_HOST", "")
    if wanted:
        if not wanted.startswith(_UNIX):
            cause = "other engines are asked on unix sockets only"
            raise Invalid("adopt", wanted[:100], cause, hint="ssh -L can bring one here")
        return wanted.removeprefix(_UNIX)
    return next((place for place in SOCKETS if os.path.exists(place)), SOCKETS[0])


def _adopt(invocation: Invocation) -> int:
    options = invocation.options
    other = _Other(_place(options["from"]))
    found = other.document(f"/containers/{quote(invocation.arguments[0], safe='')}/json")
    request, left = adopted(found)
    request = request.replace(name=options["name"] or request.name)
    if options["print"]:
        import shlex

        from ..commandline import words

        write_line(for_output("orlop " + shlex.join(words(request, request.name))))
    else:
        with invocation.connect() as engine:
            _bring_image(engine, other, request.image)
            write_line(id_of(engine.call("containers.create", {"request": request.to_json()})))
    for one in left:
        warn(for_output(f"Left behind: {one}"))
    return 0


def _bring_image(engine: Engine, other: _Other, image: str) -> None:
    try:
        engine.call("images.inspect", {"image": image})
    except NotFound:
        archive = other.archive(image)
        try:
            for _ in engine.messages("images.load", {"platform": ""}, [archive]):
                pass
        finally:
            os.close(archive)


ADOPT = Command(
    _adopt,
    "Make a container here as docker or podman has it, without touching theirs",
    "[OPTIONS] CONTAINER",
    flags=(
        Flag(
            "from", "", STRING, "The other engine's socket (default DOCKER_HOST, or docker's or podman's)", default=""
        ),
        Flag("name", "", STRING, "Another name for it", default=""),
        Flag("print", "", BOOL, "Print the command line that makes it, and make nothing", default=False),
    ),
    arguments=(1, 1),
)
