"""Which cgroup hierarchies this machine has, and where.

    unified  cgroup v2 only: every controller is there
    hybrid   v1 hierarchies hold controllers, and a v2 hierarchy stands beside them
    v1       v1 hierarchies only
    none     nothing is mounted

Source: cgroups(7); proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
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
_DELEGATED_FILES = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


class Layout:
    """The hierarchies of one machine.

    mode: "unified", "hybrid", "v1" or "none".
    v1: controller, or "name=..." for a named hierarchy without one -> mount directory; co-mounted controllers
        share theirs. Empty in mode "unified".
    v2: mount directory of the v2 hierarchy, "" where there is none.
    v2_controllers: the controllers that the v2 hierarchy can give to its children.
    roots: mount directory -> the cgroup that is mounted there, where it is not the root of its hierarchy.
    """

    __slots__ = ("mode", "roots", "v1", "v2", "v2_controllers")

    def __init__(
        self,
        mode: str,
        v1: Mapping[str, str] | None = None,
        v2: str = "",
        v2_controllers: frozenset[str] = frozenset(),
        roots: Mapping[str, str] | None = None,
    ) -> None:
        self.mode = mode
        self.v1 = dict(v1 or {})
        self.v2 = v2
        self.v2_controllers = v2_controllers
        self.roots = dict(roots or {})

    def __repr__(self) -> str:
        return f"Layout({self.mode!r}, {self.v1!r}, {self.v2!r}, {sorted(self.v2_controllers)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.mode, self.v2))

    def v2_alone(self) -> Layout:
        """Return the layout of which v2 is all that one knows."""
        return Layout("unified", {}, self.v2, self.v2_controllers, self.roots) if self.v1 else self

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
    hierarchy the first that shows it from its root counts. Raises OSError.
    """
    with open(mountinfo, "rb", buffering=0) as file:
        text = file.read(MOUNTINFO_BYTES_MAX)
    mounts = _cgroup_mounts(text.decode("utf-8", "surrogateescape"))
    mounts.sort(key=lambda mount: mount[2] != "/")
    v1: dict[str, str] = {}
    v2 = ""
    for fstype, directory, _, options in mounts:
        if fstype == "cgroup2":
            v2 = v2 or directory
            continue
        for option in options:
            if option in V1_CONTROLLERS or option.startswith("name="):
                v1.setdefault(option, directory)
    roots = {directory: root for _, directory, root, _ in mounts if root != "/"}
    return _layout(v1, v2, roots)


def paths_of(layout: Layout, cgroups: str = "/proc/thread-self/cgroup") -> dict[str, tuple[str, ...]]:
    """Return mount directory -> the names of the cgroup below it that a task is in: () at the mount itself.

    Raises OSError ENOENT when the task's cgroup lies outside what is mounted.
    """
    with open(cgroups, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    paths: dict[str, tuple[str, ...]] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = layout.v1.get(controllers.split(",")[0]) if controllers else layout.v2
        if not mount:
            continue
        root = layout.roots.get(mount, "/").rstrip("/")
        names = tuple(path.removeprefix(root).split("/")[1:]) if path.startswith(root) else ("..",)
        if ".." in names:
            raise OSError(errno.ENOENT, f"the cgroup of this task is not below what is mounted at {mount}", path)
        paths[mount] = tuple(name for name in names if name)
    return paths


def usable(layout: Layout) -> Layout:
    """Return the part of a layout in which this process can make cgroups: all of it, a delegated subtree, or none.

    Nothing of v1 can be delegated safely (cgroups(7)). Of v2 a subtree can (cgroup-v2.rst, "Delegation"): the highest
    cgroup on our own way down that we may write, below a systemd unit with Delegate=yes for instance.
    """
    if all(os.access(mount, os.W_OK) for mount in layout.hierarchies()):
        return layout
    delegated = _delegated(layout) if layout.v2 else ""
    if not delegated:
        return Layout("none")
    return below(layout, delegated)


def below(layout: Layout, directory: str) -> Layout:
    """Return the layout of which a directory of the v2 hierarchy is the root. Raises OSError."""
    with open(f"{directory}/cgroup.controllers", encoding="utf-8") as file:
        controllers = frozenset(file.read().split())
    root = layout.roots.get(layout.v2, "").rstrip("/") + directory.removeprefix(layout.v2)
    return Layout("unified", {}, directory, controllers, {directory: root} if root else None)


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


def _layout(v1: dict[str, str], v2: str, roots: dict[str, str]) -> Layout:
    if not v2:
        return Layout("v1" if v1 else "none", v1, roots=roots)
    with open(f"{v2}/cgroup.controllers", encoding="utf-8") as file:
        controllers = frozenset(file.read().split())
    if V1_CONTROLLERS.isdisjoint(v1):
        return Layout("unified", {}, v2, controllers, roots)
    return Layout("hybrid", v1, v2, controllers, roots)


def _cgroup_mounts(mountinfo: str) -> list[tuple[str, str, str, list[str]]]:
    """Return (fstype, mount directory, cgroup mounted there, super options) of each visible cgroup mount."""
    mounts = []
    for line in mountinfo.split("\n"):
        fields, separator, tail = line.partition(" - ")
        left, right = fields.split(" "), tail.split(" ")
        if not separator or len(left) < 6 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        directory = _unescaped(left[4])
        if _is_visible(directory, left[2]):
            mounts.append((right[0], directory, _unescaped(left[3]), right[2].split(",")))
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
