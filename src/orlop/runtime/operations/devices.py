"""Device nodes and the links in /dev. Everything is made below a descriptor of the directory that will hold it.

In a user namespace mknod(2) of a device is refused, so there the host's node is shown by a bind mount.
Source: config-linux.md, "Default Devices" and "Dev symbolic links"; CVE-2026-41579, CVE-2026-47766.
"""

import errno
import os
import stat

from ...linux import mount, path
from ...spec.errors import Conflict, Invalid
from ...spec.runtime import Device
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside

DEFAULT_DEVICES = tuple(
    Device(type="c", path=f"/dev/{name}", major=major, minor=minor, file_mode=0o666)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
DEFAULT_FILE_MODE = 0o666
KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

DEFAULT_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


class DeviceNodes(Operation):
    """Make device nodes."""

    devices: tuple[Device, ...]
    subject = "devices"

    def describe(self) -> str:
        return "make " + ", ".join(_text(device) for device in self.devices)

    def call(self) -> str:
        return "mknodat, fchownat below the descriptor of the directory"

    def act(self, init: "Init") -> None:
        for device in self.devices:
            directory, _, name = device.path.rpartition("/")
            parent = _open_directory(init, directory)
            try:
                _make_node(parent, name, device)
            finally:
                os.close(parent)


class BoundDevices(Operation):
    """Show device nodes of the host, where making them is not allowed."""

    devices: tuple[Device, ...]
    subject = "devices"

    def describe(self) -> str:
        return "show the host's " + ", ".join(device.path for device in self.devices)

    def call(self) -> str:
        return "open_tree(OPEN_TREE_CLONE), move_mount"

    def prepare(self, outside: "Outside") -> None:
        for device in self.devices:
            node = os.open(device.path, os.O_PATH | os.O_CLOEXEC)
            try:
                if not _is(os.fstat(node), device):
                    raise Invalid(
                        "make the device",
                        device.path,
                        f"the host's is not the device {device.major}:{device.minor}",
                        hint="without the right to make device nodes only the host's own can be shown",
                    )
                outside.keep(self, mount.clone_tree(node), device.path)
            finally:
                os.close(node)

    def act(self, init: "Init") -> None:
        for device in self.devices:
            target = path.make_file_in_root(*init.place(device.path))
            try:
                mount.move_mount(init.source(self, device.path), target)
            finally:
                os.close(target)


class DeviceLinks(Operation):
    """Make the symbolic links of /dev, such as /dev/stdin; an existing one is left as it is.

    /dev/core is made where the kernel has a /proc/kcore.
    """

    links: tuple[tuple[str, str], ...] = DEFAULT_LINKS
    subject = "devices"

    def describe(self) -> str:
        return "link " + ", ".join(link for _, link in self.links)

    def call(self) -> str:
        return "symlinkat below the descriptor of /dev"

    def act(self, init: "Init") -> None:
        links = self.links
        if _exists(init, "/proc/kcore"):
            links += (("/proc/kcore", "/dev/core"),)
        for target, link in links:
            directory, _, name = link.rpartition("/")
            parent = _open_directory(init, directory)
            try:
                os.symlink(target, name, dir_fd=parent)
            except FileExistsError:
                if name == "ptmx":
                    # The image's own would open a terminal of the host's devpts, or none (config-linux.md).
                    os.unlink(name, dir_fd=parent)
                    os.symlink(target, name, dir_fd=parent)
            finally:
                os.close(parent)


def _exists(init: "Init", name: str) -> bool:
    try:
        os.close(path.open_in_root(*init.place(name)))
    except OSError:
        return False
    return True


def _open_directory(init: "Init", directory: str) -> int:
    """Return a descriptor of the directory. Raises Invalid when /dev itself is a link (SEC-14)."""
    if directory != "/dev":
        return path.mkdir_in_root(*init.place(directory))
    try:
        return path.mkdir_in_root(*init.place(directory), resolve=path.RESOLVE_NO_SYMLINKS)
    except OSError as failure:
        if failure.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise Invalid(
            "make devices in",
            "/dev",
            "the image has something there that is not a directory",
            hint="replace /dev in the image by a directory",
            code="E0402",
        ) from None


def _make_node(parent: int, name: str, device: Device) -> None:
    """mknod below parent. The caller's umask is 0, so the mode is exact without a chmod, which would follow a link."""
    mode = DEFAULT_FILE_MODE if device.file_mode is None else stat.S_IMODE(device.file_mode)
    try:
        os.mknod(name, KINDS[device.type] | mode, os.makedev(device.major, device.minor), dir_fd=parent)
    except FileExistsError:
        if _is(os.stat(name, dir_fd=parent, follow_symlinks=False), device):
            return
        raise Conflict(
            "make the device",
            device.path,
            "the image has something else there",
            hint="remove it from the image",
            code="E0402",
        ) from None
    if device.uid or device.gid:
        os.chown(name, device.uid or 0, device.gid or 0, dir_fd=parent, follow_symlinks=False)


def _is(info: os.stat_result, device: Device) -> bool:
    if stat.S_IFMT(info.st_mode) != KINDS[device.type]:
        return False
    return device.type == "p" or info.st_rdev == os.makedev(device.major, device.minor)


def _text(device: Device) -> str:
    return device.path if device.type == "p" else f"{device.path} ({device.type} {device.major}:{device.minor})"
