"""A program on a pseudo-terminal, as a person sees it: type, wait for text, resize, read the exit status."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

from .pace import SLOW

TIMEOUT_S_DEFAULT = 30.0 * SLOW


class Terminal:
    """Run argv with a new terminal as its controlling terminal and standard streams. A context manager.

    output: everything printed so far, as it came from the terminal (lines end with CR LF).
    """

    def __init__(
        self, argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str], *, rows: int = 24, columns: int = 80
    ) -> None:
        self.output = b""
        self._searched = 0
        self._code: int | None = None
        self._fd, slave = pty.openpty()
        self.resize(rows, columns)
        # The session leader's first open of a terminal without O_NOCTTY makes it the controlling one (man 4 tty).
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        words = [os.fspath(word) for word in argv]
        self.pid = os.posix_spawnp(words[0], words, dict(env), file_actions=actions, setsid=True)
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The hang-up of the closed terminal ends whoever still reads it.
        os.close(self._fd)
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)

    def send(self, data: bytes | str) -> None:
        """Type."""
        os.write(self._fd, data.encode() if isinstance(data, str) else data)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the foreground process gets SIGWINCH."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: bytes | str, timeout: float = TIMEOUT_S_DEFAULT) -> bytes:
        """Wait for text after what was expected before; return what came up to its end. Fails without it."""
        wanted = text.encode() if isinstance(text, str) else text
        deadline = time.monotonic() + timeout
        while (at := self.output.find(wanted, self._searched)) < 0:
            assert self._read(deadline), f"{wanted!r} did not come after {self.output[self._searched :]!r}"
        start, self._searched = self._searched, at + len(wanted)
        return self.output[start : self._searched]

    def wait(self, timeout: float = TIMEOUT_S_DEFAULT) -> int:
        """Wait for the program's end; return its status, or the negated signal."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        assert time.monotonic() < deadline, f"the program did not end; the terminal shows {self.output!r}"
        _, status = os.waitpid(self.pid, 0)
        self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def _read(self, deadline: float) -> bool:
        """Read what is there; False at the program's end or the deadline."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the last process with the terminal open has gone (man 4 pts)
            return False
        self.output += data
        return bool(data)
