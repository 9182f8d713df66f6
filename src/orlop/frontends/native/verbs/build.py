"""The verbs `build.*`. The builder is imported when somebody builds."""

import select
import threading

from ....build.cache.places import CachePlace
from ....build.request import AgentSource, BuildRequest, SecretSource
from ....spec.errors import Invalid, Unavailable
from ....spec.registry import Credentials
from ....spec.runtime import Box
from .call import Args, Call, Reply, Verb
from .images import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....build.cache.mounts import Access


class Build(Args):
    request: BuildRequest


class Check(Args):
    request: BuildRequest
    call: str = "check"


class Named(Args):
    build: str = ""


class Rebase(Args):
    image: str
    old: str
    new: str
    name: str = ""


class Logs(Args):
    build: str = ""
    step: int = 0


class Shell(Args):
    place: str = ""
    command: tuple[str, ...] = ()
    terminal: bool = False
    attached: bool = True
    console_size: Box | None = None
    secrets: tuple[SecretSource, ...] = ()
    agents: tuple[AgentSource, ...] = ()


class Pin(Args):
    mount: str
    pinned: bool = True


class Carry(Args):
    place: CachePlace
    mounts: tuple[str, ...] = ()
    replaces: bool = False
    credentials: dict[str, Credentials] = {}


class Prune(Args):
    all: bool = False
    keep_bytes: int = 0
    max_used_bytes: int = 0
    min_free_bytes: int = 0
    unused_s: int = 0
    filters: tuple[str, ...] = ()


def _build(call: Call, args: Build) -> Reply:
    from ....build.build import build

    wanted = args.request.archive + sum(output.sink >= 0 for output in args.request.outputs)
    if len(call.fds) != wanted:
        cause = f"{wanted} descriptors have to come with it, and {len(call.fds)} came"
        raise Invalid("do", "build.solve", cause)
    archive = call.fds[0] if args.request.archive else -1
    sinks = call.fds[1:] if args.request.archive else call.fds
    return told(build(call.engine, args.request, archive, call.hangup, sinks))


def _check(call: Call, args: Check) -> object:
    from ....build.check import check

    archive = call.only_fd("build.check", "the context's archive") if args.request.archive else -1
    return check(call.engine, args.request, archive, args.call)


def _list(call: Call, args: Named) -> object:
    from ....build import history

    return [record.to_json() for record in history.records(call.engine) if record.id.startswith(args.build)]


def _logs(call: Call, args: Logs) -> object:
    from ....build import history

    return {"path": history.log_path(call.engine, args.build, args.step)}


def _rebase(call: Call, args: Rebase) -> object:
    from ....build.rebase import rebase

    return {"id": rebase(call.engine, args.image, args.old, args.new, args.name)}


def _shell(call: Call, args: Shell) -> object:
    from ....build.replay import Entered
    from ....build.shell import shell
    from ....engine.steps.run import Command

    client = call.client("build.shell", attached=True, size=args.console_size)
    command = Command(args.command)
    command.request = command.request.replace(terminal=args.terminal)
    shell(call.engine, args.place, command, client, Entered(call.engine, args.secrets, args.agents))
    return {"id": args.place}


def _usage(call: Call, args: Args) -> object:
    from ....build.garbage import usage

    return usage(call.engine)


def _pin(call: Call, args: Pin) -> object:
    from ....build.solver.cachemounts import pin

    return {"volume": pin(call.engine, args.mount, pinned=args.pinned)}


def _write_mounts(call: Call, args: Carry) -> object:
    from ....build.cache import mounts

    return [one.to_json() for one in mounts.write(call.engine, _access(call, args), args.place, args.mounts)]


def _read_mounts(call: Call, args: Carry) -> object:
    from ....build.cache import mounts

    read = mounts.read(call.engine, _access(call, args), args.place, args.mounts, replaces=args.replaces)
    return [one.to_json() for one in read]


def _access(call: Call, args: Carry) -> "Access":
    from ....build.cache.mounts import Access

    poll = select.poll()
    poll.register(call.hangup, select.POLLRDHUP)

    def check() -> None:
        if poll.poll(0):
            raise Unavailable("carry", "cache mounts", "the client is gone")

    given = args.credentials
    return Access(lambda one: given.get(one.name) or given.get(one.domain), check, threading.Event())


def _prune(call: Call, args: Prune) -> object:
    from ....build.garbage import prune, prune_matching

    if args.filters:
        limits = (args.keep_bytes, args.max_used_bytes, args.min_free_bytes)
        return prune_matching(call.engine, args.filters, args.unused_s, limits)
    return prune(
        call.engine,
        everything=args.all,
        keep_bytes=args.keep_bytes,
        max_used_bytes=args.max_used_bytes,
        min_free_bytes=args.min_free_bytes,
        unused_s=args.unused_s,
    )


VERBS: dict[str, Verb] = {
    "build.solve": Verb(Build, _build, lasts=True),
    "build.check": Verb(Check, _check, lasts=True),
    "build.list": Verb(Named, _list),
    "build.logs": Verb(Logs, _logs),
    "build.rebase": Verb(Rebase, _rebase),
    "build.shell": Verb(Shell, _shell),
    "build.usage": Verb(Args, _usage),
    "build.pin": Verb(Pin, _pin),
    "build.write_mounts": Verb(Carry, _write_mounts, lasts=True),
    "build.read_mounts": Verb(Carry, _read_mounts, lasts=True),
    "build.prune": Verb(Prune, _prune, lasts=True),
}
