"""A threaded HTTP server: one listener, a bounded number of connections, TLS where it is asked for.

One more connection than the limit ends the one that has been without a request for longest: whoever opens connections
and says nothing, or half a request, keeps nobody out (SEC-73). Where all have requests, it waits in the listener's
queue. TLS is negotiated in the connection's own thread, so a client that never finishes it delays nobody.
"""

from __future__ import annotations

import socket
import threading
import time

from ..native.wire import peer_credentials
from .exchange import TIMEOUT_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection

    from .exchange import Exchange

CONNECTIONS_MAX = 1024
EVICTION_S = 0.5  # between two looks whether one that had a request has ended
LINGER_S, LINGER_BYTES = 2.0, 64 * 1024 * 1024
_BACKLOG = 1024


class Server:
    """Serves with `exchange` on a socket, which it owns. context: what the exchanges find as server.context.

    uids: who may connect to a unix socket (SO_PEERCRED); None is everybody. timeout_s: for a client that says nothing.
    """

    def __init__(
        self,
        listener: socket.socket,
        exchange: Callable[[socket.socket, object, Server], Exchange],
        context: object,
        tls: ssl.SSLContext | None = None,
        *,
        uids: Collection[int] | None = None,
        timeout_s: float = TIMEOUT_S,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.context = context
        self.tls = tls
        self.timeout_s = timeout_s
        self._uids = uids
        self._listener = listener
        self._exchange = exchange
        self._free = threading.Semaphore(connections_max)
        self._guard = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._resting: dict[socket.socket, float] = {}  # without a whole head of a request, and since when
        self._stopping = False
        listener.listen(_BACKLOG)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def busy(self) -> bool:
        """Whether anybody is connected."""
        return bool(self._connections)

    def serve(self) -> None:
        """Serve until `stop`."""
        while True:
            while not self._free.acquire(blocking=False):
                self._evict()
                if self._free.acquire(timeout=EVICTION_S):
                    break
            try:
                connection, address = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                self._free.release()  # the client went away, or we have no descriptor left for a moment
                continue
            if self._uids is not None and peer_credentials(connection)[1] not in self._uids:
                connection.close()
                self._free.release()
                continue
            threading.Thread(target=self._attend, args=(connection, address), daemon=True).start()

    def work(self, connection: socket.socket) -> None:
        """Note that a request has come on a connection; the rest of it must come without long pauses."""
        with self._guard:
            self._resting.pop(connection, None)
        connection.settimeout(min(self.timeout_s, TIMEOUT_S))

    def rest(self, connection: socket.socket) -> None:
        """Note that a connection waits for its next request."""
        with self._guard:
            if connection in self._connections:
                self._resting[connection] = time.monotonic()
        try:
            connection.settimeout(self.timeout_s)
        except OSError:
            pass  # it is closed

    def _evict(self) -> None:
        with self._guard:
            if not self._resting:
                return
            oldest = min(self._resting, key=self._resting.__getitem__)
            del self._resting[oldest]
            try:
                oldest.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

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
            connection.settimeout(self.timeout_s)
            if self.tls is not None:
                stream = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                with self._guard:
                    self._connections.discard(connection)
                    self._connections.add(stream)
                connection = stream
            self.rest(stream)
            if self.tls is not None:
                stream.do_handshake()  # type: ignore[attr-defined]  # of TLS
            self._exchange(stream, address, self)
            _linger(stream)
        except OSError as wrong:
            # Whoever it was has gone, or never spoke TLS (ssl.SSLError). Anything else is a defect.
            if self.tls is None and not isinstance(wrong, (ConnectionError, TimeoutError)):
                raise
            if self.tls is not None:
                _linger(connection)  # the last answer is the alert that says which certificate is missing
        finally:
            with self._guard:
                self._connections.discard(connection)
                self._resting.pop(connection, None)
            connection.close()
            self._free.release()


def _linger(connection: socket.socket) -> None:
    """Let the last answer arrive: a close with bytes unread resets the connection, and the answer is lost with it."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LINGER_S)
        left = LINGER_BYTES
        while left > 0 and (data := connection.recv(65536)):
            left -= len(data)
    except OSError:
        pass
