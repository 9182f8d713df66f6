"""A service as the ContainerRequest of one of its containers, and a project's networks and volumes as theirs.

Pure. What Compose has and Orlop has not is an error here, before anything is made.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from typing import Any

from ... import __version__
from ...spec import jsonio
from ...spec.container import (
    BindRequest,
    ContainerRequest,
    DataRequest,
    DeviceRate,
    DeviceRequest,
    DeviceWeight,
    GrantRequest,
    TmpfsRequest,
    UlimitRequest,
)
from ...spec.errors import NotFound
from ...spec.health import Healthcheck
from ...spec.mount import BindOptions, ImageOptions, MountRequest, TmpfsOptions, VolumeOptions, VolumeRequest
from ...spec.network import EndpointRequest, NetworkRequest, PoolRequest, PortRequest
from ..cli.flags import BadValue
from ..cli.limits import parse_device_rule
from ..cli.networking import parse_port
from ..cli.request import security_option
from ..cli.values import parse_restart, parse_tmpfs
from .document import Map, unsupported, wrong
from .project import DEFAULT, Project, Resource, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL = "com.docker.compose."
PROJECT, SERVICE, NUMBER = f"{LABEL}project", f"{LABEL}service", f"{LABEL}container-number"
ONEOFF, HASH = f"{LABEL}oneoff", f"{LABEL}config-hash"
NETWORK, VOLUME = f"{LABEL}network", f"{LABEL}volume"
# Not docker compose's own name for it, whose value nobody else can write: what either has made, the other keeps.
NETWORK_HASH = "io.orlop.compose.network-hash"
# A service that asks for one of these would not get what it asks for.
REFUSED = ("credential_spec", "cpu_count", "cpu_percent", "gpus", "models", "provider", "pull_refresh_after")
# Of a cluster, which one machine is not; docker compose says nothing about them.
_OF_CLUSTERS = ("endpoint_mode", "labels", "placement", "rollback_config", "update_config")
_RESERVED_BY_CLUSTERS = ("cpus", "generic_resources", "pids")
_RESTARTS_OF_CLUSTERS = ("delay", "window")
_CONDITION = {"service_started": "started", "service_healthy": "healthy"}
_CONDITION["service_completed_successfully"] = "completed"
DATA_BYTES_MAX = 1 << 20  # more than the engine keeps of one: it says so


def container(project: Project, service: Service, number: int, replicas: dict[str, int]) -> ContainerRequest:
    """Return the request of the number-th container. replicas: how many containers each service has."""
    request = _container(project, service, number)
    digest = hashlib.sha256(jsonio.dump(request.to_json()))
    return request.replace(
        name=project.container_name(service, number),
        labels={**request.labels, HASH: digest.hexdigest(), NUMBER: str(number)},
        # Not part of what the digest tells: how many containers a dependency has is no reason to make these anew.
        depends_on=_depends_on(project, service, replicas),
    )


def _container(project: Project, service: Service, number: int) -> ContainerRequest:
    _refuse(project, service)
    get = service.get
    logging = get("logging", {})
    policy, retries = _restart(service)
    return ContainerRequest(
        image=service.image,
        entrypoint=_words(service, "entrypoint"),
        args=_words(service, "command"),
        env=tuple(f"{name}={value}" for name, value in service.environment.items()),
        user=get("user", ""),
        group_add=tuple(get("group_add", ())),
        working_dir=get("working_dir", ""),
        hostname=get("hostname", ""),
        domainname=get("domainname", ""),
        labels=labels(project, service),
        annotations={name: value or "" for name, value in get("annotations", {}).items()},
        terminal=get("tty", False),
        open_stdin=get("stdin_open", False),
        **_mounts(project, service),
        secrets=grants(project, service, "secrets"),
        configs=grants(project, service, "configs"),
        read_only=get("read_only", False),
        storage_opt=dict(get("storage_opt", {})),
        **_limits(service),
        **_isolation(project, service),
        **_network(project, service, number),
        stop_signal=get("stop_signal", ""),
        stop_timeout_s=None if get("stop_grace_period") is None else -(-get("stop_grace_period") // 10**9),
        restart_policy=policy,
        restart_retries_max=retries,
        health=_health(service),
        init=get("init", False),
        log_driver=logging.get("driver", ""),
        log_options={name: value or "" for name, value in logging.get("options", {}).items()},
        platform=get("platform", ""),
        runtime=get("runtime", ""),
    )


def _refuse(project: Project, service: Service) -> None:
    """Raise Unsupported for what a service would not get."""
    where = f"services.{service.name}"
    if project.document.get("models"):
        raise unsupported(project.document.places.get("models"), "models", "Orlop runs no models")
    for key in REFUSED:
        if service.get(key) is not None:
            raise unsupported(service.config.places.get(key), f"{where}.{key}", "Orlop does not have it")
    if service.get("use_api_socket"):  # whoever has it has the machine
        hint = "give it a socket with less power: orlop socket create NAME --allow ..."
        place = service.config.places.get("use_api_socket")
        raise unsupported(place, f"{where}.use_api_socket", "no container gets the whole API", hint)
    for kind, wishes in service.get("deploy", {}).get("resources", {}).items():
        if isinstance(wishes, Map) and wishes.get("devices"):
            path = f"{where}.deploy.resources.{kind}.devices"
            hint = "name the devices: devices: [/dev/NAME]"
            raise unsupported(wishes.places.get("devices"), path, "no device is found by what it can do", hint)


def labels(project: Project, service: Service) -> dict[str, str]:
    """Return the labels of a service's containers, without number and hash."""
    wishes = (
        f"{name}:{wish.condition}:{'true' if wish.restart else 'false'}" for name, wish in service.depends_on.items()
    )
    return {
        **service.labels,
        **_own_labels(project),
        SERVICE: service.name,
        ONEOFF: "False",
        f"{LABEL}depends_on": ",".join(wishes),
        f"{LABEL}project.config_files": ",".join(project.files),
        f"{LABEL}project.working_dir": project.directory,
    }


def _own_labels(project: Project) -> dict[str, str]:
    return {PROJECT: project.name, f"{LABEL}version": __version__}


def network(project: Project, resource: Resource) -> NetworkRequest:
    """Return the request of a network. Raises Unsupported."""
    config = resource.config
    ipam = config.get("ipam", {})
    pools = tuple(
        PoolRequest(
            subnet=one.get("subnet", ""),
            gateway=one.get("gateway", ""),
            ip_range=one.get("ip_range", ""),
            auxiliary=dict(one.get("aux_addresses", {})),
        )
        for one in ipam.get("config", ())
    )
    if ipam.get("driver", "default") != "default":
        path = f"networks.{resource.key}.ipam.driver"
        raise unsupported(ipam.places.get("driver"), path, f"there is only the driver default, no {ipam['driver']}")
    wished = {name: value or "" for name, value in config.get("labels", {}).items()}
    found = NetworkRequest(
        name=resource.name,
        driver=config.get("driver", "bridge"),
        pools=pools,
        ipv4=config.get("enable_ipv4", True),
        ipv6=config.get("enable_ipv6", False),
        internal=config.get("internal", False),
        attachable=config.get("attachable", False),
        labels={**wished, PROJECT: project.name, NETWORK: resource.key},
        options=dict(config.get("driver_opts", {})),
        ipam_options=dict(ipam.get("options", {})),
    )
    digest = hashlib.sha256(jsonio.dump(found.to_json())).hexdigest()
    return found.replace(labels={**found.labels, **_own_labels(project), NETWORK_HASH: digest})


def volume(project: Project, resource: Resource) -> VolumeRequest:
    """Return the request of a volume."""
    config = resource.config
    wished = {name: value or "" for name, value in config.get("labels", {}).items()}
    return VolumeRequest(
        name=resource.name,
        driver=config.get("driver", ""),
        driver_options=dict(config.get("driver_opts", {})),
        labels={**wished, **_own_labels(project), VOLUME: resource.key},
    )


def without_effect(project: Project) -> list[str]:
    """Return the keys of a project's services that mean something to a cluster and nothing to one machine."""
    found = []
    for service in project.services.values():
        deploy = service.get("deploy", {})
        place = f"services.{service.name}.deploy"
        found += [f"{place}.{key}" for key in _OF_CLUSTERS if key in deploy]
        if deploy.get("mode", "replicated") != "replicated":
            found.append(f"{place}.mode {deploy['mode']}")
        policy = deploy.get("restart_policy", {})
        found += [f"{place}.restart_policy.{key}" for key in _RESTARTS_OF_CLUSTERS if key in policy]
        reserved = deploy.get("resources", {}).get("reservations", {})
        found += [f"{place}.resources.reservations.{key}" for key in _RESERVED_BY_CLUSTERS if key in reserved]
        ports = enumerate(service.get("ports", ()))
        found += [f"services.{service.name}.ports[{at}].app_protocol" for at, port in ports if "app_protocol" in port]
    return found


def _words(service: Service, key: str) -> tuple[str, ...] | None:
    words = service.get(key)
    if words is None:
        return None
    return tuple(words) or ("",) if key == "entrypoint" else tuple(words)


def _depends_on(project: Project, service: Service, replicas: dict[str, int]) -> tuple[str, ...]:
    return tuple(
        f"{project.container_name(project.services[name], number)}:{_CONDITION[wish.condition]}"
        for name, wish in service.depends_on.items()
        if name in project.services
        for number in range(1, replicas.get(name, 0) + 1)
    )


def _restart(service: Service) -> tuple[str, int]:
    wish = service.get("deploy", {}).get("restart_policy")
    text = service.get("restart", "")
    if wish and not text:
        policy = {"none": "no", "on-failure": "on-failure", "any": "always"}[wish.get("condition", "any")]
        return policy, wish.get("max_attempts", 0) if policy == "on-failure" else 0
    try:
        return parse_restart(text)
    except BadValue as error:
        raise _wrong(service, "restart", str(error), error.hint) from None


def _health(service: Service) -> Healthcheck | None:
    wish = service.get("healthcheck")
    if wish is None:
        return None
    if wish.get("disable"):
        return Healthcheck(test=("NONE",))
    times = ("interval", "timeout", "start_period", "start_interval", "retries")
    return Healthcheck(test=tuple(wish.get("test", ())), **{name: wish[name] for name in times if name in wish})


# -- mounts --------------------------------------------------------------------------------------------------------


def _mounts(project: Project, service: Service) -> dict[str, Any]:
    binds, mounts = [], []
    shown_as = _shown_as(project, service)
    for wish in service.get("volumes", ()):
        if shown_as and _takes_owner(wish):
            options = (*_options(wish), shown_as)
            binds.append(BindRequest(source=_source(project, wish), target=wish["target"], options=options))
        elif "options" in wish or "selinux" in wish.get("bind", ()):
            binds.append(BindRequest(source=_source(project, wish), target=wish["target"], options=_options(wish)))
        else:
            mounts.append(_mount(project, service, wish))
    mounts += _directories(project, service)
    tmpfs = []
    for text in service.get("tmpfs", ()):
        try:
            target, options = parse_tmpfs(text)
        except BadValue as error:
            raise _wrong(service, "tmpfs", str(error), error.hint) from None
        tmpfs.append(TmpfsRequest(target=target, options=options))
    volumes_from = tuple(_volumes_from(project, text) for text in service.get("volumes_from", ()))
    return {"binds": tuple(binds), "mounts": tuple(mounts), "tmpfs": tuple(tmpfs), "volumes_from": volumes_from}


def _shown_as(project: Project, service: Service) -> str:
    """Return the option by which `x-map: auto` shows what is mounted as the user's that the service runs as, or ""."""
    wish = project.document.get("x-map")
    if wish not in (None, "auto"):
        raise _wrong(service, "volumes", f"x-map: {wish!s:.40} is not known", "write x-map: auto, or leave it away")
    user = str(service.get("user", ""))
    return f"as={user}" if wish and user.replace(":", "", 1).isdecimal() else ""


def _takes_owner(wish: Any) -> bool:
    """Tell whether a mount is of the machine's, says nothing of owners, and nothing that -v can't say."""
    told = any(option == "idmap" or option.startswith("as=") for option in wish.get("options", ()))
    own = wish.get("bind", {})
    plain = own.keys() <= {"propagation", "selinux", "create_host_path"} and own.get("create_host_path", True)
    return wish["type"] == "bind" and not told and plain


def _options(wish: Any) -> tuple[str, ...]:
    """Return a mount's options as `-v` takes them."""
    own = wish.get(wish["type"], {})
    words = ["ro"] if wish.get("read_only") else []
    words += [own[key] for key in ("propagation", "selinux") if own.get(key)]
    words += ["nocopy"] if own.get("nocopy") else []
    return (*words, *wish.get("options", ()))


def _source(project: Project, wish: Any) -> str:
    source: str = wish.get("source", "")
    return project.volumes[source].name if wish["type"] == "volume" and source else source


def _mount(project: Project, service: Service, wish: Any) -> MountRequest:
    made = MountRequest(
        type=wish["type"],
        source=_source(project, wish),
        target=wish["target"],
        read_only=wish.get("read_only", False),
        consistency=wish.get("consistency", ""),
    )
    kind, options = wish["type"], wish.get(wish["type"], {})
    if kind == "bind":
        recursive = options.get("recursive", "")
        bind = BindOptions(
            propagation=options.get("propagation", ""),
            create_mountpoint=options.get("create_host_path", True),
            non_recursive=recursive == "disabled",
            read_only_non_recursive=recursive == "writable",
            read_only_force_recursive=recursive == "readonly",
        )
        return made.replace(bind=bind)
    if kind == "volume":
        named = {name: value or "" for name, value in options.get("labels", {}).items()}
        chosen = VolumeOptions(no_copy=options.get("nocopy", False), subpath=options.get("subpath", ""), labels=named)
        return made.replace(volume=chosen)
    if kind == "tmpfs":
        return made.replace(tmpfs=TmpfsOptions(size_bytes=options.get("size", 0), mode=options.get("mode", 0)))
    if kind == "image":
        return made.replace(image=ImageOptions(subpath=options.get("subpath", "")))
    raise _wrong(service, "volumes", f"mounts of type {kind} need a cluster or Windows")


def _volumes_from(project: Project, text: str) -> str:
    if text.startswith("container:"):
        return text.removeprefix("container:")
    name, colon, mode = text.partition(":")
    return f"{project.container_name(project.service(name), 1)}{colon}{mode}"


# -- secrets and configs: kept by the engine under names that say their content, on tmpfs in containers ----------------


def grants(project: Project, service: Service, kind: str) -> tuple[GrantRequest, ...]:
    """Return the secrets or configs of a service as its request names them. Raises Invalid, NotFound."""
    resources: dict[str, Resource] = getattr(project, kind)
    return tuple(
        GrantRequest(
            source=stored_name(project, kind, resources[one["source"]]),
            target=one.get("target", one["source"]),
            uid=_id(service, kind, one.get("uid", "0")),
            gid=_id(service, kind, one.get("gid", "0")),
            mode=one.get("mode", 0o444),
        )
        for one in service.get(kind, ())
        if not _is_directory(resources[one["source"]])
    )


def stored_name(project: Project, kind: str, resource: Resource) -> str:
    """Return the name under which the engine keeps a secret or config: another content is another name."""
    if resource.external:
        return resource.name
    for key in ("driver", "driver_opts", "template_driver"):
        if resource.config.get(key):
            place = resource.config.places.get(key)
            raise unsupported(place, f"{kind}.{resource.key}.{key}", "there are no such drivers")
    digest = _digest(kind, f"{project.name}\0{resource.key}", content(project, kind, resource))
    return f"{project.name[:20]}_{resource.key[:20]}_{digest[:20]}"


@functools.lru_cache(maxsize=256)
def _digest(kind: str, whose: str, data: bytes) -> str:
    """Return the digest that stands in a name. Names are shown: a secret's must not help who guesses passwords."""
    if kind == "secrets":
        return hashlib.scrypt(data, salt=whose.encode(), n=2**14, r=8, p=1, maxmem=2**26, dklen=32).hex()
    return hashlib.sha256(data).hexdigest()


def stored(project: Project, services: Iterable[Service], kind: str) -> dict[str, Resource]:
    """Return the secrets or configs that these services need and the engine has to keep, by their names there."""
    resources: dict[str, Resource] = getattr(project, kind)
    used = (resources[one["source"]] for service in services for one in service.get(kind, ()))
    own = [one for one in used if not one.external and not _is_directory(one)]
    return {stored_name(project, kind, one): one for one in own}


def data(project: Project, kind: str, name: str, resource: Resource) -> DataRequest:
    """Return the request that keeps one."""
    wished = {key: value or "" for key, value in resource.config.get("labels", {}).items()}
    return DataRequest(
        name=name,
        data=base64.b64encode(content(project, kind, resource)).decode(),
        labels={**wished, **_own_labels(project)},
    )


def content(project: Project, kind: str, resource: Resource) -> bytes:
    """Return what a secret or config is: a file's, a variable's or the given text. Raises NotFound, Invalid."""
    subject = f"{kind}.{resource.key}"
    if "content" in resource.config:
        return str(resource.config["content"]).encode()
    if "file" in resource.config:
        path = str(resource.config["file"])
        try:
            with open(path, "rb") as file:
                return file.read(DATA_BYTES_MAX + 1)
        except OSError as error:
            raise NotFound("read", subject, f"{path}: {(error.strerror or str(error)).lower()}") from None
    name = resource.config.get("environment", "")
    if name not in project.variables:
        cause = f'environment variable "{name}" required by {kind[:-1]} "{resource.key}" is not set'
        raise wrong(resource.config.place, subject, cause, f"set {name}" if name else "give it a file: or environment:")
    return project.variables[name].encode()


def _is_directory(resource: Resource) -> bool:
    return os.path.isdir(str(resource.config.get("file", "")))


def _id(service: Service, kind: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 10:
        raise _wrong(service, kind, f"{text[:20]!r} is not the number of a user or group", "write uid: '1000'")
    return int(text)


def _directories(project: Project, service: Service) -> list[MountRequest]:
    """Return the secrets and configs that are folders: only a bind mount can give them."""
    found = []
    for kind, below in (("secrets", "/run/secrets"), ("configs", "/")):
        resources: dict[str, Resource] = getattr(project, kind)
        for one in service.get(kind, ()):
            resource = resources[one["source"]]
            if _is_directory(resource):
                target = os.path.join(below, one.get("target", one["source"]))
                source = str(resource.config["file"])
                found.append(MountRequest(type="bind", source=source, target=target, read_only=True))
    return found


# -- limits and isolation --------------------------------------------------------------------------------------------


def _limits(service: Service) -> dict[str, Any]:
    get = service.get
    resources = get("deploy", {}).get("resources", {})
    limits, reserved = resources.get("limits", {}), resources.get("reservations", {})
    pids = get("pids_limit", limits.get("pids"))
    blkio = get("blkio_config", {})
    return {
        "memory_bytes": get("mem_limit", limits.get("memory", 0)),
        "memory_swap_bytes": get("memswap_limit", 0),
        "memory_reservation_bytes": get("mem_reservation", reserved.get("memory", 0)),
        "memory_swappiness": get("mem_swappiness"),
        "cpu_nanos": get("cpus", limits.get("cpus", 0)),
        "pids_max": None if pids is None else max(pids, 0),
        "cpu_shares": get("cpu_shares", 0),
        "cpu_period_us": _microseconds(service, "cpu_period"),
        "cpu_quota_us": _microseconds(service, "cpu_quota"),
        "cpu_realtime_period_us": _microseconds(service, "cpu_rt_period"),
        "cpu_realtime_runtime_us": _microseconds(service, "cpu_rt_runtime"),
        "cpuset_cpus": get("cpuset", ""),
        "shm_bytes": get("shm_size", 0),
        "oom_kill_disable": get("oom_kill_disable", False),
        "oom_score_adj": get("oom_score_adj", 0),
        "blkio_weight": blkio.get("weight", 0),
        "blkio_weight_devices": tuple(DeviceWeight(**dict(one)) for one in blkio.get("weight_device", ())),
        **{
            name: tuple(DeviceRate(**dict(one)) for one in blkio.get(name, ()))
            for name in ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
        },
        "ulimits": tuple(
            UlimitRequest(name=name, soft=one["soft"], hard=one["hard"]) for name, one in get("ulimits", {}).items()
        ),
    }


def _microseconds(service: Service, key: str) -> int:
    """A number of microseconds, or a duration."""
    from ..cli.values import parse_duration

    text = service.get(key, "")
    digits = text.removeprefix("-")
    if not text or (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        return int(text or 0)
    try:
        return parse_duration(text) // 1000
    except BadValue as error:
        raise _wrong(service, key, str(error), error.hint) from None


def _isolation(project: Project, service: Service) -> dict[str, Any]:
    get = service.get
    try:
        rules = tuple(map(parse_device_rule, get("device_cgroup_rules", ())))
    except BadValue as error:
        raise _wrong(service, "device_cgroup_rules", str(error), error.hint) from None
    return {
        "cap_add": tuple(get("cap_add", ())),
        "cap_drop": tuple(get("cap_drop", ())),
        "privileged": get("privileged", False),
        "security_opt": tuple(security_option(_absolute_profile(project, one)) for one in get("security_opt", ())),
        "devices": tuple(DeviceRequest(**dict(one)) for one in get("devices", ())),
        "device_cgroup_rules": rules,
        "ipc": _mode(project, get("ipc", "")),
        "pid": _mode(project, get("pid", "")),
        "uts": get("uts", ""),
        "userns": get("userns_mode", ""),
        "cgroup_namespace": get("cgroup", ""),
        "cgroup_parent": get("cgroup_parent", ""),
        "isolation": get("isolation", ""),
        "sysctls": {name: value or "" for name, value in get("sysctls", {}).items()},
    }


def _absolute_profile(project: Project, text: str) -> str:
    """A seccomp profile's path is relative to the project."""
    for prefix in ("seccomp=", "seccomp:"):
        value = text.removeprefix(prefix)
        if value != text and value not in ("unconfined", "builtin") and not value.startswith("{"):
            return f"seccomp={os.path.join(project.directory, value)}"
    return text


def _mode(project: Project, mode: str) -> str:
    """service:NAME is the first container of a service."""
    if not mode.startswith("service:"):
        return mode
    return f"container:{project.container_name(project.service(mode.removeprefix('service:')), 1)}"


# -- networks ------------------------------------------------------------------------------------------------------


def networks_of(project: Project, service: Service) -> list[tuple[Resource, Any]]:
    """Return the networks of a service with what is wished there, in docker compose's order: by priority, then name."""
    if service.get("network_mode"):
        return []
    wishes = service.get("networks") or {DEFAULT: {}}
    found = [(network_resource(project, key), wish) for key, wish in wishes.items()]
    return sorted(found, key=lambda pair: (-pair[1].get("priority", 0), pair[0].key))


def network_resource(project: Project, key: str) -> Resource:
    """Return a network by its key; `default` need not be written."""
    return project.networks.get(key) or Resource(key, f"{project.name}_{key}", False, Map(project.document.place))


def _network(project: Project, service: Service, number: int) -> dict[str, Any]:
    get = service.get
    networks = networks_of(project, service)
    endpoints = tuple(_endpoint(project, service, number, resource, wish) for resource, wish in networks)
    if endpoints and not endpoints[0].mac_address:  # the service's own is that of its first place alone
        endpoints = (endpoints[0].replace(mac_address=get("mac_address", "")), *endpoints[1:])
    mode = _mode(project, get("network_mode", ""))
    return {
        "network": endpoints[0].network if endpoints else mode,
        "endpoints": endpoints,
        "ports": tuple(_port(service, one) for one in get("ports", ())),
        "exposed_ports": tuple(one if "/" in one else f"{one}/tcp" for one in get("expose", ())),
        "dns": tuple(get("dns", ())),
        "dns_search": tuple(get("dns_search", ())),
        "dns_options": tuple(get("dns_opt", ())),
        "extra_hosts": tuple(one.replace("=", ":", 1) for one in get("extra_hosts", ())),
    }


def _endpoint(project: Project, service: Service, number: int, resource: Resource, wish: Any) -> EndpointRequest:
    links = [_link(project, text) for text in service.get("links", ())]
    options = dict(wish.get("driver_opts", {}))
    if wish.get("interface_name"):
        options["com.docker.network.endpoint.ifname"] = wish["interface_name"]
    links += [text if ":" in text else f"{text}:{text}" for text in service.get("external_links", ())]
    return EndpointRequest(
        network=resource.name,
        aliases=tuple(dict.fromkeys((project.container_name(service, number), service.name, *wish.get("aliases", ())))),
        links=tuple(links),
        ipv4=wish.get("ipv4_address", ""),
        ipv6=wish.get("ipv6_address", ""),
        mac_address=wish.get("mac_address", ""),
        gw_priority=wish.get("gw_priority", 0),
        options=options,
        link_local=tuple(wish.get("link_local_ips", ())),
    )


def _link(project: Project, text: str) -> str:
    name, _, alias = text.partition(":")
    return f"{project.container_name(project.service(name), 1)}:{alias or name}"


def _port(service: Service, port: Any) -> PortRequest:
    host_ip = port.get("host_ip", "")
    shown = f"[{host_ip}]" if ":" in host_ip else host_ip
    text = f"{shown}:{port.get('published', '')}:" if shown or "published" in port else ""
    try:
        return parse_port(f"{text}{port['target']}/{port['protocol']}")
    except BadValue as error:
        raise _wrong(service, "ports", str(error), error.hint) from None


def _wrong(service: Service, key: str, cause: str, hint: str = "") -> Exception:
    return wrong(service.config.places.get(key), f"services.{service.name}.{key}", cause, hint)
