"""The verbs `engine.*`."""

import os

from .... import __version__
from ....engine import events
from .call import Args, Call, Nothing, Reply, Verb


class Events(Args):
    """Moments in nanoseconds since 1970, or None."""

    since_ns: int | None = None
    until_ns: int | None = None
    filters: dict[str, tuple[str, ...]] = {}


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


def _events(call: Call, args: Events) -> object:
    stream = events.read(call.engine, args.filters, args.since_ns, args.until_ns, call.hangup)
    return Reply({"stream": True}, stream=stream)


VERBS: dict[str, Verb] = {
    "engine.events": Verb(Events, _events, lasts=True),
    "engine.ping": Verb(Nothing, _ping),
    "engine.info": Verb(Nothing, _info),
    "engine.stop": Verb(Nothing, _stop_engine),
}
