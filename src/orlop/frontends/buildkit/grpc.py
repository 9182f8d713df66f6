"""gRPC calls on HTTP/2 streams: messages in frames, statuses in trailers.

Source: grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/statuscodes.md.
"""

from __future__ import annotations

import base64
import struct
from urllib.parse import quote, unquote

from .http2 import Broken, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .http2 import Connection, Headers

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = 0, 1, 2, 3, 5, 6
PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 7, 8, 12, 13, 14
MESSAGE_BYTES_MAX = 64 << 20
_HEAD = struct.Struct(">BI")
_CONTENT = ("content-type", "application/grpc")


class Failed(Exception):
    """A call's status is not OK. status: google.rpc.Status, where there is more to tell than the code and the text."""

    def __init__(self, code: int, text: str, status: bytes = b"") -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.status = status


class Call:
    """One call, either side of it. `messages` are the peer's."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._begun = False

    @property
    def metadata(self) -> Headers:
        return self.stream.headers

    def messages(self) -> Iterator[bytes]:
        """Yield what the peer sends until it has said everything. Raises Broken, Failed for a broken frame."""
        waiting = bytearray()
        while (data := self.stream.read()) is not None:
            waiting += data
            at = 0  # in front of it is what was told; it goes once, and not after each message
            while len(waiting) - at >= _HEAD.size:
                compressed, size = _HEAD.unpack_from(waiting, at)
                if compressed or size > MESSAGE_BYTES_MAX:
                    raise Failed(RESOURCE_EXHAUSTED, f"a message is compressed or has {size} bytes")
                if len(waiting) - at < _HEAD.size + size:
                    break
                with memoryview(waiting) as view:
                    message = bytes(view[at + _HEAD.size : at + _HEAD.size + size])
                at += _HEAD.size + size
                yield message
            del waiting[:at]
        if waiting:
            raise Failed(INTERNAL, "the stream ends within a message")

    def send(self, message: bytes) -> None:
        """Send a message. Raises Broken."""
        if not self._begun:
            self._begun = True
            self.stream.send_headers([(":status", "200"), _CONTENT])
        self.stream.send(_HEAD.pack(0, len(message)) + message)

    def finish(self, code: int = OK, text: str = "", status: bytes = b"") -> None:
        """End a call that the peer began, with its status. Raises Broken."""
        trailers = [("grpc-status", str(code))]
        if text:
            trailers.append(("grpc-message", quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"")))
        if status:
            trailers.append(("grpc-status-details-bin", base64.b64encode(status).decode().rstrip("=")))
        if not self._begun:
            trailers = [(":status", "200"), _CONTENT, *trailers]
        self.stream.send_headers(trailers, end=True)


class Outgoing(Call):
    """A call that we began."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._begun = True

    def send(self, message: bytes) -> None:
        """Send a message. Raises Failed when the peer has ended the call already, Broken."""
        try:
            super().send(message)
        except Broken:
            if self.stream.over:
                self.check()
            raise

    def end(self) -> None:
        """Say that we have said everything; the peer may have ended the call already."""
        try:
            self.stream.send(b"", end=True)
        except Broken:
            if not self.stream.over:
                raise

    def check(self) -> None:
        """Raise Failed when the call's status is not OK; to be asked after its messages."""
        found = self.stream.trailers or self.stream.headers
        code = found.get("grpc-status", ["2"])[0]
        if code != "0":
            text = unquote(found.get("grpc-message", ["the peer gave no reason"])[0])
            raise Failed(int(code) if code.isascii() and code.isdecimal() and len(code) < 4 else UNKNOWN, text)


def begin(connection: Connection, method: str, metadata: Sequence[tuple[str, str]] = ()) -> Outgoing:
    """Begin a call of "/package.Service/Method". Raises Broken."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"), _CONTENT]
    return Outgoing(connection.open([*headers, ("te", "trailers"), *metadata]))


def call(connection: Connection, method: str, message: bytes, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
    """Call with one message and return the one that answers. Raises Failed, Broken."""
    outgoing = begin(connection, method, metadata)
    outgoing.send(message)
    outgoing.end()
    answers = list(outgoing.messages())
    outgoing.check()
    if len(answers) != 1:
        raise Failed(INTERNAL, f"{method} answered with {len(answers)} messages")
    return answers[0]


def serve(stream: Stream, methods: Mapping[str, Callable[[Call], None]]) -> None:
    """Carry out one call that the peer began: its method says everything but the status."""
    path = stream.headers.get(":path", [""])[0]
    incoming = Call(stream)
    code, text, status = OK, "", b""
    try:
        method = methods.get(path)
        if method is None:
            raise Failed(UNIMPLEMENTED, f"unknown method {path[:200]}")
        method(incoming)
    except Failed as error:
        code, text, status = error.code, error.text, error.status
    except Broken:
        stream.reset()
        return
    except Exception as error:  # a defect: the client must not wait for an answer for ever
        code, text = INTERNAL, f"a defect of the engine: {type(error).__name__}: {error}"
    try:
        incoming.finish(code, text, status)
    except Broken:
        return
