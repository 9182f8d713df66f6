"""One cgroup in every hierarchy of the machine: made, filled, limited, watched, killed and removed as one thing.

Invariants:
1. Nothing outside `path` is changed, except that a missing parent is made and that a v2 parent hands down
   controllers. No process is moved but those given to `add`.
2. A cgroup that `create` returns from is fresh: no process, no child, no setting of an earlier life.
"""

from __future__ import annotations

import errno
import os
import time

from . import v1
from .counters import Events, Stats, flat_keyed
from .directory import Directory, open_directory, split_path
from .entered import Entered
from .layout import Layout
from .settings import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .settings import Step

REMOVE_WAIT_S = 5.0
FREEZE_WAIT_S = 2.0
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

    def leaf(self, name: str) -> Cgroup:
        """Return a child in the one hierarchy that lists, freezes and kills processes: a mark, without limits.

        In the others its processes are where their siblings are. No controller is handed down to it, so that the
        cgroup itself may go on holding processes (cgroup-v2.rst, "No Internal Process Constraint").
        """
        if not self.layout.hierarchies():
            return Cgroup(self.layout, f"{self.path}/{name}")
        v1 = {} if self.layout.v2 else {"freezer": self._freezer()}
        return Cgroup(Layout("hybrid", v1, self.layout.v2), f"{self.path}/{name}")

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

    def adopt(self) -> None:
        """Make the cgroup where a hierarchy does not have it yet; one that somebody made for us stays as it is."""
        for mount in self.layout.hierarchies():
            if not self._exists_in(mount):
                self._create_in(mount)

    def fd(self) -> int | None:
        """Return a descriptor for CLONE_INTO_CGROUP, which the caller closes; None unless the layout is unified.

        The child is born inside, but CLONE_NEWCGROUP in the same clone3 takes the parent's cgroup as its root
        (kernel/fork.c copies namespaces first): the child must unshare(CLONE_NEWCGROUP) by itself.
        """
        if self.layout.mode != "unified":
            return None
        return self._open(self.layout.v2).fd

    def entered(self) -> Entered:
        """Return a context in which a child is born inside the cgroup, in every hierarchy, on every layout.

            with cg.entered() as cgroup_fd:
                pid, pidfd = clone3(flags, cgroup_fd)

        See `Entered`. Nothing may have been applied yet that the caller itself can't live under for a moment.
        """
        return Entered(self.layout, self._names)

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, into the cgroup in every hierarchy.

        The kernel waits for an RCU grace period in the first of these (5 to 20 ms): `entered` does not.
        """
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

    def procs(self) -> list[int]:
        """Return the pids in the cgroup and below it, without those that this pid namespace does not show."""
        pids: list[int] = []
        for directory in self._subtree(self._core()):
            try:
                pids.extend(int(pid) for pid in directory.read("cgroup.procs").split())
            except OSError as error:
                # ENODEV: removed since. EOPNOTSUPP: a threaded cgroup, whose processes its domain lists.
                if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
                    raise
        return [pid for pid in pids if pid > 0]

    def freeze(self, timeout_s: float = FREEZE_WAIT_S) -> None:
        """Stop every process in the cgroup and below; returns when all stand still.

        Raises OSError ETIMEDOUT when one does not (uninterruptible sleep): then everything runs on; FileNotFoundError
        for a cgroup that is gone.
        """
        v2, mount = self.layout.v2, self.layout.v2 or self._freezer()
        try:
            with self._open(mount) as directory:
                if not v2:
                    v1.set_frozen(directory, True, timeout_s)
                    return
                directory.write("cgroup.freeze", "1")
                if not _wait_until_frozen(directory, timeout_s):
                    directory.write("cgroup.freeze", "0")
                    raise OSError(errno.ETIMEDOUT, f"processes would not freeze within {timeout_s} s", directory.path)
        except OSError as error:
            raise self._missing_when_removed(error) from None

    def thaw(self) -> None:
        """Let the processes run on. Raises FileNotFoundError for a cgroup that is gone."""
        v2, mount = self.layout.v2, self.layout.v2 or self._freezer()
        try:
            with self._open(mount) as directory:
                if v2:
                    directory.write("cgroup.freeze", "0")
                else:
                    v1.set_frozen(directory, False, 0)
        except OSError as error:
            raise self._missing_when_removed(error) from None

    def _missing_when_removed(self, error: OSError) -> OSError:
        """Return what to raise: a directory that is open while its cgroup is removed has files that give ENODEV."""
        return FileNotFoundError(errno.ENOENT, "removed", self.path) if error.errno == errno.ENODEV else error

    @property
    def freezer(self) -> str:
        """The path of the file that tells whether it is frozen : "1" if it is."""
        # One open of the whole path: every name of it is known to be a plain one (split_path).
        if self.layout.v2:
            return f"{self.layout.v2}{self.path}/cgroup.freeze"
        return f"{self.layout.v1.get('freezer', '')}{self.path}/freezer.self_freezing"

    def is_frozen(self) -> bool:
        """Tell whether the cgroup itself was asked to freeze, whether or not all stand still yet. One that is gone was
        not."""
        try:
            fd = os.open(self.freezer, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return os.read(fd, 8).strip() == b"1"
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed since
                return False
            raise
        finally:
            os.close(fd)

    def kill(self) -> None:
        """SIGKILL every process in the cgroup and below, also frozen ones; no cgroup is no error.

        They are dying when this returns; `remove` waits for them.
        """
        if self.layout.v2:
            try:
                with self._open(self.layout.v2) as directory:
                    directory.write("cgroup.kill", "1")
                return
            except FileNotFoundError:
                pass  # no such cgroup, or a kernel before 5.14
        try:
            self._kill_each()
        except FileNotFoundError:
            pass

    def events(self) -> Events:
        """Return what happened to the cgroup. Raises FileNotFoundError when it is gone."""
        if self.layout.v2:
            with self._open(self.layout.v2) as directory:
                text = directory.read("cgroup.events")
            populated, frozen = flat_keyed(text, "populated") == 1, flat_keyed(text, "frozen") == 1
        else:
            populated = bool(self.procs())
            frozen = "freezer" in self.layout.v1 and self.text("freezer", "freezer.state") == "FROZEN"
        return Events(populated, frozen, self._oom_kills())

    def stats(self) -> Stats:
        """Return what the cgroup uses. Raises FileNotFoundError when it is gone."""
        if self.layout.version("memory") == 1:
            memory = self._number("memory", "memory.usage_in_bytes")
            peak = self._number("memory", "memory.max_usage_in_bytes")
        else:
            memory, peak = self._number("memory", "memory.current"), self._number("memory", "memory.peak")
        if "cpuacct" in self.layout.v1:
            cpu_ns = self._number("cpuacct", "cpuacct.usage")
        else:
            text = self.text("cgroup", "cpu.stat")
            cpu_ns = None if text is None else flat_keyed(text, "usage_usec") * 1000
        return Stats(memory, peak, cpu_ns, self._number("pids", "pids.current"))

    def text(self, controller: str, file: str) -> str | None:
        """Return a control file's text; None where the controller or this kernel's file is missing."""
        mount = self.layout.directory(controller)
        if not mount:
            return None
        with self._open(mount) as directory:
            try:
                return directory.read(file).strip()
            except FileNotFoundError:
                return None

    def prune(self, wait_s: float = 0.0) -> bool:
        """Remove the cgroup where it holds nothing; return whether it is gone from every hierarchy.

        For parents that several tasks share: a `create` below at the same moment makes it again.
        wait_s: how long to try again, for what is dying in it.
        """
        deadline, pause = time.monotonic() + wait_s, _RETRY_S_MIN
        while not (gone := self._prune()) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_S_MAX)
        return gone

    def prune_made(self) -> bool:
        """As `prune`, of what a `create` below it made: what others made may hold limits, and stays."""
        return self._prune(only_marked=True)

    def _prune(self, only_marked: bool = False) -> bool:
        gone = True
        for mount in self.layout.hierarchies():
            try:
                with open_directory(mount, self._names[:-1]) as parent:
                    if only_marked and not parent.holds_marked(self._names[-1]):
                        gone = False
                        continue
                    parent.remove(self._names[-1])
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                gone = False
        return gone

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

    def _core(self) -> str:
        """Return the hierarchy that lists the processes."""
        if mount := self.layout.v2 or self.layout.v1.get("freezer") or next(iter(self.layout.v1.values()), ""):
            return mount
        raise OSError(errno.ENODEV, "no cgroup hierarchy is mounted", self.path)

    def _freezer(self) -> str:
        if mount := self.layout.v1.get("freezer"):
            return mount
        raise OSError(errno.ENODEV, "no cgroup hierarchy has the freezer controller", self.path)

    def _subtree(self, mount: str) -> Iterator[Directory]:
        """Yield the cgroup and everything below it, opened; with one descriptor at a time, however deep it is."""
        pending = [self._names]
        while pending:
            names = pending.pop()
            try:
                directory = open_directory(mount, names)
            except FileNotFoundError:
                if names == self._names:
                    raise
                continue
            with directory:
                pending.extend((*names, child) for child in directory.children())
                yield directory

    def _number(self, controller: str, file: str) -> int | None:
        text = self.text(controller, file)
        return None if text is None else int(text)

    def _oom_kills(self) -> int:
        """v2 counts the whole subtree by itself; v1 (since 4.13) every cgroup alone."""
        if self.layout.version("memory") != 1:
            return flat_keyed(self.text("memory", "memory.events") or "", "oom_kill")
        counts = (flat_keyed(each.read("memory.oom_control"), "oom_kill") for each in self._memory_subtree())
        return sum(counts)

    def _memory_subtree(self) -> Iterator[Directory]:
        return self._subtree(self.layout.v1["memory"])

    def _kill_each(self) -> None:
        try:
            self.freeze()
        except OSError:
            pass  # a SIGKILL waits for a task that will not freeze as well; kill_members looks for forks itself
        try:
            v1.kill_members(self.procs)
        finally:
            self._thaw_everything()

    def _thaw_everything(self) -> None:
        """Thaw the cgroup and whatever below it was frozen by itself: a v1 SIGKILL waits until then."""
        file, value = ("cgroup.freeze", "0") if self.layout.v2 else ("freezer.state", "THAWED")
        mount = self.layout.v2 or self.layout.v1.get("freezer")
        for directory in self._subtree(mount) if mount else ():
            try:
                directory.write(file, value)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):  # removed since
                    raise

    def _exists_in(self, mount: str) -> bool:
        try:
            self._open(mount).close()
        except FileNotFoundError:
            return False
        return True

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
        is_new = True
        try:
            parent.make(name)
        except FileExistsError:
            is_new = False
            if not rest:
                parent.remove(name)
                parent.make(name)
        if self.layout.mode == "unified":
            _hand_down_all(parent)
        with parent / name as child:
            if mount == self.layout.v1.get("cpuset"):
                v1.inherit_cpuset(parent, child)
            if rest:
                if is_new:
                    child.mark()
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
                try:
                    parent.remove(self._names[-1])  # mostly it has nothing below it
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    _remove_tree(parent, self._names[-1])
        except FileNotFoundError:
            pass


def _wait_until_frozen(directory: Directory, timeout_s: float) -> bool:
    """Wait for "frozen 1" in cgroup.events, which the kernel announces by POLLPRI."""
    import select

    deadline = time.monotonic() + timeout_s
    fd = os.open("cgroup.events", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while flat_keyed(os.pread(fd, 4096, 0).decode("ascii"), "frozen") != 1:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            poll.poll(left_s * 1000)
    finally:
        os.close(fd)
    return True


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
    """rmdir a cgroup, deepest first, with two descriptors however deep it is.

    The way up is "..": a cgroup can't move to another parent (rename(2) in cgroupfs keeps the parent).
    """
    directory, names = parent / name, [name]
    try:
        while names:
            deeper = _remove_childless(directory)
            neighbour = directory / deeper if deeper else directory.parent()
            directory.close()
            directory = neighbour
            if deeper:
                names.append(deeper)
            else:
                directory.remove(names.pop())
    finally:
        directory.close()


def _remove_childless(directory: Directory) -> str:
    """Remove the children that have no children; return the name of one that stays, "" when none does."""
    busy = ""
    for child in directory.children():
        try:
            directory.remove(child)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            busy = child
    return busy
