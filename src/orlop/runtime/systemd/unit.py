"""`slice:prefix:name` -> a unit of systemd's, its cgroup, and its properties. Pure.

Limits are set as properties, too: systemd writes what it knows whenever it reloads, and would write its defaults.
Source: systemd.resource-control(5), systemd.slice(5); the form is runc's (libcontainer, cgroups/systemd).
"""

from ...spec.errors import Invalid
from ...spec.record import Record
from ...spec.runtime import Resources
from .. import resources as limits
from .wire import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Layout
    from ...spec.runtime import Cpu, Memory

SLICE_DEFAULT = "system.slice"
_NAME_BYTES_MAX = 255
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
_INFINITY = 2**64 - 1
_USEC_PER_SEC = 1_000_000
_QUOTA_STEP_USEC = 10_000  # systemd keeps a quota in steps of 1 % of a second

Property = tuple[str, Variant]


class Unit(Record):
    """A scope, or a slice when its name ends so. path: its cgroup; slice: where it belongs."""

    name: str
    slice: str
    path: str

    @property
    def is_scope(self) -> bool:
        return self.name.endswith(".scope")


def unit_of(cgroups_path: str) -> Unit:
    """Return the unit of a path as slice:prefix:name. Raises Invalid for what systemd would not take."""
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        raise _invalid(f'expected cgroupsPath to be of format "slice:prefix:name", got {cgroups_path[:80]!r}')
    slice_, prefix, name = parts
    slice_ = slice_ or SLICE_DEFAULT
    if not name.endswith(".slice"):
        name = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    for text in (slice_, name):
        if not _NAME_CHARACTERS.issuperset(text) or len(text) > _NAME_BYTES_MAX or text.startswith("."):
            raise _invalid(f"{text[:80]!r} is no name of a unit")
    below = expand(name) if name.endswith(".slice") else f"{expand(slice_)}/{name}"
    return Unit(name=name, slice=slice_, path=below)


def expand(name: str) -> str:
    """Return the cgroup of a slice: "a-b.slice" -> "/a.slice/a-b.slice", "-.slice" -> "". Raises Invalid."""
    stem = name.removesuffix(".slice")
    if stem == name or not stem or "/" in name:
        raise _invalid(f"{name[:80]!r} is no name of a slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if "" in parts:
        raise _invalid(f"slice {name[:80]!r} has an empty part")
    return "".join(f"/{'-'.join(parts[:count])}.slice" for count in range(1, len(parts) + 1))


def properties(unit: Unit, pid: int, container: str) -> list[Property]:
    """Return what StartTransientUnit gets besides the limits. pid: the first process, which a scope must have."""
    own: list[Property] = [
        ("Description", Variant("s", f"orlop container {container}")),
        ("DefaultDependencies", Variant("b", False)),
        *((f"{kind}Accounting", Variant("b", True)) for kind in ("CPU", "Memory", "Tasks", "IO")),
    ]
    if not unit.is_scope:
        return [("Wants", Variant("as", [unit.slice])), *own]
    # Delegate: systemd keeps its hands off what is below, and gives the scope every controller.
    return [
        ("Slice", Variant("s", unit.slice)), ("Delegate", Variant("b", True)), ("PIDs", Variant("au", [pid])), *own,
    ]  # fmt: skip


def limits_of(wanted: Resources, layout: "Layout") -> list[Property]:
    """Return the limits that systemd knows as properties; the others stay in the files that we write."""
    found: list[Property] = []
    if wanted.memory:
        found += _memory(wanted.memory, layout.version("memory"))
    if wanted.cpu:
        found += _cpu(wanted.cpu, layout.version("cpu"))
    if wanted.pids and wanted.pids.limit:
        found.append(("TasksMax", Variant("t", wanted.pids.limit if wanted.pids.limit > 0 else _INFINITY)))
    if wanted.block_io and wanted.block_io.weight:
        if layout.version("blkio") == 1:
            found.append(("BlockIOWeight", Variant("t", wanted.block_io.weight)))
        else:
            found.append(("IOWeight", Variant("t", limits.io_weight(wanted.block_io.weight))))
    return found


def device_rules(wanted: Resources) -> list[Property]:
    """Return DevicePolicy and DeviceAllow.

    Rules with a number for major and minor become nodes by number, those for every minor of a major can't be said by
    number; where one is there, and where anything is allowed by default, systemd is told to let all pass and the
    filter is ours alone (a second filter on the same cgroup can only take away).
    """
    rules = (*wanted.devices, *limits.DEFAULT_DEVICES)
    allowed: dict[str, str] = {}
    for rule in rules:
        if not rule.allow:
            if rule.type in ("a", "") and rule.major is None:
                allowed.clear()
                continue
            return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
        if rule.access == "m" and rule.major is None:
            for pattern in ("char-*", "block-*"):
                allowed[pattern] = "m"
            continue
        if rule.type not in ("c", "b") or rule.major is None or (rule.minor is None and rule.major != _PTS_MAJOR):
            return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
        kind = "char" if rule.type == "c" else "block"
        node = "char-pts" if rule.minor is None else f"/dev/{kind}/{rule.major}:{rule.minor}"
        allowed[node] = rule.access
    return [("DevicePolicy", Variant("s", "strict")), ("DeviceAllow", Variant("a(ss)", list(allowed.items())))]


_PTS_MAJOR = 136


def _memory(memory: "Memory", version: int) -> list[Property]:
    if version == 1:
        return [("MemoryLimit", Variant("t", _bytes(memory.limit)))] if memory.limit else []
    found = [("MemoryMax", Variant("t", _bytes(memory.limit)))] if memory.limit else []
    if memory.reservation:
        found.append(("MemoryLow", Variant("t", _bytes(memory.reservation))))
    swap = limits.swap_alone(memory)
    if swap is not None:
        found.append(("MemorySwapMax", Variant("t", _bytes(swap))))
    return found


def _cpu(cpu: "Cpu", version: int) -> list[Property]:
    found: list[Property] = []
    if cpu.shares and version == 1:
        found.append(("CPUShares", Variant("t", cpu.shares)))
    elif cpu.shares:
        found.append(("CPUWeight", Variant("t", limits.weight_of_shares(cpu.shares))))
    if cpu.quota or cpu.period:
        found.append(("CPUQuotaPerSecUSec", Variant("t", quota_per_second(cpu.quota or 0, cpu.period or 0))))
        if cpu.period:
            found.append(("CPUQuotaPeriodUSec", Variant("t", cpu.period)))
    return found


def quota_per_second(quota_us: int, period_us: int) -> int:
    """Return systemd's form of a quota in each period: microseconds in each second, in whole steps, never less."""
    if quota_us <= 0:
        return _INFINITY
    exact = quota_us * _USEC_PER_SEC // (period_us or limits.CPU_PERIOD_US_DEFAULT)
    return -(-exact // _QUOTA_STEP_USEC) * _QUOTA_STEP_USEC


def _bytes(limit: int | None) -> int:
    return _INFINITY if limit is None or limit < 0 else limit


def _invalid(cause: str) -> Invalid:
    return Invalid(
        "make", "linux.cgroupsPath", cause, hint="write slice:prefix:name, for instance system.slice:orlop:web"
    )
