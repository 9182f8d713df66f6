"""How libpod is spoken: which version, which routes, and errors as {"cause", "message", "response"}.

podman's client decides by the words of an error (errorhandling.Contains): `rm` of nothing is status 1, and 127 is what
it makes of a command that is not there. Each error here ends in the words that it looks for.
Source: podman 4.3.1, libpod/define/errors.go, pkg/errorhandling, pkg/api/server; and its answers.
"""

from __future__ import annotations

import re

from ...spec.errors import CommandFailed, Conflict, NotFound, OrlopError
from ..docker.door import STATUS, Dialect, Door, Status, Table, told
from .absent import ROUTES as ABSENT
from .build import ROUTES as BUILD
from .containers import ROUTES as CONTAINERS
from .images import ROUTES as IMAGES
from .manifests import ROUTES as MANIFESTS
from .networks import ROUTES as NETWORKS
from .secrets import ROUTES as SECRETS
from .system import ROUTES as SYSTEM
from .volumes import ROUTES as VOLUMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..docker.door import Route

VERSION = "4.3.1"
MAJORS = ("4", "5")  # what a newer client sends beside is read as its fields say, or refused by name
# The API of docker's that its shared handlers answer with: as podman's own says in Api-Version.
DOCKER_VERSION = (1, 41)
ROUTES: tuple[Route, ...] = (*SYSTEM, *CONTAINERS, *IMAGES, *VOLUMES, *NETWORKS, *SECRETS, *BUILD, *MANIFESTS, *ABSENT)

_PREFIX = re.compile(r"(?:/v([0-9]{1,3})(?:\.[0-9A-Za-z.-]{1,30})?)?(/libpod/.*)", re.DOTALL)
_MISSING = {
    "container": "no such container",
    "exec": "no such exec session",
    "image": "image not known",
    "network": "network not found",
    "secret": "no such secret",
    "volume": "no such volume",
}
_NOT_FOUND, _DENIED = 127, 126
_COMMAND = {
    _NOT_FOUND: "OCI runtime attempted to invoke a command that was not found",
    _DENIED: "OCI permission denied",
}


class Libpod(Dialect):
    headers = {
        "Api-Version": f"{DOCKER_VERSION[0]}.{DOCKER_VERSION[1]}",
        "Libpod-Api-Version": VERSION,
    }
    json_is_marked = False  # its client says of no body what it is

    def __init__(self, table: Table) -> None:
        self._table = table

    def route(self, door: Door) -> Route:
        found = _PREFIX.fullmatch(door.place)
        if found is None:
            raise Status(404, "Not Found")
        if found[1] and found[1] not in MAJORS:
            raise Status(400, f"this is version {VERSION} of libpod's API, version {found[1]} of it is not spoken")
        door.version = DOCKER_VERSION
        door.major = int(found[1] or MAJORS[0])
        route, door.parts = self._table.find(door.command, found[2])
        return route

    def failure(self, wrong: OrlopError) -> tuple[int, object]:
        if isinstance(wrong, CommandFailed):
            cause = _COMMAND.get(wrong.exit_code, "OCI runtime error")
            return _document(500, f"{wrong.cause}: {cause}", cause)
        kind, _, name = wrong.subject.partition(" ")
        if isinstance(wrong, NotFound):
            cause = _MISSING.get(kind, wrong.cause)
            known = kind in _MISSING and kind != "image"
            told_of = f"{name}: {cause}" if kind == "image" else cause
            return _document(404, f'no {kind} with name or ID "{name}" found: {cause}' if known else told_of, cause)
        if isinstance(wrong, Conflict) and kind == "container":
            cause = "that name is already in use" if wrong.verb in ("create", "rename") else "container state improper"
            return _document(409, f"{wrong.cause}: {cause}", cause)
        return _document(STATUS.get(type(wrong), 500), told(wrong), wrong.cause)

    def refusal(self, status: int, message: str) -> tuple[int, object]:
        return _document(status, message, message)


def _document(status: int, message: str, cause: str) -> tuple[int, object]:
    return status, {"cause": cause, "message": message, "response": status}


LIBPOD = Libpod(Table(ROUTES))
