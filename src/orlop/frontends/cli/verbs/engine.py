"""`orlop serve`, `engine stop`, `engine status`, `info`, `version`: the engine itself."""

from __future__ import annotations

import os
import sys

from .... import __version__
from ....spec.errors import Unavailable
from ..command import Command, Invocation, for_output, write, write_line
from ..flags import INT, STRING, Flag
from ..values import DURATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _serve(invocation: Invocation) -> int:
    from ....linux import process
    from ...native import rundir
    from ...native.server import serve

    options, paths = invocation.options, invocation.paths
    ready: int | None = options["ready-fd"]
    lock: int | None = options["lock-fd"]
    for fd in (ready, lock):
        if fd is not None:
            os.set_inheritable(fd, False)  # in a child of ours the lock would outlive us
    if ready is not None:
        # A command started us: whatever its caller had open (a script's pipe, a terminal) is none of ours (SEC-04),
        # and kept open it would keep somebody waiting for its end.
        process.close_all_except({fd for fd in (ready, lock) if fd is not None})
    if lock is None:
        lock = rundir.claim(paths.run)
        os.close(rundir.open_private(paths.root, create=True))
    os.chdir("/")
    os.umask(0o077)
    idle_ns: int = options["idle-timeout"]
    return serve(paths, lock, ready, idle_ns / 1e9 if idle_ns > 0 else None)


def _stop(invocation: Invocation) -> int:
    try:
        engine = invocation.connect(start=False)
    except Unavailable as error:
        sys.stderr.write(f"{error}\n")
        return 0
    with engine:
        engine.call("engine.stop")
        while engine.stream.recv(1):  # the end of the stream is the end of the engine
            pass
    return 0


def _status(invocation: Invocation) -> int:
    with invocation.connect(start=False) as engine:
        found = engine.call("engine.ping")
    facts = found if isinstance(found, dict) else {}
    write_line(f"running, pid {facts.get('pid', '?')}, version {for_output(str(facts.get('version', '?')))}")
    return 0


def _info(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("engine.info")
    if invocation.options["format"]:
        return _print_template(invocation.options["format"], found)
    write(for_output("".join(_lines(found if isinstance(found, dict) else {}, ""))))
    return 0


def _version(invocation: Invocation) -> int:
    client: dict[str, object] = {"Version": __version__, "Python": sys.version.split()[0]}
    server: object = None
    try:
        with invocation.connect(start=False) as engine:
            server = engine.call("engine.ping")
    except Unavailable:
        pass
    facts = {str(key).capitalize(): value for key, value in server.items()} if isinstance(server, dict) else None
    if invocation.options["format"]:
        return _print_template(invocation.options["format"], {"Client": client, "Server": facts})
    write(f"Client:\n{''.join(_lines(client, ' '))}\n")
    write("Server: none runs\n" if facts is None else f"Server:\n{for_output(''.join(_lines(facts, ' ')))}")
    return 0


def _print_template(form: str, value: object) -> int:
    from ..template import Template

    write(for_output(Template("{{json .}}" if form == "json" else form).render(value) + "\n"))
    return 0


def _lines(facts: dict[str, Any], indent: str) -> list[str]:
    """Return one line for each fact; an object's facts follow, deeper."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:\n", *_lines(value, indent + " ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: {' '.join(map(str, value))}\n")
        else:
            lines.append(f"{indent}{key}: {value}\n")
    return lines


_FORMAT = Flag("format", "f", STRING, "Format output: 'json', or a Go template", default="")

SERVE = Command(
    _serve,
    "Run the engine in the foreground",
    "[OPTIONS]",
    flags=(
        Flag("idle-timeout", "", DURATION, "Leave when nothing runs and nobody asks for so long (0: never)", default=0),
        Flag("lock-fd", "", INT, "A descriptor that holds the engine's lock", hidden=True),
        Flag("ready-fd", "", INT, "A descriptor to report on that the engine listens", hidden=True),
    ),
)
ENGINE_STOP = Command(_stop, "Stop the engine; its containers run on", "")
STATUS = Command(_status, "Tell whether the engine runs, without starting it", "")
INFO = Command(_info, "Display system-wide information", "[OPTIONS]", flags=(_FORMAT,), aliases=("system info", "info"))
VERSION = Command(_version, "Show the Orlop version information", "[OPTIONS]", flags=(_FORMAT,))
