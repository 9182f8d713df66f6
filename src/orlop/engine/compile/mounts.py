"""The mounts of a container: the default file systems, its own files below /etc, what the user mounts. Pure.

Parents stand before what is mounted below them. A user's mount replaces the default one at the same place.
"""

from __future__ import annotations

import posixpath

from ...spec.container import BindRequest, ContainerRequest, TmpfsRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SHM_SIZE_BYTES = 64 * 1024 * 1024

# What docker mounts. No "rw" for /sys and /sys/fs/cgroup: release_agent was CVE-2022-0492.
DEFAULTS = (
    Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
    Mount(
        destination="/dev",
        type="tmpfs",
        source="tmpfs",
        options=("nosuid", "strictatime", "mode=755", "size=65536k"),
    ),
    Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount(destination="/sys", type="sysfs", source="sysfs", options=("nosuid", "noexec", "nodev", "ro")),
    Mount(
        destination="/sys/fs/cgroup",
        type="cgroup",
        source="cgroup",
        options=("nosuid", "noexec", "nodev", "relatime", "ro"),
    ),
    Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid", "noexec", "nodev")),
    Mount(
        destination="/dev/shm",
        type="tmpfs",
        source="shm",
        options=("nosuid", "noexec", "nodev", "mode=1777", f"size={SHM_SIZE_BYTES}"),
    ),
)
FILES = {"/etc/hostname": "hostname", "/etc/hosts": "hosts", "/etc/resolv.conf": "resolv.conf"}

PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_CONSISTENCIES = frozenset(("consistent", "cached", "delegated"))  # of docker on other systems: without meaning here
_KINDS = {
    **dict.fromkeys(("ro", "rw"), "access"),
    **dict.fromkeys(PROPAGATIONS, "propagation"),
    **dict.fromkeys(_CONSISTENCIES, "consistency"),
    **dict.fromkeys(("z", "Z"), "label"),
    "nocopy": "copy",
}
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_TMPFS_FLAGS = frozenset(
    "ro rw exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime norelatime strictatime "
    "nostrictatime sync async".split()
)
_TMPFS_VALUES = frozenset("size mode uid gid nr_inodes nr_blocks mpol huge".split())

# Below /proc nothing may be mounted: whoever writes there would write to a fake (CVE-2019-19921). These are files that
# lxcfs replaces by ones that know the limits; runc makes the same exceptions.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo sys/kernel/ns_last_pid".split()
)


def mounts(request: ContainerRequest, directory: str, subject: str) -> tuple[Mount, ...]:
    """Return every mount. directory: the container's own, which holds FILES. Raises Invalid with docker's texts."""
    asked = [_bind(entry, subject) for entry in request.binds] + [_tmpfs(entry, subject) for entry in request.tmpfs]
    _refuse_duplicates(asked, subject)
    taken = {mount.destination for mount in asked}
    files = [
        Mount(destination=path, type="bind", source=f"{directory}/{name}", options=_file_options(request))
        for path, name in FILES.items()
        if path not in taken
    ]
    return (*_defaults(taken, request.privileged), *sorted([*files, *asked], key=_depth))


def rootfs_propagation(request: ContainerRequest) -> str:
    """Return what the container's root must be for the asked propagations to work, as docker decides it."""
    asked = {option for entry in request.binds for option in entry.options}
    if asked & {"shared", "rshared"}:
        return "shared"
    return "rslave" if asked & {"slave", "rslave"} else ""


def warnings(request: ContainerRequest) -> tuple[str, ...]:
    """Return what was asked for and does nothing on this machine, one sentence each."""
    labelled = [entry for entry in request.binds if {"z", "Z"} & set(entry.options)]
    return tuple(
        f"{entry.source}:{entry.target}: relabelling was not done: SELinux is not active on this machine."
        for entry in labelled
    )


def destination(path: str, specification: str, subject: str) -> str:
    """Return a mount's destination, clean. Raises Invalid for one that is relative, is "/", or lies below /proc."""
    if not path.startswith("/"):
        cause = f"invalid mount config: invalid mount path: '{path[:200]}' mount path must be absolute"
        raise _invalid(subject, specification, cause, "write the target from the container's root")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise _invalid(subject, specification, "destination can't be '/'", "mount it at a directory below")
    if clean.startswith("/proc/") and clean not in _PROC_FILES:
        cause = f'"{clean}" cannot be mounted because it is inside /proc'
        raise _invalid(subject, specification, cause, "choose a target outside /proc")
    return clean


def _defaults(taken: set[str], privileged: bool) -> Iterable[Mount]:
    for mount in DEFAULTS:
        if mount.destination in taken or ("/dev" in taken and mount.destination.startswith("/dev/")):
            continue
        if privileged and mount.type in ("sysfs", "cgroup"):
            mount = mount.replace(options=tuple(option for option in mount.options if option != "ro"))
        yield mount


def _file_options(request: ContainerRequest) -> tuple[str, ...]:
    return ("bind", "rprivate", "ro") if request.read_only else ("bind", "rprivate")


def _bind(entry: BindRequest, subject: str) -> Mount:
    specification = ":".join((entry.source, entry.target, *([",".join(entry.options)] if entry.options else [])))
    target = destination(entry.target, specification, subject)
    if not entry.source.startswith("/"):
        cause = f"{entry.source[:100]!r} is no absolute path, and this version has no named volumes yet"
        hint = "give the directory's absolute path"
        raise Unsupported(
            "create", subject, f"invalid volume specification: '{specification[:300]}': {cause}", hint=hint
        )
    if target == "/proc" and entry.source != "/proc":
        cause = '"/proc" cannot be mounted because it is not of type proc'
        raise _invalid(subject, specification, cause, "choose a target outside /proc")
    modes = _modes(entry.options, specification, subject)
    options = ["rbind", modes.get("propagation", "rprivate")]
    if modes.get("access") == "ro":
        options.append("rro")  # what is mounted below the source is read-only too: mount_setattr, kernel 5.12
    return Mount(destination=target, type="bind", source=posixpath.normpath(entry.source), options=tuple(options))


def _modes(options: tuple[str, ...], specification: str, subject: str) -> dict[str, str]:
    modes: dict[str, str] = {}
    for option in options:
        kind = _KINDS.get(option)
        if kind is None or kind in modes:
            hint = "known are ro or rw, one propagation (rprivate, rslave, rshared ...), z or Z"
            raise _invalid(subject, specification, f"invalid mode: {','.join(options)[:100]}", hint)
        modes[kind] = option
    return modes


def _tmpfs(entry: TmpfsRequest, subject: str) -> Mount:
    specification = ":".join((entry.target, *([",".join(entry.options)] if entry.options else [])))
    target = destination(entry.target, specification, subject)
    if target == "/proc":
        raise _invalid(subject, specification, '"/proc" cannot be a tmpfs', "choose a target outside /proc")
    for option in entry.options:
        name, equals, value = option.partition("=")
        if option not in _TMPFS_FLAGS and not (equals and value and name in _TMPFS_VALUES):
            hint = "known are size=, mode=, uid=, gid=, nr_inodes= and flags such as exec, ro, noatime"
            raise _invalid(subject, specification, f"invalid tmpfs option: {option[:60]!r}", hint)
    given = {option.removeprefix("no") for option in entry.options}
    defaults = [option for option in _TMPFS_DEFAULTS if option.removeprefix("no") not in given]
    return Mount(destination=target, type="tmpfs", source="tmpfs", options=(*defaults, *entry.options))


def _refuse_duplicates(asked: list[Mount], subject: str) -> None:
    seen = set()
    for mount in asked:
        if mount.destination in seen:
            hint = "mount one of them elsewhere"
            raise Invalid("create", subject, f"Duplicate mount point: {mount.destination}", hint=hint)
        seen.add(mount.destination)


def _depth(mount: Mount) -> int:
    return mount.destination.count("/")


def _invalid(subject: str, specification: str, cause: str, hint: str) -> Invalid:
    return Invalid("create", subject, f"invalid volume specification: '{specification[:300]}': {cause}", hint=hint)
