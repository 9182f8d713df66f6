"""What to write into a cgroup's control files, as values that can be printed before they are written.

A step has `controller` (which says in what hierarchy), `describe()` (words), `call()` (what the kernel gets) and
`act(directory)`. Setting is the usual one; OneOf, IfPresent and UsageBelow depend on what the kernel has or holds.

Source: Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from .directory import Directory

    class Step(Protocol):
        @property
        def controller(self) -> str: ...
        def describe(self) -> str: ...
        def call(self) -> str: ...
        def act(self, directory: Directory) -> None: ...


# Files of these controllers bound each other (memory <= memory+swap, burst <= quota, quota/period <= the parent's):
# which may be written first depends on the present values, and the kernel says EINVAL to the wrong one.
_INTERDEPENDENT = ("memory", "cpu")


# How a control file is said in words. {size}: bytes; {value}: as it stands there.
_WORDS = {
    "memory.limit_in_bytes": "memory at most {size}",
    "memory.max": "memory at most {size}",
    "memory.memsw.limit_in_bytes": "memory and swap together at most {size}",
    "memory.swap.max": "swap at most {size}",
    "memory.soft_limit_in_bytes": "under memory pressure, shrink towards {size}",
    "memory.low": "protect {size} of memory from reclaim",
    "memory.kmem.tcp.limit_in_bytes": "TCP buffers at most {size}",
    "memory.swappiness": "swappiness {value} of 100",
    "memory.oom_control": "OOM killer disabled: {value}",
    "pids.max": "at most {value} processes and threads",
    "cpu.shares": "CPU weight {value} (1024 is usual)",
    "cpu.weight": "CPU weight {value} (100 is usual)",
    "cpu.idle": "CPU time only when nobody else wants it: {value}",
    "cpu.cfs_period_us": "count CPU time in periods of {value} us",
    "cpu.cfs_quota_us": "at most {value} us of CPU time in a period",
    "cpu.cfs_burst_us": "save up to {value} us of unused CPU time",
    "cpu.max": "CPU time at most (quota period, in us): {value}",
    "cpu.max.burst": "save up to {value} us of unused CPU time",
    "cpu.rt_period_us": "count realtime CPU time in periods of {value} us",
    "cpu.rt_runtime_us": "at most {value} us of realtime CPU time in a period",
    "cpuset.cpus": "run on CPUs {value}",
    "cpuset.mems": "take memory from nodes {value}",
    "devices.allow": "allow devices {value}",
    "devices.deny": "deny devices {value}",
    "net_cls.classid": "mark packets with class {value}",
}
_UNLIMITED = ("max", "-1")


class Setting:
    """Write `value` to `file` of the hierarchy that holds `controller`."""

    __slots__ = ("controller", "file", "value")

    def __init__(self, controller: str, file: str, value: str) -> None:
        self.controller = controller
        self.file = file
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Setting and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Setting({self.controller!r}, {self.file!r}, {self.value!r})"

    def describe(self) -> str:
        """Return the setting in words ("memory at most 20 MiB")."""
        words = _WORDS.get(self.file)
        if words is None:
            return f"{self.file}: {self.value}"
        if self.value in _UNLIMITED:
            return (
                words.replace("at most {size}", "without limit")
                .replace("at most {value}", "any number of")
                .format(size="all", value="all")
            )
        return words.format(value=self.value, size=_size_words(self.value))

    def call(self) -> str:
        """Return what the kernel gets ("write 20971520 to memory.limit_in_bytes")."""
        return f"write {self.value} to {self.file}"

    def act(self, directory: Directory) -> None:
        """Raises OSError that names the file and the value it refused."""
        directory.write(self.file, self.value)

    def _key(self) -> tuple[str, str, str]:
        return self.controller, self.file, self.value


class OneOf:
    """Act on the first setting whose file this kernel has: files that two I/O schedulers name differently."""

    __slots__ = ("settings",)

    def __init__(self, *settings: Setting) -> None:
        self.settings = settings

    @property
    def controller(self) -> str:
        return self.settings[0].controller

    def __eq__(self, other: object) -> bool:
        return type(other) is OneOf and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.settings)

    def __repr__(self) -> str:
        return f"OneOf{self.settings!r}"

    def describe(self) -> str:
        return self.settings[0].describe()

    def call(self) -> str:
        return ", or ".join(setting.call() for setting in self.settings)

    def act(self, directory: Directory) -> None:
        """Raises OSError ENOENT when the kernel has none of the files."""
        for setting in self.settings:
            try:
                setting.act(directory)
            except FileNotFoundError:
                continue
            return
        files = " and no ".join(setting.file for setting in self.settings)
        raise OSError(errno.ENOENT, f"this kernel has no {files}", directory.path)


class IfPresent:
    """Act on a setting unless this kernel lacks the file: for a value that is what such a kernel does anyway."""

    __slots__ = ("setting",)

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @property
    def controller(self) -> str:
        return self.setting.controller

    def __eq__(self, other: object) -> bool:
        return type(other) is IfPresent and self.setting == other.setting

    def __hash__(self) -> int:
        return hash(self.setting)

    def __repr__(self) -> str:
        return f"IfPresent({self.setting!r})"

    def describe(self) -> str:
        return self.setting.describe()

    def call(self) -> str:
        return f"{self.setting.call()}, if there is such a file"

    def act(self, directory: Directory) -> None:
        try:
            self.setting.act(directory)
        except FileNotFoundError:
            pass


class UsageBelow:
    """Refuse to go on while a file holds more than `limit`: v2 would kill processes to get below a new limit."""

    __slots__ = ("controller", "file", "limit")

    def __init__(self, controller: str, file: str, limit: int) -> None:
        self.controller = controller
        self.file = file
        self.limit = limit

    def __eq__(self, other: object) -> bool:
        return type(other) is UsageBelow and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"UsageBelow({self.controller!r}, {self.file!r}, {self.limit})"

    def describe(self) -> str:
        return f"go on only if no more than {_size_words(str(self.limit))} is in use"

    def call(self) -> str:
        return f"read {self.file}: at most {self.limit}"

    def act(self, directory: Directory) -> None:
        """Raises OSError EBUSY."""
        used = int(directory.read(self.file))
        if used > self.limit:
            raise OSError(
                errno.EBUSY, f"{used} bytes are in use, more than {self.limit}", f"{directory.path}/{self.file}"
            )


def write_all(steps: Iterable[Step], directory: Directory) -> None:
    """Act on every step in a cgroup's directory, in the order given.

    A step that an interdependent controller refuses with EINVAL is tried again after the others, so a limit and
    its partner are raised and lowered in the order that the kernel allows. Raises OSError for the first step that
    stays refused.
    """
    pending = list(steps)
    while pending:
        refused: list[tuple[Step, OSError]] = []
        for step in pending:
            try:
                step.act(directory)
            except OSError as error:
                if error.errno != errno.EINVAL or step.controller not in _INTERDEPENDENT:
                    raise
                refused.append((step, error))
        if len(refused) == len(pending):
            raise refused[0][1]
        pending = [step for step, _ in refused]


def _size_words(value: str) -> str:
    """Return bytes in the largest unit that divides them ("20 MiB")."""
    if not value.isdecimal():
        return value
    number, unit = int(value), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number == 0 or number % 1024:
            break
        number, unit = number // 1024, larger
    return f"{number} {unit}"
