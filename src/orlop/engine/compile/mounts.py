"""The mounts of a container: the default file systems, its own files below /etc, what the user mounts. Pure.

Parents stand before what is mounted below them. A user's mount replaces the default one at the same place.
"""

from __future__ import annotations

from ...spec.errors import Invalid
from ...spec.mount import BIND, IMAGE
from ...spec.runtime import IdMapping, Mount
from ...spec.task import GRANTED
from ..volumes import mountpoints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...spec.container import ContainerRequest, TmpfsRequest
    from ...spec.mount import MountPoint

SHM_SIZE_BYTES = 64 * 1024 * 1024
SHM_SIZE_BYTES_MAX = 1024**3  # of a container that names no size

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
SUBDIRECTORY_OPTION = "X-mount.subdir="  # mount(8)'s name for it
FILES = {"/etc/hostname": "hostname", "/etc/hosts": "hosts", "/etc/resolv.conf": "resolv.conf"}

_GRANTED_OPTIONS = ("bind", "rprivate", "ro", "nosuid", "nodev", "noexec")

_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
UID_MAX = 2**32 - 1


def mounts(
    request: ContainerRequest,
    points: Iterable[MountPoint],
    directory: str,
    subject: str,
    trees: Mapping[str, Mount] | None = None,
) -> tuple[Mount, ...]:
    """Return every mount. directory: the container's own, which holds FILES. trees: of images, by snapshot key.

    Raises Invalid with docker's texts.
    """
    asked = [of_point(point, trees or {}) for point in points] + [_tmpfs(entry, subject) for entry in request.tmpfs]
    mountpoints.refuse_duplicates((mount.destination for mount in asked), subject)
    taken = {mount.destination for mount in asked}
    files = [
        Mount(destination=path, type="bind", source=f"{directory}/{name}", options=_file_options(request))
        for path, name in FILES.items()
        if path not in taken
    ]
    granted = _granted(request, directory, subject)
    mountpoints.refuse_duplicates((mount.destination for mount in (*asked, *granted)), subject)
    return (*_defaults(taken, request.privileged), *sorted([*files, *asked, *granted], key=_depth))


def _granted(request: ContainerRequest, directory: str, subject: str) -> list[Mount]:
    """Return the mounts of secrets and configs; engine.secrets writes their files in this order."""
    wanted = (*request.secrets, *request.configs)
    bases = ["/run/secrets/"] * len(request.secrets) + ["/"] * len(request.configs)
    found = []
    for number, (base, grant) in enumerate(zip(bases, wanted, strict=True)):
        if grant.env:
            continue
        target = grant.target or grant.source
        destination = target if target.startswith("/") else base + target
        if ".." in destination.split("/") or destination.endswith("/") or "\0" in destination:
            raise Invalid("create", subject, f"{target[:200]!r} is no place for a secret", hint="name a file")
        source = f"{directory}/{GRANTED}/{number}"
        found.append(Mount(destination=destination, type="bind", source=source, options=_GRANTED_OPTIONS))
    return found


def rootfs_propagation(points: Iterable[MountPoint]) -> str:
    """Return what the container's root must be for the asked propagations to work, as docker decides it."""
    asked = {point.propagation for point in points}
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


def _defaults(taken: set[str], privileged: bool) -> Iterable[Mount]:
    for mount in DEFAULTS:
        if mount.destination in taken or ("/dev" in taken and mount.destination.startswith("/dev/")):
            continue
        if privileged and mount.type in ("sysfs", "cgroup"):
            mount = mount.replace(options=tuple(option for option in mount.options if option != "ro"))
        yield mount


def _file_options(request: ContainerRequest) -> tuple[str, ...]:
    return ("bind", "rprivate", "ro") if request.read_only else ("bind", "rprivate")


def of_point(point: MountPoint, trees: Mapping[str, Mount]) -> Mount:
    """Return the mount of one mount point. trees: of images, by snapshot key."""
    if point.type == IMAGE:
        tree = trees.get(point.snapshot) or Mount(type="overlay", source="overlay")
        options = (*tree.options, "ro", *_subpath(point))
        return tree.replace(destination=point.destination, options=options)
    uids, gids = _exchanged(point)
    if point.device_type not in ("", BIND):
        options = (*point.options, *_subpath(point), *(("ro",) if point.read_only else ()))
        made = Mount(destination=point.destination, type=point.device_type, source=point.device, options=options)
        return made.replace(uid_mappings=uids, gid_mappings=gids)
    return Mount(
        destination=point.destination,
        type="bind",
        source=point.device or point.source,
        options=_bind_options(point),
        uid_mappings=uids,
        gid_mappings=gids,
    )


def _bind_options(point: MountPoint) -> tuple[str, ...]:
    options = ["rbind" if point.recursive else "bind", point.propagation or mountpoints.PROPAGATION_DEFAULT]
    options += [word for word in point.options if word not in ("bind", "rbind")]
    if point.read_only:
        # What is mounted below the source is read-only too: mount_setattr, kernel 5.12.
        options.append("rro" if point.read_only_recursive else "ro")
    return (*options, *_subpath(point))


def _subpath(point: MountPoint) -> tuple[str, ...]:
    return (f"{SUBDIRECTORY_OPTION}{point.subpath}",) if point.subpath else ()


def _exchanged(point: MountPoint) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """Return the maps of users and groups of a mount that shows its owner as somebody else."""
    if not point.shown_as or not point.owner:
        return (), ()
    uids = exchange(point.owner[0], point.shown_as[0])
    gids = exchange(point.owner[1], point.shown_as[1]) if len(point.shown_as) > 1 else exchange(0, 0)
    return uids, gids


def exchange(first: int, second: int) -> tuple[IdMapping, ...]:
    """Return the map of all ids in which these two have changed places: everybody else stays who they are."""
    low, high = sorted((first, second))
    mappings = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    mappings.append((high + 1, high + 1, UID_MAX - high - 1))
    if low == high:
        mappings = [(0, 0, UID_MAX)]
    return tuple(IdMapping(container_id=a, host_id=b, size=size) for a, b, size in mappings if size > 0)


def _tmpfs(entry: TmpfsRequest, subject: str) -> Mount:
    target = mountpoints.tmpfs_destination(entry.target, subject, entry.options)
    if unknown := mountpoints.unknown_tmpfs_options(entry.options):
        cause = f'invalid tmpfs option "{unknown[0][:60]}"'
        raise Invalid("create", subject, cause, hint=mountpoints.TMPFS_HINT, code="E0405")
    given = {option.removeprefix("no") for option in entry.options}
    defaults = [option for option in _TMPFS_DEFAULTS if option.removeprefix("no") not in given]
    return Mount(destination=target, type="tmpfs", source="tmpfs", options=(*defaults, *entry.options))


def _depth(mount: Mount) -> int:
    return mount.destination.count("/")
