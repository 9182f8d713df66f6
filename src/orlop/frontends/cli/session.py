"""A foreground session: one loop that carries bytes, signals and window sizes between our terminal and a monitor.

Invariants:
- Nothing blocks but poll(2): output is written only when it is ready and in pieces that fit, so a stopped reader of
  our output never delays a signal, and a container that does not read never delays its own output.
- Bounded: standard input is read only while less than a frame waits for the monitor and less than WINDOW_BYTES for the
  process (TAKEN), the stream only while no output waits. So the monitor reads us always: a signal passes a process
  that does not read its input.
- The terminal is raw only inside `Session.run`, and it is given back however that ends.
"""

from __future__ import annotations

import errno
import os
import select
import stat

from ...linux import tty
from ...spec import attach, jsonio
from ...spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from _socket import socket
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any
else:
    import _signal  # signal itself wraps this in enums, for 4 ms

READ_BYTES = 32 * 1024
# poll(2) promises room for PIPE_BUF bytes on a pipe, no more (pipe(7)).
PIECE_BYTES = select.PIPE_BUF
REGULAR_PIECE_BYTES = 1 << 20

# What docker forwards is everything but a few; what can't be caught, tells of ourselves or is a fault stays here too.
FORWARDED = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGALRM,
    _signal.SIGTERM, _signal.SIGTSTP, _signal.SIGPWR, _signal.SIGPOLL, *range(_signal.SIGRTMIN, _signal.SIGRTMAX + 1),
)  # fmt: skip
ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
IMPATIENT_MAX = 3


class OutputClosed(Exception):
    """Nobody reads our output any more."""


class Signals:
    """Catches the forwarded signals and SIGWINCH from `with` to its end; `read` returns what came.

    Before the session runs, a third SIGINT or SIGTERM raises KeyboardInterrupt: the way out when an engine hangs.
    """

    def __init__(self) -> None:
        self._before: list[tuple[int, Any]] = []
        self._wakeup_before = -1
        self._impatient = 0
        self.patient = False
        self.fd, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Signals:
        self._wakeup_before = _signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in (*FORWARDED, _signal.SIGWINCH):
            self._before.append((number, _signal.signal(number, self._noted)))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _signal.set_wakeup_fd(self._wakeup_before)
        if (
            kind is not KeyboardInterrupt
        ):  # who gives up keeps on pressing: one more must not end us with another status
            for number, handler in self._before:
                _signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write_end)

    def read(self) -> bytes:
        """Return the numbers of the signals that arrived since, one byte each."""
        try:
            return os.read(self.fd, 256)
        except BlockingIOError:
            return b""

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        if not self.patient and number in (_signal.SIGINT, _signal.SIGTERM):
            self._impatient += 1
            if self._impatient == IMPATIENT_MAX:
                raise KeyboardInterrupt


class DetachKeys:
    """Finds the detach sequence in what is typed; a part of it is held back until the next key decides."""

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """Return the bytes to pass on, and whether the sequence is complete (what follows it is dropped)."""
        out = bytearray()
        for key in typed:
            if key != self._keys[self._matched]:
                out += self._keys[: self._matched]
                self._matched = 0
            if key != self._keys[self._matched]:
                out.append(key)
                continue
            self._matched += 1
            if self._matched == len(self._keys):
                return bytes(out), True
        return bytes(out), False


class Attachment:
    """What a session connects: descriptors, None where a stream is not attached.

    terminal: the process has a terminal of its own; detach_keys then end the session. proxy_signals: signals go to
    the process instead of ending the session. resized: called with rows and columns when the terminal got that size.
    """

    __slots__ = ("detach_keys", "proxy_signals", "resized", "stderr", "stdin", "stdout", "terminal")

    def __init__(
        self,
        *,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        terminal: bool,
        detach_keys: bytes,
        proxy_signals: bool,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.terminal = terminal
        self.detach_keys = detach_keys
        self.proxy_signals = proxy_signals
        self.resized: Callable[[int, int], object] | None = None


class RawTerminal:
    """The terminal of standard input is raw from `with` to its end; nothing happens for what is no terminal."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd if fd is not None and os.isatty(fd) else None
        self._before: list[object] = []

    def __enter__(self) -> None:
        if self._fd is not None:
            self._before = tty.set_raw(self._fd)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        if self._fd is not None:
            tty.restore(self._fd, self._before)


class Session:
    """One attached client. After `run` exactly one holds: exit_code is a number, detached or interrupted says why not,
    or the stream ended without an exit record (lost). heard: a monitor said something."""

    def __init__(self, stream: socket, attachment: Attachment, signals: Signals) -> None:
        self.exit_code: int | None = None
        self.detached = False
        self.interrupted = 0
        self.heard = False
        self._stream = stream
        self._attachment = attachment
        self._signals = signals
        self._stdin = attachment.stdin
        self._keys = DetachKeys(attachment.detach_keys) if attachment.terminal else None
        self._decoder = attach.Decoder()
        self._to_process = bytearray()
        self._untaken = 0  # bytes of input that the process has not taken
        self._to_output: list[tuple[int, memoryview]] = []
        self._open = True
        self._sending = True
        self._piece = {fd: _piece_bytes(fd) for fd in (attachment.stdout, attachment.stderr) if fd is not None}
        stream.setblocking(False)

    @property
    def lost(self) -> bool:
        return self.exit_code is None and not self.detached and not self.interrupted

    def run(self) -> None:
        """Carry until the process ends, the client detaches, or the stream breaks. Raises OutputClosed."""
        self._signals.patient = True
        with RawTerminal(self._attachment.stdin if self._attachment.terminal else None):
            if self._attachment.terminal:
                self._resize()
            while (self._open or self._to_output) and not self.detached and not self.interrupted:
                self._turn()
            if self.detached:
                self._send(attach.DETACH, b"")
                self._exchange(reading=False)  # with what was typed before the detach keys

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        stream_events = select.POLLOUT if self._to_process and self._sending else 0
        if self._open and not self._to_output:
            stream_events |= select.POLLIN
        if stream_events:
            poll.register(self._stream, stream_events)
        if self._to_output:
            poll.register(self._to_output[0][0], select.POLLOUT)
        has_room = len(self._to_process) < attach.PAYLOAD_BYTES_MAX and self._untaken < attach.WINDOW_BYTES - READ_BYTES
        if self._stdin is not None and has_room:
            poll.register(self._stdin, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self._signals.fd in ready:
            self._take_signals()
        if self._to_output and self._to_output[0][0] in ready:
            self._write()
        if self._stdin in ready:
            self._read_stdin()
        if self._stream.fileno() in ready:
            self._exchange(reading=bool(stream_events & select.POLLIN))

    # -- towards the process --------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in self._signals.read():
            if number == _signal.SIGWINCH:
                if self._attachment.terminal:
                    self._resize()
            elif self._attachment.proxy_signals:
                self._send(attach.SIGNAL, bytes((number,)))
            elif number in ENDING:
                self.interrupted = number

    def _resize(self) -> None:
        if size := window_size():
            self._send(attach.RESIZE, attach.size(*size))
            if self._attachment.resized is not None:
                self._attachment.resized(*size)

    def _read_stdin(self) -> None:
        fd = self._stdin
        if fd is None:
            return
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal was hung up; EBADF: there never was one
            data = b""
        if data and self._keys is not None:
            data, self.detached = self._keys.feed(data)
            if not data:
                return
        if not data:
            self._stdin = None
        self._untaken += len(data)
        self._send(attach.STDIN, data)

    def _send(self, kind: int, payload: bytes) -> None:
        if self._sending:
            self._to_process += attach.frame(kind, payload)

    # -- from the process -----------------------------------------------------------------------------------------

    def _exchange(self, *, reading: bool) -> None:
        if self._to_process and self._sending:
            try:
                sent = self._stream.send(self._to_process)
                del self._to_process[:sent]
            except BlockingIOError:
                pass
            except OSError:
                # The monitor takes nothing more; its last frames may still be there.
                self._sending = False
                self._stdin = None
                self._to_process.clear()
        if reading:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._stream.recv(attach.HEADER_BYTES + attach.PAYLOAD_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._open = False
            return
        self.heard = True
        try:
            for kind, payload in self._decoder.feed(data):
                self._take_frame(kind, payload)
        except ValueError:
            self._open = False

    def _take_frame(self, kind: int, payload: bytes) -> None:
        if kind == attach.EXIT:
            self.exit_code = _exit_code(payload)
            self._open = False
        elif kind in (attach.STDOUT, attach.STDERR) and payload:
            fd = self._attachment.stdout if kind == attach.STDOUT else self._attachment.stderr
            if fd is not None:
                self._to_output.append((fd, memoryview(payload)))
        elif kind == attach.TAKEN and len(payload) == 4:
            self._untaken -= int.from_bytes(payload, "big")

    def _write(self) -> None:
        fd, data = self._to_output[0]
        try:
            written = os.write(fd, data[: self._piece[fd]])
        except BlockingIOError:
            return
        except OSError as wrong:
            if wrong.errno in (errno.EPIPE, errno.EIO):
                raise OutputClosed from None
            raise
        if written == len(data):
            del self._to_output[0]
        else:
            self._to_output[0] = (fd, data[written:])


def window_size() -> tuple[int, int] | None:
    """Return (rows, columns) of our terminal, None without one."""
    for fd in (1, 0, 2):
        try:
            rows, columns = tty.get_size(fd)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return None


def _piece_bytes(fd: int) -> int:
    mode = os.fstat(fd).st_mode
    return REGULAR_PIECE_BYTES if stat.S_ISREG(mode) else PIECE_BYTES


def _exit_code(payload: bytes) -> int | None:
    try:
        code = jsonio.parse_object(payload, "the exit record").get("exitCode")
    except Invalid:
        return None
    return code & 0xFF if type(code) is int else None
