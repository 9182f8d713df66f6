"""The host before and after a test run: what the run left behind, by name.

Invariants: a run of tests leaves no mount, cgroup, network device, named network namespace, process, shared memory,
socket, state directory, temporary file or other engine's configuration behind. Only the controller of a parallel run
judges, after the last worker ended. What a program makes below TMPDIR lies in a directory of the run's own, so nobody
else's file counts.

Somebody else may use the machine meanwhile (a second checkout, an engine started by hand). Every process of a run
carries SESSION in its environment, and a container's process belongs to whom its ancestors belong to. Objects without
an owner (mounts, devices, a container's process without ancestors) count as ours unless another run of these tests goes
on at the same time, which each run announces by a shared lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path

from . import processes

SESSION = "ORLOP_TEST_SESSION"
SETTLE_S_MAX = 10.0  # a killed namespace's mounts and devices go asynchronously in the kernel
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OURS = ("orlop",)  # every process title, cgroup and device of ours begins so
_MADE = ("/tmp/orlop-", "/tmp/fake-")  # directories of sockets, whose paths must be short


class Scratch:
    """A new directory that TMPDIR names from now on, for this process and all that it starts. path: where it lies."""

    def __init__(self) -> None:
        above = tempfile.gettempdir()
        # Where tests' own tmp_path lie stays as it is: paths of sockets in there are as long as they may be.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", above)
        self.path = Path(tempfile.mkdtemp(prefix="orlop-tests-", dir=above))
        self.path.chmod(0o1777)  # users of tests write there too
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.path)

    def finish(self) -> list[str]:
        """Remove it if it is empty; return a line for each thing in it that nobody had removed."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return [f"temporary file {path}" for path in sorted(_listed(str(self.path)))]


class Snapshot:
    """One look at the host: {kind of object: {its name}}."""

    def __init__(self) -> None:
        self.objects = {
            "mount": _mounts(),
            "cgroup": _cgroups(),
            "network device": _listed("/sys/class/net"),
            "network namespace": _listed("/run/netns"),
            "shared memory": _listed("/dev/shm"),
            "message queue": _listed("/dev/mqueue"),
            "state": _listed("/run/orlop") | _listed("/var/lib/orlop") | _directories(),
            "socket": _sockets(),
            # What root's podman and buildah make when they are not told another place, closed to all users.
            "configuration": _listed("/etc/containers") | _listed("/etc/cni") | _listed("/etc/cni/net.d"),
        }
        self.processes = {(pid, processes.start_time(pid)) for pid in processes.pids()}


class Watch:
    """Compare the host at the end of a run with the host at its beginning."""

    def __init__(self, session: str) -> None:
        """session: the value of SESSION in this run's processes. note: what could not be judged."""
        self.session = session
        path = Path("/tmp", f"orlop-tests-{os.geteuid()}.lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self.before = Snapshot()
        self.note = ""

    def finish(self) -> list[str]:
        """Return one line for each thing left behind, after giving the kernel time to finish what it does by itself."""
        alone = self._is_alone()
        if not alone:
            self.note = "another run of these tests goes on: only processes were judged, not mounts, cgroups or devices"
        deadline = time.monotonic() + SETTLE_S_MAX
        while (left := self._left(alone)) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.close(self._lock)
        return left

    def _is_alone(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _left(self, alone: bool) -> list[str]:
        now = Snapshot()
        new_pids = [pid for pid, start in sorted(now.processes - self.before.processes) if start]
        owners = {pid: _owner(pid) for pid in new_pids}
        lasting = [pid for pid, owner in owners.items() if self._is_left(pid, owner, alone)]
        left = [f"process {pid}: {processes.title(pid)}" for pid in lasting]
        foreign = {pid for pid, owner in owners.items() if owner not in ("", self.session)}
        for kind, names in now.objects.items():
            for name in sorted(names - self.before.objects[kind]):
                if alone and not (kind == "cgroup" and _members(name) & foreign):
                    left.append(f"{kind} {name}")
        return left

    def _is_left(self, pid: int, owner: str, alone: bool) -> bool:
        if pid == os.getpid() or os.getpid() in processes.ancestors(pid) or not processes.is_alive(pid):
            return False
        return owner == self.session or (owner == "" and alone and _is_contained(pid))


def _owner(pid: int) -> str:
    """Return the session that a process belongs to, "somebody" for a stranger's, "" for an untold orphan."""
    line = [pid, *processes.ancestors(pid)]
    environments = [processes.environment(member) for member in line]
    for environment in environments:
        if SESSION in environment:
            return environment[SESSION]
    for member, environment in zip(line, environments, strict=True):
        # A container's process has its own environment, and one that writes its title may lose it: neither tells.
        if member != 1 and "PATH" in environment and not _is_contained(member):
            return "somebody"
    return ""


def _is_contained(pid: int) -> bool:
    return processes.title(pid).startswith(_OURS) or processes.namespace(pid, "pid") not in ("", _own_namespace())


def _own_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _mounts() -> set[str]:
    # Mount ids are reused; the mount point, type and source say which mount it is.
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    fields = [(line.split(), line.partition(" - ")[2].split()) for line in lines]
    return {f"{left[4]} ({right[0]} {right[1]})" for left, right in fields}


def _cgroups() -> set[str]:
    return {directory for directory, _, _ in os.walk(_CGROUP_ROOT)}


def _members(cgroup: str) -> set[int]:
    try:
        return {int(word) for word in Path(cgroup, "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def _listed(directory: str) -> set[str]:
    try:
        return {f"{directory}/{name}" for name in os.listdir(directory)}
    except OSError:
        return set()


def _directories() -> set[str]:
    return {path for path in _listed("/tmp") if path.startswith(_MADE) and os.path.isdir(path)}


def _sockets() -> set[str]:
    """Return the bound unix sockets, path or abstract name, that carry our name."""
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]
    names = (line.split(maxsplit=7)[7] for line in lines if len(line.split(maxsplit=7)) == 8)
    return {name for name in names if "orlop" in name}
