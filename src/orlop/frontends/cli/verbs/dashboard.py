"""`orlop dashboard`: what the engine has, as pages for one's own browser."""

from __future__ import annotations

from ..command import Command, Invocation, write_line
from ..flags import INT, Flag, UsageError
from ..values import DURATION

_PORT_MAX = 65535


def _dashboard(invocation: Invocation) -> int:
    from ...dashboard import door

    port, ttl_ns = invocation.options["port"], invocation.options["ttl"]
    if not 0 <= port <= _PORT_MAX:
        raise UsageError(f"--port {port}: it is not between 0 and {_PORT_MAX}", "choose another number")
    invocation.connect().close()  # what keeps the engine from starting is said here, not in a page
    door.serve(invocation.paths, port, ttl_ns / 1e9 if ttl_ns > 0 else None, write_line)
    return 0


DASHBOARD = Command(
    _dashboard,
    "Show containers, images, volumes, networks and events in a browser on this machine, read only",
    "[OPTIONS]",
    flags=(
        Flag("port", "p", INT, "The port to listen on, at an address of this machine's own (0: any)", default=0),
        Flag("ttl", "", DURATION, "End after so long (0: never; default 8h)", default=8 * 3600 * 10**9),
    ),
)
