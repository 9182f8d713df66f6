"""What a container's own layer changes of the layers below it: docker's A, C and D.

What the runtime itself puts there does not count: the empty files and directories that it makes to mount something on,
and the directories that only lead to them. A layer made of the difference leaves them out as well.
"""

from __future__ import annotations

import os
import stat

from .extract import DEPTH_MAX
from .layered import Directory, is_opaque, open_layers
from .overlay import is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ADDED, MODIFIED, DELETED = "A", "C", "D"


class Difference:
    """changes: (kind, path without the leading slash) in the order of the paths. made: names that do not count.

    again_bytes: of files whose size and time are those of the files that they hide: a change of owner, mode or
    attributes copies all of a file up (overlayfs.rst, "Non-directories").
    """

    __slots__ = ("again_bytes", "changes", "made")

    def __init__(self) -> None:
        self.again_bytes = 0
        self.changes: list[tuple[str, bytes]] = []
        self.made: set[bytes] = set()


class _Level:
    """A directory that is being looked through. change: how it is noted when it counts.

    fixed: it counts whatever lies below. seen: something below counts.
    """

    __slots__ = ("change", "fixed", "lower", "names", "path", "seen", "upper")

    def __init__(self, upper: Directory, lower: Directory | None, path: bytes, change: str, fixed: bool) -> None:
        self.upper = upper
        self.lower = lower
        self.path = path
        self.change = change
        self.fixed = fixed
        self.names = upper.names()
        self.seen = False

    def close(self) -> None:
        self.upper.close()
        if self.lower is not None:
            self.lower.close()


def compare(upper: str, lower: Sequence[str], targets: Collection[bytes] = ()) -> Difference:
    """Return the difference that a layer makes. targets: where something is mounted, without the leading slash.

    Raises OSError.
    """
    return _Comparison(frozenset(targets)).run(upper, lower)


class _Comparison:
    def __init__(self, targets: frozenset[bytes]) -> None:
        self._targets = targets
        self._ways = {path[:at] for path in targets for at in range(len(path)) if path[at : at + 1] == b"/"} | targets
        self._out = Difference()

    def run(self, upper: str, lower: Sequence[str]) -> Difference:
        top = open_layers((upper,), plain=True)
        levels = [_Level(top, open_layers(lower) if lower else None, b"", MODIFIED, False)]
        try:
            while levels:
                level = levels[-1]
                if level.names:
                    if (below := self._look(level, level.names.pop())) is not None:
                        levels.append(below)
                    continue
                levels.pop().close()
                if levels:
                    self._leave(level, levels[-1])
        finally:
            for level in levels:
                level.close()
        self._out.changes.sort(key=lambda change: change[1].split(b"/"))
        return self._out

    def _look(self, level: _Level, name: bytes) -> _Level | None:
        """Note what one entry of the upper directory changes; return it when it is a directory to look through."""
        path = level.path + b"/" + name if level.path else name
        entry = level.upper.find(name)
        if entry is None:
            return None
        try:
            before = level.lower.find(name) if level.lower is not None else None
            try:
                if is_whiteout(entry.info):
                    if before is not None:
                        self._note(level, DELETED, path)
                    return None
                if not stat.S_ISDIR(entry.info.st_mode):
                    if before is None and path in self._targets and not entry.info.st_size:
                        self._out.made.add(path)
                    else:
                        self._note(level, ADDED if before is None else MODIFIED, path)
                        if before is not None and _holds_the_same(entry.info, before.info):
                            self._out.again_bytes += entry.info.st_size
                    return None
                if path.count(b"/") >= DEPTH_MAX:
                    return None
                upper = level.upper.enter(name, entry)
                was_directory = before is not None and stat.S_ISDIR(before.info.st_mode)
                lower = level.lower.enter(name, before) if was_directory and level.lower and before else None
                change = ADDED if before is None else MODIFIED
                fixed = before is not None and not _alike(entry.info, before.info)
                if before is None:
                    fixed = path not in self._ways
                below = _Level(upper, lower, path, change, fixed)
                if lower is not None and is_opaque(upper.fd):
                    self._note_hidden(below)
                return below
            finally:
                if before is not None:
                    os.close(before.place)
        finally:
            os.close(entry.place)

    def _leave(self, level: _Level, above: _Level) -> None:
        if level.fixed or level.seen:
            self._note(above, level.change, level.path)
        elif level.change == ADDED:
            self._out.made.add(level.path)

    def _note_hidden(self, level: _Level) -> None:
        """An opaque directory hides what was in it: that is gone, unless something of the name is there again."""
        assert level.lower is not None
        again = set(level.names)
        for name in level.lower.names():
            if name not in again and (entry := level.lower.find(name)) is not None:
                os.close(entry.place)
                self._note(level, DELETED, level.path + b"/" + name)

    def _note(self, level: _Level, kind: str, path: bytes) -> None:
        level.seen = True
        self._out.changes.append((kind, path))


def _holds_the_same(one: os.stat_result, other: os.stat_result) -> bool:
    both_regular = stat.S_ISREG(one.st_mode) and stat.S_ISREG(other.st_mode)
    return both_regular and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _alike(one: os.stat_result, other: os.stat_result) -> bool:
    """Compare directories as docker does: not their times, which change with what is in them."""
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
