"""Paths below an untrusted root, walked by the kernel: openat2(2) with RESOLVE_IN_ROOT, never a path string twice (I5).

Symbolic links resolve as if the root were "/", ".." stops at it, and magic links (/proc/*/fd and the like) are refused.
This is the only module that turns a path inside a container into a descriptor
(CVE-2019-19921, CVE-2021-30465, CVE-2024-45310, CVE-2025-31133 were all a path string resolved twice).
"""

from __future__ import annotations

import errno
import os
import stat

from . import abi, ffi

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

LINKS_MAX = 40  # MAXSYMLINKS: what the kernel follows in one walk
_RETRIES_MAX = 32  # openat2 says EAGAIN when a rename raced with ".."


class _OpenHow(ffi.Structure):
    _fields_ = [("flags", ffi.c_uint64), ("mode", ffi.c_uint64), ("resolve", ffi.c_uint64)]


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open a file. openat2(2), since 5.6. The descriptor is close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RETRIES_MAX):
        try:
            return abi.syscall("openat2", dirfd, os.fsencode(path), ffi.byref(how), ffi.sizeof(how), subject=path)
        except BlockingIOError:
            continue
    raise abi.error("openat2", errno.EAGAIN, path, "the tree is being renamed all the time")


def open_in_root(root: int, path: str, flags: int = os.O_PATH, mode: int = 0, resolve: int = 0) -> int:
    """Open path as if the directory `root` were "/". path "" is the root itself. resolve: more RESOLVE_ flags."""
    return openat2(root, path or ".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)


def mkdir_in_root(root: int, path: str, mode: int = 0o755, resolve: int = 0) -> int:
    """Return an O_PATH descriptor of the directory at path, made with its parents where missing.

    A dangling symbolic link on the way is followed inside the root and its target made, as a shell's `mkdir -p` in
    the container would need it; resolve RESOLVE_NO_SYMLINKS refuses every link with ELOOP. The caller's umask applies:
    a chmod by name after the mkdir could hit what somebody put there meanwhile (CVE-2024-45310).
    Raises NotADirectoryError when something else stands there.
    """
    return _mkdir(root, path.strip("/"), mode, resolve, LINKS_MAX)


def _mkdir(root: int, path: str, mode: int, resolve: int, links_left: int) -> int:
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY, 0, resolve)
    except FileNotFoundError:
        if not path:
            raise
    if links_left == 0:
        raise abi.error("mkdir", errno.ELOOP, path)
    parent_path, _, name = path.rpartition("/")
    parent = _mkdir(root, parent_path.rstrip("/"), mode, resolve, links_left)
    try:
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            if target := _dangling(parent, name):
                path = target if target.startswith("/") else f"{parent_path}/{target}"
                return _mkdir(root, path.strip("/"), mode, resolve, links_left - 1)
            return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY, 0, resolve)  # "..", or made just now
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0, RESOLVE_BENEATH)
    finally:
        os.close(parent)


def make_file_in_root(root: int, path: str, mode: int = 0o644, resolve: int = 0) -> int:
    """Return a descriptor of what is at path; where nothing is, an empty regular file is made first.

    resolve: as for `mkdir_in_root`. The descriptor names the file (a mount target, fstat); it is not meant for reading
    or writing.
    """
    return _make_file(root, path.strip("/"), mode, resolve, LINKS_MAX)


def _make_file(root: int, path: str, mode: int, resolve: int, links_left: int) -> int:
    try:
        return open_in_root(root, path, os.O_PATH, 0, resolve)
    except FileNotFoundError:
        if not path:
            raise
    if links_left == 0:
        raise abi.error("open", errno.ELOOP, path)
    parent_path, _, name = path.rpartition("/")
    parent = mkdir_in_root(root, parent_path, resolve=resolve)
    try:
        if target := _dangling(parent, name):
            path = target if target.startswith("/") else f"{parent_path}/{target}"
            return _make_file(root, path.strip("/"), mode, resolve, links_left - 1)
        return os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)
    finally:
        os.close(parent)


def _dangling(parent: int, name: str) -> str:
    """Return the target when `name` is a symbolic link, else ""."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return ""


def read_in_root(root: int, path: str, bytes_max: int) -> bytes | None:
    """Return the content of a regular file, None when nothing is there.

    Raises OSError EINVAL for anything but a regular file (a FIFO would hang us, a device never end: CVE-2024-9676)
    and EFBIG when it is larger than bytes_max.
    """
    try:
        found = open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        info = os.fstat(found)
        if not stat.S_ISREG(info.st_mode):
            raise abi.error("read", errno.EINVAL, path, "it is not a regular file")
        with open(f"/proc/self/fd/{found}", "rb", buffering=0) as file:
            return _read(file.fileno(), path, bytes_max)
    finally:
        os.close(found)


def fsync_directory(path: str) -> None:
    """Make the names in a directory of our own durable: those made in it, taken away and renamed. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


DAMAGED = (errno.EINVAL, errno.ELOOP, errno.EFBIG, errno.ENXIO)  # what `read_file` finds is no file of ours


def read_file(path: str, bytes_max: int, dirfd: int | None = None) -> bytes:
    """Return the content of a regular file of our own: of what we keep as state, and nobody else should have touched.

    Raises FileNotFoundError, and OSError, with an errno of DAMAGED for a symbolic link, for what is no regular file (a
    FIFO is not waited for), and for one that is larger.
    """
    fd = open_file(path, dirfd)
    try:
        return _read(fd, path, bytes_max)
    finally:
        os.close(fd)


def open_file(path: str, dirfd: int | None = None, flags: int = os.O_RDONLY) -> int:
    """Open a regular file of our own. Raises what `read_file` raises; EISDIR for a directory that is to be written."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC, 0o600, dir_fd=dirfd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise abi.error("read", errno.EINVAL, path, "it is not a regular file")
    return fd


def _read(fd: int, path: str, bytes_max: int) -> bytes:
    data = b""
    while len(data) <= bytes_max and (chunk := os.read(fd, bytes_max + 1 - len(data))):
        data += chunk
    if len(data) > bytes_max:
        raise abi.error("read", errno.EFBIG, path, f"the limit is {bytes_max} bytes")
    return data
