"""The process's standard streams: its ends, our ends, and what flows between them.

Invariants:
1. Nothing here blocks: our ends are non-blocking. The process's ends are other open file descriptions, and block.
2. Input that was taken is written in order or dropped because nobody can read it any more; either is told.
3. On a terminal we hold the process's side open too: a process that closes its terminal and opens it again
   (`exec <&- >&-`, then /dev/tty) must not end its output, as the hang-up in between would.
"""

import fcntl
import os

from ..linux import tty
from ..spec import attach
from .loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    Taken = Callable[[int], None]
    Sink = Callable[[int, bytes], object]
else:
    from _collections import deque  # collections itself imports five more modules

READ_BYTES = attach.PAYLOAD_BYTES_MAX


class Pipes:
    """The three streams of a process without a terminal. ours: (stdin or -1, stdout, stderr)."""

    __slots__ = ("ours", "theirs")

    def __init__(self, open_stdin: bool) -> None:
        """open_stdin: keep standard input open for clients; else the process reads end of file from /dev/null."""
        if open_stdin:
            stdin, our_stdin = os.pipe()
        else:
            stdin, our_stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
        our_stdout, stdout = os.pipe()
        our_stderr, stderr = os.pipe()
        self.theirs = (stdin, stdout, stderr)
        self.ours = (our_stdin, our_stdout, our_stderr)
        for fd in self.ours:
            if fd >= 0:
                os.set_blocking(fd, False)

    def close_theirs(self) -> None:
        """Close the process's ends once it has its own: else we would never read end of file."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs = (-1, -1, -1)


class Input:
    """What clients sent, on its way into the process. Owns the descriptor."""

    __slots__ = ("_fd", "_finishing", "_loop", "_pending")

    def __init__(self, loop: Loop, fd: int) -> None:
        """fd: -1 when the process has no input for clients."""
        self._loop = loop
        self._fd = fd
        self._pending: deque[tuple[memoryview, Taken]] = deque()
        self._finishing = False

    def write(self, data: bytes, taken: "Taken") -> None:
        """Pass data on when there is room. taken(n) is called, once or more, when n bytes are written or dropped."""
        if self._fd < 0 or self._finishing:
            taken(len(data))
            return
        self._pending.append((memoryview(data), taken))
        if len(self._pending) == 1:
            self._flush(WRITE)

    def finish(self) -> None:
        """Let the process read end of file, after everything that waits."""
        self._finishing = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Drop what waits. Idempotent."""
        if self._fd < 0:
            return
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        while self._pending:
            data, taken = self._pending.popleft()
            taken(len(data))

    def _flush(self, _events: int) -> None:
        while self._pending:
            data, taken = self._pending[0]
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                self._loop.watch(self._fd, WRITE, self._flush)
                return
            except OSError:
                self.close()  # EPIPE: the process closed its input
                return
            if written < len(data):
                self._pending[0] = (data[written:], taken)
            else:
                self._pending.popleft()
            taken(written)
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            if self._finishing:
                self.close()


class Output:
    """One stream of the process. Owns the descriptor; begins paused."""

    __slots__ = ("_fd", "_loop", "_sink", "_stream")

    def __init__(self, loop: Loop, fd: int, stream: int, sink: "Sink") -> None:
        """stream: attach.STDOUT or STDERR. sink(stream, data) gets what the process writes."""
        self._loop = loop
        self._fd = fd
        self._stream = stream
        self._sink = sink

    @property
    def fd(self) -> int:
        """The descriptor, -1 after end of file."""
        return self._fd

    def resume(self) -> None:
        """Read when there is something to read."""
        if self._fd >= 0:
            self._loop.watch(self._fd, READ, self._pass_on)

    def pause(self) -> None:
        """Let the process wait."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)

    def drain(self) -> bool:
        """Pass on everything that is there now; return whether that was the end of it."""
        while self._fd >= 0 and self._pass_on(READ):
            pass
        return self._fd < 0

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _pass_on(self, _events: int) -> bool:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: nobody has the terminal open any more (pty(7))
        if not data:
            self.close()
            return False
        self._sink(self._stream, data)
        return True


class Terminal:
    """The process's terminal, seen from its master side. Owns the descriptors that it makes, borrows the master."""

    __slots__ = ("_held", "_master")

    def __init__(self, master: int) -> None:
        self._master = master
        os.set_blocking(master, False)
        self._held = tty.open_pty(master)[0]

    def input(self) -> int:
        """Return a descriptor of its own for the way in, which the caller closes."""
        return fcntl.fcntl(self._master, fcntl.F_DUPFD_CLOEXEC, 3)

    def resize(self, rows: int, columns: int) -> None:
        """Set the window size; the foreground process group gets SIGWINCH."""
        tty.set_size(self._master, rows, columns)

    def release(self) -> None:
        """Let the output end with the last process that has the terminal open. Idempotent."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
