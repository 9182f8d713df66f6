"""The gate between create and start when they are two processes (orlop-runtime): a listening socket that init holds.

    create                      init                              start
      |---- START ------------->|                                   |
      |<--- end of file --------|  it stands at the gate            |
                                |<-------- connect -----------------|
                                |--------- ENTERED ---------------->|   to one; for the others the file ends here
                                |  startContainer hooks, seccomp    |
                                |  execve                           |
                                |--------- end of file ------------>|   or FAILED + JSON

`start` is mostly a program that knows no more than this (runtime.starter): it leaves what is not the end of file to us.
The socket lies in a directory that only the runtime's user may enter, so whoever comes through it is that user.
"""

import os
from _socket import AF_UNIX, socket

from ..spec.errors import Conflict
from . import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .notify import Delivery

SOCKET_FLAGS = 5 | 0o2000000  # SOCK_SEQPACKET | SOCK_CLOEXEC


def enter(directory: str, name: str, delivery: "Delivery | None" = None) -> None:
    """Let the process at the gate go; returns once it has executed its command.

    delivery: the way of its seccomp listener. Raises the error that it died of (CommandFailed and others); Conflict
    when nobody stands there any more, or another caller came through first.
    """
    gone = Conflict("start", "the container", "cannot start a container that has stopped")
    caller = socket(AF_UNIX, SOCKET_FLAGS)
    try:
        with Inside(directory) as fd:
            caller.connect(f"/proc/self/fd/{fd}/{name}")
    except (ConnectionRefusedError, FileNotFoundError):
        caller.close()
        raise gone from None
    start = channel.Channel(caller)
    try:
        entered, _ = start.receive()
        if entered != channel.ENTERED:
            raise gone
        _see_through(start, delivery)
    finally:
        start.close()


def resume(connection: int, delivery: "Delivery | None" = None) -> None:
    """Do the rest of `enter` on a connection, which is taken over, on which ENTERED has come."""
    os.set_inheritable(connection, False)
    start = channel.Channel(socket(fileno=connection))
    try:
        _see_through(start, delivery)
    finally:
        start.close()


def _see_through(start: channel.Channel, delivery: "Delivery | None") -> None:
    message = start.last_message(delivery)
    if message:
        raise channel.failure_of(message)


class Inside:
    """A directory by descriptor: a socket's path may have 107 bytes, ours may be longer."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
