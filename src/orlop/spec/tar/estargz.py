"""eStargz: a gzip layer that tells where in it each file lies, so that it can be read in part.

    gzip member ... | gzip member ... | table of contents (gzip of a tar with one file of JSON) | footer of 51 bytes

To everybody else it is an ordinary gzip layer. The manifest binds the table by an annotation with its digest, and the
table binds each chunk of a file by the chunk's: what is read in part is proven like what is read whole.

Nothing here judges where a name leads: that is the extractor's part (`snapshot.skeleton`). A table is read entry by
entry, and ends at the first one that does not fit: its size says nothing about how much memory it takes.
Source: containerd's stargz-snapshotter, docs/estargz.md; RFC 1952, 2.3.1.1 (the footer's extra field).
"""

from __future__ import annotations

import base64
import binascii
from array import array

from ..digest import Digest
from ..errors import Invalid
from . import (
    BLKTYPE,
    CHRTYPE,
    DIRTYPE,
    FIFOTYPE,
    LNKTYPE,
    REGTYPE,
    SYMTYPE,
    TIME_NS_MAX,
    Limits,
    Member,
    Reader,
    shown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Chunk = tuple[int, int, int, int, bytes]  # where in the file, bytes, where in the blob, bytes to skip there, digest

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"  # an annotation of a layer's descriptor
TOC_NAME = "stargz.index.json"
LANDMARKS = (".prefetch.landmark", ".no.prefetch.landmark")
LANDMARK_CONTENT = b"\x0f"
FOOTER_BYTES = 51
TOC_PACKED_BYTES_MAX = 32 * 1024**2
TOC_BYTES_MAX = 64 * 1024**2  # a layer of 100,000 files has 40 MB
ENTRIES_MAX = 250_000
CHUNK_BYTES_MAX = 16 * 1024**2  # of one chunk, which is held whole until it is proven; writers make 4 MiB
SKIPPED_BYTES_MAX = CHUNK_BYTES_MAX
_FOOTER_HEAD = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0"
_FOOTER_TAIL = b"STARGZ\x01\0\0\xff\xff" + bytes(8)
_KINDS = {
    "dir": DIRTYPE,
    "reg": REGTYPE,
    "symlink": SYMTYPE,
    "hardlink": LNKTYPE,
    "char": CHRTYPE,
    "block": BLKTYPE,
    "fifo": FIFOTYPE,
}
_SPACE = " \t\r\n"
_LIMITS = Limits()


def footer(toc_offset: int) -> bytes:
    """Return the footer of a layer whose table begins at that byte."""
    return _FOOTER_HEAD + b"%016x" % toc_offset + _FOOTER_TAIL


def toc_offset(data: bytes, size: int) -> int:
    """Return where the table of a blob of `size` bytes begins. data: its last FOOTER_BYTES bytes. Raises Invalid."""
    digits = data[len(_FOOTER_HEAD) : len(_FOOTER_HEAD) + 16]
    try:
        offset = int(digits, 16)
    except ValueError:
        offset = -1
    if data != footer(max(offset, 0)) or not 0 < offset < size - FOOTER_BYTES:
        raise Invalid("read", "the layer's footer", "it is none of eStargz's")
    if size - FOOTER_BYTES - offset > TOC_PACKED_BYTES_MAX:
        raise Invalid(
            "read", "the layer's table of contents", f"it has more than {TOC_PACKED_BYTES_MAX} bytes", code="E0212"
        )
    return offset


def unpack_toc(data: bytes, expected: Digest, subject: str) -> bytes:
    """Return the JSON of a table that is packed in `data` and has that digest. Raises Invalid."""
    import zlib

    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        if inflate.eof:
            return b""
        piece = inflate.unconsumed_tail or data[at : at + count]
        at += 0 if inflate.unconsumed_tail else len(piece)
        try:
            return inflate.decompress(piece, count) or (read(count) if at < len(data) else b"")
        except zlib.error as wrong:
            raise Invalid("read", subject, f"its gzip data is damaged ({wrong})", code="E0807") from None

    reader = Reader(read, subject, Limits(entries=4, total_bytes=TOC_BYTES_MAX))
    for member in reader:
        if member.name == TOC_NAME.encode():
            found = b"".join(reader.data())
            if Digest.of(found, expected.algorithm) != expected:
                raise Invalid("read", subject, "it is not the one that the manifest names")
            return found
    raise Invalid("read", subject, f"there is no {TOC_NAME} in it")


class Toc:
    """A table of contents. end: where the layer's files end, and the table begins.

    contents: path of a file -> its chunks in order; complete once `members` came to its end.
    """

    def __init__(self, data: bytes, end: int, subject: str) -> None:
        """data: the JSON, proven by its digest. subject names it in errors. Raises Invalid where it is not UTF-8."""
        self.end = end
        self.subject = subject
        self.contents: dict[bytes, tuple[Chunk, ...]] = {}
        self.offsets = array("Q")
        self._data = data

    def members(self) -> Iterator[Member]:
        """Yield what the layer holds, as an archive's members, once. Raises Invalid for a table that is none."""
        member: Member | None = None
        chunks: list[Chunk] = []
        total = 0
        for entry in _entries(self._data, self.subject):
            try:
                if entry.get("type") != "chunk":
                    if member is not None:
                        self._finish(member, chunks)
                        yield member
                    member, chunks = _member(entry), []
                    total += member.size
                    if total > _LIMITS.total_bytes:
                        raise ValueError(f"its files have more than {_LIMITS.total_bytes} bytes")
                elif member is None or member.kind != REGTYPE or not chunks:
                    raise ValueError("a chunk follows no file")
                assert member is not None
                if member.size:
                    chunks.append(self._chunk(entry, member, chunks))
            except (ValueError, Invalid) as wrong:
                name = entry.get("name")
                which = shown(name.encode(errors="replace")) if isinstance(name, str) else "without a name"
                cause = wrong.cause if isinstance(wrong, Invalid) else str(wrong)
                raise Invalid("read", self.subject, f"entry {which}: {cause}") from None
        if member is not None:
            try:
                self._finish(member, chunks)
            except ValueError as wrong:
                raise Invalid("read", self.subject, f"entry {shown(member.name)}: {wrong}") from None
            yield member
        self._data = b""
        self.offsets = array("Q", sorted(set(self.offsets)))

    def extent(self, offset: int) -> int:
        """Return where in the blob the gzip member that begins at offset ends: where the next one begins."""
        from bisect import bisect_right

        at = bisect_right(self.offsets, offset)
        return self.offsets[at] if at < len(self.offsets) else self.end

    def _finish(self, member: Member, chunks: list[Chunk]) -> None:
        reached = chunks[-1][0] + chunks[-1][1] if chunks else 0
        if reached != member.size:
            raise ValueError(f"its chunks end at byte {reached} of {member.size}")
        path = normalized(member.name)
        self.contents.pop(path, None)
        if member.kind == REGTYPE and chunks:
            self.contents[path] = tuple(chunks)

    def _chunk(self, entry: dict[str, object], member: Member, before: list[Chunk]) -> Chunk:
        start = _whole(entry, "chunkOffset")
        if start != (before[-1][0] + before[-1][1] if before else 0):
            raise ValueError("its chunks have gaps or overlap")
        size = _whole(entry, "chunkSize") or member.size - start
        if not 0 < size <= min(member.size - start, CHUNK_BYTES_MAX):
            raise ValueError(f"a chunk of it has {size} bytes")
        offset, skipped = _whole(entry, "offset"), _whole(entry, "innerOffset")
        if not 0 < offset < self.end or skipped > SKIPPED_BYTES_MAX:
            raise ValueError(f"a chunk of it lies at byte {offset}, which is none of its layer's files")
        told = entry.get("chunkDigest") or (entry.get("digest") if size == member.size else None)
        if not isinstance(told, str):
            raise ValueError("a chunk of it has no digest")
        digest = Digest(told)
        if digest.algorithm != "sha256":
            raise ValueError("a chunk's digest is not SHA-256")
        self.offsets.append(offset)
        return start, size, offset, skipped, bytes.fromhex(digest.hex)


def normalized(name: bytes) -> bytes:
    """Return a member's name as the path that it is extracted to, without a slash at either end."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _entries(data: bytes, subject: str) -> Iterator[dict[str, object]]:
    """Yield the entries of a table, one after the other. Raises Invalid."""
    from json.decoder import JSONDecoder

    decode = JSONDecoder().raw_decode
    count = 0
    try:
        text = data.decode()
        at = _expect(text, 0, "{")
        while True:
            key, at = decode(text, at)
            at = _expect(text, at, ":")
            if key != "entries":
                value, at = decode(text, at)
                if key == "version" and value != 1:
                    raise ValueError("its version is not 1")
            else:
                at = _expect(text, at, "[")
                while text[at : at + 1] != "]":
                    entry, at = decode(text, at)
                    if not isinstance(entry, dict):
                        raise ValueError("an entry is no object")
                    count += 1
                    if count > ENTRIES_MAX:
                        raise ValueError(f"it has more than {ENTRIES_MAX} entries")
                    yield entry
                    at = _behind_space(text, at)
                    if text[at : at + 1] != "]":
                        at = _expect(text, at, ",")
                at = _expect(text, at, "]", last=True)
            at = _behind_space(text, at)
            if text[at : at + 1] == "}":
                break
            at = _expect(text, at, ",")
    except RecursionError:
        raise Invalid("read", subject, "it is nested too deeply", code="E0211") from None
    except ValueError as wrong:
        raise Invalid("read", subject, f"it is no table of contents: {wrong}"[:300]) from None


def _expect(text: str, at: int, character: str, *, last: bool = False) -> int:
    """Return where the text goes on behind a character, and the space behind that."""
    at = _behind_space(text, at)
    if text[at : at + 1] != character:
        raise ValueError(f"{character!r} is missing at character {at}")
    return at + 1 if last else _behind_space(text, at + 1)


def _behind_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _member(entry: dict[str, object]) -> Member:
    """Return an entry as what an archive would hold. Raises ValueError."""
    kind = _KINDS.get(str(entry.get("type")))
    if kind is None:
        raise ValueError(f"its type {str(entry.get('type'))[:40]!r} is unknown")
    member = Member(_text(entry, "name"), kind, _whole(entry, "mode") & 0o7777, 0, _text(entry, "linkName"))
    if not member.name:
        raise ValueError("it has no name")
    member.uid, member.gid = _whole(entry, "uid", 2**32 - 2), _whole(entry, "gid", 2**32 - 2)
    member.devmajor, member.devminor = _whole(entry, "devMajor", 0xFFF), _whole(entry, "devMinor", 0xFFFFF)
    member.mtime_ns = _time_ns(entry.get("modtime"))
    xattrs = entry.get("xattrs") or {}
    if not isinstance(xattrs, dict) or len(xattrs) > 256:
        raise ValueError("its extended attributes are none")
    for name, value in xattrs.items():
        try:
            member.xattrs[name.encode()] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, UnicodeError):
            raise ValueError("an extended attribute of it is not base64") from None
    if kind == REGTYPE:
        member.size = _whole(entry, "size")
        member.stored, member.extents = 0, ()  # a hole, until somebody reads it
    return member


def _text(entry: dict[str, object], key: str) -> bytes:
    value = entry.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"its {key} is no text")
    data = value.encode()
    if len(data) > _LIMITS.name_bytes or b"\0" in data:
        raise ValueError(f"its {key} is none that a file can have")
    return data


def _whole(entry: dict[str, object], key: str, at_most: int = 2**62) -> int:
    value = entry.get(key, 0)
    if not isinstance(value, int) or not 0 <= value <= at_most:
        raise ValueError(f"its {key} is no number that fits")
    return value


def _time_ns(text: object) -> int:
    """Return nanoseconds since 1970; 0 for a time that no file system can store, as in archives."""
    from datetime import UTC, datetime

    if not text:
        return 0
    try:
        at = datetime.fromisoformat(str(text)[:64])
    except ValueError:
        raise ValueError("its modtime is no time") from None
    whole = at.replace(microsecond=0, tzinfo=at.tzinfo or UTC).timestamp()
    ns = int(whole) * 10**9 + at.microsecond * 1000
    return ns if -TIME_NS_MAX <= ns <= TIME_NS_MAX else 0
