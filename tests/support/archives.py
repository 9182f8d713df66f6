"""Archives for tests, made block by block: what no archiver would write, too."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Self

BLOCK = 512


def number(value: int, width: int) -> bytes:
    """Return a numeric field: octal where it fits, base 256 where it does not."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    encoded = (value % (1 << (8 * width))).to_bytes(width, "big")
    return bytes([encoded[0] | 0x80]) + encoded[1:]


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    tail: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """Return one header block. bytes for a number are put there as they are; tail replaces what follows the devices."""

    def field(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\0")[:width] if isinstance(value, bytes) else number(value, width)

    before = name.ljust(100, b"\0")[:100] + number(mode, 8) + field(uid, 8) + field(gid, 8)
    before += field(size, 12) + field(mtime, 12)
    after = kind + linkname.ljust(100, b"\0")[:100] + magic.ljust(8, b"\0") + bytes(64)
    after += number(device[0], 8) + number(device[1], 8) + (tail or prefix).ljust(167, b"\0")[:167]
    if checksum is None:
        checksum = b"%06o\0 " % (sum(before) + sum(after) + 8 * 32)
    return before + checksum + after


def pax(records: dict[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """Return an extended header; bytes are its data as they are."""
    data = records if isinstance(records, bytes) else b"".join(record(*item) for item in records.items())
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d" % length + body


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return GNU's block for a long name ("L") or link target ("K")."""
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


class Archive:
    """An archive that grows: file, directory, symlink, hard, node, raw; then bytes(archive)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def raw(self, *blocks: bytes) -> Self:
        self._parts += blocks
        return self

    def file(self, name: bytes, data: bytes = b"content", **fields: object) -> Self:
        return self._member(name, b"0", data, fields)

    def directory(self, name: bytes, **fields: object) -> Self:
        return self._member(name, b"5", b"", {"mode": 0o755, **fields})

    def symlink(self, name: bytes, target: bytes, **fields: object) -> Self:
        return self._member(name, b"2", b"", {"linkname": target, "mode": 0o777, **fields})

    def hard(self, name: bytes, target: bytes, **fields: object) -> Self:
        return self._member(name, b"1", b"", {"linkname": target, **fields})

    def node(self, name: bytes, kind: bytes, major: int = 0, minor: int = 0, **fields: object) -> Self:
        return self._member(name, kind, b"", {"device": (major, minor), **fields})

    def _member(self, name: bytes, kind: bytes, data: bytes, fields: dict[str, object]) -> Self:
        records = dict(fields.pop("pax", {}))  # type: ignore[call-overload]
        linkname = fields.get("linkname", b"")
        assert isinstance(linkname, bytes)
        if len(name) > 100:
            records[b"path"] = name
        if len(linkname) > 100:
            records[b"linkpath"] = linkname
        if records:
            self._parts.append(pax(records))
        self._parts.append(header(name, kind, **{"size": len(data), **fields}))  # type: ignore[arg-type]
        self._parts.append(padded(data))
        return self

    def __bytes__(self) -> bytes:
        return b"".join(self._parts) + bytes(2 * BLOCK)


def source(data: bytes, step: int = 7777) -> Callable[[int], bytes]:
    """Return a read function that hands data out in uneven pieces, as a pipe or a decompressor does."""
    stream = io.BytesIO(data)
    return lambda count: stream.read(min(count, step))
