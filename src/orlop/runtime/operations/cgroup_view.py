"""What a container sees of its cgroups, its own at /sys/fs/cgroup, and whether it may change it."""

import os

from ...linux import mount
from ...linux.cgroup import Layout
from ...linux.cgroup.directory import open_directory, split_path
from ...linux.cgroup.layout import paths_of
from . import Operation
from .mounts import open_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside

_DELEGATE = "/sys/kernel/cgroup/delegate"
_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


class CgroupView(Operation):
    """Show the container's own cgroup of every hierarchy at /sys/fs/cgroup, and nothing of anybody else's (SEC-30).

    path "": it has none of its own, and sees the caller's. The directories are cloned by the caller, so it works in a
    user namespace too, where a cgroup file system can't be mounted. On v1 they stand below a tmpfs, one for each
    hierarchy, with links for controllers that share one.
    """

    destination: str
    layout: Layout
    path: str = ""
    readonly: bool = True
    subject = "mounts"

    def describe(self) -> str:
        return f"show the own cgroup at {self.destination}" + (" read-only" * self.readonly)

    def call(self) -> str:
        return f"open_tree(OPEN_TREE_CLONE) of {self.path or 'the cgroup'} in each hierarchy, move_mount"

    def prepare(self, outside: "Outside") -> None:
        attributes = _ATTRIBUTES | (mount.MOUNT_ATTR_RDONLY if self.readonly else 0)
        others = {} if self.path else paths_of(self.layout)
        for hierarchy in self._hierarchies():
            names = split_path(self.path) if self.path else others[hierarchy]
            with open_directory(hierarchy, names) as directory:
                tree = mount.clone_tree(directory.fd)
            outside.keep(self, tree, hierarchy)
            mount.mount_setattr(tree, set_=attributes, propagation=mount.MS_PRIVATE)

    def act(self, init: "Init") -> None:
        target = open_target(init, self.destination, "cgroup")
        try:
            if self.layout.mode == "unified":
                init.attach(init.source(self, self.layout.v2), target, self.destination)
                return
            made = mount.new_filesystem("tmpfs", (("mode", "755"),), _ATTRIBUTES)
            init.attach(made, target, self.destination)
        finally:
            os.close(target)
        self._fill(init, made)
        if self.readonly:
            mount.mount_setattr(made, set_=mount.MOUNT_ATTR_RDONLY)
        os.close(made)

    def _fill(self, init: "Init", directory: int) -> None:
        for hierarchy in self._hierarchies():
            name = os.path.basename(hierarchy)
            os.mkdir(name, 0o755, dir_fd=directory)
            target = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                mount.move_mount(init.source(self, hierarchy), target)
            finally:
                os.close(target)
        for controller, hierarchy in self.layout.v1.items():
            name = os.path.basename(hierarchy)
            if controller != name and not controller.startswith("name="):
                os.symlink(name, controller, dir_fd=directory)

    def _hierarchies(self) -> tuple[str, ...]:
        if self.layout.mode == "unified":
            return (self.layout.v2,)
        return tuple(dict.fromkeys(self.layout.v1.values()))


class DelegateCgroup(Operation):
    """Give the container's v2 cgroup to its user, so that it can make cgroups of its own below (cgroups(7)).

    Only what the kernel names as safe to delegate: the limits stay the host's. uid: as the host counts.
    """

    layout: Layout
    path: str
    uid: int
    subject = "cgroup"

    def describe(self) -> str:
        return f"give the cgroup {self.path} to uid {self.uid}"

    def call(self) -> str:
        return f"fchownat({self.path}, {self.uid}) for it and the files in {_DELEGATE}"

    def assist(self, outside: "Outside", pid: int) -> None:
        with open_directory(self.layout.v2, split_path(self.path)) as directory:
            for name in _delegated():
                try:
                    os.chown(name, self.uid, -1, dir_fd=directory.fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # not every cgroup has every file (config-linux.md, "Cgroup ownership")
            os.fchown(directory.fd, self.uid, -1)


def _delegated() -> tuple[str, ...]:
    try:
        with open(_DELEGATE, encoding="ascii") as file:
            return tuple(name for name in file.read().split() if "/" not in name)
    except FileNotFoundError:  # before 4.15
        return ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
