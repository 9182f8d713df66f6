"""A container as a compose project of one service, for docker compose and `orlop compose`.

What the container uses exists: its volumes and networks are external. Source of the keys: the compose specification.
"""

from __future__ import annotations

from . import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....spec.container import BindRequest, ContainerRequest
    from ....spec.health import Healthcheck
    from ....spec.mount import MountRequest
    from ....spec.network import EndpointRequest, PortRequest

_PLAIN = {
    "image": "image",
    "user": "user",
    "working_dir": "working_dir",
    "hostname": "hostname",
    "domainname": "domainname",
    "annotations": "annotations",
    "terminal": "tty",
    "open_stdin": "stdin_open",
    "group_add": "group_add",
    "storage_opt": "storage_opt",
    "read_only": "read_only",
    "memory_bytes": "mem_limit",
    "memory_swap_bytes": "memswap_limit",
    "memory_reservation_bytes": "mem_reservation",
    "memory_swappiness": "mem_swappiness",
    "pids_max": "pids_limit",
    "cpu_shares": "cpu_shares",
    "cpu_period_us": "cpu_period",
    "cpu_quota_us": "cpu_quota",
    "cpu_realtime_period_us": "cpu_rt_period",
    "cpu_realtime_runtime_us": "cpu_rt_runtime",
    "cpuset_cpus": "cpuset",
    "shm_bytes": "shm_size",
    "oom_kill_disable": "oom_kill_disable",
    "oom_score_adj": "oom_score_adj",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "privileged": "privileged",
    "security_opt": "security_opt",
    "device_cgroup_rules": "device_cgroup_rules",
    "ipc": "ipc",
    "pid": "pid",
    "uts": "uts",
    "userns": "userns_mode",
    "cgroup_namespace": "cgroup",
    "cgroup_parent": "cgroup_parent",
    "isolation": "isolation",
    "sysctls": "sysctls",
    "exposed_ports": "expose",
    "dns": "dns",
    "dns_search": "dns_search",
    "dns_options": "dns_opt",
    "extra_hosts": "extra_hosts",
    "stop_signal": "stop_signal",
    "init": "init",
    "platform": "platform",
    "runtime": "runtime",
    "links": "external_links",
}
_WRITTEN = frozenset(
    "entrypoint args env labels binds mounts tmpfs volumes_from secrets configs cpu_nanos ulimits devices blkio_weight"
    " blkio_weight_devices device_read_bps device_write_bps device_read_iops device_write_iops network endpoints ports"
    " stop_timeout_s restart_policy restart_retries_max health log_driver log_options".split()
)
_RATES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
_RECURSIVE = {
    "disabled": "non_recursive",
    "writable": "read_only_non_recursive",
    "readonly": "read_only_force_recursive",
}
_OWN_LABELS = "com.docker.compose."  # a container of another project is one of this project then


def document(request: ContainerRequest, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the project, and the flags that it has no words for."""
    missing = fields.left_out(request, {*_PLAIN, *_WRITTEN})
    service: dict[str, Any] = {"container_name": name} if name else {}
    service |= _plain(request) | _command(request) | _limits(request)
    used: dict[str, Any] = {}
    service |= _mounts(request, used, missing) | _network(request, used, missing)
    if request.stop_timeout_s is not None:
        service["stop_grace_period"] = f"{request.stop_timeout_s}s"
    if request.restart_policy:
        count = f":{request.restart_retries_max}" if request.restart_retries_max else ""
        service["restart"] = request.restart_policy + count
    if request.health is not None:
        service["healthcheck"] = _health(request.health, missing)
    if request.log_driver or request.log_options:
        driver = {"driver": request.log_driver} if request.log_driver else {}
        service["logging"] = {**driver, **({"options": dict(request.log_options)} if request.log_options else {})}
    return _escaped({"services": {_key(name or request.image): service}, **used}), missing


def _plain(request: ContainerRequest) -> dict[str, Any]:
    from ....spec.container import ContainerRequest as Request

    default, shown = Request(), {}
    for field, key in _PLAIN.items():
        value = getattr(request, field)
        if value != getattr(default, field):
            shown[key] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, dict) else value
    if shown.get("pids_limit") == 0:
        shown["pids_limit"] = -1
    labels = {key: value for key, value in request.labels.items() if not key.startswith(_OWN_LABELS)}
    return shown | ({"labels": labels} if labels else {})


def _command(request: ContainerRequest) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if request.entrypoint is not None:
        shown["entrypoint"] = [] if request.entrypoint == ("",) else list(request.entrypoint)
    if request.args is not None:
        shown["command"] = list(request.args)
    if request.env:
        shown["environment"] = list(request.env)
    return shown


def _limits(request: ContainerRequest) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if request.cpu_nanos:
        shown["cpus"] = request.cpu_nanos / fields.NANO
    if request.ulimits:
        shown["ulimits"] = {one.name: {"soft": one.soft, "hard": one.hard} for one in request.ulimits}
    if request.devices:
        shown["devices"] = [f"{one.source}:{one.target}:{one.permissions}" for one in request.devices]
    blkio: dict[str, Any] = {"weight": request.blkio_weight} if request.blkio_weight else {}
    if request.blkio_weight_devices:
        blkio["weight_device"] = [{"path": one.path, "weight": one.weight} for one in request.blkio_weight_devices]
    for field in _RATES:
        if rates := getattr(request, field):
            blkio[field] = [{"path": one.path, "rate": one.rate} for one in rates]
    return shown | ({"blkio_config": blkio} if blkio else {})


def _health(health: Healthcheck, missing: list[str]) -> dict[str, Any]:
    kind = health.test[0] if health.test else ""
    if kind == "NONE":
        return {"disable": True}
    shown: dict[str, Any] = {}
    if kind in ("HTTP", "TCP"):
        missing.append(f"--health-{kind.lower()}")
    elif health.test:
        shown["test"] = list(health.test)
    for key in ("interval", "timeout", "start_period", "start_interval"):
        if nanos := getattr(health, key):
            shown[key] = fields.seconds(nanos)
    return shown | ({"retries": health.retries} if health.retries else {})


# -- mounts ------------------------------------------------------------------------------------------------------------


def _mounts(request: ContainerRequest, used: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    volumes = [_bind(one, used) for one in request.binds]
    volumes += [_mount(one, used, missing) for one in request.mounts]
    if volumes:
        shown["volumes"] = volumes
    if request.tmpfs:
        shown["tmpfs"] = [":".join((one.target, ",".join(one.options))).rstrip(":") for one in request.tmpfs]
    if request.volumes_from:
        shown["volumes_from"] = [f"container:{one}" for one in request.volumes_from]
    for kind in ("secrets", "configs"):
        grants = [one for one in getattr(request, kind) if not one.env]
        if len(grants) < len(getattr(request, kind)):
            missing.append("--secret type=env")
        if grants:
            shown[kind] = [
                {"source": _key(one.source), "uid": str(one.uid), "gid": str(one.gid), "mode": one.mode}
                | ({"target": one.target} if one.target else {})
                for one in grants
            ]
            used[kind] = {_key(one.source): {"name": one.source, "external": True} for one in grants}
    return shown


def _bind(bind: BindRequest, used: dict[str, Any]) -> str | dict[str, Any]:
    source = bind.source
    if source and not source.startswith("/"):
        source = _volume(source, used)
    return ":".join([*([source] if source else []), bind.target, *([",".join(bind.options)] if bind.options else [])])


def _volume(name: str, used: dict[str, Any]) -> str:
    used.setdefault("volumes", {})[_key(name)] = {"name": name, "external": True}
    return _key(name)


def _mount(mount: MountRequest, used: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": mount.type, "target": mount.target}
    if mount.source:
        shown["source"] = _volume(mount.source, used) if mount.type == "volume" else mount.source
    if mount.read_only:
        shown["read_only"] = True
    if mount.consistency:
        shown["consistency"] = mount.consistency
    own: dict[str, Any] = {}
    if (bind := mount.bind) is not None or mount.type == "bind":
        own = {"create_host_path": bool(bind and bind.create_mountpoint)}
        own |= {"propagation": bind.propagation} if bind and bind.propagation else {}
        for word, field in _RECURSIVE.items():
            if bind and getattr(bind, field):
                own["recursive"] = word
    if (volume := mount.volume) is not None:
        own = {"nocopy": True} if volume.no_copy else {}
        own |= {"subpath": volume.subpath} if volume.subpath else {}
        own |= {"labels": dict(volume.labels)} if volume.labels else {}
        missing += ["--mount volume-driver, volume-opt"] if volume.driver or volume.driver_options else []
    if (tmpfs := mount.tmpfs) is not None:
        own = {key: value for key, value in (("size", tmpfs.size_bytes), ("mode", tmpfs.mode)) if value}
        missing += ["--mount tmpfs-options"] if tmpfs.options else []
    if mount.image is not None and mount.image.subpath:
        own = {"subpath": mount.image.subpath}
    return shown | ({mount.type: own} if own else {})


# -- networks ----------------------------------------------------------------------------------------------------------


def _network(request: ContainerRequest, used: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    mode = request.network or "bridge"
    names = [one.network for one in request.endpoints] or ([mode] if request.network else [])
    if mode in ("bridge", "default", "none", "host") or mode.startswith("container:"):
        shown["network_mode"] = "bridge" if mode == "default" else mode
        if any(_endpoint(one) for one in request.endpoints):
            missing.append("--ip, --network-alias and the like on the default network")
    else:
        ends = {one.network: one for one in request.endpoints}
        order = {"priority": len(names)} if len(names) > 1 else {}
        shown["networks"] = {
            _key(name): (_endpoint(ends[name]) if name in ends else {}) | (order if name == mode else {}) or None
            for name in names
        }
        used["networks"] = {_key(name): {"name": name, "external": True} for name in names}
        if any(one.links for one in request.endpoints):
            shown["external_links"] = [link for one in request.endpoints for link in one.links]
    if request.ports:
        shown["ports"] = [_port(one, missing) for one in request.ports]
    return shown


def _endpoint(endpoint: EndpointRequest) -> dict[str, Any]:
    shown = {
        "aliases": list(endpoint.aliases),
        "ipv4_address": endpoint.ipv4,
        "ipv6_address": endpoint.ipv6,
        "mac_address": endpoint.mac_address,
        "gw_priority": endpoint.gw_priority,
        "driver_opts": dict(endpoint.options),
        "link_local_ips": list(endpoint.link_local),
    }
    return {key: value for key, value in shown.items() if value}


def _port(port: PortRequest, missing: list[str]) -> str:
    if port.mode or port.sources:
        missing.append("--publish ...,mode=,from=")
    inside = str(port.first) if port.first == port.last else f"{port.first}-{port.last}"
    host = str(port.host_first) if port.host_first == port.host_last else f"{port.host_first}-{port.host_last}"
    host = host if port.host_first else ""
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    before = f"{address}:{host}:" if address else f"{host}:" if host else ""
    return f"{before}{inside}/{port.protocol}"


# -- words -------------------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    """Return a name as keys of compose files are."""
    last = name.rpartition("/")[2].partition(":")[0].partition("@")[0]
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in last) or "service"


def _escaped(value: Any) -> Any:
    """Return the document with every $ twice: one alone begins a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value
