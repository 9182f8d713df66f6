"""`orlop exec`: run one more process in a running container; `exec ls` and `exec kill`: see and end those that run.

The words ls and kill mean that only where no container is called so: docker's users have the first say.
"""

from __future__ import annotations

import errno
import os

from ....spec.errors import NotFound
from ..command import Command, Invocation, visible, write_line
from ..flags import BOOL, LIST, STRING, Flag
from ..values import DETACH_KEYS_FLAG, ENV
from .environment import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..flags import Options
    from ..session import Attachment, Session

COMMAND_CHARACTERS_MAX = 60


def _exec(invocation: Invocation) -> int:
    options = invocation.options
    container, *command = invocation.arguments
    if container in _OTHERS and not options.given and not _is_container(invocation, container):
        return _OTHERS[container](invocation, command)
    args: dict[str, object] = {"container": container, "request": asked(options, command)}
    if options["detach"]:
        with invocation.connect() as engine:
            engine.call("containers.exec", args | {"attached": False, "console_size": None})
        return 0
    return _attached(invocation, args)


def asked(options: Options, command: list[str]) -> dict[str, object]:
    """Return what the flags ask for: an ExecRequest as the engine's socket takes it.

    Not made of the record itself, which would import all that can be asked of a container: 2 ms of each exec.
    """
    wanted: dict[str, object] = {
        "args": command,
        "env": [*environment(options)],
        "user": options["user"],
        "workingDir": options["workdir"],
        "terminal": options["tty"],
        "openStdin": options["interactive"],
        "privileged": options["privileged"],
        "endsWithClient": not options["detach"],
    }
    return {name: value for name, value in wanted.items() if value}


def _attached(invocation: Invocation, args: dict[str, object]) -> int:
    from ...native import asker
    from .. import foreground

    options = invocation.options
    foreground.check_terminal(terminal=options["tty"], stdin=options["interactive"])
    connected = foreground.attachment(
        stdin=options["interactive"],
        stdout=True,
        stderr=True,
        terminal=options["tty"],
        detach_keys=options["detach-keys"],
        proxy_signals=False,  # docker forwards none to an exec: they end the client
    )
    made: dict[str, Any] = {}
    if (left := asker.left()) is not None:
        session = _taken_over(invocation, left, connected, made.update)
    else:
        with invocation.connect() as engine:
            session = foreground.run_attached(engine, "containers.exec", args, connected, made.update)
        asker.PROGRAM.keep()
    if session.detached:
        foreground.tell(invocation, invocation.arguments[0], "detach", exec_id=made.get("exec_id", ""))
    return foreground.status_of_exec(session)


def _taken_over(
    invocation: Invocation,
    left: tuple[int, int, int],
    connected: Attachment,
    started: Callable[[dict[str, Any]], None],
) -> Session:
    """Go on with an exec that the program without an interpreter has asked for."""
    from _socket import socket

    from ...native import client
    from .. import foreground

    connection, stream, error = left
    if error in (errno.EPIPE, errno.EIO):
        raise BrokenPipeError
    if error:
        raise OSError(error, os.strerror(error))
    with client.adopt(invocation.paths, connection) as engine:
        return foreground.take_over(engine, socket(fileno=stream), connected, started)


def _is_container(invocation: Invocation, name: str) -> bool:
    with invocation.connect() as engine:
        try:
            engine.call("containers.inspect", {"container": name})
        except NotFound:
            return False
    return True


def _list(invocation: Invocation, containers: list[str]) -> int:
    from .. import listing

    rows = []
    with invocation.connect() as engine:
        for container in containers:
            found = engine.call("containers.execs", {"container": container})
            rows += [_row(one) for one in found if one["Running"]] if isinstance(found, list) else []
    listing.print_table(("EXEC ID", "CONTAINER ID", "PID", "USER", "STARTED", "COMMAND"), rows)
    return 0


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    from ..units import ago, epoch_ns

    process = one["ProcessConfig"]
    started = epoch_ns(one["StartedAt"])
    command = " ".join((process["entrypoint"], *process["arguments"]))
    return (
        one["ID"][:12],
        one["ContainerID"][:12],
        str(one["Pid"]),
        process["user"] or "0",
        ago(started / 1e9) if started else "",
        visible(command)[:COMMAND_CHARACTERS_MAX],
    )


def _kill(invocation: Invocation, words: list[str]) -> int:
    with invocation.connect() as engine:
        for exec_id in words:
            engine.call("containers.exec_kill", {"exec": exec_id})
            write_line(exec_id)
    return 0


_OTHERS: dict[str, Callable[[Invocation, list[str]], int]] = {"ls": _list, "kill": _kill}

# fmt: off
EXEC_FLAGS = (
    Flag("detach", "d", BOOL, "Detached mode: run command in the background", default=False),
    DETACH_KEYS_FLAG,
    Flag("env", "e", ENV, "Set environment variables"),
    Flag("env-file", "", LIST, "Read in a file of environment variables"),
    Flag("env-file-format", "", STRING, 'Read them as "docker", "compose" or "shell" does', default=""),
    Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached", default=False),
    Flag("privileged", "", BOOL, "Give extended privileges to the command", default=False),
    Flag("tty", "t", BOOL, "Allocate a pseudo-TTY", default=False),
    Flag("user", "u", STRING, "Username or UID (format: <name|uid>[:<group|gid>])", default=""),
    Flag("workdir", "w", STRING, "Working directory inside the container", default=""),
)
# fmt: on

EXEC = Command(
    _exec,
    "Execute a command in a running container",
    "[OPTIONS] CONTAINER COMMAND [ARG...]\n\torlop exec ls CONTAINER...\n\torlop exec kill EXEC...",
    flags=EXEC_FLAGS,
    arguments=(2, None),
    interspersed=False,
    aliases=("container exec", "exec"),
    passes_command_status=True,
)
