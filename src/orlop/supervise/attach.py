"""The clients of one process: they see its output, write its input, resize its terminal, send it signals.

The frames are those of `orlop.spec.attach`.

Invariants:
1. What clients do not read is bounded: at QUEUE_BYTES_MAX for one of them the monitor stops reading the process, which
   then waits for that client, as with docker. A client that goes frees it.
2. What clients write is bounded: beyond two windows of input that the process has not taken, a client is not read.
3. A client is a process of our user or of root (SO_PEERCRED), or was handed to us connected. One that breaks the
   protocol is dropped, and nothing else happens.
4. What a client sent before it went still reaches the process.
"""

import os
import sys
from _socket import AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, socket

from ..spec import attach
from ..spec.task import ATTACH_SOCKET
from .loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Protocol

    class Process(Protocol):
        """What clients act on. Nothing here raises: a process that is gone ignores it."""

        def write(self, data: bytes, taken: "Callable[[int], None]") -> None:
            """Pass data to standard input; taken(n) is called when n bytes are written or dropped."""

        def end_input(self) -> None:
            """A client's input ended."""

        def end_with_client(self) -> None:
            """The first client of all has gone without a word."""

        def resize(self, rows: int, columns: int) -> None: ...

        def signal(self, number: int) -> None: ...

        def follow(self, encoded: str) -> None:
            """Follow these files, and no others any more."""

else:
    from _collections import deque  # collections itself imports five more modules

QUEUE_BYTES_MAX = 1024 * 1024
CLIENTS_MAX = 256
_BACKLOG = 64
_SIGNAL_MAX = 64
_RECEIVE_BYTES = attach.HEADER_BYTES + attach.PAYLOAD_BYTES_MAX
_CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid


def connect(runtime_directory: str) -> socket:
    """Return a connection to the monitor that listens in this directory.

    Raises FileNotFoundError or ConnectionRefusedError when none does.
    """
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    directory = os.open(runtime_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(_address(directory))
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock


def listen(directory_fd: int) -> socket:
    """Return a socket that listens in this directory, in the place of one that a dead monitor left. Raises OSError."""
    _unlink_socket(directory_fd)
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
    try:
        listener.bind(_address(directory_fd))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _address(directory_fd: int) -> str:
    # A socket's path has at most 107 bytes (unix(7)); through the descriptor every directory is near.
    return f"/proc/self/fd/{directory_fd}/{ATTACH_SOCKET}"


class Client:
    """One connection. Owns the socket."""

    __slots__ = ("_clients", "_deaf", "_decoder", "_queue", "_sock", "_taken", "_waiting", "detached", "is_first",
                 "queued_bytes")  # fmt: skip

    def __init__(self, clients: "Clients", sock: socket, is_first: bool) -> None:
        self._clients = clients
        self._sock = sock
        self._decoder = attach.Decoder()
        self._queue: deque[bytes | memoryview] = deque()
        self._waiting = 0  # bytes of input that the process has not taken
        self._taken = 0  # of those that it has, what the client was not told yet
        self._deaf = False  # nothing reaches it any more; what it sent before may still be there
        self.queued_bytes = 0
        self.is_first = is_first
        self.detached = False
        sock.setblocking(False)
        self._watch()

    def send(self, frame: bytes) -> None:
        """Queue one whole frame, and write what the socket takes."""
        if self._deaf:
            return
        self._queue.append(frame)
        self.queued_bytes += len(frame)
        if len(self._queue) == 1:
            self._flush()

    def write_input(self, data: bytes) -> None:
        """Pass input to the process; the client is told when it is taken."""
        self._waiting += len(data)
        self._clients.process.write(data, self._input_taken)

    def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._clients.loop.unwatch(self._sock.fileno())
            self._sock.close()
        self._deafen()

    @property
    def _closed(self) -> bool:
        return self._sock.fileno() < 0

    @property
    def _readable(self) -> bool:
        return self._waiting < 2 * attach.WINDOW_BYTES

    def _watch(self) -> None:
        if not self._closed:
            events = READ * self._readable | WRITE * bool(self._queue)
            self._clients.loop.watch(self._sock.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if self._queue:
            self._flush()
            self._clients.relieve()
        if events & ~WRITE and self._readable and not self._closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
            for kind, payload in self._decoder.feed(data):
                self._clients.act(self, kind, payload)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data = b""
        if data:
            self._watch()
        else:
            self._clients.drop(self)

    def _input_taken(self, count: int) -> None:
        self._waiting -= count
        self._taken += count
        self._tell_taken()
        self._watch()

    def _tell_taken(self) -> None:
        # Only into an empty queue: a client that writes and never reads makes no queue of these.
        if self._taken and not self._queue:
            count, self._taken = self._taken, 0
            self.send(attach.frame(attach.TAKEN, count.to_bytes(4, "big")))

    def _flush(self) -> None:
        try:
            while self._queue:
                piece = self._queue[0]
                sent = self._sock.send(piece)
                self.queued_bytes -= sent
                if sent < len(piece):
                    self._queue[0] = memoryview(piece)[sent:]
                else:
                    self._queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._deafen()
        self._tell_taken()
        self._watch()

    def _deafen(self) -> None:
        self._deaf = True
        self._queue.clear()
        self.queued_bytes = 0


class Clients:
    """Everybody who is attached, and the socket where more come from."""

    __slots__ = ("_all", "_congested", "_directory", "_first_came", "_listener", "_on_relief", "loop", "process")

    def __init__(self, loop: Loop, process: "Process", on_relief: "Callable[[], None]") -> None:
        """on_relief: called when the process may be read again after `broadcast` has returned False."""
        self.loop = loop
        self.process = process
        self._on_relief = on_relief
        self._all: list[Client] = []
        self._first_came = False
        self._congested = False
        self._listener: socket | None = None
        self._directory = -1

    def accept_on(self, listener: socket, directory_fd: int) -> None:
        """Take clients from a socket of `listen`, which is owned from now on; its directory is borrowed."""
        self._listener = listener
        self._directory = directory_fd
        self._watch_listener()

    def stop_listening(self) -> None:
        """Take who already knocked, then nobody more. Idempotent."""
        if self._listener is not None:
            self._accept(READ)
            self.loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None
            _unlink_socket(self._directory)

    def add(self, sock: socket) -> None:
        """Attach a connected client. When the first one of all goes, that ends the process's input."""
        client = Client(self, sock, not self._first_came)
        self._first_came = True
        self._all.append(client)

    def broadcast(self, kind: int, payload: bytes) -> bool:
        """Send a frame to every client; return whether the process may be read on."""
        if self._all:
            frame = attach.frame(kind, payload)
            for client in self._all:
                client.send(frame)
            self._congested = any(client.queued_bytes >= QUEUE_BYTES_MAX for client in self._all)
        return not self._congested

    def relieve(self) -> None:
        """Let the process be read on when the queues have gone down to a half."""
        if self._congested and all(client.queued_bytes < QUEUE_BYTES_MAX // 2 for client in self._all):
            self._congested = False
            self._on_relief()

    def queued(self) -> int:
        """Return how many bytes clients have still to read."""
        return sum(client.queued_bytes for client in self._all)

    def close(self) -> None:
        """Close every connection; what is still queued is lost."""
        while self._all:
            self._all.pop().close()

    def act(self, client: Client, kind: int, payload: bytes) -> None:
        """Do what a client's frame says. Raises ValueError for a frame that no client sends."""
        if kind == attach.STDIN and payload:
            client.write_input(payload)
        elif kind == attach.STDIN:
            self.process.end_input()
        elif kind == attach.RESIZE and len(payload) == 4:
            self.process.resize(int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big"))
        elif kind == attach.DETACH and not payload:
            client.detached = True
        elif kind == attach.SIGNAL and len(payload) == 1 and 0 < payload[0] <= _SIGNAL_MAX:
            self.process.signal(payload[0])
        elif kind == attach.FOLLOW:
            self._first_came = self._first_came and not client.is_first
            client.is_first = False  # an engine's: with its going nothing of anybody's ends
            self.process.follow(payload.decode(errors="surrogateescape"))
        else:
            raise ValueError(f"a client sends no frame of kind {kind} with {len(payload)} bytes")

    def drop(self, client: Client) -> None:
        """Forget a client that went or broke the protocol."""
        client.close()
        self._all.remove(client)
        if client.is_first:
            self.process.end_input()
            if not client.detached:
                self.process.end_with_client()
        self.relieve()
        self._watch_listener()

    def _watch_listener(self) -> None:
        if self._listener is not None:
            self.loop.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        while True:
            try:
                fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # socket.accept without its enums
            except BlockingIOError:
                return
            except OSError:
                # ENFILE, ENOMEM: they wait in the backlog until somebody goes; asking on would never sleep.
                self.loop.unwatch(self._listener.fileno())
                return
            sock = socket(fileno=fd)
            if len(self._all) < CLIENTS_MAX and _peer_uid(sock) in (0, os.geteuid()):
                self.add(sock)
            else:
                sock.close()


def _peer_uid(sock: socket) -> int:
    credentials = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS_BYTES)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def _unlink_socket(directory_fd: int) -> None:
    try:
        os.unlink(ATTACH_SOCKET, dir_fd=directory_fd)
    except FileNotFoundError:
        pass
