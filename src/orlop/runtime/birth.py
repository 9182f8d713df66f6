"""Where a child is born: on which processors, in which PID namespace, and in which v2 cgroup."""

from __future__ import annotations

import errno
import os

from ..linux import abi, process
from ..linux.cgroup import Cgroup
from ..linux.cgroup.directory import open_directory, split_path
from ..linux.cgroup.layout import paths_of
from ..spec.errors import Conflict, Unavailable
from . import channel
from .operations.namespaces import KINDS, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    Child = Callable[[], NoReturn]

_BORN, _UNBORN = b"B", b"U"


class PidNamespace:
    """The time in which children are born into an existing PID namespace: a path, or that of a pidfd's process.

    Who lives there sees the child from its first instruction on, so it is born undumpable (CVE-2016-9962).
    """

    __slots__ = ("_dumpable", "_home", "_path", "_target")

    def __init__(self, path: str, target: int) -> None:
        """path "" and target -1: children are born where the caller is."""
        self._path = path
        self._target = target
        self._home = -1
        self._dumpable = 1

    def __enter__(self) -> None:
        if not self._path and self._target < 0:
            return
        # setns to a PID namespace changes where children go, and the way back is the same call (setns(2)).
        home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._target >= 0:
                process.setns(self._target, process.CLONE_NEWPID)
            else:
                fd = open_namespace("pid", self._path)
                try:
                    process.setns(fd, process.CLONE_NEWPID)
                finally:
                    os.close(fd)
        except BaseException:
            os.close(home)
            raise
        self._home = home
        self._dumpable = process.get_dumpable()
        process.prctl(process.PR_SET_DUMPABLE, 0)

    def __exit__(self, *_: object) -> None:
        if self._home >= 0:
            process.prctl(process.PR_SET_DUMPABLE, self._dumpable)
            process.setns(self._home, process.CLONE_NEWPID)
            os.close(self._home)


class Processors:
    """The time in which children are born on some processors, () for the caller's own.

    The caller must be there itself: a child that is born in a v2 cgroup, which may have others, is never outside.
    """

    __slots__ = ("_before", "_wanted")

    def __init__(self, wanted: tuple[int, ...]) -> None:
        self._wanted = wanted
        self._before: set[int] = set()

    def __enter__(self) -> None:
        if not self._wanted:
            return
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, self._wanted)
        except OSError as failure:
            words = ", ".join(map(str, self._wanted[:16]))
            hint = "choose some of /sys/devices/system/cpu/online"
            raise Unavailable("run on", f"the processors {words}", failure.strerror or "", hint=hint) from None
        self._before = before

    def __exit__(self, *_: object) -> None:
        if self._before:
            os.sched_setaffinity(0, self._before)


def may_return() -> bool:
    """Tell whether a process that lets its children be born in another PID namespace can undo that.

    The way back asks for CAP_SYS_ADMIN over the owner of its own, which in a user namespace nobody has (setns(2)).
    """
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process.setns(home, process.CLONE_NEWPID)  # where they are born anyway
    except PermissionError:
        return False
    finally:
        os.close(home)
    return True


def clone(flags: int, child: Child) -> tuple[int, int]:
    """Return (pid, pidfd) of a child that is born where the caller is."""
    return _clone(flags, None, child)


def clone_into(cgroup: Cgroup, flags: int, child: Child) -> tuple[int, int]:
    """Return (pid, pidfd) of a child that is born in the v2 cgroup; it enters those of v1 by itself."""
    if not cgroup.layout.v2:
        return _clone(flags, None, child)
    with open_directory(cgroup.layout.v2, split_path(cgroup.path)) as directory:
        return _clone(flags, directory.fd, child)


def clone_through(
    namespaces: Sequence[tuple[str, int]], bear: Callable[[Child], tuple[int, int]], flags: int, child: Child
) -> tuple[int, int]:
    """Return (pid, pidfd) of a child that is born in existing namespaces: (kind, descriptor), in the order of joining.

    A helper joins them, which nobody could undo, and bears the child as its own sibling (CLONE_PARENT), so the caller
    is the parent as always. bear: makes the helper, in the cgroup where its child is to be. Raises OSError.
    """
    ours, theirs = channel.pair()

    def help() -> NoReturn:
        ours.close()
        _bear(namespaces, flags, child, theirs)

    try:
        _, helper = bear(help)
    finally:
        theirs.close()
    try:
        message, pidfd = ours.receive()
    finally:
        ours.close()
        process.wait_pidfd(helper)
        os.close(helper)
    kind, _, told = message.partition(b" ")
    if kind == _BORN:
        return int(told), pidfd
    code, _, name = told.partition(b" ")
    raise abi.error(name.decode() or "the helper", int(code or errno.ECHILD))


def _bear(namespaces: Sequence[tuple[str, int]], flags: int, child: Child, caller: channel.Channel) -> NoReturn:
    try:
        if any(kind == "pid" for kind, _ in namespaces):
            process.prctl(process.PR_SET_DUMPABLE, 0)  # as in PidNamespace
        for kind, fd in namespaces:
            process.setns(fd, KINDS[kind][0])
        pid, pidfd = _clone(flags | process.CLONE_PARENT, None, child)
        caller.send(_BORN + b" %d" % pid, pidfd)
    except OSError as failure:
        caller.send(_UNBORN + b" %d %s" % (failure.errno or 0, (failure.strerror or "").partition(":")[0].encode()))
    finally:
        os._exit(0)


def clone_beside(cgroup: Cgroup, first: int, child: Child, leaf: Cgroup | None = None) -> tuple[int, int]:
    """Return (pid, pidfd) of a child that is born in a running container's v2 cgroup, or in a leaf of it.

    first: the pid of its first process. A container that has made v2 cgroups of its own has no process in the one that
    it was given, and none may be born there (EBUSY: cgroup-v2.rst, "No Internal Process Constraint"); then the child
    is born beside the first process. Raises Conflict when the container is paused.
    """
    layout = cgroup.layout
    if layout.v2 and cgroup.events().frozen:
        raise Conflict("enter", "the container", "it is paused", hint="unpause it first", code="E1003")
    try:
        return clone_into(leaf or cgroup, 0, child)
    except OSError as failure:
        if failure.errno != errno.EBUSY or not layout.v2:
            raise
    with open_directory(layout.v2, paths_of(layout, f"/proc/{first}/cgroup")[layout.v2]) as directory:
        return _clone(0, directory.fd, child)


def _clone(flags: int, cgroup_fd: int | None, child: Child) -> tuple[int, int]:
    pid, pidfd = process.clone3(flags, cgroup_fd)
    if pid == 0:
        child()
    return pid, pidfd
