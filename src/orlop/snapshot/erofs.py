"""A tree as one file that the kernel mounts, read-only: EROFS, uncompressed.

    image = Image(file); image.add(open_layers(trees)); image.finish()

Written by us alone, from trees that we have unpacked: no file system of somebody else's making is ever mounted
(SEC-98). Inodes are of the extended form, data and names begin at blocks of their own, so what is where follows from
the sizes; memory grows with the number of files, not with their size. The same tree makes the same bytes.
Source: kernel, fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from .copies import copy_content
from .extract import DEPTH_MAX
from .pack import xattrs_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layered import Directory, Entry

BLOCK = 4096
_MAGIC, _SUPER_OFFSET = 0xE0F5E1E2, 1024
# magic, checksum, compat, block bits, extended slots, root nid, inodes, time, nanoseconds, blocks, meta, xattrs, ...
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sI44x")
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_XATTRS = struct.Struct("<I8x")
_XATTR = struct.Struct("<BBH")
_DIRENT = struct.Struct("<QHBx")
_EXTENDED_PLAIN = 1  # version 1 of inodes, EROFS_INODE_FLAT_PLAIN
_SLOT = 32
_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_XATTR_INDEXES = (
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
)


class Node:
    """An inode. block: where its data begins; entries: of a directory, name -> node; above: the directory it is in."""

    __slots__ = ("above", "block", "entries", "info", "links", "nid", "size", "xattrs")

    def __init__(self, info: os.stat_result, xattrs: bytes, above: Node | None) -> None:
        self.info = info
        self.xattrs = xattrs
        self.above = above or self
        self.entries: dict[bytes, Node] = {}
        self.links = 1
        self.size = self.block = self.nid = 0


class Image:
    """A file system on its way into an empty file. Raises OSError."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._next = 1  # block 0 is the super block's
        self._nodes: list[Node] = []
        self._several: dict[tuple[int, int], Node] = {}

    def add(self, root: Directory) -> None:
        """Write the content of all files below a directory, which is closed. ELOOP for one that is too deep."""
        levels = [(root, self._node(os.fstat(root.fd), root.fd, None), root.names())]
        try:
            while levels:
                directory, node, names = levels[-1]
                if not names:
                    levels.pop()[0].close()
                    continue
                name = names.pop()
                entry = directory.find(name)
                if entry is None:
                    continue
                try:
                    if not stat.S_ISDIR(entry.info.st_mode):
                        node.entries[name] = self._file_node(entry, node)
                        continue
                    if len(levels) > DEPTH_MAX:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    node.entries[name] = inner = self._node(entry.info, entry.place, node)
                    below = directory.enter(name, entry)
                    levels.append((below, inner, below.names()))
                finally:
                    os.close(entry.place)
        finally:
            for directory, _, _ in levels:
                directory.close()

    def finish(self) -> None:
        """Write directories, inodes and the super block, and make it durable."""
        offset = _SLOT  # nid 0 is nobody's
        for node in self._nodes:
            offset = self._aligned(offset, _INODE.size + len(node.xattrs))
            node.nid = offset // _SLOT
            offset += _INODE.size + len(node.xattrs)
        for node in self._nodes:
            if stat.S_ISDIR(node.info.st_mode):
                data = _directory(node)
                node.links = 2 + sum(stat.S_ISDIR(one.info.st_mode) for one in node.entries.values())
                self._place(node, data)
        meta = self._next
        for number, node in enumerate(self._nodes, 1):
            os.pwrite(self._file, _inode(node, number) + node.xattrs, meta * BLOCK + node.nid * _SLOT)
        blocks = meta + -(-offset // BLOCK)
        os.ftruncate(self._file, blocks * BLOCK)
        root = self._nodes[0].nid
        fields = (_MAGIC, 0, 0, 12, 0, root, len(self._nodes), 0, 0, blocks, meta, 0, bytes(16), b"", 0)
        os.pwrite(self._file, _SUPER.pack(*fields), _SUPER_OFFSET)
        os.fsync(self._file)

    def _node(self, info: os.stat_result, fd: int, above: Node | None) -> Node:
        node = Node(info, _xattrs(self._attributes(f"/proc/self/fd/{fd}")), above)
        self._nodes.append(node)
        return node

    def _attributes(self, path: str) -> dict[bytes, bytes]:
        return xattrs_of(path)

    def _file_node(self, entry: Entry, above: Node) -> Node:
        info = entry.info
        key = (info.st_dev, info.st_ino)
        if info.st_nlink > 1 and (known := self._several.get(key)):
            known.links += 1
            return known
        plain = stat.S_ISREG(info.st_mode)
        node = Node(info, _xattrs(self._attributes(f"/proc/self/fd/{entry.place}")) if plain else b"", above)
        self._nodes.append(node)
        if info.st_nlink > 1:
            self._several[key] = node
        if plain:
            self._content(node, entry)
        elif stat.S_ISLNK(info.st_mode):
            self._place(node, os.readlink(b"", dir_fd=entry.place))
        return node

    def _content(self, node: Node, entry: Entry) -> None:
        self._reserve(node, entry.info.st_size)
        source = os.open(f"/proc/self/fd/{entry.place}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy_content(source, self._file, node.size, node.block * BLOCK)
        finally:
            os.close(source)

    def _reserve(self, node: Node, size: int) -> None:
        node.size, node.block = size, self._next
        self._next += -(-size // BLOCK)

    def _place(self, node: Node, data: bytes) -> None:
        self._reserve(node, len(data))
        os.pwrite(self._file, data, node.block * BLOCK)

    @property
    def root(self) -> Node:
        """The directory that was added."""
        return self._nodes[0]

    @staticmethod
    def _aligned(offset: int, size: int) -> int:
        """Return where an inode of a size goes: the fixed part of one does not cross blocks."""
        offset = -(-offset // _SLOT) * _SLOT
        return -(-offset // BLOCK) * BLOCK if offset % BLOCK + min(size, BLOCK) > BLOCK else offset


def _inode(node: Node, number: int) -> bytes:
    info = node.info
    kind = stat.S_IFMT(info.st_mode)
    where = node.block
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        where = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12  # new_encode_dev()
    count = (len(node.xattrs) - _XATTRS.size) // 4 + 1 if node.xattrs else 0
    seconds, rest = divmod(info.st_mtime_ns, 10**9)
    fields = (_EXTENDED_PLAIN, count, info.st_mode, 0, node.size, where, number, info.st_uid, info.st_gid)
    return _INODE.pack(*fields, seconds & (1 << 64) - 1, rest, node.links)


def _directory(node: Node) -> bytes:
    """Return the blocks of a directory: names in their order, "." and ".." among them."""
    entries = sorted([*node.entries.items(), (b".", node), (b"..", node.above)], key=lambda item: item[0])
    blocks: list[bytes] = []
    at = 0
    while at < len(entries):
        end, room = at, BLOCK
        while end < len(entries) and room >= _DIRENT.size + len(entries[end][0]):
            room -= _DIRENT.size + len(entries[end][0])
            end += 1
        offset = (end - at) * _DIRENT.size
        head, names = b"", b""
        for name, one in entries[at:end]:
            head += _DIRENT.pack(one.nid, offset + len(names), _TYPES[stat.S_IFMT(one.info.st_mode)])
            names += name
        block = head + names
        blocks.append(block if end == len(entries) else block.ljust(BLOCK, b"\0"))
        at = end
    return b"".join(blocks)


def _xattrs(found: dict[bytes, bytes]) -> bytes:
    """Return the attributes as they lie behind an inode, b"" for none."""
    out = b""
    for name, value in found.items():
        index, rest = next(((i, name[len(p) :]) for p, i in _XATTR_INDEXES if name.startswith(p)), (0, b""))
        if index:
            part = _XATTR.pack(len(rest), index, len(value)) + rest + value
            out += part.ljust(-(-len(part) // 4) * 4, b"\0")
    return _XATTRS.pack(0) + out if out else b""
