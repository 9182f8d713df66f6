"""Masked and read-only paths: what of /proc and /sys a container must not see or write.

What covers a file is a detached clone of the host's /dev/null, opened and checked by the caller: the container's own
could be replaced by a link to anything (CVE-2025-31133). A directory is covered by an empty read-only tmpfs.
"""

import os
import stat

from ...linux import mount, path
from ...spec.errors import Unavailable
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import Init, Outside

HIDDEN = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
_NULL_DEVICE = os.makedev(1, 3)


class MaskedPaths(Operation):
    """Hide files and directories; those that do not exist are skipped."""

    paths: tuple[str, ...]
    subject = "masks"

    def describe(self) -> str:
        return "hide " + ", ".join(self.paths)

    def call(self) -> str:
        return "open_tree(/dev/null) or a read-only tmpfs, move_mount"

    def prepare(self, outside: "Outside") -> None:
        null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            info = os.fstat(null)
            if not stat.S_ISCHR(info.st_mode) or info.st_rdev != _NULL_DEVICE:
                raise Unavailable("mask paths with", "/dev/null", "it is not the character device 1:3 on this host")
            tree = mount.clone_tree(null)
        finally:
            os.close(null)
        outside.keep(self, tree)
        mount.mount_setattr(tree, set_=HIDDEN, propagation=mount.MS_PRIVATE)

    def act(self, init: "Init") -> None:
        file_mask, directory_mask = init.source(self), -1
        file_mask_attached = False
        for target in _found(init, self.paths):
            # A detached mount can be attached once, and cloned only after that (kernels before 6.15).
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                mount.move_mount(mount.clone_tree(file_mask) if file_mask_attached else file_mask, target)
                file_mask_attached = True
            elif directory_mask < 0:
                options = (("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "555"), ("ro", None))
                directory_mask = mount.new_filesystem("tmpfs", options, HIDDEN | mount.MOUNT_ATTR_NODEV)
                mount.move_mount(directory_mask, target)
            else:
                mount.move_mount(mount.clone_tree(directory_mask), target)


class ReadonlyPaths(Operation):
    """Make files and trees read-only; those that do not exist are skipped."""

    paths: tuple[str, ...]
    subject = "masks"

    def describe(self) -> str:
        return "make read-only " + ", ".join(self.paths)

    def call(self) -> str:
        return "open_tree(OPEN_TREE_CLONE), mount_setattr(MOUNT_ATTR_RDONLY, AT_RECURSIVE), move_mount"

    def act(self, init: "Init") -> None:
        for target in _found(init, self.paths):
            tree = mount.clone_tree(target, recursive=True)
            mount.mount_setattr(tree, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
            mount.move_mount(tree, target)
            os.close(tree)


def _found(init: "Init", paths: tuple[str, ...]) -> "Iterator[int]":
    """Yield an O_PATH descriptor of each path that exists in the container, closed when the next one is asked for."""
    for name in paths:
        try:
            target = path.open_in_root(*init.place(name))
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            yield target
        finally:
            os.close(target)
