"""tmpcopyup: what the image has at a place is copied into the tmpfs that will cover it.

Both trees are walked by descriptor. Nobody else runs in the container yet, but the source may be a volume that
another container writes at the same moment, so no name is ever followed as a link.
"""

from __future__ import annotations

import os
import stat

DEPTH_MAX = 128
_CHUNK_BYTES = 1 << 20
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, destination: int) -> None:
    """Copy what is in the directory `source` into the directory `destination`, with owners, modes and times.

    Regular files, directories, links, FIFOs and device nodes; sockets mean nothing without their process. Raises
    OSError, ELOOP when the tree is deeper than DEPTH_MAX.
    """
    fd = os.open(".", _OPEN_DIRECTORY, dir_fd=source)
    try:
        into = os.open(".", _OPEN_DIRECTORY, dir_fd=destination)
        try:
            _copy_directory(fd, into, DEPTH_MAX)
        finally:
            os.close(into)
    finally:
        os.close(fd)


def _copy_directory(source: int, destination: int, depth_left: int) -> None:
    if depth_left == 0:
        raise OSError(40, f"a directory tree deeper than {DEPTH_MAX} can't be copied up")
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        _copy_entry(source, destination, name, depth_left)
    info = os.fstat(source)
    os.fchown(destination, info.st_uid, info.st_gid)
    os.fchmod(destination, stat.S_IMODE(info.st_mode))
    os.utime(destination, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_entry(source: int, destination: int, name: str, depth_left: int) -> None:
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFDIR:
        below = os.open(name, _OPEN_DIRECTORY, dir_fd=source)
        try:
            os.mkdir(name, 0o700, dir_fd=destination)
            into = os.open(name, _OPEN_DIRECTORY, dir_fd=destination)
            try:
                _copy_directory(below, into, depth_left - 1)
            finally:
                os.close(into)
        finally:
            os.close(below)
    elif kind == stat.S_IFREG:
        _copy_file(source, destination, name)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=destination, follow_symlinks=False)
    elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=destination)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=destination, follow_symlinks=False)


def _copy_file(source: int, destination: int, name: str) -> None:
    # O_NONBLOCK: a FIFO that took the file's place since the stat must not hang us.
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        info = os.fstat(reader)
        if not stat.S_ISREG(info.st_mode):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=destination)
        try:
            while chunk := os.read(reader, _CHUNK_BYTES):
                while chunk:
                    chunk = chunk[os.write(writer, chunk) :]
            os.fchown(writer, info.st_uid, info.st_gid)
            os.fchmod(writer, stat.S_IMODE(info.st_mode))
            os.utime(writer, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)
