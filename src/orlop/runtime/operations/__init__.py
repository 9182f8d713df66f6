"""What is done for a container, one small value for each thing: planned first, printed on demand, executed once.

An operation has up to three halves, and all of them stand in one class:

    prepare(outside)      in the caller, before the clone: what needs the host's view (a bind mount's source)
    assist(outside, pid)  in the caller, while init waits: what only an outsider may do (uid_map)
    act(init)             in init, in the order of the plan

Rules for `act` (I5, SEC-05): raw system calls on descriptors, no import, no codec but UTF-8 and ASCII, no NSS, no
subprocess; nothing below the container's root is resolved but through orlop.linux.path.
A failing half raises OSError, which the caller of the half turns into an error that names the operation, or an
OrlopError where the operation knows more.
"""

from __future__ import annotations

import errno
import os

from ...linux import mount
from ...spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.runtime import State
    from ..channel import Channel


_PROC_ROOT_INO = 1  # include/linux/proc_fs.h


class Operation(Record):
    """One thing that is done. subject: the heading under which `explain` shows it.

    mistakes: the kernel's errors that say that what was asked for is wrong, not that this machine lacks something.
    """

    subject = "container"
    mistakes = frozenset[int]()  # no annotation: it is the class's, not a field

    def describe(self) -> str:
        """Return what is done, for people, without a trailing stop: "mount proc at /proc"."""
        raise NotImplementedError

    def call(self) -> str:
        """Return the kernel's view of it: the calls or the file that is written."""
        raise NotImplementedError

    def prepare(self, outside: Outside) -> None:
        """Open what init can't open by itself."""

    def assist(self, outside: Outside, pid: int) -> None:
        """Do to init what only its parent may do."""

    def act(self, init: Init) -> None:
        """Do it."""


class Outside:
    """The caller's half of a start: descriptors that are opened before the clone and inherited by init.

    root: the detached root file system, -1 for an exec. target: pidfd of the container's init for an exec, else -1.
    state: what hooks are told.
    """

    __slots__ = ("root", "sources", "state", "target")

    def __init__(self, state: State, root: int = -1, target: int = -1) -> None:
        self.root = root
        self.target = target
        self.state = state
        self.sources: dict[tuple[int, str], int] = {}

    def keep(self, operation: Operation, fd: int, name: str = "") -> None:
        """Hand a descriptor to the `act` of the same operation; closed here after the clone."""
        self.sources[id(operation), name] = fd

    def close(self) -> None:
        """Close what was kept. Idempotent."""
        for fd in self.sources.values():
            os.close(fd)
        self.sources.clear()


class Init:
    """What the operations share inside: descriptors of the new root and of file systems that init mounted itself.

    root: the container's root directory. target, state: as in `Outside`. caller: the channel to it.
    terminal: (pty master, terminal) once it is open, else None. in_directory: the working directory is entered.
    program: what to execute, once found. reaper: a descriptor of what is executed in its place, -1 for nothing.
    ruleset: of Landlock, -1 for none.
    may_set_groups: the user namespace has not given setgroups(2) up.
    """

    __slots__ = (
        "_made", "_procfs", "_sources", "caller", "in_directory", "may_set_groups", "program", "reaper", "root",
        "ruleset", "state", "stdio", "target", "terminal",
    )  # fmt: skip

    def __init__(self, outside: Outside, caller: Channel, stdio: tuple[int, ...]) -> None:
        self.root = outside.root
        self.state = outside.state
        self.caller = caller
        self.target = outside.target
        self.stdio = stdio
        self.terminal: tuple[int, int] | None = None
        self.in_directory = False
        self.program = ""
        self.reaper = -1
        self.ruleset = -1
        self.may_set_groups = True
        self._sources = outside.sources
        self._made: dict[str, int] = {}
        self._procfs = -1

    def source(self, operation: Operation, name: str = "") -> int:
        """Return the descriptor that `prepare` of this operation kept."""
        return self._sources[id(operation), name]

    def attach(self, tree: int, target: int, destination: str, made: bool = False) -> None:
        """Attach a detached mount to the target, which was opened as `destination`.

        made: it is a new file system in which nobody but us has made anything; it belongs to this object from now on.
        """
        mount.move_mount(tree, target)
        for covered in [place for place in self._made if f"{place}/".startswith(f"{destination}/")]:
            os.close(self._made.pop(covered))
        if made:
            self._made[destination] = tree

    def place(self, path: str) -> tuple[int, str]:
        """Return (directory, the rest of the path below it): where to resolve a clean path of the container.

        What lies on a file system that we made is looked for there, and not by a way through the image, which a second
        container with the same root could be changing: a mask must cover our procfs and not another one's.
        """
        found, rest = self.root, path
        longest = 0
        for destination, fd in self._made.items():
            if len(destination) > longest and f"{path}/".startswith(f"{destination}/"):
                found, rest, longest = fd, path[len(destination) :], len(destination)
        return found, rest

    def procfs(self) -> int:
        """Return a private procfs of the own PID namespace, attached nowhere.

        Nobody can mount over its files or swap them, as has been done to a container's /proc (CVE-2025-52881).
        """
        if self._procfs < 0:
            try:
                self._procfs = mount.new_filesystem("proc")
            except PermissionError:
                self._procfs = _shared_procfs()
        return self._procfs


def _shared_procfs() -> int:
    """Return the root of the procfs at /proc, without what may be mounted over its files.

    For a PID namespace that is not our user namespace's: nobody there may mount a procfs of it. Any other procfs than
    its own has no `self` for us, so that nothing is written through a wrong one.
    """
    place = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if mount.filesystem_magic(place) != mount.PROC_SUPER_MAGIC or os.fstat(place).st_ino != _PROC_ROOT_INO:
            raise PermissionError(errno.EPERM, "there is no procfs of this PID namespace", "/proc")
        return mount.clone_tree(place)
    finally:
        os.close(place)
