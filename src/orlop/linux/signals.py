"""The parts of `signal` that a start needs, from the C module behind it: `signal` imports enum, for 3 ms."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        SIG_DFL,
        SIG_IGN,
        SIG_SETMASK,
        SIGCHLD,
        SIGKILL,
        SIGSTOP,
        SIGTERM,
        SIGUSR1,
        pidfd_send_signal,
        pthread_sigmask,
        signal,
        sigtimedwait,
        valid_signals,
    )
else:
    from _signal import (
        SIG_DFL,
        SIG_IGN,
        SIG_SETMASK,
        SIGCHLD,
        SIGKILL,
        SIGSTOP,
        SIGTERM,
        SIGUSR1,
        pidfd_send_signal,
        pthread_sigmask,
        signal,
        sigtimedwait,
        valid_signals,
    )

__all__ = [
    "SIGCHLD",
    "SIGKILL",
    "SIGSTOP",
    "SIGTERM",
    "SIGUSR1",
    "SIG_DFL",
    "SIG_IGN",
    "SIG_SETMASK",
    "pidfd_send_signal",
    "pthread_sigmask",
    "reset_all",
    "signal",
    "sigtimedwait",
    "valid_signals",
]

_UNCHANGEABLE = frozenset((SIGKILL, SIGSTOP))
# glibc keeps these to itself (nptl(7)), and its posix_spawn leaves them ignored in the child.
_OF_GLIBC = (32, 33)
_SIGSET_BYTES = 8
_STATUS_BYTES_MAX = 64 * 1024
_DEFAULT_ACTION = bytes(32)  # struct sigaction of the kernel: handler, flags, restorer, mask


def reset_all() -> None:
    """Give every signal its default disposition and unblock all.

    Python ignores SIGPIPE and SIGXFSZ, and what is ignored or blocked stays so over execve (signal(7)).
    """
    changed = _changed()
    for number in valid_signals() - _UNCHANGEABLE:
        if changed >> (number - 1) & 1:
            signal(number, SIG_DFL)
    for internal in _OF_GLIBC:
        if changed >> (internal - 1) & 1:
            from . import abi  # its types: not for those who only want a signal's number

            abi.syscall("rt_sigaction", internal, _DEFAULT_ACTION, None, _SIGSET_BYTES)
    pthread_sigmask(SIG_SETMASK, ())


def _changed() -> int:
    """Return the signals that are ignored or caught, as a mask (proc_pid_status(5)); all where that can't be read.

    One file instead of 64 calls: a start has this done in each process that is to be a container's.
    """
    try:
        with open("/proc/self/status", "rb", buffering=0) as file:
            told = file.read(_STATUS_BYTES_MAX)
    except OSError:
        return -1
    masks = [line.split()[1] for line in told.splitlines() if line.startswith((b"SigIgn:", b"SigCgt:"))]
    return int(masks[0], 16) | int(masks[1], 16) if len(masks) == len(("SigIgn", "SigCgt")) else -1


def reaches(pid: int, number: int) -> bool:
    """Tell whether a process will ever see a signal that is sent to it from outside its PID namespace, SIGKILL apart.

    The first process of one does that handles it, or blocks it to fetch it (signalfd); for it nothing else has a
    default action (pid_namespaces(7)). True of a process that can't be looked at.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return True
    if lines.get("NSpid", "").split()[-1:] != ["1"]:
        return True  # not the first of its pid namespace: the default action works
    if any(int(lines.get(name, "0"), 16) >> (number - 1) & 1 for name in ("SigCgt", "SigBlk")):
        return True
    return _waits_for_signals(pid)


def _waits_for_signals(pid: int) -> bool:
    """Tell whether a process is in sigtimedwait(2), as inits are: what it blocks is not shown as blocked meanwhile
    (kernel/signal.c, do_sigtimedwait keeps it in real_blocked).
    """
    from . import abi

    try:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
            return file.read().split(" ", 1)[0] == str(abi.NUMBERS["rt_sigtimedwait"])
    except OSError:
        return False
