"""COPY, ADD and WORKDIR: files written into a step's tree.

Invariants:
1. The destination is resolved by the kernel with the tree as its root; below it, only names in open directories that
   are not followed: neither the base image nor the context leads out of the tree (SEC-60 to SEC-64).
2. What is written is what was listed: a file that changed since is an error, so a cache key never lies.
3. Owners are numbers that were looked up in the tree; modes don't depend on a umask.

Source: docker's Dockerfile reference, "COPY" and "ADD"; BuildKit and the classic builder for what it leaves open.
"""

from __future__ import annotations

import errno
import os
import stat

from orlop.content.compression import NONE, Decompressed, detect
from orlop.linux.path import mkdir_in_root, open_in_root
from orlop.runtime import users
from orlop.snapshot.extract import Extraction, Rules
from orlop.snapshot.pack import xattrs_of
from orlop.snapshot.removal import DIRECTORY_FLAGS
from orlop.spec.errors import Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.tar import Reader

from .chmod import OCTAL, changed_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .tree import Listing, Node

    T = TypeVar("T")

SHA256_BYTES = 32
ZEROS_BYTES = 1 << 20
COPY_BYTES = 64 * 1024 * 1024
SMALL_BYTES = 128 * 1024
MAGIC_BYTES = 512
_SOURCE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TARGET_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """Writes into one tree. root: its open root. owner: (uid, gid) of all that is written, None keeps the sources'.

    mode: docker's --chmod, "" keeps the sources'; directories that are made for them have it, too, when it is octal, as
    in docker since 28.1. mtime_max_ns: no time is later. check: raises what ends the copying.
    """

    def __init__(
        self,
        root: int,
        owner: tuple[int, int] | None,
        mode: str,
        mtime_max_ns: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._check = check
        self._owner = owner
        self._mode = mode
        self._made_mode = int(mode, 8) & 0o777 if OCTAL.fullmatch(mode) else 0o755
        self._mtime_max_ns = mtime_max_ns
        self._links: dict[tuple[int, int], tuple[int, str]] = {}

    def place(self, source: int, listing: Listing, destination: str, *, into: bool) -> None:
        """Copy what was listed. source: the root of the tree that it was listed in, open.

        A directory's content goes into destination; a file becomes it, or with `into` lies in it under its own name.
        Raises Invalid, Unavailable when the sources change meanwhile.
        """
        if listing.is_directory:
            self._directory(source, listing, destination)
            return
        name = os.path.basename(listing.top) if into else os.path.basename(destination.rstrip("/"))
        where = destination if into else os.path.dirname(destination.rstrip("/"))
        parent = self.make_directory(where)
        try:
            parent, name = self._behind_link(parent, name, "" if into else destination)
            node = listing.nodes[0]
            if stat.S_ISREG(node.info.st_mode):
                # Not by its name in its directory: that may be a link to it.
                self._file(open_in_root(source, listing.top, os.O_RDONLY), node, parent, name, listing.top)
            else:
                self._entry(-1, node, "", parent, name, listing.top)
        finally:
            os.close(parent)

    def unpack(self, source: int, listing: Listing, destination: str, owner: tuple[int, int] | None) -> None:
        """Extract an archive that was listed into destination. owner: of all that is in it, None keeps the archive's.

        Raises Invalid for a broken one.
        """
        target = self.make_directory(destination)
        fd = open_in_root(source, listing.top, os.O_RDONLY)
        try:
            stream = Decompressed(self._reader(fd), listing.top)
            rules = Rules(layer=False, owner=owner)
            Extraction(target, -1, listing.top, rules=rules).run(Reader(stream.read, listing.top))
        finally:
            os.close(fd)
            os.close(target)

    def _reader(self, fd: int) -> Callable[[int], bytes]:
        def read(count: int) -> bytes:
            self._check()
            return os.read(fd, count)

        return read

    def is_directory(self, path: str) -> bool:
        """Tell whether there is a directory at a path of the tree, links followed."""
        try:
            os.close(open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def make_directory(self, path: str) -> int:
        """Return an open directory of the tree, made with its parents (the writer's owner) where missing."""
        path = os.path.normpath("/" + path.strip("/")).strip("/")
        try:
            return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            cause = f"cannot copy to non-directory: /{path}"
            raise Invalid("copy", f"/{path}", cause, hint="name another destination") from None
        above = self.make_directory(os.path.dirname(path))
        try:
            os.mkdir(os.path.basename(path), 0o755, dir_fd=above)
        except FileExistsError:
            os.close(mkdir_in_root(self._root, path))  # a link that leads to nothing yet
            return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(above)
        fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        os.fchmod(fd, self._made_mode)
        os.fchown(fd, *(self._owner or (0, 0)))
        return fd

    def make_like(self, source: int, path: str, destination: str) -> None:
        """Make a directory as it is at a path of the tree whose root is `source`. One that is there stays as it is."""
        if self.is_directory(destination):
            return
        found = open_in_root(source, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            made = self.make_directory(destination)
            try:
                self._settle(made, os.fstat(found))
                _copy_xattrs(found, made)
            finally:
                os.close(made)
        finally:
            os.close(found)

    def _behind_link(self, parent: int, name: str, destination: str) -> tuple[int, str]:
        """Return where a file goes whose destination is a link: where it leads, inside the tree."""
        if not destination:
            return parent, name
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError:
            return parent, name
        joined = os.path.join(os.path.dirname(destination), target)
        os.close(parent)
        return self.make_directory(os.path.dirname(joined)), os.path.basename(joined)

    def _directory(self, source: int, listing: Listing, destination: str) -> None:
        # The top's own mode and owner are not copied, as in docker.
        top = self.make_directory(destination)
        stack = [("", open_in_root(source, listing.top, os.O_RDONLY | os.O_DIRECTORY), top)]
        try:
            for node in listing.nodes[1:]:
                above, _, name = node.path.rpartition("/")
                while stack[-1][0] != above:
                    _, *fds = stack.pop()
                    for fd in fds:
                        os.close(fd)
                _, found, target = stack[-1]
                if stat.S_ISDIR(node.info.st_mode):
                    inner = os.open(name, DIRECTORY_FLAGS, dir_fd=found)
                    made = self._subdirectory(target, name, node)
                    stack.append((node.path, inner, made))
                    if node.content:
                        _copy_xattrs(inner, made)
                else:
                    self._entry(found, node, name, target, name, f"{listing.top}/{node.path}")
        except FileNotFoundError:
            raise _changed(listing.top) from None
        finally:
            for _, *fds in stack:
                for fd in fds:
                    os.close(fd)

    def _subdirectory(self, parent: int, name: str, node: Node) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                cause = f"cannot overwrite non-directory {name} with directory {node.path}"
                hint = "it may be a link in the base image: copy to where it leads"
                raise Invalid("copy", node.path, cause, hint=hint) from None
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        self._settle(fd, node.info)
        return fd

    def _entry(self, found: int, node: Node, name: str, parent: int, target: str, shown: str) -> None:
        """Copy one entry that is no directory."""
        self._check()
        mode = node.info.st_mode
        if node.info.st_nlink > 1 and self._link(node, parent, target):
            return
        if stat.S_ISREG(mode):
            self._file(os.open(name, _SOURCE_FLAGS, dir_fd=found), node, parent, target, shown)
        elif stat.S_ISLNK(mode):
            _replacing(parent, target, lambda: os.symlink(os.fsdecode(node.content), target, dir_fd=parent))
            self._settle_name(parent, target, node)
        else:
            _replacing(parent, target, lambda: os.mknod(target, mode, node.info.st_rdev, dir_fd=parent))
            self._settle_name(parent, target, node)
        if node.info.st_nlink > 1:
            self._links[node.info.st_dev, node.info.st_ino] = (os.dup(parent), target)

    def close(self) -> None:
        """Let go of the places of hard links."""
        for parent, _ in self._links.values():
            os.close(parent)
        self._links.clear()

    def _link(self, node: Node, parent: int, target: str) -> bool:
        first = self._links.get((node.info.st_dev, node.info.st_ino))
        if first is None:
            return False
        source, name = first
        try:
            _replacing(
                parent,
                target,
                lambda: os.link(name, target, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False),
            )
        except OSError as refused:
            if refused.errno not in (errno.EMLINK, errno.EXDEV):
                raise
            return False
        return True

    def _file(self, fd: int, node: Node, parent: int, target: str, shown: str) -> None:
        """Copy a regular file. fd: it, open for reading; closed here."""
        try:
            if _identity(os.fstat(fd)) != _identity(node.info):
                raise _changed(shown)
            copy = _replacing(parent, target, lambda: os.open(target, _TARGET_FLAGS, 0o600, dir_fd=parent))
            try:
                _copy_data(fd, copy, node.info.st_size, self._check)
                self._settle(copy, node.info)
                if len(node.content) > SHA256_BYTES:
                    _copy_xattrs(fd, copy)  # after the owner: chown(2) takes file capabilities away
            finally:
                os.close(copy)
        finally:
            os.close(fd)

    def _settle(self, fd: int, info: os.stat_result) -> None:
        os.fchown(fd, *(self._owner or (info.st_uid, info.st_gid)))
        os.fchmod(fd, changed_mode(self._mode, info.st_mode))
        time_ns = min(info.st_mtime_ns, self._mtime_max_ns)
        os.utime(fd, ns=(time_ns, time_ns))

    def _settle_name(self, parent: int, name: str, node: Node) -> None:
        info = node.info
        os.chown(name, *(self._owner or (info.st_uid, info.st_gid)), dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, changed_mode(self._mode, info.st_mode), dir_fd=parent)
        time_ns = min(info.st_mtime_ns, self._mtime_max_ns)
        os.utime(name, ns=(time_ns, time_ns), dir_fd=parent, follow_symlinks=False)


def owner_of(root: int, text: str) -> tuple[int, int]:
    """Return what --chown means in a tree. Raises NotFound for a name that passwd or group does not have, Invalid.

    As in docker, without a group it is the one called like the user (or with its number), or else the user's own; and
    without a user it is root.
    """
    user, colon, group = text.partition(":")
    if colon:
        identity = users.resolve(root, f"{user or 0}:{group}" if group else user)
        return identity.uid, identity.gid
    try:
        identity = users.resolve(root, f"{user}:{user}")
    except NotFound:
        identity = users.resolve(root, user)
    return identity.uid, identity.gid


def is_archive(source: int, listing: Listing) -> bool:
    """Tell whether a listed file is a tar archive, plain or compressed, by its content."""
    if not stat.S_ISREG(listing.nodes[0].info.st_mode):
        return False
    fd = open_in_root(source, listing.top, os.O_RDONLY)
    try:
        head = os.read(fd, MAGIC_BYTES)
        if detect(head) == NONE:
            return _is_tar(fd)
        os.lseek(fd, 0, os.SEEK_SET)
        stream = Decompressed(lambda count: os.read(fd, count), listing.top)
        return next(iter(Reader(stream.read, listing.top)), None) is not None
    except OrlopError:
        return False
    finally:
        os.close(fd)


def _is_tar(fd: int) -> bool:
    os.lseek(fd, 0, os.SEEK_SET)
    return next(iter(Reader(lambda count: os.read(fd, count), "")), None) is not None


def _replacing(parent: int, name: str, make: Callable[[], T]) -> T:
    """Make something under a name; what stands there goes first, unless it is a directory."""
    try:
        return make()
    except FileExistsError:
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            cause = f"cannot overwrite directory {name} with a file"
            raise Invalid("copy", name, cause, hint="end the destination with / to copy into it") from None
        return make()


def _copy_data(source: int, target: int, size: int, check: Callable[[], None]) -> None:
    """Copy a file's content. The size is what was listed.

    Holes become zeros: a context that comes as an archive, or from elsewhere, has none, and makes the same layer.
    """
    if size <= SMALL_BYTES:
        data = os.read(source, size) if size else b""
        if len(data) != size or (size and os.write(target, data) != size):
            raise Unavailable("copy", "a file", "it changed while it was being copied")
        return
    at = 0
    while at < size:
        start, end = _data_from(source, at, size)
        while at < end:
            check()
            if at < start:
                at += os.pwrite(target, bytes(min(start - at, ZEROS_BYTES)), at)
                continue
            count = _copy_piece(source, target, at, min(end - at, COPY_BYTES))
            if not count:
                raise Unavailable("copy", "a file", "it changed while it was being copied")
            at += count
    if os.fstat(source).st_size != size:
        raise Unavailable("copy", "a file", "it changed while it was being copied")


def _data_from(fd: int, at: int, size: int) -> tuple[int, int]:
    """Return where the next data of a file begins and ends; (size, size) where a hole is all that follows."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        return min(start, size), min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError as refused:  # ENXIO: there is none; else a file system that knows of no holes (lseek(2))
        return (size, size) if refused.errno == errno.ENXIO else (at, size)


def _copy_piece(source: int, target: int, at: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError as refused:
        if refused.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.lseek(target, at, os.SEEK_SET)
        return os.sendfile(target, source, at, count)


def _copy_xattrs(source: int, target: int) -> None:
    for name, value in xattrs_of(f"/proc/self/fd/{source}").items():
        try:
            os.setxattr(target, name, value)
        except OSError as refused:
            if refused.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def _identity(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _changed(path: str) -> Unavailable:
    cause = "it changed while it was being copied"
    return Unavailable("copy", path, cause, hint="build again when nobody writes to the context")
