"""The listeners of docker's API, and the thread of each that brings up the rest of this package when a client comes.

All of one engine's listeners share one Context: what a client began on one of them can be gone on with on another.
"""

from __future__ import annotations

import os
import select
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Collection

    from ...engine.engine import Engine
    from ..http import Exchange, Server
    from .context import Context

    # What serves a connection, and what it finds as its server's context; asked for when the first client comes.
    Setting = Callable[[], tuple[type[Exchange], object]]

IDLE_TIMEOUT_S = 3600.0


class DockerDoor:
    """Serves docker's clients on a listening socket, which it owns. `close` ends it.

    A client of a unix socket must be of our own user, root or one of uids; one of TCP has shown a certificate: tls is
    needed there.
    """

    def __init__(
        self,
        listener: socket.socket,
        setting: Setting,
        tls: ssl.SSLContext | None = None,
        uids: Collection[int] = (),
    ) -> None:
        self._listener = listener
        self._setting = setting
        self._tls = tls
        self._uids = {os.geteuid(), 0, *uids} if tls is None else None
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="docker", daemon=True)
        self._thread.start()

    def renew(self, tls: ssl.SSLContext) -> None:
        """Serve those who come from now on with this TLS."""
        self._tls = tls
        if self._server is not None:
            self._server.tls = tls

    @property
    def busy(self) -> bool:
        """Whether a client is connected."""
        return self._server is not None and self._server.busy

    def close(self) -> None:
        """Serve nobody any more."""
        os.eventfd_write(self._stop, 1)
        if self._server is not None:
            self._server.stop()
        self._thread.join()
        self._listener.close()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        if self._stop in dict(poll.poll()):
            return
        from ..http import Server  # 40 ms, and megabytes: an engine that no docker client asks pays neither

        exchange, context = self._setting()
        self._server = Server(self._listener, exchange, context, self._tls, uids=self._uids, timeout_s=IDLE_TIMEOUT_S)
        if self._stop not in dict(poll.poll(0)):
            self._server.serve()


class DockerDoors:
    """All listeners of one engine, by the names under which they were opened."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._context: Context | None = None
        self._doors: dict[str, DockerDoor] = {}

    @property
    def busy(self) -> bool:
        """Whether a client is connected to any of them."""
        return any(door.busy for door in list(self._doors.values()))

    def open(
        self,
        name: str,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        setting: Setting | None = None,
        uids: Collection[int] = (),
    ) -> None:
        """Serve on a listening socket; with the whole API unless there is another setting. uids: who may come too."""
        door = DockerDoor(listener, setting or self._whole, tls, uids)
        with self._guard:
            self._doors[name] = door

    def close_one(self, name: str) -> None:
        """End the door of that name, if there is one, and all its connections."""
        with self._guard:
            door = self._doors.pop(name, None)
        if door is not None:
            door.close()

    def renew(self, name: str, tls: ssl.SSLContext) -> None:
        """Have the door of that name, if there is one, serve with this TLS from now on."""
        with self._guard:
            if name in self._doors:
                self._doors[name].renew(tls)

    def close(self) -> None:
        """Serve nobody any more."""
        for name in list(self._doors):
            self.close_one(name)

    def context(self) -> Context:
        """Return what all connections share."""
        with self._guard:
            if self._context is None:
                from .context import Context
                from .table import TABLE

                self._context = Context(self._engine, TABLE)
            return self._context

    def _whole(self) -> tuple[type[Exchange], object]:
        from .door import Door

        return Door, self.context()
