"""The process that holds an ordinary user's namespaces: made once, joined by every engine, ended with the last of them.

    engine (outside)   clone3(user, mount, network) -> keeper; newuidmap, newgidmap; "mapped" -> keeper
    keeper             root in there, lo up, no descriptors of ours; "ready" -> engine; waits for a signal
    engine             $ORLOP_RUN/keeper.json; setns to the keeper's namespaces

Without it the namespaces would end with an engine that is killed, and the next one would have no right over containers
that run on. Source: user_namespaces(7), newuidmap(1).
"""

import errno
import fcntl
import os
import select
import shutil
import time

from ...linux import interface, mount, process, signals
from ...linux.path import read_file
from ...runtime import host
from ...runtime.operations.namespaces import become_root, map_ids
from ...spec import jsonio
from ...spec.errors import OrlopError, Unavailable
from ...spec.paths import ENGINE_LOCK
from ...spec.record import Record
from ...spec.runtime import IdMapping
from . import subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FILE = "keeper.json"
LOOK_S = 20.0  # between two looks whether anybody needs it still
NETWORK_FILE = "netns"
NAMESPACES = process.CLONE_NEWUSER | process.CLONE_NEWNS | process.CLONE_NEWNET
SAID_BYTES_MAX = 4096
_POLL_S = 0.005
_DENIED = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


class Keeper(Record):
    """keeper.json. start_time: field 22 of /proc/PID/stat; with boot_id it makes the pid unique.

    uplink, uplink_start_time: the process that connects the network namespace with the machine's, 0 for none.
    """

    pid: int
    start_time: int
    boot_id: str
    uplink: int = 0
    uplink_start_time: int = 0


class Ids(Record):
    """What a user may map. warning: why the user's subordinate ids can't be used, "" where they can, or are none."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    warning: str = ""

    @property
    def single(self) -> bool:
        """Whether there is no other id than the user's own."""
        return len(self.uids) == 1 or len(self.gids) == 1


def find(run: str) -> tuple[Keeper, int] | None:
    """Return the keeper of a run directory that lives, with its pidfd, which the caller closes."""
    try:
        found = Keeper.from_json(jsonio.parse(read_file(f"{run}/{FILE}", SAID_BYTES_MAX), FILE), FILE)
        if found.boot_id == process.boot_id():
            return found, process.pidfd_of(found.pid, found.start_time)
    except (OSError, OrlopError):
        pass
    return None


def save(run: str, keeper: Keeper) -> None:
    """Write keeper.json."""
    path = f"{run}/{FILE}"
    with open(f"{path}.tmp", "wb") as file:
        file.write(jsonio.dump(keeper.to_json()))
    os.rename(f"{path}.tmp", path)


def allowed_ids(user: str, uid: int, gid: int) -> Ids:
    """Return what this user may map: its subordinate ids, if there are any and the programs to map them."""
    if uid == 0:
        return _own_ids()
    uids = subids.read(subids.SUBUID, user, uid)
    gids = subids.read(subids.SUBGID, user, uid)
    single = Ids(uids=subids.mappings(uid, ()), gids=subids.mappings(gid, ()))
    if not uids or not gids:
        return single
    for program in ("newuidmap", "newgidmap"):
        if shutil.which(program) is None:
            return single.replace(warning=f"{program} is not installed, so the subordinate ids of {user} are not used")
    return Ids(uids=subids.mappings(uid, uids), gids=subids.mappings(gid, gids))


def _own_ids() -> Ids:
    """Return all ids of our own user namespace: its root may map them without asking anybody (user_namespaces(7))."""
    facts = host.own_ids()
    uids, gids = (
        tuple(IdMapping(container_id=each.container_id, host_id=each.container_id, size=each.size) for each in maps)
        for maps in facts
    )
    return Ids(uids=uids, gids=gids)


def make(run: str, ids: Ids) -> tuple[Keeper, int]:
    """Make the namespaces and the process that holds them; return it, with its pidfd.

    For a process with one thread. Raises Unavailable, with what to do about it.
    """
    mapped, tell = os.pipe()
    ready, say = os.pipe()
    try:
        try:
            pid, pidfd = process.clone3(NAMESPACES)
        except OSError as failure:
            raise _no_namespace(failure) from None
        if pid == 0:
            _keep(run, mapped, say)
        os.close(say)
        say = -1
        try:
            _map(pid, ids)
            os.write(tell, b"m")
            said = os.read(ready, SAID_BYTES_MAX)
            if said != b"ready":
                raise Unavailable("make", "your namespaces", said.decode(errors="replace") or "the keeper died")
            keeper = Keeper(pid=pid, start_time=process.start_time(pid), boot_id=process.boot_id())
            save(run, keeper)
        except BaseException:
            process.pidfd_send_signal(pidfd, signals.SIGKILL)
            process.wait_pidfd(pidfd)
            os.close(pidfd)
            raise
        return keeper, pidfd
    finally:
        for fd in (mapped, tell, ready, say):
            if fd >= 0:
                os.close(fd)


def end(run: str) -> None:
    """Let the namespaces go, with what connects them. For the engine, when it leaves nobody running."""
    found = find(run)
    if found is None:
        return
    keeper, pidfd = found
    os.close(pidfd)
    os.unlink(f"{run}/{FILE}")
    end_process(keeper.uplink, keeper.uplink_start_time)
    end_process(keeper.pid, keeper.start_time)


def end_process(pid: int, start_time: int) -> None:
    """Kill exactly the process that started then, and wait for it, whoever its parent is; pid 0 is nobody."""
    try:
        pidfd = process.pidfd_of(pid, start_time) if pid else -1
    except OSError:
        return  # it has ended
    if pidfd < 0:
        return
    try:
        process.pidfd_send_signal(pidfd, signals.SIGKILL)
        process.wait_pidfd(pidfd)
    except ChildProcessError:
        while not process.has_ended(pidfd):  # it was an earlier engine's child
            time.sleep(_POLL_S)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _keep(run: str, mapped: int, say: int) -> "NoReturn":
    """The keeper's life."""
    try:
        try:
            os.setsid()
            signals.reset_all()
            process.close_all_except({mapped, say})
            if os.read(mapped, 1) != b"m":
                os._exit(1)
            become_root(may_set_groups=False)
            interface.set_up("lo")
            _name_network(f"{run}/{NETWORK_FILE}")
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            process.set_name("orlop:keeper")
            process.set_title("orlop:keeper")
        except OSError as failure:
            os.write(say, f"{failure.strerror} ({failure.filename or 'in the new namespace'})".encode())
            os._exit(1)
        os.write(say, b"ready")
        process.close_range(3)
        while True:
            select.poll().poll(LOOK_S * 1000)
            if _is_forsaken(run):
                os._exit(0)
    finally:
        os._exit(1)


def _is_forsaken(run: str) -> bool:
    """Tell whether no engine runs, and nobody else is in our namespaces; then what connects them has been ended.

    For what ends after the last engine left. The engine's lock is held from here to our end: none can come meanwhile.
    """
    try:
        lock = os.open(f"{run}/{ENGINE_LOCK}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return not _others(0)  # the run directory is gone
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    found = find(run)
    keeper = found[0] if found is not None and found[0].pid == os.getpid() else None
    if _others(keeper.uplink if keeper else 0):
        os.close(lock)
        return False
    if keeper is not None:
        end_process(keeper.uplink, keeper.uplink_start_time)
        os.unlink(f"{run}/{FILE}")
    return True


def _others(uplink: int) -> bool:
    """Tell whether anybody but us and the uplink lives in our user namespace."""
    own = os.stat("/proc/self/ns/user")
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in (os.getpid(), uplink):
            try:
                if os.path.samestat(os.stat(f"/proc/{name}/ns/user"), own):
                    return True
            except OSError:
                continue  # it has ended, or it is none of ours
    return False


def _name_network(path: str) -> None:
    """Give the network namespace a name in our mount namespace, as ip-netns(8) does.

    What connects it has fewer capabilities than we, so that it may not look into /proc/PID/ns (ptrace(2)).
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    mount.mount("/proc/self/ns/net", path, flags=mount.MS_BIND)


def _map(pid: int, ids: Ids) -> None:
    if ids.single or os.geteuid() == 0:
        try:
            if ids.single and os.geteuid():
                map_ids(pid, ids.uids[:1], ids.gids[:1], deny_setgroups=True)
            else:
                map_ids(pid, ids.uids, ids.gids)
        except OSError as failure:
            raise _not_mapped(failure.strerror or str(failure)) from None
        return
    for program, mappings in (("newgidmap", ids.gids), ("newuidmap", ids.uids)):
        numbers = [number for each in mappings for number in (each.container_id, each.host_id, each.size)]
        _grant(program, [program, str(pid), *map(str, numbers)])


def _grant(program: str, argv: list[str]) -> None:
    path = shutil.which(program)
    assert path is not None
    said, tell = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, tell, 2), (os.POSIX_SPAWN_DUP2, tell, 1)]
        pid = os.posix_spawn(path, argv, os.environ, file_actions=actions)
        os.close(tell)
        tell = -1
        told = os.read(said, SAID_BYTES_MAX).decode(errors="replace").strip()
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(said)
        if tell >= 0:
            os.close(tell)
    if status:
        raise _refused(program, path, told or f"it ended with {os.waitstatus_to_exitcode(status)}")


def _refused(program: str, path: str, told: str) -> OrlopError:
    found = os.stat(path)
    if not found.st_mode & 0o4000 and "security.capability" not in os.listxattr(path):
        hint = f"reinstall the package uidmap, or: chmod u+s {path}"
        return Unavailable("map", "your subordinate ids", f"{path} is not setuid", hint=hint)
    hint = f"see what /etc/subuid and /etc/subgid give you; {program}(1) wrote this"
    return Unavailable("map", "your subordinate ids", told.splitlines()[-1][:200], hint=hint)


def _no_namespace(failure: OSError) -> OrlopError:
    cause = failure.strerror or str(failure)
    hint = "ask for user namespaces: sysctl user.max_user_namespaces, and the seccomp profile of a container around us"
    if failure.errno in (errno.ENOSPC, errno.EUSERS) or _sysctl("/proc/sys/user/max_user_namespaces") == "0":
        cause, hint = "user.max_user_namespaces is used up or 0", "as root: sysctl user.max_user_namespaces=15000"
    elif _sysctl("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        cause = "kernel.unprivileged_userns_clone is 0"
        hint = "as root: sysctl kernel.unprivileged_userns_clone=1"
    return Unavailable("make", "a user namespace", cause, hint=hint)


def _not_mapped(cause: str) -> OrlopError:
    if _sysctl(_DENIED) == "1":
        hint = "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give orlop a profile with userns"
        cause = f"{cause}: AppArmor restricts user namespaces"
        return Unavailable("map", "your id into a user namespace", cause, hint=hint)
    return Unavailable("map", "your id into a user namespace", cause, hint="see what is missing with: orlop doctor")


def _sysctl(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
