"""The engine's native protocol: framing of messages and passing of file descriptors. Both ends use this module; the
engine gathers requests with `incoming`.

A message is its length (4 bytes, big endian) and that many bytes of JSON; file descriptors ride on its first byte
(SCM_RIGHTS, unix(7)). A client sends requests, one after the other, and reads one reply for each:

    {"verb": "containers.stop", "args": {...}}  ->  {"result": ...}  or  {"error": OrlopError.to_json()}

A verb that takes long tells how far it is: {"result": {"stream": true}}, any number of {"message": ...}, and then
one {"result": ...} or {"error": ...}.

Invariants: no message is read that is larger than the receiver's bound; a received descriptor is close-on-exec and
is either handed to the caller or closed here; a descriptor that was sent stays open and is the sender's to close.

`_socket` and not `socket`: the latter imports selectors and enum, which cost a command line 6 ms. A
`socket.socket` is a `_socket.socket`, so a server may use either.
"""

import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_RIGHTS, SO_PEERCRED, SOL_SOCKET
from posix import close

from ...spec import errors, jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

REQUEST_BYTES_MAX = 4 * 1024 * 1024
REPLY_BYTES_MAX = 64 * 1024 * 1024  # a list of all containers: 0.6 kB each
FDS_MAX = 4

_LENGTH_BYTES = 4
_INT_BYTES = 4
_CREDENTIALS_BYTES = 3 * _INT_BYTES  # struct ucred: pid, uid, gid


class Malformed(errors.Invalid):
    """What arrived is no message of this protocol: the connection is of no further use."""


class Cut(Malformed):
    """The stream ended in the middle of a message."""


class Closed(errors.Unavailable):
    """The peer ended the connection where a message was due."""


class Request:
    """One request as the engine sees it. The descriptors are the receiver's to close."""

    __slots__ = ("args", "fds", "verb")

    def __init__(self, verb: str, args: "dict[str, object]", fds: "list[int]") -> None:
        self.verb = verb
        self.args = args
        self.fds = fds


def peer_credentials(sock: "socket") -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the process at the other end, as they were when it connected or listened."""
    raw = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS_BYTES)
    pid, uid, gid = (int.from_bytes(raw[at : at + _INT_BYTES], sys.byteorder) for at in (0, _INT_BYTES, 2 * _INT_BYTES))
    return pid, uid, gid


def send(sock: "socket", value: object, fds: "Sequence[int]" = ()) -> None:
    """Send one message with these descriptors on its first byte. Raises OSError when the peer is gone."""
    message = pack(value)
    sent = 0
    if fds:
        packed = b"".join(fd.to_bytes(_INT_BYTES, sys.byteorder) for fd in fds)
        sent = sock.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, packed)])
    if sent < len(message):  # sendall of nothing asks the kernel too, which fails when the peer has gone by now
        sock.sendall(message[sent:])


def pack(value: object) -> bytes:
    """Return one message as its bytes, for a stream of them behind a reply."""
    payload = jsonio.dump(value)
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def receive(sock: "socket", subject: str, bytes_max: int) -> "tuple[object, list[int]] | None":
    """Return the next message and the descriptors that came with it; None at a clean end of the stream.

    subject names the message in errors. Raises Malformed, and OSError from the socket.
    """
    fds: list[int] = []
    try:
        payload = _receive_payload(sock, subject, bytes_max, fds)
        if payload is None:
            return None
        return _parse(payload, subject, bytes_max), fds
    except BaseException:
        for fd in fds:
            close(fd)
        raise


def send_request(sock: "socket", verb: str, args: "dict[str, object]", fds: "Sequence[int]" = ()) -> None:
    send(sock, {"verb": verb, "args": args}, fds)


def send_result(sock: "socket", result: object, fds: "Sequence[int]" = ()) -> None:
    send(sock, {"result": result}, fds)


def send_error(sock: "socket", error: errors.OrlopError) -> None:
    send(sock, {"error": error.to_json()})


def receive_reply(sock: "socket") -> "tuple[object, list[int]]":
    """Return the result and its descriptors; raise the error that the engine replied with.

    Raises Malformed for a reply that is none, Closed when the stream ended before it, OSError from the socket.
    """
    message = receive(sock, "the engine's reply", REPLY_BYTES_MAX)
    if message is None:
        raise Closed("read", "the engine's reply", "the engine closed the connection")
    value, fds = message
    if isinstance(value, dict) and "result" in value:
        return value["result"], fds
    for fd in fds:
        close(fd)
    if isinstance(value, dict) and "error" in value:
        raise errors.from_json(value["error"])
    raise Malformed("read", "the engine's reply", "it holds neither a result nor an error")


def result_of(payload: bytes) -> object:
    """Return the result that a reply's bytes hold; raise the error that they hold instead, Malformed for neither."""
    value = _parse(payload, "the engine's reply", REPLY_BYTES_MAX)
    if isinstance(value, dict) and "result" in value:
        return value["result"]
    if isinstance(value, dict) and "error" in value:
        raise errors.from_json(value["error"])
    raise Malformed("read", "the engine's reply", "it holds neither a result nor an error")


def _parse(payload: bytes, subject: str, bytes_max: int) -> object:
    try:
        return jsonio.parse(payload, subject, bytes_max=bytes_max)
    except errors.Invalid as wrong:
        raise Malformed("read", subject, wrong.cause) from None


def _receive_payload(sock: "socket", subject: str, bytes_max: int, fds: "list[int]") -> bytes | None:
    head, ancillary, flags, _ = sock.recvmsg(_LENGTH_BYTES, CMSG_SPACE(FDS_MAX * _INT_BYTES), MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds += unpack_fds(data)
    if not head:
        return None
    if flags & MSG_CTRUNC:
        raise Malformed("read", subject, f"more than {FDS_MAX} file descriptors came with it")
    head += _receive_exactly(sock, subject, _LENGTH_BYTES - len(head))
    length = int.from_bytes(head, "big")
    if length > bytes_max:
        raise Malformed("read", subject, f"it announces {length} bytes, the limit is {bytes_max}")
    return _receive_exactly(sock, subject, length)


def _receive_exactly(sock: "socket", subject: str, length: int) -> bytes:
    # The buffer grows with what arrives: a peer that announces 64 MiB and sends nothing costs nothing.
    data = bytearray()
    while len(data) < length:
        part = sock.recv(min(length - len(data), 1 << 18))
        if not part:
            raise Cut("read", subject, f"the stream ended after {len(data)} of {length} bytes")
        data += part
    return bytes(data)


def unpack_fds(data: bytes) -> list[int]:
    """Return the descriptors of one SCM_RIGHTS."""
    whole = len(data) - len(data) % _INT_BYTES
    return [int.from_bytes(data[at : at + _INT_BYTES], sys.byteorder) for at in range(0, whole, _INT_BYTES)]
