"""Whom a client means to speak to, by the first bytes that it says: TLS's server name, HTTP's host. Pure.

RFC 8446 4.1.2 (ClientHello), RFC 6066 3 (server_name), RFC 9112 3.2 (Host). What is inside of TLS is not seen.
"""

from __future__ import annotations

BYTES_MAX = 64 * 1024  # of a first message
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_METHOD_LENGTH_MAX = 24
_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Told:
    """protocol: "tls", "http" or "" for others, which say no name. name: in lower case, "" when none was said."""

    __slots__ = ("name", "protocol")

    def __init__(self, protocol: str, name: str = "") -> None:
        self.protocol = protocol
        self.name = name


def read(data: bytes) -> Told | None:
    """Return what the first bytes of a connection say; None while more are needed.

    Raises ValueError for a message that is broken, ambiguous, or longer than BYTES_MAX: whoever sends it may mean the
    server to read another name in it than we do.
    """
    if not data:
        return None
    found = _tls(data) if data[0] == _HANDSHAKE else _http(data)
    if found is None and len(data) >= BYTES_MAX:
        raise ValueError("a first message without end")
    return found


def _tls(data: bytes) -> Told | None:
    message = b""
    at = 0
    while (length := _length(message)) is None or len(message) < length:
        if len(data) < at + 5:
            return None
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not size:
            raise ValueError("no record of TLS")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
    return Told("tls", _server_name(_Reader(message[4:length])))


def _length(message: bytes) -> int | None:
    """Return how long a ClientHello is, with its header; None while that is not there."""
    if message and message[0] != _CLIENT_HELLO:
        raise ValueError("no ClientHello")
    if len(message) < 4:
        return None
    length = 4 + int.from_bytes(message[1:4], "big")
    if length > BYTES_MAX:
        raise ValueError("a ClientHello without end")
    return length


class _Reader:
    """Bytes, taken from the front. Raises ValueError where there are not enough."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if len(self.data) < count:
            raise ValueError("a message that ends too early")
        found, self.data = self.data[:count], self.data[count:]
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Reader:
        """Take what has its length in front, in `size` bytes."""
        return _Reader(self.take(self.number(size)))


def _server_name(hello: _Reader) -> str:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression
    if not hello.data:
        return ""
    extensions = hello.vector(2)
    names = []
    while extensions.data:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind != _SERVER_NAME:
            continue
        listed = body.vector(2)
        while listed.data:
            if listed.number(1) != _HOST_NAME:
                raise ValueError("a server name of a kind that there is not")
            names.append(listed.vector(2).data)
    if len(names) > 1:
        raise ValueError("several server names")
    return _name(names[0]) if names else ""


def _http(data: bytes) -> Told | None:
    method, space, _ = data[: _METHOD_LENGTH_MAX + 1].partition(b" ")
    if not _UPPER.issuperset(method) or not method:
        return Told("")
    if not space:
        return None if len(data) <= _METHOD_LENGTH_MAX else Told("")
    line, end, rest = data.partition(b"\n")
    if not end:
        return None
    words = line.rstrip(b"\r").split(b" ")
    if not words[-1].startswith(b"HTTP/"):
        return Told("")
    if len(words) != 3 or words[-1] not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise ValueError("a version of HTTP that says no host in its first bytes")
    hosts = []
    while True:
        line, end, rest = rest.partition(b"\n")
        if not end:
            return None
        line = line.rstrip(b"\r")
        if not line:
            break
        if line[:1].isspace() or b"\0" in line or b"\r" in line:
            raise ValueError("a header that goes on in the next line")
        field, colon, value = line.partition(b":")
        if not colon or field != field.strip():
            raise ValueError("no header")
        if field.lower() == b"host":
            hosts.append(_without_port(value.strip()))
    target = words[1]
    if method == b"CONNECT":
        hosts.append(_without_port(target))
    elif not target.startswith((b"/", b"*")):
        scheme, slashes, place = target.partition(b"://")
        if not slashes or b"@" in place:
            raise ValueError("a target that is none")
        del scheme
        hosts.append(_without_port(place.partition(b"/")[0].partition(b"?")[0]))
    found = {_name(host) for host in hosts}
    if len(found) > 1 or len(hosts) > 2:
        raise ValueError("several hosts")
    return Told("http", found.pop() if found else "")


def _without_port(value: bytes) -> bytes:
    return value if value.startswith(b"[") else value.partition(b":")[0]


def _name(value: bytes) -> str:
    try:
        return value.decode("ascii").lower().rstrip(".")
    except UnicodeDecodeError:
        raise ValueError("a name that is not ASCII") from None
