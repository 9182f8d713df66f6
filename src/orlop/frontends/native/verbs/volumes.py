"""The verbs `volumes.*`."""

from ....engine.volumes import verbs
from ....spec.mount import VolumeRequest
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


def _create(call: Call, args: Create) -> object:
    return {"name": verbs.create(call.engine, args.request).name}


def _remove(call: Call, args: Remove) -> object:
    verbs.remove(call.engine, args.volume, args.force)
    return {}


def _prune(call: Call, args: List) -> object:
    removed, freed = verbs.prune(call.engine, args.filters)
    return {"removed": removed, "reclaimed_bytes": freed}


VERBS: dict[str, Verb] = {
    "volumes.create": Verb(Create, _create),
    "volumes.list": Verb(List, lambda call, args: verbs.summaries(call.engine, args.filters)),
    "volumes.inspect": Verb(Named, lambda call, args: verbs.inspect(call.engine, args.volume)),
    "volumes.remove": Verb(Remove, _remove),
    "volumes.prune": Verb(List, _prune),
}
