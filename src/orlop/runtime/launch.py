"""A plan becomes a process. The caller has one thread."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..linux.cgroup import Cgroup
    from ..spec.runtime import State
    from .plan import Plan


class Created:
    """A process that waits for its go: everything is set up, nothing of the container's has run.

    pid, pidfd: of a child of the caller, who reaps it. console: the pty master, None without a terminal.
    cgroup: the container's, removed by the caller at the end; None where the plan has none (an exec has none of its own).
    The descriptors belong to this object until `start` has returned; then to the caller.
    """

    pid: int
    pidfd: int
    console: int | None
    cgroup: Cgroup | None

    def start(self) -> None:
        """Execute the command; returns once execve succeeded.

        Raises CommandFailed (exit code 126 or 127, docker's texts) or another OrlopError; then everything is undone.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Kill and reap the process, close the descriptors, remove the cgroup. Idempotent."""
        raise NotImplementedError


def create(plan: Plan, rootfs_fd: int, stdio: Sequence[int], state: State | None = None) -> Created:
    """Make the container up to the last step before execve.

    rootfs_fd: the detached mount of `open_rootfs`; the caller keeps it and may close it afterwards.
    stdio: descriptors for 0, 1 and 2, borrowed; unused with a terminal. state: for hooks (status is filled in).
    Raises OrlopError after undoing everything; CommandFailed when the command does not exist or can't be executed.
    """
    raise NotImplementedError
