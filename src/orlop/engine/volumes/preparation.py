"""What a creation does for its mount points: volumes are made and filled, trees of images prepared; and what a removal
undoes. Every step pushes its undo, so that a creation that fails, or whose engine is killed, leaves no volume behind.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from ...linux import abi, mount, path
from ...runtime import copyup, rootfs
from ...runtime.operations import mount_options
from ...spec.errors import Invalid, OrlopError, Unavailable, Unsupported
from ...spec.mount import BIND, IMAGE, TMPFS, VOLUME
from ...spec.runtime import Mount
from .. import events, images
from ..containers import names
from ..containers.record import timestamp
from ..userns import kept
from . import local, mountpoints, quota
from .quota import FSTYPE
from .store import ANONYMOUS_LABEL, DATA, FEW, LOCAL, VolumeRecord, check_name, is_empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import ExitStack

    from ...image.image import Image
    from ...spec.container import ContainerRequest
    from ...spec.mount import MountPoint, VolumeOptions
    from ..containers.record import ContainerRecord
    from ..engine import Engine

_PRIVATE = ("", "private", "rprivate")
_NEIGHBOURS_MAX = 10_000  # of a misspelt name
_LINKS_MAX = 40  # path_resolution(7)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def decide(
    engine: Engine, request: ContainerRequest, image: Image | None, container_id: str, subject: str
) -> tuple[MountPoint, ...]:
    """Return the mount points of a container that is to be. Nothing is made.

    Raises Invalid and Unsupported with docker's texts, NotFound for a container or an image that it names.
    """
    points = list(mountpoints.of_request(request, subject))
    taken = {point.destination for point in points}
    taken |= {mountpoints.tmpfs_destination(entry.target, subject) for entry in request.tmpfs}
    lent: dict[str, MountPoint] = {}
    for text in request.volumes_from:
        name, mode = mountpoints.lender(text, subject)
        lent |= {point.destination: point for point in mountpoints.lend(engine.records.find(name).mounts, mode)}
    points += [point for point in lent.values() if point.destination not in taken]
    if image is not None:
        declared = sorted(image.config.config.volumes)
        points += mountpoints.of_image(declared, request.volume_driver, taken | lent.keys(), subject)
    return tuple(settled(engine, point, request, container_id, subject) for point in points)


def volume_names(points: Iterable[MountPoint]) -> set[str]:
    """Return the names of the volumes among the mount points."""
    return {point.name for point in points if point.type == VOLUME}


def prepare(engine: Engine, record: ContainerRecord, undo: ExitStack) -> tuple[ContainerRecord, dict[str, Mount]]:
    """Make what the mount points of a new container need. Its snapshot exists, its volumes are held.

    Returns the record with what is known only now, and what mounts the trees of images, by snapshot key.
    """
    _bound_layer(engine, record)
    trees = {}
    points = []
    many = sum(point.type == VOLUME for point in record.mounts) > FEW
    with _ImageView(engine, record) as view:
        for point in record.mounts:
            if point.type == IMAGE:
                trees[point.snapshot] = _image_tree(engine, record, point, undo)
            elif point.type == VOLUME:
                _make(engine, record, point, undo, durable=not many)
                point = _with_disk(engine, point)
                if not point.no_copy:
                    _fill(engine, record, point, view)
            points.append(_with_owner(engine, point, record.subject))
    if many:
        engine.volumes.sync()
    return record.replace(mounts=tuple(points)), trees


def make_sources(record: ContainerRecord) -> None:
    """Make the directories that `-v` names and that do not exist, as docker does.

    Raises Invalid, also for a propagation that the mount of the source does not have itself.
    """
    for point in record.mounts:
        if point.type == BIND:
            if point.create_source:
                _make_source(point.source, record.subject)
            if point.propagation not in _PRIVATE:
                _check_propagation(point, record.subject)


def remove_anonymous(engine: Engine, points: Iterable[MountPoint]) -> None:
    """Remove the volumes that nobody named and nobody else uses: with their container (`rm -v`, --rm)."""
    _remove_unused(engine, [point.name for point in points if point.type == VOLUME and point.anonymous])


def remove_made_by(engine: Engine, container_id: str) -> None:
    """Remove the volumes of a creation that was never finished."""
    _remove_unused(engine, [record.name for record in engine.volumes.all() if record.maker == container_id])


def _remove_unused(engine: Engine, names: Sequence[str]) -> None:
    """Remove volumes, but for those that were lent to another container, or are gone."""
    if not names:
        return
    try:
        gone = engine.volumes.remove_unused(names, lambda: used(engine))
    except OSError as wrong:
        engine.log.write(f"of the volumes {', '.join(names)[:200]} some are not removed: {wrong}")
        return
    for name in gone:
        events.publish(engine, events.VOLUME, "destroy", name, {"driver": LOCAL})


def remove(engine: Engine, name: str, *, holders: int = 0) -> None:
    """Remove a volume that no container uses. holders: as for `Volumes.remove`.

    Raises NotFound, Conflict with docker's texts, OSError.
    """
    record = engine.volumes.load(name)
    engine.volumes.remove(name, users(engine, name), holders=holders)
    events.publish(engine, events.VOLUME, "destroy", name, {"driver": record.driver})


def used(engine: Engine) -> set[str]:
    """Return the names of the volumes that containers mount."""
    return {point.name for record in engine.records.all() for point in record.mounts if point.type == VOLUME}


def users(engine: Engine, name: str) -> Iterator[str]:
    """Yield the ids of the containers that mount a volume."""
    for record in engine.records.all():
        if any(point.type == VOLUME and point.name == name for point in record.mounts):
            yield record.id


# -- deciding -------------------------------------------------------------------------------------------------------


def settled(
    engine: Engine, point: MountPoint, request: ContainerRequest, container_id: str, subject: str
) -> MountPoint:
    """Return the mount point with what has to be looked up: devices of volumes, ids of images, new names."""
    if point.type == BIND and _is_open_file(point.source):
        cause = f"bind source {point.source[:300]} is an open file of who looks, and the engine's is another one"
        hint = "write what it holds into a file, and mount that"
        raise Invalid("create", subject, cause, hint=hint, code="E0401")
    if point.type == BIND and not point.create_source and not os.path.exists(point.source):
        cause = f'invalid mount config for type "bind": bind source path does not exist: {point.source[:300]}'
        raise Invalid("create", subject, cause, hint="make it, or use -v, which makes a directory", code="E0401")
    if point.type == IMAGE:
        snapshot = f"{container_id}-{os.urandom(4).hex()}"
        return point.replace(source=str(images.find(engine, point.name).id), snapshot=snapshot)
    if point.type != VOLUME:
        return point
    name = check_name(point.name) if point.name else names.new_id()
    known = engine.volumes.find(name)
    wanted = _options(request, point)
    options = known.options if known else wanted.driver_options if wanted else {}
    local.check(name, options)
    found = local.device(name, options)
    if found is None:
        return point.replace(name=name, source=engine.volumes.data(name))
    if point.shown_as and found.type != BIND:
        cause = f"as= needs a directory, and volume {name} is a {found.type}"
        raise Unsupported("create", subject, cause, hint="leave as= away")
    recursive = "rbind" in found.options or found.type == "rbind"
    return point.replace(
        name=name,
        source=engine.volumes.data(name),
        device_type=found.type,
        device=found.device,
        options=found.options,
        recursive=recursive,
    )


def _is_open_file(source: str) -> bool:
    """Tell whether a path leads through /proc/self/fd, as /dev/stdin and a shell's <(...) do."""
    own = f"/proc/{os.getpid()}/"
    for _ in range(_LINKS_MAX):
        place = os.path.realpath(os.path.dirname(source))
        if place.startswith(own) and place.endswith("/fd"):
            return True
        try:
            source = os.path.join(place, os.readlink(source))
        except OSError:
            return False  # no link
    return False  # the kernel follows no more either


def notes(record: ContainerRecord) -> tuple[str, ...]:
    """Return a sentence for each source that is not there and becomes an empty directory, as docker has it.

    Most are misspelt, and the container finds nothing where its user expects files (moby 13121).
    """
    missing = [
        point.source
        for point in record.mounts
        if point.type == BIND and point.create_source and not os.path.lexists(point.source)
    ]
    return tuple(f"{source} does not exist: it becomes an empty directory.{_likely(source)}" for source in missing)


def _likely(path: str) -> str:
    """Return " Did you mean ...?" for a path whose first missing name is nearly that of a neighbour, else ""."""
    import difflib  # 20 ms, only after a mistake

    above, name = os.path.split(path.rstrip("/"))
    while above != "/" and not os.path.isdir(above):
        above, name = os.path.split(above)
    try:
        near = difflib.get_close_matches(name, os.listdir(above)[:_NEIGHBOURS_MAX], n=1)
    except OSError:
        return ""
    rest = path.rstrip("/")[len(os.path.join(above, name)) :]
    found = os.path.join(above, near[0]) + rest if near else ""
    return f" Did you mean {found}?" if found and os.path.lexists(found) else ""


def _with_disk(engine: Engine, point: MountPoint) -> MountPoint:
    """Return the mount point of a volume with what holds it, where that is a file system of its own."""
    if point.device_type or not (disk := engine.volumes.disk(point.name)):
        return point
    return point.replace(device_type=FSTYPE, device=disk, options=(mount_options.LOOP,))


def _with_owner(engine: Engine, point: MountPoint, subject: str) -> MountPoint:
    """Return the mount point with the owner of its source, where the ids are to be exchanged."""
    if not point.shown_as:
        return point
    if mount_options.LOOP in point.options:
        with engine.volumes.contents(point.name) as path:
            info = os.stat(path)
        return point.replace(owner=(info.st_uid, info.st_gid))
    source = point.device or point.source
    if point.type == BIND:
        _make_source(source, subject)
    info = os.stat(source)
    return point.replace(owner=(info.st_uid, info.st_gid))


def _check_propagation(point: MountPoint, subject: str) -> None:
    """Refuse what would silently not be so: a mount that is private on the host has no peers and no master."""
    found = mount.of_path(os.path.realpath(point.source))
    if found is None or found.shared or (found.slave and point.propagation.endswith("slave")):
        return
    wanted = "shared mount" if point.propagation.endswith("shared") else "shared or slave mount"
    cause = f"path {point.source} is mounted on {found.place} but it is not a {wanted}"
    raise Invalid("start", subject, cause, hint=f"make it one: mount --make-shared {found.place}")


def _make_source(source: str, subject: str) -> None:
    if os.path.exists(source):
        return
    try:
        os.makedirs(source, 0o755)
    except OSError as wrong:
        cause = f"error while creating mount source path '{source}': mkdir: {wrong.strerror}"
        raise Invalid("start", subject, cause, hint=f"make it, or correct -v {source}:...", code="E0401") from None


def _bound_layer(engine: Engine, record: ContainerRecord) -> None:
    """Bound the container's own layer, as --storage-opt asks."""
    for key, value in record.request.storage_opt.items():
        if key != "size":
            hint = "known is size"
            raise Invalid("create", record.subject, f"Storage opt {key[:60]} not supported", hint=hint)
        if record.request.rootfs:
            raise quota.no_size_of_rootfs(record.subject)
        holder, layer = engine.snapshots.directory(record.id), engine.snapshots.writable(record.id)
        quota.bound_layer(holder, layer, quota.parse_size(value, record.subject), record.subject)


# -- making ---------------------------------------------------------------------------------------------------------


def _image_tree(engine: Engine, record: ContainerRecord, point: MountPoint, undo: ExitStack) -> Mount:
    image = images.find(engine, point.source)
    shift = kept.on_disk(record, engine.host.runtime)
    parent = engine.snapshots.unpack(engine.images.layer_openers(image), shift)
    (tree,) = engine.snapshots.prepare(point.snapshot, parent, inside=True)
    undo.callback(engine.snapshots.remove, point.snapshot)
    return tree


def _make(engine: Engine, record: ContainerRecord, point: MountPoint, undo: ExitStack, *, durable: bool) -> None:
    if engine.volumes.find(point.name) is not None:
        return
    wanted = _options(record.request, point)
    labels = dict(wanted.labels) if wanted else {}
    if point.anonymous:
        labels[ANONYMOUS_LABEL] = ""
    volume = VolumeRecord(
        name=point.name,
        created_at=timestamp(),
        labels=labels,
        options=dict(wanted.driver_options) if wanted else {},
        maker=record.id,
    )
    if engine.volumes.make(volume, durable=durable):
        undo.callback(_unmake, engine, point.name)
        events.publish(engine, events.VOLUME, "create", point.name, {"driver": volume.driver})


def _options(request: ContainerRequest, point: MountPoint) -> VolumeOptions | None:
    """Return what --mount says about the volume of a mount point."""
    for entry in request.mounts:
        if os.path.normpath("/" + entry.target.lstrip("/")) == point.destination:
            return entry.volume
    return None


def _unmake(engine: Engine, name: str) -> None:
    try:
        remove(engine, name, holders=1)
    except (OrlopError, OSError) as wrong:
        engine.log.write(f"volume {name} of a failed creation stays: {wrong}")


# -- filling --------------------------------------------------------------------------------------------------------


class _ImageView:
    """What the container will see below its root, read-only and in nobody's mount table; opened when it is needed."""

    def __init__(self, engine: Engine, record: ContainerRecord) -> None:
        self._engine = engine
        self._record = record
        self._root = -1

    def __enter__(self) -> _ImageView:
        return self

    def __exit__(self, *_: object) -> None:
        if self._root >= 0:
            os.close(self._root)

    def open(self, destination: str) -> int | None:
        """Return a descriptor of the directory at a place, None when nothing is there.

        Raises Invalid when something else is, OSError.
        """
        if self._root < 0:
            self._root = self._open_root()
        try:
            return path.open_in_root(self._root, destination, _DIRECTORY)
        except FileNotFoundError:
            return None
        except OSError as failure:
            if failure.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        cause = f"cannot mount volume over existing file, file exists {destination}"
        raise Invalid("create", self._record.subject, cause, hint="mount it at a directory") from None

    def _open_root(self) -> int:
        if self._record.request.rootfs:
            return os.open(self._record.request.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        (tree,) = self._engine.snapshots.mounts(self._record.id)
        if tree.type == "bind":
            return os.open(tree.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return rootfs.open_rootfs((_read_only(tree),))


def _read_only(tree: Mount) -> Mount:
    """Return an overlay without its writable layer: that becomes the topmost of those below."""
    upper = [f"lowerdir={word[9:]}" for word in tree.options if word.startswith("upperdir=")]
    rest = [word for word in tree.options if not word.startswith(("upperdir=", "workdir="))]
    return tree.replace(options=(*upper, *rest))


def _fill(engine: Engine, record: ContainerRecord, point: MountPoint, view: _ImageView) -> None:
    """Copy what the image has at the place into a volume that is empty, as a whole or not at all."""
    with engine.volumes.filling(point.name):
        if point.device_type == TMPFS:
            return  # it is made at the start, and empty then, as docker's
        subject = f"volume {point.name}"
        if point.device_type not in ("", BIND):
            _fill_device(engine, point, view, subject)
            return
        target = point.device or point.source
        try:
            if not is_empty(target):
                return
        except FileNotFoundError:
            return  # a device's directory that is not there: the start will say so
        source = view.open(point.destination)
        if source is None:
            return
        try:
            if (
                point.device
                or quota.is_bounded_itself(target)
                or (not point.anonymous and any(user != record.id for user in users(engine, point.name)))
            ):
                _copy_into(source, target, subject)  # another container may have it open: it must stay this directory
            else:
                _replace(engine, source, point.name, subject)
        finally:
            os.close(source)


def _copy_into(source: int, target: str, subject: str) -> None:
    directory = os.open(target, _DIRECTORY | os.O_NOFOLLOW)
    try:
        copyup.copy_tree(source, directory, subject)
    finally:
        os.close(directory)


def _replace(engine: Engine, source: int, name: str, subject: str) -> None:
    staging = engine.volumes.reserve()
    try:
        os.mkdir(f"{staging}/{DATA}", 0o700)
        if identity := quota.project(engine.volumes.data(name)):
            quota.mark(f"{staging}/{DATA}", identity)
        directory = os.open(f"{staging}/{DATA}", _DIRECTORY)
        try:
            if copyup.copy_tree(source, directory, subject):
                abi.syscall("syncfs", directory, subject=staging)
        finally:
            os.close(directory)
        os.rename(f"{staging}/{DATA}", engine.volumes.data(name))
    finally:
        engine.volumes.discard(staging)


def _fill_device(engine: Engine, point: MountPoint, view: _ImageView, subject: str) -> None:
    with _of_disk(engine, point) if mount_options.LOOP in point.options else _detached(point, subject) as target:
        if os.listdir(target):
            return
        source = view.open(point.destination)
        if source is None:
            return
        try:
            copyup.copy_tree(source, target, subject)
        finally:
            os.close(source)


@contextmanager
def _of_disk(engine: Engine, point: MountPoint) -> Iterator[int]:
    with engine.volumes.contents(point.name) as path:
        directory = os.open(path, _DIRECTORY)
        try:
            yield directory
        finally:
            os.close(directory)


@contextmanager
def _detached(point: MountPoint, subject: str) -> Iterator[int]:
    """Mount a volume's device for us alone, in nobody's mount table."""
    options = mount_options.parse(point.options, "o")
    settings: list[tuple[str, str | int | None]] = [*options.data, *((word, None) for word in options.super_block)]
    try:
        made = mount.new_filesystem(point.device_type, settings, options.set, point.device)
    except OSError as wrong:
        cause = f"error while mounting volume: {wrong.strerror} ({wrong.filename})"
        raise Unavailable("create", subject, cause, hint="try the same mount(8) by hand") from None
    try:
        directory = os.open(".", _DIRECTORY, dir_fd=made)
        try:
            if not stat.S_ISDIR(os.fstat(directory).st_mode):
                raise Unavailable("create", subject, "its root is no directory")
            yield directory
        finally:
            os.close(directory)
    finally:
        os.close(made)
