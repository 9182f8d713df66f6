"""Blobs that are not kept: how each is made again, bit by bit, from the layer that was unpacked of it.

    recipes/<algorithm>-<hex>    gzip: a line of JSON (Head), then pieces: literal bytes, then a file of the tree

A piece is a length and as many bytes, the length of a name and the name, and how many bytes that file gives. What comes
out is an archive; `Head.level` says how zlib makes the blob of it.

Invariants:
1. A recipe is durable, and has been followed to the blob's own digest, before the blob is removed.
2. What comes out is a blob only with the digest that it is asked for by: a changed tree or another zlib is an error.
3. As long as an image needs the blob, the layers of its chain stay (`image.collection`).
"""

import os
import struct

from orlop.linux.path import fsync_directory, open_file, open_in_root
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, OrlopError, Unavailable
from orlop.spec.jsonio import dump, parse
from orlop.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import gzip
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, Protocol

    Piece = tuple[bytes, bytes, int]

    class Compressor(Protocol):
        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...


READ_BYTES = 1024 * 1024
NOT_PACKED = -1
_LENGTHS = struct.Struct(">QIQ")  # of the literal, of the name, of what the file gives
_PACKED_LEVEL = 6


class Head(Record):
    """size: of the blob. chain: the ChainIDs of the layer whose tree it needs and of those below it, the topmost first.

    level: zlib's, NOT_PACKED for an archive as it is. before, behind: gzip's header and trailer, in hex.
    """

    size: int
    chain: tuple[Digest, ...]
    level: int
    before: str = ""
    behind: str = ""


class Recipes:
    """The recipes of one store. open_tree: returns a descriptor of an unpacked layer's tree."""

    def __init__(self, root: str) -> None:
        self.root = f"{root}/recipes"
        self.open_tree: Callable[[Digest], int] | None = None

    def path(self, digest: Digest) -> str:
        return f"{self.root}/{digest.algorithm}-{digest.hex}"

    def head(self, digest: Digest) -> Head | None:
        """Return what a blob's recipe begins with, None when there is none that can be read."""
        try:
            with open(open_file(self.path(digest)), "rb") as raw:
                return _head(_unzip(raw), digest)
        except Exception:  # FileNotFoundError mostly; else what gzip, zlib and the disk say of a broken one
            return None

    def chain(self, digest: Digest) -> tuple[Digest, ...]:
        """Return the ChainIDs of the layers that a blob's recipe needs, () without a recipe."""
        head = self.head(digest)
        return head.chain if head is not None else ()

    def digests(self) -> list[Digest]:
        """Return the digests of the blobs that have one. A file that is called otherwise is not ours and left out."""
        return [digest for digest in self.names().values() if digest is not None]

    def names(self) -> dict[str, Digest | None]:
        """Return the names of the files, and what they are recipes for."""
        found: dict[str, Digest | None] = {}
        for name in os.listdir(self.root) if os.path.isdir(self.root) else ():
            try:
                found[name] = Digest(name.replace("-", ":", 1))
            except Invalid:
                found[name] = None
        return found

    def remove(self, digest: Digest) -> None:
        try:
            os.unlink(self.path(digest))
        except (FileNotFoundError, IsADirectoryError):  # a directory is none of ours: `system fsck` tells of it
            pass

    def add(self, digest: Digest, head: Head, pieces: "Iterable[Piece]", path: str, fd: int) -> bool:
        """Write a recipe to a new file, follow it, and keep it when it makes the blob. Raises OSError."""
        import hashlib

        with open(fd, "wb", closefd=False) as raw:
            with _zip(raw) as file:
                file.write(dump(head.to_json()).rstrip() + b"\n")
                for literal, name, count in pieces:
                    file.write(_LENGTHS.pack(len(literal), len(name), count) + literal + name)
            raw.flush()
            os.fsync(fd)
        found = hashlib.new(digest.algorithm)
        try:
            self._follow(path, digest, found.update)
        except OrlopError:
            return False
        if found.hexdigest() != digest.hex:
            return False
        os.makedirs(self.root, 0o700, exist_ok=True)
        os.rename(path, self.path(digest))
        for directory in (self.root, os.path.dirname(self.root)):
            fsync_directory(directory)
        return True

    def make(self, digest: Digest, write: "Callable[[bytes], object]") -> None:
        """Write the blob that a recipe makes; its digest is the caller's to compare. Raises Unavailable."""
        self._follow(self.path(digest), digest, write)

    def _follow(self, path: str, digest: Digest, write: "Callable[[bytes], object]") -> None:
        try:
            with open(open_file(path), "rb") as raw:
                file = _unzip(raw)
                head = _head(file, digest)
                if self.open_tree is None:
                    raise ValueError("nobody knows the unpacked layers")
                tree = self.open_tree(head.chain[0])
                try:
                    _write(head, _archive(file, tree), write)
                finally:
                    os.close(tree)
        except Unavailable:
            raise  # the disk does not take what is written
        except Exception as wrong:  # OSError, EOFError, zlib.error, struct.error: each module has its own
            raise Unavailable(
                "read",
                f"blob {digest}",
                f"it was kept as a recipe, which can't be followed any more: {wrong}",
                hint="remove the image and pull it again",
            ) from None


def _head(file: "gzip.GzipFile", digest: Digest) -> Head:
    subject = f"the recipe of blob {digest}"
    head = Head.from_json(parse(file.readline(), subject), subject)
    if not head.chain:
        raise ValueError("it names no layer")
    return head


def _write(head: Head, archive: "Iterator[bytes]", write: "Callable[[bytes], object]") -> None:
    write(bytes.fromhex(head.before))
    packer = _deflate(head.level) if head.level != NOT_PACKED else None
    for data in archive:
        write(packer.compress(data) if packer else data)
    if packer:
        write(packer.flush())
    write(bytes.fromhex(head.behind))


def _archive(file: "gzip.GzipFile", tree: int) -> "Iterator[bytes]":
    """Yield the archive that the pieces of a recipe make. Raises OSError, EOFError."""
    while lengths := file.read(_LENGTHS.size):
        literal_bytes, name_bytes, left = _LENGTHS.unpack(lengths)
        yield file.read(literal_bytes)
        name = file.read(name_bytes)
        if not name:
            continue
        source = open_in_root(tree, os.fsdecode(name), os.O_RDONLY | os.O_NONBLOCK)
        try:
            while left:
                data = os.read(source, min(left, READ_BYTES))
                if not data:
                    raise EOFError(f"{os.fsdecode(name)!r} has become shorter")
                left -= len(data)
                yield data
        finally:
            os.close(source)


def _deflate(level: int) -> "Compressor":
    import zlib

    return zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)


def _zip(raw: "IO[bytes]") -> "gzip.GzipFile":
    import gzip

    return gzip.GzipFile("", "wb", _PACKED_LEVEL, raw, 0)


def _unzip(raw: "IO[bytes]") -> "gzip.GzipFile":
    import gzip

    return gzip.GzipFile("", "rb", fileobj=raw)
