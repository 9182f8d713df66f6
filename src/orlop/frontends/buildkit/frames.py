"""What comes on a connection of HTTP/2, cut into what the library shall see and plain DATA frames, which it need not.

A client's folder comes in frames of 16 KiB at most: what the library does for each costs more than its content.
Plain is a DATA frame without flags, of a stream that takes such frames; everything else goes to the library as it came.
Source: RFC 9113, 3.4 (the preface), 4.1, 6.1, 6.9.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFACE_BYTES = 24
HEAD_BYTES = 9
PAYLOAD_BYTES_MAX = 16384  # SETTINGS_MAX_FRAME_SIZE, as we leave it
_DATA, _HEADERS, _PUSH_PROMISE, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 5, 8, 9
_END_HEADERS = 4
_UPDATE = struct.Struct(">BHBBII")


class Frames:
    """The frames of one connection, in their order."""

    def __init__(self, is_plain: Callable[[int], bool], *, preface: bool) -> None:
        self._is_plain = is_plain
        self._waiting = bytearray()
        self._preface = PREFACE_BYTES if preface else 0
        self._is_in_headers = False
        self._is_broken = False

    def cut(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (a stream, the content of its plain frames that follow each other), and (0, bytes) for the library.

        What the library shall see is yielded before the next frame is looked at: it decides what is plain.
        """
        if self._preface:
            ahead, data = data[: self._preface], data[self._preface :]
            self._preface -= len(ahead)
            yield 0, ahead
        self._waiting += data
        waiting = self._waiting
        at = begun = 0  # where the next frame begins, and what nobody has yet
        stream, pieces = 0, bytearray()
        while not self._is_broken and len(waiting) - at >= HEAD_BYTES:
            size = int.from_bytes(waiting[at : at + 3], "big")
            kind, flags = waiting[at + 3], waiting[at + 4]
            if size > PAYLOAD_BYTES_MAX:
                self._is_broken = True  # the library says so
                break
            end = at + HEAD_BYTES + size
            if end > len(waiting):
                break
            number = 0
            if kind == _DATA and not flags and size and not self._is_in_headers:
                if at > begun:
                    yield 0, bytes(waiting[begun:at])
                    begun = at
                number = int.from_bytes(waiting[at + 5 : at + HEAD_BYTES], "big") & 0x7FFFFFFF
                number = number if self._is_plain(number) else 0
            elif kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
                self._is_in_headers = not flags & _END_HEADERS
            if pieces and number != stream:
                yield stream, bytes(pieces)
                pieces = bytearray()
            if number:
                stream = number
                pieces += waiting[at + HEAD_BYTES : end]
                begun = end
            at = end
        if pieces:
            yield stream, bytes(pieces)
        if self._is_broken:
            at = len(waiting)
        if at > begun:
            yield 0, bytes(waiting[begun:at])
        del waiting[:at]


def window_update(number: int, size: int) -> bytes:
    """Return the frame that opens a stream's window again, the connection's where the number is 0."""
    return _UPDATE.pack(0, 4, _WINDOW_UPDATE, 0, number, size)
