"""How the library reaches an engine: a Transport of blocking sockets, and one in an asyncio event loop.

Both have the same coroutines. Those of `Blocking` never suspend; `drive` runs them to their end.
A connection is used by one call at a time and kept for the next; one on which a stream came is not used again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Protocol, TypeVar

from ...spec.errors import OrlopError, Unavailable
from ...spec.paths import from_environment
from ..native import wire
from ..native.client import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Sequence
    from typing import Any

    from ...spec.paths import Paths

T = TypeVar("T")
READ_BYTES = 256 * 1024
IDLE_MAX = 64  # connections that are kept for the next calls


class Transport(Protocol):
    """What operations need."""

    async def call(self, verb: str, args: dict[str, object], fds: Sequence[int] = ()) -> object:
        """Return a verb's result. Raises OrlopError."""

    async def open(self, verb: str, args: dict[str, object]) -> socket.socket:
        """Call a verb whose result is followed by a stream; return the connection."""

    async def receive(self, stream: socket.socket) -> bytes:
        """Return what comes next, b"" at the end."""

    async def send(self, stream: socket.socket, data: bytes) -> None:
        """Send all of it. Raises OSError."""

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Await to the end, whatever becomes of the caller: for what cleans up."""

    def close(self) -> None: ...


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine over a Blocking transport: it never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a blocking operation was suspended")


class Blocking:
    """Connections of blocking sockets. For any number of threads."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._guard = threading.Lock()
        self._idle: list[socket.socket] = []

    def _take(self) -> socket.socket:
        with self._guard:
            if self._idle:
                return self._idle.pop()
        return _connect(self._paths)

    def _keep(self, stream: socket.socket) -> None:
        with self._guard:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(stream)
                return
        stream.close()

    async def call(self, verb: str, args: dict[str, object], fds: Sequence[int] = ()) -> object:
        stream = self._take()
        try:
            result = _ask(stream, verb, args, fds)
        except OrlopError as wrong:
            if isinstance(wrong, (wire.Closed, wire.Malformed)):
                stream.close()
            else:
                self._keep(stream)
            raise
        except OSError as wrong:
            stream.close()
            raise _lost(wrong) from None
        except BaseException:
            stream.close()
            raise
        self._keep(stream)
        return result

    async def open(self, verb: str, args: dict[str, object]) -> socket.socket:
        stream = _connect(self._paths)
        try:
            _ask(stream, verb, args, ())
        except BaseException:
            stream.close()
            raise
        return stream

    async def receive(self, stream: socket.socket) -> bytes:
        return stream.recv(READ_BYTES)

    async def send(self, stream: socket.socket, data: bytes) -> None:
        stream.sendall(data)

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def close(self) -> None:
        with self._guard:
            idle, self._idle = self._idle, []
        for stream in idle:
            stream.close()


class Looping:
    """Connections in an event loop: nothing blocks it but finding the engine for the first time."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._idle: list[socket.socket] = []

    def _take(self) -> socket.socket:
        if self._idle:
            return self._idle.pop()
        stream = _connect(self._paths)
        stream.setblocking(False)
        return stream

    async def call(self, verb: str, args: dict[str, object], fds: Sequence[int] = ()) -> object:
        stream = self._take()
        try:
            result = await self._ask(stream, verb, args, fds)
        except OrlopError as wrong:
            if isinstance(wrong, (wire.Closed, wire.Malformed)):
                stream.close()
            else:
                self._idle.append(stream)
            raise
        except OSError as wrong:
            stream.close()
            raise _lost(wrong) from None
        except BaseException:  # cancelled: an answer is on its way to nobody
            stream.close()
            raise
        if len(self._idle) < IDLE_MAX:
            self._idle.append(stream)
        else:
            stream.close()
        return result

    async def _ask(self, stream: socket.socket, verb: str, args: dict[str, object], fds: Sequence[int]) -> object:
        message = wire.pack({"verb": verb, "args": args})
        # The first bytes carry the descriptors; the socket of a finished call always takes them.
        sent = socket.send_fds(stream, [message], list(fds)) if fds else 0
        await self.send(stream, message[sent:])
        head = await self._exactly(stream, 4)
        payload = await self._exactly(stream, min(int.from_bytes(head, "big"), wire.REPLY_BYTES_MAX))
        return wire.result_of(payload)

    async def _exactly(self, stream: socket.socket, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = await asyncio.get_running_loop().sock_recv(stream, min(length - len(data), READ_BYTES))
            if not piece:
                raise wire.Closed("read", "the engine's reply", "the engine closed the connection")
            data += piece
        return bytes(data)

    async def open(self, verb: str, args: dict[str, object]) -> socket.socket:
        stream = _connect(self._paths)
        stream.setblocking(False)
        try:
            await self._ask(stream, verb, args, ())
        except BaseException:
            stream.close()
            raise
        return stream

    async def receive(self, stream: socket.socket) -> bytes:
        stream.setblocking(False)
        return await asyncio.get_running_loop().sock_recv(stream, READ_BYTES)

    async def send(self, stream: socket.socket, data: bytes) -> None:
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(stream, data)

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _settled(task)
            raise

    def close(self) -> None:
        idle, self._idle = self._idle, []
        for stream in idle:
            stream.close()


async def _settled(task: Awaitable[object]) -> None:
    try:
        await task
    except OrlopError:
        pass  # the cancellation is what the caller hears of


def paths_of(root: str, run: str) -> Paths:
    """Return an engine's directories: those given, else the environment's, else the user's."""
    environ = dict(os.environ)
    environ |= {name: value for name, value in (("ORLOP_ROOT", root), ("ORLOP_RUN", run)) if value}
    return from_environment(environ, os.geteuid())


def _connect(paths: Paths) -> socket.socket:
    stream = connect(paths).stream
    return socket.socket(fileno=stream.detach())


def _ask(stream: socket.socket, verb: str, args: dict[str, object], fds: Sequence[int]) -> object:
    wire.send_request(stream, verb, args, fds)
    result, received = wire.receive_reply(stream)
    for fd in received:
        os.close(fd)
    return result


def _lost(wrong: OSError) -> Unavailable:
    cause = f"the connection broke: {wrong.strerror or wrong}"
    return Unavailable(
        "reach", "the engine", cause, hint="whether it was done is not known: look, then try again", code="E1201"
    )
