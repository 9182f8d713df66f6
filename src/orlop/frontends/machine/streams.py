"""Many streams over one: what joins sockets on this side with sockets in a machine, over one virtio-serial port.

A frame is its stream (4 bytes), its kind (1 byte), the length of its payload (4 bytes, all big endian) and the payload.

    kind    direction     payload
    OPEN    host -> guest the name of a service; the stream's number is new
    DATA    both          bytes, never more than the receiver has given credit for
    EOF     both          empty: nothing follows in this direction
    CREDIT  both          4 bytes: so many more bytes may be sent; a stream begins with WINDOW_BYTES
    CLOSE   both          empty: the stream is gone, in both directions

Invariants: who does not read holds up its own stream and no other; a stream costs at most WINDOW_BYTES on each side;
what no peer of ours writes ends the whole link with ValueError (the machine is nobody to trust).
"""

from __future__ import annotations

import os
import select
from _socket import SHUT_WR

from ...supervise.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from ...supervise.loop import Loop

OPEN, DATA, EOF, CREDIT, CLOSE = 1, 2, 3, 4, 5
HEADER_BYTES = 9
PAYLOAD_BYTES_MAX = 32 * 1024
WINDOW_BYTES = 256 * 1024
STREAMS_MAX = 1000
_LINK_BYTES_MAX = 512 * 1024  # waiting for the port: more is not read from sockets
_HANG_UP = select.EPOLLERR  # reported whatever is asked for, as EPOLLHUP is


class Links:
    """All streams over one port.

    port: a non-blocking descriptor, both directions; it stays the caller's. serve: called with the name in an OPEN,
    returns a connected non-blocking socket, or None to refuse; None where the other side may open nothing.
    """

    def __init__(self, loop: Loop, port: int, serve: Callable[[str], socket | None] | None = None) -> None:
        self.ended = False
        self._loop = loop
        self._port = port
        self._serve = serve
        self._received = bytearray()
        self._sending = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._last = 0
        loop.watch(port, READ, self._ready)

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, service: str, sock: socket) -> bool:
        """Join a connected non-blocking socket with a service over there. Returns False when there are too many."""
        if self.ended or len(self._streams) >= STREAMS_MAX:
            return False
        self._last += 1
        self._send(self._last, OPEN, service.encode())
        self._add(self._last, sock)
        return True

    def close(self) -> None:
        """End every stream."""
        self.ended = True
        self._loop.unwatch(self._port)
        for stream in list(self._streams.values()):
            stream.drop()

    def _add(self, number: int, sock: socket) -> None:
        self._streams[number] = stream = _Stream(self, number, sock)
        stream.watch()

    def _ready(self, events: int) -> None:
        try:
            if events & (WRITE | select.EPOLLERR | select.EPOLLHUP):
                self._flush()
            if events & (READ | select.EPOLLERR | select.EPOLLHUP):
                self._receive()
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.close()

    def _receive(self) -> None:
        data = os.read(self._port, 4 * PAYLOAD_BYTES_MAX)
        if not data:
            raise ValueError("the other side is gone")
        self._received += data
        at = 0
        while len(self._received) - at >= HEADER_BYTES:
            number, kind, length = (
                int.from_bytes(self._received[at : at + 4], "big"),
                self._received[at + 4],
                int.from_bytes(self._received[at + 5 : at + 9], "big"),
            )
            if length > PAYLOAD_BYTES_MAX:
                raise ValueError("no frame of ours is so long")
            end = at + HEADER_BYTES + length
            if len(self._received) < end:
                break
            self._take(number, kind, bytes(self._received[at + HEADER_BYTES : end]))
            at = end
        del self._received[:at]

    def _take(self, number: int, kind: int, payload: bytes) -> None:
        if kind == OPEN:
            self._opened(number, payload)
            return
        if kind not in (DATA, EOF, CREDIT, CLOSE):
            raise ValueError(f"no frame of ours is of kind {kind}")
        stream = self._streams.get(number)
        if stream is not None:  # else it was dropped here while the frame was on its way
            stream.take(kind, payload)

    def _opened(self, number: int, payload: bytes) -> None:
        if self._serve is None or number in self._streams or len(self._streams) >= STREAMS_MAX:
            raise ValueError("nothing may be opened so")
        sock = self._serve(payload.decode("utf-8", "replace"))
        if sock is None:
            self._send(number, CLOSE)
        else:
            self._add(number, sock)

    def _send(self, number: int, kind: int, payload: bytes = b"") -> None:
        if self.ended:
            return
        self._sending += number.to_bytes(4, "big") + bytes((kind,)) + len(payload).to_bytes(4, "big") + payload
        self._loop.watch(self._port, READ | WRITE, self._ready)

    def _flush(self) -> None:
        was_full = self._is_full()
        if self._sending:
            sent = os.write(self._port, memoryview(self._sending)[: 4 * PAYLOAD_BYTES_MAX])
            del self._sending[:sent]
        if not self._sending:
            self._loop.watch(self._port, READ, self._ready)
        if was_full and not self._is_full():
            for stream in list(self._streams.values()):
                stream.watch()

    def _is_full(self) -> bool:
        return len(self._sending) > _LINK_BYTES_MAX


class _Stream:
    """One joined socket. It is gone when both directions have ended, or when either side says CLOSE."""

    def __init__(self, links: Links, number: int, sock: socket) -> None:
        self._links, self._number, self._sock = links, number, sock
        self._credit = WINDOW_BYTES  # what we may send
        self._given = WINDOW_BYTES  # what the other side may send
        self._queue = bytearray()  # for the socket
        self._read_all = self._got_all = self._is_shut = False
        self._is_closing = False  # the other side has forgotten it: what it sent is still written
        self._has_hung_up = False

    def watch(self) -> None:
        """Watch the socket for what can be done with it now."""
        reads = not self._read_all and self._credit > 0 and not self._links._is_full()
        events = (READ if reads else 0) | (WRITE if self._queue else 0) or (0 if self._has_hung_up else _HANG_UP)
        self._links._loop.watch(self._sock.fileno(), events, self._ready)

    def take(self, kind: int, payload: bytes) -> None:
        """Take a frame of this stream. Raises ValueError for one that no peer of ours writes."""
        if kind == CLOSE:
            self._is_closing = self._read_all = self._got_all = True
        elif kind == CREDIT:
            self._credit += int.from_bytes(payload, "big")
            if len(payload) != 4 or self._credit > WINDOW_BYTES:
                raise ValueError("more credit than there can be")
        elif self._got_all or len(payload) > self._given:
            raise ValueError("more data than there was credit for")
        elif kind == EOF:
            self._got_all = True
        else:
            self._given -= len(payload)
            self._queue += payload
        self._go_on()

    def drop(self) -> None:
        """Forget the stream and close its socket; the other side is not told."""
        if self._links._streams.pop(self._number, None) is not None:
            self._links._loop.unwatch(self._sock.fileno())
            self._sock.close()

    def _ready(self, events: int) -> None:
        hung_up = events & (select.EPOLLHUP | select.EPOLLERR)
        self._has_hung_up = self._has_hung_up or bool(hung_up)
        if not self._read_all and self._credit and (events & READ or hung_up):
            self._read()
        if hung_up and self._read_all:
            self._break()  # nobody is there any more
        if self._number in self._links._streams:
            self._go_on()

    def _read(self) -> None:
        try:
            data = self._sock.recv(min(self._credit, PAYLOAD_BYTES_MAX))
        except BlockingIOError:
            return
        except OSError:
            self._break()
            return
        if data:
            self._credit -= len(data)
            self._links._send(self._number, DATA, data)
        else:
            self._read_all = True
            self._links._send(self._number, EOF)

    def _go_on(self) -> None:
        if not self._flush():
            self._break()
        elif self._read_all and self._got_all and not self._queue:
            self.drop()
        else:
            self.watch()

    def _flush(self) -> bool:
        """Write what the socket takes, give credit for it. Returns False when nobody takes it any more."""
        try:
            while self._queue:
                sent = self._sock.send(memoryview(self._queue)[:PAYLOAD_BYTES_MAX])
                del self._queue[:sent]
                self._given += sent
                self._links._send(self._number, CREDIT, sent.to_bytes(4, "big"))
            if self._got_all and not self._is_shut:
                self._sock.shutdown(SHUT_WR)
                self._is_shut = True
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _break(self) -> None:
        if self._number in self._links._streams:
            self._links._send(self._number, CLOSE)
            self.drop()
