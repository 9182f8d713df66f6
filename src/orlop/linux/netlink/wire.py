"""Netlink messages and the sockets they pass through. netlink(7), Documentation/userspace-api/netlink/intro.rst.

    struct nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32; the family's own header; attributes
    struct nlattr:   length u16, type u16; the value, padded to four bytes

Invariants:
1. What does not come from the kernel (port 0) or does not answer the question is ignored; what is cut short or
   contradicts its own lengths raises EBADMSG, and never makes us read beyond it.
2. A dump that the kernel says was interrupted by a change (NLM_F_DUMP_INTR), or of which messages were lost, is asked
   for again: nobody sees half of it.
3. A refusal is an OSError: the call, the object, and the kernel's own words where it gives some (extended ack).
"""

from __future__ import annotations

import errno
import os
import struct
from _socket import MSG_DONTWAIT, MSG_TRUNC, SO_RCVBUF, SO_SNDBUF, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket

from .. import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Request = tuple[int, int, bytes, str, str]  # of a batch: type, flags, payload; call and subject for its error

AF_NETLINK = 16
ROUTE, NETFILTER = 0, 12

REQUEST, MULTI, ACK = 0x1, 0x2, 0x4
DUMP = 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800

NESTED = 0x8000
HEADER = struct.Struct("=LHHLL")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
ATTRIBUTE_BYTES_MAX = 0xFFFF

_NOOP, _ERROR, _DONE, _OVERRUN = 1, 2, 3, 4
_DUMP_INTERRUPTED = 0x10
_CAPPED, _ACK_TLVS = 0x100, 0x200
_EXTENDED_MESSAGE = 1

SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12

RECEIVE_BYTES = 256 * 1024
_DUMPS_MAX = 20
_ANSWER_S_MAX = 30
DONTWAIT = MSG_DONTWAIT
_SO_RCVTIMEO, _SO_SNDBUFFORCE = 20, 32  # asm-generic/socket.h


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute. Raises OverflowError for a value that no attribute holds."""
    length = 4 + len(value)
    if length > ATTRIBUTE_BYTES_MAX:
        raise OverflowError(f"an attribute of {length} bytes")
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(1, "little"))


def u16(kind: int, value: int) -> bytes:
    """Return an attribute with 16 bits in the host's byte order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """Return an attribute with 32 bits in the host's byte order."""
    return attribute(kind, struct.pack("=L", value))


def be16(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(2, "big"))


def be32(kind: int, value: int) -> bytes:
    """Return an attribute with 32 bits in network byte order, as all of netfilter's are."""
    return attribute(kind, value.to_bytes(4, "big"))


def each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type without its flags, value) of attributes one after the other. Raises OSError (EBADMSG)."""
    at, end = 0, len(data)
    while end - at >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not 4 <= length <= end - at:
            raise _malformed(f"an attribute of {length} bytes where {end - at} are left")
        yield kind & _TYPE_MASK, data[at + 4 : at + length]
        at += length + -length % 4
    if any(data[at:end]):
        raise _malformed("bytes behind the last attribute")


def attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by type; of several with one type the last. Raises OSError (EBADMSG)."""
    return dict(each(data))


def string(value: bytes) -> str:
    """Return a NUL-terminated string's text."""
    return value.split(b"\0", 1)[0].decode(errors="surrogateescape")


def number(value: bytes) -> int:
    """Return an integer in the host's byte order, of any length."""
    return int.from_bytes(value, "little" if _LITTLE else "big")


_LITTLE = struct.pack("=H", 1)[0] == 1


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one message with its header, padded."""
    length = HEADER.size + len(payload)
    return HEADER.pack(length, kind, flags, sequence, 0) + payload + b"\0" * (-length % 4)


class Message:
    """One message that arrived. payload: the family's header and the attributes."""

    __slots__ = ("flags", "kind", "payload", "sequence")

    def __init__(self, kind: int, flags: int, sequence: int, payload: bytes) -> None:
        self.kind = kind
        self.flags = flags
        self.sequence = sequence
        self.payload = payload


def split(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram. Raises OSError (EBADMSG) where one does not fit."""
    at, end = 0, len(data)
    while end - at >= HEADER.size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if not HEADER.size <= length <= end - at:
            raise _malformed(f"a message of {length} bytes where {end - at} are left")
        yield Message(kind, flags, sequence, data[at + HEADER.size : at + length])
        at += length + -length % 4
    if at < end:
        raise _malformed("half a header behind the last message")


class Refusal:
    """What an NLMSG_ERROR says. errno 0 is an acknowledgement; words: the kernel's own, or ""."""

    __slots__ = ("errno", "words")

    def __init__(self, found: Message) -> None:
        """Raises OSError (EBADMSG)."""
        if len(found.payload) < 4 + HEADER.size:
            raise _malformed(f"an error of {len(found.payload)} bytes")
        code, length = struct.unpack_from("=lL", found.payload)
        if code > 0:
            raise _malformed(f"an error with the positive code {code}")
        self.errno = -code
        self.words = ""
        if found.flags & _ACK_TLVS:
            # The header of the refused message comes back, and unless it is "capped" its payload too.
            at = 4 + (HEADER.size if found.flags & _CAPPED else length + -length % 4)
            self.words = string(attributes(found.payload[at:]).get(_EXTENDED_MESSAGE, b""))


class Socket:
    """A netlink socket of the network namespace in which it was made, wherever it is used. One thread at a time."""

    def __init__(self, protocol: int, made: socket | None = None) -> None:
        """made: by another one of these, and given away as its `raw`. Raises OSError."""
        self._sequence = int.from_bytes(os.urandom(3), "big")
        self._socket = made or socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        if made is not None:
            return
        try:
            self._socket.setsockopt(SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, _EXT_ACK, 1)
            if protocol == ROUTE:
                self._socket.setsockopt(SOL_NETLINK, _GET_STRICT_CHK, 1)
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20)
            self._socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 1 << 20)
            # Not Python's own timeout, under which MSG_DONTWAIT would wait as well.
            self._socket.setsockopt(SOL_SOCKET, _SO_RCVTIMEO, struct.pack("=qq", _ANSWER_S_MAX, 0))
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    @property
    def raw(self) -> socket:
        """The socket itself, for who passes it to another process."""
        return self._socket

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, kind: int, flags: int, payload: bytes, call: str, subject: str = "") -> list[Message]:
        """Send one message and return what comes back before its acknowledgement.

        call, subject: what the OSError of a refusal names.
        """
        sequence = self._next()
        self._send(message(kind, flags | REQUEST | ACK, sequence, payload), call, subject)
        found = []
        while True:
            for answer in self._receive(sequence, call, subject):
                if answer.kind != _ERROR:
                    found.append(answer)
                    continue
                refused = Refusal(answer)
                if refused.errno:
                    raise abi.error(call, refused.errno, subject or None, refused.words)
                return found

    def dump(self, kind: int, payload: bytes, call: str, subject: str = "") -> list[Message]:
        """Return every object of a kind. Raises OSError, EINTR when it changed each time it was asked for."""
        for _ in range(_DUMPS_MAX):
            found = self._dump(kind, payload, call, subject)
            if found is not None:
                return found
        raise abi.error(call, errno.EINTR, subject or None, "it never stood still")

    def transact(self, begin: bytes, messages: list[Request], end: bytes) -> None:
        """Send messages as one datagram between the two frames of an nfnetlink batch: all of them count, or none.

        Raises OSError for the first that is refused.
        """
        if not messages:
            return
        sequences = {0: ("nfnetlink batch", "")}
        data = [begin]
        for kind, flags, payload, call, subject in messages:
            sequence = self._next()
            sequences[sequence] = (call, subject)
            # One acknowledgement tells that the kernel came to the end.
            last = ACK if len(sequences) > len(messages) else 0
            data.append(message(kind, flags | REQUEST | last, sequence, payload))
        self._send(b"".join((*data, end)), "nfnetlink batch", "")
        failure, answered = self._judge_batch(sequences)
        if failure is not None:
            raise failure
        if not answered:
            raise abi.error("nfnetlink batch", errno.EBADMSG, None, "the kernel did not answer")

    def _judge_batch(self, sequences: dict[int, tuple[str, str]]) -> tuple[OSError | None, bool]:
        """Return the first refusal, and whether anything was answered. All answers are there when sendto returns."""
        failure: OSError | None = None
        answered = False
        while True:
            try:
                found = list(self._receive(None, "nfnetlink batch", "", MSG_DONTWAIT))
            except BlockingIOError:
                return failure, answered
            for answer in found:
                if answer.kind == _ERROR and answer.sequence in sequences:
                    refused = Refusal(answer)
                    answered = True
                    if refused.errno and failure is None:
                        call, subject = sequences[answer.sequence]
                        failure = abi.error(call, refused.errno, subject or None, refused.words)

    def _next(self) -> int:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        return self._sequence

    def _dump(self, kind: int, payload: bytes, call: str, subject: str) -> list[Message] | None:
        sequence = self._next()
        self._send(message(kind, REQUEST | DUMP, sequence, payload), call, subject)
        found: list[Message] = []
        interrupted = False
        while True:
            try:
                answers = list(self._receive(sequence, call, subject))
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise
                interrupted = True  # to its end, all the same: until then the kernel begins no other one
                continue
            for answer in answers:
                interrupted = interrupted or bool(answer.flags & _DUMP_INTERRUPTED)
                if answer.kind == _DONE:
                    code = struct.unpack_from("=l", answer.payload)[0] if len(answer.payload) >= 4 else 0
                    if code < 0:
                        raise abi.error(call, -code, subject or None)
                    return None if interrupted else found
                if answer.kind == _ERROR:
                    refused = Refusal(answer)
                    raise abi.error(call, refused.errno or errno.EBADMSG, subject or None, refused.words)
                found.append(answer)

    def _send(self, data: bytes, call: str, subject: str) -> None:
        try:
            if len(data) > 1 << 19:
                self._socket.setsockopt(SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
            self._socket.sendto(data, (0, 0))
        except OSError as failure:
            raise abi.error(call, failure.errno or errno.EIO, subject or None) from None

    def _receive(self, sequence: int | None, call: str, subject: str, flags: int = 0) -> Iterator[Message]:
        try:
            data, _, cut, sender = self._socket.recvmsg(RECEIVE_BYTES, 0, flags)
        except BlockingIOError:
            if flags & MSG_DONTWAIT:
                raise
            raise abi.error(call, errno.ETIMEDOUT, subject or None, "the kernel does not answer") from None
        except OSError as failure:
            raise abi.error(call, failure.errno or errno.EIO, subject or None) from None
        if sender[0] != 0:
            return
        if cut & MSG_TRUNC:
            raise _malformed(f"a datagram of more than {RECEIVE_BYTES} bytes")
        for found in split(data):
            if found.kind == _OVERRUN:
                raise abi.error(call, errno.ENOBUFS, subject or None, "messages were lost")
            if found.kind != _NOOP and (sequence is None or found.sequence == sequence):
                yield found


def _malformed(what: str) -> OSError:
    return abi.error("netlink", errno.EBADMSG, None, what)
