"""seccomp(2): put a filter on this thread, and ask what this kernel can do. Programs come from `orlop.linux.bpf`.

A filter stays on for good, over execve too, and is inherited by children. Loading one needs no_new_privs or
CAP_SYS_ADMIN in the thread's user namespace.
"""

from __future__ import annotations

import errno

from . import abi, ffi

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2

SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1 << 4
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_NEW_LISTENER": SECCOMP_FILTER_FLAG_NEW_LISTENER,
    "SECCOMP_FILTER_FLAG_TSYNC_ESRCH": SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
_INSTRUCTION_BYTES, _BPF_MAXINSNS = 8, 4096  # linux/filter.h, as `orlop.linux.bpf` has them


class _SockFprog(ffi.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_ = (("len", ffi.c_ushort), ("filter", ffi.c_char_p))


def load(program: bytes, flags: int = 0) -> int | None:
    """Put the filter on the calling thread. With NEW_LISTENER return the listener (a close-on-exec descriptor).

    Raises OSError: EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a program or flag that the kernel does
    not take, EBUSY for a second listener, ENOMEM when all filters together are too long, ESRCH when another thread
    can't follow (TSYNC).
    """
    count, rest = divmod(len(program), _INSTRUCTION_BYTES)
    if rest or not 0 < count <= _BPF_MAXINSNS:
        # The length is a C unsigned short: more instructions would be cut off in silence.
        raise abi.error("seccomp", errno.EINVAL, detail=f"a program of {len(program)} bytes")
    fprog = _SockFprog(count, program)
    result = abi.syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, ffi.byref(fprog))
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
        return result
    if result > 0:
        raise abi.error("seccomp", errno.ESRCH, detail=f"thread {result} can't take the filter")
    return None


def supported_actions() -> tuple[str, ...]:
    """Return the names of the SECCOMP_RET_* actions that this kernel has (SECCOMP_GET_ACTION_AVAIL, Linux 4.14)."""
    from . import bpf  # for its constants alone: who loads a program that is there needs no assembler

    names = (
        "SECCOMP_RET_KILL_PROCESS", "SECCOMP_RET_KILL_THREAD", "SECCOMP_RET_TRAP", "SECCOMP_RET_ERRNO",
        "SECCOMP_RET_USER_NOTIF", "SECCOMP_RET_TRACE", "SECCOMP_RET_LOG", "SECCOMP_RET_ALLOW",
    )  # fmt: skip
    return tuple(name for name in names if _has_action(getattr(bpf, name)))


def supported_flags() -> tuple[str, ...]:
    """Return the names of the SECCOMP_FILTER_FLAG_* flags that this kernel has."""
    return tuple(name for name, flag in FLAGS.items() if _has_flag(flag))


def _has_action(action: int) -> bool:
    try:
        abi.syscall("seccomp", SECCOMP_GET_ACTION_AVAIL, 0, ffi.byref(ffi.c_uint32(action)))
    except OSError as wrong:
        if wrong.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return False
    return True


def _has_flag(flag: int) -> bool:
    # Flags are looked at before the program: a null program fails with EFAULT only when the flags are known. A
    # listener's own flag counts only beside NEW_LISTENER (Linux 5.19).
    if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        abi.syscall("seccomp", SECCOMP_SET_MODE_FILTER, flag, None)
    except OSError as wrong:
        if wrong.errno not in (errno.EFAULT, errno.EINVAL):
            raise
        return wrong.errno == errno.EFAULT
    return False
