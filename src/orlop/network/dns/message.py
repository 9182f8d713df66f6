"""DNS messages, as much of them as a forwarder needs: the question, and answers of our own. RFC 1035, 6891.

Hostile bytes end in ValueError; names are followed for the question alone, which has no compression.
"""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
CLASS_IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
BADVERS = 16  # RFC 6891: its upper bits lie in the OPT record
CLASSES = (CLASS_IN, ANY)  # in which we have names
TTL_S = 5  # containers come and go: docker says 600, and its users wait for it
UDP_BYTES_MAX = 4096
TCP_BYTES_MAX = 65535
NAME_LENGTH_MAX = 253

_HEADER = struct.Struct("!HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_POINTER_TO_QUESTION = b"\xc0\x0c"
_DO = 0x8000  # of an OPT record's flags: RFC 3225


class Query:
    """A question. name: in lower case, without the last dot; raw: the whole message as it came."""

    __slots__ = ("edns", "id", "kind", "klass", "name", "question", "raw", "wants_dnssec", "wants_recursion")

    def __init__(self, raw: bytes) -> None:
        """Raises ValueError for what is no question."""
        if not _HEADER.size <= len(raw) <= TCP_BYTES_MAX:
            raise ValueError("not a DNS message")
        self.id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(raw)
        if flags & (_QR | _OPCODE) or questions != 1 or answers or authorities:
            raise ValueError("not one question")
        self.wants_recursion = bool(flags & _RD)
        self.name, end = _name(raw, _HEADER.size)
        if len(raw) < end + 4:
            raise ValueError("the question is cut short")
        self.kind, self.klass = struct.unpack_from("!HH", raw, end)
        self.question = raw[_HEADER.size : end + 4]
        # An OPT record has the root's empty name: one zero, then its type.
        self.edns = bool(additional) and raw[end + 4 : end + 7] == b"\0\0\x29"
        if self.edns and (len(raw) < end + 15 or len(raw) < end + 15 + int.from_bytes(raw[end + 13 : end + 15], "big")):
            raise ValueError("the options are cut short")
        self.wants_dnssec = self.edns and bool(raw[end + 11] & 0x80)
        self.raw = raw

    @property
    def edns_version(self) -> int:
        at = _HEADER.size + len(self.question) + 6
        return self.raw[at] if self.edns else 0

    @property
    def udp_size(self) -> int:
        """How large an answer over UDP may be."""
        at = _HEADER.size + len(self.question) + 3
        if self.edns:
            return max(512, min(UDP_BYTES_MAX, int(struct.unpack_from("!H", self.raw, at)[0])))
        return 512


def question(name: str, kind: int, query_id: int) -> bytes:
    """Return a message that asks for a name. Raises ValueError for what is no name."""
    return _HEADER.pack(query_id, _RD, 1, 0, 0, 0) + encode_name(name) + struct.pack("!HH", kind, CLASS_IN)


def answer(query: Query, code: int, records: list[tuple[int, bytes]] | None = None) -> bytes:
    """Return an answer of our own. records: (type, data) for the name that was asked for."""
    body = b"".join(
        _POINTER_TO_QUESTION + struct.pack("!HHLH", kind, CLASS_IN, TTL_S, len(data)) + data
        for kind, data in records or ()
    )
    authority = _AA if code in (NOERROR, NXDOMAIN) else 0  # who failed knows nothing
    flags = _QR | authority | _RA | (_RD if query.wants_recursion else 0) | code & 0x0F
    header = _HEADER.pack(query.id, flags, 1, len(records or ()), 0, int(query.edns))
    return header + query.question + body + _options(query, code)


def _options(query: Query, code: int = NOERROR) -> bytes:
    """Return the OPT record of an answer: who sent one gets one, with its DO bit."""
    if not query.edns:
        return b""
    return b"\0" + struct.pack("!HHLH", OPT, UDP_BYTES_MAX, code >> 4 << 24 | (_DO if query.wants_dnssec else 0), 0)


def refuse(raw: bytes) -> bytes:
    """Return an answer to something that is no question, b"" when it has not even an id: NOTIMP for what is asked in
    another way than by a query, FORMERR for what is broken."""
    if len(raw) < _HEADER.size or raw[2] & 0x80:
        return b""
    asked = int.from_bytes(raw[2:4], "big") & (_OPCODE | _RD)
    code = NOTIMP if asked & _OPCODE else FORMERR
    return raw[:2] + struct.pack("!HHHHH", _QR | _RA | asked | code, 0, 0, 0, 0)


def truncated(query: Query) -> bytes:
    """Return an answer that tells to ask again over TCP."""
    flags = _QR | _TC | _RA | (_RD if query.wants_recursion else 0)
    return _HEADER.pack(query.id, flags, 1, 0, 0, int(query.edns)) + query.question + _options(query)


def has_answers(raw: bytes) -> bool:
    """Tell whether a name is there, and has what was asked for."""
    return len(raw) >= _HEADER.size and code_of(raw) == NOERROR and raw[6:8] != b"\0\0"


def is_truncated(raw: bytes) -> bool:
    return bool(raw[2] & _TC >> 8)


def address(text: str) -> tuple[int, bytes]:
    """Return the record of an address."""
    if ":" in text:
        return AAAA, inet_pton(AF_INET6, text)
    return A, inet_pton(AF_INET, text)


def encode_name(name: str) -> bytes:
    """Return a name as labels. Raises ValueError."""
    out = bytearray()
    for label in name.rstrip(".").split(".") if name.rstrip(".") else ():
        data = label.encode("ascii", "strict")
        if not 0 < len(data) < 64:
            raise ValueError(f"not a name: {name[:80]!r}")
        out += bytes([len(data)]) + data
    if len(out) > NAME_LENGTH_MAX + 1:
        raise ValueError("a name of more than 253 characters")
    return bytes(out) + b"\0"


def is_answer_to(raw: bytes, query_id: int, asked: bytes) -> bool:
    """Tell whether these bytes answer this question: id, direction and the question itself, in any case of letters."""
    if len(raw) < _HEADER.size or not raw[2] & 0x80 or int.from_bytes(raw[:2], "big") != query_id:
        return False
    if int.from_bytes(raw[4:6], "big") == 0:
        return code_of(raw) != NOERROR  # FORMERR and REFUSED may come without the question
    return raw[_HEADER.size : _HEADER.size + len(asked)].lower() == asked.lower()


def addresses(raw: bytes) -> list[tuple[str, int]]:
    """Return (address, time to live) of every address record of an answer; what is broken ends the list."""
    found: list[tuple[str, int]] = []
    try:
        at = _skip_name(raw, _HEADER.size) + 4
        for _ in range(int.from_bytes(raw[6:8], "big")):
            at = _skip_name(raw, at)
            kind, _, life_s, length = struct.unpack_from("!HHLH", raw, at)
            data = raw[at + 10 : at + 10 + length]
            if (kind, len(data)) in ((A, 4), (AAAA, 16)):
                found.append((inet_ntop(AF_INET if kind == A else AF_INET6, data), life_s))
            at += 10 + length
    except (IndexError, struct.error):
        pass
    return found


def _skip_name(raw: bytes, at: int) -> int:
    """Return where a name ends; a compressed one ends with its first pointer, which is not followed."""
    while (size := raw[at]) != 0:
        if size >= 0xC0:
            return at + 2
        at += 1 + size
    return at + 1


def code_of(raw: bytes) -> int:
    return raw[3] & 0x0F


def with_id(raw: bytes, query_id: int) -> bytes:
    return query_id.to_bytes(2, "big") + raw[2:]


def reverse_address(name: str) -> str:
    """Return the address that a name below in-addr.arpa or ip6.arpa asks for, "" when it is none."""
    if name.endswith(".in-addr.arpa"):
        parts = name.removesuffix(".in-addr.arpa").split(".")
        valid = len(parts) == 4 and all(part.isdecimal() and len(part) < 4 for part in parts)
        return ".".join(reversed(parts)) if valid else ""
    if name.endswith(".ip6.arpa"):
        digits = name.removesuffix(".ip6.arpa").split(".")
        if len(digits) == 32 and all(len(digit) == 1 and digit in "0123456789abcdef" for digit in digits):
            whole = "".join(reversed(digits))
            return ":".join(whole[at : at + 4] for at in range(0, 32, 4))
    return ""


def _name(raw: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    length = 0
    while True:
        if at >= len(raw):
            raise ValueError("the name is cut short")
        size = raw[at]
        if size == 0:
            return ".".join(labels), at + 1
        if size > 63:
            raise ValueError("a compressed name in a question")
        length += size + 1
        if length > NAME_LENGTH_MAX + 1 or at + 1 + size > len(raw):
            raise ValueError("the name is too long")
        label = raw[at + 1 : at + 1 + size].lower().decode("latin-1")
        # A dot inside of a label is none between labels: "x.test" in one is not the name that has two.
        labels.append(label.replace("\\", "\\\\").replace(".", "\\."))
        at += 1 + size
