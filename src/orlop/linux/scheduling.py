"""Scheduling of the calling process: processor, I/O and memory placement. sched(7), ioprio_set(2), set_mempolicy(2)."""

from __future__ import annotations

from . import abi, ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13

MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
NODES_MAX = 1024


class _SchedAttr(ffi.Structure):
    _fields_ = [
        ("size", ffi.c_uint32),
        ("sched_policy", ffi.c_uint32),
        ("sched_flags", ffi.c_uint64),
        ("sched_nice", ffi.c_int32),
        ("sched_priority", ffi.c_uint32),
        ("sched_runtime", ffi.c_uint64),
        ("sched_deadline", ffi.c_uint64),
        ("sched_period", ffi.c_uint64),
    ]


def set_scheduler(policy: int, *, flags: int, nice: int, priority: int, times_ns: tuple[int, int, int]) -> None:
    """Set the calling thread's policy; times_ns: runtime, deadline, period of SCHED_DEADLINE. sched_setattr(2)."""
    attr = _SchedAttr(ffi.sizeof(_SchedAttr), policy, flags, nice, priority, *times_ns)
    abi.syscall("sched_setattr", 0, ffi.byref(attr), 0)


def set_io_priority(io_class: int, priority: int) -> None:
    """Set the calling thread's I/O class and priority (0 to 7). ioprio_set(2)."""
    abi.syscall("ioprio_set", _IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority)


def set_memory_policy(mode: int, nodes: Iterable[int]) -> None:
    """Set the calling thread's NUMA policy; execve keeps it. set_mempolicy(2)."""
    bits = sum(1 << node for node in set(nodes))
    mask = (ffi.c_uint64 * (NODES_MAX // 64))(*(bits >> shift & (1 << 64) - 1 for shift in range(0, NODES_MAX, 64)))
    # maxnode counts one more than the highest bit (set_mempolicy(2), BUGS of every implementation).
    abi.syscall("set_mempolicy", mode, ffi.byref(mask) if bits else None, NODES_MAX if bits else 0)
