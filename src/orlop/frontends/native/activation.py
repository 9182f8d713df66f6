"""Sockets that systemd (or whoever speaks its protocol) opened before it started us, and telling it that we serve.

Source: sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import os
import socket

from ...spec.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

FIRST_FD = 3
LISTENERS_MAX = 64


def take(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that came with our start, and forget that they did. Raises Unavailable for others.

    They are ours only when LISTEN_PID names us: else they came with the start of an ancestor.
    """
    given = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()):
        return []
    count = given["LISTEN_FDS"]
    if not count.isdecimal() or len(count) > 3 or int(count) > LISTENERS_MAX:
        raise _wrong(f"LISTEN_FDS={count[:20]} is not a number up to {LISTENERS_MAX}")
    return [_listener(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def _listener(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        found = socket.socket(fileno=fd)
        listens = found.type == socket.SOCK_STREAM and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as wrong:
        raise _wrong(f"descriptor {fd}: {wrong.strerror}") from None
    if not listens or found.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise _wrong(f"descriptor {fd} is no listening stream socket")
    return found


def _wrong(cause: str) -> Unavailable:
    return Unavailable("use", "the sockets that came with the start", cause, hint="look at the .socket unit")


def notify(environ: MutableMapping[str, str], state: str) -> None:
    """Tell the service manager a state ("READY=1"); nobody may be there to hear it."""
    place = environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as stream:
            stream.sendto(state.encode(), address)
    except OSError:
        pass  # whether it hears us changes nothing for those whom we serve
