"""docker.sock: its listener, and the thread that brings up the rest of this package when the first client comes."""

from __future__ import annotations

import os
import select
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from ...engine.engine import Engine
    from ..http import Server

IDLE_TIMEOUT_S = 3600.0


class DockerDoor:
    """Serves docker's clients on a listening unix socket, which it owns. `close` ends it."""

    def __init__(self, engine: Engine, listener: socket.socket) -> None:
        self._engine = engine
        self._listener = listener
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="docker", daemon=True)
        self._thread.start()

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
        from .context import Context
        from .door import Door
        from .table import TABLE

        context = Context(self._engine, TABLE)
        uids = {os.geteuid(), 0}
        self._server = Server(self._listener, Door, context, uids=uids, timeout_s=IDLE_TIMEOUT_S)
        if self._stop not in dict(poll.poll(0)):
            self._server.serve()
