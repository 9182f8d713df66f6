"""Waiting for a container in the foreground: signals passed on, orphans reaped, the exit status told."""

from __future__ import annotations

import os

from ...linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from ..criu.restore import Restored
    from ..launch import Created
    from .console import Foreground
    from .flags import Flags

    Waited = Created | Restored
else:
    import _signal as signal  # the module behind it: `signal` imports enum, which takes as long as a clone

_NOT_PASSED_ON = frozenset(
    (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGSEGV, signal.SIGBUS,
     signal.SIGFPE, signal.SIGILL, signal.SIGTTIN, signal.SIGTTOU)
)  # fmt: skip


def become_reaper(wanted: bool) -> None:
    """Adopt the processes that the container leaves behind, as runc does."""
    if wanted:
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)


def terminal_of(created: Waited, flags: Flags) -> Foreground | None:
    """Return what shows the terminal of a process here; None without one, or when a console socket got it."""
    if created.console is None or flags.text("console-socket"):
        return None
    from . import console

    terminal = console.Foreground(created.console)
    terminal.resize()  # before the command runs: it may look at once
    return terminal


def wait(created: Waited, terminal: Foreground | None) -> int:
    """Wait for the process; return its exit status, or 128 plus the signal that ended it."""
    if terminal:
        with terminal:
            terminal.copy()
            status = process.wait_pidfd(created.pidfd)
    else:
        status = process.wait_pidfd(created.pidfd)
    _reap_orphans()
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def pass_signals_on(pidfd: int, terminal: Foreground | None) -> None:
    """Forward every signal that can be to the process. Before it is started: one that comes then is for it, too."""

    def forward(number: int, _: object) -> None:
        if number == signal.SIGWINCH and terminal:
            terminal.resize()
            return
        try:
            process.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass

    for number in signal.valid_signals() - _NOT_PASSED_ON:
        try:
            signal.signal(number, forward)
        except (OSError, ValueError):
            continue  # the C library keeps this one for itself


def _reap_orphans() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
