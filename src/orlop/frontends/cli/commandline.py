"""The command line that asks for a container: a `ContainerRequest` back into words. The inverse of `request`.

What a client of the API can say and a command line can't is said as nearly as it goes: an entrypoint of several words
becomes its first word and arguments.
"""

from __future__ import annotations

from ...spec.container import ContainerRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...spec.container import BindRequest, DeviceRate, DeviceRequest, GrantRequest
    from ...spec.health import Healthcheck
    from ...spec.mount import MountRequest
    from ...spec.network import EndpointRequest, PortRequest

# field of a ContainerRequest: its flag, for text and numbers that are said as they stand when they are not the default
_PLAIN = {
    "user": "user",
    "working_dir": "workdir",
    "hostname": "hostname",
    "domainname": "domainname",
    "volume_driver": "volume-driver",
    "memory_bytes": "memory",
    "memory_swap_bytes": "memory-swap",
    "memory_reservation_bytes": "memory-reservation",
    "memory_swappiness": "memory-swappiness",
    "kernel_memory_bytes": "kernel-memory",
    "shm_bytes": "shm-size",
    "oom_score_adj": "oom-score-adj",
    "cpu_shares": "cpu-shares",
    "cpu_period_us": "cpu-period",
    "cpu_quota_us": "cpu-quota",
    "cpu_realtime_period_us": "cpu-rt-period",
    "cpu_realtime_runtime_us": "cpu-rt-runtime",
    "cpuset_cpus": "cpuset-cpus",
    "cpuset_mems": "cpuset-mems",
    "blkio_weight": "blkio-weight",
    "pids_max": "pids-limit",
    "stop_signal": "stop-signal",
    "stop_timeout_s": "stop-timeout",
    "timeout_s": "timeout",
    "log_driver": "log-driver",
    "platform": "platform",
    "runtime": "runtime",
    "isolation": "isolation",
    "ipc": "ipc",
    "pid": "pid",
    "uts": "uts",
    "userns": "userns",
    "cgroup_namespace": "cgroupns",
    "time": "timens",
    "cgroup_parent": "cgroup-parent",
    "rootfs": "rootfs",
    "health_on_failure": "health-on-failure",
    "egress": "egress",
}
_SWITCHES = {
    "terminal": "tty",
    "open_stdin": "interactive",
    "auto_remove": "rm",
    "remove_image": "rmi",
    "read_only": "read-only",
    "privileged": "privileged",
    "oom_kill_disable": "oom-kill-disable",
    "publish_all": "publish-all",
    "init": "init",
}
_LISTS = {
    "env": "env",
    "group_add": "group-add",
    "cap_add": "cap-add",
    "cap_drop": "cap-drop",
    "security_opt": "security-opt",
    "volumes_from": "volumes-from",
    "depends_on": "depends-on",
    "dns": "dns",
    "dns_search": "dns-search",
    "dns_options": "dns-option",
    "extra_hosts": "add-host",
    "links": "link",
    "device_cgroup_rules": "device-cgroup-rule",
    "exposed_ports": "expose",
    "egress_allow": "egress-allow",
    "host_access": "host-access",
}
_TABLES = {
    "labels": "label",
    "annotations": "annotation",
    "sysctls": "sysctl",
    "log_options": "log-opt",
    "storage_opt": "storage-opt",
}
_RATES = {
    "device_read_bps": "device-read-bps",
    "device_write_bps": "device-write-bps",
    "device_read_iops": "device-read-iops",
    "device_write_iops": "device-write-iops",
}
_SEVERAL = {
    "binds": "--volume",
    "mounts": "--mount",
    "secrets": "--secret",
    "configs": "configs (of compose)",
    "ports": "--publish",
    "endpoints": "--network",
    "cpu_nanos": "--cpus",
    "restart_policy": "--restart",
    "restart_retries_max": "--restart",
    "health": "--health-cmd",
    "devices": "--device",
    "ulimits": "--ulimit",
    "blkio_weight_devices": "--blkio-weight-device",
    "args": "COMMAND",
}
_DURATIONS = {
    "interval": "health-interval",
    "timeout": "health-timeout",
    "start_period": "health-start-period",
    "start_interval": "health-start-interval",
}
_NANO = 10**9
STREAMS = ("stderr", "stdout")


def words(request: ContainerRequest, name: str) -> list[str]:
    """Return the words after the program's name. name: of the container, "" to have one drawn."""
    shown = ["run", *([f"--name={name}"] if name else []), *_attachment(request), *_simple(request)]
    if request.umask is not None:
        shown.append(f"--umask={request.umask:04o}")
    if request.cpu_nanos:
        shown.append(f"--cpus={_decimal(request.cpu_nanos)}")
    if request.restart_policy not in ("", "no"):
        count = f":{request.restart_retries_max}" if request.restart_retries_max else ""
        shown.append(f"--restart={request.restart_policy}{count}")
    shown += (f"--device={_device(entry)}" for entry in request.devices)
    shown += (f"--ulimit={entry.name}={entry.soft}:{entry.hard}" for entry in request.ulimits)
    shown += (f"--blkio-weight-device={entry.path}:{entry.weight}" for entry in request.blkio_weight_devices)
    for field, flag in _RATES.items():
        rates: tuple[DeviceRate, ...] = getattr(request, field)
        shown += (f"--{flag}={entry.path}:{entry.rate}" for entry in rates)
    shown += (f"--volume={_bind(entry)}" for entry in request.binds)
    shown += (f"--mount={_mount(entry)}" for entry in request.mounts)
    shown += (f"--tmpfs={':'.join((entry.target, ','.join(entry.options))).rstrip(':')}" for entry in request.tmpfs)
    shown += (f"--secret={_grant(entry)}" for entry in request.secrets)
    shown += (f"--publish={_port(entry)}" for entry in request.ports)
    shown += _networks(request)
    shown += _health(request.health) if request.health is not None else ()
    return shown + _command(request)


def flag_of(field: str) -> str:
    """Return the flag that says a field of a request; of what takes several, the name that users know."""
    for table in (_PLAIN, _SWITCHES, _LISTS, _TABLES, _RATES):
        if field in table:
            return f"--{table[field]}"
    return _SEVERAL.get(field, f"--{field.replace('_', '-')}")


def _grant(entry: GrantRequest) -> str:
    if entry.env:
        return f"{entry.source},type=env,target={entry.env}"
    target = f",target={entry.target}" if entry.target else ""
    return f"{entry.source}{target},uid={entry.uid},gid={entry.gid},mode={entry.mode:04o}"


def _simple(request: ContainerRequest) -> Iterator[str]:
    default = ContainerRequest()
    for field, flag in _PLAIN.items():
        value = getattr(request, field)
        if value != getattr(default, field):
            yield f"--{flag}={value}"
    for field, flag in _SWITCHES.items():
        if getattr(request, field, False):
            yield f"--{flag}"
    for field, flag in _LISTS.items():
        yield from (f"--{flag}={value}" for value in getattr(request, field))
    for field, flag in _TABLES.items():
        table: dict[str, str] = getattr(request, field)
        yield from (f"--{flag}={key}={value}" for key, value in table.items())


def _attachment(request: ContainerRequest) -> Iterable[str]:
    """Return -d, or the streams that were attached where they are not the usual ones."""
    if not request.attach:
        return ("--detach",)
    usual = (*STREAMS, "stdin") if request.open_stdin else STREAMS
    return () if set(request.attach) == set(usual) else [f"--attach={stream}" for stream in request.attach]


def _command(request: ContainerRequest) -> list[str]:
    shown, rest = [], list(request.args or ())
    if request.entrypoint is not None:
        first, *more = request.entrypoint or ("",)
        shown.append(f"--entrypoint={first}")
        rest = more + rest
    return [*shown, "--", *rest] if request.rootfs else [*shown, request.image, *rest]


def _decimal(nanos: int) -> str:
    whole, fraction = divmod(nanos, _NANO)
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".")


def _duration(nanos: int) -> str:
    return f"{nanos // _NANO}s" if nanos % _NANO == 0 else f"{nanos}ns"


def _device(device: DeviceRequest) -> str:
    return device.source if device.is_named else f"{device.source}:{device.target}:{device.permissions}"


def _bind(bind: BindRequest) -> str:
    parts = [bind.source, bind.target] if bind.source else [bind.target]
    return ":".join([*parts, ",".join(bind.options)] if bind.options else parts)


def _port(port: PortRequest) -> str:
    inside = _range(port.first, port.last) + (f"/{port.protocol}" if port.protocol != "tcp" else "")
    inside += f",mode={port.mode}" if port.mode else ""
    inside += "".join(f",from={source}" for source in port.sources)
    host = _range(port.host_first, port.host_last) if port.host_first else ""
    if port.host_ip:
        address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
        return f"{address}:{host}:{inside}"
    return f"{host}:{inside}" if host else inside


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _networks(request: ContainerRequest) -> Iterator[str]:
    if not request.network and len(request.endpoints) == 1:
        (own,) = request.endpoints
        yield from (f"--network-alias={alias}" for alias in own.aliases)
        values = (("ip", own.ipv4), ("ip6", own.ipv6), ("mac-address", own.mac_address))
        yield from (f"--{flag}={value}" for flag, value in values if value)
        yield from (f"--link-local-ip={address}" for address in own.link_local)
        return
    if not request.endpoints and request.network:
        yield f"--network={request.network}"
    for endpoint in request.endpoints:
        yield f"--network={_endpoint(endpoint)}"
        yield from (f"--link={link}" for link in endpoint.links)


def _endpoint(endpoint: EndpointRequest) -> str:
    fields = [f"alias={alias}" for alias in endpoint.aliases]
    values = (("ip", endpoint.ipv4), ("ip6", endpoint.ipv6), ("mac-address", endpoint.mac_address))
    fields += [f"{key}={value}" for key, value in values if value]
    fields += [f"link-local-ip={address}" for address in endpoint.link_local]
    fields += [f"driver-opt={key}={value}" for key, value in endpoint.options.items()]
    fields += [f"gw-priority={endpoint.gw_priority}"] if endpoint.gw_priority else []
    return ",".join([f"name={endpoint.network}", *fields]) if fields else endpoint.network


def _health(health: Healthcheck) -> Iterator[str]:
    kind, *rest = health.test or ("",)
    if kind == "NONE":
        yield "--no-healthcheck"
        return
    flag = {"HTTP": "health-http", "TCP": "health-tcp"}.get(kind, "health-cmd")
    if rest:
        yield f"--{flag}={' '.join(map(_shell_quote, rest)) if kind == 'CMD' else rest[0]}"
    for field, flag in _DURATIONS.items():
        if nanos := getattr(health, field):
            yield f"--{flag}={_duration(nanos)}"
    if health.retries:
        yield f"--health-retries={health.retries}"


def _shell_quote(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _mount(mount: MountRequest) -> str:
    fields = [f"type={mount.type}", *([f"source={mount.source}"] if mount.source else []), f"target={mount.target}"]
    fields += ["readonly"] if mount.read_only else []
    fields += [f"consistency={mount.consistency}"] if mount.consistency else []
    fields += [f"map={mount.map}"] if mount.map else []
    fields += _mount_options(mount)
    return ",".join(_csv(field) for field in fields)


def _mount_options(mount: MountRequest) -> Iterator[str]:
    if (bind := mount.bind) is not None:
        if bind.propagation:
            yield f"bind-propagation={bind.propagation}"
        chosen = {
            "disabled": bind.non_recursive,
            "writable": bind.read_only_non_recursive,
            "readonly": bind.read_only_force_recursive,
        }
        yield from (f"bind-recursive={word}" for word, is_chosen in chosen.items() if is_chosen)
    if (volume := mount.volume) is not None:
        yield from ["volume-nocopy"] if volume.no_copy else []
        yield from (f"volume-label={key}={value}" for key, value in volume.labels.items())
        yield from [f"volume-driver={volume.driver}"] if volume.driver else []
        yield from (f"volume-opt={key}={value}" for key, value in volume.driver_options.items())
        yield from [f"volume-subpath={volume.subpath}"] if volume.subpath else []
    if (tmpfs := mount.tmpfs) is not None:
        yield from [f"tmpfs-size={tmpfs.size_bytes}"] if tmpfs.size_bytes else []
        yield from [f"tmpfs-mode={tmpfs.mode:o}"] if tmpfs.mode else []
    if (image := mount.image) is not None and image.subpath:
        yield f"image-subpath={image.subpath}"


def _csv(field: str) -> str:
    """Return a field as Go's encoding/csv writes it."""
    if not any(c in field for c in ',"\r\n') and not field.startswith(" "):
        return field
    return '"' + field.replace('"', '""') + '"'
