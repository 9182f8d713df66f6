"""The container's root: attach the detached root file system in the own mount namespace, and pivot into it."""

import errno
import os

from ...linux import mount, path
from . import Operation
from .mount_options import propagation_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


_READ_BYTES = 64 * 1024


class DetachFromHost(Operation):
    """Let no mount event of ours reach the host; the host's still reach bind mounts that are slaves of theirs."""

    subject = "root"

    def describe(self) -> str:
        return "make every mount a slave of the host's"

    def call(self) -> str:
        return "mount_setattr(/, MS_SLAVE, AT_RECURSIVE)"

    def act(self, init: "Init") -> None:
        fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount.mount_setattr(fd, propagation=mount.MS_SLAVE, recursive=True)
            # A slave can still be shared with slaves of its own: the place where the new root is attached must not be.
            mount.mount_setattr(fd, propagation=mount.MS_PRIVATE)
        finally:
            os.close(fd)


class AttachRoot(Operation):
    """Attach the detached root file system on top of the namespace's root: no directory has to be found for it."""

    subject = "root"

    def describe(self) -> str:
        return "attach the root file system"

    def call(self) -> str:
        return "move_mount(root, /)"

    def act(self, init: "Init") -> None:
        fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount.move_mount(init.root, fd)
        finally:
            os.close(fd)


class PivotRoot(Operation):
    """Make the attached file system the root of the namespace and let go of the host's mounts."""

    subject = "root"

    def describe(self) -> str:
        return "enter the root file system and detach the host's mounts"

    def call(self) -> str:
        return 'fchdir(root), pivot_root(".", "."), umount2(".", MNT_DETACH)'

    def act(self, init: "Init") -> None:
        os.fchdir(init.root)
        # The old root ends up on top of the new one, so "." is the old one until it is detached (pivot_root(2)).
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")


class ChangeRoot(Operation):
    """Make the attached file system the root by chroot(2): --no-pivot, where pivot_root(2) fails, on a ramfs.

    The host's mounts stay below it in this namespace, and who may call chroot(2) can find back to them. So what tells
    and changes most is taken away before, every procfs and sysfs, as runc does it; what can't be is a failure.
    """

    subject = "root"

    def describe(self) -> str:
        return "enter the root file system by chroot, after unmounting the host's procfs and sysfs"

    def call(self) -> str:
        return 'umount2(each procfs and sysfs, MNT_DETACH), fchdir(root), chroot(".")'

    def act(self, init: "Init") -> None:
        for place in _kernel_mounts(init.procfs()):
            try:
                mount.umount2(place, mount.MNT_DETACH)
            except OSError as failure:
                if failure.errno not in (errno.EINVAL, errno.ENOENT):  # of the container's own: seen at the same path
                    raise
            if _shows_kernel(place):
                raise OSError(errno.EBUSY, "it can't be unmounted, and would stay reachable below the root", place)
        os.fchdir(init.root)
        os.chroot(".")
        os.chdir("/")


def _kernel_mounts(procfs: int) -> list[str]:
    fd = os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
    try:
        data = b""
        while chunk := os.read(fd, _READ_BYTES):
            data += chunk
    finally:
        os.close(fd)
    places = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        if right.partition(" ")[0] in ("proc", "sysfs"):
            places.append(left.split(" ")[4].replace("\\040", " "))
    return sorted(set(places))


def _shows_kernel(place: str) -> bool:
    try:
        fd = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return mount.filesystem_magic(fd) in (mount.PROC_SUPER_MAGIC, mount.SYSFS_MAGIC)
    finally:
        os.close(fd)


class FinishRoot(Operation):
    """Give the root mount its own propagation and make it read-only, after everything was mounted on it."""

    readonly: bool
    propagation: str = ""
    subject = "root"

    def describe(self) -> str:
        words = [*(["make the root file system read-only"] if self.readonly else [])]
        if self.propagation:
            words.append(f"make the root mount {self.propagation.removeprefix('r')}")
        return " and ".join(words)

    def call(self) -> str:
        flags = [*(["MOUNT_ATTR_RDONLY"] if self.readonly else []), *([self.propagation] if self.propagation else [])]
        return f"mount_setattr(root, {', '.join(flags)})"

    def act(self, init: "Init") -> None:
        if self.propagation:
            flags, recursive = propagation_flags(self.propagation)
            mount.mount_setattr(init.root, propagation=flags, recursive=recursive)
        if self.readonly:
            mount.mount_setattr(init.root, set_=mount.MOUNT_ATTR_RDONLY)


class WorkingDirectory(Operation):
    """Make the working directory where the image does not have it, before the root is read-only."""

    path: str
    subject = "process"

    def describe(self) -> str:
        return f"make {self.path} if it is missing"

    def call(self) -> str:
        return "mkdirat below the root's descriptor"

    def act(self, init: "Init") -> None:
        try:
            os.close(path.mkdir_in_root(init.root, self.path))
        except OSError as failure:
            # The change into it comes later and tells what is wrong.
            if failure.errno not in (errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.EROFS, errno.ENOENT, errno.EPERM):
                raise
