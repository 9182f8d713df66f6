"""The verbs `volumes.*`, and `containers.mounts`, which changes what a container has mounted."""

from ....engine.volumes import live, verbs
from ....spec.mount import MountRequest, VolumeRequest
from .call import Args, Call, Verb


class Create(Args):
    request: VolumeRequest


class List(Args):
    filters: dict[str, tuple[str, ...]] = {}


class Named(Args):
    volume: str


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


def _mounts(call: Call, args: Mounts) -> object:
    live.change(call.engine, args.container, args.add, args.remove)
    return {}


VERBS: dict[str, Verb] = {
    "volumes.create": Verb(Create, _create),
    "volumes.list": Verb(List, lambda call, args: verbs.summaries(call.engine, args.filters)),
    "volumes.inspect": Verb(Named, lambda call, args: verbs.inspect(call.engine, args.volume)),
    "volumes.remove": Verb(Remove, _remove),
    "volumes.prune": Verb(List, _prune),
    "containers.mounts": Verb(Mounts, _mounts),
}
