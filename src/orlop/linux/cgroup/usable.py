"""What of a machine's hierarchies a process may use that is not the machine's root.

Nothing of v1 can be delegated safely (cgroups(7)). Of v2 a subtree can (cgroup-v2.rst, "Delegation"): its owner makes
cgroups there, moves processes between those, and hands down the controllers that it was given. It is the highest cgroup
on our own way down that we may write: below a systemd unit with Delegate=yes, for instance.
"""

from __future__ import annotations

import os

from .layout import Layout, paths_of

_DELEGATED_FILES = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def usable(layout: Layout) -> Layout:
    """Return the part of a layout in which this process can make cgroups: all of it, a delegated subtree, or none."""
    if all(os.access(mount, os.W_OK) for mount in layout.hierarchies()):
        return layout
    delegated = _delegated(layout) if layout.v2 else ""
    if not delegated:
        return Layout("none")
    with open(f"{delegated}/cgroup.controllers", encoding="utf-8") as file:
        controllers = frozenset(file.read().split())
    root = layout.roots.get(layout.v2, "").rstrip("/") + delegated.removeprefix(layout.v2)
    return Layout("unified", {}, delegated, controllers, {delegated: root} if root else None)


def _delegated(layout: Layout) -> str:
    """Return the directory of the highest v2 cgroup above or at ours that is delegated to us, "" for none."""
    try:
        own = paths_of(layout)[layout.v2]
    except (OSError, KeyError):
        return ""
    for depth in range(len(own) + 1):
        directory = "/".join((layout.v2, *own[:depth]))
        if all(os.access(f"{directory}/{name}", os.W_OK) for name in ("", *_DELEGATED_FILES)):
            return directory
    return ""
