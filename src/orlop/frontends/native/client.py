"""A client's connection to the engine: found, or started, checked, and asked.

Used by the command line and by the library. What starts an engine lies in `start` and is imported only then.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, socket

from ...spec import errors
from ...spec.errors import Denied, Unavailable
from ...spec.paths import ENGINE_SOCKET
from . import rundir, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ...spec.paths import Paths


ATTEMPTS_MAX = 3  # a dying engine may take one more connection before its listening socket closes

# Verbs that change nothing: when an engine dies over one, the next engine is asked. What ended stays ended.
_QUESTIONS = frozenset(
    f"{noun}.{verb}"
    for noun, verbs in {
        "containers": "list inspect explain plan stat_path changes execs exec_inspect top request why wait logs stats",
        "engine": "ping info version events",
        "images": "list inspect history",
        "networks": "list inspect trace explain egress",
        "system": "df",
        "volumes": "list inspect usage",
    }.items()
    for verb in verbs.split()
)


class Lost(Unavailable):
    """The connection ended before the reply: whether the verb was carried out is not known."""


class Unsent(Lost):
    """The connection ended before the whole request was read: the verb was not carried out."""


class Engine:
    """One connection. Not for use by several threads at once; a thread that waits opens its own."""

    __slots__ = ("_log", "_reconnect", "_socket")

    def __init__(self, sock: socket, log: str, reconnect: Callable[[], socket] | None = None) -> None:
        """reconnect: returns a connection to the engine that follows this one; None, and an engine's death is told."""
        self._socket = sock
        self._log = log
        self._reconnect = reconnect

    def call(self, verb: str, args: dict[str, object] | None = None, fds: Sequence[int] = ()) -> object:
        """Return the verb's result. Raises the engine's error, Lost when it dies, Unavailable for nonsense."""
        result, received = self.call_with_fds(verb, args, fds)
        for fd in received:
            os.close(fd)
        return result

    def call_with_fds(
        self, verb: str, args: dict[str, object] | None = None, fds: Sequence[int] = ()
    ) -> tuple[object, list[int]]:
        """Like `call`, and return the descriptors that came with the result: the caller's to close."""
        for _ in range(ATTEMPTS_MAX - 1):
            self.send(verb, args or {}, fds)
            try:
                return self.receive()
            except Lost as lost:
                if self._reconnect is None or not (verb in _QUESTIONS or isinstance(lost, Unsent)):
                    raise
            self._renew()
        self.send(verb, args or {}, fds)
        return self.receive()

    def send(self, verb: str, args: dict[str, object], fds: Sequence[int] = ()) -> None:
        """Send a request; `receive` then returns its reply. One that a dying engine did not take goes to the next.

        An engine acts on whole requests only. Raises Unsent.
        """
        for left in reversed(range(ATTEMPTS_MAX)):
            try:
                wire.send_request(self._socket, verb, args, fds)
                return
            except OSError as wrong:
                if self._reconnect is None or not left:
                    raise self._failed(Unsent, f"the connection broke: {wrong.strerror}") from None
            self._renew()

    def receive(self) -> tuple[object, list[int]]:
        """Return the reply to a request that was sent, as `call_with_fds` does."""
        try:
            return wire.receive_reply(self._socket)
        except ConnectionResetError as wrong:
            # unix(7) says it, not the end, where bytes of ours were left unread or the connection was never accepted:
            # the engine has not seen the whole request.
            raise self._failed(Unsent, f"the connection broke: {wrong.strerror}") from None
        except OSError as wrong:
            raise self._failed(Lost, f"the connection broke: {wrong.strerror}") from None
        except (wire.Closed, wire.Cut) as wrong:
            raise self._failed(Lost, wrong.cause) from None
        except wire.Malformed as wrong:
            raise self._failed(Unavailable, wrong.cause) from None

    def messages(self, verb: str, args: dict[str, object], fds: Sequence[int] = ()) -> Generator[object, None, object]:
        """Call a verb that tells how far it is: yield its messages. The generator's value is its result.

        Raises as `call` does.
        """
        self.send(verb, args, fds)
        self.receive()
        while True:
            try:
                received = wire.receive(self._socket, "the engine's reply", wire.REPLY_BYTES_MAX)
            except OSError as wrong:
                raise self._failed(Lost, f"the connection broke: {wrong.strerror}") from None
            value = received[0] if received is not None else None
            if not isinstance(value, dict):
                raise self._failed(Lost, "the engine closed the connection")
            if "error" in value:
                raise errors.from_json(value["error"])
            if "result" in value:
                return value["result"]
            yield value.get("message")

    @property
    def stream(self) -> socket:
        """The connection's socket, for a verb whose result is followed by frames: no more calls then."""
        return self._socket

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _renew(self) -> None:
        assert self._reconnect is not None
        self._socket.close()
        self._socket = self._reconnect()

    def _failed(self, kind: type[Unavailable], cause: str) -> Unavailable:
        return kind("read", "the engine's reply", cause, hint=f"read {self._log}, then try again")


def connect(paths: Paths, *, start: bool = True) -> Engine:
    """Return a connection to the engine of these directories, starting one when none listens and start is true.

    Raises Denied when the run directory or the engine is somebody else's, Unavailable when there is no engine.
    """
    return Engine(_connect(paths, start), paths.engine_log, lambda: _connect(paths, start))


def adopt(paths: Paths, fd: int) -> Engine:
    """Return a connection that another program of ours has made and asked on: its reply is still to be received."""
    return Engine(socket(fileno=fd), paths.engine_log)


def _connect(paths: Paths, start: bool) -> socket:
    sock = _find(paths)
    if sock is None and start:
        from .start import start_engine

        sock = start_engine(paths)
    if sock is None:
        raise Unavailable(
            "reach", "the engine", f"none runs in {paths.run}", hint="start one with: orlop serve", code="E1201"
        )
    return sock


def _find(paths: Paths) -> socket | None:
    try:
        directory = rundir.open_private(paths.run, create=False)
    except FileNotFoundError:
        return None
    try:
        return try_connect(directory)
    finally:
        os.close(directory)


def try_connect(directory: int) -> socket | None:
    """Return a socket connected to the engine of this (checked) run directory, None when nothing listens there."""
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.connect(rundir.socket_path(directory, ENGINE_SOCKET))
        _, uid, _ = wire.peer_credentials(sock)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as wrong:
        sock.close()
        raise Unavailable("reach", "the engine", wrong.strerror or str(wrong)) from None
    if uid != os.geteuid():
        sock.close()
        raise Denied("talk to", "the engine", f"it runs as uid {uid}, you are {os.geteuid()}")
    return sock
