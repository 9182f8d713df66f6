"""Removing trees that somebody else has made: of any depth, with any modes, without following anything.

A recursive removal dies on a tree deeper than its stack or its descriptors, and a container can make one. Here every
directory that is not empty is first moved up next to the others, so that no path is ever longer than one name.
"""

from __future__ import annotations

import errno
import os

from orlop.linux import inode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IN_PLACE_DEPTH_MAX = 256
IN_PLACE_ENTRIES_MAX = 10_000_000
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


def remove_in_place(parent: int, name: bytes | str) -> None:
    """Remove what is called name in the directory `parent`, which somebody else may be changing meanwhile.

    For a container's own tree, on whose file systems nothing is ours alone. Each directory is held open, so nothing is
    looked up through what was moved. Raises OSError: ENAMETOOLONG for a tree deeper than 256 directories, EBUSY for a
    mount point, ENOTEMPTY for one that is filled faster than it is emptied.
    """
    levels: list[tuple[int, bytes | str, int]] = []
    left = IN_PLACE_ENTRIES_MAX
    try:
        full: bytes | str | None = name if _is_full(parent, name) else None
        directory = parent
        while full is not None or levels:
            if full is not None:
                if len(levels) == IN_PLACE_DEPTH_MAX:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                levels.append((directory, full, os.open(full, DIRECTORY_FLAGS, dir_fd=directory)))
            above, own, directory = levels[-1]
            full = None
            for entry in _entries(directory):
                left -= 1
                if not left:
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
                if _is_full(directory, entry):
                    full = entry
                    break
            else:
                os.close(levels.pop()[2])
                os.rmdir(own, dir_fd=above)
                directory = above
    finally:
        for _, _, fd in levels:
            os.close(fd)


def _is_full(parent: int, name: bytes | str) -> bool:
    """Remove what is called name, and tell whether it is still there: a directory with something in it."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return True
    return False


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
    """Remove directories of the trash. A subvolume of btrfs, which nothing can be moved out of, is its own trash."""
    while pending:
        name = pending.pop()
        directory = _open(trash, name)
        try:
            if not inode.is_subvolume(os.fstat(directory)):
                _empty_into(trash, directory, pending, pending, trash)
            elif _is_destroyed(trash, name):
                continue
            else:
                within: list[str] = []
                _empty_into(-1, directory, within, pending, trash)
                while within:
                    inner_name = within.pop()
                    inner = _open(directory, inner_name)
                    try:
                        _empty_into(directory, inner, within, pending, trash)
                    finally:
                        os.close(inner)
                    os.rmdir(inner_name, dir_fd=directory)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=trash)


def _empty_into(place: int, directory: int, parked: list[str], volumes: list[str], trash: int) -> None:
    """Empty a directory: what is full in it is moved to `place`, a subvolume to the trash; their names are appended.

    place: -1 for the directory itself.
    """
    for entry in _entries(directory):
        try:
            os.unlink(entry, dir_fd=directory)
        except (IsADirectoryError, PermissionError):
            is_volume = place != trash and inode.is_subvolume(os.lstat(entry, dir_fd=directory))
            name = entry if place < 0 and not is_volume else _park(directory, entry, trash if is_volume else place)
            if name:
                (volumes if is_volume else parked).append(name)


def _is_destroyed(trash: int, name: str) -> bool:
    try:
        inode.destroy_subvolume(trash, name)
    except OSError:
        return False  # it has others in it, or is not ours to destroy as a whole
    return True


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
