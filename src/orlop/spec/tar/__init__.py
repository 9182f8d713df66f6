"""The tar format as a stream of members: ustar, PAX and GNU, read strictly and within limits.

Invariants:
1. Every member's size is decided once, extended headers included, and that many bytes are skipped (CVE-2025-62518:
   a reader that took the size from the wrong header saw other members than its neighbour).
2. No length that an archive states is allocated before it was compared with a limit (SEC-42: CVE-2025-58183,
   CVE-2017-14992).
3. Names are bytes, as the kernel's are. Nothing here judges where a name leads: that is the extractor's part.

A global extended header ("g") changes nothing, as in Go's reader, which decides what an image layer means.
Source: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar's manual, "Standard Format" and "Storing Sparse Files".
"""

from ..errors import Invalid, OrlopError, Unsupported
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK_BYTES = 512
READ_BYTES = 256 * 1024
PADDING_BYTES_MAX = 1 << 30  # behind the end of an archive: /dev/zero is one that never stops

# typeflag, under the names of <tar.h>
REGTYPE, LNKTYPE, SYMTYPE, CHRTYPE, BLKTYPE, DIRTYPE, FIFOTYPE = "0", "1", "2", "3", "4", "5", "6"
_KINDS = frozenset((REGTYPE, LNKTYPE, SYMTYPE, CHRTYPE, BLKTYPE, DIRTYPE, FIFOTYPE))
PAX_HEADER, PAX_GLOBAL = "x", "g"
_OLD_REGTYPE, _CONTTYPE, _GNU_SPARSE = "\0", "7", "S"
_GNU_LONGNAME, _GNU_LONGLINK = "L", "K"

ID_MAX = 2**32 - 2  # 2**32 - 1 is (uid_t)-1, which chown(2) takes for "leave it"
TIME_NS_MAX = 2**63 - 1

XATTR_PREFIX = b"SCHILY.xattr."
_SPARSE_PREFIX = b"GNU.sparse."


class Limits(Record):
    """What an archive may ask of us at the most.

    Chosen so that no image known to work comes near: a whole desktop has 500,000 files.
    """

    entries: int = 2_000_000
    name_bytes: int = 4096  # PATH_MAX
    extended_header_bytes: int = 1024 * 1024  # what Go's reader allows
    sparse_extents: int = 65536
    total_bytes: int = 256 * 1024**3  # of all files' sizes, holes included


DEFAULT_LIMITS = Limits()


class Member:
    """One entry of an archive.

    kind: one of the typeflag constants. mode has permission and set-ID bits only. mtime_ns since 1970, UTC.
    size: of the file as it will be, holes included; stored: how many bytes of it lie in the archive.
    extents: None, or the (offset, length) of the data in a sparse file, in the order in which they are stored.
    """

    __slots__ = (
        "devmajor",
        "devminor",
        "extents",
        "gid",
        "kind",
        "linkname",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    def __init__(
        self, name: bytes, kind: str = REGTYPE, mode: int = 0o644, size: int = 0, linkname: bytes = b""
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.size = self.stored = size
        self.linkname = linkname
        self.uid = self.gid = 0
        self.mtime_ns = 0
        self.devmajor = self.devminor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.extents: tuple[tuple[int, int], ...] | None = None

    def __repr__(self) -> str:
        return f"Member({self.name!r}, kind={self.kind!r}, mode={self.mode:o}, size={self.size})"


class Reader:
    """Reads one archive from its first to its last byte.

        for member in reader:
            for piece in reader.data(): ...       # optional: what is not taken is skipped

    read(n) returns at most n bytes and b"" at the end; subject names the archive in errors. Raises Invalid for a
    broken or oversized archive, Unsupported for members that no image holds. When the iteration ends, the source has
    been read to its end, so a digest computed on the way covers everything.
    """

    def __init__(self, read: "Callable[[int], bytes]", subject: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self._source = _Source(read, subject)
        self._subject = subject
        self._limits = limits
        self._entries = 0
        self._total_bytes = 0
        self._left = 0  # stored bytes of the current member not yet taken
        self._padding = 0

    def __iter__(self) -> "Iterator[Member]":
        while (member := self._next()) is not None:
            yield member
        if not self._source.drain():
            raise self._broken(f"more than {PADDING_BYTES_MAX} bytes follow its end")

    @property
    def offset(self) -> int:
        """How many bytes of the archive were taken: behind a member's headers, where its data begin."""
        return self._source.taken

    def data(self) -> "Iterator[bytes]":
        """Yield the stored bytes of the current member in pieces of up to READ_BYTES."""
        while self._left:
            piece = self._source.piece(self._left)
            self._left -= len(piece)
            yield piece

    def _next(self) -> Member | None:
        extended: dict[bytes, bytes] = {}
        long_name: bytes | None = None
        long_link: bytes | None = None
        while True:
            self._skip_data()
            block = self._header_block()
            if block is None:
                if extended or long_name is not None or long_link is not None:
                    raise self._broken("it ends behind an extended header")
                return None
            kind = chr(block[156])
            if kind == PAX_HEADER:
                extended = parse_pax(self._extended_header(block), self._broken)
            elif kind == _GNU_LONGNAME:
                long_name = self._extended_header(block).rstrip(b"\0")
            elif kind == _GNU_LONGLINK:
                long_link = self._extended_header(block).rstrip(b"\0")
            elif kind == PAX_GLOBAL:
                self._extended_header(block)
            else:
                break
        member = self._decode(block, kind)
        if long_name is not None:
            member.name = long_name
        if long_link is not None:
            member.linkname = long_link
        try:
            _apply_pax(member, extended)
        except ValueError as wrong:
            raise self._broken(f"member {shown(member.name)}: {wrong}") from None
        self._finish(member, kind, block, extended)
        return member

    def _finish(self, member: Member, kind: str, block: bytes, extended: dict[bytes, bytes]) -> None:
        """Settle what the member is and how many bytes follow; check it against the limits."""
        if kind in (_OLD_REGTYPE, _CONTTYPE, _GNU_SPARSE):
            kind = REGTYPE
        if kind not in _KINDS:
            raise Unsupported(
                "read",
                f"member {shown(member.name)} of {self._subject}",
                f"its type {kind!r} is none that a root file system has",
                hint="make the archive with `tar --format=pax` and without --multi-volume or --label",
            )
        if kind == REGTYPE and member.name.endswith(b"/"):
            kind = DIRTYPE  # what tar before POSIX wrote for a directory
        member.kind = kind
        if kind != REGTYPE:
            member.size = member.stored = 0  # a header alone, whatever its size field says: as Go's reader
        self._left = member.stored
        self._padding = -member.stored % BLOCK_BYTES
        if kind == REGTYPE:
            self._read_sparse_map(member, block, extended)
        self._check(member)

    def _read_sparse_map(self, member: Member, block: bytes, extended: dict[bytes, bytes]) -> None:
        from . import sparse

        if block[156:157] == b"S":
            size, extents = sparse.read_gnu(block, self._source.take, self._limits.sparse_extents, self._broken)
        elif any(key.startswith(_SPARSE_PREFIX) for key in extended):
            size, extents, used = sparse.read_pax(extended, self._take_data, self._limits.sparse_extents, self._broken)
            member.name = extended.get(b"GNU.sparse.name", member.name)
            member.stored -= used
        else:
            return
        sparse.check(size, extents, member.stored, self._broken)
        member.size, member.extents = size, extents

    def _check(self, member: Member) -> None:
        limits = self._limits
        self._entries += 1
        self._total_bytes += member.size
        if self._entries > limits.entries:
            raise self._too_large(f"more than {limits.entries} members")
        if self._total_bytes > limits.total_bytes:
            raise self._too_large(f"files of more than {limits.total_bytes} bytes")
        for text in (member.name, member.linkname):
            if len(text) > limits.name_bytes:
                raise self._too_large(f"a name of more than {limits.name_bytes} bytes")
            if b"\0" in text:
                raise self._broken(f"the name {shown(text)} holds a NUL")
        if not member.name:
            if member.kind != DIRTYPE:
                raise self._broken("a member has no name")
            member.name = b"."  # what podman's client sends of a build's context that is empty
        if not (0 <= member.uid <= ID_MAX and 0 <= member.gid <= ID_MAX):
            raise self._broken(f"member {shown(member.name)} has the owner {member.uid}:{member.gid}")
        if not -TIME_NS_MAX <= member.mtime_ns <= TIME_NS_MAX:
            member.mtime_ns = 0  # as docker: a date that no file system can store becomes 1970

    def _decode(self, block: bytes, kind: str) -> Member:
        name, linkname = _text(block[0:100]), _text(block[157:257])
        magic = block[257:263]
        if magic == b"ustar\0" and block[345] != 0:
            prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])  # star: a shorter prefix
            name = prefix + b"/" + name
        try:
            member = Member(name, kind, numeric(block[100:108]) & 0o7777, numeric(block[124:136]), linkname)
            member.uid, member.gid = numeric(block[108:116]), numeric(block[116:124])
            member.mtime_ns = numeric(block[136:148]) * 1_000_000_000
            if kind in (CHRTYPE, BLKTYPE):
                member.devmajor, member.devminor = numeric(block[329:337]), numeric(block[337:345])
        except ValueError as wrong:
            raise self._broken(f"member {shown(name)}: {wrong}") from None
        if member.size < 0:
            raise self._broken(f"member {shown(name)} has a negative size")
        return member

    def _header_block(self) -> bytes | None:
        """Return the next header, or None at the end of the archive (two zero blocks, or simply the end)."""
        block = self._source.take_or_end(BLOCK_BYTES)
        if block is None:
            if self._source.taken == 0:
                raise self._broken("it is empty")
            return None
        if not block.strip(b"\0"):
            second = self._source.take_or_end(BLOCK_BYTES)
            if second is not None and second.strip(b"\0"):
                raise self._broken("a lone zero block stands between its members")
            return None
        try:
            stated = numeric(block[148:156])
        except ValueError:
            raise self._broken(self._no_header()) from None
        total = sum(block) - sum(block[148:156]) + 8 * 0x20
        if stated != total and stated != total - 256 * sum(byte >> 7 for byte in block[:148] + block[156:]):
            raise self._broken(
                self._no_header()
            )  # neither the sum of unsigned nor, as old tars had it, of signed bytes
        return block

    def _no_header(self) -> str:
        if self._entries == 0:
            return "it is not a tar archive"
        return f"no header stands at byte {self._source.taken - BLOCK_BYTES}: it is damaged"

    def _extended_header(self, block: bytes) -> bytes:
        try:
            size = numeric(block[124:136])
        except ValueError as wrong:
            raise self._broken(f"an extended header: {wrong}") from None
        if size < 0:
            raise self._broken("an extended header has a negative size")
        if size > self._limits.extended_header_bytes:
            raise self._too_large(f"an extended header of {size} bytes")
        data = self._source.take(size)
        self._source.take(-size % BLOCK_BYTES)
        self._entries += 1
        if self._entries > self._limits.entries:
            raise self._too_large(f"more than {self._limits.entries} headers")
        return data

    def _take_data(self, count: int) -> bytes:
        if count > self._left:
            raise self._broken("a sparse file's map is longer than its data")
        self._left -= count
        return self._source.take(count)

    def _skip_data(self) -> None:
        for _ in self.data():
            pass
        if self._padding:
            self._source.pad(self._padding)
            self._padding = 0

    def _broken(self, cause: str) -> OrlopError:
        return Invalid("read", self._subject, cause)

    def _too_large(self, what: str) -> OrlopError:
        return Invalid("read", self._subject, f"it holds {what}, which no image needs")


class _Source:
    """The archive's bytes, cut as the reader asks for them."""

    __slots__ = ("_at", "_chunk", "_read", "_subject", "taken")

    def __init__(self, read: "Callable[[int], bytes]", subject: str) -> None:
        self._read = read
        self._subject = subject
        self._chunk = b""
        self._at = 0
        self.taken = 0

    def take_or_end(self, count: int) -> bytes | None:
        """Return exactly count bytes, or None when not one is left. Raises Invalid when it ends between."""
        end = self._at + count
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            self.taken += count
            return data
        parts = [self._chunk[self._at :]]
        missing = end - len(self._chunk)
        self._chunk, self._at = b"", 0
        while missing > 0:
            chunk = self._read(READ_BYTES)
            if not chunk:
                if not any(parts):
                    return None
                raise Invalid(
                    "read",
                    self._subject,
                    f"it is truncated after {self.taken + sum(map(len, parts))} bytes",
                    code="E0807",
                )
            parts.append(chunk[:missing])
            if len(chunk) > missing:
                self._chunk, self._at = chunk, missing
            missing -= len(chunk)
        self.taken += count
        return b"".join(parts)

    def take(self, count: int) -> bytes:
        """Return exactly count bytes. Raises Invalid when fewer are left."""
        if count == 0:
            return b""
        data = self.take_or_end(count)
        if data is None:
            raise Invalid("read", self._subject, f"it is truncated after {self.taken} bytes", code="E0807")
        return data

    def pad(self, count: int) -> None:
        """Pass over padding. An archive may end within it, as Go's reader has it: docker's client ends contexts so."""
        while count > 0 and (self._at < len(self._chunk) or self._fill()):
            step = min(count, len(self._chunk) - self._at)
            self._at += step
            self.taken += step
            count -= step

    def _fill(self) -> bool:
        self._chunk, self._at = self._read(READ_BYTES), 0
        return bool(self._chunk)

    def piece(self, count_max: int) -> bytes:
        """Return at least one and at most count_max bytes, as they come."""
        if self._at == len(self._chunk) and not self._fill():
            raise Invalid("read", self._subject, f"it is truncated after {self.taken} bytes", code="E0807")
        data = self._chunk[self._at : self._at + count_max] if self._at or count_max < len(self._chunk) else self._chunk
        self._at += len(data)
        self.taken += len(data)
        return data

    def drain(self) -> bool:
        """Read what follows the end of the archive: padding, by the format. Return whether it ends."""
        self._chunk, self._at = b"", 0
        left = PADDING_BYTES_MAX
        while left > 0 and (data := self._read(READ_BYTES)):
            left -= len(data)
        return left > 0


def parse_pax(data: bytes, broken: "Callable[[str], OrlopError]") -> dict[bytes, bytes]:
    """Return the records `length key=value\\n` of an extended header; of a repeated key the last one counts.

    Of the keys that sparse files repeat (GNU.sparse.offset, .numbytes) all values are kept, NUL between them.
    """
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + 12)
        digits = data[start:space]
        if space < 0 or not digits.isdigit():
            raise broken("an extended header has no length where one must stand")
        end = start + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space or data[end - 1 : end] != b"\n" or not equals or not key:
            raise broken("an extended header's record is cut or has no end")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes") and key in records:
            value = records[key] + b"\0" + value
        records[key] = value
        start = end
    return records


def _apply_pax(member: Member, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path":
            member.name = value or member.name
        elif key == b"linkpath":
            member.linkname = value or member.linkname
        elif key == b"size":
            member.size = member.stored = decimal(value)
        elif key == b"uid":
            member.uid = decimal(value)
        elif key == b"gid":
            member.gid = decimal(value)
        elif key == b"mtime":
            member.mtime_ns = _pax_time_ns(value)
        elif key.startswith(XATTR_PREFIX):
            name = key[len(XATTR_PREFIX) :]
            if not name or b"\0" in name:
                raise ValueError("an extended attribute has no proper name")
            member.xattrs[name] = value


def decimal(text: bytes) -> int:
    """Return the number that decimal digits spell. Raises ValueError for anything else and for more than 63 bits."""
    if len(text) > 19 or not text.isdigit() or int(text) >= 2**63:
        raise ValueError(f"{shown(text)} is not a number")
    return int(text)


def _pax_time_ns(text: bytes) -> int:
    """Return nanoseconds from `[-]seconds[.fraction]`."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise ValueError(f"{shown(text)} is not a time")
    return sign * (decimal(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def numeric(field: bytes) -> int:
    """Return the value of a numeric field: octal digits, or base 256 when the top bit is set. Raises ValueError."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if not -(2**63) <= value < 2**63:
            raise ValueError("a number does not fit into 64 bits")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:  # int() alone also takes signs, "_" and "0o"
        raise ValueError(f"{shown(digits)} is not an octal number")
    return int(digits, 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def shown(text: bytes) -> str:
    """Return a name as errors show it: printable, bounded."""
    return ascii(text[:200])[1:] + ("..." if len(text) > 200 else "")
