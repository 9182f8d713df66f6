"""What differs between the trees of two images: names that came, went, or mean something else.

Times do not count: the same content built twice has others. What lies in a layer that both have is the same without
being looked at.
"""

from __future__ import annotations

import os
import stat

from .layered import open_layers
from .pack import xattrs_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .layered import Directory, Entry

ADDED, DELETED, CHANGED = "A", "D", "C"
READ_BYTES = 1024 * 1024


def compare(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, path from the root) of what differs, directories before what is in them. Raises OSError.

    old, new: the trees of an image, the topmost first. Of a directory that came or went only itself is named.
    """
    stack = [_Pair(b"", _opened(old), _opened(new))]
    try:
        while stack:
            pair = stack[-1]
            name = next(pair.names, None)
            if name is None:
                stack.pop().close()
                continue
            kind, below = pair.compare(name)
            if kind:
                yield kind, pair.path + b"/" + name
            if below is not None:
                stack.append(below)
    finally:
        for pair in stack:
            pair.close()


def _opened(trees: Sequence[str]) -> Directory | None:
    return open_layers(trees) if trees else None


class _Pair:
    """One directory of both images; None where an image has no layers. names: those not yet compared."""

    def __init__(self, path: bytes, before: Directory | None, after: Directory | None) -> None:
        self.path = path
        self._before, self._after = before, after
        self.names = iter(sorted({name for one in (before, after) if one is not None for name in one.names()}))

    def compare(self, name: bytes) -> tuple[str, _Pair | None]:
        """Return how a name differs, "" when it does not, and the pair of directories that it is in both."""
        one = self._before.find(name) if self._before is not None else None
        two = self._after.find(name) if self._after is not None else None
        try:
            if one is None or two is None:
                return ("" if one is two else DELETED if two is None else ADDED), None
            kind = CHANGED if _differs(one, two) else ""
            if not (stat.S_ISDIR(one.info.st_mode) and stat.S_ISDIR(two.info.st_mode)):
                return kind, None
            assert self._before is not None  # both have found it
            assert self._after is not None
            path = self.path + b"/" + name
            return kind, _Pair(path, self._before.enter(name, one), self._after.enter(name, two))
        finally:
            for entry in (one, two):
                if entry is not None:
                    os.close(entry.place)

    def close(self) -> None:
        for directory in (self._before, self._after):
            if directory is not None:
                directory.close()


def _differs(one: Entry, two: Entry) -> bool:
    a, b = one.info, two.info
    if os.path.samestat(a, b):
        return False
    if (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid):
        return True
    kind = stat.S_IFMT(a.st_mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and a.st_rdev != b.st_rdev:
        return True
    if kind == stat.S_IFLNK and os.readlink("", dir_fd=one.place) != os.readlink("", dir_fd=two.place):
        return True
    if kind in (stat.S_IFREG, stat.S_IFDIR) and _xattrs(one) != _xattrs(two):
        return True
    return kind == stat.S_IFREG and (a.st_size != b.st_size or not same_content(one.place, two.place))


def _xattrs(entry: Entry) -> dict[bytes, bytes]:
    return xattrs_of(f"/proc/self/fd/{entry.place}")


def same_content(one: int, two: int) -> bool:
    with (
        open(f"/proc/self/fd/{one}", "rb", buffering=0) as first,
        open(f"/proc/self/fd/{two}", "rb", buffering=0) as second,
    ):
        while True:
            data = first.read(READ_BYTES)
            if data != second.read(READ_BYTES):
                return False
            if not data:
                return True
