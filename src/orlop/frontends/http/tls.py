"""TLS for servers: who has to show what, and a connection that stops being HTTP.

A raw session (attach, exec) is carried by poll on plain sockets. TLS has bytes that no poll sees, and OpenSSL takes no
two threads at once; so such a session gets one end of a socket pair, and a thread of its own carries bytes between the
other end and the TLS connection.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading

from ...spec.errors import Unavailable

READ_BYTES = 64 * 1024


def mutual(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return the context of a server that serves only clients with a certificate of an authority.

    The three are names of PEM files. Raises Unavailable when they can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate, key)
    except OSError as wrong:  # ssl.SSLError too
        hint = "give --tlscacert, --tlscert and --tlskey as PEM files that belong together"
        raise Unavailable("serve", "TCP", f"its certificates can't be used: {wrong}", hint=hint) from None
    return context


class Bridge:
    """A TLS connection whose bytes come and go on a plain socket, `plain`. `close` ends it."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._tls = connection
        self.plain, self._ours = socket.socketpair()
        self._to_client = bytearray()
        self._to_session = bytearray()
        self._client_open = self._session_open = True
        connection.setblocking(False)
        self._ours.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the session's side, and wait until the client has what was said."""
        self.plain.close()
        self._thread.join()
        self._tls.settimeout(None)

    def _run(self) -> None:
        try:
            while self._session_open or self._to_client:
                self._turn()
        except OSError:
            pass  # the client is gone
        finally:
            self._ours.close()

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._tls, self._client_events())
        if self._session_open:
            poll.register(self._ours, self._session_events())
        waiting = self._client_open and self._tls.pending() and not self._to_session
        poll.poll(0 if waiting else None)
        self._from_client()
        self._from_session()

    def _client_events(self) -> int:
        reads = self._client_open and not self._to_session
        return (select.POLLIN if reads else 0) | (select.POLLOUT if self._to_client else 0)

    def _session_events(self) -> int:
        return (0 if self._to_client else select.POLLIN) | (select.POLLOUT if self._to_session else 0)

    def _from_client(self) -> None:
        if self._client_open and not self._to_session:
            try:
                data = self._tls.recv(READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            else:
                self._to_session += data
                self._client_open = bool(data)
                if not data and self._session_open:
                    self._ours.shutdown(socket.SHUT_WR)
        if self._to_session and self._session_open:
            try:
                del self._to_session[: self._ours.send(self._to_session)]
            except BlockingIOError:
                pass

    def _from_session(self) -> None:
        if self._session_open and not self._to_client:
            try:
                data = self._ours.recv(READ_BYTES)
            except BlockingIOError:
                pass
            else:
                self._to_client += data
                self._session_open = bool(data)
        if self._to_client:
            try:
                del self._to_client[: self._tls.send(self._to_client)]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
