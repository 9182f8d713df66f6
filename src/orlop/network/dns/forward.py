"""Questions that nobody here can answer: asked of the upstream servers, one after the other.

Each question has an id and a port of its own, both drawn (RFC 5452). A server that does not answer in time, can't be
reached, or says SERVFAIL, REFUSED or NOTIMP is passed over; the last word counts when all of them say so. One that was
silent is asked after the others for a while: not every question waits for a server that is down.
"""

from __future__ import annotations

import os
import time
from _socket import (
    AF_INET,
    AF_INET6,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    if_nametoindex,
    socket,
)

from . import message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .server import Loop

TRY_S = 1.5
ROUNDS = 2
SILENT_S = 30.0
SILENT_MAX = 256
PENDING_MAX = 4096
PENDING_OF_ONE_MAX = 1024  # docker's
PORT = 53
_PASSED_OVER = (message.SERVFAIL, message.NOTIMP, message.REFUSED)
_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


if TYPE_CHECKING:
    Done = Callable[[bytes, list[str]], None]  # the answer with the query's id, and what happened


class Forwarder:
    """All questions that are under way."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.pending = 0
        self._pending_of: dict[str, int] = {}
        self._silent: dict[str, float] = {}  # server -> until when it is asked last

    def was_silent(self, server: str) -> None:
        """Ask the others first for a while."""
        if len(self._silent) >= SILENT_MAX:
            self._silent.clear()
        self._silent[server] = time.monotonic() + SILENT_S

    def has_answered(self, server: str) -> None:
        self._silent.pop(server, None)

    def _in_turn(self, servers: Sequence[str]) -> list[str]:
        now = time.monotonic()
        return sorted(servers, key=lambda server: self._silent.get(server, 0.0) > now)

    def ask(self, query: message.Query, servers: Sequence[str], stream: bool, done: Done, asker: str) -> None:
        """Ask for it; done(answer with the query's id, what happened) is called once. stream: over TCP.

        asker: who may not have more questions under way than its share: the others are asking, too.
        """
        asked = self._pending_of.get(asker, 0)
        if asked >= PENDING_OF_ONE_MAX or self.pending >= PENDING_MAX or not servers:
            why = "no upstream server is known" if not servers else "too many questions are under way"
            done(message.answer(query, message.SERVFAIL), [why])
            return
        self.pending += 1
        self._pending_of[asker] = asked + 1

        def answered(data: bytes, steps: list[str]) -> None:
            self.pending -= 1
            left = self._pending_of[asker] = self._pending_of[asker] - 1
            if not left:
                del self._pending_of[asker]
            done(data, steps)

        _Question(self, query, self._in_turn(servers) * ROUNDS, stream, answered).next()


def _scope(zone: str) -> int:
    """Return the link's index that a zone names, fe80::1%eth0. Raises OSError for a link that is not there."""
    return int(zone or 0) if zone.isdecimal() or not zone else if_nametoindex(zone)


class _Question:
    __slots__ = (
        "_buffer",
        "_done",
        "_forwarder",
        "_id",
        "_last",
        "_query",
        "_server",
        "_servers",
        "_socket",
        "_steps",
        "_stream",
        "_timer",
    )

    def __init__(
        self, forwarder: Forwarder, query: message.Query, servers: list[str], stream: bool, done: Done
    ) -> None:
        self._forwarder = forwarder
        self._query = query
        self._servers = servers
        self._stream = stream
        self._done = done
        self._socket: socket | None = None
        self._last = b""
        self._steps: list[str] = []
        self._id = 0
        self._buffer = b""
        self._server = ""
        self._timer = 0

    def next(self) -> None:
        """Ask the next server; answer when there is none."""
        self._close()
        while self._servers:
            self._server = self._servers.pop(0)
            self._id = int.from_bytes(os.urandom(2), "big")
            try:
                self._send()
            except OSError as failure:
                self._note(failure.strerror or str(failure))
                self._close()
                continue
            self._timer = self._forwarder.loop.after(TRY_S, self._late)
            return
        if not self._last:
            self._last = message.answer(self._query, message.SERVFAIL)
        self._finish(self._last)

    def _send(self) -> None:
        family = AF_INET6 if ":" in self._server else AF_INET
        kind = SOCK_STREAM if self._stream else SOCK_DGRAM
        self._socket = socket(family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
        host, _, zone = self._server.partition("%")
        where = (host, PORT, 0, _scope(zone)) if family == AF_INET6 else (host, PORT)
        self._buffer = b""
        try:
            self._socket.connect(where)
        except BlockingIOError:
            pass
        loop = self._forwarder.loop
        if self._stream:
            loop.watch(self._socket.fileno(), loop.WRITE, self._connected)
        else:
            self._socket.send(message.with_id(self._query.raw, self._id))
            loop.watch(self._socket.fileno(), loop.READ, self._received)

    def _connected(self, _events: int) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(SOL_SOCKET, SO_ERROR)
        if code:
            self._note(os.strerror(code))
            self.next()
            return
        data = message.with_id(self._query.raw, self._id)
        try:
            self._socket.sendall(len(data).to_bytes(2, "big") + data)
        except OSError as failure:
            self._note(failure.strerror or str(failure))
            self.next()
            return
        loop = self._forwarder.loop
        loop.watch(self._socket.fileno(), loop.READ, self._received)

    def _received(self, _events: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(message.TCP_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as failure:
            self._note(failure.strerror or str(failure))
            self.next()
            return
        if self._stream:
            self._buffer += data
            if not data:
                self._note("it closed the connection")
                self.next()
                return
            length = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < 2 + max(length, 1):
                return
            data = self._buffer[2 : 2 + length]
        if not message.is_answer_to(data, self._id, self._query.question):
            if self._stream:
                self._note("it answered something else")
                self.next()
            return  # over UDP: forged or late, the right one may still come
        self._forwarder.has_answered(self._server)
        code = message.code_of(data)
        self._note(_CODES.get(code, f"code {code}") + (", truncated" if message.is_truncated(data) else ""))
        self._last = message.with_id(data, self._query.id)
        if code in _PASSED_OVER:
            self.next()
        else:
            self._finish(self._last)

    def _late(self) -> None:
        self._timer = 0
        self._forwarder.was_silent(self._server)
        self._note(f"no answer within {TRY_S} s")
        self.next()

    def _note(self, what: str) -> None:
        self._steps.append(f"{self._server}{' (TCP)' if self._stream else ''}: {what}")

    def _finish(self, data: bytes) -> None:
        self._close()
        self._done(data, self._steps)

    def _close(self) -> None:
        loop = self._forwarder.loop
        if self._timer:
            loop.cancel(self._timer)
            self._timer = 0
        if self._socket is not None:
            loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
