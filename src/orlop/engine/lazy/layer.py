"""One layer as a file: the kernel reads blocks, and they come from the skeleton, or proven from the layer's blob."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
import zlib
from bisect import bisect_right
from collections import OrderedDict

from ...spec.digest import Digest
from ...spec.errors import Invalid, OrlopError
from ...spec.tar.estargz import FOOTER_BYTES, TOC_DIGEST, Toc, toc_offset, unpack_toc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...image.parts.ranges import Ranges
    from ...snapshot.skeleton import Skeleton
    from ...spec.tar.estargz import Chunk

KEPT_BYTES = 48 * 1024**2  # of all layers of an image: chunks that the kernel reads piece by piece
FAILURES_TOLD_S = 10.0


def read_toc(ranges: Ranges) -> Toc:
    """Return the table of contents of a layer, proven by its descriptor. Raises Invalid, Unavailable, Unsupported."""
    descriptor = ranges.descriptor
    subject = f"the table of contents of layer {descriptor.digest.short}"
    expected = Digest(descriptor.annotations[TOC_DIGEST])
    end = descriptor.size - FOOTER_BYTES
    if end <= 0:
        raise Invalid("read", subject, "the layer is too short to have one")
    begin = toc_offset(ranges.read(end, descriptor.size), descriptor.size)
    return Toc(unpack_toc(ranges.read(begin, end), expected, subject), begin, subject)


class Kept:
    """Chunks that were proven, the last used ones. wanted_at: when somebody last waited for one (monotonic)."""

    def __init__(self, failed: Callable[[str], object]) -> None:
        self.wanted_at = float("-inf")
        self._failed = failed
        self._failed_at = float("-inf")
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._coming: dict[tuple[int, int, int], threading.Event] = {}

    def get(self, key: tuple[int, int, int], make: Callable[[], bytes]) -> bytes:
        """Return a chunk, made by the first who wants it. Raises OSError (EIO): why is told to `failed`."""
        while True:
            with self._lock:
                found = self._chunks.get(key)
                if found is not None:
                    self._chunks.move_to_end(key)
                    return found
                coming = self._coming.get(key)
                if coming is None:
                    done = self._coming[key] = threading.Event()
                    break
            coming.wait()
        try:
            self.wanted_at = time.monotonic()
            data = make()
        except (OrlopError, MemoryError) as wrong:
            self._tell(str(wrong))
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
        finally:
            self.wanted_at = time.monotonic()
            with self._lock:
                del self._coming[key]
            done.set()
        with self._lock:
            self._chunks[key] = data
            self._bytes += len(data)
            while self._bytes > KEPT_BYTES and len(self._chunks) > 1:
                self._bytes -= len(self._chunks.popitem(last=False)[1])
        return data

    def _tell(self, cause: str) -> None:
        now = time.monotonic()
        if now - self._failed_at > FAILURES_TOLD_S:
            self._failed_at = now
            self._failed(cause)


class LayerFile:
    """What the kernel mounts. number: of the layer; one of its image."""

    def __init__(self, number: int, skeleton: Skeleton, toc: Toc, ranges: Ranges, kept: Kept) -> None:
        self.size = skeleton.size
        self._number = number
        self._file = skeleton.file
        self._toc = toc
        self._ranges = ranges
        self._kept = kept
        self._starts: list[int] = []
        self._pieces: list[tuple[int, int, tuple[Chunk, ...]]] = []
        for start, end, paths in skeleton.pieces:
            chunks = next((toc.contents[path] for path in paths if path in toc.contents), ())
            if not chunks or chunks[-1][0] + chunks[-1][1] != end - start:
                raise Invalid("read", toc.subject, f"nothing says what is in {os.fsdecode(paths[0])[:200]!r}")
            self._starts.append(start)
            self._pieces.append((start, end, chunks))

    def read(self, offset: int, count: int) -> Sequence[bytes | bytearray]:
        """Return the file's bytes from offset on. Raises OSError."""
        count = max(min(count, self.size - offset), 0)
        data = bytearray(count)
        taken = os.preadv(self._file, (data,), offset)
        assert taken == count  # it is as long as its size says
        at = max(bisect_right(self._starts, offset) - 1, 0)
        while at < len(self._pieces) and self._pieces[at][0] < offset + count:
            start, end, chunks = self._pieces[at]
            if end > offset:
                self._fill(data, offset, start, chunks)
            at += 1
        return (data,)

    def _fill(self, data: bytearray, offset: int, start: int, chunks: tuple[Chunk, ...]) -> None:
        """Put what is wanted of one file's content into data, which begins at offset of the image."""
        low, high = max(offset - start, 0), offset - start + len(data)
        at = bisect_right(chunks, low, key=lambda chunk: chunk[0]) - 1
        while at < len(chunks) and chunks[at][0] < high:
            begin, size = chunks[at][:2]
            content = memoryview(self._content(chunks[at]))
            first, last = max(low - begin, 0), min(high - begin, size)
            place = start + begin + first - offset
            data[place : place + last - first] = content[first:last]
            at += 1

    def _content(self, chunk: Chunk) -> bytes:
        return self._kept.get((self._number, chunk[2], chunk[3]), lambda: self._proven(chunk))

    def _proven(self, chunk: Chunk) -> bytes:
        """Return a chunk's bytes, compared with its digest. Raises Invalid, Unavailable."""
        _, size, offset, skipped, digest = chunk
        most = skipped + size
        # What stands behind the chunk in its member is not wanted; deflate adds 5 bytes to 16 KiB at the worst.
        end = min(self._toc.extent(offset), offset + most + most // 1024 + 4096)
        inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            data = inflate.decompress(self._ranges.read(offset, end), most)[skipped:]
        except zlib.error as wrong:
            raise self._wrong(offset, f"its gzip data is damaged ({wrong})") from None
        if hashlib.sha256(data).digest() != digest:
            raise self._wrong(offset, "it is not what the layer's table of contents names")
        return data

    def _wrong(self, offset: int, cause: str) -> Invalid:
        return Invalid("read", f"layer {self._ranges.descriptor.digest.short} at byte {offset}", cause)
