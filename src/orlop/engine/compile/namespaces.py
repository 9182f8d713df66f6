"""Which namespaces a container has of its own, shares with the machine, or joins; and what hangs on that. Pure.

Sharing one is what the user asked for by name: a pid namespace shows every process of the machine, ipc its shared
memory, uts lets a privileged one rename it. The user namespace is the engine's own in any case.
"""

from __future__ import annotations

from ...linux.cgroup.directory import split_path
from ...spec.container import ContainerRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import Mount, Namespace, TimeOffset
from ..userns import kept
from ..userns import modes as userns
from .mounts import SHM_SIZE_BYTES, SHM_SIZE_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..containers.record import ContainerRecord
    from ..host import Host

SHM = "/dev/shm"
CONTAINER = "container:"  # what begins a mode that joins the namespace of another container
PATH = "ns:"  # and one that names a namespace by a file
NOWHERE = (
    "/proc/0/ns/pid"  # stands for a namespace that the start looks up: there is no process 0, so nothing is joined
)
# The user namespace is the engine's own, or one that `unprivileged.with_ids` adds.
_TYPES = ("mount", "uts", "ipc", "pid", "cgroup", "time", "network")
_CLOCKS = ("monotonic", "boottime")
_SYSCTLS = {
    # namespace that may be shared: (what begins the names of the settings that are its own, docker's word for it)
    "network": ("net.", "network"),
    "ipc": ("kernel.msg kernel.sem kernel.shm fs.mqueue.", "ipc"),
    "uts": ("kernel.domainname kernel.hostname", "UTS"),
}


def namespaces(request: ContainerRequest, subject: str) -> tuple[Namespace, ...]:
    """Return the namespaces. That of another container is known at the start only. Raises Invalid, Unsupported."""
    shared = shared_with_host(request)
    if has_name_of_others(request) and (request.hostname or request.domainname):
        what = "hostname" if request.hostname else "domainname"
        raise Invalid(
            "create",
            subject,
            f"conflicting options: {what} and the UTS mode",
            hint=f"leave --{what} away",
            code="E0707",
        )
    joined = {kind: NOWHERE for kind, mode in modes_of(request).items() if mode.startswith(CONTAINER)}
    joined |= {kind: mode.removeprefix(PATH) for kind, mode in modes_of(request).items() if mode.startswith(PATH)}
    return tuple(Namespace(type=name, path=joined.get(name, "")) for name in _TYPES if name not in shared)


def modes_of(request: ContainerRequest) -> dict[str, str]:
    """Return the mode of each type of namespace but the network's and the user's, which others see to."""
    return {
        "ipc": request.ipc,
        "pid": request.pid,
        "uts": request.uts,
        "cgroup": request.cgroup_namespace,
        "time": request.time,
    }


def has_name_of_others(request: ContainerRequest) -> bool:
    """Tell whether the host name is not the container's own."""
    return request.uts == "host" or request.uts.startswith((CONTAINER, PATH))


def time_offsets(request: ContainerRequest, subject: str) -> dict[str, TimeOffset]:
    """Return how far the clocks of a time namespace of its own are shifted. Raises Invalid."""
    found: dict[str, TimeOffset] = {}
    for part in request.time.split(",")[1:]:
        clock, _, seconds = part.partition("=")
        digits = seconds.removeprefix("-")
        if clock not in _CLOCKS or clock in found or not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
            raise _invalid_time(request.time, subject)
        found[clock] = TimeOffset(secs=int(seconds))
    if found and not request.time.startswith("private,"):
        raise _invalid_time(request.time, subject)
    return found


def _invalid_time(mode: str, subject: str) -> Invalid:
    hint = "write private, host, container:NAME, ns:PATH, or private,boottime=86400,monotonic=86400"
    return Invalid("create", subject, f"invalid TIME mode: {mode[:100]}", hint=hint, code="E0225")


def shared_with_host(request: ContainerRequest) -> frozenset[str]:
    """Return the types of the namespaces that are the machine's own."""
    asked = {"network": request.network, **modes_of(request)}
    return frozenset(name for name, mode in asked.items() if mode == "host")


def check(request: ContainerRequest, subject: str) -> None:
    """Raise Invalid with docker's texts for modes that there are not."""
    modes = {
        "IPC": (request.ipc, ("none", "host", "private", "shareable")),
        "PID": (request.pid, ("host", "private")),
        "UTS": (request.uts, ("host", "private")),
        "CGROUP": (request.cgroup_namespace, ("host", "private")),
        "TIME": (request.time.partition(",")[0], ("host", "private")),
    }
    time_offsets(request, subject)
    userns.parse(request.userns, subject)
    for kind, (mode, known) in modes.items():
        is_joined = mode.startswith(f"{PATH}/") or (mode.startswith(CONTAINER) and len(mode) > len(CONTAINER))
        if (mode and mode not in known and not is_joined) or "\0" in mode:
            hint = f"known are {', '.join(known)}, container:NAME, ns:PATH"
            raise Invalid("create", subject, f"invalid {kind} mode: {mode[:100]}", hint=hint, code="E0225")
    if request.cgroup_parent:
        _check_cgroup(request.cgroup_parent, subject)
    if request.isolation not in ("", "default"):
        cause = f"Invalid isolation: \"{request.isolation[:60]}\" - linux only supports 'default'"
        raise Invalid("create", subject, cause, hint="leave --isolation away")
    if request.runtime not in ("", "orlop"):
        cause = f"unknown or invalid runtime name: {request.runtime[:100]}"
        raise Unsupported(
            "create", subject, cause, hint="Orlop's own runtime is the only one: leave --runtime away", code="E0220"
        )


def check_nesting(record: ContainerRecord, host: Host) -> None:
    """Raise Invalid where a container would run others with the machine's own root: nobody's rights may nest."""
    if host.runtime.initial_user_namespace and (not record.uid_mappings or kept.has_root(record)):
        cause = "--nesting gives a container mounts and namespaces of its own, and it would have them as root"
        raise Invalid("create", record.subject, cause, hint="write --userns auto beside it")


def _check_cgroup(path: str, subject: str) -> None:
    try:
        split_path(f"/{path.strip('/')}/container")
    except OSError as wrong:
        cause = f"invalid cgroup parent {path[:100]!r}: {wrong.strerror}"
        raise Invalid(
            "create", subject, cause, hint="write it from the root of the hierarchy: /machines", code="E0221"
        ) from None


def sysctls(request: ContainerRequest, subject: str) -> dict[str, str]:
    """Return the kernel settings. Raises Invalid for one that is not the container's own."""
    shared = shared_with_host(request)
    for name in request.sysctls:
        owner = next((kind for kind, (begins, _) in _SYSCTLS.items() if name.startswith(tuple(begins.split()))), None)
        if owner is None or "/" in name or ".." in name:
            hint = "settings of the machine itself can't be a container's"
            raise Invalid("create", subject, f"sysctl '{name[:100]}' is not allowed", hint=hint, code="E0209")
        if owner in shared:
            cause = f'sysctl "{name[:100]}" not allowed in host {_SYSCTLS[owner][1]} namespace'
            raise Invalid("create", subject, cause, hint="leave one of the two away", code="E0209")
    return dict(request.sysctls)


def network_sysctls(record: ContainerRecord) -> dict[str, str]:
    """Return the settings that the engine writes itself: those of a network namespace that it makes for a container in
    another user namespace, whose root has no rights over it (network_namespaces(7))."""
    chosen = record.request.network
    if not record.uid_mappings or chosen in ("none", "host") or chosen.startswith(CONTAINER):
        return {}
    return {name: value for name, value in record.request.sysctls.items() if name.startswith("net.")}


def ipc_mounts(mounts: Iterable[Mount], request: ContainerRequest, subject: str) -> tuple[Mount, ...]:
    """Return the mounts with that of shared memory as --ipc and --shm-size want it. Raises Invalid."""
    if request.shm_bytes < 0:
        raise Invalid("create", subject, "SHM size can not be less than 0", hint="give a size, or leave it out")
    return tuple(found for mount in mounts for found in _of_ipc(mount, request))


def _of_ipc(mount: Mount, request: ContainerRequest) -> tuple[Mount, ...]:
    # The message queues of the machine need no other mount: an mqueue file system shows the namespace of its mounter.
    if mount.destination != SHM or mount.type != "tmpfs" or mount.source != "shm":
        return (mount,)
    if request.ipc == "host":
        return (mount.replace(type="bind", source=SHM, options=("rbind", "rprivate")),)
    if request.ipc == "none":
        return ()
    default = f"size={SHM_SIZE_BYTES}"
    options = tuple(f"size={shm_bytes(request)}" if option == default else option for option in mount.options)
    return (mount.replace(options=options),)


def shm_bytes(request: ContainerRequest) -> int:
    """Return how large /dev/shm is. Whoever has a memory limit may have half of it there: it counts, so it is bounded.

    Docker's 64 MiB, which end databases and machine learning with SIGBUS, are the least.
    """
    return request.shm_bytes or max(SHM_SIZE_BYTES, min(request.memory_bytes // 2, SHM_SIZE_BYTES_MAX))
