"""The verbs `manifests.*`."""

from ....spec.registry import Credentials
from .call import Args, Call, Verb


class Create(Args):
    name: str
    images: tuple[str, ...]
    amend: bool = False
    credentials: Credentials = Credentials()


class Annotate(Args):
    name: str
    image: str
    changes: dict[str, str] = {}
    features: tuple[str, ...] = ()


class Drop(Args):
    name: str
    digests: tuple[str, ...]


class Inspected(Args):
    name: str
    verbose: bool = False
    credentials: Credentials = Credentials()


class Push(Args):
    name: str
    to: str = ""
    purge: bool = False
    credentials: Credentials = Credentials()


class Remove(Args):
    names: tuple[str, ...]


def _create(call: Call, args: Create) -> object:
    from ....engine.images import manifests

    return {"name": manifests.create(call.engine, args.name, args.images, args.credentials, amend=args.amend)}


def _annotate(call: Call, args: Annotate) -> object:
    from ....engine.images import manifests

    manifests.annotate(call.engine, args.name, args.image, args.changes, args.features)
    return {}


def _inspect(call: Call, args: Inspected) -> object:
    from ....engine.images import manifests

    if args.verbose:
        return manifests.inspect_verbose(call.engine, args.name, args.credentials)
    return manifests.inspect(call.engine, args.name, args.credentials)


def _drop(call: Call, args: Drop) -> object:
    from ....engine.images import manifests

    manifests.drop(call.engine, args.name, args.digests)
    return {}


def _push(call: Call, args: Push) -> object:
    from ....engine.images import manifests

    members = manifests.members(call.engine, args.name)
    digest = manifests.push(call.engine, args.name, args.credentials, to=args.to, purge=args.purge)
    return {"digest": digest, "members": members}


def _remove(call: Call, args: Remove) -> object:
    from ....engine.images import manifests

    manifests.remove(call.engine, args.names)
    return {}


VERBS: dict[str, Verb] = {
    "manifests.create": Verb(Create, _create, lasts=True),
    "manifests.annotate": Verb(Annotate, _annotate),
    "manifests.drop": Verb(Drop, _drop),
    "manifests.inspect": Verb(Inspected, _inspect, lasts=True),
    "manifests.push": Verb(Push, _push, lasts=True),
    "manifests.remove": Verb(Remove, _remove),
}
