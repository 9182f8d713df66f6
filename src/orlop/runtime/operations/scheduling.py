"""Scheduling policy, I/O priority and memory policy: asked for seldom, so a plan imports this where it needs it."""

from ...linux import scheduling
from ...spec.runtime import Scheduler
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


class SetScheduler(Operation):
    """Set the scheduling policy."""

    scheduler: Scheduler
    subject = "limits"

    def describe(self) -> str:
        return f"schedule as {self.scheduler.policy}"

    def call(self) -> str:
        return f"sched_setattr({self.scheduler.policy})"

    def act(self, init: "Init") -> None:
        wanted = self.scheduler
        scheduling.set_scheduler(
            scheduling.POLICIES[wanted.policy],
            flags=sum(scheduling.FLAGS[flag] for flag in wanted.flags),
            nice=wanted.nice,
            priority=wanted.priority,
            times_ns=(wanted.runtime, wanted.deadline, wanted.period),
        )


class SetIoPriority(Operation):
    """Set the I/O scheduling class and priority."""

    io_class: str
    priority: int
    subject = "limits"

    def describe(self) -> str:
        return f"give I/O the class {self.io_class.removeprefix('IOPRIO_CLASS_').lower()}, priority {self.priority}"

    def call(self) -> str:
        return f"ioprio_set({self.io_class}, {self.priority})"

    def act(self, init: "Init") -> None:
        scheduling.set_io_priority(scheduling.IO_CLASSES[self.io_class], self.priority)


class SetMemoryPolicy(Operation):
    """Set the NUMA memory policy, which execve keeps."""

    mode: str
    nodes: tuple[int, ...]
    flags: tuple[str, ...] = ()
    subject = "limits"

    def describe(self) -> str:
        return f"allocate memory by {self.mode} on the nodes {', '.join(map(str, self.nodes)) or 'of the caller'}"

    def call(self) -> str:
        return f"set_mempolicy({self.mode})"

    def act(self, init: "Init") -> None:
        mode = scheduling.MEMORY_MODES[self.mode]
        for flag in self.flags:
            mode |= scheduling.MEMORY_FLAGS[flag]
        scheduling.set_memory_policy(mode, self.nodes)
