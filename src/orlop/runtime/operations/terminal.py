"""Standard streams: pipes of the caller's, or a pseudo terminal of the container's own devpts."""

import errno
import fcntl
import os
import stat

from ...linux import mount, path, tty
from ...spec.errors import Invalid
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init

_PTMX = os.makedev(5, 2)
_NULL = os.makedev(1, 3)
_FIRST_OWN_FD = 3


class OpenTerminal(Operation):
    """Open a terminal in the container's devpts, and show it at /dev/console.

    The master goes to the caller with "ready". The device is checked before it is opened, and the terminal is opened
    through the master and bound by descriptor: paths below /dev/pts can be swapped (CVE-2025-52565).
    """

    rows: int = 0
    columns: int = 0
    console: bool = True
    subject = "streams"

    def describe(self) -> str:
        return "open a terminal" + (" and show it at /dev/console" if self.console else "")

    def call(self) -> str:
        return "open(/dev/pts/ptmx), ioctl(TIOCGPTPEER)" + (", move_mount to /dev/console" if self.console else "")

    def act(self, init: "Init") -> None:
        master, terminal = _open_pair(init)
        if self.rows or self.columns:
            tty.set_size(master, self.rows, self.columns)
        if self.console:
            target = _console_target(init)
            try:
                mount.move_mount(mount.clone_tree(terminal), target)
            finally:
                os.close(target)
        init.terminal = master, terminal


class AttachStreams(Operation):
    """Start a session and put the streams at 0, 1 and 2, owned by the process's user so that it can open them again."""

    terminal: bool
    uid: int
    subject = "streams"

    def describe(self) -> str:
        return "lead a new session with " + ("the terminal" if self.terminal else "the caller's streams")

    def call(self) -> str:
        return "setsid, dup3" + (", ioctl(TIOCSCTTY)" * self.terminal)

    def act(self, init: "Init") -> None:
        os.setsid()
        if self.terminal:
            assert init.terminal  # OpenTerminal stands before this in every plan
            streams = [init.terminal[1]] * 3
        else:
            # Above the standard ones first: the caller's may be any permutation of 0, 1 and 2.
            streams = [_inside(init, fd) for fd in init.stdio]
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        for fd in streams[:1] if self.terminal else streams:
            _give(fd, self.uid)
        if self.terminal:
            tty.make_controlling(0)


def _inside(init: "Init", stream: int) -> int:
    """Return a copy of a stream. Of the host's null device it is the container's own, as with runc.

    A descriptor of the host's /dev is a way into a mount of the host's, and no checkpoint could name it.
    """
    if _is_null(stream):
        try:
            found = path.open_in_root(*init.place("/dev/null"))
        except OSError:
            return _copy(stream)
        try:
            if _is_null(found):
                opened = os.open(f"self/fd/{found}", os.O_RDWR | os.O_CLOEXEC, dir_fd=init.procfs())
                try:
                    return _copy(opened)
                finally:
                    os.close(opened)
        finally:
            os.close(found)
    return _copy(stream)


def _is_null(fd: int) -> bool:
    info = os.fstat(fd)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == _NULL


def _copy(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN_FD)


def _console_target(init: "Init") -> int:
    try:
        return path.make_file_in_root(*init.place("/dev/console"), 0o600, path.RESOLVE_NO_SYMLINKS)
    except OSError as failure:
        if failure.errno != errno.ELOOP:
            raise
        raise Invalid(
            "show the terminal at",
            "/dev/console",
            "there is a symbolic link on the way",
            hint="remove it from the image",
            code="E0403",
        ) from None


def _open_pair(init: "Init") -> tuple[int, int]:
    try:
        found = path.open_in_root(*init.place("/dev/pts/ptmx"))
    except (FileNotFoundError, NotADirectoryError):
        raise Invalid(
            "open a terminal in", "/dev/pts", "no devpts is mounted there", hint='add a mount of type "devpts"'
        ) from None
    try:
        if os.fstat(found).st_rdev != _PTMX or mount.filesystem_magic(found) != mount.DEVPTS_SUPER_MAGIC:
            raise Invalid("open a terminal in", "/dev/pts", "its ptmx is not that of a devpts")
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        master = os.open(f"self/fd/{found}", flags, dir_fd=init.procfs())
    finally:
        os.close(found)
    terminal, _, _ = tty.open_pty(master)
    return master, terminal


def _give(fd: int, uid: int) -> None:
    """Make a pipe or a terminal the user's. A file of the caller's stays the caller's."""
    info = os.fstat(fd)
    if info.st_uid == uid or not (stat.S_ISFIFO(info.st_mode) or os.isatty(fd)):
        return
    try:
        os.fchown(fd, uid, -1)
    except PermissionError:
        pass  # of another user namespace: the streams work, only opening them again does not
