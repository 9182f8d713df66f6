"""One docker client's connection: the version in its path, the route, the errors in docker's form.

A route is (method, pattern, function). In a pattern, {name} is one part of the path and {name*} is one or more (the
name of an image has slashes). The first route that fits is taken.
Source: moby's api/swagger.yaml and api/server/router, versions 1.40 to 1.50.
"""

from __future__ import annotations

import re
import socket

from ... import __version__
from ...engine import caller
from ...spec import jsonio
from ...spec.errors import CommandFailed, Conflict, Denied, Invalid, NotFound, OrlopError, Unavailable, Unsupported
from ..http import Exchange, Refused, pages
from ..native.wire import peer_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from ...engine.engine import Engine
    from ..http.tls import Bridge
    from .context import Context

    R = TypeVar("R")
    Handler = Callable[["Door"], None]
    Route = tuple[str, str, Handler]

VERSION, VERSION_MIN = (1, 50), (1, 40)
# skopeo, podman and buildah copy from and to `docker-daemon:` with version 1.22 (containers/image,
# docker/daemon/client.go) and ask for nothing but these, which are the same since.
VERSION_OF_ARCHIVES = (1, 22)
_LIBPOD = re.compile(r"/(?:v[^/]*/)?libpod(?:/|$)")
_ARCHIVES = re.compile("/images/(get|load|.+/get)")
BODY_BYTES_MAX = 8 * 1024 * 1024
STATUS: dict[type[OrlopError], int] = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 400,
    Denied: 403,
    Unavailable: 500,
    Unsupported: 501,
}
# What docker's daemon says of the command of a start: the client makes exit statuses 126 and 127 of it.
_COMMAND_STATUS = 400


class Status(Exception):
    """An answer that is no error of the engine's: (HTTP status, docker's text)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Dialect:
    """How an API that is served on these connections is spoken. This is docker's, and the base of the others.

    headers: of every answer. json_is_marked: a body must say that it is JSON; else it must not say that it is a form.
    """

    headers: Mapping[str, str] = {
        "Api-Version": f"{VERSION[0]}.{VERSION[1]}",
        "Docker-Experimental": "false",
        "Ostype": "linux",
    }
    json_is_marked = True

    def route(self, door: Door) -> Route:
        """Find the route of a request; note its version and the parts of its path. Raises Status."""
        door.version, place = _split_version(door.place)
        route, door.parts = door.context.table.find(door.command, place)
        return route

    def failure(self, wrong: OrlopError) -> tuple[int, object]:
        """Return the status and the document of the answer that tells an error."""
        if isinstance(wrong, CommandFailed):  # what docker's users look for
            return self.refusal(_COMMAND_STATUS, f"OCI runtime create failed: {told(wrong)}")
        return self.refusal(STATUS.get(type(wrong), 500), told(wrong))

    def refusal(self, status: int, message: str) -> tuple[int, object]:
        """Return the same of a text."""
        return status, {"message": message}


DOCKER = Dialect()


class Table:
    """Routes, compiled."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(_compile(route[1]), route) for route in routes]

    def find(self, method: str, place: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a request and the parts that its pattern names. Raises Status."""
        for pattern, route in self._routes:
            if route[0] == method and (found := pattern.fullmatch(place)):
                return route, found.groupdict()
        raise Status(404, "page not found")  # for a wrong method too, as docker's daemon


class Door(Exchange):
    """What a handler gets: the parts of the path in `parts`, the query in `query`, the engine, and ways to answer."""

    parts: dict[str, str]
    version: tuple[int, int]
    major = 0  # of another dialect's version, as the path has it
    dialect = DOCKER
    _bridge: Bridge | None = None  # of a hijacked TLS connection

    @property
    def context(self) -> Context:
        return self.server.context  # type: ignore[return-value]  # what its Server was given

    @property
    def engine(self) -> Engine:
        return self.context.engine

    def version_string(self) -> str:
        return f"Docker/{__version__} (linux)"

    def handle_request(self) -> None:
        self._note_caller()
        self.dialect = _dialect_of(self.place)
        try:
            self._refuse_browsers()
            self.serve(self.dialect.route(self))
        except Status as wrong:
            self._fail(*self.dialect.refusal(wrong.status, wrong.message))
        except OrlopError as wrong:
            self._fail(*self.dialect.failure(wrong))
        except (Refused, ConnectionError, TimeoutError):
            raise  # of the connection
        except Exception as wrong:
            if isinstance(wrong, OSError) and self.is_answered:
                raise
            reference = self.engine.log.exception(f"{self.command} {self.place[:200]}", wrong)
            self._fail(*self.dialect.refusal(500, f"a defect of the engine, error {reference}: {wrong}"))
        finally:
            if self._bridge is not None:
                self._bridge.close()

    def _note_caller(self) -> None:
        if self.connection.family == socket.AF_UNIX:
            pid, uid, _ = peer_credentials(self.connection)
            caller.note(pid, uid)
        else:
            caller.note(0, 0)

    def serve(self, route: Route) -> None:
        """Handle a request whose route was found."""
        route[2](self)

    def admit(self, request: R) -> R:
        """Return what may be made of a request. Raises Denied. Here everything may."""
        return request

    def container_named(self, reference: str) -> str:
        """Return the container that a body names, as the engine is to find it. Raises NotFound."""
        return reference

    def _refuse_browsers(self) -> None:
        # Whom they name as host says nothing here: clients of a unix socket name what they like, and of TLS the
        # certificate (SEC-72).
        if pages.are_asking(self.headers, self.authority):
            raise Status(403, "requests of web pages are not served")

    def refuse(self, wrong: Refused) -> None:
        self._fail(*self.dialect.refusal(wrong.status, wrong.why))

    def common_headers(self) -> dict[str, str]:
        return {**self.dialect.headers, **super().common_headers()}

    def _fail(self, status: int, document: object) -> None:
        if self.is_answered:
            self.close_connection = True  # in the middle of a stream: its end is all that can be told
            return
        self.answer_json(status, document)

    def answer_written(self, document: bytes) -> None:
        """Answer with a JSON document that is written already."""
        self.answer(200, {"Content-Type": "application/json"}, document)

    # -- what a request says ------------------------------------------------------------------------------------------

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value of the query as docker reads it: anything but "", 0, no, false and none."""
        value = self.query.get(name)
        return default if value is None else value.strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str) -> int | None:
        """Return a number of the query, None when it is not there. Raises Status."""
        value = self.query.get(name, "")
        if not value:
            return None
        try:
            return int(value) if len(value) < 20 and value.isascii() else int("no")
        except ValueError:
            raise Status(400, f"invalid value for {name}: {value[:60]!r}") from None

    def json(self) -> dict[str, Any]:
        """Return the body, a JSON object; {} for an empty one. Raises Status."""
        data = self.body(BODY_BYTES_MAX)
        if not data:
            return {}
        default = "" if self.dialect.json_is_marked else "application/json"
        if self.headers.get("Content-Type", default).partition(";")[0].strip() != "application/json":
            raise Status(400, 'Content-Type specified is not "application/json"')
        return parse_body(data)

    def filters(self) -> dict[str, tuple[str, ...]]:
        """Return the filters of the query: {"key": {"value": true}}, or the older {"key": ["value"]}. Raises Status."""
        text = self.query.get("filters", "")
        found = jsonio.parse_object(text, "the filters") if text else {}
        out = {}
        for key, values in found.items():
            if isinstance(values, dict):
                out[key] = tuple(str(value) for value, wanted in values.items() if wanted)
            elif isinstance(values, list):
                out[key] = tuple(map(str, values))
            else:
                raise Status(400, f"invalid filter {key[:60]!r}")
        return out

    # -- answers that take their time ---------------------------------------------------------------------------------

    @property
    def hangup(self) -> int:
        """The descriptor on which the client's leaving is seen."""
        return int(self.connection.fileno())

    @property
    def upgrade(self) -> str:
        """What the client wants the connection to become, "" where it has not said so."""
        asks = "upgrade" in self.headers.get("Connection", "").lower()
        return self.headers.get("Upgrade") if asks else ""

    def hijack(self, headers: dict[str, str]) -> tuple[socket.socket, bytes]:
        """End HTTP on this connection; return it, and what the client has sent already."""
        self.close_connection = True
        upgrade = self.upgrade
        self.begin_raw(101 if upgrade else 200, headers, upgrade)
        self.connection.settimeout(None)
        ahead = self.taken_ahead()
        if self.server.tls is None:
            return self.connection, ahead
        from ..http.tls import Bridge

        self._bridge = Bridge(self.connection)  # type: ignore[arg-type]  # it is TLS's
        return self._bridge.plain, ahead


def parse_body(data: bytes) -> dict[str, Any]:
    """Return the object of a body. Raises Invalid."""
    return jsonio.without_nul(jsonio.parse_object(data, "the request", bytes_max=BODY_BYTES_MAX), "the request")


def told(wrong: OrlopError) -> str:
    """Return what a client is told of an error."""
    # The cause is docker's text; the next step is ours. Of docker-py's own tests one compares it.
    return f"{wrong.cause}\nNext: {wrong.hint}" if wrong.hint and not isinstance(wrong, NotFound) else wrong.cause


def _dialect_of(place: str) -> Dialect:
    if not _LIBPOD.match(place):
        return DOCKER
    from ..libpod.dialect import LIBPOD  # for podman's clients only

    return LIBPOD


def _split_version(place: str) -> tuple[tuple[int, int], str]:
    found = re.match(r"/v([0-9]{1,3})\.([0-9]{1,3})(?=/)", place)
    if not found:
        return VERSION, place
    version, rest = (int(found[1]), int(found[2])), place[found.end() :]
    told = f"{version[0]}.{version[1]}"
    if version < (VERSION_OF_ARCHIVES if _ARCHIVES.fullmatch(rest) else VERSION_MIN):
        least = f"{VERSION_MIN[0]}.{VERSION_MIN[1]}"
        raise Status(
            400,
            f"client version {told} is too old. Minimum supported API version is {least}, please upgrade your client to"
            " a newer version",
        )
    if version > VERSION:
        most = f"{VERSION[0]}.{VERSION[1]}"
        raise Status(400, f"client version {told} is too new. Maximum supported API version is {most}")
    return version, rest


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)(\*?)\}", lambda part: f"(?P<{part[1]}>{'.+' if part[2] else '[^/]+'})", pattern))
