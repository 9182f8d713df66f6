"""`size=` of a volume (--opt) and of a container's own layer (--disk, --storage-opt): project quotas, where the file
system of ORLOP_ROOT keeps them; a volume on btrfs is a subvolume whose quota group has a limit. Where there is neither,
it is a file system of that size in a sparse file (snapshot.disk). Where that can't be had either, whoever asks for a
size is refused (I3).

A project is named after the inode of the directory that holds the tree: it lives as long as the tree, and no other
engine on the same file system can have it.
"""

from __future__ import annotations

import os

from ...linux import inode
from ...snapshot import disk
from ...snapshot.disk import NoDisk
from ...snapshot.drivers import DISK
from ...spec.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...snapshot.drivers import Writable

FSTYPE = "ext4"  # in a volume's own disk
PROJECT_BASE = 1 << 30
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_BYTES_MAX = 2**63 - 1
_HINT = "; or mount the file system of ORLOP_ROOT with project quotas (xfs or ext4: prjquota)"


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


def bound_layer(holder: str, layer: Writable, size_bytes: int, subject: str) -> None:
    """Bound what a new writable layer, which nothing has mounted, occupies. holder: its directory. Raises Unsupported.

    One that has a bound of its own keeps it.
    """
    if os.path.exists(f"{holder}/{DISK}") or _bound(holder, layer.own_trees(), size_bytes):
        return
    try:
        layer.bound(size_bytes)
    except (NoDisk, OSError) as wrong:
        raise _refused(subject, "--storage-opt size", wrong) from None


def _bound(holder: str, trees: tuple[str, ...], size_bytes: int) -> bool:
    """Bound what the trees below a directory occupy together; False where the file system keeps no such quotas.

    holder: the directory that lives as long as they do.
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
        return False
    return True


def bound_volume(holder: str, name: str, size_bytes: int, subject: str) -> None:
    """Bound what an empty directory in `holder` may come to hold: on btrfs by making it a subvolume.

    Where nothing else does, holder/DISK holds what is in it, and the directory stays empty. Raises Unsupported.
    """
    path = f"{holder}/{name}"
    fd = os.open(holder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.rmdir(name, dir_fd=fd)
        try:
            inode.make_subvolume(fd, name)
        except OSError:  # no btrfs
            os.mkdir(name, dir_fd=fd)
            if not _bound(holder, (path,), size_bytes):
                _make_disk(holder, size_bytes, subject)
            return
    finally:
        os.close(fd)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inode.limit_subvolume(fd, size_bytes)
        finally:
            os.close(fd)
    except OSError as wrong:
        raise _refused(subject, "quota size", wrong) from None


def _make_disk(holder: str, size_bytes: int, subject: str) -> None:
    try:
        disk.make(f"{holder}/{DISK}", size_bytes, lambda root: os.chmod(root, 0o755))
    except (NoDisk, OSError) as wrong:
        raise _refused(subject, "quota size", wrong) from None


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


def no_size_of_rootfs(subject: str) -> Unsupported:
    cause = "--storage-opt size bounds a layer above an image, and --rootfs is a directory of yours"
    return Unsupported("create", subject, cause, hint="leave the size away, or import the directory as an image")


def _refused(subject: str, what: str, wrong: NoDisk | OSError) -> Unsupported:
    cause, hint = (wrong.cause, wrong.hint) if isinstance(wrong, NoDisk) else (str(wrong), "look at the space (df)")
    cause = f"{what} requested but no quota support: the file system keeps no project quotas, and {cause}"
    return Unsupported("create", subject, cause, hint=hint + _HINT, code="E0903")


def _project(fd: int) -> int:
    return PROJECT_BASE | os.fstat(fd).st_ino & PROJECT_BASE - 1
