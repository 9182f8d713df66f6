"""The head of a request: its first line and its fields, read strictly (RFC 9112).

What two readers could understand in two ways is refused, for one of them may stand in front of us: lines that do not
end in CR LF, fields that go on in the next line, space before a colon, control characters, a second length, a length
beside a transfer coding, no host or two. Whoever reads a head in doubt takes a body for the next request.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

LINE_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = 256 * 1024  # docker's clients send the credentials of all registries in one field
FIELDS_MAX = 100
_LENGTH_DIGITS_MAX = 18
_CHUNK_LINE_BYTES_MAX = 1024
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([!-~]+) HTTP/([0-9]\.[0-9])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_HOST = re.compile(r"[!$%&'()*+,\-.0-9:;=A-Z\[\]_a-z~]*")
_ABSOLUTE = re.compile(r"https?://([^/?]*)", re.IGNORECASE)


class Refused(Exception):
    """A request that can't be understood: (status, why). The connection ends after the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why


class Headers:
    """The fields of a request by their names, however these are written. A field may have come several times."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, list[str]] | None = None) -> None:
        self._fields = fields or {}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a field."""
        found = self._fields.get(name.lower())
        return found[0] if found else default

    def get_all(self, name: str) -> list[str]:
        """Return all values of a field, [] where it did not come."""
        return self._fields.get(name.lower(), [])

    def tokens(self, name: str) -> Iterator[str]:
        """Yield the parts of a list that stands in one or several fields, in small letters."""
        for value in self.get_all(name):
            for part in value.split(","):
                yield part.strip(" \t").lower()


class Head:
    """A request without its body.

    line: as it came; target: what stands between the method and the version; path and query: its parts, not decoded.
    authority: whom the client believes to ask. length: of the body, None when it comes in chunks.
    """

    __slots__ = ("authority", "headers", "is_old", "length", "line", "method", "path", "query")

    def __init__(self, line: str, method: str, target: str, version: str, headers: Headers) -> None:
        self.line = line
        self.method = method
        self.headers = headers
        self.is_old = version == "1.0"
        self.authority = _authority(headers, self.is_old)
        if found := _ABSOLUTE.match(target):  # as a proxy is asked; the field does not count then (RFC 9112, 3.2.2)
            self.authority, target = found[1], target[found.end() :] or "/"
        elif not target.startswith("/") and target != "*":
            raise Refused(400, "the target of the request is no path")
        if "#" in target:
            raise Refused(400, "the target of the request has a fragment, which no client sends")
        self.path, _, self.query = target.partition("?")
        self.length = _length(headers, self.is_old)

    @property
    def stays(self) -> bool:
        """Whether the client wants to go on with this connection."""
        return not self.is_old and "close" not in self.headers.tokens("Connection")


def read(file: BufferedReader) -> Head | None:
    """Read the head of the next request, None where the connection ends before it. Raises Refused, OSError."""
    line = file.readline(LINE_BYTES_MAX)
    if not line:
        return None
    found = _REQUEST.fullmatch(line)
    if found is None:
        raise _wrong_line(line)
    if found[3] not in (b"1.1", b"1.0"):
        raise Refused(505, "HTTP/1.1 is spoken here")
    method, target, version = (part.decode("ascii") for part in found.groups())
    return Head(line[:-2].decode("ascii"), method, target, version, fields(file))


def _wrong_line(line: bytes) -> Refused:
    if not line.endswith(b"\n"):
        if len(line) >= LINE_BYTES_MAX:
            return Refused(414, f"the first line of the request has more than {LINE_BYTES_MAX} bytes")
        return Refused(400, "the request ended too early")
    cause = "it is not a method, a target (all else percent-encoded), a version and CR LF, with one space between them"
    return Refused(400, f"the first line of the request can't be read: {cause}")


def fields(file: BufferedReader) -> Headers:
    """Read fields and the empty line behind them. Raises Refused, OSError."""
    found: dict[str, list[str]] = {}
    number = size = 0
    while (line := file.readline(LINE_BYTES_MAX)) != b"\r\n":
        number, size = number + 1, size + len(line)
        if number > FIELDS_MAX or size > HEAD_BYTES_MAX or len(line) == LINE_BYTES_MAX:
            raise Refused(431, f"the request has more than {FIELDS_MAX} fields, or larger ones than are read")
        field = _FIELD.fullmatch(line)
        if field is None:
            if not line.endswith(b"\n"):
                raise Refused(400, "the request ended too early")
            cause = "it is not a name, a colon, text and CR LF"
            raise Refused(400, f"field {number} of the request can't be read: {cause}")
        name = field[1].decode("ascii").lower()
        found.setdefault(name, []).append(field[2].strip(b" \t").decode("latin-1"))
    return Headers(found)


def chunk_size(file: BufferedReader) -> int:
    """Read the line before a chunk of a body; return how long the chunk is. Raises Refused, OSError."""
    found = _CHUNK.fullmatch(file.readline(_CHUNK_LINE_BYTES_MAX))
    if found is None:
        raise Refused(400, "a chunk of the body has no length")
    return int(found[1], 16)


def _authority(headers: Headers, is_old: bool) -> str:
    hosts = headers.get_all("Host")
    if len(hosts) > 1:
        raise Refused(400, "the request names two hosts")
    if not hosts and not is_old:
        raise Refused(400, "the request names no host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Refused(400, "the host that the request names is none")
    return hosts[0] if hosts else ""


def _length(headers: Headers, is_old: bool) -> int | None:
    lengths = headers.get_all("Content-Length")
    if codings := headers.get_all("Transfer-Encoding"):
        if lengths or is_old or [one.lower() for one in codings] != ["chunked"]:
            raise Refused(400, "the transfer coding of the request is not understood")
        return None
    if not lengths:
        return 0
    digits = lengths[0]
    if len(lengths) > 1 or not (digits.isascii() and digits.isdecimal()) or len(digits) > _LENGTH_DIGITS_MAX:
        raise Refused(400, "the Content-Length of the request is not one number")
    return int(digits)
