"""A container's root file system as a directory of the machine's, for who asks: `podman mount`.

    $ORLOP_RUN/mounted/<container id>     where it is mounted

Of itself the engine mounts nothing that the machine sees (I4); this is somebody's wish, and goes with the container.

Invariants:
1. An overlay's upper directory is in one mount at a time: a running container lends its own, and one that is started
   while it is mounted gets it from here (`source`).
2. What is mounted is known by the kernel alone: whatever engine asks sees it.
"""

from __future__ import annotations

import errno
import os

from ...linux import mount as linux
from ...runtime import rootfs
from ...spec.errors import Conflict, Unavailable, Unsupported
from ...spec.runtime import Mount
from ..containers import state
from ..volumes import visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..containers.record import ContainerRecord
    from ..engine import Engine

DIRECTORY = "mounted"


def mount(engine: Engine, reference: str) -> str:
    """Mount a container's root, without its volumes; return where, also when it is there already.

    Raises NotFound, Unsupported for a user's engine and for ids that are not the machine's, Unavailable.
    """
    record = engine.records.find(reference)
    _check(engine, record)
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        place = _place(engine, record.id)
        if _is_mounted(place):
            return place
        tree = _tree(engine, record)
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                linux.move_mount(tree, target)
            finally:
                os.close(target)
        except OSError as wrong:
            raise Unavailable("mount", record.subject, wrong.strerror or str(wrong)) from None
        finally:
            os.close(tree)
    return place


def unmount(engine: Engine, reference: str, *, force: bool = False) -> str:
    """Unmount a container's root; return its id. force: also while something uses it. Raises NotFound, Conflict."""
    record = engine.records.find(reference)
    place = _place(engine, record.id)
    if not _is_mounted(place):
        raise Conflict("unmount", record.subject, "it is not mounted", hint="see: podman mount")
    try:
        linux.umount2(place, linux.UMOUNT_NOFOLLOW | (linux.MNT_DETACH if force else 0))
    except OSError as wrong:
        if wrong.errno != errno.EBUSY:
            raise Unavailable("unmount", record.subject, wrong.strerror or str(wrong)) from None
        hint = f"look for it with: fuser -m {place}; or use --force"
        raise Conflict("unmount", record.subject, "something uses it", hint=hint) from None
    _tidy(place)
    return record.id


def listed(engine: Engine) -> dict[str, str]:
    """Return what is mounted: container's id -> where."""
    return {one: place for one in engine.records.ids() if _is_mounted(place := _place(engine, one))}


def source(engine: Engine, container_id: str) -> Iterator[Mount]:
    """Yield what a container's root is made from while it is mounted here, nothing when it is not."""
    place = _place(engine, container_id)
    if _is_mounted(place):
        yield Mount(type="bind", source=place, options=("bind", "rprivate"))


def release(engine: Engine, container_id: str) -> None:
    """Unmount the root of a container that goes."""
    place = _place(engine, container_id)
    if _is_mounted(place):
        linux.umount2(place, linux.UMOUNT_NOFOLLOW | linux.MNT_DETACH)
        _tidy(place)


def _check(engine: Engine, record: ContainerRecord) -> None:
    if not engine.host.runtime.initial_user_namespace:
        cause = "a user's engine mounts in a namespace of its own, which no other program sees"
        raise Unsupported("mount", record.subject, cause, hint="use cp, export, or /proc/PID/root of one that runs")
    if record.uid_mappings:
        cause = "its user namespace gives its files other owners than the machine does"
        raise Unsupported("mount", record.subject, cause, hint="use cp, or export")


def _tree(engine: Engine, record: ContainerRecord) -> int:
    """Return a detached mount of the root: a running container's own, else a new one."""
    from ..containers import lifecycle

    task = engine.observe(record.id)
    init = state.open_init(task.status, engine.boot_id) if task.lives and task.status is not None else None
    if init is None:
        return rootfs.open_rootfs(lifecycle.rootfs_mounts(engine, record))
    trees: list[int] = []
    try:
        visit.inside(record.subject, init, lambda: trees.append(_own_tree()), verb="mount")
    finally:
        os.close(init)
    return trees[0]


def _own_tree() -> int:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.clone_tree(root)
    finally:
        os.close(root)


def _place(engine: Engine, container_id: str) -> str:
    return f"{engine.paths.run}/{DIRECTORY}/{container_id}"


def _is_mounted(place: str) -> bool:
    try:
        fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return linux.is_mount_root(fd)
    finally:
        os.close(fd)


def _tidy(place: str) -> None:
    for directory in (place, os.path.dirname(place)):
        try:
            os.rmdir(directory)
        except OSError:
            return  # others are mounted there
