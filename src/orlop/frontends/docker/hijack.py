"""A docker client's connection and a monitor's attach stream: bytes on one side, frames on the other.

docker's own frames (8 bytes of header, kinds 0 to 2) are the monitor's, so what a process without a terminal says is
passed on as it came. Bounded: neither side is read while the other has not taken what came before, and standard input
stays within the monitor's window (orlop.spec.attach).
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
import time

from ...spec import attach
from ..cli.session import DetachKeys
from . import websocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .context import Promise
    from .websocket import Codec

READ_BYTES = 32 * 1024
HEAD_POLL_MS, HEAD_POLLS_MAX = 2, 5000
TYPED_SINCE = (1, 42)  # since when the type of a stream tells whether it has frames; docker's API changelog
RAW, MULTIPLEXED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"


class Attached:
    """What the client wants to see and say. detach_keys b"": nothing ends the session but the client's leaving.

    codec, upgrade: of a WebSocket, and the headers that begin it. framed: what the process says comes in docker's
    frames; who starts an exec may want it another way than its terminal has it.
    """

    __slots__ = ("codec", "detach_keys", "framed", "stderr", "stdin", "stdout", "upgrade")

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool, terminal: bool, detach_keys: bytes = b"") -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.framed = not terminal
        self.detach_keys = detach_keys if terminal else b""
        self.codec: Codec | None = None
        self.upgrade: dict[str, str] = {}

    def headers(self, version: tuple[int, int], *, upgrades: bool = True) -> dict[str, str]:
        """Return the headers of the answer after which the connection is no HTTP any more.

        upgrades: the client has asked to be told so. Who has not is told of no frames, as by docker's daemon.
        """
        framed = self.framed and version >= TYPED_SINCE and upgrades
        return self.upgrade or {"Content-Type": MULTIPLEXED if framed else RAW}

    def told(self, kind: int, payload: bytes) -> bytes:
        """Return what the process said in the form in which this client reads it."""
        if self.codec is not None:
            return self.codec.encode(payload)
        return attach.frame(kind, payload) if self.framed else payload

    def told_by_line(self, kind: int, payload: bytes) -> bytes:
        """As `told`, each line for itself."""
        if not self.framed and self.codec is None:
            return payload
        lines = [line + b"\n" for line in payload.split(b"\n")]
        lines[-1] = lines[-1][:-1]
        if not lines[-1]:
            lines.pop()
        if self.codec is not None:
            return b"".join([self.codec.encode(line) for line in lines])
        head = struct.Struct(">B3xI").pack  # as attach.header, of which a log may want a million
        return b"".join([head(kind, len(line)) + line for line in lines])


def await_start(client: socket.socket, promise: Promise) -> int:
    """Wait until the container is started; return the attach stream, -1 when the client went or there is none."""
    poll = select.poll()
    poll.register(promise.fd, select.POLLIN)
    poll.register(client, select.POLLRDHUP | select.POLLHUP)
    while True:
        ready = dict(poll.poll())
        if promise.fd in ready:
            return promise.stream
        if ready.get(client.fileno(), 0) & (select.POLLHUP | select.POLLERR):
            return -1
        # The client has only ended its sending side: `docker run -i </dev/null` does, before the start.
        poll.modify(client, 0)


def relay(client: socket.socket, monitor: socket.socket, wanted: Attached, ahead: bytes = b"") -> bool:
    """Carry bytes until the process ends or the client leaves; tell whether the client detached by its keys."""
    return _Relay(client, monitor, wanted, ahead).run()


class _Head:
    """Whether a client has read the answer's head, which what comes behind waits for.

    docker-py reads the head with a buffer, and then the socket: what has come into the buffer is lost to it. dockerd
    takes so long to start a process that nobody sees it. A client that reads nothing for long gets all at once.
    """

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._is_read = client.family != socket.AF_UNIX  # elsewhere the kernel does not know
        self._patience = HEAD_POLLS_MAX

    def is_read(self) -> bool:
        if not self._is_read:
            unread = int.from_bytes(fcntl.ioctl(self._client, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
            self._patience -= 1
            self._is_read = not unread or self._patience < 0
        return self._is_read

    def wait(self) -> None:
        """Return once it is read."""
        while not self.is_read():
            time.sleep(HEAD_POLL_MS / 1000)


class _Relay:
    def __init__(self, client: socket.socket, monitor: socket.socket, wanted: Attached, ahead: bytes) -> None:
        self._client = client
        self._monitor = monitor
        self._wanted = wanted
        self._keys = DetachKeys(wanted.detach_keys) if wanted.detach_keys else None
        self._decoder = attach.Decoder()
        self._to_client = bytearray()
        self._to_monitor = bytearray()
        self._unread = 0  # of standard input, on the way to the process
        self._client_open = True
        self._head = _Head(client)
        self._over = False
        self._detached = False
        client.setblocking(False)
        monitor.setblocking(False)
        if ahead:
            self._decode(ahead)

    def run(self) -> bool:
        while not self._detached and (not self._over or self._to_client):
            poll = select.poll()
            poll.register(self._client, self._client_events())
            if not self._over:
                poll.register(self._monitor, self._monitor_events())
            ready = dict(poll.poll(HEAD_POLL_MS if self._to_client and not self._head.is_read() else None))
            try:
                self._turn(ready.get(self._client.fileno(), 0), ready.get(self._monitor.fileno(), 0))
            except OSError:  # the client is gone: the process runs on
                break
        return self._detached

    def _client_events(self) -> int:
        events = select.POLLOUT if self._to_client and self._head.is_read() else 0
        room = len(self._to_monitor) < READ_BYTES and self._unread < attach.WINDOW_BYTES - READ_BYTES
        if self._client_open and room and not self._over:
            events |= select.POLLIN
        return events

    def _monitor_events(self) -> int:
        return (select.POLLOUT if self._to_monitor else 0) | (0 if self._to_client else select.POLLIN)

    def _turn(self, of_client: int, of_monitor: int) -> None:
        if of_client & select.POLLOUT:
            del self._to_client[: self._client.send(self._to_client)]
        if of_client & select.POLLIN:
            self._hear_client()
        elif of_client & (select.POLLHUP | select.POLLERR):
            raise ConnectionResetError
        if of_monitor & select.POLLOUT:
            self._tell_monitor()
        if of_monitor & (select.POLLIN | select.POLLHUP):
            self._hear_monitor()

    def _hear_client(self) -> None:
        data = self._client.recv(READ_BYTES)
        if data:
            self._decode(data)
        else:
            self._client_open = False
            self._type(b"")

    def _decode(self, data: bytes) -> None:
        codec = self._wanted.codec
        if codec is None:
            self._type(data)
            return
        try:
            typed = codec.decode(data)
        except websocket.Broken:
            raise ConnectionResetError from None
        self._to_client += codec.replies
        codec.replies.clear()
        if typed:
            self._type(typed)
        if codec.closed:  # a WebSocket has no half: the client has left
            self._over = True

    def _type(self, data: bytes) -> None:
        if not self._wanted.stdin:
            return
        if data and self._keys is not None:
            data, self._detached = self._keys.feed(data)
            if not data:
                return
        self._to_monitor += attach.frame(attach.STDIN, data)
        self._unread += len(data)

    def _tell_monitor(self) -> None:
        try:
            del self._to_monitor[: self._monitor.send(self._to_monitor)]
        except BlockingIOError:
            pass
        except OSError:
            self._to_monitor.clear()  # it takes nothing more; its last frames may still be there

    def _hear_monitor(self) -> None:
        try:
            data = self._monitor.recv(attach.HEADER_BYTES + attach.PAYLOAD_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._over = True
            return
        try:
            for kind, payload in self._decoder.feed(data):
                self._take(kind, payload)
        except ValueError:
            self._over = True

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == attach.EXIT:
            self._over = True
            if self._wanted.codec is not None:
                self._to_client += self._wanted.codec.farewell()
        elif kind == attach.TAKEN:
            self._unread -= int.from_bytes(payload, "big")
        elif (kind == attach.STDOUT and self._wanted.stdout) or (kind == attach.STDERR and self._wanted.stderr):
            self._to_client += self._wanted.told(kind, payload)


def await_head_read(client: socket.socket) -> None:
    """Wait until a client has read the answer's head, or has read nothing for long."""
    _Head(client).wait()


def close(client: socket.socket) -> None:
    """End the connection so that the client sees the end, also when it has not read everything yet."""
    try:
        client.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def pair() -> tuple[socket.socket, int]:
    """Return a connected pair: our end, and the descriptor that goes to a monitor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return ours, theirs.detach()


def of_descriptor(fd: int) -> socket.socket:
    """Return the socket of a descriptor, which it owns now."""
    return socket.socket(fileno=fd)
