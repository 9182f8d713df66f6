"""What other processes with the same store need now: their leases, written down where each of them can read them.

    <root>/leases/            its lock (flock): shared while a digest is written down, exclusive while one is removed
                  sweep       locked by the one process that collects
                  <random>    digests, a line each, of one process, which has it locked; gone while it needs nothing
                  <random>-all  the same where the disk is full: whatever there is may be needed

Invariants:
1. A process that collects reads them before each removal, with the directory's lock: what somebody writes down after
   that, they find removed when they look for it (`Lease.add` comes before looking).
2. Nothing is crossed out while another process collects: it may have marked before that was given a name.
3. A file whose lock can be had belongs to nobody: its process died.
4. Where a living process's lines make no sense, whatever there is may be needed, too.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SWEEP = "sweep"
ALL = "-all"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Neighbours:
    """The leases of one process among those of others, below one directory. Its caller lets one thread in at a time."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._own = -1
        self._name = ""

    def note(self, digests: Iterable[Digest]) -> None:
        """Write down what this process needs. Raises Unavailable when the disk takes no file."""
        lines = "".join(f"{digest}\n" for digest in digests).encode()
        if not lines:
            return
        try:
            with self._locked(fcntl.LOCK_SH):
                self._open()
                self._append(lines)
        except OSError as error:
            hint = f"free some space below {self._directory}" if error.errno in _FULL else ""
            raise Unavailable("store", "a blob", os.strerror(error.errno or 0), hint=hint) from None

    def forget(self) -> None:
        """Cross out all that was written down, unless somebody collects: then it stays until the next time."""
        if self._own < 0:
            return
        fd = os.open(f"{self._directory}/{SWEEP}", os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # somebody has tidied up
                os.unlink(f"{self._directory}/{self._name}")
            os.close(self._own)
            self._own, self._name = -1, ""
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

    @contextmanager
    def collection(self) -> Iterator[None]:
        """Be the one process that collects; waits for another."""
        fd = os.open(f"{self._directory}/{SWEEP}", os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def held(self) -> Iterator[Callable[[Digest], bool]]:
        """Yield what tells of a digest whether another process needs it; in this context nobody comes to need more."""
        with self._locked(fcntl.LOCK_EX):
            found: set[Digest] = set()
            is_all = False
            for name in os.listdir(self._directory):
                if name not in (SWEEP, self._name):
                    theirs = self._read(f"{self._directory}/{name}")
                    if theirs is not None:
                        digests = _digests(theirs)
                        is_all = is_all or digests is None or name.endswith(ALL)
                        found |= digests or set()
            yield lambda digest: is_all or digest in found

    def _read(self, path: str) -> bytes | None:
        """Return what a living process has written; remove the file of a dead one, and return None."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # crossed out since it was listed; or a link, which no process of ours writes
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(OSError):  # it may have been crossed out since it was opened, or be somebody's directory
                os.unlink(path)
            return None
        except BlockingIOError:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def _open(self) -> None:
        """Make the own file. The caller has the directory's lock, so nobody takes it for a dead one's meanwhile."""
        if self._own < 0:
            name = os.urandom(16).hex()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._own = os.open(f"{self._directory}/{name}", flags, 0o600)
            fcntl.flock(self._own, fcntl.LOCK_EX)
            self._name = name

    def _append(self, lines: bytes) -> None:
        size = os.fstat(self._own).st_size
        with suppress(OSError):
            if os.write(self._own, lines) == len(lines):
                return
        os.ftruncate(self._own, size)  # half a line would spoil the next one
        if not self._name.endswith(ALL):
            os.rename(f"{self._directory}/{self._name}", f"{self._directory}/{self._name}{ALL}")
            self._name += ALL

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        gate = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(gate, how)
            yield
        finally:
            os.close(gate)


def _digests(lines: bytes) -> set[Digest] | None:
    """Return what a process says that it needs, None where that can't be read: it may be anything."""
    try:
        return {Digest(line) for line in lines.decode().splitlines()}
    except (Invalid, UnicodeDecodeError):
        return None
