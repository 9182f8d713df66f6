"""Storage drivers: how a root file system that can be written to stands above the layers of an image.

    overlay2         upper/ and work/, mounted by the kernel's overlayfs
    fuse-overlayfs   the same on disk, mounted by the program of that name: where the kernel's overlayfs does not do
    erofs            upper/ and work/ above <root>/whole/<chain id>.erofs: all layers as one file that is mounted
    vfs, native      tree/, a copy of all layers: for file systems that nothing can be stacked on. Files share their
                     blocks where the file system can (xfs, btrfs), and are copied where it can't
    btrfs            tree/, a subvolume: a snapshot of <root>/whole/<chain id>, made once for each image

The layers themselves are the same for all of them, and each writable one keeps the name of its driver (`driver` beside
its tree), so that an engine that is started with another goes on with what is there. Of a
bounded size, upper/ and work/ may lie in a file system of their own, disk.ext4 (`disk`). On an overlayfs (in a
container) nothing can be stacked, and marks are of another kind (`overlay`): there it is vfs, and <root>/driver says so
for ever.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from orlop.linux import inode
from orlop.spec.errors import Invalid, Unavailable
from orlop.spec.runtime import Mount

from . import overlay
from .extract import DEPTH_MAX
from .removal import DIRECTORY_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from orlop.spec.digest import Digest

    from .record import Usage

DEFAULT = "overlay2"
NOTE = "driver"
DISK = "disk.ext4"  # orlop.runtime.rootfs knows it by this name
_MARKED = " sockets"  # in the note of <root>, behind the name: what its layers have for whiteouts
_COPIES = "vfs"
VARIABLE = "ORLOP_STORAGE_DRIVER"
_ALIASES = {"overlay": "overlay2"}
_GONE = {
    "aufs": "docker has removed it as well",
    "devicemapper": "docker has removed it as well",
    "zfs": "its snapshots are made by a program of ZFS's own",
}
_FUSE = "fuse-overlayfs"
_OPAQUE_MARKER = ".wh..wh..opq"
_NAME_BYTES_MAX = 64


class Overlay:
    """The kernel's overlayfs, and what all drivers have in common. name: what the user calls it."""

    name = DEFAULT
    type = "overlay"
    options: tuple[str, ...] = overlay.MOUNT_OPTIONS
    tree = "upper"  # what the container writes to

    def source(self) -> str:
        """Return what stands as the source of the mount. Raises Unavailable."""
        return "overlay"

    def check(self, root: str) -> None:
        """Raise Unavailable where snapshots below `root` can't be made this way."""

    def fill(self, root: str, new: str, lower: tuple[str, ...], parent: Digest | None) -> None:
        """Make a writable layer in the new, empty directory. lower: the trees below, the topmost first. Raises OSError.

        root: of the snapshots. parent: the ChainID of the topmost.
        """
        for name in ("upper", "work"):
            os.mkdir(f"{new}/{name}", 0o700)
        _give_root_attributes(lower[0] if lower else "", f"{new}/upper")

    def mounts(self, directory: str, lower: tuple[str, ...]) -> tuple[Mount, ...]:
        """Return the one mount that makes the root file system."""
        bounded = os.path.exists(f"{directory}/{DISK}")
        above = f"{directory}/{DISK}" if bounded else directory
        if not lower:
            return (Mount(type="bind", source=f"{above}/upper", options=("bind", "rw")),)
        own = (f"upperdir={above}/upper", f"workdir={above}/work")
        options = (*(f"lowerdir={path}" for path in lower), *own, *self.options)
        return (Mount(type=self.type, source=self.source(), options=options),)

    @contextmanager
    def written(self, root: str, directory: str, lower: tuple[str, ...]) -> Iterator[str]:
        """Hold the tree of what was written, as overlayfs keeps it. Raises OSError, Unavailable."""
        if not os.path.exists(f"{directory}/{DISK}"):
            yield f"{directory}/upper"
            return
        from .disk import NoDisk, mounted

        try:
            with mounted(f"{directory}/{DISK}") as place:
                yield f"{place}/upper"
        except NoDisk as wrong:
            subject = f"snapshot {os.path.basename(directory)}"
            raise Unavailable("mount", subject, wrong.cause, hint=wrong.hint) from None

    def bound(self, directory: str, size_bytes: int) -> None:
        """Put upper/ and work/ of a new writable layer into a file system of this size.

        Raises disk.NoDisk where that can't be, OSError.
        """
        from .disk import make

        def fill(root: str) -> None:
            os.mkdir(f"{root}/work", 0o700)
            os.mkdir(f"{root}/upper", 0o700)
            _give_root_attributes(f"{directory}/upper", f"{root}/upper")

        make(f"{directory}/{DISK}", size_bytes, fill)
        for name in ("upper", "work"):
            os.rmdir(f"{directory}/{name}")

    def settle(self, root: str, directory: str, lower: tuple[str, ...]) -> None:
        """Let upper/ be there, and be what was written, for somebody who goes on with it. Raises OSError."""


class FuseOverlay(Overlay):
    name = _FUSE
    type = _FUSE
    options = ()

    def bound(self, directory: str, size_bytes: int) -> None:
        refuse_size(self.name)

    def source(self) -> str:
        for place in os.environ.get("PATH", os.defpath).split(":"):
            if place.startswith("/") and os.access(f"{place}/{_FUSE}", os.X_OK):
                return f"{place}/{_FUSE}"
        raise Unavailable("use", f"storage driver {_FUSE}", f"there is no program {_FUSE} on PATH", hint=_INSTALL)

    @contextmanager
    def written(self, root: str, directory: str, lower: tuple[str, ...]) -> Iterator[str]:
        self.settle(root, directory, lower)
        yield f"{directory}/upper"

    def settle(self, root: str, directory: str, lower: tuple[str, ...]) -> None:
        """Take away the files by which the program marks opaque directories, beside the attribute. Raises OSError."""
        levels = [_Marked(os.open(f"{directory}/upper", DIRECTORY_FLAGS))]
        try:
            while levels:
                if not levels[-1].names:
                    os.close(levels.pop().fd)
                    continue
                name = levels[-1].names.pop()
                if len(levels) <= DEPTH_MAX:
                    try:
                        levels.append(_Marked(os.open(name, DIRECTORY_FLAGS, dir_fd=levels[-1].fd)))
                    except OSError:
                        continue  # the container has removed it meanwhile
        finally:
            for level in levels:
                os.close(level.fd)

    def check(self, root: str) -> None:
        self.source()
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            hint = "modprobe fuse, or choose another driver"
            raise Unavailable("use", f"storage driver {_FUSE}", "/dev/fuse is not there or not ours", hint=hint)


class _Marked:
    """A directory of fuse-overlayfs, without its mark. names: of the directories in it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with os.scandir(fd) as entries:
            self.names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        try:
            os.unlink(_OPAQUE_MARKER, dir_fd=fd)
            os.setxattr(fd, overlay.OPAQUE_XATTR, b"y")
        except OSError:
            pass  # it has none


class Erofs(Overlay):
    """The kernel's overlayfs above one file with all layers, which nobody can change: <root>/whole/<hex>.erofs."""

    name = "erofs"

    def check(self, root: str) -> None:
        from orlop.linux import mount

        empty = f"{root}/trash/{os.urandom(8).hex()}"
        try:
            os.mkdir(empty, 0o700)
            _write_image((empty,), f"{empty}.erofs")
            try:
                os.close(mount.new_filesystem("erofs", source=f"{empty}.erofs"))
            finally:
                os.rmdir(empty)
                os.unlink(f"{empty}.erofs")
        except OSError as wrong:
            cause = f"the kernel mounts no EROFS from a file: {wrong.strerror}"
            hint = "take Linux 6.12 or later, as root, or choose another driver"
            raise Unavailable("use", "storage driver erofs", cause, hint=hint) from None
        os.makedirs(f"{root}/whole", 0o700, exist_ok=True)

    def fill(self, root: str, new: str, lower: tuple[str, ...], parent: Digest | None) -> None:
        super().fill(root, new, lower, parent)
        place = _image_of(root, lower)
        if lower and not os.path.exists(place):
            image = f"{root}/trash/{os.urandom(8).hex()}"
            try:
                _write_image(lower, image)
                os.rename(image, place)  # another one that was first has made the same
            except BaseException:
                if os.path.exists(image):
                    os.unlink(image)
                raise

    def mounts(self, directory: str, lower: tuple[str, ...]) -> tuple[Mount, ...]:
        root = directory.rpartition("/active/")[0]
        return super().mounts(directory, (_image_of(root, lower),) if lower else ())


def _image_of(root: str, lower: tuple[str, ...]) -> str:
    """Return where the image of these layers lies, which is named after the topmost: <root>/layers/<hex>/fs."""
    return f"{root}/whole/{os.path.basename(os.path.dirname(lower[0]))}.erofs" if lower else ""


def _write_image(trees: tuple[str, ...], path: str) -> None:
    from .erofs import Image
    from .layered import open_layers

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        image = Image(fd)
        image.add(open_layers(trees))
        image.finish()
    finally:
        os.close(fd)


class Copies(Overlay):
    """A copy of all layers for each writable one."""

    tree = "tree"

    def __init__(self, name: str) -> None:
        self.name = name

    def bound(self, directory: str, size_bytes: int) -> None:
        refuse_size(self.name)

    def fill(self, root: str, new: str, lower: tuple[str, ...], parent: Digest | None) -> None:
        os.mkdir(f"{new}/tree", 0o700)
        copy_layers(lower, f"{new}/tree")

    def mounts(self, directory: str, lower: tuple[str, ...]) -> tuple[Mount, ...]:
        return (Mount(type="bind", source=f"{directory}/tree", options=("bind", "rw")),)

    @contextmanager
    def written(self, root: str, directory: str, lower: tuple[str, ...]) -> Iterator[str]:
        from .unpack import remove_tree

        if os.path.isdir(f"{directory}/upper"):
            yield f"{directory}/upper"
            return
        found = f"{root}/trash/{os.urandom(8).hex()}"
        try:
            self._write_down(directory, lower, found)
            yield found
        finally:
            remove_tree(root, found)

    def settle(self, root: str, directory: str, lower: tuple[str, ...]) -> None:
        from .unpack import remove_tree

        found = f"{root}/trash/{os.urandom(8).hex()}"
        try:
            self._write_down(directory, lower, found)
            os.rename(found, f"{directory}/upper")
        except BaseException:
            remove_tree(root, found)
            raise

    def _write_down(self, directory: str, lower: tuple[str, ...], target: str) -> None:
        from .copies import Written
        from .layered import open_layers

        os.mkdir(target, 0o700)
        fd = os.open(target, DIRECTORY_FLAGS)
        try:
            below = open_layers(lower) if lower else None
            made_ns = os.stat(f"{directory}/{NOTE}").st_mtime_ns
            Written(fd, made_ns).find(open_layers((f"{directory}/tree",), plain=True), below)
        finally:
            os.close(fd)


class Btrfs(Copies):
    """A snapshot of a subvolume that has all layers of the image."""

    def check(self, root: str) -> None:
        directory = os.open(f"{root}/trash", DIRECTORY_FLAGS)
        name = os.urandom(8).hex()
        try:
            inode.make_subvolume(directory, name)
            _drop(directory, name)
        except OSError as wrong:
            cause = f"{root} is not on btrfs: {wrong.strerror}"
            hint = "let ORLOP_ROOT lie on btrfs, or choose another driver"
            raise Unavailable("use", "storage driver btrfs", cause, hint=hint) from None
        finally:
            os.close(directory)
        os.makedirs(f"{root}/whole", 0o700, exist_ok=True)

    def fill(self, root: str, new: str, lower: tuple[str, ...], parent: Digest | None) -> None:
        target = os.open(new, DIRECTORY_FLAGS)
        try:
            if parent is None:
                inode.make_subvolume(target, "tree")
                os.chmod("tree", 0o755, dir_fd=target)
                return
            source = self._whole(root, lower, parent)
            try:
                inode.snapshot_subvolume(source, target, "tree")
            finally:
                os.close(source)
        finally:
            os.close(target)

    def bound(self, directory: str, size_bytes: int) -> None:
        tree = os.open(f"{directory}/tree", DIRECTORY_FLAGS)
        try:
            inode.limit_subvolume(tree, size_bytes, exclusive=True)
        finally:
            os.close(tree)

    def _whole(self, root: str, lower: tuple[str, ...], parent: Digest) -> int:
        """Return a descriptor of the subvolume with all layers, made when it is not there."""
        place = f"{root}/whole/{parent.hex}"
        try:
            return os.open(place, DIRECTORY_FLAGS)
        except FileNotFoundError:
            pass
        from .unpack import remove_tree

        new = f"{root}/trash/{os.urandom(8).hex()}"
        os.mkdir(new, 0o700)
        try:
            directory = os.open(new, DIRECTORY_FLAGS)
            try:
                inode.make_subvolume(directory, "tree")
            finally:
                os.close(directory)
            copy_layers(lower, f"{new}/tree")
            try:
                os.rename(f"{new}/tree", place)
            except OSError:
                if not os.path.isdir(place):  # else another one was first
                    raise
        finally:
            remove_tree(root, new)
        return os.open(place, DIRECTORY_FLAGS)


class Writable:
    """A writable layer. name: of the driver that made it."""

    def __init__(self, root: str, directory: str, lower: tuple[str, ...]) -> None:
        """root: of the snapshots. directory: the layer's. lower: the trees below it, the topmost first."""
        self._root = root
        self._directory = directory
        self._lower = lower
        self._driver = of(directory)

    @property
    def name(self) -> str:
        return self._driver.name

    def mounts(self) -> tuple[Mount, ...]:
        """Return what `Snapshots.prepare` returned for it."""
        return self._driver.mounts(self._directory, self._lower)

    def own_trees(self) -> tuple[str, ...]:
        """Return the directories that its processes fill, the tree that they see first."""
        names = ("upper", "work") if self._driver.tree == "upper" else (self._driver.tree,)
        return tuple(f"{self._directory}/{name}" for name in names)

    def bound(self, size_bytes: int) -> None:
        """Bound what the layer, a new one, may occupy, by its own means. Raises disk.NoDisk, OSError."""
        self._driver.bound(self._directory, size_bytes)

    def usage(self) -> Usage:
        """Return what the layer's own tree occupies. Raises FileNotFoundError, OSError."""
        from .usage import measure

        tree = self.own_trees()[0]
        if os.path.exists(f"{self._directory}/{DISK}"):
            with self._driver.written(self._root, self._directory, self._lower) as tree:
                return measure(tree)
        return measure(tree)

    @contextmanager
    def layers(self) -> Iterator[tuple[str, ...]]:
        """Hold its trees: what was written, as overlayfs keeps it, then those below it, the topmost first.

        Raises OSError. What is in them is the container's business: see `layered`, `difference` and `pack`.
        """
        with self._driver.written(self._root, self._directory, self._lower) as upper:
            yield (upper, *self._lower)

    def settle(self) -> None:
        """Let what was written stay as `layers` shows it, for a caller who changes it there, and then has it adopted.

        Nothing may be written to the layer itself any more. Raises OSError.
        """
        self._driver.settle(self._root, self._directory, self._lower)


def refuse_size(driver: str) -> NoReturn:
    """Raise NoDisk: layers of a driver can't be bounded."""
    from .disk import NoDisk

    raise NoDisk(f"the storage driver {driver} keeps no sizes", "use the storage driver overlay2")


_INSTALL = f"install the package {_FUSE}, or choose another driver"
_DRIVERS: dict[str, Overlay] = {
    driver.name: driver
    for driver in (Overlay(), FuseOverlay(), Erofs(), Copies("vfs"), Copies("native"), Btrfs("btrfs"))
}
NAMES = tuple(_DRIVERS)


def named(name: str) -> Overlay:
    """Return a driver. Raises Invalid for a name that is none."""
    driver = _DRIVERS.get(_ALIASES.get(name, name))
    if driver is None:
        cause = f"Orlop has no storage driver {name[:60]}" + (f": {_GONE[name]}" if name in _GONE else "")
        raise Invalid("use", f"storage driver {name[:60]!r}", cause, hint=f"choose one of {', '.join(NAMES)}")
    return driver


def chosen(root: str, wanted: str) -> Overlay:
    """Return the driver of new writable layers below root: the one that is wanted, or that was the last time.

    wanted: "" for no wish. Raises Invalid, Unavailable where it can't be used here.
    """
    noted, _, marks = _note(root).partition(" ")
    nested = overlay.lies_on_overlay(root)
    driver = named(wanted or noted or (_COPIES if nested else DEFAULT))
    if (nested or marks) and driver.tree == Overlay.tree:
        raise _not_stacked(driver, root, nested=nested)
    driver.check(root)
    note = driver.name + (_MARKED if nested or marks else "")
    if (wanted or nested) and _note(root) != note:
        write_note(root, note)
    return driver


def _not_stacked(driver: Overlay, root: str, *, nested: bool) -> Unavailable:
    where = "lies on an overlayfs, above which no other can stand"
    marked = "has layers that were unpacked on an overlayfs, whose marks only copies understand"
    hint = f"choose {_COPIES} (orlop serve --storage-driver {_COPIES}), or let ORLOP_ROOT lie elsewhere"
    return Unavailable("use", f"storage driver {driver.name}", f"{root} {where if nested else marked}", hint=hint)


def without_program(driver: Overlay) -> Overlay:
    """Return a driver whose mounts take one call and no process, this one where it is such a one."""
    if driver.name == "erofs":
        return _DRIVERS[DEFAULT]
    return _DRIVERS[_COPIES] if driver.type == _FUSE else driver


def of(directory: str) -> Overlay:
    """Return the driver that a writable layer was made by."""
    try:
        return named(_note(directory) or DEFAULT)
    except Invalid as wrong:
        raise Unavailable("mount", f"snapshot {os.path.basename(directory)}", wrong.cause) from None


def write_note(directory: str, name: str) -> None:
    """Write down a driver's name. Raises OSError."""
    new = f"{directory}/.{NOTE}-{os.urandom(4).hex()}"
    with open(new, "w", encoding="ascii") as file:
        file.write(name)
    os.rename(new, f"{directory}/{NOTE}")


def copy_layers(lower: tuple[str, ...], target: str) -> None:
    """Copy what these trees show together into an empty directory. Raises OSError."""
    from .copies import Copy
    from .layered import open_layers

    fd = os.open(target, DIRECTORY_FLAGS)
    try:
        if lower:
            Copy(fd).directory(open_layers(lower), fd)
        else:
            os.fchmod(fd, 0o755)
    finally:
        os.close(fd)


def orphans(root: str) -> list[str]:
    """Return the names in whole/ whose layers are gone: an engine was killed between the two."""
    try:
        names = os.listdir(f"{root}/whole")
        return [name for name in names if not os.path.isdir(f"{root}/layers/{name.removesuffix('.erofs')}")]
    except FileNotFoundError:
        return []


def drop_subvolumes(path: str) -> None:
    """Remove the subvolumes of a directory of ours in the trash, where it has some: at once, not file by file."""
    try:
        directory = os.open(path, DIRECTORY_FLAGS)
    except OSError:
        return
    try:
        _drop(directory, "tree")
    finally:
        os.close(directory)


def _drop(directory: int, name: str) -> None:
    try:
        if inode.is_subvolume(os.lstat(name, dir_fd=directory)):
            inode.destroy_subvolume(directory, name)
    except OSError:
        pass  # none, not ours to destroy, or with others in it: it is removed as any tree


def _note(directory: str) -> str:
    try:
        with open(f"{directory}/{NOTE}", encoding="ascii", errors="replace") as file:
            return file.read(_NAME_BYTES_MAX).strip()
    except FileNotFoundError:
        return ""


def _give_root_attributes(source: str, target: str) -> None:
    """Give the upper directory the image's root owner and mode: overlayfs shows the upper one's."""
    mode, uid, gid = 0o755, 0, 0
    if source:
        info = os.stat(source)
        mode, uid, gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
        os.chown(target, uid, gid)
    os.chmod(target, mode)
