"""Processes by pidfd, so that nothing depends on a number that can be recycled (SEC-36).

Apart from `orlop.linux.process`, and without ctypes: a command that only looks at a process or signals it need not wait
for that import.
"""

from __future__ import annotations

import errno
import os
import select

from . import signals


def pidfd_open(pid: int) -> int:
    """Return a pidfd of a process. Raises ProcessLookupError when it is gone."""
    return os.pidfd_open(pid)


def inode(pidfd: int) -> int:
    """Return a number that no other process of this boot has. On pidfs, since 6.9; before, all have the same."""
    return os.fstat(pidfd).st_ino


def inode_of(pid: int) -> int:
    """Return `inode` of a process that can't end meanwhile: a child that was not waited for."""
    fd = os.pidfd_open(pid)
    try:
        return inode(fd)
    finally:
        os.close(fd)


def pidfd_of(pid: int, start_time_ticks: int, inode_number: int = 0) -> int:
    """Return a pidfd of exactly the process that started then; ProcessLookupError if the number was recycled.

    inode_number: what `inode` said, 0 where it was not asked: then a process of the same tick can't be told apart.
    """
    fd = os.pidfd_open(pid)
    try:
        # Read after the open: if the number still belongs to that start time now, the pidfd does too.
        if start_time(pid) != start_time_ticks or inode_number not in (0, inode(fd)):
            raise ProcessLookupError(errno.ESRCH, f"process {pid} is another one now")
    except BaseException:
        os.close(fd)
        raise
    return fd


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Send a signal. Raises ProcessLookupError when the process is gone."""
    signals.pidfd_send_signal(pidfd, signum)


def has_ended(pidfd: int) -> bool:
    """Return whether the process is a zombie or gone. pidfd_open(2): the descriptor becomes readable at its end."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def wait_pidfd(pidfd: int) -> int:
    """Wait for a child, reap it and return its wait status (as os.waitpid does)."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None  # only WNOHANG gives None
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)


def stat_fields(pid: int | str) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on; the second may hold any character."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        data = file.read()
    return data[data.rindex(b")") + 2 :].decode().split()


def start_time(pid: int | str) -> int:
    """Return when a process started, in clock ticks since boot. Raises ProcessLookupError when it is gone."""
    try:
        return int(stat_fields(pid)[19])
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}") from None


def boot_id() -> str:
    """Return the id of this boot of the machine (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()
