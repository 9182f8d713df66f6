"""Mounts of the container: each is made detached, given its attributes, and moved onto a descriptor of its target.

No path is resolved twice, and none but below the new root's descriptor (CVE-2019-19921, CVE-2021-30465,
CVE-2024-45310). Bind sources are opened by the caller, who sees the host; everything else is made by init, so that
proc, sysfs, mqueue and tmpfs belong to its namespaces.
"""

import errno
import os
import stat

from ...linux import mount, path
from ...spec.errors import Invalid, NotFound, Unsupported
from . import Operation
from .idmap import IdMap
from .mount_options import OWN_DESCRIPTOR, MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from . import Init, Outside

# What lxcfs replaces, and two files with a value for one container: nothing else may be mounted inside /proc.
PROC_FILES_ALLOWED = frozenset(
    "/proc/cpuinfo /proc/diskstats /proc/meminfo /proc/stat /proc/swaps /proc/uptime /proc/loadavg /proc/slabinfo "
    "/proc/net/dev /proc/sys/kernel/ns_last_pid /proc/sys/crypto/fips_enabled".split()
)
# A link of the image's at one of these would lead the kernel's file systems, and what is masked in them, astray.
_PLAIN_PLACES = ("/proc", "/sys", "/dev")
_OVERLAY_PAIRS = ("lowerdir", "upperdir", "workdir")
# Nothing is in these but what the kernel and we put there, and no link that leads out.
_EMPTY_TYPES = ("proc", "sysfs", "tmpfs", "devpts", "mqueue")
_PLAIN_TYPES = ("proc", "sysfs", "cgroup", "cgroup2")


def open_target(init: "Init", destination: str, fstype: str, is_directory: bool = True) -> int:
    """Return a descriptor of the place to mount at, made where it is missing.

    Raises Invalid when the image has a symbolic link or something unfitting there (SEC-09, SEC-14), or when the place
    lies inside procfs (CVE-2019-16884).
    """
    plain = destination in _PLAIN_PLACES or fstype in _PLAIN_TYPES
    try:
        if is_directory:
            fd = path.mkdir_in_root(*init.place(destination), resolve=path.RESOLVE_NO_SYMLINKS if plain else 0)
        else:
            fd = path.make_file_in_root(*init.place(destination))
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
                raise Invalid(
                    "mount", destination, "the source is a file and the image has a directory there", code="E0402"
                )
    except NotADirectoryError:
        raise Invalid(
            "mount",
            destination,
            f"the image has something there that is not a directory, and {fstype} needs one",
            code="E0402",
        ) from None
    except OSError as failure:
        if plain and failure.errno == errno.ELOOP:
            raise Invalid(
                "mount",
                destination,
                f"the image has a symbolic link there, and {fstype} must be mounted on an ordinary directory",
                hint=f"replace the link {destination} in the image by a directory",
                code="E0403",
            ) from None
        raise
    if fstype != "proc" and destination not in PROC_FILES_ALLOWED and _is_procfs(fd):
        os.close(fd)
        raise Invalid("mount", destination, "it lies inside /proc, where nothing may be mounted", code="E0404")
    return fd


def _is_procfs(fd: int) -> bool:
    return mount.filesystem_magic(fd) == mount.PROC_SUPER_MAGIC


class NewFilesystem(Operation):
    """Mount a new instance of a file system. label: of SELinux, for everything in it, "" for the kernel's choice."""

    destination: str
    fstype: str
    source: str = ""
    options: MountOptions = MountOptions()
    label: str = ""
    subject = "mounts"
    mistakes = frozenset((errno.EINVAL,))  # its options are the caller's

    def describe(self) -> str:
        details = [*(["read-only"] if self.options.read_only else []), *map(_text, self.options.data)]
        return f"mount a new {self.fstype} at {self.destination}" + (f" ({', '.join(details)})" if details else "")

    def call(self) -> str:
        return f'fsopen("{self.fstype}"), fsmount, move_mount to {self.destination}'

    def act(self, init: "Init") -> None:
        options = self.options
        target = open_target(init, self.destination, self.fstype)
        try:
            # A new file system has no mounts below it: recursive attributes are plain ones.
            attributes = options.set & ~options.recursive_clear | options.recursive_set
            # The copy has to be written before the file system is read-only.
            late = attributes & mount.MOUNT_ATTR_RDONLY if options.tmpcopyup else 0
            made = self._new(self._settings(target), attributes & ~late)
            if self.label and self.fstype == "mqueue":  # it takes no options: its root is labelled as a file
                _set_label(made, self.label)
            if options.tmpcopyup:
                from ..copyup import copy_tree  # the plan has loaded it

                copy_tree(target, made, self.destination)
            if late:
                mount.mount_setattr(made, set_=late)
            init.attach(made, target, self.destination, made=self.fstype in _EMPTY_TYPES and not options.tmpcopyup)
            if options.subdirectory:
                self._cover_with(options.subdirectory, made, init)
        finally:
            os.close(target)
        if options.propagation:
            mount.mount_setattr(made, propagation=options.propagation, recursive=options.propagation_recursive)

    def _new(self, settings: list[tuple[str, str | int | None]], attributes: int) -> int:
        """Return the detached mount. Layers of an overlay are handed over one by one, however many there are."""
        if self.fstype != "overlay" or any(isinstance(value, str) and "\\" in value for _, value in settings):
            return mount.new_filesystem(self.fstype, settings, attributes, self.source)
        return overlay(settings, attributes)

    def _cover_with(self, subdirectory: str, made: int, init: "Init") -> None:
        """Show a directory of the new file system over its root. A part of a detached mount could not be cloned."""
        source = open_below(made, subdirectory, self.source, os.O_DIRECTORY)
        try:
            init.attach(mount.clone_tree(source), made, self.destination)
        finally:
            os.close(source)

    def _settings(self, target: int) -> list[tuple[str, str | int | None]]:
        settings: list[tuple[str, str | int | None]] = [*self.options.data]
        settings += [(name, None) for name in self.options.super_block]
        if self.label and self.fstype != "mqueue":
            settings.append(("context", self.label))
        if self.options.read_only and not self.options.tmpcopyup:
            settings.append(("ro", None))  # as with mount(2): the super block, not this mount alone
        if self.fstype == "tmpfs" and not any(name == "mode" for name, _ in settings):
            # Somebody who mounts a tmpfs over /tmp wants the sticky bit that the image's /tmp has.
            settings.insert(0, ("mode", f"{stat.S_IMODE(os.fstat(target).st_mode):o}"))
        return settings


def _set_label(directory: int, label: str) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)  # a mount's own is O_PATH
    try:
        os.setxattr(fd, "security.selinux", label.encode())
    finally:
        os.close(fd)


class BindMount(Operation):
    """Show a file or directory of the host in the container.

    disk: the source is a file that holds an ext4, and what is in that is shown.
    """

    destination: str
    source: str
    options: MountOptions
    idmap: IdMap | None = None
    disk: bool = False
    subject = "mounts"

    def describe(self) -> str:
        below = " with the mounts below it" if self.options.bind == "rbind" else ""
        part = f"{self.options.subdirectory} of " * bool(self.options.subdirectory)
        words = f"show {part}{self.source} at {self.destination}{below}" + (" read-only" * self.options.read_only)
        return words + (" with ids mapped" if self.idmap else "")

    def call(self) -> str:
        recursive = " | AT_RECURSIVE" * (self.options.bind == "rbind")
        attributes = " mount_setattr," * bool(self.options.set | self.options.clear | self.options.recursive_set)
        return f"open_tree({self.source}, OPEN_TREE_CLONE{recursive}),{attributes} move_mount to {self.destination}"

    def prepare(self, outside: "Outside") -> None:
        outside.keep(self, self.open_tree())

    def open_tree(self) -> int:
        """Return a descriptor of the detached mount, with all its attributes. The caller closes it."""
        opened = [self._open_disk() if self.disk else open_source(self.source)]
        try:
            if self.options.subdirectory:
                opened.append(open_below(opened[0], self.options.subdirectory, self.source))
            source = opened[-1]
            if self.destination == "/proc" and not _is_procfs(source):
                raise Invalid("mount", self.source, "only a procfs may be mounted at /proc", code="E0404")
            tree = self._clone(source)
        finally:
            for fd in opened:  # a disk's own mount goes with its descriptor
                os.close(fd)
        try:
            self._set_attributes(tree)
        except BaseException:
            os.close(tree)
            raise
        return tree

    def _clone(self, source: int) -> int:
        try:
            return mount.clone_tree(source, recursive=self.options.bind == "rbind")
        except OSError as refused:
            # A detached mount that lies ready can be cloned since 6.15; before, it is mounted itself, which goes once.
            if refused.errno != errno.EINVAL or not (self.disk or self.source.startswith(OWN_DESCRIPTOR)):
                raise
            if self.disk and self.options.subdirectory:
                hint = "mount all of it, or boot Linux 6.15"
                raise Unsupported("mount", self.source, "a part of a volume with a size", hint=hint) from None
            return os.dup(source)

    def _open_disk(self) -> int:
        from ..rootfs import open_disk

        try:
            return open_disk(self.source)
        except FileNotFoundError as missing:
            if missing.filename != self.source:
                raise
            return open_source(self.source)

    def _set_attributes(self, tree: int) -> None:
        options = self.options
        if self.idmap:
            self._map_ids(tree, self.idmap)
        if options.set or options.clear:
            mount.mount_setattr(tree, set_=options.set, clear=options.clear)
        if options.recursive_set or options.recursive_clear:
            mount.mount_setattr(tree, set_=options.recursive_set, clear=options.recursive_clear, recursive=True)
        # A clone of a shared mount is its peer: unless that was asked for, mounts inside must not appear on the host.
        if options.propagation & ~mount.MS_SHARED or not options.propagation:
            mount.mount_setattr(tree, propagation=mount.MS_SLAVE, recursive=True)
        if options.propagation:
            mount.mount_setattr(tree, propagation=options.propagation, recursive=options.propagation_recursive)

    def _map_ids(self, tree: int, idmap: IdMap) -> None:
        namespace = idmap.open_user_namespace()
        try:
            mount.mount_setattr(tree, set_=mount.MOUNT_ATTR_IDMAP, userns_fd=namespace, recursive=idmap.recursive)
        except OSError as failure:
            if failure.errno != errno.EINVAL:
                raise
            raise Unsupported(
                "map ids of", self.source, "its file system has no id-mapped mounts on this kernel", code="E0411"
            ) from None
        finally:
            os.close(namespace)

    def act(self, init: "Init") -> None:
        tree = init.source(self)
        target = open_target(init, self.destination, "bind", stat.S_ISDIR(os.fstat(tree).st_mode))
        try:
            init.attach(tree, target, self.destination)
        finally:
            os.close(target)


class Remount(Operation):
    """Change the attributes of a mount that an earlier operation made."""

    destination: str
    options: MountOptions
    subject = "mounts"

    def describe(self) -> str:
        return f"change the mount at {self.destination}" + (" to read-only" * self.options.read_only)

    def call(self) -> str:
        return f"mount_setattr({self.destination})"

    def act(self, init: "Init") -> None:
        options = self.options
        target = path.open_in_root(*init.place(self.destination))
        try:
            if options.set or options.clear:
                mount.mount_setattr(target, set_=options.set, clear=options.clear)
            if options.recursive_set or options.recursive_clear:
                mount.mount_setattr(target, set_=options.recursive_set, clear=options.recursive_clear, recursive=True)
            if options.propagation:
                mount.mount_setattr(target, propagation=options.propagation, recursive=options.propagation_recursive)
        finally:
            os.close(target)


def overlay(settings: "Sequence[tuple[str, str | int | None]]", attributes: int) -> int:
    """Return a detached overlay with these options; "lowerdir" may stand there for each layer, the topmost first."""
    lower = [part for name, value in settings if name == "lowerdir" for part in str(value).split(":")]
    named = {name: str(value or "") for name, value in settings if name in _OVERLAY_PAIRS}
    flags = [name if value is None else f"{name}={value}" for name, value in settings if name not in _OVERLAY_PAIRS]
    return mount.overlay(lower, named.get("upperdir", ""), named.get("workdir", ""), attributes, flags)


def open_source(source: str) -> int:
    """Return an O_PATH descriptor of a bind mount's source on the host. Raises NotFound with docker's words."""
    try:
        return os.open(source, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            "mount",
            source,
            f"bind source path does not exist: {source}",
            hint="create it, or use a volume instead",
            code="E0401",
        ) from None


def open_below(directory: int, name: str, shown: str, flags: int = 0) -> int:
    """Return an O_PATH descriptor of what lies below a directory, and never of what lies elsewhere (CVE-2017-1002101).

    shown: what errors call the directory. Raises NotFound, Invalid.
    """
    resolve = path.RESOLVE_BENEATH | path.RESOLVE_NO_MAGICLINKS
    try:
        return path.openat2(directory, name, os.O_PATH | flags, 0, resolve)
    except FileNotFoundError:
        cause = f"cannot access path {shown}/{name}: no such file or directory"
        raise NotFound("mount", f"{shown}/{name}", cause, hint="make it first", code="E0407") from None
    except OSError as failure:
        if failure.errno not in (errno.EXDEV, errno.ELOOP, errno.ENOTDIR):
            raise
        cause = "it is not a directory" if failure.errno == errno.ENOTDIR else "a symbolic link there leads out of it"
        raise Invalid("mount", f"{shown}/{name}", cause, hint="name a directory that lies inside") from None


def _text(pair: tuple[str, str | None]) -> str:
    name, value = pair
    return name if value is None else f"{name}={value}"
