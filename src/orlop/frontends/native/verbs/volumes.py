"""The verbs `volumes.*`, and `containers.mounts`, which changes what a container has mounted."""

import stat

from ....engine.volumes import live, moving, snapshots, transfer, verbs
from ....spec.mount import MountRequest, VolumeRequest
from .call import Args, Call, Nothing, Verb


class Create(Args):
    request: VolumeRequest


class List(Args):
    filters: dict[str, tuple[str, ...]] = {}


class Named(Args):
    volume: str


class Imported(Args):
    """into: the volume is there, and gets the files; else it is made of them."""

    volume: str
    into: bool = False


class Pair(Args):
    volume: str
    name: str


class Snapshot(Args):
    volume: str
    snapshot: str = ""


class Remove(Args):
    volume: str
    force: bool = False


class Mounts(Args):
    container: str
    add: tuple[MountRequest, ...] = ()
    remove: tuple[str, ...] = ()


def _create(call: Call, args: Create) -> object:
    return {"name": verbs.create(call.engine, args.request).name}


def _remove(call: Call, args: Remove) -> object:
    verbs.remove(call.engine, args.volume, args.force)
    return {}


def _prune(call: Call, args: List) -> object:
    removed, freed = verbs.prune(call.engine, args.filters)
    return {"removed": removed, "reclaimed_bytes": freed}


def _rename(call: Call, args: Pair) -> object:
    moving.rename(call.engine, args.volume, args.name)
    return {}


def _clone(call: Call, args: Pair) -> object:
    transfer.clone(call.engine, args.volume, args.name)
    return {}


def _roll_back(call: Call, args: Snapshot) -> object:
    snapshots.roll_back(call.engine, args.volume, args.snapshot)
    return {}


def _export(call: Call, args: Named) -> object:
    transfer.export(call.engine, args.volume, call.only_fd("volumes.export", "a stream socket", stat.S_ISSOCK))
    return {}


def _import(call: Call, args: Imported) -> object:
    verb = transfer.extract if args.into else transfer.import_archive
    verb(call.engine, args.volume, call.only_fd("volumes.import", "a stream socket", stat.S_ISSOCK))
    return {}


def _mounts(call: Call, args: Mounts) -> object:
    live.change(call.engine, args.container, args.add, args.remove)
    return {}


VERBS: dict[str, Verb] = {
    "volumes.create": Verb(Create, _create),
    "volumes.list": Verb(List, lambda call, args: verbs.summaries(call.engine, args.filters)),
    "volumes.inspect": Verb(Named, lambda call, args: verbs.inspect(call.engine, args.volume)),
    "volumes.remove": Verb(Remove, _remove),
    "volumes.prune": Verb(List, _prune),
    "volumes.usage": Verb(Nothing, lambda call, _: transfer.usage(call.engine)),
    "volumes.rename": Verb(Pair, _rename),
    "volumes.clone": Verb(Pair, _clone, lasts=True),
    "volumes.snapshot": Verb(
        Snapshot, lambda call, args: {"name": snapshots.take(call.engine, args.volume, args.snapshot)}, lasts=True
    ),
    "volumes.rollback": Verb(Snapshot, _roll_back, lasts=True),
    "volumes.changes": Verb(
        Snapshot, lambda call, args: snapshots.changes(call.engine, args.volume, args.snapshot), lasts=True
    ),
    "volumes.export": Verb(Named, _export, lasts=True),
    "volumes.import": Verb(Imported, _import, lasts=True),
    "containers.mounts": Verb(Mounts, _mounts),
}
