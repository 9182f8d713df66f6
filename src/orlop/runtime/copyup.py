"""Copy-up: what the image has at a place becomes the first content of what is mounted over it, a volume or a tmpfs, as
it is there: owners, modes, times, extended attributes, hard links, device nodes, FIFOs, sparse files.

Both trees are hostile: each may be a volume that a container writes meanwhile.
1. Nothing is resolved but by openat2(2) below one of the two roots, and no symbolic link is ever followed (I5, SEC-19).
2. Directories are opened by their path from the root, so depth costs no descriptors and no stack; the kernel's PATH_MAX
   is the limit.
3. An entry that exists already is never replaced: a volume that has content keeps it.
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux import path
from ..spec.errors import Invalid

ENTRIES_MAX = 10_000_000
_CHUNK_BYTES = 8 << 20
_RESOLVE = path.RESOLVE_BENEATH | path.RESOLVE_NO_SYMLINKS | path.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Not for files of a volume: what overlayfs notes about its own layers.
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_NO_XATTRS = (errno.ENOTSUP, errno.EPERM, errno.EINVAL)


def copy_tree(source: int, destination: int, subject: str) -> int:
    """Copy all that is in the directory `source` into `destination`, and its own attributes; return how many entries.

    subject: what errors call it. Raises Invalid for a tree that is too deep or too large, OSError.
    """
    try:
        return _Copy(source, destination, subject).run()
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            hint = "mount further down, or without the copy (nocopy)"
            raise Invalid("fill", subject, "what the image has there is nested too deeply", hint=hint) from None
        raise


class _Copy:
    __slots__ = ("_count", "_destination", "_links", "_source", "_subject")

    def __init__(self, source: int, destination: int, subject: str) -> None:
        self._source = source
        self._destination = destination
        self._subject = subject
        self._links: dict[tuple[int, int], str] = {}  # (device, inode) of a file with several names: its first path
        self._count = 0

    def run(self) -> int:
        pending = ["."]
        finished: list[str] = []
        while pending:
            directory = pending.pop()
            finished.append(directory)
            pending += self._copy_directory(directory)
        # Children change the times of a directory, and a mode can forbid making them: attributes come last, from below.
        for directory in reversed(finished):
            self._finish_directory(directory)
        return self._count

    def _copy_directory(self, directory: str) -> list[str]:
        """Copy the entries of one directory; return the directories among them, made but empty."""
        source = path.openat2(self._source, directory, _DIRECTORY, 0, _RESOLVE)
        try:
            destination = path.openat2(self._destination, directory, _DIRECTORY, 0, _RESOLVE)
            try:
                with os.scandir(source) as entries:
                    names = [entry.name for entry in entries]
                found = []
                for name in names:
                    if self._copy_entry(source, destination, name, f"{directory}/{name}"):
                        found.append(f"{directory}/{name}")
                return found
            finally:
                os.close(destination)
        finally:
            os.close(source)

    def _copy_entry(self, source: int, destination: int, name: str, where: str) -> bool:
        """Copy one entry; tell whether it is a directory to go into."""
        self._count += 1
        if self._count > ENTRIES_MAX:
            hint = "mount without the copy (nocopy)"
            raise Invalid("fill", self._subject, f"the image has more than {ENTRIES_MAX} files there", hint=hint)
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            info = os.fstat(entry)
            try:
                return self._make(entry, info, destination, name, where)
            except FileExistsError:
                return False
        finally:
            os.close(entry)

    def _make(self, entry: int, info: os.stat_result, destination: int, name: str, where: str) -> bool:
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=destination)
            return True
        if info.st_nlink > 1 and self._link(info, destination, name, where):
            return False
        if kind == stat.S_IFREG:
            _copy_file(entry, destination, name)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink("", dir_fd=entry), name, dir_fd=destination)
        elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
            os.mknod(name, kind | 0o600, info.st_rdev, dir_fd=destination)
        else:
            return False  # a socket means nothing without its process
        _copy_attributes(entry, info, destination, name)
        return False

    def _link(self, info: os.stat_result, destination: int, name: str, where: str) -> bool:
        """Make one more name of a file that was copied before; tell whether that was so."""
        first = self._links.setdefault((info.st_dev, info.st_ino), where)
        if first == where:
            return False
        parent, _, first_name = first.rpartition("/")
        directory = path.openat2(self._destination, parent, _DIRECTORY, 0, _RESOLVE)
        try:
            os.link(first_name, name, src_dir_fd=directory, dst_dir_fd=destination, follow_symlinks=False)
        finally:
            os.close(directory)
        return True

    def _finish_directory(self, directory: str) -> None:
        source = path.openat2(self._source, directory, _DIRECTORY, 0, _RESOLVE)
        try:
            info = os.fstat(source)
            destination = path.openat2(self._destination, directory, _DIRECTORY, 0, _RESOLVE)
            try:
                _set_attributes(source, info, destination)
            finally:
                os.close(destination)
        finally:
            os.close(source)


def _copy_file(entry: int, destination: int, name: str) -> None:
    reader = os.open(f"/proc/self/fd/{entry}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=destination)
        try:
            _copy_data(reader, writer, os.fstat(reader).st_size)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_data(reader: int, writer: int, size: int) -> None:
    """Copy the extents that hold data; holes stay holes (lseek(2), SEEK_DATA)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(reader, at, os.SEEK_DATA)
            end = os.lseek(reader, start, os.SEEK_HOLE)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                break  # nothing but a hole is left
            raise
        _copy_extent(reader, writer, start, end)
        at = end
    os.ftruncate(writer, size)


def _copy_extent(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(reader, writer, min(end - start, _CHUNK_BYTES), start, start)
        except OSError as failure:
            if failure.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            copied = os.pwrite(writer, os.pread(reader, min(end - start, _CHUNK_BYTES), start), start)
        if copied == 0:
            return
        start += copied


def _copy_attributes(entry: int, info: os.stat_result, destination: int, name: str) -> None:
    made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=destination)
    try:
        if stat.S_IFMT(os.fstat(made).st_mode) == stat.S_IFMT(info.st_mode):  # else somebody has put another file there
            _set_attributes(entry, info, made)
    finally:
        os.close(made)


def _set_attributes(source: int, info: os.stat_result, destination: int) -> None:
    """Give a file the attributes of another. Descriptors with O_PATH have names in /proc that lead to them alone."""
    there, here = f"/proc/self/fd/{source}", f"/proc/self/fd/{destination}"
    is_link = stat.S_ISLNK(info.st_mode)
    os.chown(here, info.st_uid, info.st_gid)
    if not is_link:
        os.chmod(here, stat.S_IMODE(info.st_mode))  # after chown, which clears the set-user-ID bit
    for name in _xattrs(there):
        if not name.startswith(_OVERLAY_XATTRS):
            try:
                os.setxattr(here, name, os.getxattr(there, name))
            except OSError as failure:
                if failure.errno not in (*_NO_XATTRS, errno.ENODATA):
                    raise
    os.utime(here, ns=(info.st_atime_ns, info.st_mtime_ns))


def _xattrs(place: str) -> list[str]:
    try:
        return os.listxattr(place)
    except OSError as failure:
        if failure.errno in _NO_XATTRS:
            return []
        raise
