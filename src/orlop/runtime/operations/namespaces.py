"""Namespaces that clone3 can't make or join for init, and what init does in its new ones first."""

import errno
import os

from ...linux import interface, process
from ...spec.errors import Invalid, NotFound
from ...spec.runtime import IdMapping, TimeOffset
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside

# OCI type: (clone flag, name in /proc/PID/ns)
KINDS = {
    "user": (process.CLONE_NEWUSER, "user"),
    "mount": (process.CLONE_NEWNS, "mnt"),
    "pid": (process.CLONE_NEWPID, "pid"),
    "network": (process.CLONE_NEWNET, "net"),
    "ipc": (process.CLONE_NEWIPC, "ipc"),
    "uts": (process.CLONE_NEWUTS, "uts"),
    "cgroup": (process.CLONE_NEWCGROUP, "cgroup"),
    "time": (process.CLONE_NEWTIME, "time"),
}


def open_namespace(kind: str, where: str) -> int:
    """Return a descriptor of the namespace that a path names. Raises NotFound, and Invalid when it is another thing."""
    try:
        # O_NONBLOCK: a FIFO at that place must not hang the caller.
        fd = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            "join", where, f"there is no {kind} namespace at {where}", hint="its process or its file is gone"
        ) from None
    try:
        found = _type_of(fd)
    except OSError:
        os.close(fd)
        raise
    if found != KINDS[kind][0]:
        os.close(fd)
        other = next((name for name, (flag, _) in KINDS.items() if flag == found), "")
        cause = f"it is a {other} namespace, and no {kind} namespace" if other else "it is no namespace"
        raise Invalid("join", where, cause, hint="correct the path in linux.namespaces")
    return fd


def _type_of(fd: int) -> int:
    try:
        return process.namespace_type(fd)
    except OSError as failure:
        if failure.errno in (errno.ENOTTY, errno.EINVAL):
            return 0
        raise


class JoinNamespace(Operation):
    """Join an existing namespace. (That of a PID namespace is the caller's part: it counts for children only.)

    must_differ: what to do instead when it is the caller's own, "" where it may be that.
    """

    kind: str
    path: str
    must_differ: str = ""
    subject = "namespaces"

    def describe(self) -> str:
        return f"join the {self.kind} namespace {self.path}"

    def call(self) -> str:
        return f"setns({self.path}, {self.kind})"

    def prepare(self, outside: "Outside") -> None:
        fd = open_namespace(self.kind, self.path)
        outside.keep(self, fd)
        if not self.must_differ:
            return
        own = os.stat(f"/proc/self/ns/{KINDS[self.kind][1]}")
        joined = os.fstat(fd)
        if (own.st_dev, own.st_ino) == (joined.st_dev, joined.st_ino):
            raise Invalid("join", self.path, f"it is the host's own {self.kind} namespace", hint=self.must_differ)

    def act(self, init: "Init") -> None:
        process.setns(init.source(self), KINDS[self.kind][0])


class UnshareCgroup(Operation):
    """Make the cgroup that init is in by now the root of its view (the clone's flag would take the caller's)."""

    subject = "namespaces"

    def describe(self) -> str:
        return "make a new cgroup namespace"

    def call(self) -> str:
        return "unshare(CLONE_NEWCGROUP)"

    def act(self, init: "Init") -> None:
        process.unshare(process.CLONE_NEWCGROUP)


class UnshareTime(Operation):
    """Make a time namespace with its offsets, and enter it.

    unshare(2) makes it for children only. execve enters it too, but not before Linux 6.3, and until then vfork and
    threads fail with EINVAL: a process may not share memory across time namespaces (kernel/fork.c).
    """

    offsets: dict[str, TimeOffset]
    subject = "namespaces"

    def describe(self) -> str:
        shifts = ", ".join(f"{clock} by {offset.secs} s" for clock, offset in self.offsets.items())
        return "make a new time namespace" + (f", shift {shifts}" if shifts else "")

    def call(self) -> str:
        return "unshare(CLONE_NEWTIME), write timens_offsets, setns to it"

    def act(self, init: "Init") -> None:
        process.unshare(process.CLONE_NEWTIME)
        lines = [f"{clock} {offset.secs} {offset.nanosecs}\n" for clock, offset in self.offsets.items()]
        if lines:
            fd = os.open("self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC, dir_fd=init.procfs())
            try:
                os.write(fd, "".join(lines).encode())
            finally:
                os.close(fd)
        fd = os.open("self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC, dir_fd=init.procfs())
        try:
            process.setns(fd, process.CLONE_NEWTIME)
        finally:
            os.close(fd)


class MapIds(Operation):
    """Fill the new user namespace's maps, and become its root."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    deny_setgroups: bool = False
    subject = "namespaces"

    def describe(self) -> str:
        return "map " + ", ".join(
            f"{kind} {mapping.container_id} to {mapping.host_id} ({mapping.size})"
            for kind, mappings in (("uid", self.uids), ("gid", self.gids))
            for mapping in mappings
        )

    def call(self) -> str:
        return "write uid_map, gid_map" + (", setgroups deny" if self.deny_setgroups else "")

    def assist(self, outside: "Outside", pid: int) -> None:
        map_ids(pid, self.uids, self.gids, self.deny_setgroups)

    def act(self, init: "Init") -> None:
        init.may_set_groups = not self.deny_setgroups
        become_root(init.may_set_groups)


class BecomeRoot(Operation):
    """Be the root of the user namespace that init was born into."""

    subject = "namespaces"

    def describe(self) -> str:
        return "become root in the user namespace"

    def call(self) -> str:
        return "setresgid(0), setgroups, setresuid(0)"

    def act(self, init: "Init") -> None:
        fd = os.open("self/setgroups", os.O_RDONLY | os.O_CLOEXEC, dir_fd=init.procfs())
        try:
            init.may_set_groups = os.read(fd, 16).strip() == b"allow"
        finally:
            os.close(fd)
        become_root(init.may_set_groups)


class Loopback(Operation):
    """Bring up lo in the new network namespace."""

    subject = "network"

    def describe(self) -> str:
        return "bring up the loopback interface"

    def call(self) -> str:
        return "ioctl(SIOCSIFFLAGS, lo, IFF_UP)"

    def act(self, init: "Init") -> None:
        interface.set_up("lo")


def become_root(may_set_groups: bool = True) -> None:
    """Take uid and gid 0 of the own user namespace, without the groups of the one before."""
    os.setresgid(0, 0, 0)
    if may_set_groups:
        os.setgroups([])
    os.setresuid(0, 0, 0)


def map_ids(pid: int, uids: tuple[IdMapping, ...], gids: tuple[IdMapping, ...], deny_setgroups: bool = False) -> None:
    """Write the maps of the user namespace that a child was cloned into. user_namespaces(7)."""
    if deny_setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/gid_map", _map_text(gids))
    _write(f"/proc/{pid}/uid_map", _map_text(uids))


def _map_text(mappings: tuple[IdMapping, ...]) -> str:
    return "".join(f"{mapping.container_id} {mapping.host_id} {mapping.size}\n" for mapping in mappings)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as failure:
        raise OSError(failure.errno, f"{failure.strerror} (writing {text.strip()!r})", path) from None
    finally:
        os.close(fd)


def own_user_namespace(uids: tuple[IdMapping, ...], gids: tuple[IdMapping, ...]) -> None:
    """Enter a new user namespace, and a mount namespace of it: there an ordinary user has every capability.

    Only one's own id can be mapped without newuidmap(1) and newgidmap(1). The caller has one thread. Raises OSError.
    """
    alone = all(len(rows) == 1 and rows[0].size == 1 for rows in (uids, gids))
    if alone:
        process.unshare(process.CLONE_NEWUSER)
        map_ids(os.getpid(), uids, gids, deny_setgroups=True)
    else:
        _have_ids_mapped(uids, gids)
    process.unshare(process.CLONE_NEWNS)


def _have_ids_mapped(uids: tuple[IdMapping, ...], gids: tuple[IdMapping, ...]) -> None:
    me = str(os.getpid())
    ready, tell = os.pipe2(os.O_CLOEXEC)
    helper, pidfd = process.clone3(0)
    if helper == 0:  # it stays outside, where the programs' rights count
        try:
            os.close(tell)
            os.read(ready, 1)
            failed = 0
            for program, rows in (("newuidmap", uids), ("newgidmap", gids)):
                numbers = (str(number) for row in rows for number in (row.container_id, row.host_id, row.size))
                failed = failed or os.spawnvp(os.P_WAIT, program, [program, me, *numbers])
            os._exit(1 if failed else 0)
        finally:
            os._exit(1)
    os.close(ready)
    try:
        process.unshare(process.CLONE_NEWUSER)
    finally:
        os.close(tell)
        status = process.wait_pidfd(pidfd)
        os.close(pidfd)
    if status:
        raise PermissionError(errno.EPERM, "newuidmap or newgidmap does not map these ids (/etc/subuid, /etc/subgid)")
