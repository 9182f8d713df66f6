"""One cgroup in every hierarchy of the machine: made, filled, limited, watched, killed and removed as one thing.

Invariants:
1. Nothing outside `path` is changed, except that a missing parent is made and that a v2 parent hands down
   controllers. No process is moved but those given to `add`.
2. A cgroup that `create` returns from is fresh: no process, no child, no setting of an earlier life.
"""

from __future__ import annotations

import errno
import time

from . import v1
from .directory import Directory, open_directory, split_path
from .settings import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .layout import Layout
    from .settings import Step

REMOVE_WAIT_S = 5.0
_RETRY_S_MIN = 0.001
_RETRY_S_MAX = 0.05
_CREATE_ATTEMPTS_MAX = 16


class Cgroup:
    """The cgroup `path` ("/orlop/<id>") in every hierarchy of the layout.

    Raises OSError EINVAL or ENAMETOOLONG for a path that is not one (SEC-23).
    """

    __slots__ = ("_names", "layout", "path")

    def __init__(self, layout: Layout, path: str) -> None:
        self._names = split_path(path)
        self.layout = layout
        self.path = path

    def create(self) -> None:
        """Make the cgroup, and its parents where they are missing, in every hierarchy.

        An empty cgroup of the same name is replaced, for it holds old limits. Raises OSError, EBUSY when one with
        processes or children stands there; then nothing is left of this attempt but parents.
        """
        made: list[str] = []
        try:
            for mount in self.layout.hierarchies():
                self._create_in(mount)
                made.append(mount)
        except OSError:
            for mount in made:
                with open_directory(mount, self._names[:-1]) as parent:
                    parent.remove(self._names[-1])
            raise

    def fd(self) -> int | None:
        """Return a descriptor for CLONE_INTO_CGROUP, which the caller closes; None unless the layout is unified."""
        if self.layout.mode != "unified":
            return None
        return self._open(self.layout.v2).fd

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, into the cgroup in every hierarchy."""
        for mount in self.layout.hierarchies():
            with self._open(mount) as directory:
                directory.write("cgroup.procs", str(pid))

    def apply(self, settings: Iterable[Step]) -> None:
        """Act on the settings, hierarchy by hierarchy, in the order given (see `settings.write_all`).

        Raises OSError that names the file and the value it refused; ENODEV for a controller that no hierarchy has.
        """
        groups: dict[str, list[Step]] = {}
        for step in settings:
            mount = self.layout.directory(step.controller)
            if not mount:
                raise OSError(errno.ENODEV, f"no cgroup hierarchy has the {step.controller} controller", self.path)
            if mount == self.layout.v2:
                self._delegate(step.controller)
            groups.setdefault(mount, []).append(step)
        for mount, steps in groups.items():
            with self._open(mount) as directory:
                write_all(steps, directory)

    def remove(self, timeout_s: float = REMOVE_WAIT_S) -> None:
        """Remove the cgroup and everything below it from every hierarchy; no cgroup is no error.

        Processes that are dying hold it for a moment: EBUSY is tried again until timeout_s has passed.
        """
        deadline = time.monotonic() + timeout_s
        for mount in self.layout.hierarchies():
            pause = _RETRY_S_MIN
            while True:
                try:
                    self._remove_from(mount)
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                        raise
                time.sleep(pause)
                pause = min(pause * 2, _RETRY_S_MAX)

    def _open(self, mount: str) -> Directory:
        return open_directory(mount, self._names)

    def _create_in(self, mount: str) -> None:
        for attempt in range(_CREATE_ATTEMPTS_MAX):
            try:
                with open_directory(mount) as top:
                    self._make(top, self._names, mount)
                return
            except OSError as error:
                # Somebody removed an empty parent between our mkdir and our openat: begin again.
                if error.errno not in (errno.ENOENT, errno.ENODEV) or attempt + 1 == _CREATE_ATTEMPTS_MAX:
                    raise

    def _make(self, parent: Directory, names: Sequence[str], mount: str) -> None:
        name, rest = names[0], names[1:]
        try:
            parent.make(name)
        except FileExistsError:
            if not rest:
                parent.remove(name)
                parent.make(name)
        if self.layout.mode == "unified":
            _hand_down_all(parent)
        with parent / name as child:
            if mount == self.layout.v1.get("cpuset"):
                v1.inherit_cpuset(parent, child)
            if rest:
                self._make(child, rest, mount)

    def _delegate(self, controller: str) -> None:
        """Enable a v2 controller for the cgroup in each of its parents."""
        if controller not in self.layout.v2_controllers:
            return
        for depth in range(len(self._names)):
            with open_directory(self.layout.v2, self._names[:depth]) as parent:
                if controller not in parent.read("cgroup.subtree_control").split():
                    parent.write("cgroup.subtree_control", f"+{controller}")

    def _remove_from(self, mount: str) -> None:
        try:
            with open_directory(mount, self._names[:-1]) as parent:
                _remove_tree(parent, self._names[-1])
        except FileNotFoundError:
            pass


def _hand_down_all(parent: Directory) -> None:
    """Enable every controller that the parent has for its children, one by one.

    One that can't be (EBUSY: the parent holds processes; EINVAL: realtime tasks hold cpu) is left out here and is
    named by `apply` when a setting needs it.
    """
    missing = set(parent.read("cgroup.controllers").split()) - set(parent.read("cgroup.subtree_control").split())
    for controller in sorted(missing):
        try:
            parent.write("cgroup.subtree_control", f"+{controller}")
        except OSError:
            pass


def _remove_tree(parent: Directory, name: str) -> None:
    """rmdir a cgroup, deepest first, with two descriptors open however deep it is."""
    while True:
        try:
            parent.remove(name)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            busy = error
        if not _remove_leaves(parent / name):
            raise busy


def _remove_leaves(directory: Directory) -> bool:
    """Remove the childless cgroups at one place below; return whether anything went."""
    while True:
        with directory:
            children = directory.children()
            removed, deeper = 0, None
            for child in children:
                try:
                    directory.remove(child)
                    removed += 1
                except FileNotFoundError:
                    removed += 1
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    deeper = deeper or child
            if removed or deeper is None:
                return bool(removed)
            directory = directory / deeper
