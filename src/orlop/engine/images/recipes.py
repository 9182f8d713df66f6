"""Layers that are kept once: as they are unpacked, with a recipe for the blob (`content.recipes`) in place of the blob.

Asked for by `image prune --packed`, and not done unasked: other tools read the store as an OCI layout, and find no blob
where a recipe lies. Only archives as they are and those that zlib deflates here the same have one; the rest stays.
"""

from __future__ import annotations

import functools
import os
import posixpath
import zlib

from ...content.compression import GZIP, NONE, Decompressed
from ...content.recipes import NOT_PACKED, READ_BYTES, Head
from ...spec.errors import Invalid, NotFound, Unsupported
from ...spec.tar import REGTYPE, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from ...content.recipes import Piece
    from ...image.image import Layer
    from ...spec.digest import Digest
    from ..engine import Engine

LITERAL_BYTES_MAX = 256  # of a file: opening one costs more than that
LEVELS = (6, 1, 9, 2, 3, 4, 5, 7, 8)
PROBE_BYTES = 1024 * 1024
_GZIP_HEADER, _GZIP_TRAILER, _GZIP_NAME = 10, 8, 8


def drop_packed(engine: Engine) -> None:
    """Drop the blob of each layer that is unpacked and can be packed again to the very same bytes."""
    made: list[Digest] = []
    with engine.store.leases.hold() as lease:
        for image in engine.images.list():
            for layer in image.layers:
                lease.add(*engine.snapshots.chain(layer.chain_id))
                if os.path.exists(engine.store.path(layer.descriptor.digest)) and _has_recipe(engine, layer):
                    made.append(layer.descriptor.digest)
    with engine.store.leases.collection() as remove_unless_leased:
        for digest in made:  # who has leased it has not leased the layers that its recipe needs
            remove_unless_leased(digest, functools.partial(engine.store.drop, digest))


def _has_recipe(engine: Engine, layer: Layer) -> bool:
    """Tell whether there is a recipe for a layer, after trying to make one."""
    store, digest = engine.store, layer.descriptor.digest
    chain = engine.snapshots.chain(layer.chain_id)
    if not chain or store.recipes.head(digest) is not None:
        return bool(chain)
    try:
        level, (before, behind) = _how_packed(engine, layer)
        if level is None:
            return False
        head = Head(size=layer.descriptor.size, chain=chain, level=level, before=before.hex(), behind=behind.hex())
        return store.add_recipe(digest, head, _pieces(engine, layer, _files(engine, layer)))
    except (Invalid, NotFound, Unsupported):
        return False  # damaged, as `fsck` says, or collected meanwhile


def _how_packed(engine: Engine, layer: Layer) -> tuple[int | None, tuple[bytes, bytes]]:
    """Return the level (Head) by which a blob can be packed again, None for none, and what stands round its data."""
    with engine.store.open(layer.descriptor.digest) as blob:
        compression = Decompressed(blob.read, f"layer {layer.diff_id}").compression
    if compression == NONE:
        return NOT_PACKED, (b"", b"")
    return _how_deflated(engine, layer) if compression == GZIP else (None, (b"", b""))


def _files(engine: Engine, layer: Layer) -> list[tuple[int, int, bytes]]:
    """Return where in the archive what a file of the tree holds lies: (offset, bytes, name), in order.

    A file that another member of the name has replaced is not in the tree.
    """
    found: list[tuple[int, int, bytes]] = []
    at: dict[bytes, int] = {}
    with engine.store.open(layer.descriptor.digest) as blob:
        reader = Reader(Decompressed(blob.read, "layer").read, f"layer {layer.diff_id}")
        for member in reader:
            name = posixpath.normpath(member.name).lstrip(b"/")
            if name in at:
                found[at.pop(name)] = (0, 0, b"")
            if member.kind == REGTYPE and member.extents is None and member.stored > LITERAL_BYTES_MAX:
                at[name] = len(found)
                found.append((reader.offset, member.stored, name))
    return [one for one in found if one[1]]


def _pieces(engine: Engine, layer: Layer, files: list[tuple[int, int, bytes]]) -> Iterator[Piece]:
    """Yield the archive as literal bytes and files of the tree."""
    with engine.store.open(layer.descriptor.digest) as blob:
        source = _Exactly(Decompressed(blob.read, f"layer {layer.diff_id}"))
        at = 0
        for offset, count, name in files:
            while offset - at > READ_BYTES:
                yield source.take(READ_BYTES), b"", 0
                at += READ_BYTES
            yield source.take(offset - at), name, count
            source.skip(count)
            at = offset + count
        while rest := source.take(READ_BYTES):
            yield rest, b"", 0


class _Exactly:
    """A stream that gives as many bytes as it is asked for, fewer only at its end."""

    def __init__(self, stream: Decompressed) -> None:
        self._stream = stream
        self._rest = b""

    def take(self, count: int) -> bytes:
        parts, missing = [], count
        while missing and (data := self._rest or self._stream.read(READ_BYTES)):
            parts.append(data[:missing])
            self._rest = data[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, count: int) -> None:
        while count and (data := self.take(min(count, READ_BYTES))):
            count -= len(data)


def _how_deflated(engine: Engine, layer: Layer) -> tuple[int | None, tuple[bytes, bytes]]:
    """Return the level by which zlib makes this blob, as far as its beginning tells, and what stands round it."""
    with engine.store.open(layer.descriptor.digest) as blob:
        header = _header(blob)
        if not header:
            return None, (b"", b"")
        start = blob.read(PROBE_BYTES)
        blob.seek(-_GZIP_TRAILER, os.SEEK_END)
        frame = header, blob.read(_GZIP_TRAILER)
        blob.seek(0)
        plain = _Exactly(Decompressed(blob.read, f"layer {layer.diff_id}")).take(PROBE_BYTES)
    for level in LEVELS:
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        made = packer.compress(plain)
        if len(plain) < PROBE_BYTES:
            made += packer.flush()
        if made[: len(start)] == start[: len(made)]:
            return level, frame
    return None, frame


def _header(blob: io.FileIO) -> bytes:
    """Return gzip's header, b"" for one with more than a name in it (RFC 1952, 2.3)."""
    data = blob.read(_GZIP_HEADER + 4096)
    end = _GZIP_HEADER
    if data[3] & ~_GZIP_NAME:
        return b""
    if data[3] & _GZIP_NAME:
        end = data.find(b"\0", _GZIP_HEADER) + 1
    blob.seek(end)
    return data[:end]
