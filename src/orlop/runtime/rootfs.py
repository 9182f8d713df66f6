"""The root file system as a detached mount: in nobody's mount table until init attaches it (I4)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Mount, Root


def open_rootfs(mounts: Sequence[Mount]) -> int:
    """Return a descriptor of the detached mount that the snapshot's mounts describe; the caller closes it.

    One mount of type "overlay" (options "lowerdir=PATH" topmost first and repeated, "upperdir=", "workdir=", flags) or
    "bind" (source, options "bind" or "rbind", "ro"). Raises Invalid for anything else, OSError from the kernel.
    """
    raise NotImplementedError


def open_bundle_root(root: Root, bundle: str) -> int:
    """Return a detached mount of a bundle's root directory; root.path is relative to the bundle or absolute."""
    raise NotImplementedError
