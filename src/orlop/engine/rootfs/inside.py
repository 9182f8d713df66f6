"""The root of a container as a descriptor, for verbs that look into it from outside: cp, and what comes like it.

    with inside.opened(engine, record) as root: open_in_root(root, path, ...)

A running container's root is seen through its first process: with its volumes and everything that it mounted. For one
that does not run the root file system is mounted in a mount namespace of this verb's own, its volumes in it, and the
container's lock is held: what a start would mount is ours meanwhile. The host's mount table shows nothing (I4).

No code runs inside: nothing enters the container's namespaces, so no library, codec or name service of an image is
ever loaded (SEC-05, CVE-2019-14271). Paths are the kernel's to resolve, in the root, each time anew (SEC-06,
CVE-2018-15664).
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack, contextmanager

from ...linux import mount, path, process
from ...runtime import enter, rootfs
from ...runtime.operations import mount_options
from ...runtime.operations.mounts import BindMount
from ...spec.errors import NotFound, Unavailable
from ..compile.mounts import FILES
from ..containers import lifecycle, state
from ..containers.record import disk_trouble_told
from ..userns import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...snapshot.owners import Shift
    from ...spec.runtime import Mount
    from ..containers.record import ContainerRecord
    from ..engine import Engine

NAMESPACE_S_MAX = 30.0


@contextmanager
def opened(engine: Engine, record: ContainerRecord) -> Iterator[int]:
    """Hold a descriptor (O_PATH) of the container's root directory. Raises NotFound, Unavailable."""
    with opened_with_owners(engine, record) as (root, _):
        yield root


@contextmanager
def opened_with_owners(engine: Engine, record: ContainerRecord) -> Iterator[tuple[int, Shift | None]]:
    """Hold a descriptor as `opened`, and what lies between the owners that it shows and the container's.

    A running one with a user namespace of its own shows its files with the machine's ids; on disk root's have its own.
    """
    with ExitStack() as stack:
        shift = kept.shift(record) if record.uid_mappings else None
        root = _of_running(engine, record)
        if root is None:
            stack.enter_context(engine.locks.hold(record.id))
            engine.records.load(record.id)  # it may be gone by now
            root = _of_running(engine, record)  # or started meanwhile
        if root is None:
            with disk_trouble_told("mount", f"the root file system of {record.subject}"):
                root, namespace = _mounted(engine, record)
            shift = kept.on_disk(record, engine.host.runtime)
            stack.callback(os.close, namespace)
        stack.callback(os.close, root)
        yield root, shift


def _of_running(engine: Engine, record: ContainerRecord) -> int | None:
    task, wait = engine.observe(record.id), engine.waits.get(record.id)
    init, pid = None, 0
    if wait is not None and not task.lives:
        init, pid = wait.open(), wait.pid
    elif task.exit is None and task.status is not None:
        init, pid = state.open_init(task.status, engine.boot_id), task.status.pid
    if init is None:
        return None
    try:
        return enter.open_root(pid, init)
    except OSError as refused:
        raise Unavailable("look into", record.subject, refused.strerror or str(refused)) from None
    except Exception:  # it has ended: its root is mounted anew
        return None
    finally:
        os.close(init)


def _mounted(engine: Engine, record: ContainerRecord) -> tuple[int, int]:
    """Return descriptors of the root and of the mount namespace that holds what is mounted below it."""
    done: list[tuple[int, int] | BaseException] = []

    def work() -> None:
        try:
            # In the namespace of all: a program that serves the root would keep one in which it is mounted (FUSE).
            root = rootfs.open_rootfs(lifecycle.rootfs_mounts(engine, record))
            try:
                # Of this thread alone (unshare(2)), which ends with it; the descriptor keeps the namespace.
                process.unshare(process.CLONE_NEWNS)
                mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
                namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    _mount_all(engine, record, root)
                except BaseException:
                    os.close(namespace)
                    raise
            except BaseException:
                os.close(root)
                raise
            done.append((root, namespace))
        except BaseException as failure:
            done.append(failure)

    thread = threading.Thread(target=work, name="mount")
    thread.start()
    thread.join(NAMESPACE_S_MAX)
    if not done:
        cause = "a mount does not come to an end"
        subject = f"the root file system of {record.subject}"
        raise Unavailable("mount", subject, cause, hint="is the server of one of its volumes dead?")
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def _mount_all(engine: Engine, record: ContainerRecord, root: int) -> None:
    place = os.open(engine.tasks, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount.move_mount(root, place)
    finally:
        os.close(place)
    own = f"{engine.records.path(record.id)}/"
    written = [
        f"{own}{name}" for name in FILES.values()
    ]  # as its last start left them; not its secrets, which are gone
    for wanted in engine.records.spec(record.id).mounts:
        is_shown = wanted.source in written or not wanted.source.startswith(own)
        if (wanted.type == "bind" or mount_options.LOOP in wanted.options) and is_shown:
            _bind(root, wanted)
    if record.request.read_only:
        mount.mount_setattr(root, set_=mount.MOUNT_ATTR_RDONLY)


def _bind(root: int, wanted: Mount) -> None:
    """Mount a volume or a directory of the host as the container would have it; one that is gone stays away."""
    options = mount_options.parse(wanted.options, wanted.destination)
    try:
        bind = BindMount(destination=wanted.destination, source=wanted.source, options=options, disk=options.loop)
        tree = bind.open_tree()
    except NotFound:
        return
    try:
        is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        target = (path.mkdir_in_root if is_directory else path.make_file_in_root)(root, wanted.destination)
        try:
            mount.move_mount(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def not_there(wanted: str, reference: str) -> NotFound:
    """Return docker's error for a path that a container does not have."""
    cause = f"Could not find the file {wanted} in container {reference}"
    return NotFound(
        "find", f"{wanted} in container {reference}", cause, hint=f"look: orlop exec {reference} ls -l /", code="E0407"
    )
