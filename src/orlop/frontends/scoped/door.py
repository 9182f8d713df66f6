"""docker's Door behind a gate: each request is decided on, written down, and only then handled."""

from __future__ import annotations

import time

from ...spec import jsonio
from ...spec.container import ContainerRequest, ExecRequest
from ...spec.errors import Denied, NotFound, OrlopError
from ...spec.mount import VolumeRequest
from ...spec.network import EndpointRequest, NetworkRequest
from ..docker.door import Door, Status
from ..native.wire import peer_credentials
from . import rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from ...engine.sockets import Sockets
    from ..docker.context import Context
    from ..docker.door import Route
    from ..http import Refused
    from .gate import Gate

    R = TypeVar("R")

PATH_LENGTH_MAX = 500
_LABELLED = ("containers", "volumes", "networks")


class ScopedContext:
    """What the exchanges of one scoped socket find as their server's context."""

    def __init__(self, context: Context, gate: Gate, sockets: Sockets) -> None:
        self.context = context
        self.gate = gate
        self.sockets = sockets


class ScopedDoor(Door):
    """Answers what its gate lets through, and says of the rest what it would have needed."""

    place = ""
    _right = ""
    _is_audited = False

    @property
    def _scope(self) -> ScopedContext:
        return self.server.context  # type: ignore[return-value]  # what its Server was given

    @property
    def context(self) -> Context:
        return self._scope.context

    @property
    def gate(self) -> Gate:
        return self._scope.gate

    def handle_request(self) -> None:
        self._is_audited = False
        self._right = ""
        super().handle_request()
        if not self._is_audited:  # it came to no decision: no such version or route, a web page
            self._audit("refused before a decision", "")
        self._is_audited = False  # the connection's next request may be none that comes as far as here

    def refuse(self, wrong: Refused) -> None:
        if not self._is_audited:
            self.place = self._right = ""
            self._audit("no request that can be understood", wrong.why)
        super().refuse(wrong)

    def serve(self, route: Route) -> None:
        try:
            self._decide(route)
        except (OrlopError, Status) as wrong:
            self._audit("denied", wrong.message if isinstance(wrong, Status) else wrong.cause)
            raise
        self._audit("allowed", "")
        route[2](self)

    def _audit(self, decision: str, reason: str) -> None:
        self._is_audited = True
        pid, uid, _ = peer_credentials(self.connection)
        line: dict[str, object] = {
            "pid": pid,
            "uid": uid,
            "method": str(self.command)[:20],
            "path": self.place[:PATH_LENGTH_MAX],  # without the query, which may hold secrets
            "right": self._right,
            "decision": decision,
        }
        self._scope.sockets.audit(
            self.gate.record.name, line | ({"reason": reason[:PATH_LENGTH_MAX]} if reason else {})
        )

    # -- the decision -------------------------------------------------------------------------------------------------

    def _decide(self, route: Route) -> None:
        gate = self.gate
        if 0 < gate.record.expires_at_ns <= time.time_ns():
            raise gate.denied("it has expired")
        method, pattern, _ = route
        needed = rights.NEEDED.get((method, pattern))
        if needed is None:
            raise gate.denied(f"no socket opens {method} {pattern}")
        if pattern == "/images/create" and "fromSrc" in self.query:
            needed = "images:load"
            if self.query["fromSrc"] != "-":
                raise gate.denied("it fetches archives for nobody")
        self._right = needed
        if needed == rights.FREE:
            return
        gate.check(needed)
        if needed in rights.ABOUT_EVERYTHING and gate.record.labels:
            raise gate.denied(f"{needed} is about everything, and it sees only what has its labels")
        self._find(pattern)
        self._check_query(needed)

    def _find(self, pattern: str) -> None:
        """Resolve what the path names, so that what is executed is what was looked at. Raises NotFound."""
        if pattern.startswith("/containers/{id}"):
            self.parts["id"] = self.gate.container(self.parts["id"]).id
        elif pattern.startswith("/exec/{id}"):
            planned = self.context.planned_exec(self.parts["id"])
            try:
                self.gate.container(planned.container_id)
            except NotFound:
                shown = self.parts["id"][:64]
                raise NotFound("find", f"exec {shown}", f"No such exec instance: {shown}") from None
        elif pattern.startswith("/volumes/{name}"):
            self.gate.volume(self.parts["name"])
        elif pattern.startswith("/networks/{id}"):
            self.gate.network(self.parts["id"])
        elif pattern == "/commit":
            self.query["container"] = self.gate.container(self.query.get("container", "")).id

    def _check_query(self, needed: str) -> None:
        # ps shows environments (`e`), and so do logs, of variables that their driver was told to keep.
        if not self.gate.record.reveal:
            if needed == "containers:top" and self.query.get("ps_args"):
                raise self.gate.denied("it shows environments to nobody, so ps takes no options")
            if needed == "containers:logs" and self.flag("details"):
                raise self.gate.denied("it shows environments to nobody, so logs have no details")

    # -- what handlers ask for, and how they answer -------------------------------------------------------------------

    def filters(self) -> dict[str, tuple[str, ...]]:
        given = super().filters()
        if self._right.partition(":")[0] not in _LABELLED:
            return given
        found = self.gate.filters(given)
        return {**found, "type": ("container",)} if self._right == "containers:events" else found

    def admit(self, request: R) -> R:
        gate = self.gate
        changed: object
        if isinstance(request, ContainerRequest):
            changed = gate.creation(request)
        elif isinstance(request, ExecRequest):
            changed = gate.execution(request)
        elif isinstance(request, VolumeRequest):
            changed = gate.new_volume(request)
        elif isinstance(request, NetworkRequest):
            changed = gate.new_network(request)
        elif isinstance(request, EndpointRequest):
            changed = gate.endpoint(request)
        else:
            raise Denied("use", gate.subject, f"it knows no {type(request).__name__}")
        return changed  # type: ignore[return-value]  # of the type that came

    def container_named(self, reference: str) -> str:
        return self.gate.container(reference).id

    def answer_json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        if status < 400 and self._right == "system:info" and self.gate.record.labels and isinstance(value, dict):
            value = {key: one for key, one in value.items() if key not in _COUNTS}
        super().answer_json(status, self.gate.redacted(value) if status < 400 else value, headers)

    def answer_written(self, document: bytes) -> None:
        self.answer_json(200, jsonio.parse(document, "the answer", bytes_max=len(document)))


# Of /info: they count what the socket does not see.
_COUNTS = frozenset("Containers ContainersRunning ContainersPaused ContainersStopped".split())
