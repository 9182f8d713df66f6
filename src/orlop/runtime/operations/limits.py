"""Attributes of the process itself: resource limits, OOM score, processors, personality."""

import errno
import os
import resource

from ...linux import process
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside

RLIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
INFINITY = 2**64 - 1  # the specification's "unlimited"; -1 in the resource module


class SetRlimit(Operation):
    """Set a resource limit: right before execve, because a small one would hit init itself.

    By the process on itself: for another user's process prlimit(2) wants CAP_SYS_RESOURCE, which a container host may
    lack.
    """

    type: str
    soft: int
    hard: int
    subject = "limits"

    def describe(self) -> str:
        return f"limit {self.type.removeprefix('RLIMIT_').lower()} to {_text(self.soft)} (hard {_text(self.hard)})"

    def call(self) -> str:
        return f"setrlimit({self.type}, {_text(self.soft)}, {_text(self.hard)})"

    def act(self, init: "Init") -> None:
        try:
            resource.setrlimit(RLIMITS[self.type], (_signed(self.soft), _signed(self.hard)))
        except ValueError as failure:  # what the module makes of EPERM
            raise OSError(errno.EPERM, str(failure), self.type) from None


class RaiseHardLimit(Operation):
    """Let the process have a hard limit above the caller's own, which it could not take by itself any more.

    By the caller, who has CAP_SYS_RESOURCE: the process has given its capabilities up when it sets its limits.
    """

    type: str
    hard: int
    subject = "limits"

    def describe(self) -> str:
        return f"allow a hard limit of {_text(self.hard)} for {self.type.removeprefix('RLIMIT_').lower()}"

    def call(self) -> str:
        return f"prlimit(PID, {self.type}, {_text(self.hard)})"

    def assist(self, outside: "Outside", pid: int) -> None:
        number = RLIMITS[self.type]
        soft, _ = resource.prlimit(pid, number)
        try:
            resource.prlimit(pid, number, (soft, _signed(self.hard)))
        except (ValueError, PermissionError) as failure:  # files above fs.nr_open, even for root
            raise OSError(errno.EPERM, str(failure), self.type) from None


class SetOomScoreAdj(Operation):
    """Make the kernel's OOM killer prefer or spare the process."""

    value: int
    subject = "limits"

    def describe(self) -> str:
        return f"set the OOM score adjustment to {self.value}"

    def call(self) -> str:
        return f"write {self.value} to /proc/PID/oom_score_adj"

    def assist(self, outside: "Outside", pid: int) -> None:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(self.value).encode())
        finally:
            os.close(fd)


class SetCpuAffinity(Operation):
    """Bind the process to processors."""

    cpus: tuple[int, ...]
    subject = "limits"

    def describe(self) -> str:
        return f"run on the processors {', '.join(map(str, self.cpus))}"

    def call(self) -> str:
        return "sched_setaffinity"

    def act(self, init: "Init") -> None:
        os.sched_setaffinity(0, self.cpus)


class SetPersonality(Operation):
    """Set the execution domain."""

    domain: str
    subject = "limits"

    def describe(self) -> str:
        return f"set the personality {self.domain}"

    def call(self) -> str:
        return f"personality({self.domain})"

    def act(self, init: "Init") -> None:
        process.set_personality(process.PERSONALITIES[self.domain])


def _text(limit: int) -> str:
    return "unlimited" if limit == INFINITY else str(limit)


def _signed(limit: int) -> int:
    return resource.RLIM_INFINITY if limit == INFINITY else limit
