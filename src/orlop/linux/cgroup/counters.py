"""What a cgroup's files say, as numbers: life and death (`Events`), use (`Stats`).

Source: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, cgroup-v1/cpuacct.rst.
"""

from __future__ import annotations


class Events:
    """populated: a live process is in the cgroup or below. oom_kills: processes that the OOM killer took there."""

    __slots__ = ("frozen", "oom_kills", "populated")

    def __init__(self, populated: bool, frozen: bool, oom_kills: int) -> None:
        self.populated = populated
        self.frozen = frozen
        self.oom_kills = oom_kills

    def __repr__(self) -> str:
        return f"Events(populated={self.populated}, frozen={self.frozen}, oom_kills={self.oom_kills})"


class Stats:
    """Raw numbers, None where no hierarchy or no kernel support gives them.

    memory_bytes, memory_peak_bytes: charged now, and at most so far (v2 since Linux 5.19).
    cpu_ns: user and system time of every process so far. pids: tasks now.
    """

    __slots__ = ("cpu_ns", "memory_bytes", "memory_peak_bytes", "pids")

    def __init__(
        self, memory_bytes: int | None, memory_peak_bytes: int | None, cpu_ns: int | None, pids: int | None
    ) -> None:
        self.memory_bytes = memory_bytes
        self.memory_peak_bytes = memory_peak_bytes
        self.cpu_ns = cpu_ns
        self.pids = pids

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"Stats({values})"


def flat_keyed(text: str, key: str) -> int:
    """Return the number after the key in a file of "KEY NUMBER" lines; 0 where the kernel does not have it."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == key:
            return int(number)
    return 0
