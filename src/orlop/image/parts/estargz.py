"""Layers written as eStargz (`spec.tar.estargz`): the same files in the same order, and a table of contents behind.

Each file has gzip members of its own, of at most CHUNK_BYTES uncompressed; what stands between files shares one. The
archive gets a landmark and the table as members, so its diff_id, the configuration and the image's ID are others than
before. The same archive becomes the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import zlib

from orlop.spec.digest import Digest
from orlop.spec.errors import Unsupported
from orlop.spec.jsonio import dump
from orlop.spec.tar import BLKTYPE, CHRTYPE, DIRTYPE, FIFOTYPE, LNKTYPE, REGTYPE, SYMTYPE, Member, Reader, shown
from orlop.spec.tar.estargz import LANDMARK_CONTENT, LANDMARKS, TOC_BYTES_MAX, TOC_NAME, footer
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK_BYTES = 1024 * 1024  # what reading one byte in a large file costs
LEVEL = 6
_ZEROS = bytes(256 * 1024)
_KINDS = {
    DIRTYPE: "dir",
    REGTYPE: "reg",
    SYMTYPE: "symlink",
    LNKTYPE: "hardlink",
    CHRTYPE: "char",
    BLKTYPE: "block",
    FIFOTYPE: "fifo",
}


def convert(
    read: Callable[[int], bytes], write: Callable[[bytes], object], subject: str, level: int = LEVEL
) -> tuple[Digest, Digest]:
    """Write an archive (read(n) gives it, uncompressed) as eStargz; return its new diff_id and its table's digest.

    subject names the archive in errors. Raises Invalid for a broken one, Unsupported for one with too many files.
    """
    layer = _Layer(write, level)
    reader = Reader(read, subject)
    entries: list[bytes] = []
    size = 0
    for member in _without_landmarks(reader):
        for entry in _add(layer, member, reader):
            entries.append(dump(entry))
            size += len(entries[-1]) + 1
            if size > TOC_BYTES_MAX - 4096:
                cause = f"its table of contents would have more than {TOC_BYTES_MAX} bytes"
                raise Unsupported("convert", subject, cause, hint="keep the layer as it is")
    landmark = Member(LANDMARKS[1].encode(), REGTYPE, 0o644, len(LANDMARK_CONTENT))
    entries += map(dump, _add(layer, landmark, _Content(LANDMARK_CONTENT)))
    layer.cut()
    table = b'{"version":1,"entries":[' + b",".join(entries) + b"]}"
    begin = layer.size
    layer.put(encode(Member(TOC_NAME.encode(), REGTYPE, 0o444, len(table))) + table + padding(len(table)))
    layer.put(END_OF_ARCHIVE)
    layer.cut()
    write(footer(begin))
    return layer.diff_id, Digest.of(table)


class _Content:
    """A member's data that is at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def data(self) -> Iterable[bytes]:
        return (self._data,)


class _Layer:
    """The blob on its way. size: bytes written of it."""

    def __init__(self, write: Callable[[bytes], object], level: int) -> None:
        self.size = 0
        self._write = write
        self._level = level
        self._packer: zlib._Compress | None = None
        self._plain = hashlib.sha256()

    @property
    def diff_id(self) -> Digest:
        return Digest(f"sha256:{self._plain.hexdigest()}")

    def put(self, data: bytes | memoryview) -> None:
        """Add to the current gzip member, which begins with it where none is open."""
        if self._packer is None:
            self._packer = zlib.compressobj(self._level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._plain.update(data)
        self._emit(self._packer.compress(data))

    def cut(self) -> None:
        """End the current gzip member."""
        if self._packer is not None:
            self._emit(self._packer.flush())
            self._packer = None

    def _emit(self, data: bytes) -> None:
        if data:
            self._write(data)
            self.size += len(data)


def _without_landmarks(reader: Reader) -> Iterator[Member]:
    """Yield the members but for what made the archive an eStargz before."""
    ours = {TOC_NAME.encode(), *(name.encode() for name in LANDMARKS)}
    return (member for member in reader if member.name.removeprefix(b"./") not in ours)


def _add(layer: _Layer, member: Member, source: Reader | _Content) -> Iterator[dict[str, object]]:
    """Write one member; yield its entries."""
    extents, member.extents, member.stored = member.extents, None, member.size
    layer.put(encode(member))
    entry = _entry(member)
    if not member.size:
        yield entry
        return
    whole = hashlib.sha256()
    chunks: list[dict[str, object]] = []
    for number, data in enumerate(_pieces(source, member.size, extents)):
        layer.cut()
        whole.update(data)
        chunk = entry if not number else {"name": entry["name"], "type": "chunk", "chunkOffset": number * CHUNK_BYTES}
        chunk["offset"] = layer.size
        if (number + 1) * CHUNK_BYTES < member.size:
            chunk["chunkSize"] = len(data)
        chunk["chunkDigest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        layer.put(data)
        chunks.append(chunk)
    entry["digest"] = f"sha256:{whole.hexdigest()}"
    layer.cut()
    if member.size % 512:
        layer.put(padding(member.size))
    yield from chunks


def _pieces(source: Reader | _Content, size: int, extents: tuple[tuple[int, int], ...] | None) -> Iterator[bytes]:
    """Yield a file in chunks, its holes filled with zeros."""
    held = bytearray()
    for data in _filled(iter(source.data()), size, extents):
        held += data
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)


def _filled(data: Iterator[bytes], size: int, extents: tuple[tuple[int, int], ...] | None) -> Iterator[bytes]:
    if extents is None:
        yield from data
        return
    at, piece = 0, b""
    for offset, length in (*extents, (size, 0)):
        while at < offset:
            yield _ZEROS[: offset - at]
            at += min(offset - at, len(_ZEROS))
        while length:
            piece = piece or next(data)
            taken = piece[:length]
            yield taken
            piece, length, at = piece[len(taken) :], length - len(taken), at + len(taken)


def _entry(member: Member) -> dict[str, object]:
    """Return what the table says of a member, but for where it lies. Raises Unsupported."""
    try:
        name, target = member.name.decode(), member.linkname.decode()
    except UnicodeDecodeError:
        cause = f"the name {shown(member.name)} is not UTF-8, which a table of contents can't say"
        raise Unsupported("convert", "the layer", cause, hint="keep the layer as it is") from None
    entry: dict[str, object] = {"name": name, "type": _KINDS[member.kind], "mode": member.mode}
    entry |= {"uid": member.uid, "gid": member.gid, "modtime": _spell_time(member.mtime_ns)}
    if member.size:
        entry["size"] = member.size
    if target:
        entry["linkName"] = target
    if member.kind in (CHRTYPE, BLKTYPE):
        entry |= {"devMajor": member.devmajor, "devMinor": member.devminor}
    if member.xattrs:
        pairs = sorted(member.xattrs.items())
        entry["xattrs"] = {name.decode(): base64.b64encode(value).decode() for name, value in pairs}
    return entry


def _spell_time(ns: int) -> str:
    import time

    seconds, fraction = divmod(ns, 10**9)
    at = time.gmtime(min(max(seconds, -62135596800), 253402300799))  # the years 1 to 9999, as RFC 3339 has them
    rest = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{at.tm_year:04d}-{at.tm_mon:02d}-{at.tm_mday:02d}T{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}{rest}Z"
