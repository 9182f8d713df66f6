"""What devices need, put into a container's OCI spec; what lies behind their paths is looked up before. Pure."""

from __future__ import annotations

from ...spec.errors import Invalid
from ...spec.runtime import Device, DeviceRule, Hooks, Mount, NetDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...spec.runtime import Linux, Process, Spec
    from .form import CdiMount, DeviceNode, Edits

FILE_MODE = 0o666  # of a node whose file gives none, as runtimes have it
_HOOKS = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}
_BINDS = frozenset(("bind", "rbind"))


def paths(edits: Sequence[Edits]) -> set[str]:
    """Return the paths of the machine behind which the devices lie."""
    return {node.host_path or node.path for one in edits for node in one.device_nodes}


def applied(
    spec: Spec, edits: Sequence[Edits], named: Mapping[str, tuple[Device, ...]], subject: str, *, shown: bool
) -> Spec:
    """Return the spec with what the devices need.

    named: what is behind `paths`. shown: nodes can't be made there, the machine's own are shown instead.
    Raises Invalid for a device that the machine does not have, and for a hook of no known time.
    """
    for one in edits:
        spec = _applied(spec, one, named, subject, shown)
    return spec


def _applied(spec: Spec, one: Edits, named: Mapping[str, tuple[Device, ...]], subject: str, shown: bool) -> Spec:
    nodes = [(_node(node, named, subject), node) for node in one.device_nodes]
    mounts = [_mount(mount) for mount in one.mounts]
    if shown:
        mounts += [
            Mount(
                destination=node.path,
                type="bind",
                source=node.host_path or node.path,
                options=("bind", "rprivate", "nosuid", "noexec"),
            )
            for node in one.device_nodes
        ]
    taken = {mount.destination for mount in mounts}
    hooks = spec.hooks or Hooks()
    for hook in one.hooks:
        field = _HOOKS.get(hook.hook_name)
        if field is None:
            cause = f"a CDI device asks for a hook at {hook.hook_name[:40]!r}, which is no time of a container's life"
            raise Invalid("start", subject, cause, hint=f"one of {', '.join(_HOOKS)}", code="E0214")
        hooks = hooks.replace(**{field: (*getattr(hooks, field), hook.hook)})
    return spec.replace(
        mounts=(*(mount for mount in spec.mounts if mount.destination not in taken), *mounts),
        process=_process(spec.process, one) if spec.process is not None else None,
        hooks=hooks if hooks != Hooks() else spec.hooks,
        linux=_linux(spec.linux, one, [] if shown else nodes),
    )


def _process(process: Process, one: Edits) -> Process:
    given = {variable.partition("=")[0] for variable in one.env}
    kept = [variable for variable in process.env if variable.partition("=")[0] not in given]
    gids = (*process.user.additional_gids, *(gid for gid in one.additional_gids if gid > 0))
    user = process.user.replace(additional_gids=tuple(dict.fromkeys(gids)))
    return process.replace(env=(*kept, *one.env), user=user)


def _linux(linux: Linux, one: Edits, nodes: list[tuple[Device, DeviceNode]]) -> Linux:
    taken = {device.path for device, _ in nodes}
    rules = [
        DeviceRule(
            allow=True, type=device.type, major=device.major, minor=device.minor, access=node.permissions or "rwm"
        )
        for device, node in nodes
        if device.type in ("b", "c")
    ]
    resources = linux.resources
    if resources is not None and rules:
        resources = resources.replace(devices=(*resources.devices, *rules))
    interfaces = {net.host_interface_name: NetDevice(name=net.name) for net in one.net_devices}
    return linux.replace(
        devices=(*(device for device in linux.devices if device.path not in taken), *(device for device, _ in nodes)),
        resources=resources,
        net_devices={**linux.net_devices, **interfaces},
        intel_rdt=one.intel_rdt or linux.intel_rdt,
    )


def _node(node: DeviceNode, named: Mapping[str, tuple[Device, ...]], subject: str) -> Device:
    """Return a device's node: what the file says of it, else what the machine has there."""
    path = node.host_path or node.path
    there = named.get(path, ())
    if not there and (not node.type or (node.type != "p" and not node.major)):
        cause = f"CDI device injection failed: failed to stat CDI host device {path!r}: it is no device of this machine"
        raise Invalid("start", subject, cause, hint=f"see what there is: ls -l {path}", code="E0214")
    found = there[0] if there else Device(type=node.type, path=path)
    return Device(
        type=node.type or found.type,
        path=node.path,
        major=node.major or found.major,
        minor=node.minor if node.major else found.minor,
        file_mode=FILE_MODE if node.file_mode is None else node.file_mode & 0o777,
        uid=node.uid or 0,
        gid=node.gid or 0,
    )


def _mount(mount: CdiMount) -> Mount:
    options = mount.options
    if mount.type in ("", "bind", "none") and not _BINDS & set(options):
        options = ("rbind", *options)
    kind = mount.type if mount.type not in ("", "none") else "bind"
    return Mount(destination=mount.container_path, type=kind, source=mount.host_path, options=options)
