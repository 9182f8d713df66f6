"""Mounts in docker's JSON (API 1.50): what `inspect` and the list of containers show. Pure."""

from __future__ import annotations

from ...spec.mount import BIND, TMPFS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...spec.container import BindRequest, ContainerRequest
    from ...spec.mount import MountPoint, MountRequest


def mount_points(points: Iterable[MountPoint]) -> list[dict[str, object]]:
    """Return the MountPoint objects."""
    return [_mount_point(point) for point in points]


def host_config(request: ContainerRequest) -> dict[str, object]:
    """Return the fields of HostConfig that are about mounts."""
    fields: dict[str, object] = {
        "Binds": [_bind(bind) for bind in request.binds if bind.source] or None,
        "VolumeDriver": request.volume_driver,
        "VolumesFrom": list(request.volumes_from) or None,
    }
    # Not there when they are empty: the API marks them so.
    if request.mounts:
        fields["Mounts"] = [_mount(mount) for mount in request.mounts]
    if request.tmpfs:
        fields["Tmpfs"] = {tmpfs.target: ",".join(tmpfs.options) for tmpfs in request.tmpfs}
    if request.storage_opt:
        fields["StorageOpt"] = dict(request.storage_opt)
    return fields


def _mount_point(point: MountPoint) -> dict[str, object]:
    named: dict[str, object] = {"Name": point.name} if point.name else {}
    driver: dict[str, object] = {"Driver": point.driver} if point.driver else {}
    return {
        "Type": point.type,
        **named,
        "Source": "" if point.type == TMPFS else point.source,
        "Destination": point.destination,
        **driver,
        "Mode": point.mode,
        "RW": not point.read_only,
        "Propagation": point.propagation if point.type == BIND else "",
    }


def _bind(bind: BindRequest) -> str:
    parts = (bind.source, bind.target, ",".join(bind.options))
    return ":".join(part for part in parts if part)


def _mount(mount: MountRequest) -> dict[str, object]:
    fields: dict[str, object] = {
        "Type": mount.type,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "Consistency": mount.consistency,
    }
    shown = {name: value for name, value in fields.items() if value}
    if mount.bind is not None:
        bind = mount.bind
        shown["BindOptions"] = _set(
            Propagation=bind.propagation,
            NonRecursive=bind.non_recursive,
            CreateMountpoint=bind.create_mountpoint,
            ReadOnlyNonRecursive=bind.read_only_non_recursive,
            ReadOnlyForceRecursive=bind.read_only_force_recursive,
        )
    if mount.volume is not None:
        volume = mount.volume
        options = _set(NoCopy=volume.no_copy, Labels=dict(volume.labels), Subpath=volume.subpath)
        driver = _set(Name=volume.driver, Options=dict(volume.driver_options))
        shown["VolumeOptions"] = {**options, "DriverConfig": driver}
    if mount.tmpfs is not None:
        shown["TmpfsOptions"] = _set(SizeBytes=mount.tmpfs.size_bytes, Mode=mount.tmpfs.mode)
    if mount.image is not None:
        shown["ImageOptions"] = _set(Subpath=mount.image.subpath)
    return shown


def _set(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value}
