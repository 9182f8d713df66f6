"""An archive becomes a tree: every member below one directory descriptor; a layer's in overlayfs's own form.

Invariants:
1. Nothing outside the directory is touched, whatever the archive says (SEC-40: CVE-2026-17106, CVE-2025-47290,
   CVE-2021-32760). A member's parent is opened by openat2 with RESOLVE_IN_ROOT; in it, only system calls on its last
   name that follow no link.
2. What stands in a member's place goes first, unless both are directories: an archive never writes through what an
   earlier member planted (SEC-40).
3. Whiteouts become what overlayfs wants: `.wh.X` a character device 0:0 called X, `.wh..wh..opq` the attribute
   overlay.opaque (`overlay`). overlayfs's own attributes in an archive are dropped: they would redirect lookups.
4. A layer's tree has one writer until it is done: the one that extracts. What `cp` extracts into has another one, a
   hostile container perhaps, which can make a member fail, and can reach nothing that is not its own (SEC-06): whatever
   gets an owner, a mode or attributes here is a descriptor, or a last name that is not followed.

A directory's time is put right when its descriptor leaves the cache. What grows with the archive are the directories
that no member describes: what they get is known only once the layers below are there (`settle`), which may be later.
Source: OCI image-spec, layer.md; kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from orlop.linux.path import mkdir_in_root, open_in_root
from orlop.spec.errors import Denied, Invalid, OrlopError, Unavailable
from orlop.spec.tar import BLKTYPE, CHRTYPE, DIRTYPE, FIFOTYPE, LNKTYPE, REGTYPE, SYMTYPE, shown

from . import overlay, owners, removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from orlop.spec.tar import Member

    class Reader(Protocol):
        """What `tar.Reader` and `rebase.Rebased` are."""

        def __iter__(self) -> Iterator[Member]: ...
        def data(self) -> Iterator[bytes]:
            """Yield the stored bytes of the current member."""


WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
DEPTH_MAX = 256
IMPLICIT_BYTES_MAX = 16 * 1024**2  # of the paths of directories that no member describes
_CACHED_DIRECTORIES_MAX = 64
# What an archive may not say: notes of overlayfs and of ours, and labels, which are the host's to give.
DROPPED_XATTRS = (*map(os.fsencode, overlay.PREFIXES), owners.XATTR, b"security.selinux")
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {CHRTYPE: stat.S_IFCHR, BLKTYPE: stat.S_IFBLK, FIFOTYPE: stat.S_IFIFO}


class Rules:
    """What decides between a layer and what a user copies.

    layer: whiteouts are marks, directories have the times of the archive, what is in the way goes. Else it is `cp`:
        names are names, and attributes that the file system does not take are let go.
    replace: of `cp`, whether a directory goes for something else, and something else for a directory.
    owner: (uid, gid) of everything; None takes the archive's, (-1, -1) leaves ours. shift: between the owners of the
        archive, or that one, and those of the tree. mode: the permissions of everything but links; None the archive's.
    """

    __slots__ = ("layer", "mode", "owner", "replace", "shift")

    def __init__(
        self,
        *,
        layer: bool,
        replace: bool = False,
        owner: tuple[int, int] | None = None,
        shift: owners.Shift | None = None,
        mode: int | None = None,
    ) -> None:
        self.layer = layer
        self.replace = replace or layer
        self.mode = mode
        self.owner = owner
        self.shift = shift


LAYER = Rules(layer=True)


class Extraction:
    """One archive on its way into one directory.

    root: descriptor of the directory; a layer's is empty at first. trash: see `removal.remove`; -1 for `cp`, which
        has none on the file systems of a container. subject names the archive in errors.
    A layer's is `run` and then `settle`; one of `cp` is `run` alone. entries: members seen. lost_xattrs,
    lost_devices: what the file system or our privileges did not take.
    """

    def __init__(self, root: int, trash: int, subject: str, rules: Rules = LAYER) -> None:
        self.entries = 0
        self.lost_xattrs = 0
        self.lost_devices = 0
        self.lost_owners = 0
        self._root = root
        self._rules = rules
        self._trash = trash
        self._subject = subject
        self._directories: dict[tuple[bytes, ...], tuple[int, int]] = {}  # path -> (descriptor, inode)
        self._times: dict[int, int] = {}  # inode of a cached directory -> its time
        self._implicit: dict[int, bytes] = {}  # inode of a directory that no member has described yet -> its path
        self._implicit_bytes = 0

    def run(self, reader: Reader) -> None:
        """Extract every member. Raises Invalid for a hostile or broken archive, Denied, Unavailable."""
        if self._rules.layer:
            self._implicit[os.fstat(self._root).st_ino] = b""
        try:
            for member in reader:
                self.entries += 1
                if self._rules.owner is not None:
                    member.uid, member.gid = self._rules.owner
                if self._rules.mode is not None:
                    member.mode = self._rules.mode
                try:
                    self._extract(member, reader)
                except OSError as error:
                    raise self._failed(member, error) from None
        finally:
            self._forget_directories()

    def settle(self, lower: Sequence[str]) -> None:
        """Give the directories that no member described what they have in the layers below, or 0755.

        Else an upper layer with `tmp/x` alone would take /tmp its mode. lower: their trees, the topmost first.
        Raises OSError.
        """
        for inode, path in self._implicit.items():
            try:
                fd = open_in_root(self._root, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue  # something else stands there by now
            try:
                if os.fstat(fd).st_ino == inode:
                    self._give_to_root(fd)
                    _take_attributes(fd, os.fsdecode(path), lower)
            finally:
                os.close(fd)
        self._implicit.clear()

    def _extract(self, member: Member, reader: Reader) -> None:
        parts = self._parts(member.name, member)
        if not parts:
            if member.kind != DIRTYPE:
                raise self._refused(member, "it stands in the place of the root directory")
            self._settle_directory((), self._directory(()), member)
            return
        base = parts[-1]
        parent = self._directory(parts[:-1])
        if self._rules.layer and base.startswith(WHITEOUT_PREFIX):
            self._whiteout(parent, base, member)
        elif member.kind == DIRTYPE:
            self._make_directory(parent, base, parts, member)
        elif member.kind == REGTYPE:
            self._make_file(parent, base, member, reader)
        elif member.kind == LNKTYPE:
            self._make_hard_link(parent, base, member)
        elif member.kind == SYMTYPE:
            self._make_symlink(parent, base, member)
        else:
            self._make_node(parent, base, member)

    # -- names ------------------------------------------------------------------------------------------------------

    def _parts(self, name: bytes, member: Member) -> tuple[bytes, ...]:
        """Return a name's components below the root. Raises Invalid for one that leads out of it."""
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if not parts:
                    raise self._refused(member, "it leads out of the root directory")
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        if len(parts) > DEPTH_MAX:
            raise self._refused(member, f"it lies more than {DEPTH_MAX} directories deep")
        if self._rules.layer and any(part.startswith(WHITEOUT_PREFIX) for part in parts[:-1]):
            raise self._refused(member, "a directory on its way is called like a whiteout")
        return tuple(parts)

    def _directory(self, parts: tuple[bytes, ...]) -> int:
        """Return a descriptor (ours, cached) of the directory at parts, made where it is missing."""
        cached = self._directories.get(parts)
        if cached is not None:
            return cached[0]
        path = os.fsdecode(b"/".join(parts))
        try:
            fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            if not parts:
                raise
            fd = self._make_implicit(parts, path)
        self._remember(parts, fd)
        return fd

    def _make_implicit(self, parts: tuple[bytes, ...], path: str) -> int:
        """Make a directory that members go through before, or without, one that describes it."""
        parent, base = self._directory(parts[:-1]), parts[-1]
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
            opaque = False
        except FileExistsError:
            if not self._rules.layer or not overlay.is_whiteout(os.lstat(base, dir_fd=parent)):
                # a dangling link: what it leads to is made, inside the root; anything else is in the way
                os.close(mkdir_in_root(self._root, path))
                return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
            os.unlink(base, dir_fd=parent)
            os.mkdir(base, 0o700, dir_fd=parent)
            opaque = True
        fd = os.open(base, removal.DIRECTORY_FLAGS, dir_fd=parent)
        if opaque:
            os.setxattr(fd, overlay.OPAQUE_XATTR, b"y")
            self._give_to_root(fd)
        if opaque or not self._rules.layer:
            os.fchmod(fd, 0o755)
        else:
            self._note_implicit(os.fstat(fd).st_ino, os.fsencode(path))
        return fd

    def _note_implicit(self, inode: int, path: bytes) -> None:
        self._implicit[inode] = path
        self._implicit_bytes += len(path)
        if self._implicit_bytes > IMPLICIT_BYTES_MAX:
            cause = "it goes through more directories without describing them than any image needs"
            raise Invalid("extract", self._subject, cause)

    def _remember(self, parts: tuple[bytes, ...], fd: int) -> None:
        if len(self._directories) >= _CACHED_DIRECTORIES_MAX:
            self._forget_directories()
        info = os.fstat(fd)
        self._directories[parts] = (fd, info.st_ino)
        if self._rules.layer:
            self._times.setdefault(info.st_ino, info.st_mtime_ns)

    def _forget_directories(self) -> None:
        """Close the cached directories, each with the time it had before members were put into it."""
        for fd, inode in self._directories.values():
            time_ns = self._times.get(inode)
            try:
                if time_ns is not None:
                    os.utime(fd, ns=(time_ns, time_ns))
            finally:
                os.close(fd)
        self._directories.clear()
        self._times.clear()

    # -- members ----------------------------------------------------------------------------------------------------

    def _make_directory(self, parent: int, base: bytes, parts: tuple[bytes, ...], member: Member) -> None:
        opaque = False
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            info = os.lstat(base, dir_fd=parent)
            if not stat.S_ISDIR(info.st_mode):
                if not self._rules.replace:
                    raise self._other_kind("non-directory", "directory", member) from None
                # A whiteout of the same name hid the directory below: an opaque one hides its content too.
                opaque = self._rules.layer and overlay.is_whiteout(info)
                parent = self._clear(parent, base, member)
                os.mkdir(base, 0o700, dir_fd=parent)
        cached = self._directories.get(parts)
        if cached is None:
            fd = os.open(base, removal.DIRECTORY_FLAGS, dir_fd=parent)
            self._remember(parts, fd)
        else:
            fd = cached[0]
        if opaque:
            os.setxattr(fd, overlay.OPAQUE_XATTR, b"y")
        self._settle_directory(parts, fd, member)

    def _settle_directory(self, parts: tuple[bytes, ...], fd: int, member: Member) -> None:
        self._give(fd, member)
        os.fchmod(fd, member.mode)
        self._set_xattrs(fd, member)
        inode = self._directories[parts][1]
        self._times[inode] = member.mtime_ns
        self._implicit.pop(inode, None)

    def _make_file(self, parent: int, base: bytes, member: Member, reader: Reader) -> None:
        try:
            fd = os.open(base, _FILE_FLAGS, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(parent, base, member)
            fd = os.open(base, _FILE_FLAGS, 0o600, dir_fd=parent)
        try:
            if member.extents is None:
                for piece in reader.data():
                    _write(fd, piece)
            else:
                _write_sparse(fd, member, reader)
            self._give(fd, member)  # before the mode and file capabilities: it clears both
            os.fchmod(fd, member.mode)
            self._set_xattrs(fd, member)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _make_symlink(self, parent: int, base: bytes, member: Member) -> None:
        if not member.linkname:
            raise self._refused(member, "the symbolic link has no target")
        try:
            os.symlink(member.linkname, base, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(parent, base, member)
            os.symlink(member.linkname, base, dir_fd=parent)
        self._settle(parent, base, member)

    def _make_hard_link(self, parent: int, base: bytes, member: Member) -> None:
        """Link to an earlier member. Its owner, mode and times are that member's: it is the same file."""
        target = self._parts(member.linkname, member)
        if not target:
            raise self._refused(member, "a hard link can't lead to the root directory")
        try:
            source = open_in_root(self._root, os.fsdecode(b"/".join(target[:-1])), os.O_PATH | os.O_DIRECTORY)
        except OSError:
            raise self._missing_target(member) from None
        try:
            found = os.lstat(target[-1], dir_fd=source)
            if stat.S_ISDIR(found.st_mode):
                raise self._refused(member, f"the hard link leads to the directory {shown(member.linkname)}")
            try:
                os.link(target[-1], base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(found, os.lstat(base, dir_fd=parent)):
                    return
                parent = self._clear(parent, base, member)
                os.link(target[-1], base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise self._missing_target(member) from None
        finally:
            os.close(source)

    def _make_node(self, parent: int, base: bytes, member: Member) -> None:
        try:
            device = os.makedev(member.devmajor, member.devminor)
            self._mknod(parent, base, _NODES[member.kind] | 0o600, device, member)
        except OverflowError:
            raise self._refused(member, f"there is no device {member.devmajor}:{member.devminor}") from None
        except PermissionError:
            if member.kind == FIFOTYPE or (os.geteuid() == 0 and overlay.PRIVILEGED):
                raise
            self.lost_devices += 1  # in a user namespace nobody can make one; the runtime brings its own /dev

    def _mknod(self, parent: int, base: bytes, mode: int, device: int, member: Member) -> None:
        try:
            os.mknod(base, mode, device, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(parent, base, member)
            os.mknod(base, mode, device, dir_fd=parent)
        self._settle(parent, base, member)

    def _settle(self, parent: int, base: bytes, member: Member) -> None:
        """Give owner, mode, attributes and time to what can't be opened: a link or a node, made a moment ago."""
        place = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            itself = f"/proc/self/fd/{place}"  # chmod(2) by name would follow what somebody put there since
            self._give(itself, member)
            if member.kind != SYMTYPE:
                os.chmod(itself, member.mode)
            self._set_xattrs(itself, member)
            os.utime(itself, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(place)

    def _whiteout(self, parent: int, base: bytes, member: Member) -> None:
        if base == OPAQUE_MARKER:
            os.setxattr(parent, overlay.OPAQUE_XATTR, b"y")
            return
        if base.startswith(AUFS_PREFIX):
            return  # aufs's bookkeeping, without a meaning since
        hidden = base[len(WHITEOUT_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise self._refused(member, "the whiteout hides no name")
        try:
            overlay.make_whiteout(hidden, parent)
        except FileExistsError:
            # It hides what lies below, not what this layer has under the name; a directory's content merges, though.
            if stat.S_ISDIR(os.lstat(hidden, dir_fd=parent).st_mode):
                fd = os.open(hidden, removal.DIRECTORY_FLAGS, dir_fd=parent)
                try:
                    os.setxattr(fd, overlay.OPAQUE_XATTR, b"y")
                finally:
                    os.close(fd)

    def _clear(self, parent: int, base: bytes, member: Member) -> int:
        """Remove what stands where a member goes; return the parent, opened anew where the cache had to go."""
        mode = os.lstat(base, dir_fd=parent).st_mode
        is_directory = stat.S_ISDIR(mode)
        if is_directory and not self._rules.replace:
            raise self._other_kind("directory", "non-directory", member)
        if stat.S_ISREG(mode) or not (self._rules.layer or is_directory):
            os.unlink(base, dir_fd=parent)
            return parent
        self._forget_directories()  # a path in the cache may have led through it
        parent = self._directory(self._parts(member.name, member)[:-1])
        if self._rules.layer:
            removal.remove(parent, base, self._trash)
        else:
            removal.remove_in_place(parent, base)
        return parent

    def _give(self, target: int | str, member: Member) -> None:
        shift = self._rules.shift
        uid, gid = shift.seen(member.uid, member.gid) if shift else (member.uid, member.gid)
        self.lost_owners += not owners.give(target, uid, gid)

    def _give_to_root(self, fd: int) -> None:
        """Give a directory of a layer that no member describes to root, as the tree's owners are counted."""
        if self._rules.layer and self._rules.shift:
            os.chown(fd, *self._rules.shift.seen(0, 0))

    def _set_xattrs(self, target: int | str, member: Member) -> None:
        for name, value in member.xattrs.items():
            if name.startswith(DROPPED_XATTRS):
                continue
            try:
                os.setxattr(target, name, value)
            except OSError as error:
                # user.* is for files and directories only; trusted.* is not for user namespaces (xattr(7))
                optional = name.startswith((b"user.", b"trusted.")) or not self._rules.layer
                if error.errno != errno.ENOTSUP and not (error.errno == errno.EPERM and optional):
                    raise
                self.lost_xattrs += 1

    # -- errors -----------------------------------------------------------------------------------------------------

    def _refused(self, member: Member, cause: str) -> Invalid:
        return Invalid("extract", f"member {shown(member.name)} of {self._subject}", cause)

    def _other_kind(self, there: str, comes: str, member: Member) -> Invalid:
        return self._refused(member, f"cannot overwrite {there} with {comes} {shown(member.name)}")

    def _missing_target(self, member: Member) -> Invalid:
        return self._refused(member, f"it is a hard link to {shown(member.linkname)}, which is not in front of it")

    def _failed(self, member: Member, error: OSError) -> OrlopError:
        subject = f"member {shown(member.name)} of {self._subject}"
        cause = os.strerror(error.errno or 0)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Unavailable("extract", subject, cause, hint="free some space in the data directory")
        if error.errno in (errno.EPERM, errno.EACCES):
            return Denied("extract", subject, cause)
        if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ERANGE, errno.E2BIG):
            return Invalid("extract", subject, cause)
        return Unavailable("extract", subject, cause)


def _take_attributes(fd: int, path: str, lower: Sequence[str]) -> None:
    """Give a directory owner, mode, time and attributes of the one at path in the topmost tree that has it."""
    for tree in lower:
        root = os.open(tree, removal.DIRECTORY_FLAGS)
        try:
            below = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        except OSError:
            break  # something else stands there, a whiteout perhaps: what lies further down does not show
        finally:
            os.close(root)
        try:
            info = os.fstat(below)
            os.fchown(fd, info.st_uid, info.st_gid)
            os.fchmod(fd, stat.S_IMODE(info.st_mode))
            for name in os.listxattr(below):
                if not name.startswith(overlay.PREFIXES):
                    os.setxattr(fd, name, os.getxattr(below, name))
            os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(below)
        return
    os.fchmod(fd, 0o755)


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def _write_sparse(fd: int, member: Member, reader: Reader) -> None:
    """Write the pieces of a sparse file where they belong; the rest stays a hole."""
    os.ftruncate(fd, member.size)
    pieces = reader.data()
    piece = b""
    for offset, length in member.extents or ():
        while length:
            piece = piece or next(pieces)
            taken = os.pwrite(fd, piece[:length], offset)
            piece, offset, length = piece[taken:], offset + taken, length - taken
