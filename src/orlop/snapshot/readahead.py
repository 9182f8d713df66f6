"""A stream that is decompressed on a thread of its own, while its reader hashes it and makes files of it.

zlib, hashlib and most system calls let go of the interpreter's lock, so the two overlap: extraction takes as long as
the slower of both instead of the sum.
"""

from __future__ import annotations

import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PIECE_BYTES = 1024 * 1024
PIECES_MAX = 4  # 4 MiB ahead, unless the caller has room for more


class ReadAhead:
    """The bytes that produce(n) returns, up to b"", in order; what it raises is raised by `read`. Close it.

    produce is called on another thread, and not again after it returned b"" or raised. pieces_max: how many pieces of
    PIECE_BYTES it may be ahead.
    """

    def __init__(self, produce: Callable[[int], bytes], pieces_max: int = PIECES_MAX) -> None:
        self._produce = produce
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(pieces_max)
        self._stopping = False
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
        self._thread.start()

    def read(self, count: int) -> bytes:
        """Return at least one and at most count bytes, b"" at the end."""
        if not self._rest and not self._ended:
            piece = self._pieces.get()
            if isinstance(piece, BaseException):
                self._ended = True
                raise piece
            self._rest = piece
            self._ended = not piece
        if len(self._rest) <= count:
            data, self._rest = self._rest, b""
        else:
            data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def close(self) -> None:
        """Stop and wait for the thread: nothing of it uses the source afterwards."""
        self._stopping = True
        while self._thread.is_alive():
            try:
                self._pieces.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            while not self._stopping:
                piece = self._produce(PIECE_BYTES)
                self._pieces.put(piece)
                if not piece:
                    return
        except BaseException as wrong:
            self._pieces.put(wrong)
