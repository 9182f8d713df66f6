"""Mounts of a container that runs: added and removed, at once and for every later start.

    with the container's lock: decide, make volumes -> open every new mount as a detached tree, in the host's view
    -> one thread enters the container's mount namespace and moves them into place -> config.json, container.json
    -> its monitor hears which files are mounted by themselves now (supervise.follow)

What the thread may do there: `visit`.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager

from ...linux import mount, path
from ...runtime.operations import mount_options
from ...runtime.operations.mounts import PROC_FILES_ALLOWED, BindMount, overlay
from ...spec import attach as frames
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unsupported
from ...spec.mount import IMAGE
from ...spec.task import SPEC_FILE
from ...supervise import attach, follow
from .. import events
from ..compile import mounts as compiled
from ..containers import state
from ..containers.record import disk_trouble_told, write_durably
from . import mountpoints, preparation, shared, visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ...spec.container import ContainerRequest
    from ...spec.mount import MountPoint, MountRequest
    from ...spec.runtime import Mount, Spec
    from ..containers.record import ContainerRecord
    from ..engine import Engine

_TMPFS_MODE = ("mode", "1777")
_VERB = "change the mounts of"


def change(engine: Engine, reference: str, add: tuple[MountRequest, ...], remove: tuple[str, ...]) -> None:
    """Add mounts to a container and remove others (by their places), at once where it runs. All of it or nothing.

    A volume that is added to a running container is not filled from the image. Raises NotFound, Conflict for a place
    that is taken, Invalid and Unsupported with docker's texts, Unavailable for what the kernel refuses.
    """
    record = engine.records.find(reference)
    with engine.locks.hold(record.id), ExitStack() as held, ExitStack() as undo:
        record = engine.records.load(record.id)
        before = record
        gone = _found(record, remove)
        added = _decided(engine, record, add)
        held.enter_context(engine.volumes.held(preparation.volume_names(added)))
        undo.enter_context(disk_trouble_told(_VERB, record.subject))
        fresh = record.replace(mounts=added, request=record.request.replace(mounts=add))
        fresh, trees = preparation.prepare(engine, fresh, undo)
        wanted = tuple(compiled.of_point(point, trees) for point in fresh.mounts)
        init = _init(engine, record)
        if init is not None:
            held.callback(os.close, init)
            lent = {
                point.destination: held.enter_context(_lent(engine, point))
                for point in fresh.mounts
                if shared.is_shared(point)
            }
            _apply(record, init, wanted, [point.destination for point in gone], lent)
            undo.callback(_apply, record, init, (), [one.destination for one in wanted])
        record = _changed(record, fresh.mounts, add, gone)
        _write(engine, record, wanted, {point.destination for point in gone})
        undo.pop_all()
        _forget(engine, gone)
        if init is not None:
            _have_followed(engine, record)
    _tell(engine, before, fresh.mounts, gone)


# -- deciding -------------------------------------------------------------------------------------------------------


def _found(record: ContainerRecord, remove: tuple[str, ...]) -> tuple[MountPoint, ...]:
    known = {point.destination: point for point in record.mounts}
    gone = []
    for text in remove:
        target = os.path.normpath("/" + text.lstrip("/"))
        if target not in known:
            cause = f"nothing of its own is mounted at {text[:200]}"
            places = ", ".join(known) or "none"
            raise NotFound(_VERB, record.subject, cause, hint=f"its mounts are at: {places}")
        gone.append(known[target])
    return tuple(gone)


def _decided(engine: Engine, record: ContainerRecord, add: tuple[MountRequest, ...]) -> tuple[MountPoint, ...]:
    request = record.request.replace(binds=(), tmpfs=(), mounts=add, volumes_from=())
    taken = {point.destination for point in record.mounts}
    taken |= {mountpoints.tmpfs_destination(entry.target, record.subject) for entry in record.request.tmpfs}
    points = []
    for point in mountpoints.of_request(request, record.subject):
        if point.destination in taken:
            hint = f"remove it first: orlop update --mount-rm {point.destination} {record.name}"
            raise Conflict(_VERB, record.subject, f"Duplicate mount point: {point.destination}", hint=hint)
        points.append(preparation.settled(engine, point, request, record.id, record.subject).replace(no_copy=True))
    return tuple(points)


def _changed(
    record: ContainerRecord,
    added: tuple[MountPoint, ...],
    add: tuple[MountRequest, ...],
    gone: tuple[MountPoint, ...],
) -> ContainerRecord:
    """Return the record as if it had been made so."""
    places = {point.destination for point in gone}
    request: ContainerRequest = record.request

    def stays(target: str) -> bool:
        return os.path.normpath("/" + target.lstrip("/")) not in places

    request = request.replace(
        binds=tuple(entry for entry in request.binds if stays(entry.target)),
        mounts=(*(entry for entry in request.mounts if stays(entry.target)), *add),
    )
    kept = tuple(point for point in record.mounts if point.destination not in places)
    return record.replace(request=request, mounts=(*kept, *added))


def _write(engine: Engine, record: ContainerRecord, wanted: tuple[Mount, ...], places: set[str]) -> None:
    spec: Spec = engine.records.spec(record.id)
    kept = tuple(one for one in spec.mounts if one.destination not in places)
    directory = engine.records.path(record.id)
    data = jsonio.dump(spec.replace(mounts=(*kept, *wanted)).to_json())
    write_durably(f"{directory}/{SPEC_FILE}", data, last=False)
    engine.records.save(record)


def _forget(engine: Engine, gone: Iterable[MountPoint]) -> None:
    for point in gone:
        if point.type == IMAGE:
            try:
                engine.snapshots.remove(point.snapshot)
            except OrlopError as wrong:
                engine.log.write(f"the tree of image {point.name} stays: {wrong}")


def _tell(engine: Engine, record: ContainerRecord, added: Iterable[MountPoint], gone: Iterable[MountPoint]) -> None:
    events.publish_mounts(engine, record.replace(mounts=tuple(added)), "mount")
    events.publish_mounts(engine, record.replace(mounts=tuple(gone)), "unmount")
    events.publish_container(engine, record, "update")


def _have_followed(engine: Engine, record: ContainerRecord) -> None:
    """Tell the monitor which files are mounted by themselves."""
    text = follow.found(engine.records.spec(record.id).mounts, engine.records.path(record.id))
    try:
        monitor = attach.connect(engine.task_directory(record.id))
        try:
            monitor.sendall(frames.frame(frames.FOLLOW, os.fsencode(text)))
        finally:
            monitor.close()
    except OSError as wrong:
        engine.log.write(f"the files that are mounted into {record.subject} are not followed: {wrong.strerror}")


def _init(engine: Engine, record: ContainerRecord) -> int | None:
    """Return a pidfd of the container's first process, None when none runs."""
    task = engine.observe(record.id)
    return state.open_init(task.status, engine.boot_id) if task.lives and task.status is not None else None


# -- doing ----------------------------------------------------------------------------------------------------------


@contextmanager
def _lent(engine: Engine, point: MountPoint) -> Iterator[int]:
    """Hold a volume in memory while it is mounted: meanwhile nobody else makes a file system for it."""
    with engine.volumes.filling(point.name):
        tree = shared.of_volume(engine, point)
        try:
            yield tree
        finally:
            os.close(tree)


def _apply(
    record: ContainerRecord,
    init: int,
    wanted: tuple[Mount, ...],
    places: list[str],
    lent: Mapping[str, int] | None = None,
) -> None:
    """Mount and unmount in the namespace of a process (a pidfd). What fails leaves everything as it was.

    lent: detached mounts that are there already, by their places.
    """
    trees: list[tuple[int, Mount]] = []
    try:
        for one in wanted:
            known = (lent or {}).get(one.destination)
            trees.append((_tree(one if known is None else mount_options.of_tree(one, known)), one))
        descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            visit.inside(record.subject, init, lambda: _move(trees, places, descriptors), verb=_VERB)
        finally:
            os.close(descriptors)
    finally:
        for tree, _ in trees:
            os.close(tree)


def _tree(wanted: Mount) -> int:
    """Return a detached mount, made in the host's view. Raises OrlopError, OSError."""
    options = mount_options.parse(wanted.options, wanted.destination)
    if wanted.uid_mappings:
        hint = "give it when the container is made"
        raise Unsupported("mount", wanted.destination, "ids are not exchanged in a running container", hint=hint)
    if wanted.type == "bind" or options.loop:
        shown = BindMount(destination=wanted.destination, source=wanted.source, options=options, disk=options.loop)
        return shown.open_tree()
    if options.subdirectory:
        hint = "mount all of it, or give it when the container is made"
        cause = f"a part of a new {wanted.type} is not mounted in a running container"
        raise Unsupported("mount", wanted.destination, cause, hint=hint)
    attributes = options.set | options.recursive_set
    if wanted.type == "overlay":
        return overlay(options.data, attributes)
    settings: list[tuple[str, str | int | None]] = [*options.data, *((word, None) for word in options.super_block)]
    if wanted.type == "tmpfs" and "mode" not in dict(options.data):
        settings.append(_TMPFS_MODE)
    return mount.new_filesystem(wanted.type, settings, attributes, wanted.source)


def _move(trees: list[tuple[int, Mount]], places: list[str], descriptors: int) -> None:
    """Attach the trees and detach what is at the places. Runs in the container's mount namespace.

    descriptors: see mount.detach. What is open of a mount that is detached stays usable until it is closed.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    old: list[int] = []
    attached: list[int] = []
    try:
        old += (_mounted_at(root, place) for place in places)
        for tree, wanted in trees:
            target = _target(root, wanted.destination, tree)
            try:
                mount.move_mount(tree, target)
            finally:
                os.close(target)
            attached.append(tree)
        for fd in old:
            mount.detach(fd, descriptors)
    except BaseException:
        for tree in attached:
            mount.detach(tree, descriptors)
        raise
    finally:
        for fd in old:
            os.close(fd)
        os.close(root)


def _target(root: int, destination: str, tree: int) -> int:
    wanted = stat.S_ISDIR(os.fstat(tree).st_mode)
    try:
        target = (path.mkdir_in_root if wanted else path.make_file_in_root)(root, destination)
    except NotADirectoryError:
        raise _unfitting(destination) from None
    if wanted != stat.S_ISDIR(os.fstat(target).st_mode):
        os.close(target)
        raise _unfitting(destination)
    if destination not in PROC_FILES_ALLOWED and mount.filesystem_magic(target) == mount.PROC_SUPER_MAGIC:
        os.close(target)
        raise Invalid("mount", destination, "it lies inside /proc, where nothing may be mounted", code="E0404")
    return target


def _unfitting(destination: str) -> Invalid:
    cause = "a directory goes on a directory, and a file on a file"
    return Invalid("mount", destination, cause, hint="nothing was changed; choose another place")


def _mounted_at(root: int, place: str) -> int:
    fd = path.open_in_root(root, place)
    if mount.is_mount_root(fd):
        return fd
    os.close(fd)
    raise NotFound("unmount", place, f"nothing is mounted at {place} any more", hint="it was unmounted inside")
