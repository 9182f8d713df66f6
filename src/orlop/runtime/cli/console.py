"""A container's terminal, shown on our own."""

from __future__ import annotations

import os
import select
import sys

from ...linux import tty

_CHUNK_BYTES = 32 * 1024


class Foreground:
    """Our own terminal in raw mode, and the container's output on it. A context manager that restores it."""

    __slots__ = ("_before", "_console", "_input")

    def __init__(self, console: int) -> None:
        self._console = console
        self._input = sys.stdin.fileno() if sys.stdin else -1
        self._before: list[object] | None = None

    def __enter__(self) -> Foreground:
        if self._input >= 0 and os.isatty(self._input):
            self._before = tty.set_raw(self._input)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            tty.restore(self._input, self._before)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        try:
            tty.set_size(self._console, *tty.get_size(self._input))
        except OSError:
            pass

    def copy(self) -> None:
        """Copy both ways until the container's side is closed."""
        poll = select.poll()
        poll.register(self._console, select.POLLIN)
        if self._input >= 0:
            poll.register(self._input, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                data = _read(fd)
                if fd == self._console:
                    if not data:
                        return
                    _write(1, data)
                elif data:
                    _write(self._console, data)
                else:
                    poll.unregister(fd)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except OSError:  # EIO: the last holder of the terminal has gone (pts(4))
        return b""


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
