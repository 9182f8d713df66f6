"""Removing trees that somebody else has made: of any depth, with any modes, without following anything.

A recursive removal dies on a tree deeper than its stack or its descriptors, and a container can make one. Here every
directory that is not empty is first moved up next to the others, so that no path is ever longer than one name.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(parent: int, name: bytes | str, trash: int) -> None:
    """Remove what is called name in the directory `parent`, whatever it is; that nothing is there is no error.

    trash: a directory on the same file system, ours alone, where subdirectories are parked. Raises OSError.
    """
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):  # EPERM is what POSIX says for a directory
        parked = _park(parent, name, trash)
        if parked:
            _empty(trash, [parked])


def empty(trash: int) -> None:
    """Remove everything in a trash directory, also what an interrupted removal left there. Raises OSError."""
    pending = []
    for name in os.listdir(trash):
        try:
            os.unlink(name, dir_fd=trash)
        except (IsADirectoryError, PermissionError):
            pending.append(name)
    _empty(trash, pending)


def _empty(trash: int, pending: list[str]) -> None:
    while pending:
        name = pending.pop()
        directory = _open(trash, name)
        try:
            for entry in _entries(directory):
                try:
                    os.unlink(entry, dir_fd=directory)
                except (IsADirectoryError, PermissionError):
                    parked = _park(directory, entry, trash)
                    if parked:
                        pending.append(parked)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=trash)


def _entries(directory: int) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry.name


def _park(parent: int, name: bytes | str, trash: int) -> str:
    """Remove an empty directory, or move a full one into the trash and return its name there."""
    try:
        os.rmdir(name, dir_fd=parent)
        return ""
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    parked = os.urandom(8).hex()
    try:
        os.rename(name, parked, src_dir_fd=parent, dst_dir_fd=trash)
    except PermissionError:  # moving a directory writes its "..": without privileges that takes a writable one
        os.chmod(name, 0o700, dir_fd=parent)
        os.rename(name, parked, src_dir_fd=parent, dst_dir_fd=trash)
    return parked


def _open(trash: int, name: str) -> int:
    try:
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=trash)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=trash)
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=trash)
    if os.fstat(directory).st_mode & 0o700 != 0o700:
        os.fchmod(directory, 0o700)
    return directory
