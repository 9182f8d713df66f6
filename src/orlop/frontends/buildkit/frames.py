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
_HEAD = struct.Struct(">HBBBI")  # length in 24 bits, type, flags, stream
_UPDATE = struct.Struct(">BHBBII")


class Frames:
    """The frames of one connection, in their order."""

    def __init__(self, is_plain: Callable[[int], bool], *, preface: bool) -> None:
        self._is_plain = is_plain
        self._waiting = b""
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
        if self._waiting:
            data = self._waiting + data
        view, total = memoryview(data), len(data)
        at = begun = 0  # where the next frame begins, and what nobody has yet
        stream = 0
        pieces: list[memoryview] = []  # of plain frames: joined once, each byte is copied once
        while not self._is_broken and total - at >= HEAD_BYTES:
            high, low, kind, flags, number = _HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > PAYLOAD_BYTES_MAX:
                self._is_broken = True  # the library says so
                break
            end = at + HEAD_BYTES + size
            if end > total:
                break
            if kind == _DATA and not flags and size and not self._is_in_headers:
                if at > begun:
                    yield 0, data[begun:at]
                    begun = at
                number &= 0x7FFFFFFF
                number = number if self._is_plain(number) else 0
            else:
                number = 0
                if kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
                    self._is_in_headers = not flags & _END_HEADERS
            if pieces and number != stream:
                yield stream, b"".join(pieces)
                pieces = []
            if number:
                stream = number
                pieces.append(view[at + HEAD_BYTES : end])
                begun = end
            at = end
        if pieces:
            yield stream, b"".join(pieces)
        if self._is_broken:
            at = total
        if at > begun:
            yield 0, data[begun:at]
        self._waiting = data[at:]


def window_update(number: int, size: int) -> bytes:
    """Return the frame that opens a stream's window again, the connection's where the number is 0."""
    return _UPDATE.pack(0, 4, _WINDOW_UPDATE, 0, number, size)
