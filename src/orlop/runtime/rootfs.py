"""The root file system as a detached mount: in nobody's mount table until init attaches it (I4)."""

from __future__ import annotations

import errno
import os
import os.path
import select

from ..linux import mount as linux_mount
from ..linux import process
from ..spec.errors import Invalid, NotFound, Unavailable, Unsupported
from ..spec.runtime import IdMapping
from .operations.idmap import IdMap
from .operations.mount_options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from ..spec.runtime import Mount, Root

FUSE_OVERLAYFS = "fuse-overlayfs"
IMAGE_SUFFIX = ".erofs"  # of a lowerdir that is a file
DISK = "disk.ext4"  # a file that stands for the directory above upperdir and workdir: both are in it
DISK_OPTIONS = ("discard", "noinit_itable")  # removed files give their space back; a hole is as good as zeros
FUSE_S_MAX = 30.0
_FUSE_FD = 3
LAYERS_MAX = 500  # OVL_MAX_STACK, fs/overlayfs/params.h
_OVERLAY_FLAGS = ("userxattr", "redirect_dir", "metacopy")


def open_rootfs(mounts: Sequence[Mount]) -> int:
    """Return a descriptor of the detached mount that the snapshot's mounts describe; the caller closes it.

    One mount of type "overlay" (options "lowerdir=PATH" topmost first and repeated, "upperdir=", "workdir=", flags),
    "fuse-overlayfs" (source is the program) or "bind" (source, options "bind" or "rbind", "ro").
    Raises Invalid for anything else, NotFound for a missing directory, Unavailable when the kernel refuses.
    """
    if len(mounts) != 1 or mounts[0].type not in ("overlay", FUSE_OVERLAYFS, "bind"):
        raise Invalid("mount", "the root file system", "it must be one mount of type overlay, fuse-overlayfs or bind")
    from contextlib import ExitStack  # not at the top: orlop-runtime has no such mounts, and it is 3 ms

    mount = mounts[0]
    try:
        with ExitStack() as opened:
            try:
                return _open(mount, opened)
            except OSError as failure:
                files = (one.endswith(IMAGE_SUFFIX) or f"/{DISK}/" in one for one in mount.options)
                detached = mount.type == "overlay" and (mount.uid_mappings or any(files))
                if failure.errno != errno.EINVAL or not (detached or f"/{DISK}/" in mount.source):
                    raise
            return _open(mount, opened, _enter_own_mounts(opened))
    except OSError as failure:
        raise _refused(failure) from None


def _open(mount: Mount, opened: ExitStack, place: int = -1) -> int:
    if mount.type == FUSE_OVERLAYFS:
        return _fuse_overlay(mount)
    mapped = _mapper(mount, opened, place)
    if mount.type == "overlay":
        return _overlay(mount, mapped)
    return _bind(_named(mount.source, mapped), mount.options)


def _enter_own_mounts(opened: ExitStack) -> int:
    """Enter a mount namespace of the caller's own, left when `opened` closes; return a descriptor of its root.

    Before kernel 6.15 overlayfs takes layers only from mounts of its caller's namespace (clone_private_mount() in
    fs/namespace.c), so id-mapped trees have to be attached somewhere for the moment in which it clones them.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, home)
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, directory)
    process.unshare(process.CLONE_NEWNS)
    opened.callback(os.fchdir, directory)  # setns(2) goes to the root of the namespace
    opened.callback(process.setns, home, process.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, root)
    linux_mount.mount_setattr(root, propagation=linux_mount.MS_PRIVATE, recursive=True)
    return root


def open_bundle_root(root: Root, bundle: str) -> int:
    """Return a detached mount of a bundle's root directory, with the mounts below it; the caller closes it.

    root.path is relative to the bundle or absolute. root.readonly is the plan's business. Errors as `open_rootfs`.
    """
    try:
        return _bind(os.path.join(bundle, root.path), ("rbind",))
    except OSError as failure:
        raise _refused(failure) from None


def _mapper(mount: Mount, opened: ExitStack, place: int) -> Callable[[str], str]:
    """Return what names a directory as it appears with the mount's ids: by a mount of it that is mapped.

    It is detached, or attached at the directory `place`, where that is not -1, on top of what is there.

    The mapping goes below the overlay, whose own mounts can't be mapped (overlayfs.rst: layers may be, since 5.19).
    """
    if not mount.uid_mappings:
        return lambda path: _plain(path, opened, place)
    maps = IdMap(uids=_with_mounter(mount.uid_mappings), gids=_with_mounter(mount.gid_mappings))
    namespace = maps.open_user_namespace()
    opened.callback(os.close, namespace)

    def mapped(path: str) -> str:
        tree = _tree(path)
        opened.callback(os.close, tree)
        try:
            linux_mount.mount_setattr(tree, set_=linux_mount.MOUNT_ATTR_IDMAP, userns_fd=namespace)
        except OSError as failure:
            # Not as EINVAL: whoever sees that tries another way.
            cause = f"its file system has no id-mapped mounts: {failure.strerror}"
            raise OSError(errno.EOPNOTSUPP, cause, path) from None
        if place >= 0:
            linux_mount.move_mount(tree, place)
        return f"/proc/self/fd/{tree}"

    return mapped


def _named(path: str, mapped: Callable[[str], str]) -> str:
    """Return what names a directory, which may lie in a file that holds it."""
    above, found, rest = path.partition(f"/{DISK}/")
    return f"{mapped(f'{above}/{DISK}')}/{rest}" if found else mapped(path)


def _plain(path: str, opened: ExitStack, place: int) -> str:
    """Return a name of a directory, or of the root of a file that holds one."""
    if not _is_image(path):
        return path
    tree = _tree(path)
    opened.callback(os.close, tree)
    if place >= 0:
        linux_mount.move_mount(tree, place)
    return f"/proc/self/fd/{tree}"


def _is_image(path: str) -> bool:
    # A directory of that name is what has become of one: all that was in it was unpacked.
    return path.endswith((IMAGE_SUFFIX, f"/{DISK}")) and not os.path.isdir(path)


def _tree(path: str) -> int:
    """Return a detached mount of a directory, or of a file that holds one."""
    if _is_image(path):
        if path.endswith(f"/{DISK}"):
            return open_disk(path)
        return linux_mount.new_filesystem("erofs", attributes=linux_mount.MOUNT_ATTR_RDONLY, source=path)
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux_mount.clone_tree(directory)
    finally:
        os.close(directory)


def open_disk(path: str) -> int:
    """Return a detached mount of an ext4 that lies in a file. Raises OSError."""
    from . import loop

    return loop.mount_file(path, "ext4", [(name, None) for name in DISK_OPTIONS])


def _with_mounter(mappings: tuple[IdMapping, ...]) -> tuple[IdMapping, ...]:
    """Return a map that root of the machine has an id in too: the first on disk that the container has not.

    overlayfs acts as whoever mounted it, who makes files in its work directory before they get their owners: without an
    id on the mapped layer that fails, and the file system is read-only.
    """
    if any(each.host_id <= 0 < each.host_id + each.size for each in mappings):
        return mappings
    free = max(each.container_id + each.size for each in mappings)
    return (*mappings, IdMapping(container_id=free, host_id=0, size=1))


def _overlay(mount: Mount, mapped: Callable[[str], str]) -> int:
    options = parse(mount.options, "rootfs.options")
    lower = [value for name, value in options.data if name == "lowerdir" and value]
    named = {name: value or "" for name, value in options.data if name != "lowerdir"}
    if not lower:
        raise Invalid("mount", "the root file system", "an overlay needs a lowerdir", code="E0410")
    if len(lower) > LAYERS_MAX:
        cause = f"it has {len(lower)} layers, and the kernel's overlayfs takes {LAYERS_MAX}"
        hint = "make its image of fewer: several commands in one RUN, several files in one COPY"
        raise Unsupported("mount", "the root file system", cause, hint=hint)
    extra = sorted(set(named) - {"upperdir", "workdir", *_OVERLAY_FLAGS})
    if extra or bool(named.get("upperdir")) != bool(named.get("workdir")):
        what = ", ".join(extra) or "upperdir without workdir"
        raise Invalid("mount", "the root file system", f"its overlay options do not fit: {what}", code="E0410")
    flags = [f"{name}={named[name]}" if named[name] else name for name in _OVERLAY_FLAGS if name in named]
    upper, work = named.get("upperdir", ""), named.get("workdir", "")
    if upper:
        # Both in one mount (fs/overlayfs/super.c): that of the directory above them.
        above, _, name = upper.rpartition("/")
        if work.rpartition("/")[0] != above:
            raise Invalid("mount", "the root file system", "upperdir and workdir are not in one directory")
        place = mapped(above)
        upper, work = f"{place}/{name}", f"{place}/{work.rpartition('/')[2]}"
    return linux_mount.overlay(
        [_named(path, mapped) for path in lower], upper, work, attributes=options.set, flags=flags
    )


def _fuse_overlay(mount: Mount) -> int:
    """Return a detached mount that fuse-overlayfs serves; the program ends when nobody has the mount any more.

    We make the mount and give the program its end of it, as libfuse takes it: /dev/fd/N for a place (libfuse 3.3).
    """
    if mount.uid_mappings:
        cause = "fuse-overlayfs does not exchange owners, which this container's user namespace needs"
        raise Unsupported("mount", "the root file system", cause, hint="use the storage driver overlay2 or vfs")
    options = parse(mount.options, "rootfs.options")
    settings: dict[str, list[str]] = {}
    for name, value in options.data:
        path = "".join(f"\\{letter}" if letter in "\\:," else letter for letter in value or "")
        settings.setdefault(name, []).append(path)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        ours: list[tuple[str, str | int | None]] = [("fd", str(server)), ("rootmode", "40000")]
        ours += [("user_id", "0"), ("group_id", "0"), ("default_permissions", None), ("allow_other", None)]
        tree = linux_mount.new_filesystem("fuse", ours, options.set, FUSE_OVERLAYFS)
        try:
            _serve(mount.source, ",".join(f"{name}={':'.join(paths)}" for name, paths in settings.items()), server)
        except BaseException:
            os.close(tree)
            raise
    finally:
        os.close(server)
    return tree


def _serve(program: str, options: str, server: int) -> None:
    """Start fuse-overlayfs, which goes into the background by itself once it serves. Raises Unavailable, OSError."""
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        errors = (os.POSIX_SPAWN_DUP2, says, 2)
        out = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        end = (os.POSIX_SPAWN_DUP2, server, _FUSE_FD)
        argv = [program, "-o", options, f"/dev/fd/{_FUSE_FD}"]
        pid = os.posix_spawn(program, argv, os.environ, file_actions=[null, out, errors, end], setsid=True)
    finally:
        os.close(says)
    try:
        words = _told(said)
    finally:
        os.close(said)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable("mount", "the root file system", f"fuse-overlayfs failed ({code}): {last[:500]}")


def _told(said: int) -> bytes:
    """Return what comes on a pipe until its end: a program in the background has closed its standard error."""
    words = b""
    while len(words) < 1 << 16:
        ready, _, _ = select.select([said], [], [], FUSE_S_MAX)
        data = os.read(said, 4096) if ready else b""
        if not data:
            break
        words += data
    return words


def _bind(source: str, options: tuple[str, ...]) -> int:
    parsed = parse(options, "rootfs.options")
    if parsed.data:
        raise Invalid("mount", "the root file system", f"{parsed.data[0][0]} means nothing for a bind mount")
    directory = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = linux_mount.clone_tree(directory, recursive=parsed.bind == "rbind")
    finally:
        os.close(directory)
    try:
        if parsed.set:
            linux_mount.mount_setattr(tree, set_=parsed.set)
        # A clone of a shared mount is its peer; mounts made in the container must not appear on the host.
        linux_mount.mount_setattr(tree, propagation=linux_mount.MS_SLAVE, recursive=True)
        linux_mount.mount_setattr(tree, propagation=linux_mount.MS_PRIVATE)
    except OSError:
        os.close(tree)
        raise
    return tree


def _refused(failure: OSError) -> NotFound | Unavailable:
    cause = (failure.strerror or str(failure)) + (f" ({failure.filename})" if failure.filename else "")
    if isinstance(failure, FileNotFoundError | NotADirectoryError):
        subject = str(failure.filename or "the root file system")
        return NotFound(
            "mount", subject, f"the root file system {subject} is not a directory that exists", code="E0406"
        )
    return Unavailable("mount", "the root file system", cause)
