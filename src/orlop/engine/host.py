"""What the engine must know about the machine to compile a container: gathered once, so that compiling stays pure."""

import glob
import os

from ..linux import capability
from ..linux.cgroup import Layout
from ..runtime.host import HostFacts, facts
from ..spec.record import Record

_LSM_FILE = "/sys/kernel/security/lsm"
_LSM_MODULES = ("apparmor", "selinux")


class Host(Record):
    """The machine as this engine may use it.

    capabilities: names of the bounding set, with CAP_. controllers: of cgroups, as linux.cgroup names them.
    swap_limit: whether memory plus swap can be limited. security_modules: of apparmor and selinux, those in force.
    thermal_throttle: the directories below /sys that tell how hot the processors are (GHSA-6fw5-f8r9-fgfm).
    """

    processors: int
    hostname: str
    capabilities: tuple[str, ...]
    controllers: tuple[str, ...]
    swap_limit: bool
    security_modules: tuple[str, ...] = ()
    thermal_throttle: tuple[str, ...] = ()
    runtime: HostFacts


def look() -> Host:
    """Return the facts of the running machine. Raises OSError."""
    runtime = facts()
    layout = runtime.layout
    assert isinstance(layout, Layout)
    return Host(
        processors=os.cpu_count() or 1,
        hostname=os.uname().nodename,
        capabilities=tuple(capability.names_of(runtime.cap_bounding)),
        controllers=tuple(name for name in ("cpu", "memory", "pids", "devices") if layout.version(name)),
        swap_limit=_swap_limit(layout.directory("memory"), layout.version("memory")),
        security_modules=tuple(name for name in _LSM_MODULES if _enforced(name)),
        thermal_throttle=tuple(sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle"))),
        runtime=runtime,
    )


def _swap_limit(directory: str, version: int) -> bool:
    if version == 1:
        return os.path.exists(f"{directory}/memory.memsw.limit_in_bytes")
    # The root cgroup of v2 has no limit files: any other shows whether the kernel can (CONFIG_SWAP, swapaccount=).
    return version == 2 and bool(glob.glob(f"{directory}/*/memory.swap.max") or os.path.exists("/proc/swaps"))


def _enforced(module: str) -> bool:
    # lsm lists what is active; apparmor can be active without securityfs being mounted where this engine runs.
    try:
        with open(_LSM_FILE, encoding="ascii") as file:
            return module in file.read().strip().split(",")
    except OSError:
        return os.path.isdir(f"/sys/module/{module}") or os.path.isdir(f"/sys/fs/{module}")
