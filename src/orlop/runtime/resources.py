"""`linux.resources` of the OCI spec -> what to write into the cgroup, for the hierarchies that a machine has.

Pure: nothing is read or written. Each controller is judged by itself, so a hybrid machine needs no third case.

Conventions, where the specification is silent they are runc's and crun's:
- 0 in a limit that was once a plain number (memory, shares, quota, period, pids, weight) means "not set";
- -1 means no limit;
- v1 values are converted for v2: shares to weight so that 1024 becomes 100, memory+swap to swap, weights 10..1000
  to 1..10000.
A field that can't be honoured raises Unsupported with the field's name: no limit is dropped silently.

Source: runtime-spec config-linux.md; Documentation/admin-guide/cgroup-v2.rst; cgroup-v1/.
"""

from __future__ import annotations

import math

from ..linux.cgroup.devices import DeviceFilter, evaluate
from ..linux.cgroup.settings import IfPresent, OneOf, Setting, UsageBelow
from ..spec.errors import Invalid, Unsupported
from ..spec.runtime import DeviceRule, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..linux.cgroup.layout import Layout
    from ..linux.cgroup.settings import Step
    from ..spec.runtime import BlockIo, Cpu, HugepageLimit, Memory, NetworkResources, Rdma, ThrottleDevice

SHARES_MIN, SHARES_MAX = 2, 262144
BLKIO_WEIGHT_MIN, BLKIO_WEIGHT_MAX = 10, 1000
CPU_PERIOD_US_DEFAULT = 100_000

# What every container may use (config-linux.md, Default Devices), and mknod of anything, which opens nothing.
DEFAULT_DEVICES = (
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    *(
        DeviceRule(allow=True, type="c", major=major, minor=minor)
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None))
    ),
)

# Writable core files of v2 that limit; the others (procs, kill, freeze, type, subtree_control) act on processes.
_CORE_LIMITS = ("cgroup.max.depth", "cgroup.max.descendants")


def settings(resources: Resources | None, layout: Layout, *, devices: bool = True) -> tuple[Step, ...]:
    """Return the steps that give a cgroup these resources; `Cgroup.apply` takes them.

    devices: compile the device rules, with DEFAULT_DEVICES behind them; without, leave the devices as they are (an
    update, or a user namespace, in which the kernel does not let us).

    Raises Unsupported for a field that the layout's controllers don't know, Invalid for values that contradict
    each other; both name the field as it is in config.json.
    """
    wanted = resources or Resources()
    steps = [
        *_memory(wanted.memory, layout),
        *_cpu(wanted.cpu, layout),
        *_pids(wanted.pids.limit if wanted.pids else 0, layout),
        *_block_io(wanted.block_io, layout),
        *_hugepages(wanted.hugepage_limits, layout),
        *_network(wanted.network, layout),
        *_rdma(wanted.rdma, layout),
    ]
    if devices:
        steps += _devices(wanted.devices, layout)
    return (*steps, *_unified(wanted.unified, layout))


def weight_of_shares(shares: int) -> int:
    """Return the v2 weight (1..10000) of v1 shares (2..262144): the parabola on log scales through the three points
    (2, 1), (1024, 100) and (262144, 10000), as runc 1.3 and crun 1.23 compute it."""
    if shares <= SHARES_MIN:
        return 1
    if shares >= SHARES_MAX:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """Return the v2 io.weight (1..10000) of a v1 blkio weight (10..1000)."""
    return 1 + (weight - BLKIO_WEIGHT_MIN) * 9999 // (BLKIO_WEIGHT_MAX - BLKIO_WEIGHT_MIN)


# -- controllers ----------------------------------------------------------------------------------------------------


def _memory(memory: Memory | None, layout: Layout) -> Iterator[Step]:
    if memory is None:
        return
    for field in ("limit", "swap", "reservation", "kernel", "kernel_tcp"):
        _check_limit(getattr(memory, field), f"memory.{memory.json_names.get(field, field)}")
    if memory.kernel and memory.kernel != -1:
        raise _unsupported("memory.kernel", "Linux has no limit for kernel memory alone since 5.16", "use memory.limit")
    if 0 < (memory.swap or 0) < (memory.limit or 0):
        raise _invalid("memory.swap", "it is memory plus swap, and less than memory.limit", "raise it or leave it out")
    if not _says_anything(memory):
        return
    yield from _memory_v1(memory) if _version(layout, "memory", "memory") == 1 else _memory_v2(memory)


def _says_anything(memory: Memory) -> bool:
    limits = (memory.limit, memory.swap, memory.reservation, memory.kernel_tcp, memory.disable_oom_killer)
    return any(limits) or memory.swappiness is not None or memory.use_hierarchy is False


def _memory_v1(memory: Memory) -> Iterator[Step]:
    if memory.use_hierarchy is False:
        raise _unsupported("memory.useHierarchy", "Linux counts hierarchically always since 5.11", "leave it out")
    if memory.limit:
        yield Setting("memory", "memory.limit_in_bytes", str(memory.limit))
    if memory.swap:
        yield Setting("memory", "memory.memsw.limit_in_bytes", str(memory.swap))
    elif memory.limit == -1:
        # Else an earlier memory+swap limit would go on to hold. Without swap accounting there is no such file.
        yield IfPresent(Setting("memory", "memory.memsw.limit_in_bytes", "-1"))
    if memory.reservation:
        yield Setting("memory", "memory.soft_limit_in_bytes", str(memory.reservation))
    if memory.kernel_tcp:
        yield Setting("memory", "memory.kmem.tcp.limit_in_bytes", str(memory.kernel_tcp))
    if memory.swappiness is not None:
        yield Setting("memory", "memory.swappiness", str(memory.swappiness))
    if memory.disable_oom_killer:
        yield Setting("memory", "memory.oom_control", "1")


def _memory_v2(memory: Memory) -> Iterator[Step]:
    if memory.disable_oom_killer:
        raise _v1_only("memory.disableOOMKiller")
    if memory.swappiness is not None:
        raise _v1_only("memory.swappiness")
    if memory.kernel_tcp and memory.kernel_tcp != -1:
        raise _v1_only("memory.kernelTCP")
    if memory.use_hierarchy is False:
        raise _v1_only("memory.useHierarchy")
    swap = swap_alone(memory)
    if memory.check_before_update:
        for limit in (memory.swap or 0, memory.limit or 0):
            if limit > 0:
                yield UsageBelow("memory", "memory.current", limit)
    if swap is not None:
        setting = Setting("memory", "memory.swap.max", _or_max(swap))
        yield IfPresent(setting) if swap <= 0 else setting  # a kernel without swap accounting has no such file
    if memory.limit:
        yield Setting("memory", "memory.max", _or_max(memory.limit))
    if memory.reservation:
        yield Setting("memory", "memory.low", _or_max(memory.reservation))


def swap_alone(memory: Memory) -> int | None:
    """Return v2's swap limit of v1's memory+swap limit: -1 for none, None where it is not set."""
    limit, both = memory.limit or 0, memory.swap or 0
    if limit == -1 and both == 0:
        return -1
    if both <= 0:
        return both or None
    if limit <= 0:
        raise _invalid("memory.swap", "it needs memory.limit, whose share of it is not swap", "set memory.limit")
    return both - limit


def _cpu(cpu: Cpu | None, layout: Layout) -> Iterator[Step]:
    if cpu is None:
        return
    if cpu.shares or cpu.quota or cpu.period or cpu.realtime_runtime or cpu.realtime_period:
        bandwidth = True
    else:
        bandwidth = cpu.burst is not None or cpu.idle is not None
    if bandwidth:
        yield from _cpu_v1(cpu) if _version(layout, "cpu", "cpu") == 1 else _cpu_v2(cpu)
    for file, value in (("cpuset.cpus", cpu.cpus), ("cpuset.mems", cpu.mems)):
        if value:
            _version(layout, "cpuset", file.replace("cpuset", "cpu"))
            yield Setting("cpuset", file, value)


def _cpu_v1(cpu: Cpu) -> Iterator[Step]:
    if cpu.shares:
        if not SHARES_MIN <= cpu.shares <= SHARES_MAX:  # the kernel would bend it without a word
            raise _invalid("cpu.shares", f"{cpu.shares} is not in {SHARES_MIN} to {SHARES_MAX}", "choose one that is")
        yield Setting("cpu", "cpu.shares", str(cpu.shares))
    for file, number in (
        ("cpu.cfs_period_us", cpu.period or None),
        ("cpu.cfs_quota_us", cpu.quota or None),
        ("cpu.cfs_burst_us", cpu.burst),
        ("cpu.rt_period_us", cpu.realtime_period or None),
        ("cpu.rt_runtime_us", cpu.realtime_runtime or None),
        ("cpu.idle", cpu.idle),
    ):
        if number is not None:
            yield Setting("cpu", file, str(number))


def _cpu_v2(cpu: Cpu) -> Iterator[Step]:
    if cpu.realtime_period:
        raise _v1_only("cpu.realtimePeriod")
    if cpu.realtime_runtime:
        raise _v1_only("cpu.realtimeRuntime")
    if cpu.shares:
        if cpu.shares < 0:
            raise _invalid("cpu.shares", f"{cpu.shares} is negative", f"choose {SHARES_MIN} to {SHARES_MAX}")
        yield Setting("cpu", "cpu.weight", str(weight_of_shares(cpu.shares)))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if (cpu.quota or 0) > 0 else "max"
        yield Setting("cpu", "cpu.max", f"{quota} {cpu.period or CPU_PERIOD_US_DEFAULT}")
    if cpu.burst is not None:
        yield Setting("cpu", "cpu.max.burst", str(cpu.burst))
    if cpu.idle is not None:
        yield Setting("cpu", "cpu.idle", str(cpu.idle))


def _pids(limit: int, layout: Layout) -> Iterator[Step]:
    if limit:
        _version(layout, "pids", "pids.limit")
        yield Setting("pids", "pids.max", _or_max(limit))


def _block_io(block_io: BlockIo | None, layout: Layout) -> Iterator[Step]:
    if block_io is None:
        return
    weights = [("", block_io.weight)] * bool(block_io.weight)
    for device in block_io.weight_device:
        if device.leaf_weight:
            raise _no_leaf_weight("blockIO.weightDevice")
        if device.weight:
            weights.append((f"{device.major}:{device.minor} ", device.weight))
    if block_io.leaf_weight:
        raise _no_leaf_weight("blockIO.leafWeight")
    for prefix, weight in weights:
        yield _weight(prefix, weight or 0, _controller_of_block_io(layout, "blockIO.weight"))
    for field, files in _THROTTLES.items():
        devices: tuple[ThrottleDevice, ...] = getattr(block_io, field)
        for throttle in devices:
            yield _throttle(throttle, files, _controller_of_block_io(layout, f"blockIO.{field}"))


_THROTTLES = {
    "throttle_read_bps_device": ("blkio.throttle.read_bps_device", "rbps"),
    "throttle_write_bps_device": ("blkio.throttle.write_bps_device", "wbps"),
    "throttle_read_iops_device": ("blkio.throttle.read_iops_device", "riops"),
    "throttle_write_iops_device": ("blkio.throttle.write_iops_device", "wiops"),
}


def _controller_of_block_io(layout: Layout, field: str) -> str:
    """Return "blkio", v1's name of the controller, or "io", v2's."""
    if layout.version("blkio") == 1:
        return "blkio"
    _version(layout, "io", field)
    return "io"


def _weight(prefix: str, weight: int, controller: str) -> Step:
    if not BLKIO_WEIGHT_MIN <= weight <= BLKIO_WEIGHT_MAX:
        span = f"{BLKIO_WEIGHT_MIN} to {BLKIO_WEIGHT_MAX}"
        raise _invalid("blockIO.weight", f"{weight} is not in {span}", "choose one that is")
    # The BFQ scheduler brings files of its own; blkio.weight was CFQ's (gone with 5.0), io.weight is io.cost's.
    plain = f"{prefix}{weight}" if controller == "blkio" else f"{prefix}{io_weight(weight)}"
    device = "_device" if prefix and controller == "blkio" else ""
    return OneOf(
        Setting(controller, f"{controller}.bfq.weight{device}", f"{prefix}{weight}"),
        Setting(controller, f"{controller}.weight{device}", plain),
    )


def _throttle(throttle: ThrottleDevice, files: tuple[str, str], controller: str) -> Step:
    v1_file, v2_key = files
    device = f"{throttle.major}:{throttle.minor}"
    if controller == "blkio":
        return Setting(controller, v1_file, f"{device} {throttle.rate}")
    return Setting(controller, "io.max", f"{device} {v2_key}={throttle.rate or 'max'}")


def _hugepages(limits: tuple[HugepageLimit, ...], layout: Layout) -> Iterator[Step]:
    for limit in limits:
        size = limit.page_size
        if size[-2:] not in ("KB", "MB", "GB") or not size[:-2].isdecimal() or not size.isascii():
            raise _invalid("hugepageLimits.pageSize", f"{size[:40]!r} is not a size like 2MB", "correct it")
        file = "limit_in_bytes" if _version(layout, "hugetlb", "hugepageLimits") == 1 else "max"
        # Reservations (mmap) as well as faults: a limit on faults alone ends in SIGBUS (Linux 5.7).
        yield Setting("hugetlb", f"hugetlb.{size}.{file}", str(limit.limit))
        yield Setting("hugetlb", f"hugetlb.{size}.rsvd.{file}", str(limit.limit))


def _network(network: NetworkResources | None, layout: Layout) -> Iterator[Step]:
    if network is None:
        return
    if network.class_id:
        if layout.version("net_cls") != 1:
            raise _v1_only("network.classID")
        yield Setting("net_cls", "net_cls.classid", str(network.class_id))
    for priority in network.priorities:
        if layout.version("net_prio") != 1:
            raise _v1_only("network.priorities")
        yield Setting("net_prio", "net_prio.ifpriomap", f"{priority.name} {priority.priority}")


def _rdma(devices: dict[str, Rdma], layout: Layout) -> Iterator[Step]:
    for device, limit in devices.items():
        _version(layout, "rdma", "rdma")
        words = [device]
        if limit.hca_handles is not None:
            words.append(f"hca_handle={limit.hca_handles}")
        if limit.hca_objects is not None:
            words.append(f"hca_object={limit.hca_objects}")
        if len(words) > 1:
            yield Setting("rdma", "rdma.max", " ".join(words))


def _devices(rules: tuple[DeviceRule, ...], layout: Layout) -> list[Step]:
    version = _version(layout, "devices", "devices")
    try:
        policy = evaluate((*rules, *DEFAULT_DEVICES))
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}"
        raise _invalid("devices", cause, "list narrow rules instead, or begin with one that denies all") from None
    return [*policy.settings()] if version == 1 else [DeviceFilter(policy)]


def _unified(values: dict[str, str], layout: Layout) -> Iterator[Step]:
    for file, value in values.items():
        controller = file.partition(".")[0]
        if "/" in file or (controller == "cgroup" and file not in _CORE_LIMITS) or not file.isascii():
            raise _invalid(
                "unified", f"{file[:80]!r} is not a file that limits", "name a control file like memory.high"
            )
        if layout.version(controller) != 2 or controller == "devices":
            cause = f"no cgroup v2 hierarchy of this machine has the {controller[:40]} controller, so no {file[:80]}"
            raise _unsupported("unified", cause, "use the fields for this resource, or boot with cgroup v2")
        for line in value.splitlines():
            yield Setting(controller, file, line)


# -- values and errors ----------------------------------------------------------------------------------------------


def _or_max(limit: int) -> str:
    return str(limit) if limit >= 0 else "max"


def _check_limit(limit: int | None, field: str) -> None:
    if limit is not None and limit < -1:
        raise _invalid(field, f"{limit} is negative", "give a number of bytes, or -1 for no limit")


def _version(layout: Layout, controller: str, field: str) -> int:
    version = layout.version(controller)
    if not version:
        raise _unsupported(
            field,
            f"no cgroup hierarchy of this machine has the {controller} controller",
            f"leave it out, or enable the {controller} controller (kernel command line, cgroup mounts)",
        )
    return version


def _unsupported(field: str, cause: str, hint: str) -> Unsupported:
    return Unsupported("apply", f"linux.resources.{field}", cause, hint=hint)


def _v1_only(field: str) -> Unsupported:
    return _unsupported(field, "cgroup v2 has no such setting", "leave it out, or boot with cgroup v1")


def _no_leaf_weight(field: str) -> Unsupported:
    return _unsupported(field, "Linux has no leaf weights since 5.0", "leave it out")


def _invalid(field: str, cause: str, hint: str) -> Invalid:
    return Invalid("apply", f"linux.resources.{field}", cause, hint=hint)
