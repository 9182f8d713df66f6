"""What the engine must know about the machine to compile a container, so that compiling itself stays pure."""

import os
import stat

from ..linux import capability
from ..runtime.host import HostFacts, facts
from ..spec.record import Record
from ..spec.runtime import Device

_LSM_MODULES = ("apparmor", "selinux")

# The container has its own of these, or they are not devices of the machine.
_OWN_DEVICES = frozenset(
    "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
)
_DEVICE_DEPTH_MAX = 8
_DEVICES_MAX = 4096


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
    return Host(
        processors=len(os.sched_getaffinity(0)),
        hostname=os.uname().nodename,
        capabilities=tuple(capability.names_of(runtime.cap_bounding)),
        controllers=tuple(name for name in ("cpu", "memory", "pids", "devices") if layout.version(name)),
        swap_limit=_swap_limit(layout.directory("memory"), layout.version("memory")),
        security_modules=tuple(name for name in _LSM_MODULES if _is_active(name, runtime.lsms)),
        thermal_throttle=_below("/sys/devices/system/cpu", "thermal_throttle"),
        runtime=runtime,
    )


def _swap_limit(directory: str, version: int) -> bool:
    if version == 1:
        return os.path.exists(f"{directory}/memory.memsw.limit_in_bytes")
    # The root cgroup of v2 has no limit files: any other shows whether the kernel can (CONFIG_SWAP, swapaccount=).
    return version == 2 and bool(_below(directory, "memory.swap.max") or os.path.exists("/proc/swaps"))


def _below(directory: str, name: str) -> tuple[str, ...]:
    """Return the paths directory/*/name that exist."""
    try:
        paths = [f"{directory}/{entry}/{name}" for entry in sorted(os.listdir(directory))]
    except OSError:
        return ()
    return tuple(path for path in paths if os.path.exists(path))


def _is_active(module: str, lsms: tuple[str, ...]) -> bool:
    # Without securityfs the kernel's own list can't be read; the module's directory is then what tells.
    return module in lsms if any(lsms) else os.path.isdir(f"/sys/module/{module}")


def devices(directory: str = "/dev") -> tuple[Device, ...]:
    """Return every device node of the machine, with its owner and mode, for a privileged container.

    Looks now: devices come and go. Links are not followed.
    """
    return tuple(sorted(_walk(directory, 0), key=lambda device: device.path)[:_DEVICES_MAX])


def _walk(directory: str, depth: int) -> list[Device]:
    found: list[Device] = []
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return found
    for entry in entries:
        if depth == 0 and entry.name in _OWN_DEVICES:
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # gone since
        if stat.S_ISDIR(info.st_mode) and depth < _DEVICE_DEPTH_MAX:
            found += _walk(entry.path, depth + 1)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            found.append(_device(entry.path, info))
    return found


def _device(path: str, info: os.stat_result) -> Device:
    return Device(
        type="c" if stat.S_ISCHR(info.st_mode) else "b",
        path=path,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        file_mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
    )
