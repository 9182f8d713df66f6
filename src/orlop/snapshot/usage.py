"""How much a tree occupies, counted without following anything and whatever its depth."""

from __future__ import annotations

import os
import stat

from .record import Usage
from .removal import DIRECTORY_FLAGS

BLOCK_BYTES = 512  # the unit of st_blocks, see stat(2)


def measure(path: str) -> Usage:
    """Return what the tree below path occupies, path itself included. Raises OSError.

    The tree may change meanwhile (a container runs): what disappears is not counted. Directories are entered one by
    one and left through "..", so that depth costs no descriptors; one that was moved away ends the count of its branch.
    """
    seen: set[tuple[int, int]] = set()
    blocks = inodes = 0
    here = os.open(path, DIRECTORY_FLAGS)
    try:
        info = os.fstat(here)
        blocks, inodes = info.st_blocks, 1
        pending: list[tuple[tuple[int, int], list[str]]] = []  # (directory, its subdirectories not yet counted)
        identity = (info.st_dev, info.st_ino)
        names, found = _count(here, seen)
        blocks, inodes = blocks + found[0], inodes + found[1]
        while True:
            if names:
                child = _enter(here, names.pop())
                if child < 0:
                    continue
                pending.append((identity, names))
                os.close(here)
                here = child
                info = os.fstat(here)
                identity = (info.st_dev, info.st_ino)
                names, found = _count(here, seen)
                blocks, inodes = blocks + found[0], inodes + found[1]
            elif pending:
                identity, names = pending.pop()
                parent = os.open("..", DIRECTORY_FLAGS, dir_fd=here)
                os.close(here)
                here = parent
                info = os.fstat(here)
                if (info.st_dev, info.st_ino) != identity:
                    break
            else:
                break
    finally:
        os.close(here)
    return Usage(bytes=blocks * BLOCK_BYTES, inodes=inodes)


def _count(directory: int, seen: set[tuple[int, int]]) -> tuple[list[str], tuple[int, int]]:
    """Return the subdirectories of a directory, and (blocks, inodes) of all its entries."""
    names = []
    blocks = inodes = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(info.st_mode):
                names.append(entry.name)
            elif info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            blocks += info.st_blocks
            inodes += 1
    return names, (blocks, inodes)


def _enter(directory: int, name: str) -> int:
    """Return a descriptor of a subdirectory, or -1 when it is gone or something else by now."""
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    except OSError:
        return -1
