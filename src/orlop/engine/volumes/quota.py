"""`size=` of a volume (--opt) and of a container's own layer (--storage-opt): project quotas, where the file system of
ORLOP_ROOT keeps them; a volume on btrfs is a subvolume whose quota group has a limit. Where there is neither, whoever
asks for a size is refused (I3).

A project is named after the inode of the directory that holds the tree: it lives as long as the tree, and no other
engine on the same file system can have it.
"""

from __future__ import annotations

import os

from ...linux import inode
from ...spec.errors import Invalid, OrlopError, Unsupported

PROJECT_BASE = 1 << 30
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_BYTES_MAX = 2**63 - 1
_HINT = "mount the file system of ORLOP_ROOT with project quotas (xfs or ext4: prjquota), or leave the size away"


def parse_size(text: str, subject: str) -> int:
    """Return the bytes of docker's notation: 1048576, 512k, 1.5g. Raises Invalid."""
    number = text.lower().rstrip("bikmgtp")
    unit = text.lower()[len(number) :].removesuffix("ib").removesuffix("b") or "b"
    try:
        value = float(number) if set(number) <= set("0123456789.") else -1.0
    except ValueError:
        value = -1.0
    factor = _UNITS.get(unit, 0)
    if not factor or not 1 <= value * factor <= _BYTES_MAX:
        raise Invalid("create", subject, f"invalid size: '{text[:60]}'", hint="write 64m, 512k or 1.5g")
    return int(value * factor)


def bound(holder: str, trees: tuple[str, ...], size_bytes: int, refusal: OrlopError) -> None:
    """Bound what the trees below a directory occupy together.

    holder: the directory that lives as long as they do. refusal: raised where the file system keeps no such quotas.
    """
    try:
        fd = os.open(holder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            identity = _project(fd)
            inode.set_limit(fd, identity, size_bytes)
            for tree in trees:
                mark(tree, identity)
        finally:
            os.close(fd)
    except OSError:
        raise refusal from None


def bound_volume(holder: str, name: str, size_bytes: int, refusal: OrlopError) -> None:
    """Bound what an empty directory in `holder` may come to hold: on btrfs by making it a subvolume. As for `bound`."""
    path = f"{holder}/{name}"
    fd = os.open(holder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.rmdir(name, dir_fd=fd)
        try:
            inode.make_subvolume(fd, name)
        except OSError:  # no btrfs
            os.mkdir(name, dir_fd=fd)
            bound(holder, (path,), size_bytes, refusal)
            return
    finally:
        os.close(fd)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inode.limit_subvolume(fd, size_bytes)
        finally:
            os.close(fd)
    except OSError:
        raise refusal from None


def is_bounded_itself(path: str) -> bool:
    """Tell whether a directory's bound is its own, so that no other directory can take its place."""
    return inode.is_subvolume(os.stat(path))


def mark(tree: str, identity: int) -> None:
    """Count a directory, and all that will be made in it, to a project. Raises OSError."""
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        inode.set_project(fd, identity)
    finally:
        os.close(fd)


def project(tree: str) -> int:
    """Return the project of a directory, 0 for none."""
    try:
        fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return inode.project(fd)
        finally:
            os.close(fd)
    except OSError:
        return 0


def release(holder: str) -> None:
    """Forget the bound of a directory that is going to be removed. Where there is none, nothing happens."""
    try:
        fd = os.open(holder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inode.set_limit(fd, _project(fd), 0)
        finally:
            os.close(fd)
    except OSError:
        return


def no_quota_for_volume(name: str) -> Unsupported:
    cause = f"create {name}: quota size requested but no quota support"
    return Unsupported("create", f"volume {name}", cause, hint=_HINT)


def no_quota_for_container(subject: str) -> Unsupported:
    cause = "--storage-opt is supported only for overlay over xfs or ext4 with 'prjquota' mount option"
    return Unsupported("create", subject, cause, hint=_HINT)


def _project(fd: int) -> int:
    return PROJECT_BASE | os.fstat(fd).st_ino & PROJECT_BASE - 1
