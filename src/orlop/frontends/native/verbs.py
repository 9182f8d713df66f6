"""The verbs of the native socket: what each takes, the one engine function it calls, how its result looks.

The rows are those of docs/ARCHITECTURE.md, "The engine's native socket". An entry translates and does nothing else.
"""

import os
import stat

from ... import __version__
from ...engine import containers, ends, execs, explain, images, listing, streams
from ...engine.containers import Client
from ...engine.engine import Engine
from ...engine.watch import EXITED
from ...spec.container import ContainerRequest, ExecRequest
from ...spec.errors import Invalid
from ...spec.record import Record
from ...spec.runtime import Box

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any


class Args(Record):
    """The arguments of a verb. Their JSON names are the fields' own, and an unknown one is an error."""

    strict = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.json_names = {name: name for name in cls._fields}


class Nothing(Args):
    pass


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


class NamedImage(Args):
    image: str


class List(Args):
    all: bool = False
    filters: dict[str, tuple[str, ...]] = {}


class Logs(Args):
    """Moments in nanoseconds since 1970; tail None is everything."""

    container: str
    follow: bool = False
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False


class Exec(Args):
    container: str
    request: ExecRequest
    attached: bool = False
    console_size: Box | None = None


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


class Wait(Args):
    container: str
    condition: str = EXITED


class Import(Args):
    name: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""


class Call:
    """One call of a verb. fds: what came along; they are closed after the call. hangup: the client's connection.

    stop: ends the engine.
    """

    __slots__ = ("args", "engine", "fds", "hangup", "stop")

    def __init__(
        self, engine: Engine, args: dict[str, object], fds: list[int], hangup: int, stop: "Callable[[], None]"
    ) -> None:
        self.engine = engine
        self.args = args
        self.fds = fds
        self.hangup = hangup
        self.stop = stop

    def client(self, verb: str, *, attached: bool, size: Box | None) -> Client:
        """Return who asked for a start. Raises Invalid unless exactly the promised descriptor came along."""
        return Client(self.only_fd(verb, "an attach stream", stat.S_ISSOCK) if attached else None, size)

    def only_fd(self, verb: str, what: str, is_right: "Callable[[int], bool] | None" = None) -> int:
        """Return the one descriptor that came along. It is closed after the call."""
        if len(self.fds) != 1:
            raise Invalid("do", verb, f"{what} has to come with it, and {len(self.fds)} descriptors came")
        if is_right is not None and not is_right(os.fstat(self.fds[0]).st_mode):
            raise Invalid("do", verb, f"the descriptor that came with it is not {what}")
        return self.fds[0]


class Reply:
    """result: JSON. fds: sent with it and then closed. stream: sent after it, and then the connection ends."""

    __slots__ = ("fds", "result", "stream")

    def __init__(self, result: object, fds: "Sequence[int]" = (), stream: "Iterator[bytes] | None" = None) -> None:
        self.result = result
        self.fds = fds
        self.stream = stream


class Verb:
    """lasts: whether a call may go on for as long as a container lives."""

    __slots__ = ("_args", "_function", "lasts")

    def __init__(self, args: type[Args], function: "Callable[[Call, Any], object]", *, lasts: bool = False) -> None:
        self._args = args
        self._function = function
        self.lasts = lasts

    def call(self, call: Call) -> Reply:
        result = self._function(call, self._args.from_json(call.args, "the arguments"))
        return result if isinstance(result, Reply) else Reply(result)


def _ping(call: Call, _: Nothing) -> object:
    return {"version": __version__, "pid": os.getpid()}


def _info(call: Call, _: Nothing) -> object:
    engine = call.engine
    states = [engine.observe(record.id).state for record in engine.records.all()]
    return {
        "version": __version__,
        "pid": os.getpid(),
        "root": engine.paths.root,
        "run": engine.paths.run,
        "containers": len(states),
        "running": states.count("running"),
        "images": len(engine.images.list()),
        "cgroups": engine.host.runtime.layout.mode,
        "kernel": os.uname().release,
        "architecture": engine.host.runtime.machine,
        "processors": engine.host.processors,
        "security_modules": list(engine.host.security_modules),
    }


def _stop_engine(call: Call, _: Nothing) -> object:
    call.stop()
    return {"pid": os.getpid()}


def _run(call: Call, args: Run) -> object:
    client = call.client("containers.run", attached=args.attached, size=args.console_size)
    record, warnings = containers.run(call.engine, args.request, client)
    return {"id": record.id, "warnings": list(warnings)}


def _create(call: Call, args: Requested) -> object:
    record, warnings = containers.create(call.engine, args.request)
    return {"id": record.id, "warnings": list(warnings)}


def _start(call: Call, args: Start) -> object:
    client = call.client("containers.start", attached=args.attached, size=args.console_size)
    containers.start(call.engine, args.container, client)
    return {}


def _exec(call: Call, args: Exec) -> object:
    client = call.client("containers.exec", attached=args.attached, size=args.console_size)
    exec_id, pid = execs.start(call.engine, args.container, args.request, client)
    return {"exec_id": exec_id, "pid": pid}


def _logs(call: Call, args: Logs) -> object:
    wanted = streams.LogRequest(
        follow=args.follow,
        tail=args.tail,
        since_ns=args.since_ns,
        until_ns=args.until_ns,
        timestamps=args.timestamps,
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
    containers.remove(call.engine, args.container, args.force)
    return {}


def _wait(call: Call, args: Wait) -> object:
    if args.condition not in ends.CONDITIONS:
        hint = f"known are {', '.join(ends.CONDITIONS)}"
        raise Invalid(
            "wait for", f"container {args.container[:100]}", f"invalid condition: {args.condition[:60]!r}", hint=hint
        )
    return {"exit_code": ends.wait(call.engine, args.container, args.condition, call.hangup)}


def _import(call: Call, args: Import) -> object:
    archive = call.only_fd("images.import", "an archive")
    return {"id": images.import_archive(call.engine, archive, args.name, args.changes, args.message)}


VERBS: dict[str, Verb] = {
    "engine.ping": Verb(Nothing, _ping),
    "engine.info": Verb(Nothing, _info),
    "engine.stop": Verb(Nothing, _stop_engine),
    "containers.run": Verb(Run, _run),
    "containers.create": Verb(Requested, _create),
    "containers.start": Verb(Start, _start),
    "containers.plan": Verb(Requested, lambda call, args: explain.planned(call.engine, args.request)),
    "containers.explain": Verb(Named, lambda call, args: explain.explained(call.engine, args.container)),
    "containers.list": Verb(List, lambda call, args: listing.summaries(call.engine, args.all, args.filters)),
    "containers.inspect": Verb(Named, lambda call, args: listing.details(call.engine, args.container)),
    "containers.logs": Verb(Logs, _logs, lasts=True),
    "containers.attach": Verb(Named, _attach),
    "containers.exec": Verb(Exec, _exec),
    "containers.stop": Verb(Stop, _stop, lasts=True),
    "containers.kill": Verb(Kill, _kill),
    "containers.remove": Verb(Remove, _remove),
    "containers.wait": Verb(Wait, _wait, lasts=True),
    "images.list": Verb(Nothing, lambda call, _: images.summaries(call.engine)),
    "images.inspect": Verb(NamedImage, lambda call, args: images.inspect(call.engine, args.image)),
    "images.import": Verb(Import, _import),
}
