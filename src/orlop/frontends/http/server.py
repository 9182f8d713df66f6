"""A threaded HTTP server: one listener, a bounded number of connections, TLS where it is asked for.

A connection more than the limit waits in the listener's queue. TLS is negotiated in the connection's own thread, so a
client that never finishes it delays nobody.
"""

from __future__ import annotations

import socket
import ssl
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange

CONNECTIONS_MAX = 512
TIMEOUT_S = 60.0  # a client that says nothing for so long is gone
_BACKLOG = 1024


class Server:
    """Serves with `exchange` on a socket, which it owns. context: what the exchanges find as server.context."""

    def __init__(
        self,
        listener: socket.socket,
        exchange: Callable[[socket.socket, object, Server], Exchange],
        context: object,
        tls: ssl.SSLContext | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.context = context
        self.tls = tls
        self._listener = listener
        self._exchange = exchange
        self._free = threading.Semaphore(connections_max)
        self._guard = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._stopping = False
        listener.listen(_BACKLOG)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Serve until `stop`."""
        while True:
            self._free.acquire()
            try:
                connection, address = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                self._free.release()  # the client went away, or we have no descriptor left for a moment
                continue
            threading.Thread(target=self._attend, args=(connection, address), daemon=True).start()

    def stop(self) -> None:
        """End serving and all connections. From any thread, or a signal handler's."""
        self._stopping = True
        with self._guard:
            for stream in (self._listener, *self._connections):
                try:
                    stream.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._listener.close()

    def _attend(self, connection: socket.socket, address: object) -> None:
        with self._guard:
            self._connections.add(connection)
        try:
            stream = connection
            connection.settimeout(TIMEOUT_S)
            if self.tls is not None:
                stream = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                with self._guard:
                    self._connections.discard(connection)
                    self._connections.add(stream)
                connection = stream
                stream.do_handshake()
            self._exchange(stream, address, self)
        except (ssl.SSLError, ConnectionError, TimeoutError):
            pass  # whoever it was has gone, or never spoke TLS
        finally:
            with self._guard:
                self._connections.discard(connection)
            connection.close()
            self._free.release()
