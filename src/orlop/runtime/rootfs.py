"""The root file system as a detached mount: in nobody's mount table until init attaches it (I4)."""

from __future__ import annotations

import os
import os.path

from ..linux import mount as linux_mount
from ..spec.errors import Invalid, NotFound, Unavailable
from .operations.mount_options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Mount, Root

_OVERLAY_FLAGS = ("userxattr", "redirect_dir", "metacopy")


def open_rootfs(mounts: Sequence[Mount]) -> int:
    """Return a descriptor of the detached mount that the snapshot's mounts describe; the caller closes it.

    One mount of type "overlay" (options "lowerdir=PATH" topmost first and repeated, "upperdir=", "workdir=", flags) or
    "bind" (source, options "bind" or "rbind", "ro"). Raises Invalid for anything else, NotFound for a missing
    directory, Unavailable when the kernel refuses.
    """
    if len(mounts) != 1 or mounts[0].type not in ("overlay", "bind"):
        raise Invalid("mount", "the root file system", "it must be one mount of type overlay or bind")
    mount = mounts[0]
    try:
        return _overlay(mount) if mount.type == "overlay" else _bind(mount.source, mount.options)
    except OSError as failure:
        raise _refused(failure) from None


def open_bundle_root(root: Root, bundle: str) -> int:
    """Return a detached mount of a bundle's root directory, with the mounts below it; the caller closes it.

    root.path is relative to the bundle or absolute. root.readonly is the plan's business. Errors as `open_rootfs`.
    """
    try:
        return _bind(os.path.join(bundle, root.path), ("rbind",))
    except OSError as failure:
        raise _refused(failure) from None


def _overlay(mount: Mount) -> int:
    options = parse(mount.options, "rootfs.options")
    lower = [value for name, value in options.data if name == "lowerdir" and value]
    named = {name: value or "" for name, value in options.data if name != "lowerdir"}
    if not lower:
        raise Invalid("mount", "the root file system", "an overlay needs a lowerdir")
    extra = sorted(set(named) - {"upperdir", "workdir", *_OVERLAY_FLAGS})
    if extra or bool(named.get("upperdir")) != bool(named.get("workdir")):
        what = ", ".join(extra) or "upperdir without workdir"
        raise Invalid("mount", "the root file system", f"its overlay options do not fit: {what}")
    flags = [f"{name}={named[name]}" if named[name] else name for name in _OVERLAY_FLAGS if name in named]
    upper, work = named.get("upperdir", ""), named.get("workdir", "")
    return linux_mount.overlay(lower, upper, work, attributes=options.set, flags=flags)


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
        return NotFound("mount", subject, f"the root file system {subject} is not a directory that exists")
    return Unavailable("mount", "the root file system", cause)
