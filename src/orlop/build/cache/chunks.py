"""A stream of bytes cut where its own content says so: what is in two streams is cut in the same places in both.

A cut is behind RUN_BYTES bytes whose low nibbles are all 13: of random bytes one place in 2**20, and of text some. So
what is put in or taken out changes the pieces around it and no others. What finds the places is `bytes.translate` and
`bytes.find`: a loop over bytes could not keep pace with a disk here, a regular expression takes ten times as long.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RUN_BYTES = 5
BYTES_MIN = 256 * 1024
BYTES_MAX = 4 * 1024 * 1024
_MARKS = bytes(byte & 0x0F == 0x0D for byte in range(256))
_PLACE = b"\1" * RUN_BYTES


class Cutter:
    """Takes a stream as it comes, and gives its pieces to `put`. The last one comes with `finish`."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._data = bytearray()
        self._searched = BYTES_MIN  # no cut ends before here

    def write(self, data: bytes) -> None:
        self._data += data
        while len(self._data) > self._searched:
            start = self._searched - RUN_BYTES
            place = self._data[start:BYTES_MAX].translate(_MARKS).find(_PLACE)
            if place >= 0:
                self._cut(start + place + RUN_BYTES)
            elif len(self._data) >= BYTES_MAX:
                self._cut(BYTES_MAX)
            else:
                self._searched = len(self._data)

    def finish(self) -> None:
        if self._data:
            self._cut(len(self._data))

    def _cut(self, size: int) -> None:
        piece = bytes(self._data[:size])
        del self._data[:size]
        self._searched = BYTES_MIN
        self._put(piece)
