"""Trees as copies, and back: all layers as one tree, and what differs in such a tree as an overlay would keep it.

A copy of the layers of an image is a root file system that needs no overlay (drivers vfs and btrfs). What a container
changed in it is found by comparing it with the layers again, and told in overlayfs's words (whiteouts, no marks of
opacity), so that whoever reads upper directories reads this one.

Nothing is followed, everything is opened as a place first: what is read may be a running container's, which changes it
meanwhile and may be hostile. What is written to is ours alone.
"""

from __future__ import annotations

import errno
import os
import stat

from orlop.linux import inode

from .compare import same_content
from .extract import DEPTH_MAX
from .layered import Directory
from .overlay import make_whiteout
from .pack import xattrs_of
from .removal import DIRECTORY_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layered import Entry

COPY_BYTES = 1 << 30
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Of copying blocks without reading them: another file system, no such thing here, or not for this file.
_NO_SHARING = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ETXTBSY)
_PATH_BYTES_MAX = 4000


class Copy:
    """A tree on its way to another place. Raises OSError; ELOOP for one deeper than DEPTH_MAX directories."""

    def __init__(self, target: int) -> None:
        """target: the root that is written to, for the names of files that have several; the caller's."""
        self._target = target
        self._first: dict[tuple[int, int], bytes] = {}

    def directory(self, source: Directory, target: int, path: bytes = b"") -> None:
        """Copy what is in a directory, and then its attributes, to one that is there. Closes the source.

        target: borrowed. path: the target's name below the root.
        """
        pending: list[tuple[Directory, int, bytes, list[bytes]]] = []
        names, own = source.names(), -1
        try:
            while True:
                while names:
                    name = names.pop()
                    below = self._entry(source, target, name, path)
                    if below is not None:
                        inner = _opened(below, name, target, len(pending))
                        pending.append((source, target, path, names))
                        source, target, path, names = below, inner, path + name + b"/", below.names()
                give_attributes(target, source.fd)
                source.close()
                if not pending:
                    return
                own, (source, target, path, names) = target, pending.pop()
                os.close(own)
        finally:
            source.close()
            for number, held in enumerate(pending):
                held[0].close()
                if number:
                    os.close(held[1])
            if pending:
                os.close(target)

    def _entry(self, source: Directory, target: int, name: bytes, path: bytes) -> Directory | None:
        """Copy one entry; return it where it is a directory, made and still empty."""
        entry = source.find(name)
        if entry is None:
            return None
        try:
            if stat.S_ISDIR(entry.info.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                return source.enter(name, entry)
            self.file(entry, target, name, path + name)
        finally:
            os.close(entry.place)
        return None

    def file(self, entry: Entry, target: int, name: bytes, path: bytes) -> None:
        """Copy something that is no directory. path: its name below the root."""
        info = entry.info
        if info.st_nlink > 1:
            first = self._first.setdefault((info.st_dev, info.st_ino), path)
            if first != path and len(first) < _PATH_BYTES_MAX:
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(info.st_mode):
            self._regular(entry, target, name)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(b"", dir_fd=entry.place), name, dir_fd=target)
        else:
            try:
                os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
            except PermissionError:
                return  # a user namespace has no devices; what unpacks a layer leaves them out too
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _regular(self, entry: Entry, target: int, name: bytes) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=target)
        try:
            source = os.open(f"/proc/self/fd/{entry.place}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _copy_content(source, fd, entry.info)
            finally:
                os.close(source)
            give_attributes(fd, entry.place)
        finally:
            os.close(fd)


def _opened(below: Directory, name: bytes, target: int, depth: int) -> int:
    """Return a descriptor of the directory that was made for `below`, which is closed where there is none."""
    try:
        if depth >= DEPTH_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(name, DIRECTORY_FLAGS, dir_fd=target)
    except BaseException:
        below.close()
        raise


def give_attributes(target: int, source: int) -> None:
    """Give a file or directory the owner, mode, attributes and time of another. source: O_PATH will do."""
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    for name, value in xattrs_of(f"/proc/self/fd/{source}").items():
        try:
            os.setxattr(target, name, value)
        except OSError as wrong:
            if wrong.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # trusted.* is not for user namespaces
                raise
    os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))


def _copy_content(source: int, target: int, info: os.stat_result) -> None:
    try:
        inode.share_blocks(target, source)
        return
    except OSError as wrong:
        if wrong.errno not in _NO_SHARING:
            raise
    os.ftruncate(target, info.st_size)
    copy_content(source, target, info.st_size)


def copy_content(source: int, target: int, size: int, place: int = 0) -> None:
    """Copy the content of a file, but for its holes, to a place in another one. Raises OSError."""
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
            end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError as wrong:
            if wrong.errno == errno.ENXIO:
                return  # nothing but a hole up to the end
            start, end = position, size
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, place + start, os.SEEK_SET)
        while start < end:
            count = _move(source, target, min(end - start, COPY_BYTES))
            if not count:
                return  # it was cut meanwhile
            start += count
        position = end


def _move(source: int, target: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count)
    except OSError as wrong:
        if wrong.errno not in _NO_SHARING:
            raise
    return os.sendfile(target, source, None, count)


class Written:
    """What differs between a copy and what it was copied from, as the upper directory of an overlay.

    made_ns: when the copy was finished, by the clock of its file system. What has not been touched since is the same.
    """

    def __init__(self, target: int, made_ns: int) -> None:
        self._target = target
        self._made_ns = made_ns
        self._copy = Copy(target)
        self._linked: dict[tuple[int, int], bytes] = {}

    def find(self, tree: Directory, lower: Directory | None) -> None:
        """Fill the target. Closes both. Raises OSError."""
        level = _Level(tree, lower, b"", [self._target], None)
        give_attributes(self._target, tree.fd)
        levels = [level]
        try:
            while levels:
                level = levels[-1]
                if level.names:
                    below = self._entry(level, level.names.pop())
                    if below is not None:
                        levels.append(below)
                        if len(levels) > DEPTH_MAX:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    continue
                if level.made:  # its time was that of what we put there
                    give_attributes(level.made[0], level.tree.fd)
                levels.pop().close(keep=self._target)
        finally:
            for level in levels:
                level.close(keep=self._target)

    def _entry(self, level: _Level, name: bytes) -> _Level | None:
        now = level.tree.find(name)
        try:
            before = level.lower.find(name) if level.lower is not None else None
            try:
                return self._compare(level, name, now, before)
            finally:
                if before is not None:
                    os.close(before.place)
        finally:
            if now is not None:
                os.close(now.place)

    def _compare(self, level: _Level, name: bytes, now: Entry | None, before: Entry | None) -> _Level | None:
        if now is None:
            if before is not None:
                make_whiteout(name, level.target())
            return None
        if not stat.S_ISDIR(now.info.st_mode):
            if before is None or self._differs(now, before):
                self._take(level, name, now)
            return None
        lower = None
        if before is not None and stat.S_ISDIR(before.info.st_mode) and level.lower is not None:
            lower = level.lower.enter(name, before)
        below = _Level(level.tree.enter(name, now), lower, level.path + name + b"/", [], level)
        if lower is None or self._attributes_differ(now, before):
            below.target()
        return below

    def _take(self, level: _Level, name: bytes, now: Entry) -> None:
        """Show a file in the target: by another name of the same file, or by a copy of it."""
        target = level.target()
        try:
            os.link(name, name, src_dir_fd=level.tree.fd, dst_dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            return  # it was removed meanwhile
        except OSError as wrong:
            if wrong.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            self._copy.file(now, target, name, level.path + name)

    def _differs(self, now: Entry, before: Entry) -> bool:
        one, two = now.info, before.info
        kind = stat.S_IFMT(one.st_mode)
        if _plain(one) != _plain(two):
            return True
        if kind in (stat.S_IFREG, stat.S_IFLNK) and one.st_mtime_ns != two.st_mtime_ns:
            return True
        if one.st_ctime_ns < self._made_ns:
            return False
        if kind == stat.S_IFLNK:
            return os.readlink(b"", dir_fd=now.place) != os.readlink(b"", dir_fd=before.place)
        if kind == stat.S_IFREG:
            return self._attributes_differ(now, before) or not same_content(now.place, before.place)
        return False

    def _attributes_differ(self, now: Entry, before: Entry | None) -> bool:
        if before is None or _plain(now.info)[:3] != _plain(before.info)[:3]:
            return True
        if now.info.st_ctime_ns < self._made_ns:
            return False
        return xattrs_of(f"/proc/self/fd/{now.place}") != xattrs_of(f"/proc/self/fd/{before.place}")


def _plain(info: os.stat_result) -> tuple[int, int, int, int, int]:
    size = info.st_size if stat.S_ISREG(info.st_mode) else 0
    return info.st_mode, info.st_uid, info.st_gid, info.st_rdev, size


class _Level:
    """A directory that is being compared. made: [descriptor] of its counterpart, once there is something to put there.

    path: its name, with a slash at the end.
    """

    def __init__(
        self, tree: Directory, lower: Directory | None, path: bytes, made: list[int], above: _Level | None
    ) -> None:
        self.tree = tree
        self.lower = lower
        self.path = path
        self.made = made
        self._above = above
        self.names = sorted({*tree.names(), *(lower.names() if lower is not None else ())}, reverse=True)

    def target(self) -> int:
        """Return the counterpart, made with those above it when it is not there."""
        missing: list[_Level] = []
        level: _Level | None = self
        while level is not None and not level.made:
            missing.append(level)
            level = level._above
        for one in reversed(missing):
            assert one._above is not None  # the root's is there
            name = one.path.rstrip(b"/").rpartition(b"/")[2]
            os.mkdir(name, 0o700, dir_fd=one._above.made[0])
            one.made.append(os.open(name, DIRECTORY_FLAGS, dir_fd=one._above.made[0]))
        return self.made[0]

    def close(self, keep: int) -> None:
        """keep: the descriptor that stays open, the caller's own."""
        self.tree.close()
        if self.lower is not None:
            self.lower.close()
        for fd in self.made:
            if fd != keep:
                os.close(fd)
        self.made = []
