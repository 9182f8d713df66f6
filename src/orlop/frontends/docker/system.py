"""Routes of the engine itself."""

from __future__ import annotations

from ...engine import events
from ...engine import info as facts
from .door import Door, Status
from .words import moment_ns

NOT_CACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_NO_SWARM = "This node is not a swarm manager. Orlop serves one machine."


def ping(door: Door) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8", "Builder-Version": "1", "Swarm": "inactive"}
    door.answer(200, headers | NOT_CACHED, b"OK")


def version(door: Door) -> None:
    door.answer_json(200, facts.version(door.engine))


def info(door: Door) -> None:
    door.answer_json(200, facts.info(door.engine))


def follow(door: Door) -> None:
    since, until = (moment_ns(door.query.get(name, ""), name) for name in ("since", "until"))
    pieces = events.read(door.engine, door.filters(), since, until, door.hangup)
    door.stream(200, {"Content-Type": "application/json"}, pieces)


def swarm(door: Door) -> None:
    raise Status(503, _NO_SWARM)


def plugins(door: Door) -> None:
    door.answer_json(200, [])


ROUTES = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/events", follow),
    ("GET", "/plugins", plugins),
    *(
        (method, f"/{noun}{rest}", swarm)
        for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for method in ("GET", "POST", "DELETE")
        for rest in ("", "/{rest*}")
    ),
)
