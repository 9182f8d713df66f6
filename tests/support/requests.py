"""Requests of the native protocol, read as the engine reads them: by the one reader that it has."""

from __future__ import annotations

import select
import socket

from orlop.frontends.native.incoming import Incoming
from orlop.frontends.native.wire import Request
from orlop.spec.errors import Invalid


def receive_request(sock: socket.socket) -> Request | None:
    """Wait for the next request, as long as the socket's own timeout; None when the client is done."""
    patience_s = sock.gettimeout()
    incoming = Incoming()
    sock.setblocking(False)
    try:
        while not incoming.whole:
            if not select.select([sock], [], [], patience_s)[0]:
                raise TimeoutError
            if not incoming.take(sock):
                if incoming.size:
                    raise Invalid("read", "the request", f"the stream ended after {incoming.size} bytes")
                return None
        return incoming.parse()
    finally:
        incoming.close()
        sock.settimeout(patience_s)
