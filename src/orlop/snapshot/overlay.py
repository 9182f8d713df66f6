"""How overlayfs keeps its notes, and with which options we mount it: it depends on the user namespace of this process.

Only the initial one may read and write trusted.* (xattr(7)); elsewhere overlayfs keeps them in user.overlay.*, with the
option userxattr (since 5.11). A tree of one kind means nothing to mounts of the other.
An overlayfs itself takes neither the device that is a whiteout nor an upper directory: where our directory lies on one
(in a container), a socket that nobody may use says the same, to us alone. No archive holds a socket.
Source: kernel, Documentation/filesystems/overlayfs.rst, "User xattr"; fs/overlayfs/params.c, ovl_fs_params_verify;
fs/overlayfs/dir.c, ovl_mknod.
"""

from __future__ import annotations

import os
import stat

from orlop.linux import mount

_EVERY_ID = [b"0", b"0", b"4294967295"]
PREFIXES = ("trusted.overlay.", "user.overlay.")


def is_initial_namespace() -> bool:
    """Tell whether this is the initial user namespace, the only one whose root may make device nodes."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read(64).split() == _EVERY_ID


PRIVILEGED = is_initial_namespace()
OPAQUE_XATTR = (PREFIXES[0] if PRIVILEGED else PREFIXES[1]) + "opaque"

# Off, whatever the kernel's default: with them an upper directory alone does not say what a layer holds. Redirects need
# trusted.*, so that in a user namespace "off" is refused where "nofollow", which is stricter, is not.
MOUNT_OPTIONS = (
    ("redirect_dir=off", "metacopy=off") if PRIVILEGED else ("userxattr", "redirect_dir=nofollow", "metacopy=off")
)


def lies_on_overlay(path: str) -> bool:
    """Tell whether a directory lies on an overlayfs, which can't be the upper one of another. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mount.filesystem_magic(fd) == mount.OVERLAYFS_SUPER_MAGIC
    finally:
        os.close(fd)


def make_whiteout(name: bytes, directory: int) -> None:
    """Let a name hide what lower layers have under it. Raises OSError, FileExistsError where something stands there."""
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
    except PermissionError:
        os.mknod(name, stat.S_IFSOCK, 0, dir_fd=directory)


def is_whiteout(info: os.stat_result) -> bool:
    """Tell whether a file of a layer is a mark that hides its name."""
    if stat.S_ISCHR(info.st_mode):
        return info.st_rdev == 0
    return stat.S_ISSOCK(info.st_mode) and not stat.S_IMODE(info.st_mode)
