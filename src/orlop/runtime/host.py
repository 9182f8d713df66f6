"""What the plan must know about the machine, gathered once: the compiler itself asks nobody."""

from ..spec.record import Record


class HostFacts(Record):
    """The machine as this process may use it.

    kernel: (major, minor). cap_last: the highest capability number. cap_bounding, cap_effective: masks of this
    process. rlimits_hard: RLIMIT_* name -> hard limit, 2**64-1 for none. layout: orlop.linux.cgroup.Layout.
    """

    machine: str
    kernel: tuple[int, ...]
    cap_last: int
    cap_bounding: int
    cap_effective: int
    rlimits_hard: dict[str, int]
    layout: object = None


def facts() -> HostFacts:
    """Read the facts from the running kernel: once, in the process that will call `create`. Raises OSError."""
    raise NotImplementedError
