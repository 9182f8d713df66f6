"""A program that nobody can write, which is what a container can reach as /proc/PID/exe (CVE-2019-5736).

Whoever enters a container executes this program until its execve, and so does an image's `#!/proc/self/exe`. The file
that was executed can be opened through there. A sealed one in memory is nobody's file, and its seals hold for root too;
one on an overlay without an upper directory is on a file system that has no way to be writable (fs/overlayfs/super.c),
through a mount that stands nowhere (orlop.runtime.sealer).
"""

from __future__ import annotations

import errno
import os

MFD_CLOEXEC = 0x0001
MFD_ALLOW_SEALING = 0x0002
MFD_EXEC = 0x0010  # since 6.3; needed where vm.memfd_noexec is set

_F_ADD_SEALS = 1033
_F_GET_SEALS = 1034
_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # SEAL, SHRINK, GROW, WRITE (fcntl(2))
_CHUNK_BYTES = 1 << 30
_SEAL_TRIES, _SEAL_PAUSE_S = 400, 0.005


def sealed_copy(path: str, name: str) -> int:
    """Return a close-on-exec descriptor of an executable copy in memory that can never be changed again.

    To be executed by its path `/proc/<pid>/fd/<fd>` of the process that holds it. name: what /proc/PID/exe shows
    ("/memfd:<name> (deleted)"). Raises OSError.
    """
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = _memfd(name)
        try:
            while os.sendfile(copy, source, None, _CHUNK_BYTES):
                pass
            os.fchmod(copy, 0o555)
            seal(copy)
        except BaseException:
            os.close(copy)
            raise
        return copy
    finally:
        os.close(source)


def sealed(data: bytes, name: str) -> int:
    """Return a close-on-exec descriptor of an executable that consists of these bytes. Raises OSError."""
    made = _memfd(name)
    try:
        os.write(made, data)
        os.fchmod(made, 0o555)
        seal(made)
    except BaseException:
        os.close(made)
        raise
    return made


def seal(fd: int) -> None:
    """Have nobody write a file in memory any more, nor change its size or its seals.

    The kernel refuses while it has a page of the file in its own hands (EBUSY; it may be moving or ageing it), which
    passes; so does a mapping for writing, which is waited for no longer than that. Raises OSError.
    """
    import fcntl
    import time

    for left in reversed(range(_SEAL_TRIES)):
        try:
            fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        except OSError as failure:
            if failure.errno != errno.EBUSY or not left:
                raise
            time.sleep(_SEAL_PAUSE_S)
        else:
            return


def is_sealed(path: str = "/proc/self/exe") -> bool:
    """Return whether the program that a process executes is such a one. Raises OSError."""
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS == _SEALS
    except OSError as failure:
        if failure.errno != errno.EINVAL:  # a file system without seals
            raise
        return _is_on_a_mount_of_its_own(fd, path)
    finally:
        os.close(fd)


def _is_on_a_mount_of_its_own(fd: int, path: str) -> bool:
    """Tell whether fd is a file on a read-only overlay that is mounted nowhere: its path begins at its own root."""
    if not os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return False
    from . import mount

    name = os.readlink(path)
    return name.rfind("/") == 0 and mount.filesystem_magic(fd) == mount.OVERLAYFS_SUPER_MAGIC and not _exists(name)


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def execute_sealed(name: str) -> None:
    """Execute this same command line once more, from a sealed copy of the interpreter; returns if it already is one.

    Nothing else may have been started: other threads end, descriptors stay. Raises OSError.
    """
    import sys

    if not is_sealed():
        copy = sealed_copy("/proc/self/exe", name)
        os.execve(f"/proc/self/fd/{copy}", sys.orig_argv, os.environ)


def _memfd(name: str) -> int:
    try:
        return os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
