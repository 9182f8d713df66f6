"""An engine's socket without an engine: answers verbs from a table, so that a client is tested by itself."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from orlop.frontends.native import wire
from orlop.spec import attach, errors, jsonio
from orlop.spec.paths import Paths

from .engine import COMMAND, Finished
from .requests import receive_request

SILENCE_S_MAX = 20.0  # a bound against a hang: a peer that is silent for so long is a failed test


class Reply:
    """A result with descriptors, or one that is followed by bytes and the end of the connection."""

    def __init__(self, result: object, *, fds: Sequence[int] = (), stream: bytes | None = None) -> None:
        self.result, self.fds, self.stream = result, fds, stream


class HangUp(Exception):
    """Raised by an answer: the connection ends without a reply."""


Answer = Callable[[dict[str, Any], list[int]], object]


class FakeEngine:
    """A context manager. answers: verb -> result, or a function of (args, descriptors) that returns or raises it.

    calls: (verb, args) in the order in which they came. raw: bytes to send instead of any reply.
    A descriptor that came along is the answer's to close.
    """

    def __init__(self, answers: Mapping[str, object] | None = None, raw: bytes | None = None) -> None:
        self.answers = {"containers.told": {}, **(answers or {})}  # of a terminal, which any client may tell
        self.raw = raw
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._directory = tempfile.TemporaryDirectory(prefix="fake-engine-", dir="/tmp")
        base = Path(self._directory.name)
        self.paths = Paths(str(base / "root"), str(base / "run"))
        os.mkdir(self.paths.run, 0o700)

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.paths.engine_socket)
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._directory.cleanup()

    @property
    def variables(self) -> dict[str, str]:
        return os.environ | {"ORLOP_ROOT": self.paths.root, "ORLOP_RUN": self.paths.run}

    def __call__(self, *args: str, input: bytes = b"", env: Mapping[str, str] | None = None) -> Finished:
        """Run the real `./orlop args` against this engine."""
        done = subprocess.run(
            [COMMAND, *args], input=input, capture_output=True, timeout=60, env=self.variables | dict(env or {})
        )
        return Finished(list(args), done.returncode, done.stdout, done.stderr)

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `./orlop args`. As a context manager it ends the command when the test is over, also when it failed."""
        return _Ended([COMMAND, *args], env=self.variables, **options)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(SILENCE_S_MAX)
        # A client that a test kills is gone in the middle of whatever it was told.
        with sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while (request := receive_request(sock)) is not None:
                self.calls.append((request.verb, request.args))
                if self.raw is not None:
                    for fd in request.fds:
                        os.close(fd)
                    sock.sendall(self.raw)
                    return
                try:
                    answer = self.answers[request.verb]
                    result = answer(request.args, request.fds) if callable(answer) else answer
                except errors.OrlopError as error:
                    wire.send_error(sock, error)
                    continue
                except HangUp:
                    return
                reply = result if isinstance(result, Reply) else Reply(result)
                wire.send_result(sock, reply.result, reply.fds)
                for fd in reply.fds:
                    os.close(fd)
                if reply.stream is not None:
                    sock.sendall(reply.stream)
                    return


class _Ended(subprocess.Popen[bytes]):
    def __exit__(self, *error: Any) -> None:
        if self.poll() is None:
            self.kill()
        super().__exit__(*error)


class FakeMonitor:
    """The far end of an attach stream. A context manager around a descriptor that it takes over.

    takes: whether the process reads its input, so that the client is told TAKEN.
    """

    takes = True

    def __init__(self, fd: int) -> None:
        self.stream = socket.socket(fileno=fd)
        self.stream.settimeout(SILENCE_S_MAX)
        self._decoder = attach.Decoder()
        self._frames: list[tuple[int, bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def send(self, kind: int, payload: bytes) -> None:
        self.stream.sendall(attach.frame(kind, payload))

    def exit(self, code: int) -> None:
        self.send(attach.EXIT, jsonio.dump({"exitCode": code, "startedAt": "", "finishedAt": ""}))

    def receive(self) -> tuple[int, bytes] | None:
        """Return the next frame from the client, None at the end of its stream."""
        while not self._frames:
            try:
                data = self.stream.recv(65536)
            except ConnectionResetError:  # it has gone before it read what we said last
                data = b""
            if not data:
                return None
            self._frames += self._decoder.feed(data)
        kind, payload = self._frames.pop(0)
        if kind == attach.STDIN and payload and self.takes:
            try:
                self.send(attach.TAKEN, len(payload).to_bytes(4, "big"))
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has gone; what it sent before is still to be read
        return kind, payload

    def receive_stdin(self, wanted: bytes) -> None:
        """Take STDIN frames until that much was typed. Other frames on the way are passed over."""
        typed = b""
        while len(typed) < len(wanted):
            frame = self.receive()
            assert frame is not None, f"the client left after {typed!r}"
            if frame[0] == attach.STDIN:
                typed += frame[1]
        assert typed == wanted


def monitored(script: Callable[[FakeMonitor], None], result: object, threads: list[threading.Thread]) -> Answer:
    """Return an answer that hands the attach stream to a script in a thread of its own and replies with result."""

    def answer(_: dict[str, Any], fds: list[int]) -> object:
        (fd,) = fds

        def body() -> None:
            with FakeMonitor(fd) as monitor:
                script(monitor)

        thread = threading.Thread(target=body)
        thread.start()
        threads.append(thread)
        return result

    return answer
