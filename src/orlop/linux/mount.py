"""Mounts by file descriptor: a file system is configured, made and mounted as a detached tree, then moved into place.

A detached mount is in nobody's mount table and goes away when its last descriptor is closed. Path based mount(2) is
here for the one thing the new calls do not do (propagation of the own root) and for tests.
Kernel: open_tree, move_mount, fsopen, fsconfig, fsmount since 5.2; mount_setattr since 5.12.
"""

from __future__ import annotations

import errno
import os
import sys

from . import abi, ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_BENEATH = 0x200
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_STRING_MAX = 255  # fs/fsopen.c: strndup_user(_value, 256)

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8


# include/uapi/linux/magic.h
PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_STATX_BYTES = 256
_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATFS_WORDS = 16  # struct statfs: twelve words and four spare ones; f_type is the first


class _MountAttr(ffi.Structure):
    _fields_ = [(name, ffi.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """Return a descriptor of a mount tree; with OPEN_TREE_CLONE a detached copy of it."""
    return abi.syscall("open_tree", dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC, subject=path)


def clone_tree(dirfd: int, path: str = "", recursive: bool = False) -> int:
    """Return a detached bind mount of the file or directory at path below dirfd; path "" is dirfd itself.

    The last component is not followed when it is a symbolic link.
    """
    flags = OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW | (AT_RECURSIVE if recursive else 0)
    return open_tree(dirfd, path, flags | (0 if path else AT_EMPTY_PATH))


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the detached mount to the file or directory that target_fd names: no path is resolved."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _on_descriptor(target_fd, "move_mount", mount_fd, b"", target_fd, b"", flags)


def replace_mount(mount_fd: int, old: int, underneath: Callable[[], int], descriptors: int) -> None:
    """Put a detached mount in the place of the one whose root `old` is: what others see there is one or the other.

    underneath: called when the old one is gone, opens what it lay on; on kernels before 6.5, and below a shared mount,
    that is to be seen for a moment. descriptors: as for `detach`. Raises OSError.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    try:
        abi.syscall("move_mount", mount_fd, b"", old, b"", flags | MOVE_MOUNT_BENEATH)
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
    else:
        detach(old, descriptors)
        return
    detach(old, descriptors)
    target = underneath()
    try:
        move_mount(mount_fd, target)
    finally:
        os.close(target)


def detach(fd: int, descriptors: int) -> None:
    """Unmount the mount whose root fd is, not what a path may lead to by now; what is open of it stays usable.

    descriptors: an O_PATH descriptor of the caller's /proc/self/fd, which becomes its working directory: no other
    procfs has to be mounted. Nothing may be mounted on top.
    """
    os.fchdir(descriptors)
    umount2(str(fd), MNT_DETACH)


def mount_setattr(
    fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = -1, recursive: bool = False
) -> None:
    """Change the attributes of the mount at fd. userns_fd is used with MOUNT_ATTR_IDMAP. mount_setattr(2)."""
    attr = _MountAttr(set_, clear, propagation, userns_fd if userns_fd >= 0 else 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _on_descriptor(fd, "mount_setattr", fd, b"", flags, ffi.byref(attr), ffi.sizeof(attr))


def new_filesystem(
    fstype: str, options: Iterable[tuple[str, str | int | None]] = (), attributes: int = 0, source: str = ""
) -> int:
    """Return a detached mount of a new file system instance.

    options: (name, value) pairs in order; None sets a flag, an int passes a descriptor.
    attributes: MOUNT_ATTR_*. source: what mountinfo shows; the type when empty.
    Raises OSError with the kernel's own explanation where it gives one.
    """
    fs = abi.syscall("fsopen", fstype.encode(), FSOPEN_CLOEXEC, subject=fstype)
    try:
        _configure(fs, fstype, FSCONFIG_SET_STRING, "source", source or fstype)
        for key, value in options:
            if value is None:
                _configure(fs, fstype, FSCONFIG_SET_FLAG, key)
            elif isinstance(value, int):
                _configure(fs, fstype, FSCONFIG_SET_FD, key, None, value)
            else:
                _configure(fs, fstype, FSCONFIG_SET_STRING, key, value)
        _configure(fs, fstype, FSCONFIG_CMD_CREATE)
        return abi.syscall("fsmount", fs, FSMOUNT_CLOEXEC, attributes, subject=fstype)
    finally:
        os.close(fs)


def has_filesystem(fstype: str) -> bool:
    """Tell whether the kernel has a file system, loading its module where there is one. Without privileges: True."""
    try:
        os.close(abi.syscall("fsopen", fstype.encode(), FSOPEN_CLOEXEC, subject=fstype))
    except OSError as failure:
        return failure.errno != errno.ENODEV
    return True


def _configure(
    fs: int, fstype: str, command: int, key: str | None = None, value: str | None = None, aux: int = 0
) -> None:
    try:
        abi.syscall(
            "fsconfig",
            fs,
            command,
            key.encode() if key else None,
            os.fsencode(value) if value is not None else None,
            aux,
        )
    except OSError as failure:
        what = fstype if key is None else f"{fstype} {key}" + (f"={value}" if value is not None else "")
        raise abi.error("fsconfig", failure.errno or errno.EINVAL, what, _messages(fs)) from None


def _messages(fs: int) -> str:
    """Return what the file system logged on its context: lines such as "e overlay: ..."."""
    lines: list[str] = []
    try:
        while len(lines) < 8:
            lines.append(os.read(fs, 1024).decode(errors="replace").strip())
    except OSError:
        pass  # ENODATA: no more messages
    return "; ".join(line[2:] for line in lines if line)


def overlay(
    lower: Sequence[str], upper: str = "", work: str = "", attributes: int = 0, flags: Iterable[str] = ()
) -> int:
    """Return a detached overlay mount. lower: directories, topmost first; without upper it is read-only.

    flags: more options, with a value or without ("userxattr", "redirect_dir=off").

    Each layer is its own `lowerdir+` (kernel 6.7), so the number of layers is not bound by a string; before that the
    layers are named through /proc/self/fd in one short `lowerdir`.
    """
    opened: list[int] = []

    def short(path: str) -> str:
        if len(os.fsencode(path)) <= FSCONFIG_STRING_MAX and not path.count(":") and not path.count("\\"):
            return path
        opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{opened[-1]}"

    try:
        rest: list[tuple[str, str | int | None]] = []
        for flag in flags:
            name, _, value = flag.partition("=")
            rest.append((name, value or None))
        if upper:
            rest += [("upperdir", short(upper)), ("workdir", short(work))]
        try:
            layers: list[tuple[str, str | int | None]] = [("lowerdir+", short(path)) for path in lower]
            return new_filesystem("overlay", layers + rest, attributes)
        except OSError as failure:
            # Before 6.5 overlay takes any option from fsconfig and refuses the unknown ones at the end, unnamed.
            if failure.errno != errno.EINVAL:
                raise
        opened += [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]
        joined = ":".join(f"/proc/self/fd/{fd}" for fd in opened[-len(lower) :])
        return new_filesystem("overlay", [("lowerdir", joined), *rest], attributes)
    finally:
        for fd in opened:
            os.close(fd)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2), by path: for propagation changes of the caller's own root and for tests."""
    abi.syscall(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        data.encode() if data else None,
        subject=target,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    abi.syscall("umount2", os.fsencode(target), flags, subject=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). With "." for both, the old root lies on top of the new one until `umount2(".", MNT_DETACH)`."""
    abi.syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def is_mount_root(fd: int) -> bool:
    """Tell whether a file is the root of a mount. statx(2), STATX_ATTR_MOUNT_ROOT, since 5.8."""
    buffer = ffi.create_string_buffer(_STATX_BYTES)
    abi.syscall("statx", fd, b"", AT_EMPTY_PATH, 0, ffi.byref(buffer))
    attributes = int.from_bytes(buffer.raw[8:16], sys.byteorder)  # after stx_mask and stx_blksize
    return bool(attributes & _STATX_ATTR_MOUNT_ROOT)


class MountInfo:
    """One line of mountinfo. place: the mount point; shared: it has peers; slave: it has a master."""

    __slots__ = ("place", "shared", "slave")

    def __init__(self, line: str) -> None:
        fields = line.split(" ")
        optional = fields[6 : fields.index("-", 6)]
        self.place = fields[4]
        # The kernel writes these four as octal numbers (fs/proc_namespace.c, mangle).
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            self.place = self.place.replace(code, character)
        self.shared = any(field.startswith("shared:") for field in optional)
        self.slave = any(field.startswith("master:") for field in optional)


def of_path(path: str) -> MountInfo | None:
    """Return the mount that a resolved path lies on; None when that is not to be seen. proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    best: MountInfo | None = None
    for line in lines:
        found = MountInfo(line)
        if f"{path}/".startswith(f"{found.place.rstrip('/')}/") and (
            best is None or len(found.place) >= len(best.place)
        ):
            best = found  # of several at one place the last one lies on top
    return best


def filesystem_magic(fd: int) -> int:
    """Return the type of the file system that fd lies on: a number of statfs(2), such as PROC_SUPER_MAGIC."""
    buffer = (ffi.c_long * _STATFS_WORDS)()
    abi.syscall("fstatfs", fd, ffi.byref(buffer))
    return int(buffer[0])


def _on_descriptor(fd: int, call: str, *args: object) -> None:
    """Make a call about fd; the error says which file that is, and only then is it looked up."""
    try:
        abi.syscall(call, *args)
    except OSError as failure:
        try:
            failure.filename = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            failure.filename = f"descriptor {fd}"
        raise
