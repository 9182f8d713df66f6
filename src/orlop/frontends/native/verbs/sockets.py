"""The verbs `sockets.*`."""

from ....engine.sockets.record import SocketRequest
from .call import Args, Call, Nothing, Verb


class Create(Args):
    request: SocketRequest


class Named(Args):
    socket: str


def _create(call: Call, args: Create) -> object:
    record = call.engine.sockets.create(args.request)
    return {"path": f"{call.engine.paths.run}/sockets/{record.name}.sock"}


def _list(call: Call, _: Nothing) -> object:
    live = call.engine.sockets.live()
    run = call.engine.paths.run
    return [
        {**one.to_json(), "path": f"{run}/sockets/{one.name}.sock", "live": one.name in live}
        for one in call.engine.sockets.all()
    ]


def _remove(call: Call, args: Named) -> object:
    call.engine.sockets.remove(args.socket)
    return {}


def _audit(call: Call, args: Named) -> object:
    return list(call.engine.sockets.audited(args.socket))


VERBS: dict[str, Verb] = {
    "sockets.create": Verb(Create, _create),
    "sockets.list": Verb(Nothing, _list),
    "sockets.remove": Verb(Named, _remove),
    "sockets.audit": Verb(Named, _audit),
}
