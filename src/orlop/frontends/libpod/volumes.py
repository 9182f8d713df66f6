"""Routes of volumes."""

from __future__ import annotations

from ...engine.labels import has_label
from ...engine.volumes import transfer, verbs
from ...spec.errors import Conflict, NotFound
from ...spec.mount import VOLUME, VolumeRequest
from ..docker import creation
from ..docker.archives import TAR, Work
from ..docker.door import Door
from .filters import chosen, is_before, others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FILTERS: dict[str, Callable[[Mapping[str, object], str], bool]] = {
    "opt": lambda one, value: has_label(one["Options"] or {}, value),  # type: ignore[arg-type]
    "scope": lambda one, value: one["Scope"] == value,
    "until": lambda one, value: is_before(one["CreatedAt"], value),
}


def list_all(door: Door) -> None:
    filters = door.filters()
    found = verbs.summaries(door.engine, others(filters, _FILTERS))
    door.answer_json(200, [_object(door, one) for one in chosen(found, filters, _FILTERS)])


def create(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    request = VolumeRequest(
        name=body.text("Name"),
        driver=body.text("Driver"),
        driver_options=body.pairs("Options"),
        labels={**body.pairs("Labels"), **body.pairs("Label")},  # its client writes the second
    )
    if request.name and not body.boolean("IgnoreIfExists") and door.engine.volumes.find(request.name):
        cause = f"volume with name {request.name} already exists: volume already exists"
        raise Conflict("create", f"volume {request.name}", cause, hint="use it, or remove it first")
    record = verbs.create(door.engine, door.admit(request))
    door.answer_json(201, _object(door, verbs.inspect(door.engine, record.name)))


def inspect(door: Door) -> None:
    door.answer_json(200, _object(door, verbs.inspect(door.engine, door.parts["name"])))


def exists(door: Door) -> None:
    door.engine.volumes.load(door.parts["name"])
    door.answer(204)


def remove(door: Door) -> None:
    force = door.flag("force")
    if force:
        from ...engine.containers import lifecycle

        for user in _users(door, door.parts["name"]):  # podman's force takes the containers with it
            lifecycle.remove(door.engine, user, True)
    verbs.remove(door.engine, door.parts["name"], force=False)
    door.answer(204)


def prune(door: Door) -> None:
    filters = door.filters()
    sizes = {str(one["Name"]): verbs.usage(door.engine, str(one["Name"])) for one in verbs.summaries(door.engine, {})}
    names, _ = verbs.prune(door.engine, {**filters, "all": ("true",)})  # podman's are all, named or not
    door.answer_json(200, [{"Id": name, "Err": None, "Size": sizes.get(name, 0)} for name in names])


def export(door: Door) -> None:
    name = door.parts["name"]
    transfer.own_directory(door.engine, name, "export")  # while the status can still tell that it is not there
    work = Work(lambda fd: transfer.export(door.engine, name, fd))
    door.stream(200, {"Content-Type": TAR}, work.pieces())


def import_archive(door: Door) -> None:
    """Put an archive's files into a volume that is there."""
    Work(lambda fd: transfer.extract(door.engine, door.parts["name"], fd)).feed(door.pieces())
    door.answer(204)


def _users(door: Door, name: str) -> list[str]:
    found = [
        record.id
        for record in door.engine.records.all()
        if any(point.type == VOLUME and point.name == name for point in record.mounts)
    ]
    if not found:
        door.engine.volumes.load(name)  # NotFound
    return found


def _object(door: Door, found: Mapping[str, object]) -> dict[str, object]:
    """Return podman's InspectVolume of docker's object."""
    try:
        record = door.engine.volumes.load(str(found["Name"]))
        anonymous = record.is_anonymous
    except NotFound:  # removed meanwhile
        anonymous = False
    return {
        "Name": found["Name"],
        "Driver": found["Driver"],
        "Mountpoint": found["Mountpoint"],
        "CreatedAt": found["CreatedAt"],
        "Labels": found["Labels"] or {},
        "Scope": found["Scope"],
        "Options": found["Options"] or {},
        **({"Anonymous": True} if anonymous else {}),
        "MountCount": 0,
    }


ROUTES = (
    ("GET", "/libpod/volumes/json", list_all),
    ("POST", "/libpod/volumes/create", create),
    ("POST", "/libpod/volumes/prune", prune),
    ("GET", "/libpod/volumes/{name}/exists", exists),
    ("GET", "/libpod/volumes/{name}/json", inspect),
    ("GET", "/libpod/volumes/{name}/export", export),
    ("POST", "/libpod/volumes/{name}/import", import_archive),
    ("DELETE", "/libpod/volumes/{name}", remove),
)
