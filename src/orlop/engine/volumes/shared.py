"""File systems in memory that several containers see: volumes with type=tmpfs, and /dev/shm of a shared IPC namespace.

Nothing is mounted on the host (I4). Who comes first gets a new file system as a detached mount of ours. It travels
with the start message, and the monitor keeps it: a restart finds what was there. Who comes later gets the same mount
from the monitor of one that runs. As docker's, a tmpfs goes with its last user.

Each start mounts a clone. Before Linux 6.15 a detached mount can't be cloned: then who comes first has the mount
itself, who comes later a copy made in the mount namespace of the first, and a restart finds an empty file system.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from ...linux import mount, path, process
from ...runtime.operations import mount_options
from ...spec.errors import Conflict, OrlopError
from ...spec.mount import TMPFS, VOLUME
from ..compile.namespaces import CONTAINER, SHM, shm_bytes
from ..containers import state
from . import visit
from .preparation import users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...spec.mount import MountPoint
    from ...spec.task import TaskStatus
    from ..containers.record import ContainerRecord
    from ..engine import Engine

QUEUES = "/dev/mqueue"
_VERB = "start"


def trees(engine: Engine, record: ContainerRecord, held: ExitStack) -> dict[str, int]:
    """Return the detached mounts that come with a start: destination -> descriptor.

    held: closes them, and until then nobody else makes a file system for one of these volumes. Raises OrlopError.
    """
    found: dict[str, int] = {}
    volumes: dict[str, int] = {}
    for point in sorted(filter(is_shared, record.mounts), key=lambda point: point.name):
        if point.name in volumes:
            tree = mount.clone_tree(volumes[point.name])
        else:
            held.enter_context(engine.volumes.filling(point.name))
            tree = volumes[point.name] = of_volume(engine, point)
        held.callback(os.close, tree)
        found[point.destination] = tree
    shm = _shared_memory(engine, record)
    if shm >= 0:
        held.callback(os.close, shm)
        found[SHM] = shm
    queues = _message_queues(engine, record)
    if queues >= 0:
        held.callback(os.close, queues)
        found[QUEUES] = queues
    return found


def is_shared(point: MountPoint) -> bool:
    """Tell whether a mount point is a volume that lies in memory."""
    return point.type == VOLUME and point.device_type == TMPFS


def of_volume(engine: Engine, point: MountPoint) -> int:
    """Return a detached mount of a volume in memory: that of a container which runs, or a new one. The caller's."""
    for other, status, place in _users(engine, point.name):
        try:
            return _lent(engine, other, status, place)
        except OrlopError as gone:
            engine.log.write(f"volume {point.name} of {other.subject} can't be shared: {gone.cause}")
    return _new(point.options, point.device)


def ipc_lender(engine: Engine, record: ContainerRecord) -> tuple[ContainerRecord, TaskStatus]:
    """Return the container whose IPC namespace another one joins. Raises NotFound, Conflict with docker's texts."""
    reference = record.request.ipc.removeprefix(CONTAINER)
    other = engine.records.lender(record, reference)
    task = engine.observe(other.id)
    told = f"can't join IPC of container {reference}"
    if not task.lives or task.status is None:
        hint = f"start it first: orlop start {other.name}"
        raise Conflict(_VERB, record.subject, f"{told}: container {other.id} is not running", hint=hint, code="E1001")
    if other.request.ipc not in ("shareable", "host") and not other.request.ipc.startswith(CONTAINER):
        told = f"{told}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        raise Conflict(_VERB, record.subject, told, hint=f"make {other.name} with --ipc shareable")
    return other, task.status


def _users(engine: Engine, volume: str) -> Iterator[tuple[ContainerRecord, TaskStatus, str]]:
    for user in users(engine, volume):
        task = engine.observe(user)
        if task.lives and task.status is not None:
            other = engine.records.load(user)
            yield from ((other, task.status, point.destination) for point in other.mounts if point.name == volume)


def _new(words: tuple[str, ...], source: str) -> int:
    """Return a new file system in memory; of its options those that are not the mount's own."""
    options = mount_options.parse(words, source)
    settings: list[tuple[str, str | int | None]] = [*options.data, *((word, None) for word in options.super_block)]
    if "mode" not in dict(options.data):
        settings.append(("mode", "1777"))
    return mount.new_filesystem(TMPFS, settings, 0, source)


def _shared_memory(engine: Engine, record: ContainerRecord) -> int:
    """Return what a container has at /dev/shm that others see too, -1 when it is its own or the machine's."""
    mode = record.request.ipc
    if mode == "shareable":
        return _new((f"size={shm_bytes(record.request)}",), "shm")
    if not mode.startswith(CONTAINER):
        return -1
    other, status = ipc_lender(engine, record)
    if other.request.ipc != "host":
        return _lent(engine, other, status, SHM)
    fd = os.open(SHM, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mount.clone_tree(fd)
    finally:
        os.close(fd)


def _message_queues(engine: Engine, record: ContainerRecord) -> int:
    """Return what a container has at /dev/mqueue that may not mount it itself, -1 for one that may.

    The machine's queues are mounted by who has power over the namespace that owns them (ipc/mqueue.c, mount_capable):
    the machine's root. For a user what is mounted at the same place shows them; where nothing is, there is nothing to
    be seen, and mq_open(3) works all the same.
    """
    mode, is_root = record.request.ipc, engine.host.runtime.initial_user_namespace
    if is_root and not record.uid_mappings:
        return -1
    if mode != "host" and not (mode.startswith(CONTAINER) and ipc_lender(engine, record)[0].request.ipc == "host"):
        return -1
    if is_root:
        return mount.new_filesystem("mqueue")
    try:
        fd = os.open(QUEUES, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return mount.clone_tree(fd)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return mount.new_filesystem(TMPFS, [("mode", "0555"), ("ro", None)], 0, "none")


def _lent(engine: Engine, other: ContainerRecord, status: TaskStatus, place: str) -> int:
    """Return a detached mount of what a container has at a place. Raises OrlopError."""
    init = state.open_init(status, engine.boot_id)
    if init is None:
        raise Conflict(_VERB, other.subject, "it has just ended", hint="try again")
    copies: list[int] = []
    try:
        visit.inside(other.subject, init, lambda: copies.append(_copy(place)), verb="look into")
    finally:
        os.close(init)
    (copy,) = copies
    kept = _kept(engine, status, os.fstat(copy).st_dev)
    if kept is None:
        return copy
    os.close(copy)
    return kept


def _copy(place: str) -> int:
    """Copy the mount at a place. Runs in a container's mount namespace: what is there is its own business (SEC-06)."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = path.open_in_root(root, place)
        try:
            if not mount.is_mount_root(fd) or mount.filesystem_magic(fd) != mount.TMPFS_MAGIC:
                raise Conflict("share", place, "it was unmounted inside", hint="restart that container")
            return mount.clone_tree(fd)
        finally:
            os.close(fd)
    finally:
        os.close(root)


def _kept(engine: Engine, status: TaskStatus, device: int) -> int | None:
    """Return a clone of the mount of a file system that a monitor keeps, None where there is none that can be cloned.

    A copy that was made in a container's mount namespace can be cloned there only; this one was made here.
    """
    monitor = state.open_monitor(status, engine.boot_id)
    if monitor is None:
        return None
    try:
        for name in os.listdir(f"/proc/{status.monitor_pid}/fd"):
            fd = process.pidfd_getfd(monitor, int(name))
            try:
                if os.fstat(fd).st_dev == device and mount.is_mount_root(fd):
                    return mount.clone_tree(fd)
            finally:
                os.close(fd)
    except OSError:
        pass  # it ends, or the kernel is too old
    finally:
        os.close(monitor)
    return None
