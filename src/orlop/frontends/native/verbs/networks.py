"""The verbs `networks.*`, and `containers.ports`, which changes what a container publishes."""

from ....engine.networks import cni, egress, explain, lifecycle, listing, live, names
from ....spec.network import EndpointRequest, NetworkRequest, PortRequest
from .call import Args, Call, Verb


class Create(Args):
    request: NetworkRequest


class List(Args):
    filters: dict[str, tuple[str, ...]] = {}


class Named(Args):
    network: str


class Connect(Args):
    network: str
    container: str
    request: EndpointRequest


class Disconnect(Args):
    network: str
    container: str
    force: bool = False


class Prune(Args):
    until_ns: int | None = None
    labels: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()


class Ports(Args):
    container: str
    add: tuple[PortRequest, ...] = ()
    remove: tuple[str, ...] = ()


def _ports(call: Call, args: Ports) -> object:
    live.change(call.engine, args.container, args.add, args.remove)
    return {}


def _prune(call: Call, args: Prune) -> object:
    return {"removed": lifecycle.prune(call.engine, args.until_ns, args.labels, args.without_labels)}


def _create(call: Call, args: Create) -> object:
    made = lifecycle.create(call.engine, args.request)
    return {"id": made.id, "warnings": list(lifecycle.warnings(call.engine, made))}


def _remove(call: Call, args: Named) -> object:
    return {"name": lifecycle.remove(call.engine, args.network).name}


def _connect(call: Call, args: Connect) -> object:
    lifecycle.connect(call.engine, args.network, args.container, args.request)
    return {}


def _disconnect(call: Call, args: Disconnect) -> object:
    lifecycle.disconnect(call.engine, args.network, args.container, args.force)
    return {}


class Trace(Args):
    container: str
    name: str
    kind: str = "A"


class LookAfter(Args):
    network: str
    verb: str


class OfContainer(Args):
    container: str


class Explain(Args):
    container: str
    port: str = ""


VERBS: dict[str, Verb] = {
    "networks.create": Verb(Create, _create),
    "networks.list": Verb(List, lambda call, args: listing.summaries(call.engine, args.filters)),
    "networks.inspect": Verb(Named, lambda call, args: listing.details(call.engine, args.network)),
    "networks.remove": Verb(Named, _remove),
    "networks.prune": Verb(Prune, _prune),
    "networks.connect": Verb(Connect, _connect),
    "networks.disconnect": Verb(Disconnect, _disconnect),
    "networks.look_after": Verb(LookAfter, lambda call, args: cni.look_after(call.engine, args.network, args.verb)),
    "networks.egress": Verb(OfContainer, lambda call, args: egress.attempts(call.engine, args.container)),
    "networks.explain": Verb(Explain, lambda call, args: explain.explain(call.engine, args.container, args.port)),
    "containers.ports": Verb(Ports, _ports),
    "networks.trace": Verb(Trace, lambda call, args: names.trace(call.engine, args.container, args.name, args.kind)),
}
