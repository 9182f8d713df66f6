"""One more process in a running container (exec)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Process, Spec
    from .host import HostFacts
    from .launch import Created
    from .plan import Plan


def open_root(pid: int, pidfd: int) -> int:
    """Return an O_PATH descriptor of the root directory of a running container, for `users.resolve`.

    Raises Conflict when the process is gone; pidfd holds the identity, pid is only the way to it.
    """
    raise NotImplementedError


def compile_exec(process: Process, spec: Spec, host: HostFacts) -> Plan:
    """Return the plan of one more process. spec: the container's own; it gives the cgroup and the seccomp filter."""
    raise NotImplementedError


def create_exec(plan: Plan, pid: int, pidfd: int, stdio: Sequence[int]) -> Created:
    """Make the process up to the last step before execve; like `launch.create`.

    pid, pidfd: of the container's init, the pidfd opened by `linux.process.pidfd_of`.
    Raises Conflict when the container is not running.
    """
    raise NotImplementedError
