"""The verbs `containers.*`."""

from ....engine.audit import verb as audit
from ....engine.containers import ends, execs, explain, lifecycle, listing, streams
from ....engine.containers.watch import EXITED
from ....engine.rootfs import mounted
from ....spec.container import ContainerRequest, ExecRequest
from ....spec.errors import Invalid
from ....spec.runtime import Box
from .call import Args, Call, Reply, Verb


class Requested(Args):
    request: ContainerRequest


class Run(Args):
    request: ContainerRequest
    attached: bool = False
    console_size: Box | None = None


class Start(Args):
    container: str
    attached: bool = False
    console_size: Box | None = None


class Named(Args):
    container: str


class Inspect(Args):
    container: str
    size: bool = False


class List(Args):
    all: bool = False
    size: bool = False
    filters: dict[str, tuple[str, ...]] = {}


class Logs(Args):
    """Moments in nanoseconds since 1970; tail None is everything. marks, place: see streams.LogRequest."""

    container: str
    follow: bool = False
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False
    details: bool = False
    marks: bool = False
    place: tuple[int, ...] | None = None


class Exec(Args):
    container: str
    request: ExecRequest
    attached: bool = False
    console_size: Box | None = None


class Told(Args):
    container: str
    did: str
    exec: str = ""
    size: Box | None = None


class ExecKill(Args):
    exec: str
    signal: str = ""


class NamedExec(Args):
    exec: str


class Stop(Args):
    container: str
    timeout_s: int | None = None
    signal: str = ""


class Kill(Args):
    container: str
    signal: str = ""


class Remove(Args):
    container: str
    force: bool = False
    volumes: bool = False


class Unmount(Args):
    container: str
    force: bool = False


class Wait(Args):
    container: str
    condition: str = EXITED


def _run(call: Call, args: Run) -> object:
    client = call.client("containers.run", attached=args.attached, size=args.console_size)
    record, warnings = lifecycle.run(call.engine, args.request, client)
    return {"id": record.id, "warnings": list(warnings)}


def _create(call: Call, args: Requested) -> object:
    record, warnings = lifecycle.create(call.engine, args.request)
    return {"id": record.id, "warnings": list(warnings)}


def _start(call: Call, args: Start) -> object:
    client = call.client("containers.start", attached=args.attached, size=args.console_size)
    lifecycle.start(call.engine, args.container, client)
    return {}


def _exec(call: Call, args: Exec) -> object:
    client = call.client("containers.exec", attached=args.attached, size=args.console_size)
    exec_id, pid = execs.start(call.engine, args.container, args.request, client)
    return {"exec_id": exec_id, "pid": pid}


def _told(call: Call, args: Told) -> object:
    size = (args.size.height, args.size.width) if args.size is not None else None
    streams.told(call.engine, args.container, args.did, args.exec, size)
    return {}


def _exec_kill(call: Call, args: ExecKill) -> object:
    execs.kill(call.engine, args.exec, args.signal)
    return {}


def _logs(call: Call, args: Logs) -> object:
    wanted = streams.LogRequest(
        follow=args.follow,
        tail=args.tail,
        since_ns=args.since_ns,
        until_ns=args.until_ns,
        timestamps=args.timestamps,
        details=args.details,
        marks=args.marks,
        place=(args.place[0], args.place[1]) if args.place and len(args.place) == 2 else None,
    )
    return Reply({"stream": True}, stream=streams.logs(call.engine, args.container, wanted, call.hangup))


def _attach(call: Call, args: Named) -> object:
    facts, stream = streams.attach(call.engine, args.container)
    return Reply(facts, fds=(stream,))


def _stop(call: Call, args: Stop) -> object:
    ends.stop(call.engine, args.container, args.timeout_s, args.signal)
    return {}


def _kill(call: Call, args: Kill) -> object:
    ends.kill(call.engine, args.container, args.signal)
    return {}


def _remove(call: Call, args: Remove) -> object:
    lifecycle.remove(call.engine, args.container, args.force, volumes=args.volumes)
    return {}


def _wait(call: Call, args: Wait) -> object:
    if args.condition not in ends.CONDITIONS:
        hint = f"known are {', '.join(ends.CONDITIONS)}"
        raise Invalid(
            "wait for", f"container {args.container[:100]}", f"invalid condition: {args.condition[:60]!r}", hint=hint
        )
    return {"exit_code": ends.wait(call.engine, args.container, args.condition, call.hangup)}


def _check_health(call: Call, args: Named) -> object:
    from ....engine.supervision.checking import check_now

    return check_now(call.engine, args.container, call.hangup)


VERBS: dict[str, Verb] = {
    "containers.run": Verb(Run, _run),
    "containers.create": Verb(Requested, _create),
    "containers.start": Verb(Start, _start),
    "containers.init": Verb(Named, lambda call, args: lifecycle.init(call.engine, args.container)),
    "containers.plan": Verb(Requested, lambda call, args: explain.planned(call.engine, args.request)),
    "containers.audit": Verb(Named, lambda call, args: audit.audit(call.engine, args.container)),
    "containers.explain": Verb(Named, lambda call, args: explain.explained(call.engine, args.container)),
    "containers.list": Verb(
        List, lambda call, args: listing.summaries(call.engine, args.all, args.filters, size=args.size)
    ),
    "containers.inspect": Verb(
        Inspect, lambda call, args: listing.details(call.engine, args.container, size=args.size)
    ),
    "containers.logs": Verb(Logs, _logs, lasts=True),
    "containers.attach": Verb(Named, _attach),
    "containers.told": Verb(Told, _told),
    "containers.exec": Verb(Exec, _exec),
    "containers.exec_kill": Verb(ExecKill, _exec_kill),
    "containers.exec_inspect": Verb(NamedExec, lambda call, args: execs.inspect(call.engine, args.exec)),
    "containers.execs": Verb(Named, lambda call, args: execs.listed(call.engine, args.container)),
    "containers.stop": Verb(Stop, _stop, lasts=True),
    "containers.kill": Verb(Kill, _kill),
    "containers.remove": Verb(Remove, _remove),
    "containers.mount": Verb(Named, lambda call, args: mounted.mount(call.engine, args.container)),
    "containers.mounted": Verb(Args, lambda call, args: mounted.listed(call.engine)),
    "containers.unmount": Verb(
        Unmount, lambda call, args: mounted.unmount(call.engine, args.container, force=args.force)
    ),
    "containers.check_health": Verb(Named, _check_health, lasts=True),
    "containers.wait": Verb(Wait, _wait, lasts=True),
}
