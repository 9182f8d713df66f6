"""The verbs `secrets.*` and `configs.*`."""

from ....spec.container import CONFIG, SECRET, DataRequest
from .call import Args, Call, Verb


class Create(Args):
    request: DataRequest


class List(Args):
    filters: dict[str, tuple[str, ...]] = {}


class Named(Args):
    name: str


class Rekey(Args):
    earlier: str = ""


def _rekey(call: Call, args: Rekey) -> object:
    from ....engine import secrets

    return {"sealed": secrets.rekey(call.engine, args.earlier)}


def _verbs(kind: str) -> dict[str, Verb]:
    from ....engine import secrets

    def create(call: Call, args: Create) -> object:
        return {"id": secrets.create(call.engine, kind, args.request)}

    def remove(call: Call, args: Named) -> object:
        return {"name": secrets.remove(call.engine, kind, args.name)}

    return {
        f"{kind}s.create": Verb(Create, create),
        f"{kind}s.list": Verb(List, lambda call, args: secrets.listed(call.engine, kind, args.filters)),
        f"{kind}s.inspect": Verb(Named, lambda call, args: secrets.inspect(call.engine, kind, args.name)),
        f"{kind}s.remove": Verb(Named, remove),
    }


VERBS: dict[str, Verb] = {**_verbs(SECRET), **_verbs(CONFIG), "secrets.rekey": Verb(Rekey, _rekey)}
