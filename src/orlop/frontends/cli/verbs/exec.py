"""`orlop exec`: run one more process in a running container."""

from __future__ import annotations

from .. import request
from ..command import Command, Invocation
from ..request import EXEC_FLAGS


def _exec(invocation: Invocation) -> int:
    options = invocation.options
    container, *command = invocation.arguments
    wanted = request.exec_request(options, command)
    args: dict[str, object] = {"container": container, "request": wanted.to_json()}
    if options["detach"]:
        with invocation.connect() as engine:
            engine.call("containers.exec", args | {"attached": False, "console_size": None})
        return 0
    return _attached(invocation, args)


def _attached(invocation: Invocation, args: dict[str, object]) -> int:
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
    with invocation.connect() as engine:
        session = foreground.run_attached(engine, "containers.exec", args, connected)
    return foreground.status_of_exec(session)


EXEC = Command(
    _exec,
    "Execute a command in a running container",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    flags=EXEC_FLAGS,
    arguments=(2, None),
    interspersed=False,
    aliases=("container exec", "exec"),
    passes_command_status=True,
)
