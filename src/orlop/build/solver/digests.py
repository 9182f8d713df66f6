"""What files hold, by digest: read once, and known again by device, inode, size and both times.

A file's change time can't be set back (inode(7)), so a file with the same numbers has the same content, unless it was
written in the same tick as it was read: what is younger than RACY_NS when it is hashed is not remembered.

$ORLOP_ROOT/build/digests/<hash of a place>: rows of fixed size, the newest knowledge of one context (writer: this
module). It is a cache: it may be deleted at any time, and a damaged one is no one.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RACY_NS = 2_000_000_000
READ_BYTES = 1024 * 1024
ROWS_MAX = 4_000_000
_ROW = struct.Struct("<QQQQQ32s")


class Digests:
    """Digests of the files of one place. Safe in threads."""

    def __init__(self, path: str = "", check: Callable[[], None] = lambda: None) -> None:
        """path: where they are kept, "" for nowhere. check: raises what ends the reading of a file, however large."""
        self._path = path
        self._check = check
        self._known: dict[tuple[int, int, int, int, int], bytes] = _load(path) if path else {}
        self._used: dict[tuple[int, int, int, int, int], bytes] = {}
        self._lock = threading.Lock()
        self._changed = False
        self.hashed_bytes = 0

    def of(self, info: os.stat_result, open_file: Callable[[], int]) -> bytes:
        """Return the SHA-256 of a regular file. info: its fstat; open_file: a descriptor for reading, closed here.

        Raises OSError, and what `check` raises.
        """
        row = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        found = self._known.get(row)
        if found is None:
            found = _hash(open_file(), self._check)
            with self._lock:
                self.hashed_bytes += info.st_size
                if time.time_ns() - info.st_ctime_ns < RACY_NS:
                    return found
                self._changed = True
        self._used[row] = found
        return found

    def save(self) -> None:
        """Keep what was used since this was opened. What can't be written is read again the next time."""
        with self._lock:
            if not self._path or not (self._changed or len(self._used) < len(self._known) // 2):
                return
            rows = list(self._used.items())[:ROWS_MAX]
            self._changed = False
        temporary = f"{self._path}.{os.urandom(4).hex()}.tmp"
        try:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(b"".join(_ROW.pack(*row, digest) for row, digest in rows))
            os.rename(temporary, self._path)
        except OSError:
            pass


def _load(path: str) -> dict[tuple[int, int, int, int, int], bytes]:
    try:
        with open(path, "rb") as file:
            data = file.read(ROWS_MAX * _ROW.size + 1)
    except OSError:
        return {}
    if len(data) % _ROW.size:
        return {}
    return {row[:5]: row[5] for row in _ROW.iter_unpack(data)}


def _hash(fd: int, check: Callable[[], None]) -> bytes:
    digest = hashlib.sha256()
    try:
        while data := os.read(fd, READ_BYTES):
            digest.update(data)
            check()
    finally:
        os.close(fd)
    return digest.digest()
