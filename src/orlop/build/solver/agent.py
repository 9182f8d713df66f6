"""RUN --mount=type=ssh: a socket in the step that leads to an SSH agent of the client's, while the step runs."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_BYTES = 64 * 1024
CONNECTIONS_MAX = 64


@contextmanager
def forwarded(connect: Callable[[], socket.socket], place: str, owner: tuple[int, int], mode: int) -> Iterator[None]:
    """Listen at place, as a socket of this owner and mode, and carry bytes to the agent and back.

    connect: begins a connection to the agent; its OSError ends the one that came.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    os.chown(place, *owner)
    os.chmod(place, mode)
    listener.listen(CONNECTIONS_MAX)
    thread = threading.Thread(target=_serve, args=(listener, connect), name="ssh agent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        thread.join()
        listener.close()


def connected(path: str) -> socket.socket:
    """Return a connection to an agent's socket. Raises OSError."""
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
    except OSError:
        server.close()
        raise
    return server


def _serve(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        try:
            server = connect()
        except OSError:
            client.close()
            continue
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=_carry, args=(source, target), name="ssh agent", daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(READ_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
