"""Limits: what the user asked for, checked as docker checks it, as OCI resources. Pure.

A limit that was asked for by name and that no cgroup controller can enforce is an error (I3); the default ones degrade
to a warning. The default for pids is ours: docker has none, and a fork bomb then takes the host down with it. 4096 is
far above what a server of a thousand threads needs, and far below kernel.pid_max.
"""

from __future__ import annotations

from ...spec.container import ContainerRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import BlockIo, Cpu, Memory, Pids, Resources, Rlimit
from ..host import Devices, Host
from . import devices as device_rules

PIDS_MAX_DEFAULT = 4096
PIDS_MAX = 4 * 1024 * 1024  # PID_MAX_LIMIT, include/linux/threads.h: the kernel refuses more
MEMORY_BYTES_MIN = 6 * 1024 * 1024
MEMORY_BYTES_MAX = 2**62  # twice as much is memory plus swap, a signed 64-bit integer
CPU_PERIOD_US = 100_000
CPU_PERIOD_US_MIN, CPU_PERIOD_US_MAX = 1000, 1_000_000
CPU_QUOTA_US_MIN = 1000  # the kernel's lower bound, kernel/sched/core.c min_cfs_quota_period
CPU_SHARES_MIN, CPU_SHARES_MAX = 2, 262144
OOM_SCORE_ADJ_MAX = 1000
RLIM_INFINITY = 2**64 - 1
FILES = "RLIMIT_NOFILE"
FILES_SOFT, FILES_HARD = 1024, 524288  # systemd's since 240; more than 1024 breaks who still calls select(2)
NANO = 10**9
_CPUS_MAX = 8192  # CONFIG_NR_CPUS of the largest kernels


def resources(
    request: ContainerRequest, host: Host, devices: Devices, subject: str
) -> tuple[Resources, tuple[str, ...]]:
    """Return the limits and the warnings. Raises Invalid with docker's texts, Unsupported without a controller."""
    warnings: list[str] = []
    found = Resources(
        devices=device_rules.rules(request, devices, subject),
        memory=_memory(request, host, subject, warnings),
        cpu=_cpu(request, host, subject),
        pids=_pids(request, host, subject, warnings),
        block_io=_block_io(request, host, devices, subject),
    )
    if "devices" not in host.controllers and not request.privileged:
        warnings.append("This machine has no device cgroup: the container's own capabilities alone guard devices.")
    return found, tuple(warnings)


def rlimits(request: ContainerRequest, host: Host) -> tuple[Rlimit, ...]:
    """Return the limits of --ulimit, and one for open files where none is asked for.

    What the engine itself was started with is nobody's wish for a container: with millions, programs that close every
    descriptor hang, and tables for all of them take gigabytes. It is systemd's default, or less where we have less.
    """
    wanted = _asked_rlimits(request)
    if any(limit.type == FILES for limit in wanted):
        return wanted
    hard = min(FILES_HARD, host.runtime.rlimits_hard.get(FILES, FILES_HARD))
    return (*wanted, Rlimit(type=FILES, soft=min(FILES_SOFT, hard), hard=hard))


def _asked_rlimits(request: ContainerRequest) -> tuple[Rlimit, ...]:
    """Return the limits of --ulimit; of two for one resource the last counts."""
    last = {entry.name: entry for entry in request.ulimits}
    return tuple(
        Rlimit(type=f"RLIMIT_{name.upper()}", soft=_or_infinity(entry.soft), hard=_or_infinity(entry.hard))
        for name, entry in sorted(last.items())
    )


def rlimit_warnings(request: ContainerRequest, host: Host) -> tuple[str, ...]:
    """Return a sentence for each limit of --ulimit that only root may give (setrlimit(2)): the runtime clamps it."""
    if host.runtime.initial_user_namespace and "CAP_SYS_RESOURCE" in host.capabilities:
        return ()
    most = host.runtime.rlimits_hard
    return tuple(
        f"The limit {wanted.type} is {most[wanted.type]}: only root may raise it to {wanted.hard}."
        for wanted in _asked_rlimits(request)
        if wanted.hard > most.get(wanted.type, wanted.hard)
    )


def oom_score_adj(request: ContainerRequest, subject: str) -> int | None:
    """Return the process's oom_score_adj, None to leave it as it is. Raises Invalid with docker's text."""
    if abs(request.oom_score_adj) > OOM_SCORE_ADJ_MAX:
        cause = f"Invalid value {request.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        raise _invalid(subject, cause, "choose one in that range")
    return request.oom_score_adj or None


def _or_infinity(limit: int) -> int:
    return RLIM_INFINITY if limit < 0 else limit


def _memory(request: ContainerRequest, host: Host, subject: str, warnings: list[str]) -> Memory | None:
    if request.kernel_memory_bytes:
        cause = "Linux has no limit for kernel memory alone since 5.16"
        raise Unsupported(
            "create", subject, cause, hint="leave --kernel-memory away: --memory counts the kernel's too", code="E0504"
        )
    limit = _memory_limit(request, subject)
    reservation = request.memory_reservation_bytes
    _check_reservation(reservation, limit, subject)
    swappiness, killer_off = request.memory_swappiness, request.oom_kill_disable
    if swappiness is not None and not 0 <= swappiness <= 100:
        cause = f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        raise _invalid(subject, cause, "choose one in that range, or leave it out")
    if not (limit or reservation or swappiness is not None or killer_off):
        return None
    _need(host, "memory", subject)
    if killer_off and not limit:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    return Memory(
        limit=limit or None,
        swap=_swap(request, host, subject, warnings) if limit else None,
        reservation=reservation or None,
        swappiness=swappiness,
        disable_oom_killer=killer_off or None,
    )


def _memory_limit(request: ContainerRequest, subject: str) -> int:
    """Return the memory limit, checked against that of memory plus swap."""
    limit, swap = request.memory_bytes, request.memory_swap_bytes
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
    return limit  # --memory-swap -1 alone: unlimited, as without it


def _check_reservation(reservation: int, limit: int, subject: str) -> None:
    if reservation < 0 or 0 < reservation < MEMORY_BYTES_MIN:
        raise _invalid(subject, "Minimum memory reservation allowed is 6MB", "give at least --memory-reservation 6m")
    if reservation > MEMORY_BYTES_MAX:
        raise _invalid(subject, f"a memory reservation of {reservation} bytes is out of range", "give less")
    if 0 < limit < reservation:
        cause = "Minimum memory limit can not be less than memory reservation limit, see usage"
        raise _invalid(subject, cause, "the reservation is what the limit is above")


def _swap(request: ContainerRequest, host: Host, subject: str, warnings: list[str]) -> int | None:
    swap = request.memory_swap_bytes
    if host.swap_limit:
        return swap or 2 * request.memory_bytes
    if swap > 0:
        raise Unsupported(
            "create", subject, "this kernel can't limit swap", hint="leave --memory-swap out", code="E0504"
        )
    warnings.append(
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    )
    return None


def _cpu(request: ContainerRequest, host: Host, subject: str) -> Cpu | None:
    quota, period = _bandwidth(request, host, subject)
    shares = request.cpu_shares
    if shares and not CPU_SHARES_MIN <= shares <= CPU_SHARES_MAX:
        # The kernel bends what is outside to the nearest without a word, and docker lets it.
        shares = min(max(shares, CPU_SHARES_MIN), CPU_SHARES_MAX)
    runtime, realtime_period = request.cpu_realtime_runtime_us, request.cpu_realtime_period_us
    if runtime and realtime_period and runtime > realtime_period:
        cause = "cpu real-time runtime cannot be higher than cpu real-time period"
        raise _invalid(subject, cause, "raise --cpu-rt-period, or lower --cpu-rt-runtime")
    _check_set(request.cpuset_cpus, host.cpus, "cpus", "CPUs", subject)
    _check_set(request.cpuset_mems, host.memory_nodes, "mems", "memory nodes", subject)
    if quota or period or shares or runtime or realtime_period:
        _need(host, "cpu", subject)
    elif not request.cpuset_cpus and not request.cpuset_mems:
        return None
    if request.cpuset_cpus or request.cpuset_mems:
        _need(host, "cpuset", subject)
    return Cpu(
        shares=shares or None,
        quota=quota or None,
        period=period or None,
        realtime_runtime=runtime or None,
        realtime_period=realtime_period or None,
        cpus=request.cpuset_cpus,
        mems=request.cpuset_mems,
    )


def _bandwidth(request: ContainerRequest, host: Host, subject: str) -> tuple[int, int]:
    """Return (quota, period) in microseconds, of --cpus or of --cpu-quota and --cpu-period."""
    nanos, quota, period = request.cpu_nanos, request.cpu_quota_us, request.cpu_period_us
    if nanos and (quota or period):
        other = "Quota" if quota else "Period"
        cause = f"Conflicting options: Nano CPUs and CPU {other} cannot both be set"
        raise _invalid(subject, cause, "give --cpus alone, or the two others")
    if period and not CPU_PERIOD_US_MIN <= period <= CPU_PERIOD_US_MAX:
        cause = "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        raise _invalid(subject, cause, "give a period in that range")
    if 0 < quota < CPU_QUOTA_US_MIN:
        raise _invalid(subject, "CPU cfs quota can not be less than 1ms (i.e. 1000)", "give at least 1000")
    if not nanos:
        return quota, period
    count = host.processors
    quota = nanos * CPU_PERIOD_US // NANO
    if nanos < 0 or nanos > count * NANO or quota < CPU_QUOTA_US_MIN:
        cause = f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        hint = "give --cpus at least 0.01" if 0 <= nanos < NANO else f"give --cpus a value up to {count}"
        raise _invalid(subject, cause, hint)
    return quota, CPU_PERIOD_US


def _check_set(text: str, available: tuple[int, ...], field: str, what: str, subject: str) -> None:
    """Check a list of numbers and ranges ("0-2,7"). Raises Invalid with docker's texts."""
    if not text:
        return
    asked = members(text)
    if asked is None:
        cause = f"Invalid value {text[:100]} for cpuset {field}: invalid format: {text[:100]}"
        raise _invalid(subject, cause, "write 0-3 or 0,1, for instance")
    if available and not asked <= set(available):
        there = ranges(available)
        cause = f"Requested {what} are not available - requested {text[:100]}, available: {there}"
        raise _invalid(subject, cause, "choose among those that are there")


def members(text: str) -> set[int] | None:
    """Return the numbers in a list of the kernel's form, None for what is none."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and len(first) < 6):
            return None
        if dash and not (last.isascii() and last.isdigit() and len(last) < 6):
            return None
        start, end = int(first), int(last if dash else first)
        if start > end or end >= _CPUS_MAX:
            return None
        found.update(range(start, end + 1))
    return found


def ranges(numbers: tuple[int, ...]) -> str:
    """Return numbers as a list of the kernel's form: the inverse of `members`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


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


def _block_io(request: ContainerRequest, host: Host, devices: Devices, subject: str) -> BlockIo | None:
    found = device_rules.block_io(request, devices, subject)
    if found is not None:
        _need(host, "blkio", subject)
    return found


def _need(host: Host, controller: str, subject: str) -> None:
    if controller in host.controllers:
        return
    if not host.runtime.initial_user_namespace:
        cause = f"no cgroup with the {controller} controller is delegated to you, so the limit can't be enforced"
        hint = f"`orlop doctor` says how to get one, or leave the {controller} limit out"
    else:
        cause = f"no cgroup hierarchy with the {controller} controller is mounted, so the limit can't be enforced"
        hint = f"mount it, or leave the {controller} limit out"
    raise Unsupported("create", subject, cause, hint=hint, code="E0504")


def _invalid(subject: str, cause: str, hint: str) -> Invalid:
    return Invalid("create", subject, cause, hint=hint)
