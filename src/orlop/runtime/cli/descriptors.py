"""Descriptors that cross the border by request: inherited by the process (--preserve-fds), sent to a unix socket.

Nothing else crosses: Python opens everything close-on-exec (PEP 446), so what lacks that mark came from our caller.
"""

from __future__ import annotations

import fcntl
import os

from ...spec.errors import Invalid
from .. import channel
from ..operations import Operation
from ..operations.hooks import ContainerHooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..launch import Created
    from ..operations import Init, Outside
    from ..plan import Plan
    from .flags import Flags

_FIRST = 3
_COUNT_MAX = 4096


class PreserveDescriptors(Operation):
    """Let the command inherit the descriptors from 3 on. The caller's own copies are closed after the clone."""

    count: int
    subject = "process"

    def describe(self) -> str:
        return f"keep {self.count} descriptors from {_FIRST} on"

    def call(self) -> str:
        return f"fcntl({_FIRST}..{_FIRST + self.count - 1}, F_SETFD, 0)"

    def prepare(self, outside: Outside) -> None:
        for fd in self._numbers():
            outside.keep(self, fd, str(fd))

    def act(self, init: Init) -> None:
        for fd in self._numbers():
            fcntl.fcntl(fd, fcntl.F_SETFD, 0)

    def _numbers(self) -> range:
        return range(_FIRST, _FIRST + self.count)


def listening() -> int:
    """Return how many sockets systemd has opened for this very process, from 3 on (sd_listen_fds(3))."""
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    meant = count.isascii() and count.isdigit() and len(count) < 5 and pid == str(os.getpid())
    return int(count) if meant else 0


def preserve(plan: Plan, count: int) -> Plan:
    """Return the plan with the first `count` descriptors from 3 on inherited by the command.

    They are let through behind the hooks, which must not get them, and before the seccomp filter, which may forbid it.
    Raises Invalid when one of them is not open, or is one of ours: the container must never get that.
    """
    if count == 0:
        return plan
    if not 0 < count <= _COUNT_MAX:
        raise Invalid("preserve", f"{count} descriptors", f"the number must be from 0 to {_COUNT_MAX}")
    for fd in range(_FIRST, _FIRST + count):
        if not _is_inherited(fd):
            raise Invalid(
                "preserve",
                f"descriptor {fd}",
                f"unable to stat preserved-fd {fd - _FIRST} (of {count}): it is not open",
                hint=f"open {_FIRST} to {_FIRST + count - 1} for the call, or give a smaller --preserve-fds",
            )
    hooks = tuple(step for step in plan.last if isinstance(step, ContainerHooks))
    rest = tuple(step for step in plan.last if not isinstance(step, ContainerHooks))
    return plan.replace(last=(*hooks, PreserveDescriptors(count=count), *rest))


def _is_inherited(fd: int) -> bool:
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:
        return False


def hand_over(created: Created, flags: Flags) -> None:
    """Send the terminal and the pidfd of a process to the sockets that the flags name."""
    if created.console is not None and flags.text("console-socket"):
        channel.send_descriptor(flags.text("console-socket"), created.console, b"/dev/ptmx")
    if flags.text("pidfd-socket"):
        channel.send_descriptor(flags.text("pidfd-socket"), created.pidfd, b"pidfd")
