"""Which cgroup hierarchies this machine has, and where.

    unified  cgroup v2 only: every controller is there
    hybrid   v1 hierarchies hold controllers, and a v2 hierarchy stands beside them
    v1       v1 hierarchies only
    none     nothing is mounted

Source: cgroups(7); proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MOUNTINFO = "/proc/self/mountinfo"
MOUNTINFO_BYTES_MAX = 64 * 1024 * 1024

# The options of a v1 super block hold more than controllers (xattr, release_agent=...): these are the names that count.
V1_CONTROLLERS = frozenset(
    "blkio cpu cpuacct cpuset debug devices freezer hugetlb memory misc net_cls net_prio perf_event pids rdma".split()
)


class Layout:
    """The hierarchies of one machine.

    mode: "unified", "hybrid", "v1" or "none".
    v1: controller, or "name=..." for a named hierarchy without one -> mount directory; co-mounted controllers
        share theirs. Empty in mode "unified".
    v2: mount directory of the v2 hierarchy, "" where there is none.
    v2_controllers: the controllers that the v2 hierarchy can give to its children.
    """

    __slots__ = ("mode", "v1", "v2", "v2_controllers")

    def __init__(
        self, mode: str, v1: Mapping[str, str] | None = None, v2: str = "", v2_controllers: frozenset[str] = frozenset()
    ) -> None:
        self.mode = mode
        self.v1 = dict(v1 or {})
        self.v2 = v2
        self.v2_controllers = v2_controllers

    def __repr__(self) -> str:
        return f"Layout({self.mode!r}, {self.v1!r}, {self.v2!r}, {sorted(self.v2_controllers)!r})"

    def version(self, controller: str) -> int:
        """Return 1 or 2, the version of the hierarchy that holds the controller; 0 where none does.

        "devices" has no v2 controller: programs of type BPF_PROG_TYPE_CGROUP_DEVICE do its work on any v2 cgroup.
        "cgroup", the core's own files, exists on v2 alone.
        """
        if controller in self.v1:
            return 1
        if controller in self.v2_controllers or (self.v2 and controller in ("devices", "cgroup")):
            return 2
        return 0

    def directory(self, controller: str) -> str:
        """Return the mount directory of the hierarchy that holds the controller; "" where none does."""
        return self.v1.get(controller) or (self.v2 if self.version(controller) == 2 else "")

    def hierarchies(self) -> tuple[str, ...]:
        """Return every mount directory once, the v2 one last."""
        return tuple(dict.fromkeys([*self.v1.values(), *([self.v2] if self.v2 else [])]))


def detect(mountinfo: str = MOUNTINFO) -> Layout:
    """Return the layout that a mountinfo file shows.

    A mount that something else covers is not seen: its directory would lead elsewhere. Of several mounts of one
    hierarchy the first whose root is the hierarchy's own root counts. Raises OSError.
    """
    with open(mountinfo, "rb", buffering=0) as file:
        text = file.read(MOUNTINFO_BYTES_MAX)
    v1: dict[str, tuple[str, bool]] = {}
    v2: dict[str, tuple[str, bool]] = {}
    for fstype, directory, whole, options in _cgroup_mounts(text.decode("utf-8", "surrogateescape")):
        names = [name for name in options if name in V1_CONTROLLERS or name.startswith("name=")]
        for table, name in [(v2, "")] if fstype == "cgroup2" else [(v1, name) for name in names]:
            if name not in table or (whole and not table[name][1]):
                table[name] = (directory, whole)
    return _layout({name: directory for name, (directory, _) in v1.items()}, v2.get("", ("", False))[0])


def _layout(v1: dict[str, str], v2: str) -> Layout:
    controllers = frozenset[str]()
    if v2:
        with open(f"{v2}/cgroup.controllers", encoding="ascii") as file:
            controllers = frozenset(file.read().split())
    if v2 and not any(name in V1_CONTROLLERS for name in v1):
        return Layout("unified", {}, v2, controllers)
    if v2:
        return Layout("hybrid", v1, v2, controllers)
    return Layout("v1" if v1 else "none", v1)


def _cgroup_mounts(mountinfo: str) -> list[tuple[str, str, bool, list[str]]]:
    """Return (fstype, mount directory, is the root of the hierarchy, super options) of each visible cgroup mount."""
    mounts = []
    for line in mountinfo.split("\n"):
        fields, separator, tail = line.partition(" - ")
        left, right = fields.split(" "), tail.split(" ")
        if not separator or len(left) < 6 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        directory = _unescaped(left[4])
        if _is_visible(directory, left[2]):
            mounts.append((right[0], directory, left[3] == "/", right[2].split(",")))
    return mounts


def _is_visible(directory: str, device: str) -> bool:
    try:
        found = os.stat(directory).st_dev
    except OSError:
        return False
    return device == f"{os.major(found)}:{os.minor(found)}"


def _unescaped(text: str) -> str:
    # The kernel writes these four as octal numbers (fs/proc_namespace.c, mangle).
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
