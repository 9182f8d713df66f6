"""More of the verbs `containers.*`: those that act on what runs, look at it, or change what was decided."""

from ....engine import strict
from ....engine.containers import changes, freezing, lifecycle, processes, pruning, usage
from ....engine.supervision import why
from ....spec.container import UpdateRequest
from .call import Args, Call, Reply, Verb


class Named(Args):
    container: str


class Restart(Args):
    container: str
    timeout_s: int | None = None
    signal: str = ""


class Rename(Args):
    container: str
    name: str


class Update(Args):
    container: str
    request: UpdateRequest


class Top(Args):
    container: str
    options: tuple[str, ...] = ()


class Stats(Args):
    """containers: none is all that run; all: those that do not run too."""

    containers: tuple[str, ...] = ()
    all: bool = False
    stream: bool = False


class Prune(Args):
    """until_ns: made before this moment. labels, without_labels: NAME or NAME=value."""

    until_ns: int | None = None
    labels: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()


def _pause(call: Call, args: Named) -> object:
    freezing.pause(call.engine, args.container)
    return {}


def _unpause(call: Call, args: Named) -> object:
    freezing.unpause(call.engine, args.container)
    return {}


def _restart(call: Call, args: Restart) -> object:
    lifecycle.restart(call.engine, args.container, args.timeout_s, args.signal)
    return {}


def _rename(call: Call, args: Rename) -> object:
    changes.rename(call.engine, args.container, args.name)
    return {}


def _update(call: Call, args: Update) -> object:
    return {"warnings": list(changes.update(call.engine, args.container, args.request))}


def _request(call: Call, args: Named) -> object:
    record = call.engine.records.find(args.container)
    again = strict.again(call.engine, record.request)
    return {"name": record.name, "request": record.request.to_json(), "again": again.to_json()}


def _stats(call: Call, args: Stats) -> object:
    stream = usage.read(call.engine, args.containers, args.all, args.stream, call.hangup)
    return Reply({"stream": True}, stream=stream)


def _prune(call: Call, args: Prune) -> object:
    ids, freed = pruning.prune(call.engine, args.until_ns, args.labels, args.without_labels)
    return {"deleted": ids, "reclaimed": freed}


VERBS: dict[str, Verb] = {
    "containers.why": Verb(Named, lambda call, args: why.answer(call.engine, args.container)),
    "containers.pause": Verb(Named, _pause),
    "containers.unpause": Verb(Named, _unpause),
    "containers.restart": Verb(Restart, _restart, lasts=True),
    "containers.rename": Verb(Rename, _rename),
    "containers.update": Verb(Update, _update),
    "containers.request": Verb(Named, _request),
    "containers.top": Verb(Top, lambda call, args: processes.top(call.engine, args.container, args.options)),
    "containers.stats": Verb(Stats, _stats, lasts=True),
    "containers.prune": Verb(Prune, _prune),
}
