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
_DEFAULT_ACTION = bytes(32)  # struct sigaction of the kernel: handler, flags, restorer, mask


def reset_all() -> None:
    """Give every signal its default disposition and unblock all.

    Python ignores SIGPIPE and SIGXFSZ, and what is ignored or blocked stays so over execve (signal(7)).
    """
    from . import abi  # its types: not for those who only want a signal's number

    for number in valid_signals() - _UNCHANGEABLE:
        signal(number, SIG_DFL)
    for internal in _OF_GLIBC:
        abi.syscall("rt_sigaction", internal, _DEFAULT_ACTION, None, _SIGSET_BYTES)
    pthread_sigmask(SIG_SETMASK, ())
