"""Routes of volumes."""

from __future__ import annotations

from ...engine.volumes import verbs
from ...spec.mount import VolumeRequest
from . import creation
from .door import Door, Status
from .swarm import NO_MANAGER


def list_all(door: Door) -> None:
    door.answer_json(200, {"Volumes": verbs.summaries(door.engine, door.filters()), "Warnings": None})


def create(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    if "ClusterVolumeSpec" in body:
        raise Status(503, NO_MANAGER)
    request = VolumeRequest(
        name=body.text("Name"),
        driver=body.text("Driver"),
        driver_options=body.pairs("DriverOpts"),
        labels=body.pairs("Labels"),
    )
    record = verbs.create(door.engine, door.admit(request))
    door.answer_json(201, verbs.inspect(door.engine, record.name))


def inspect(door: Door) -> None:
    door.answer_json(200, verbs.inspect(door.engine, door.parts["name"]))


def remove(door: Door) -> None:
    verbs.remove(door.engine, door.parts["name"], door.flag("force"))
    door.answer(204)


def prune(door: Door) -> None:
    names, freed = verbs.prune(door.engine, door.filters())
    door.answer_json(200, {"VolumesDeleted": names, "SpaceReclaimed": freed})


ROUTES = (
    ("GET", "/volumes", list_all),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("DELETE", "/volumes/{name}", remove),
)
