"""What changes in a container's spec where the engine itself lives in a user namespace: a user's, a nested one.

The kernel's rules, in one place: a sysfs or procfs may be mounted only for a network or PID namespace that is the
mounter's own; nodes of devices can't be made, only shown; OOM scores go up, never down (user_namespaces(7),
proc_pid_oom_score_adj(5)). What can't be done, and was not asked for by name, is a warning (I3). Pure.
"""

from __future__ import annotations

from ...spec.errors import Invalid, Unsupported
from ...spec.mount import VOLUME
from ...spec.runtime import IdMapping, Mount, Namespace, Spec
from . import namespaces
from .mounts import exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.container import ContainerRequest
    from ...spec.mount import MountPoint
    from ..containers.record import ContainerRecord
    from ..host import Devices, Host

_SHOWN = {"network": ("sysfs", "/sys"), "pid": ("proc", "/proc")}
_KEPT = ("nosuid", "noexec", "nodev")


def with_ids(spec: Spec, record: ContainerRecord, directory: str, host: Host) -> Spec:
    """Return the spec with the container's own user namespace, if it has one, and its own files shown with its ids.

    directory: the container's, whose files it mounts. What a user mounts keeps its owners, as with docker, but for what
    is to be mapped (-v ...:idmap). In an engine that can't map mounts all of its own has the right owners on disk
    (engine.userns.kept). Raises Unsupported for a mount that is to be mapped there.
    """
    maps_mounts = host.runtime.initial_user_namespace
    if not maps_mounts and any(point.mapped for point in record.mounts):
        cause = "an ordinary user's engine can't map the ids of a mount"
        raise Unsupported("create", record.subject, cause, hint="leave idmap away: what is yours is root's inside")
    if not record.uid_mappings:
        return spec
    own = {point.destination: point for point in record.mounts if point.type == VOLUME or point.mapped or point.owner}
    mounts = tuple(
        _with_maps(mount, own.get(mount.destination), record)
        if maps_mounts and (mount.destination in own or mount.source.startswith(f"{directory}/"))
        else mount
        for mount in spec.mounts
    )
    of_engine = namespaces.network_sysctls(record)
    linux = spec.linux.replace(
        namespaces=(*spec.linux.namespaces, Namespace(type="user")),
        sysctl={name: value for name, value in spec.linux.sysctl.items() if name not in of_engine},
        uid_mappings=record.uid_mappings,
        gid_mappings=record.gid_mappings,
    )
    return spec.replace(mounts=mounts, linux=linux)


def _with_maps(mount: Mount, point: MountPoint | None, record: ContainerRecord) -> Mount:
    """Return a mount whose files have the container's owners on disk; as=UID: and one of them is shown as another.

    A bind mount that shows its owner as somebody of the container's keeps the machine's owners but for those two.
    """
    uids, gids = record.uid_mappings, record.gid_mappings
    if point is not None and point.owner:
        if point.type == VOLUME:
            uids, gids = through(mount.uid_mappings, uids), through(mount.gid_mappings, gids)
        else:
            uid, *gid = point.shown_as
            uids = exchange(point.owner[0], _outside(uid, uids, record))
            gids = exchange(point.owner[1], _outside(gid[0], gids, record)) if gid else mount.gid_mappings
    return mount.replace(uid_mappings=uids, gid_mappings=gids)


def through(first: Sequence[IdMapping], then: Sequence[IdMapping]) -> tuple[IdMapping, ...]:
    """Return the map that leads through both: from where the first one begins to where the second one ends."""
    found = []
    for near in first:
        for far in then:
            low = max(near.host_id, far.container_id)
            size = min(near.host_id + near.size, far.container_id + far.size) - low
            if size > 0:
                begins, ends = near.container_id + low - near.host_id, far.host_id + low - far.container_id
                found.append(IdMapping(container_id=begins, host_id=ends, size=size))
    return tuple(found)


def _outside(number: int, mappings: Sequence[IdMapping], record: ContainerRecord) -> int:
    """Return whom the machine calls what the container calls `number`. Raises Invalid when it has no such id."""
    for mapping in mappings:
        if 0 <= number - mapping.container_id < mapping.size:
            return mapping.host_id + number - mapping.container_id
    cause = f"as={number}: the container's user namespace has no such id"
    raise Invalid("create", record.subject, cause, hint="choose one below its size, or: --userns auto:size=N")


def adapted(spec: Spec, request: ContainerRequest, host: Host, devices: Devices) -> tuple[Spec, tuple[str, ...]]:
    """Return the spec as an engine in a user namespace can have it, and one sentence for each thing that is less."""
    own_ids = bool(spec.linux.uid_mappings)
    if host.runtime.initial_user_namespace and not own_ids:
        return spec, ()
    own = {namespace.type for namespace in spec.linux.namespaces}
    if own_ids and request.network != "none":
        own.discard("network")  # the engine makes it, so that it is not the container's user namespace's
    mounts = tuple(_mount(mount, own) for mount in spec.mounts)
    shown = tuple(_shown(target, source) for target, source in _places(request, devices).items())
    linux = spec.linux.replace(devices=())
    process = spec.process
    warnings: tuple[str, ...] = ()
    asked = process.oom_score_adj if process is not None else None
    lowers = asked is not None and asked < host.oom_score_adj
    if lowers and process is not None and not host.runtime.initial_user_namespace:
        text = f"The OOM score adjustment is {host.oom_score_adj}: only root may lower it to {asked}."
        process, warnings = process.replace(oom_score_adj=host.oom_score_adj), (text,)
    return spec.replace(mounts=(*mounts, *shown), linux=linux, process=process), warnings


def _mount(mount: Mount, own: set[str]) -> Mount:
    for kind, (fstype, path) in _SHOWN.items():
        if mount.type == fstype and kind not in own:
            words = ("rro",) if "ro" in mount.options else ()
            return mount.replace(type="bind", source=path, options=("rbind", "rprivate", *_KEPT, *words))
    return mount


def _places(request: ContainerRequest, devices: Devices) -> dict[str, str]:
    """Return place in the container -> path of the machine, of each device that is to be there."""
    found = {device.path: device.path for device in devices.everything}
    for entry in (entry for entry in request.devices if not entry.is_named):
        for device in devices.named.get(entry.source, ()):
            found[entry.target + device.path.removeprefix(entry.source)] = device.path
    return found


def _shown(target: str, source: str) -> Mount:
    return Mount(destination=target, type="bind", source=source, options=("bind", "rprivate", "nosuid", "noexec"))
