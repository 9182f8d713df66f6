"""Routes of the engine itself."""

from __future__ import annotations

from ...engine import events
from ...engine import info as facts
from ...engine.containers.inspect import unix_time
from ...engine.images import disk
from ...engine.volumes import verbs as volume_verbs
from . import older
from .door import Door, Status
from .images import summaries as listed_images
from .words import moment_ns

NOT_CACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
# A value of ?type=: what of the answer it asks for.
_KINDS = {"image": "Images", "container": "Containers", "volume": "Volumes", "build-cache": "BuildCache"}


def ping(door: Door) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8", "Builder-Version": "1", "Swarm": "inactive"}
    door.answer(200, headers | NOT_CACHED, b"OK")


def version(door: Door) -> None:
    door.answer_json(200, facts.version(door.engine))


def info(door: Door) -> None:
    door.answer_json(200, facts.info(door.engine))


def follow(door: Door) -> None:
    since, until = (moment_ns(door.query.get(name, ""), name) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        first, last = door.query["since"][:40], door.query["until"][:40]
        raise Status(400, f"`since` time ({first}) cannot be after `until` time ({last})")
    pieces = events.read(door.engine, door.filters(), since, until, door.hangup)
    door.stream(200, {"Content-Type": "application/json"}, pieces)


def disk_usage(door: Door) -> None:
    kinds = door.every("type") or list(_KINDS)
    if unknown := set(kinds) - set(_KINDS):
        raise Status(400, f"unknown object type: {min(unknown)[:60]}")
    found = disk.usage(door.engine)
    images, volumes = objects(found["Images"]), objects(found["Volumes"])
    told = {str(one["Id"]): one for one in older.images(listed_images(door.engine, {}), door.version)}
    found["Images"] = [
        told.get(str(one["Id"]), {}) | one | {"Created": unix_time(str(one["Created"]))} for one in images
    ]
    by_name = {str(one["Name"]): one for one in volume_verbs.summaries(door.engine, {})}
    found["Volumes"] = [by_name.get(str(one["Name"]), {}) | one for one in volumes]
    wanted = {_KINDS[kind] for kind in kinds}
    told_size = found["LayersSize"] if "Images" in wanted else 0
    chosen = {name: found[name] if name in wanted else None for name in _KINDS.values()}
    door.answer_json(200, {"LayersSize": told_size} | chosen)


def objects(value: object) -> list[dict[str, object]]:
    """Return a list of JSON objects as what it is."""
    assert isinstance(value, list)
    return value


def preflight(door: Door) -> None:
    door.answer(200)  # without one header of CORS: a browser's page gets nothing from it (SEC-72)


ROUTES = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/events", follow),
    ("GET", "/system/df", disk_usage),
    ("OPTIONS", "/{any*}", preflight),
)
