"""One directory of several layers as overlayfs shows it, without a mount: names, what is behind them, what lies below.

What is hidden by a whiteout, an opaque directory or something that is no directory does not show. Everything is opened
as a place (O_PATH) in an open directory, without following: the trees may change meanwhile.
Source: kernel, Documentation/filesystems/overlayfs.rst. redirect_dir and metacopy are off in our mounts.
"""

from __future__ import annotations

import os
import stat

from .overlay import OPAQUE_XATTR, is_whiteout
from .removal import DIRECTORY_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE = "idle"
PLACE_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry:
    """What a name stands for. place: an O_PATH descriptor, the caller's to close; layer: which directory has it."""

    __slots__ = ("info", "layer", "place")

    def __init__(self, place: int, info: os.stat_result, layer: int) -> None:
        self.place = place
        self.info = info
        self.layer = layer


class Directory:
    """The same directory in several layers, the topmost first. Owns its descriptors.

    plain: a tree of its own; a device 0:0 is then a device, and not a whiteout. hides: one of these layers says that
    nothing of the same directory below it shows.
    """

    __slots__ = ("_fds", "hides", "plain")

    def __init__(self, fds: Sequence[int], *, plain: bool, hides: bool = False) -> None:
        self._fds = tuple(fds)
        self.plain = plain
        self.hides = hides

    @property
    def fd(self) -> int:
        """The topmost, whose owner, mode and attributes show."""
        return self._fds[0]

    def names(self) -> list[bytes]:
        """Return the names that some layer has, the last one first. `find` tells which of them show."""
        if len(self._fds) == 1:
            return sorted(map(os.fsencode, os.listdir(self._fds[0])), reverse=True)
        return sorted({os.fsencode(name) for fd in self._fds for name in os.listdir(fd)}, reverse=True)

    def find(self, name: bytes) -> Entry | None:
        """Return what shows under a name, None when nothing does (any more)."""
        for layer, fd in enumerate(self._fds):
            try:
                place = os.open(name, PLACE_FLAGS, dir_fd=fd)
            except FileNotFoundError:
                continue
            info = os.fstat(place)
            if not self.plain and is_whiteout(info):
                os.close(place)
                return None
            return Entry(place, info, layer)
        return None

    def enter(self, name: bytes, entry: Entry) -> Directory:
        """Return the directory that an entry of ours is. The entry's place stays the caller's. Raises OSError."""
        found = [os.open(".", DIRECTORY_FLAGS, dir_fd=entry.place)]
        hides = entry.layer + 1 < len(self._fds) and is_opaque(found[-1])
        try:
            for fd in self._fds[entry.layer + 1 :]:
                if hides:
                    break
                try:
                    below = os.open(name, PLACE_FLAGS, dir_fd=fd)
                except FileNotFoundError:
                    continue
                try:
                    if not stat.S_ISDIR(os.fstat(below).st_mode):
                        hides = True
                        break
                    found.append(os.open(".", DIRECTORY_FLAGS, dir_fd=below))
                    hides = is_opaque(found[-1])
                finally:
                    os.close(below)
        except BaseException:
            for fd in found:
                os.close(fd)
            raise
        return Directory(found, plain=self.plain, hides=hides)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = ()


def open_layers(paths: Sequence[str], *, plain: bool = False) -> Directory:
    """Return the root of these trees, the topmost first. Raises OSError."""
    fds: list[int] = []
    try:
        for path in paths:
            fds.append(os.open(path, DIRECTORY_FLAGS))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return Directory(fds, plain=plain)


def idle_whiteouts(own: Directory, below: Directory | None) -> list[bytes]:
    """Return the paths of whiteouts in `own` that hide nothing of `below`. Closes both. Raises OSError.

    own: opened as plain. Such a whiteout is no trifle: overlayfs shows its name in a directory that no layer below has,
    and finds nothing under it.
    """
    found: list[bytes] = []
    levels = [_level(own, below, b"")]
    try:
        while levels:
            own, below, prefix, names = levels[-1]
            if not names:
                levels.pop()
                _close(own, below)
                continue
            name = names.pop()
            inner = _look(own, below, name)
            if inner == IDLE:
                found.append(prefix + name)
            elif isinstance(inner, tuple):
                levels.append(_level(*inner, prefix + name + b"/"))
    finally:
        for own, below, _, _ in levels:
            _close(own, below)
    return found


def _level(
    own: Directory, below: Directory | None, prefix: bytes
) -> tuple[Directory, Directory | None, bytes, list[bytes]]:
    if own.hides or is_opaque(own.fd):
        _close(below)
        below = None
    return own, below, prefix, own.names()


def _look(own: Directory, below: Directory | None, name: bytes) -> tuple[Directory, Directory | None] | str:
    """Return IDLE for a whiteout of nothing, two directories to look through, or "" for everything else."""
    entry = own.find(name)
    if entry is None:
        return ""
    before = below.find(name) if below is not None else None
    try:
        if is_whiteout(entry.info):
            return IDLE if before is None else ""
        if not stat.S_ISDIR(entry.info.st_mode):
            return ""
        is_merged = before is not None and stat.S_ISDIR(before.info.st_mode)
        inner = own.enter(name, entry)
        return inner, (below.enter(name, before) if is_merged and below and before else None)
    finally:
        os.close(entry.place)
        if before is not None:
            os.close(before.place)


def _close(*directories: Directory | None) -> None:
    for directory in directories:
        if directory is not None:
            directory.close()


def is_opaque(fd: int) -> bool:
    """Tell whether a directory hides those below it."""
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
