"""Processes: clone3 into namespaces, pidfds, setns, prctl, descriptors, titles.

A process is named by its pidfd wherever it is signalled or waited for: a number can be recycled (SEC-36).
"""

from __future__ import annotations

import fcntl
import os
import select

from . import abi, ffi, signals
from .pidfd import boot_id as boot_id
from .pidfd import has_ended as has_ended
from .pidfd import inode_of as inode_of
from .pidfd import pidfd_of as pidfd_of
from .pidfd import pidfd_open as pidfd_open
from .pidfd import pidfd_send_signal as pidfd_send_signal
from .pidfd import start_time as start_time
from .pidfd import stat_fields
from .pidfd import wait_pidfd as wait_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Array, c_char
    from typing import TypeAlias

    TitleArea: TypeAlias = Array[c_char]

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CLOSE_RANGE_CLOEXEC = 4

_PR_GET_DUMPABLE = 3

PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

_KEYCTL_JOIN_SESSION_KEYRING = 1
_NS_GET_NSTYPE = 0xB703  # _IO(0xb7, 3)

# include/uapi/linux/pidfd.h: _IOWR(0xFF, 11, struct pidfd_info), the structure of 6.13 is 64 bytes.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO_WORDS = 8


class _CloneArgs(ffi.Structure):
    _fields_ = [
        (name, ffi.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


_clone_syscall = abi.libc_gil.syscall
_clone_syscall.restype = ffi.c_long


def clone3(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces: (pid, pidfd) in the parent, (0, -1) in the child. clone3(2), since 5.3.

    flags: CLONE_NEW* flags, and CLONE_PARENT for a child of the caller's own parent; CLONE_PIDFD is added.
    cgroup_fd: a cgroup v2 directory to start in (5.7).

    Only a process with one thread may call this: glibc's atfork handlers do not run, so a lock that another thread held
    would stay locked in the child (37 of 300 children hung when tried with four busy threads). The GIL is held during
    the call (PyDLL), because the child must own it when it returns.
    """
    pidfd = ffi.c_int(-1)
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0),
        pidfd=ffi.addressof(pidfd),
        exit_signal=0 if flags & CLONE_PARENT else signals.SIGCHLD,  # the new sibling has its parent's signal anyway
        cgroup=cgroup_fd or 0,
    )
    python = abi.libc_gil
    python.PyOS_BeforeFork()
    pid: int = _clone_syscall(abi.NUMBERS["clone3"], ffi.byref(args), ffi.c_long(ffi.sizeof(args)))
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0, -1
    failure = ffi.get_errno()
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise abi.error("clone3", failure)
    return pid, pidfd.value


def fork() -> int:
    """Fork as fork(2), by glibc: for a child that starts threads. Only a process with one thread may call this."""
    assert len(os.listdir("/proc/self/task")) == 1, "a lock that another thread holds would stay locked in the child"
    return os.fork()


def setns(fd: int, flags: int) -> None:
    """Join the namespace that fd names, or those of `flags` of the process that a pidfd names (5.8). setns(2)."""
    abi.syscall("setns", fd, flags)


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces. unshare(2)."""
    abi.syscall("unshare", flags)


def namespace_type(fd: int) -> int:
    """Return the CLONE_NEW* flag of the namespace that fd names. ioctl_ns(2), since 4.11. OSError ENOTTY for others."""
    return fcntl.ioctl(fd, _NS_GET_NSTYPE)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a copy of another process's descriptor, close-on-exec; takes ptrace's rights. pidfd_getfd(2), 5.6."""
    return abi.syscall("pidfd_getfd", pidfd, fd, 0)


def pidfd_exit_status(pidfd: int) -> int | None:
    """Return the wait status of a process that was reaped, None while it runs or on a kernel that can't tell.

    PIDFD_GET_INFO with PIDFD_INFO_EXIT (kernel 6.15): works in any process that holds the pidfd.
    """
    info = (ffi.c_uint64 * _PIDFD_INFO_WORDS)(_PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not info[0] & _PIDFD_INFO_EXIT:
        return None
    # struct pidfd_info: mask, cgroupid, then thirteen 32-bit words; exit_code is the last of them.
    return int(info[7]) >> 32


_libc_prctl = abi.libc.prctl
_libc_prctl.argtypes = [ffi.c_int, *[ffi.c_ulong] * 4]


def prctl(option: int, value: int = 0) -> None:
    """Call prctl(2) with one argument."""
    # Not by abi.syscall: a container's monitor keeps every page that it touches for as long as the container runs.
    if _libc_prctl(option, value, 0, 0, 0) < 0:
        raise abi.error("prctl", ffi.get_errno())


def get_dumpable() -> int:
    """Return the dumpable attribute of the calling process: 0, 1, or 2 (dumps for root only)."""
    return abi.syscall("prctl", _PR_GET_DUMPABLE, 0, 0, 0, 0)


def set_name(name: str) -> None:
    """Set the thread's name as `ps -o comm` shows it: at most 15 bytes."""
    abi.syscall("prctl", PR_SET_NAME, name.encode()[:15] + b"\0", 0, 0, 0)


def pause() -> None:
    """Wait until a signal ends the process. pause(2), without a Python signal handler."""
    select.poll().poll()


def join_session_keyring() -> None:
    """Give the caller a new, empty session keyring, so that it can't reach the keys of its parent's. keyctl(2)."""
    abi.syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)


def set_domain_name(name: str) -> None:
    """Set the NIS domain name of the caller's UTS namespace. setdomainname(2)."""
    data = name.encode()
    abi.syscall("setdomainname", data, len(data), subject=name)


def set_personality(persona: int) -> None:
    """Set the execution domain. personality(2)."""
    abi.syscall("personality", persona)


def title_area() -> TitleArea | None:
    """Return the memory of the original command line, the same in every forked child; None where there is none.

    Made once and kept: it has a type of its own, and to make one touches half of what a monitor has.
    """
    stat = stat_fields("self")
    start, end = int(stat[45]), int(stat[46])  # fields 48 and 49 of proc_pid_stat(5)
    return (ffi.c_char * (end - start)).from_address(start) if end > start > 0 else None


def set_title(title: str, area: TitleArea | None = None) -> None:
    """Replace the command line that `ps` shows, as far as `title_area` (looked up here by default) reaches."""
    place = area or title_area()
    if place is not None:
        room = len(place)
        place.raw = title.encode()[: room - 1].ljust(room, b"\0")


def wipe_environment() -> None:
    """Overwrite what /proc/PID/environ shows of this process. Python's own os.environ is a copy and stays."""
    stat = stat_fields("self")
    start, end = int(stat[47]), int(stat[48])  # fields 50 and 51 of proc_pid_stat(5)
    if end > start > 0:
        (ffi.c_char * (end - start)).from_address(start).raw = bytes(end - start)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close (or mark close-on-exec) every descriptor from first to last. close_range(2), since 5.9."""
    abi.syscall("close_range", first, last, flags)


def close_all_except(keep: set[int]) -> None:
    """Close every descriptor from 3 on that is not in keep."""
    first = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)
