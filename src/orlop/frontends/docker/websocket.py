"""GET /containers/{id}/attach/ws: an attach whose bytes travel in WebSocket messages.

As docker's: what the process says comes as binary messages, both of its streams in one; what the client sends in text
or binary messages is typed. Source: RFC 6455.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from .door import Door, Status

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_NORMAL = 1000  # RFC 6455, 7.4.1
CONTROL_BYTES_MAX = 125  # RFC 6455, 5.5
MESSAGE_BYTES_MAX = 1024 * 1024


class Broken(Exception):
    """What came is no WebSocket frame of a client's."""


class Codec:
    """One connection's frames. replies: what is to be sent to the client beside what the process says."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self.replies = bytearray()
        self.closed = False

    def encode(self, data: bytes) -> bytes:
        """Return data as one binary message."""
        return _frame(_BINARY, data)

    def farewell(self) -> bytes:
        """Return the frame that says that nothing more comes."""
        return _frame(_CLOSE, _NORMAL.to_bytes(2, "big"))

    def decode(self, data: bytes) -> bytes:
        """Return the payload of the whole frames in what has come. Raises Broken."""
        self._waiting += data
        out = bytearray()
        while not self.closed and (found := self._take()) is not None:
            kind, payload = found
            if kind in (_CONTINUATION, _TEXT, _BINARY):
                out += payload
            elif kind == _PING:
                self.replies += _frame(_PONG, payload)
            elif kind == _CLOSE:
                self.closed = True
                self.replies += _frame(_CLOSE, payload[:2])
            elif kind != _PONG:
                raise Broken(f"a frame of kind {kind}")
        return bytes(out)

    def _take(self) -> tuple[int, bytes] | None:
        """Take the first frame, None when it has not come wholly."""
        data = self._waiting
        if len(data) < 2:
            return None
        kind, size, start = data[0] & 0x0F, data[1] & 0x7F, 2
        if data[0] & 0x70 or not data[1] & 0x80:
            raise Broken("a frame with reserved bits, or without a mask")  # RFC 6455, 5.1: a client masks
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(data) < 2 + width:
                return None
            size, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
        if size > (CONTROL_BYTES_MAX if kind >= _CLOSE else MESSAGE_BYTES_MAX):
            raise Broken(f"a frame of {size} bytes")
        if len(data) < start + 4 + size:
            return None
        mask = bytes(data[start : start + 4])
        payload = bytes(data[start + 4 : start + 4 + size])
        del data[: start + 4 + size]
        keys = (mask * (size // 4 + 1))[:size]
        return kind, (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def _frame(kind: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        head = bytes((0x80 | kind, size))
    elif size < 65536:
        head = bytes((0x80 | kind, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 127)) + size.to_bytes(8, "big")
    return head + data


def check(door: Door) -> dict[str, str]:
    """Return the headers that accept the client's handshake. Raises Status for what is none."""
    key = door.headers.get("Sec-WebSocket-Key", "")
    asked = (door.headers.get("Upgrade", "").lower(), door.headers.get("Sec-WebSocket-Version", ""))
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if asked != ("websocket", "13") or "upgrade" not in door.headers.get("Connection", "").lower() or not is_key:
        raise Status(400, "not a WebSocket handshake of version 13")
    accepted = base64.b64encode(hashlib.sha1(key.encode() + _MAGIC, usedforsecurity=False).digest())
    return {"Sec-WebSocket-Accept": accepted.decode()}
