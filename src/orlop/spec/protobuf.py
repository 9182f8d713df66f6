"""Protocol buffers, as much of them as CRIU's and BuildKit's messages need: varints and length-delimited fields.

A message is a tuple of (field number, value) in the order in which it is written; a value is an int, a bool, a str,
bytes, or another message. What comes back is a dict: field number -> the values found, numbers as int, the rest as
bytes.
Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Message = tuple[tuple[int, "int | str | bytes | Message"], ...]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
_WORD = 1 << 64


def encode(message: Message) -> bytes:
    """Return the bytes of a message. A negative int32 takes ten bytes, as the format demands."""
    out = bytearray()
    for number, value in message:
        if isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(int(value) % _WORD)
        else:
            data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
            out += _varint(number << 3 | _LENGTH) + _varint(len(data)) + data
    return bytes(out)


def decode(data: bytes) -> dict[int, list[int | bytes]]:
    """Return the fields of a message. Raises ValueError for anything but a whole one."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32, _LENGTH):
            size, at = _read_varint(data, at) if kind == _LENGTH else ((8 if kind == _FIXED64 else 4), at)
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise ValueError("a field ends behind the message")
        else:
            raise ValueError(f"a field of kind {kind}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def number(fields: Mapping[int, list[int | bytes]], field: int, default: int = 0) -> int:
    """Return the last int of a field (the format: the last one counts), negative where it stands for that."""
    value = fields[field][-1] if field in fields else default
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value - _WORD if value >= _WORD // 2 else value


def text(fields: Mapping[int, list[int | bytes]], field: int) -> str:
    """Return the last string of a field, "" when there is none."""
    return inner(fields, field).decode(errors="replace")


def inner(fields: Mapping[int, list[int | bytes]], field: int) -> bytes:
    """Return the bytes of a field, b"" when there are none."""
    value = fields[field][-1] if field in fields else b""
    if not isinstance(value, bytes):
        raise ValueError(f"field {field} is not a string")
    return value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value % _WORD, at + position + 1
    raise ValueError("a number does not end")
