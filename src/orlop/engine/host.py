"""What the engine must know about the machine to compile a container, so that compiling itself stays pure."""

import os
import stat

from ..linux import capability
from ..runtime.host import HostFacts, facts
from ..spec.container import ContainerRequest
from ..spec.record import Record
from ..spec.runtime import Device
from . import apparmor
from .cdi.form import Edits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..linux.cgroup.layout import Layout

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
    loads_profiles: whether this engine may give AppArmor profiles of its own, and apparmor_parser is there to do it.
    thermal_throttle: the directories below /sys that tell how hot the processors are (GHSA-6fw5-f8r9-fgfm).
    cpus, memory_nodes: the numbers of those that are there; none where nobody knows. oom_score_adj: the engine's own.
    """

    processors: int
    hostname: str
    capabilities: tuple[str, ...]
    controllers: tuple[str, ...]
    swap_limit: bool
    security_modules: tuple[str, ...] = ()
    loads_profiles: bool = False
    thermal_throttle: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    memory_nodes: tuple[int, ...] = ()
    oom_score_adj: int = 0
    runtime: HostFacts


class Devices(Record):
    """Devices of the machine, as they are now. everything: all of them, for a privileged container.

    named: those behind each path that a request names, and that is there; a directory has all below it, with their
    paths.
    edits: what its CDI devices need.
    """

    everything: tuple[Device, ...] = ()
    named: dict[str, tuple[Device, ...]] = {}
    edits: tuple[Edits, ...] = ()


NO_DEVICES = Devices()


def look() -> Host:
    """Return the facts of the running machine. Raises OSError."""
    runtime = facts()
    layout = runtime.layout
    modules = tuple(name for name in _LSM_MODULES if _is_active(name, runtime.lsms))
    return Host(
        processors=len(os.sched_getaffinity(0)),
        hostname=os.uname().nodename,
        capabilities=tuple(capability.names_of(runtime.cap_bounding)),
        controllers=_controllers(layout),
        swap_limit=_swap_limit(layout.directory("memory"), layout.version("memory")),
        security_modules=modules,
        loads_profiles="apparmor" in modules and runtime.initial_user_namespace and bool(apparmor.parser()),
        thermal_throttle=_below("/sys/devices/system/cpu", "thermal_throttle"),
        cpus=_numbers("/sys/devices/system/cpu/online"),
        memory_nodes=_numbers("/sys/devices/system/node/online"),
        oom_score_adj=_oom_score_adj(),
        runtime=runtime,
    )


def _controllers(layout: "Layout") -> tuple[str, ...]:
    names = tuple(name for name in ("cpu", "cpuset", "memory", "pids", "devices") if layout.version(name))
    return (*names, "blkio") if layout.version("blkio") or layout.version("io") else names


def _numbers(path: str) -> tuple[int, ...]:
    """Return the numbers in a file like "0-3,7" (cpuset(7), List format)."""
    try:
        with open(path, encoding="ascii") as file:
            parts = [part.split("-") for part in file.read().strip().split(",") if part]
    except OSError:
        return ()
    return tuple(number for part in parts for number in range(int(part[0]), int(part[-1]) + 1))


def _oom_score_adj() -> int:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


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


def devices(request: ContainerRequest, subject: str = "a container", directory: str = "/dev") -> Devices:
    """Return the devices that a request needs to know: all with --privileged, and those behind the paths it names.

    Looks now: devices come and go. Only the path itself may be a link (/dev/disk/by-id/...). subject: of errors.
    Raises NotFound for a CDI device that no file of this machine names.
    """
    rated = (*request.device_read_bps, *request.device_write_bps, *request.device_read_iops, *request.device_write_iops)
    paths = {entry.source for entry in request.devices if not entry.is_named} | {entry.path for entry in rated}
    paths |= {entry.path for entry in request.blkio_weight_devices}
    everything = sorted(_walk(directory, 0), key=lambda device: device.path) if request.privileged else []
    found: tuple[Edits, ...] = ()
    names = [entry.source for entry in request.devices if entry.is_named]
    if names:
        from .cdi import edits, specs

        found = specs.resolve(names, subject)
        paths |= edits.paths(found)
    named = {path: _behind(path) for path in sorted(paths) if os.path.exists(path)}
    return Devices(everything=tuple(everything[:_DEVICES_MAX]), named=named, edits=found)


def _behind(path: str) -> tuple[Device, ...]:
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return ()
    if stat.S_ISDIR(info.st_mode):
        return tuple(sorted(_walk(path, 1), key=lambda device: device.path)[:_DEVICES_MAX])
    return (_device(path, info),) if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else ()


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
