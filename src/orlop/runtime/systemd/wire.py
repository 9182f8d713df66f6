"""D-Bus messages: marshalling of values and the frame around them.

Written and read little-endian, read in both orders. Everything that comes in is bounded and checked: a peer may be
broken, and none may make us allocate what it did not send.
Source: D-Bus Specification 0.43, "Type System", "Marshaling", "Message Protocol".
"""

import struct

from ...spec.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE_BYTES_MAX = 1 << 20  # the specification allows 128 MiB; what systemd says fits in a few KiB
DEPTH_MAX = 32
FIXED_BYTES = 16

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_LITTLE = ord("l")
_VERSION = 1
# Header fields: code -> signature.
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE = range(1, 9)
_FIELD_SIGNATURES = {
    PATH: "o", INTERFACE: "s", MEMBER: "s", ERROR_NAME: "s", REPLY_SERIAL: "u", DESTINATION: "s", SENDER: "s",
    SIGNATURE: "g",
}  # fmt: skip

# Type code -> (struct format, alignment).
_NUMBERS = {
    "y": ("B", 1), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4), "x": ("q", 8), "t": ("Q", 8),
    "d": ("d", 8), "b": ("I", 4), "h": ("I", 4),
}  # fmt: skip


class Variant:
    """A value with its type, which travels along: what "v" stands for."""

    __slots__ = ("signature", "value")

    def __init__(self, signature: str, value: object) -> None:
        self.signature = signature
        self.value = value

    def __repr__(self) -> str:
        return f"Variant({self.signature!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variant) and (self.signature, self.value) == (other.signature, other.value)

    def __hash__(self) -> int:
        return hash((self.signature, repr(self.value)))


class Message:
    """One message. kind: METHOD_CALL and so on; fields: header fields by code; body: the values."""

    __slots__ = ("body", "fields", "kind", "serial")

    def __init__(self, kind: int, serial: int, fields: "dict[int, object]", body: "Sequence[object]" = ()) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = list(body)

    def text(self, field: int) -> str:
        """Return a header field, "" when it is missing."""
        return str(self.fields.get(field, ""))

    def encode(self) -> bytes:
        """Return the message's bytes. Raises ValueError for a body that does not fit its signature."""
        body = encode(self.text(SIGNATURE), self.body)
        fields = [(code, Variant(_FIELD_SIGNATURES[code], value)) for code, value in sorted(self.fields.items())]
        head = encode("yyyyuua(yv)", (_LITTLE, self.kind, 0, _VERSION, len(body), self.serial, fields))
        return head + bytes(-len(head) % 8) + body


def encode(signature: str, values: "Sequence[object]") -> bytes:
    """Return values as they stand in a message body. Raises ValueError."""
    out = bytearray()
    parts = split(signature)
    if len(parts) != len(values):
        raise ValueError(f"{signature!r} has {len(parts)} types, {len(values)} values were given")
    for part, value in zip(parts, values, strict=True):
        _encode(out, part, value)
    return bytes(out)


def decode(signature: str, data: bytes, order: str = "<") -> list[object]:
    """Return the values of a body. order: "<" or ">". Raises Unavailable when the bytes are no such values."""
    reader = _Reader(data, order)
    values = [reader.value(part, 0) for part in _split_theirs(signature)]
    if reader.place != len(data):
        raise _broken(f"{len(data) - reader.place} bytes stand behind the body")
    return values


def size_of(fixed: bytes) -> int:
    """Return how long the message is that begins with these FIXED_BYTES. Raises Unavailable."""
    order = _order(fixed)
    body, _, fields = struct.unpack_from(f"{order}III", fixed, 4)
    size: int = FIXED_BYTES + fields + (-fields % 8) + body
    if fixed[3] != _VERSION:
        raise _broken(f"it has version {fixed[3]}")
    if size > MESSAGE_BYTES_MAX:
        raise _broken(f"it has {size} bytes, the limit is {MESSAGE_BYTES_MAX}")
    return size


def parse(data: bytes) -> Message:
    """Return the message of these bytes, which are as many as `size_of` said. Raises Unavailable."""
    order = _order(data)
    reader = _Reader(data, order)
    _, kind, _, _, body, serial, fields = (reader.value(part, 0) for part in split("yyyyuua(yv)"))
    assert isinstance(kind, int) and isinstance(serial, int) and isinstance(body, int) and isinstance(fields, list)
    reader.align(8)
    known: dict[int, object] = {}
    for code, variant in fields:
        if _FIELD_SIGNATURES.get(code, variant.signature) != variant.signature:
            raise _broken(f"header field {code} is of type {variant.signature}")
        known[code] = variant.value
    if len(data) - reader.place != body:
        raise _broken("its body is not as long as it says")
    return Message(kind, serial, known, decode(str(known.get(SIGNATURE, "")), data[reader.place :], order))


def split(signature: str) -> list[str]:
    """Return the single complete types of a signature: "sa(sv)u" -> ["s", "a(sv)", "u"]. Raises ValueError."""
    parts = []
    while signature:
        length = _length(signature, 0)
        parts.append(signature[:length])
        signature = signature[length:]
    return parts


def _length(signature: str, depth: int) -> int:
    """Return the length of the first complete type."""
    if depth > DEPTH_MAX or not signature:
        raise ValueError("a type is too deep or not complete")
    code = signature[0]
    if code in _NUMBERS or code in "sogv":
        return 1
    if code == "a":
        return 1 + _length(signature[1:], depth + 1)
    closing = {"(": ")", "{": "}"}.get(code)
    if closing is None:
        raise ValueError(f"{code!r} is no type")
    place = 1
    while place < len(signature) and signature[place] != closing:
        place += _length(signature[place:], depth + 1)
    if place == 1 or place >= len(signature):
        raise ValueError("a structure is empty or not closed")
    return place + 1


def _split_theirs(signature: str) -> list[str]:
    try:
        return split(signature)
    except ValueError as wrong:
        raise _broken(f"signature {signature[:40]!r}: {wrong}") from None


def _alignment(code: str) -> int:
    if code in _NUMBERS:
        return _NUMBERS[code][1]
    return {"s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "(": 8, "{": 8}[code]


def _encode(out: bytearray, part: str, value: "object") -> None:
    code = part[0]
    out += bytes(-len(out) % _alignment(code))
    if code in _NUMBERS:
        try:
            out += struct.pack(f"<{_NUMBERS[code][0]}", value)
        except struct.error as wrong:
            raise ValueError(f"{value!r} is no {code}: {wrong}") from None
    elif code in "sog":
        text = str(value).encode()
        if b"\0" in text or (code == "g" and len(text) > 255):
            raise ValueError(f"{value!r} is no {code}")
        out += struct.pack("<B" if code == "g" else "<I", len(text)) + text + b"\0"
    elif code == "v":
        assert isinstance(value, Variant)
        _encode(out, "g", value.signature)
        _encode(out, value.signature, value.value)
    elif code == "a":
        _encode_array(out, part[1:], value)
    else:
        _encode_all(out, split(part[1:-1]), value)


def _encode_all(out: bytearray, parts: "Sequence[str]", values: object) -> None:
    if not isinstance(values, tuple | list) or len(values) != len(parts):
        raise ValueError(f"{values!r} is no structure of {''.join(parts)}")
    for part, value in zip(parts, values, strict=True):
        _encode(out, part, value)


def _encode_array(out: bytearray, part: str, values: object) -> None:
    if not isinstance(values, tuple | list | bytes):
        raise ValueError(f"{values!r} is no list")
    place = len(out)
    out += bytes(4)
    out += bytes(-len(out) % _alignment(part[0]))  # not counted in the length
    start = len(out)
    for value in values:
        _encode(out, part, value)
    struct.pack_into("<I", out, place, len(out) - start)


class _Reader:
    __slots__ = ("_data", "_order", "place")

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.place = 0

    def align(self, alignment: int) -> None:
        padding = self._take(-self.place % alignment)
        if padding.strip(b"\0"):
            raise _broken("its padding is not zero")

    def value(self, part: str, depth: int) -> "object":
        if depth > DEPTH_MAX:
            raise _broken("it is nested too deep")
        code = part[0]
        self.align(_alignment(code))
        if code in _NUMBERS:
            return self._number(code)
        if code in "so":
            return self._text(self._unsigned())
        if code == "g":
            return self._text(self._take(1)[0])
        if code == "v":
            signature = self._text(self._take(1)[0])
            parts = _split_theirs(signature)
            if len(parts) != 1:
                raise _broken(f"a variant of type {signature[:40]!r}")
            return Variant(signature, self.value(signature, depth + 1))
        if code == "a":
            return self._array(part[1:], depth)
        return tuple(self.value(each, depth + 1) for each in split(part[1:-1]))

    def _array(self, part: str, depth: int) -> list[object]:
        length = self._unsigned()
        self.align(_alignment(part[0]))
        end = self.place + length
        if end > len(self._data):
            raise _broken("an array is longer than the message")
        values = []
        while self.place < end:
            values.append(self.value(part, depth + 1))
        if self.place != end:
            raise _broken("an array ends in the middle of a value")
        return values

    def _number(self, code: str) -> object:
        kind, size = _NUMBERS[code]
        (number,) = struct.unpack(f"{self._order}{kind}", self._take(size))
        if code == "b":
            if number > 1:
                raise _broken(f"{number} is no boolean")
            return bool(number)
        return number

    def _unsigned(self) -> int:
        (number,) = struct.unpack(f"{self._order}I", self._take(4))
        return int(number)

    def _text(self, length: int) -> str:
        data = self._take(length + 1)
        if data[-1:] != b"\0" or b"\0" in data[:-1]:
            raise _broken("a string is not ended by its NUL")
        try:
            return data[:-1].decode()
        except UnicodeDecodeError:
            raise _broken("a string is not UTF-8") from None

    def _take(self, count: int) -> bytes:
        data = self._data[self.place : self.place + count]
        if len(data) != count:
            raise _broken("it is cut off")
        self.place += count
        return data


def _order(data: bytes) -> str:
    order = {b"l": "<", b"B": ">"}.get(data[:1])
    if order is None or len(data) < FIXED_BYTES:
        raise _broken("it does not begin as a message")
    return order


def _broken(cause: str) -> Unavailable:
    return Unavailable("read", "a message of systemd", cause)
