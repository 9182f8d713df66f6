"""A tree becomes an archive: the same tree, the same bytes. The counterpart of `extract`.

    packer = Packer(write)
    packer.add(fd, b"usr")          # a file of any kind, a directory with all that lies below it
    packer.finish()

Invariants:
1. Whoever owns the tree may change it meanwhile, and may be hostile (a running container): a file is opened by its name
   in an open directory, without following, first as a place only (O_PATH); what it is decides whether it is opened for
   reading. No device is ever opened, no FIFO waited for, no link followed (SEC-06, CVE-2018-15664, CVE-2026-41568).
2. A member has as many bytes as its header says: what shrinks meanwhile is filled with zeros, what grows is cut.
3. Members are sorted by name; nothing of this machine gets in: no names of owners, no access times.
4. overlayfs's own attributes never leave; with `whiteouts` its marks become those of the OCI's layers.

Memory grows with the depth of the tree and the number of its hard links, not with its size.
Source: OCI image-spec, layer.md; kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from orlop.spec.errors import Invalid
from orlop.spec.tar import BLKTYPE, CHRTYPE, DIRTYPE, FIFOTYPE, LNKTYPE, REGTYPE, SYMTYPE, Member, shown
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

from . import owners
from .extract import DEPTH_MAX, DROPPED_XATTRS, OPAQUE_MARKER, WHITEOUT_PREFIX
from .layered import Directory, is_opaque
from .overlay import is_whiteout
from .removal import DIRECTORY_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

READ_BYTES = 256 * 1024
BATCH_BYTES = 64 * 1024
HOLE_BYTES_MIN = 64 * 1024  # a file with fewer bytes in holes is written plain: more readers know that
EXTENTS_MAX = 10_000
_KINDS = {
    stat.S_IFREG: REGTYPE,
    stat.S_IFDIR: DIRTYPE,
    stat.S_IFLNK: SYMTYPE,
    stat.S_IFCHR: CHRTYPE,
    stat.S_IFBLK: BLKTYPE,
    stat.S_IFIFO: FIFOTYPE,
}


class Packer:
    """Writes one archive. write(data) takes all of it or raises, and what it raises passes through.

    whiteouts: the tree is the upper directory of an overlay; its marks become those of a layer.
    omit: names of members (without a slash at the end) that are left out, with all that lies below them.
    in_root: what the names of members below the root begin with: b"" or b"./".
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        whiteouts: bool = False,
        omit: Collection[bytes] = (),
        shift: owners.Shift | None = None,
        in_root: bytes = b"",
    ) -> None:
        self._shift = shift
        self._in_root = in_root
        self.bytes = 0
        self._write = write
        self._whiteouts = whiteouts
        self._omit = omit
        self._batch = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}  # a file with several names: where its first one is

    def add(self, fd: int, name: bytes) -> None:
        """Add what fd names (O_PATH will do), as a member of this name: a directory with all that lies below it.

        The name "." stands for the root of the archive. Raises Invalid for a tree of
        more than DEPTH_MAX directories, OSError.
        """
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            self.add_directory(Directory((os.open(".", DIRECTORY_FLAGS, dir_fd=fd),), plain=True), name)
        else:
            self._file(fd, info, name)

    def add_directory(self, directory: Directory, name: bytes) -> None:
        """Add a directory, of one layer or merged from several, which is closed at the end. See `add`."""
        pending: list[tuple[Directory, bytes, list[bytes]]] = []
        try:
            self._directory(directory, name)
            prefix = self._in_root if name == b"." else name + b"/"
            names = directory.names()
            while True:
                while names:
                    child = names.pop()
                    below = self._child(directory, child, prefix + child)
                    if below is not None:
                        if len(pending) >= DEPTH_MAX:
                            below.close()
                            raise _too_deep(prefix + child)
                        pending.append((directory, prefix, names))
                        directory, prefix, names = below, prefix + child + b"/", below.names()
                if not pending:
                    return
                directory.close()
                directory, prefix, names = pending.pop()
        finally:
            for held, _, _ in pending:
                held.close()
            directory.close()

    def add_file(self, name: bytes, data: bytes, mtime_ns: int) -> None:
        """Add a file that lies nowhere: root's, for root alone."""
        member = Member(name, REGTYPE, 0o600)
        member.size = member.stored = len(data)
        member.mtime_ns = mtime_ns
        self._emit(encode(member))
        self._emit(data)
        self._emit(padding(member.stored))

    def finish(self) -> None:
        """Write the end of the archive and what is still in the batch."""
        self._emit(END_OF_ARCHIVE)
        self._flush()

    def _child(self, directory: Directory, child: bytes, name: bytes) -> Directory | None:
        """Add one entry of a directory; return it when it is one to go into."""
        if name in self._omit:
            return None
        entry = directory.find(child)
        if entry is None:
            return None  # hidden, or removed meanwhile
        try:
            if not stat.S_ISDIR(entry.info.st_mode):
                self._file(entry.place, entry.info, name)
                return None
            below = directory.enter(child, entry)
        finally:
            os.close(entry.place)
        try:
            self._directory(below, name)
        except BaseException:
            below.close()
            raise
        return below

    def _directory(self, directory: Directory, name: bytes) -> None:
        info = os.fstat(directory.fd)
        member = self._member(info, name + b"/", DIRTYPE)
        member.xattrs = _xattrs(directory.fd)
        owners.restore(member, directory.fd)
        self._emit(encode(member))
        if self._whiteouts and (directory.hides or is_opaque(directory.fd)):
            self._mark(info, (b"" if name == b"." else name + b"/") + OPAQUE_MARKER)

    def _member(self, info: os.stat_result, name: bytes, kind: str) -> Member:
        member = _member(info, name, kind)
        if self._shift is not None:
            member.uid, member.gid = self._shift.inside(member.uid, member.gid)
        return member

    def _mark(self, info: os.stat_result, name: bytes) -> None:
        member = Member(name, REGTYPE, 0)
        member.mtime_ns = info.st_mtime_ns
        self._emit(encode(member))

    def _file(self, place: int, info: os.stat_result, name: bytes) -> None:
        if self._whiteouts and is_whiteout(info):
            parent, slash, base = name.rpartition(b"/")
            self._mark(info, parent + slash + WHITEOUT_PREFIX + base)
            return
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return  # a socket: nothing that an archive could hold
        member = self._member(info, name, kind)
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), name)
            if first != name:
                member.kind, member.linkname = LNKTYPE, first
                self._emit(encode(member))
                return
        member.xattrs = _xattrs(place)
        owners.restore(member, place)
        if kind == REGTYPE:
            self._content(place, info, member)
            return
        if kind == SYMTYPE:
            member.linkname = os.readlink(b"", dir_fd=place)
        elif kind in (CHRTYPE, BLKTYPE):
            member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
        self._emit(encode(member))

    def _content(self, place: int, info: os.stat_result, member: Member) -> None:
        member.size = member.stored = info.st_size
        if not info.st_size:
            self._emit(encode(member))  # also procfs's files, which are never read
            return
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            member.extents = _extents(fd, info)
            if member.extents is not None:
                member.stored = sum(length for _, length in member.extents)
            self._emit(encode(member))
            for offset, length in member.extents if member.extents is not None else ((0, info.st_size),):
                self._copy(fd, offset, length)
            self._emit(padding(member.stored))
        finally:
            os.close(fd)

    def _copy(self, fd: int, offset: int, length: int) -> None:
        while length:
            data = os.pread(fd, min(length, READ_BYTES), offset)
            if not data:
                data = bytes(min(length, READ_BYTES))  # it is shorter by now
            self._emit(data)
            offset += len(data)
            length -= len(data)

    def _emit(self, data: bytes) -> None:
        self.bytes += len(data)
        if len(data) < BATCH_BYTES:
            self._batch += data
            if len(self._batch) >= BATCH_BYTES:
                self._flush()
        else:
            self._flush()
            self._write(data)

    def _flush(self) -> None:
        if self._batch:
            self._write(bytes(self._batch))
            self._batch.clear()


def _member(info: os.stat_result, name: bytes, kind: str) -> Member:
    member = Member(name, kind, stat.S_IMODE(info.st_mode))
    member.uid, member.gid = info.st_uid, info.st_gid
    member.mtime_ns = info.st_mtime_ns
    return member


def xattrs_of(path: str, *, follow: bool = True) -> dict[bytes, bytes]:
    """Return the extended attributes of a file that belong into an archive, sorted. follow: a link at its end."""
    try:
        names = sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=follow)))
    except OSError:
        return {}  # ENOTSUP: a file system that has none
    found = {}
    for name in names:
        if not name.startswith(DROPPED_XATTRS):
            try:
                found[name] = os.getxattr(path, name, follow_symlinks=follow)
            except OSError:
                continue  # ENODATA: removed meanwhile
    return found


def _xattrs(fd: int) -> dict[bytes, bytes]:
    # Through /proc, because fd may be O_PATH, and the file itself, a symbolic link too (proc(5)).
    return xattrs_of(f"/proc/self/fd/{fd}")


def _extents(fd: int, info: os.stat_result) -> tuple[tuple[int, int], ...] | None:
    """Return where the data of a file with large holes lies, None for a file that is better written plain."""
    if info.st_size - info.st_blocks * 512 < HOLE_BYTES_MIN:
        return None
    extents: list[tuple[int, int]] = []
    position = 0
    try:
        while position < info.st_size:
            try:
                start = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as end:
                if end.errno == errno.ENXIO:
                    break  # nothing but a hole up to the end
                raise
            position = min(os.lseek(fd, start, os.SEEK_HOLE), info.st_size)
            if start >= info.st_size:
                break
            extents.append((start, position - start))
            if len(extents) > EXTENTS_MAX:
                return None
    except OSError:
        return None  # a file system without holes to look for
    if info.st_size - sum(length for _, length in extents) < HOLE_BYTES_MIN:
        return None  # compressed, not sparse
    return tuple(extents)


def _too_deep(name: bytes) -> Invalid:
    return Invalid("pack", f"the directory {shown(name)}", f"it lies more than {DEPTH_MAX} directories deep")
