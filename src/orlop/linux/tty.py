"""Pseudo terminals of a given devpts instance, window sizes, raw mode, the controlling terminal."""

from __future__ import annotations

import _struct as struct  # the module behind it, which is built in: a file less to import
import fcntl
import os

# The module termios has these too, and takes half a millisecond to import: only raw mode needs it.
_TIOCSCTTY = 0x540E
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441


def open_pty(ptmx: int) -> tuple[int, int, int]:
    """Return (terminal descriptor, number, ptmx) after unlocking the pair whose ptmx was opened.

    The peer is opened by TIOCGPTPEER, not by its path: /dev/pts/N can be swapped (CVE-2025-52565). ioctl_tty(2).
    """
    fcntl.ioctl(ptmx, _TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("I", fcntl.ioctl(ptmx, _TIOCGPTN, bytes(4)))
    peer = fcntl.ioctl(ptmx, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return peer, number, ptmx


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, _TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """Return (rows, columns)."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, _TIOCGWINSZ, bytes(8)))
    return rows, columns


def make_controlling(fd: int) -> None:
    """Make the terminal the controlling one of the caller, which must lead a session without one."""
    fcntl.ioctl(fd, _TIOCSCTTY, 0)


def set_keys(fd: int) -> list[object]:
    """Let a terminal give each key at once, unseen; Ctrl-C is a signal still. Return what `restore` takes."""
    import termios

    before = termios.tcgetattr(fd)
    changed = [*before]
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(fd, termios.TCSANOW, changed)
    return before


def set_raw(fd: int) -> list[object]:
    """Put a terminal into raw mode as cfmakeraw(3) does and return the attributes that `restore` takes."""
    import termios

    before = termios.tcgetattr(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = before
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = [*cc]
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
    return before


def restore(fd: int, attributes: list[object]) -> None:
    """Give a terminal back the attributes that `set_raw` returned."""
    import termios

    termios.tcsetattr(fd, termios.TCSADRAIN, attributes)  # type: ignore[arg-type]
