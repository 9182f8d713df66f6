"""What cgroup v1 needs and v2 does by itself.

Source: Documentation/admin-guide/cgroup-v1/cpusets.rst, freezer-subsystem.rst, memory.rst.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .directory import Directory

_PIDFDS_MAX = 128
_PASSES_MAX = 1000
_POLL_S = 0.001


def inherit_cpuset(parent: Directory, child: Directory) -> None:
    """Copy the parent's cpus and memory nodes into a child that has none: no process may enter it before."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not child.read(file).strip() and (value := parent.read(file).strip()):
            child.write(file, value)


def set_frozen(directory: Directory, frozen: bool, timeout_s: float) -> None:
    """Freeze or thaw a cgroup of the freezer hierarchy with all below it; raises OSError ETIMEDOUT, thawed."""
    if not frozen:
        directory.write("freezer.state", "THAWED")
        return
    deadline = time.monotonic() + timeout_s
    directory.write("freezer.state", "FROZEN")
    while directory.read("freezer.state").strip() != "FROZEN":
        if time.monotonic() >= deadline:
            directory.write("freezer.state", "THAWED")
            raise OSError(errno.ETIMEDOUT, f"processes would not freeze within {timeout_s} s", directory.path)
        time.sleep(_POLL_S)
        # Reading has the kernel look again, and writing has it signal tasks that were forked meanwhile.
        directory.write("freezer.state", "FROZEN")


def kill_members(procs: Callable[[], list[int]]) -> None:
    """SIGKILL every process that `procs` lists, until it lists no new one.

    Raises OSError ETIMEDOUT when they fork faster than they die, which takes an unfrozen cgroup.
    """
    seen: set[int] = set()
    for _ in range(_PASSES_MAX):
        new = [pid for pid in procs() if pid not in seen]
        if not new:
            return
        for start in range(0, len(new), _PIDFDS_MAX):
            _kill_batch(new[start : start + _PIDFDS_MAX], procs)
        seen.update(new)
    raise OSError(errno.ETIMEDOUT, "processes fork faster than they are killed")


def _kill_batch(pids: list[int], procs: Callable[[], list[int]]) -> None:
    """Kill through pidfds that were opened before the list was read again: a reused pid is never hit."""
    import signal  # not at the top: it imports enum, and cgroup v2 has cgroup.kill

    pidfds: list[tuple[int, int]] = []
    try:
        for pid in pids:
            try:
                pidfds.append((pid, os.pidfd_open(pid)))
            except ProcessLookupError:
                pass
        members = set(procs())
        for pid, pidfd in pidfds:
            if pid in members:
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    finally:
        for _, pidfd in pidfds:
            os.close(pidfd)
