"""`mounts`, `root`, `linux.devices`, masks: what the container's file system is made of."""

import os.path

from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import Device, IdMapping, Mount, Spec
from ..host import HostFacts
from ..operations import Operation
from ..operations.cgroup_view import CgroupView, DelegateCgroup
from ..operations.devices import DEFAULT_DEVICES, KINDS, BoundDevices, DeviceLinks, DeviceNodes
from ..operations.idmap import IdMap
from ..operations.masks import MaskedPaths, ReadonlyPaths
from ..operations.mount_options import PROPAGATION_NAMES, MountOptions, parse
from ..operations.mounts import PROC_FILES_ALLOWED, BindMount, NewFilesystem, Remount
from ..operations.root import AttachRoot, DetachFromHost, FinishRoot, PivotRoot, WorkingDirectory
from .namespaces import Namespaces, cgroup_path, check_mappings
from .process import need_lsm

_MINOR_MAX = 2**20 - 1
_MAJOR_MAX = 2**12 - 1


def file_system(spec: Spec, host: HostFacts, own_ids: bool, warnings: list[str]) -> tuple[Operation, ...]:
    """Return the operations that attach the root and mount everything on it, devices included.

    own_ids: the container gets a user namespace of its own.
    """
    operations: list[Operation] = [DetachFromHost(), AttachRoot()]
    own_dev = True
    if spec.linux.mount_label:
        need_lsm("selinux", "linux.mountLabel", host)
    for index, mount in enumerate(spec.mounts):
        field = f"mounts[{index}]"
        operation = _mount(mount, field, spec, host, own_ids, warnings)
        if operation is None:
            continue
        operations.append(operation)
        # A /dev that is shown from elsewhere is complete, and making nodes in it would make them there.
        if isinstance(operation, BindMount) and operation.destination == "/dev":
            own_dev = False
    if own_dev:
        operations += _devices(spec.linux.devices, own_ids or not host.initial_user_namespace)
    return tuple(operations)


def delegation(spec: Spec, own: Namespaces, host: HostFacts) -> tuple[Operation, ...]:
    """Return the operation that makes the container's user the owner of its cgroup.

    As config-linux.md has it ("Cgroup ownership"): on v2, with a cgroup namespace of its own, and where a writable
    cgroup file system is mounted for it.
    """
    path = cgroup_path(spec.linux)
    shown = (mount for mount in spec.mounts if mount.type in ("cgroup", "cgroup2"))
    writable = any(
        os.path.normpath(mount.destination) == "/sys/fs/cgroup" and "ro" not in mount.options for mount in shown
    )
    if not (path and writable and host.layout.mode == "unified" and "cgroup" in own.made and spec.process):
        return ()
    uid = spec.process.user.uid
    if own.own_ids:
        found = (each for each in spec.linux.uid_mappings if 0 <= uid - each.container_id < each.size)
        mapping = next(found, None)
        if mapping is None:
            return ()  # a user namespace that is joined has maps that only the kernel knows
        uid += mapping.host_id - mapping.container_id
    return (DelegateCgroup(layout=host.layout, path=path, uid=uid),) if uid else ()


def masks(spec: Spec) -> tuple[Operation, ...]:
    """Return the operations that hide and protect paths."""
    linux = spec.linux
    for field, paths in (("linux.maskedPaths", linux.masked_paths), ("linux.readonlyPaths", linux.readonly_paths)):
        for path in paths:
            if not path.startswith("/"):
                raise Invalid("read", field, f"{path!r} is not an absolute path")
    operations: list[Operation] = []
    if linux.readonly_paths:
        operations.append(ReadonlyPaths(paths=tuple(map(os.path.normpath, linux.readonly_paths))))
    if linux.masked_paths:
        operations.append(MaskedPaths(paths=tuple(map(os.path.normpath, linux.masked_paths))))
    return tuple(operations)


def enter_root(spec: Spec) -> tuple[Operation, ...]:
    """Return the operations that make the new root the only one; a working directory is made before."""
    propagation = spec.linux.rootfs_propagation
    if propagation and propagation not in PROPAGATION_NAMES:
        raise Invalid("read", "linux.rootfsPropagation", f"{propagation!r} is none of {', '.join(PROPAGATION_NAMES)}")
    operations: list[Operation] = [WorkingDirectory(path=spec.process.cwd)] if spec.process else []
    operations.append(PivotRoot())
    readonly = bool(spec.root and spec.root.readonly)
    # The root is private by itself, and a slave of nothing: only the other two have to be made.
    own = propagation if propagation.removeprefix("r") in ("shared", "unbindable") else ""
    if readonly or own:
        operations.append(FinishRoot(readonly=readonly, propagation=own))
    return tuple(operations)


def _mount(
    mount: Mount, field: str, spec: Spec, host: HostFacts, own_ids: bool, warnings: list[str]
) -> Operation | None:
    destination = _destination(mount.destination, field)
    if destination.startswith("/proc/") and destination not in PROC_FILES_ALLOWED:
        raise Invalid("mount", field, f"{destination} lies inside /proc, where nothing may be mounted", code="E0404")
    options = parse(mount.options, f"{field}.options")
    idmap = _idmap(mount, options, field, spec)
    if options.remount:
        return Remount(destination=destination, options=options)
    if options.bind or mount.type in ("bind", "rbind"):
        return _bind(mount, destination, options, field, idmap)
    if options.loop and mount.type == "ext4":
        options = options.replace(bind="bind")
        return BindMount(destination=destination, source=mount.source, options=options, idmap=idmap, disk=True)
    if idmap:
        raise Unsupported("mount", f"{field}.uidMappings", "only bind mounts can be mapped", code="E0411")
    if not mount.type:
        raise Invalid("mount", f"{field}.type", "it is empty and the options have no bind")
    if options.tmpcopyup:
        if mount.type != "tmpfs":
            raise Invalid("mount", f"{field}.options", f"tmpcopyup is for tmpfs, not for {mount.type}")
        from .. import copyup  # noqa: F401 - for init, which imports nothing among mounts that aren't its own
    if destination == "/proc" and mount.type != "proc":
        raise Invalid("mount", field, f"only a procfs may be mounted at /proc, not {mount.type}", code="E0404")
    if mount.type in ("cgroup", "cgroup2"):
        if host.layout.mode == "none":
            warnings.append(f"{destination} stays empty: this host has no cgroup hierarchy")
            return None
        layout = host.layout
        if mount.type == "cgroup2" and layout.v2:  # by that name v2 alone is meant, on a hybrid machine too
            layout = layout.v2_alone()
        return CgroupView(
            destination=destination, layout=layout, path=cgroup_path(spec.linux), readonly=options.read_only
        )
    if mount.type == "devpts":
        groups = spec.linux.gid_mappings if own_ids else host.gids
        options = _with_mapped_gid(options, groups, own_ids or bool(groups), warnings)
    source = "" if mount.source in ("none", mount.type) else mount.source
    # As with runc: a procfs and a sysfs keep the kernel's own labels.
    label = "" if mount.type in ("proc", "sysfs") else spec.linux.mount_label
    return NewFilesystem(destination=destination, fstype=mount.type, source=source, options=options, label=label)


def _idmap(mount: Mount, options: MountOptions, field: str, spec: Spec) -> IdMap | None:
    """Return the maps of a mount: its own, or with the option alone the container's. None without any."""
    if not (mount.uid_mappings or mount.gid_mappings or options.idmap):
        return None
    uids, gids = mount.uid_mappings, mount.gid_mappings
    if not uids and not gids:
        uids, gids = spec.linux.uid_mappings, spec.linux.gid_mappings
    for name, mappings in (("uidMappings", uids), ("gidMappings", gids)):
        check_mappings(mappings, f"{field}.{name}")
    return IdMap(uids=uids, gids=gids, recursive=options.idmap == "ridmap")


def _bind(mount: Mount, destination: str, options: MountOptions, field: str, idmap: IdMap | None) -> Operation:
    if not mount.source:
        raise Invalid("mount", f"{field}.source", "a bind mount needs a source")
    if options.data:
        names = ", ".join(name for name, _ in options.data)
        raise Invalid("mount", f"{field}.options", f"{names}: it means nothing for a bind mount")
    if options.tmpcopyup:
        raise Invalid("mount", f"{field}.options", "tmpcopyup is for tmpfs, not for a bind mount")
    if not options.bind:
        options = options.replace(bind=mount.type)
    return BindMount(destination=destination, source=mount.source, options=options, idmap=idmap)


def _destination(text: str, field: str) -> str:
    """Return a clean absolute path. A relative one starts at the root (config.md, since 1.2)."""
    if not text:
        raise Invalid("mount", f"{field}.destination", "it is empty")
    destination = os.path.normpath("/" + text.lstrip("/"))
    if destination == "/":
        raise Invalid("mount", f"{field}.destination", "nothing can be mounted over the root itself", code="E0404")
    return destination


def _with_mapped_gid(
    options: MountOptions, gids: tuple[IdMapping, ...], own_ids: bool, warnings: list[str]
) -> MountOptions:
    """Leave out gid= of a devpts where the user namespace does not have that group: the kernel would refuse it."""
    wanted = dict(options.data).get("gid")
    if not own_ids or wanted is None or not wanted.isdecimal():
        return options
    if any(mapping.container_id <= int(wanted) < mapping.container_id + mapping.size for mapping in gids):
        return options
    warnings.append(f"terminals do not belong to the group {wanted}: the user namespace does not map it")
    return options.replace(data=tuple(pair for pair in options.data if pair[0] != "gid"))


def _devices(devices: tuple[Device, ...], bound: bool) -> tuple[Operation, ...]:
    wanted = {device.path: device for device in DEFAULT_DEVICES}
    for index, device in enumerate(devices):
        field = f"linux.devices[{index}]"
        if device.type not in KINDS:
            raise Invalid("read", f"{field}.type", f"{device.type!r} is none of c, b, u, p")
        if not device.path.startswith("/") or os.path.normpath(device.path) != device.path or device.path == "/":
            raise Invalid("read", f"{field}.path", f"{device.path!r} is not a clean absolute path")
        if not (0 <= device.major <= _MAJOR_MAX and 0 <= device.minor <= _MINOR_MAX):
            raise Invalid("read", f"{field}", f"{device.major}:{device.minor} is not a device number")
        wanted[device.path] = device
    pipes = tuple(device for device in wanted.values() if device.type == "p" or not bound)
    nodes = tuple(device for device in wanted.values() if device.type != "p" and bound)
    operations: list[Operation] = []
    if pipes:
        operations.append(DeviceNodes(devices=pipes))
    if nodes:
        operations.append(BoundDevices(devices=nodes))
    return (*operations, DeviceLinks())
