"""The verbs `engine.*`."""

import os

from .... import __version__
from ....engine import events, info, strict
from ....spec.errors import NotFound
from .call import Args, Call, Nothing, Reply, Verb


class Events(Args):
    """Moments in nanoseconds since 1970, or None."""

    since_ns: int | None = None
    until_ns: int | None = None
    filters: dict[str, tuple[str, ...]] = {}


class Setting(Args):
    """name: "security", the only one. value: what it is from now on; "" only asks."""

    name: str
    value: str = ""


def _ping(call: Call, _: Nothing) -> object:
    return {"version": __version__, "pid": os.getpid()}


def _info(call: Call, _: Nothing) -> object:
    return {**info.info(call.engine), "RunDir": call.engine.paths.run, "Pid": os.getpid()}


def _stop_engine(call: Call, _: Nothing) -> object:
    call.stop()
    return {"pid": os.getpid()}


def _events(call: Call, args: Events) -> object:
    stream = events.read(call.engine, args.filters, args.since_ns, args.until_ns, call.hangup)
    return Reply({"stream": True}, stream=stream)


def _setting(call: Call, args: Setting) -> object:
    if args.name != strict.SECURITY:
        hint = f"known is {strict.SECURITY}"
        raise NotFound("find", f"setting {args.name}", f"no such setting: {args.name[:40]}", hint=hint)
    if args.value:
        strict.choose(call.engine, args.value)
    return {args.name: strict.setting(call.engine)}


VERBS: dict[str, Verb] = {
    "engine.events": Verb(Events, _events, lasts=True),
    "engine.ping": Verb(Nothing, _ping),
    "engine.info": Verb(Nothing, _info),
    "engine.setting": Verb(Setting, _setting),
    "engine.version": Verb(Nothing, lambda call, _: info.version(call.engine)),
    "engine.stop": Verb(Nothing, _stop_engine),
}
