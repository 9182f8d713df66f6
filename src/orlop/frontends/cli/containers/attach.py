"""`orlop attach` and `orlop start`: join a running container's streams, or start one and perhaps join it."""

from __future__ import annotations

import os
from _socket import socket

from ....spec.errors import OrlopError, Unavailable
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, Flag, UsageError
from ..main import explain
from ..values import DETACH_KEYS_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...native.client import Engine
    from ..session import Attachment

_SIG_PROXY = Flag("sig-proxy", "", BOOL, "Proxy all received signals to the process", default=True)


def _attach(invocation: Invocation) -> int:
    (container,) = invocation.arguments
    with invocation.connect() as engine:
        return _join(invocation, engine, container, with_stdin=not invocation.options["no-stdin"])


def _join(invocation: Invocation, engine: Engine, container: str, *, with_stdin: bool) -> int:
    """Attach to a container that runs; return its exit status. Raises Conflict when it does not."""
    from .. import foreground
    from ..session import Signals

    facts, fds = engine.call_with_fds("containers.attach", {"container": container})
    if len(fds) != 1 or not isinstance(facts, dict):
        for fd in fds:
            os.close(fd)
        raise Unavailable("attach to", f"container {container}", "the engine passed no stream")
    stream = socket(fileno=fds[0])
    terminal = facts.get("terminal") is True
    stdin = with_stdin and facts.get("open_stdin") is True
    connected = _attachment(invocation, container, terminal=terminal, stdin=stdin)
    with Signals() as signals:
        session = foreground.carry(stream, connected, signals)
    return foreground.status_of(session, invocation, container)


def _attachment(invocation: Invocation, container: str, *, terminal: bool, stdin: bool) -> Attachment:
    """Return what carries our streams. Raises UsageError for a terminal that our standard input is not."""
    from .. import foreground

    options = invocation.options
    foreground.check_terminal(terminal=terminal, stdin=stdin)
    made = foreground.attachment(
        stdin=stdin,
        stdout=True,
        stderr=True,
        terminal=terminal,
        detach_keys=options["detach-keys"],
        proxy_signals=options["sig-proxy"] and not terminal,
    )
    made.resized = lambda *size: foreground.tell(invocation, container, "resize", size=size)
    return made


def _start(invocation: Invocation) -> int:
    options = invocation.options
    if options["attach"] or options["interactive"]:
        if len(invocation.arguments) > 1:
            raise UsageError(
                "you cannot start and attach multiple containers at once",
                "name one container, or leave -a and -i away",
                EXIT_USAGE,
                shows_usage=False,
            )
        return _start_attached(invocation, invocation.arguments[0])
    status = 0
    with invocation.connect() as engine:
        for container in invocation.arguments:
            try:
                engine.call("containers.start", {"container": container, "attached": False, "console_size": None})
                write_line(for_output(container))
            except OrlopError as error:
                explain(error)
                status = EXIT_USAGE
    return status


def _start_attached(invocation: Invocation, container: str) -> int:
    from .. import foreground

    options = invocation.options
    with invocation.connect() as engine:
        found = engine.call("containers.inspect", {"container": container})
        config = found.get("Config") if isinstance(found, dict) else None
        if not isinstance(config, dict):
            raise Unavailable("read", "the engine's reply", f"it does not describe container {container}")
        task = found["State"] if isinstance(found, dict) and isinstance(found.get("State"), dict) else {}
        if task.get("Running") is True:  # as docker: there is nothing to start, and what is wanted is to see it
            return _join(invocation, engine, container, with_stdin=options["interactive"])
        terminal = config.get("Tty") is True
        stdin = options["interactive"] and config.get("OpenStdin") is True
        connected = _attachment(invocation, container, terminal=terminal, stdin=stdin)
        session = foreground.run_attached(engine, "containers.start", {"container": container}, connected)
    return foreground.status_of(session, invocation, container)


ATTACH = Command(
    _attach,
    "Attach local standard input, output, and error streams to a running container",
    "[OPTIONS] CONTAINER",
    flags=(DETACH_KEYS_FLAG, Flag("no-stdin", "", BOOL, "Do not attach STDIN", default=False), _SIG_PROXY),
    arguments=(1, 1),
    aliases=("container attach", "attach"),
)
START = Command(
    _start,
    "Start one or more stopped containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("attach", "a", BOOL, "Attach STDOUT/STDERR and forward signals", default=False),
        DETACH_KEYS_FLAG,
        Flag("interactive", "i", BOOL, "Attach container's STDIN", default=False),
        Flag("sig-proxy", "", BOOL, "Proxy all received signals to the process", default=True, hidden=True),
    ),
    arguments=(1, None),
    aliases=("container start", "start"),
    refused=frozenset(("checkpoint", "checkpoint-dir")),
)
