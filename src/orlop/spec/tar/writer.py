"""The tar format, written: the header blocks of members, the same bytes for the same member.

ustar, with a PAX header only where ustar can't say it, so that every reader since 1988 finds its way. A sparse file is
written in GNU's PAX format 1.0, the one that Go's and libarchive's readers know too.
Source: POSIX.1-2017 pax, "ustar Interchange Format", "pax Extended Header"; GNU tar's manual, "Storing Sparse Files".
"""

from . import BLOCK_BYTES, PAX_HEADER, XATTR_PREFIX, Member

END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
NAME_BYTES, LINKNAME_BYTES, PREFIX_BYTES = 100, 100, 155
ID_MAX = 8**7 - 1  # what the fields of ustar hold
SIZE_MAX = 8**11 - 1


def encode(member: Member) -> bytes:
    """Return the header blocks of a member: ustar, with a PAX header before it only where ustar can't say it.

    The caller writes the data and `padding(stored)` behind it, and END_OF_ARCHIVE at the end. Of a member with extents
    the data is that of the extents, one behind the other; their map is a part of what is returned.
    """
    records = {XATTR_PREFIX + name: value for name, value in member.xattrs.items()}
    sparse_map = b""
    if member.extents is not None:
        sparse_map = _sparse_map(member.extents)
        records |= {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": member.name,
            b"GNU.sparse.realsize": b"%d" % member.size,
        }
    stored = member.stored + len(sparse_map)
    plain = Member(b"", member.kind, member.mode, stored, member.linkname[:LINKNAME_BYTES])
    plain.devmajor, plain.devminor = member.devmajor, member.devminor
    prefix, name = _split_name(member.name)
    if name is None:
        records[b"path"] = member.name
    plain.name = member.name[:NAME_BYTES] if name is None else name
    if len(member.linkname) > LINKNAME_BYTES:
        records[b"linkpath"] = member.linkname
    seconds, fraction = divmod(member.mtime_ns, 1_000_000_000)
    plain.mtime_ns = min(max(seconds, 0), SIZE_MAX) * 1_000_000_000
    if fraction or plain.mtime_ns != member.mtime_ns:
        records[b"mtime"] = _spell_time(member.mtime_ns)
    if stored > SIZE_MAX:
        records[b"size"] = b"%d" % stored
        plain.size = 0
    for field in ("uid", "gid"):
        value = getattr(member, field)
        if value > ID_MAX:
            records[field.encode()] = b"%d" % value
        else:
            setattr(plain, field, value)
    return (_extended(plain.name, records) if records else b"") + _block(plain, prefix) + sparse_map


def _extended(name: bytes, records: dict[bytes, bytes]) -> bytes:
    """Return the blocks of a PAX header with these records, for the member called name."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    header = Member(b"PaxHeaders/" + name[-80:], PAX_HEADER, 0o644, len(data))
    return _block(header, b"") + data + padding(len(data))


def _sparse_map(extents: tuple[tuple[int, int], ...]) -> bytes:
    """Return the map that stands before the data: how many pieces, then offset and length of each, in whole blocks."""
    numbers = b"".join(b"%d\n%d\n" % extent for extent in extents)
    text = b"%d\n%b" % (len(extents), numbers)
    return text + padding(len(text))


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a member's data."""
    return bytes(-size % BLOCK_BYTES)


def _split_name(name: bytes) -> tuple[bytes, bytes | None]:
    """Return (prefix, name) as ustar stores them; name is None when it does not fit."""
    if len(name) <= NAME_BYTES:
        return b"", name
    cut = name.find(b"/", len(name) - NAME_BYTES - 1)
    if 0 < cut <= PREFIX_BYTES and cut + 1 < len(name):
        return name[:cut], name[cut + 1 :]
    return b"", None


def _block(member: Member, prefix: bytes) -> bytes:
    """Return one ustar header; every value fits its field."""
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        member.name.ljust(NAME_BYTES, b"\0"),
        member.mode,
        member.uid,
        member.gid,
        member.size,
        member.mtime_ns // 1_000_000_000,
    )
    tail = b"%b%bustar\0%b%b%07o\0%07o\0%b" % (
        member.kind.encode(),
        member.linkname.ljust(LINKNAME_BYTES, b"\0"),
        b"00",
        bytes(64),  # names of owner and group: numbers decide
        member.devmajor,
        member.devminor,
        prefix.ljust(PREFIX_BYTES, b"\0"),
    )
    total = sum(head) + sum(tail) + 8 * 0x20
    return (head + b"%06o\0 " % total + tail).ljust(BLOCK_BYTES, b"\0")


def _record(key: bytes, value: bytes) -> bytes:
    """Return `length key=value\\n`, where length counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d" % length + body


def _spell_time(time_ns: int) -> bytes:
    seconds, fraction = divmod(abs(time_ns), 1_000_000_000)
    sign = b"-" if time_ns < 0 else b""
    return b"%b%d.%09d" % (sign, seconds, fraction) if fraction else b"%b%d" % (sign, seconds)
