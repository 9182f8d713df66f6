"""Limits: what the user asked for, checked as docker checks it, as OCI resources. Pure.

A limit that was asked for by name and that no cgroup controller can enforce is an error (I3); the default ones degrade
to a warning. The default for pids is ours: docker has none, and a fork bomb then takes the host down with it. 4096 is
far above what a server of a thousand threads needs, and far below kernel.pid_max.
"""

from __future__ import annotations

from ...spec.container import ContainerRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import Cpu, DeviceRule, Memory, Pids, Resources
from ..host import Host

PIDS_MAX_DEFAULT = 4096
PIDS_MAX = 4 * 1024 * 1024  # PID_MAX_LIMIT, include/linux/threads.h: the kernel refuses more
MEMORY_BYTES_MIN = 6 * 1024 * 1024
MEMORY_BYTES_MAX = 2**62  # twice as much is memory plus swap, a signed 64-bit integer
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1000  # the kernel's lower bound, kernel/sched/core.c min_cfs_quota_period
NANO = 10**9

# Nodes may be made (mknod alone gives no access), and only these may be opened: null, zero, full, random, urandom, tty,
# console, ptmx and the terminals of the container's own devpts.
DEVICE_RULES = (
    DeviceRule(allow=False),
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 1, 2)),
    DeviceRule(allow=True, type="c", major=136),
)
DEVICE_RULES_PRIVILEGED = (DeviceRule(allow=True),)


def resources(request: ContainerRequest, host: Host, subject: str) -> tuple[Resources, tuple[str, ...]]:
    """Return the limits and the warnings. Raises Invalid with docker's texts, Unsupported without a controller."""
    warnings: list[str] = []
    found = Resources(
        devices=DEVICE_RULES_PRIVILEGED if request.privileged else DEVICE_RULES,
        memory=_memory(request, host, subject, warnings),
        cpu=_cpu(request, host, subject),
        pids=_pids(request, host, subject, warnings),
    )
    if "devices" not in host.controllers and not request.privileged:
        warnings.append("This machine has no device cgroup: the container's own capabilities alone guard devices.")
    return found, tuple(warnings)


def _memory(request: ContainerRequest, host: Host, subject: str, warnings: list[str]) -> Memory | None:
    limit, swap = request.memory_bytes, request.memory_swap_bytes
    if not limit and not swap:
        return None
    if not limit and swap > 0:
        raise _invalid(
            subject, "You should always set the Memory limit when using Memoryswap limit, see usage", "add -m"
        )
    if limit < MEMORY_BYTES_MIN and limit:
        raise _invalid(subject, "Minimum memory limit allowed is 6MB", "give at least -m 6m")
    if max(limit, swap) > MEMORY_BYTES_MAX:
        raise _invalid(subject, f"a memory limit of {max(limit, swap)} bytes is out of range", "give less, or no limit")
    if swap < -1 or 0 < swap < limit:
        cause = "Minimum memoryswap limit should be larger than memory limit, see usage"
        raise _invalid(subject, cause, "memory-swap is the sum of memory and swap")
    if not limit:
        return None  # --memory-swap -1 alone: unlimited, as without it
    _need(host, "memory", subject)
    if not host.swap_limit:
        if swap > 0:
            raise Unsupported("create", subject, "this kernel can't limit swap", hint="leave --memory-swap out")
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        return Memory(limit=limit)
    return Memory(limit=limit, swap=swap or 2 * limit)


def _cpu(request: ContainerRequest, host: Host, subject: str) -> Cpu | None:
    nanos = request.cpu_nanos
    if not nanos:
        return None
    count = host.processors
    if nanos < 0 or nanos > count * NANO:
        cause = f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        raise _invalid(subject, cause, f"give --cpus a value up to {count}")
    _need(host, "cpu", subject)
    quota = nanos * CPU_PERIOD_US // NANO
    if quota < CPU_QUOTA_US_MIN:
        cause = f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        raise _invalid(subject, cause, "give --cpus at least 0.01")
    return Cpu(quota=quota, period=CPU_PERIOD_US)


def _pids(request: ContainerRequest, host: Host, subject: str, warnings: list[str]) -> Pids | None:
    if request.pids_max is None:
        if "pids" in host.controllers:
            return Pids(limit=PIDS_MAX_DEFAULT)
        warnings.append("This machine has no pids cgroup: the number of processes is not limited.")
        return None
    if request.pids_max <= 0:
        return None
    if request.pids_max > PIDS_MAX:
        cause = f"a pids limit of {request.pids_max} is out of range, the kernel's largest is {PIDS_MAX}"
        raise _invalid(subject, cause, "give less, or 0 for no limit")
    _need(host, "pids", subject)
    return Pids(limit=request.pids_max)


def _need(host: Host, controller: str, subject: str) -> None:
    if controller not in host.controllers:
        cause = f"no cgroup hierarchy with the {controller} controller is mounted, so the limit can't be enforced"
        raise Unsupported("create", subject, cause, hint=f"mount it, or leave the {controller} limit out")


def _invalid(subject: str, cause: str, hint: str) -> Invalid:
    return Invalid("create", subject, cause, hint=hint)
