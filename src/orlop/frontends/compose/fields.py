"""Every key of the compose specification, with what converts its value; short forms become the long ones here.

What comes out is canonical, so that files can be merged key by key: ports, mounts, secrets and the like are lists of
mappings, environment, labels and dependencies are mappings. Relative paths are made absolute by `Fields.directory`.
Source: compose-spec/schema/compose-spec.json, 2026-06; compose-spec 05-services.md and its neighbours.
"""

from __future__ import annotations

import os
from typing import Any

from ..cli.flags import BadValue
from ..cli.limits import parse_device, parse_ulimit
from ..cli.networking import parse_port
from .document import List, Map, Place, wrong
from .interpolation import Template
from .values import (
    Converter,
    anything,
    boolean,
    command,
    converted,
    cpus,
    duration,
    integer,
    list_of,
    mapping_of,
    mode,
    nullable,
    number,
    one_of,
    one_or_list,
    pairs,
    record,
    scalar,
    size,
    swap,
    text,
    unread,
)

CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
PORTS_MAX = 65536
REMOTE_HINT = "fetch it yourself, look at it, and name the file"


def is_remote(name: str) -> bool:
    """Whether docker compose would fetch a compose file of this name: of a registry, or out of a repository."""
    return "://" in name or name.startswith("git@")


class Fields:
    """The converters of one file: relative paths in it are below its directory. absolute: make them so."""

    def __init__(self, directory: str, *, absolute: bool = True) -> None:
        self.directory = directory
        self.absolute = absolute
        self.document = record(self._top())

    def path(self, value: Any, path: str, place: Place) -> str:
        """An absolute path; ~ is the user's home."""
        found = text(value, path, place)
        if not self.absolute or (isinstance(value, Template) and value.startswith("$")):
            return found
        return self._absolute(found)

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.directory, os.path.expanduser(path)))

    def file(self, value: Any, path: str, place: Place) -> str:
        """Another compose file. None is fetched: what a registry or a repository names could lie anywhere (SEC-76)."""
        if is_remote(text(value, path, place)):
            raise wrong(place, path, "compose files are not fetched from elsewhere", REMOTE_HINT)
        return self._absolute(value)

    def source(self, value: Any, path: str, place: Place) -> str:
        """A build context or the like: a URL and what has a scheme stays as it is."""
        found = text(value, path, place)
        if "://" in found or found.startswith(("git@", "service:", "target:", "docker-image:", "oci-layout:")):
            return found
        return self.path(value, path, place)

    # -- the top level ---------------------------------------------------------------------------------------------

    def _top(self) -> dict[str, Converter]:
        return {
            "version": scalar,
            "name": text,
            "include": list_of(self._include),
            "services": mapping_of(self.service),
            "networks": mapping_of(_or_empty(record(_NETWORK))),
            "volumes": mapping_of(_or_empty(record(_VOLUME))),
            "secrets": mapping_of(record(_FILE_OBJECT | {"file": self.path})),
            "configs": mapping_of(record(_FILE_OBJECT | {"file": self.path, "content": text})),
            "models": mapping_of(anything),
        }

    def _include(self, value: Any, path: str, place: Place) -> Map:
        if isinstance(value, str):
            made = Map(place)
            made.put("path", [self.file(value, path, place)], place)
            return made
        keys = {
            "path": one_or_list(self.file),
            "project_directory": self.path,
            "env_file": one_or_list(self.path),
        }
        found: Map = record(keys, required=("path",))(value, path, place)
        return found

    # -- services --------------------------------------------------------------------------------------------------

    def service(self, value: Any, path: str, place: Place) -> Map:
        """One entry of services."""
        if value is None:
            return Map(place)
        found: Map = record(self._service())(value, path, place)
        return found

    def _service(self) -> dict[str, Converter]:
        return {
            **_SERVICE,
            "build": self._build,
            "configs": list_of(_grant),
            "secrets": list_of(_grant),
            "develop": record({"watch": list_of(record(_WATCH | {"path": self.path}, required=("path", "action")))}),
            "env_file": self._env_file,
            "extends": self._extends,
            "label_file": one_or_list(self.path),
            "volumes": list_of(self._mount),
        }

    def _build(self, value: Any, path: str, place: Place) -> Map:
        if isinstance(value, str):
            made = Map(place)
            made.put("context", self.source(value, path, place), place)
            made.put("dockerfile", "Dockerfile", place)
            return made
        contexts = _with_values(pairs(), self.source)
        found: Map = record(_BUILD | {"context": self.source, "additional_contexts": contexts})(value, path, place)
        if "context" not in found:
            found.put("context", self.directory if self.absolute else ".", place)
        if not found.keys() & {"dockerfile", "dockerfile_inline"}:
            found.put("dockerfile", "Dockerfile", place)
        return found

    def _env_file(self, value: Any, path: str, place: Place) -> list[Any]:
        def one(item: Any, where: str, at: Place) -> Map:
            if isinstance(item, str):
                made = Map(at)
                made.put("path", self.path(item, where, at), at)
                return made
            keys = {"path": self.path, "required": boolean, "format": one_of("raw")}
            found: Map = record(keys, required=("path",))(item, where, at)
            return found

        found: list[Any] = one_or_list(one)(value, path, place)
        return found

    def _extends(self, value: Any, path: str, place: Place) -> Map:
        if isinstance(value, str):
            made = Map(place)
            made.put("service", value, place)
            return made
        found: Map = record({"service": text, "file": self.file}, required=("service",))(value, path, place)
        return found

    def _mount(self, value: Any, path: str, place: Place) -> Map:
        if isinstance(value, str):
            return self._short_mount(value, path, place)
        found: Map = record(_MOUNT, required=("type",))(value, path, place)
        if found["type"] == "bind":
            found["source"] = self.path(found.get("source"), f"{path}.source", place)
        if not found.get("target"):
            raise wrong(place, path, "target is missing")
        return found

    def _short_mount(self, value: str, path: str, place: Place) -> Map:
        """[SOURCE:]TARGET[:OPTIONS]; a source that begins with . / or ~ is a path."""
        parts = value.split(":", 2)
        if isinstance(value, Template):
            raise unread(path, place)
        if not all(parts):
            raise wrong(place, path, f"invalid spec: {value}: empty section between colons", "write SOURCE:TARGET:ro")
        made = Map(place)
        source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
        is_path = source.startswith((".", "/", "~"))
        made.put("type", "bind" if is_path else "volume", place)
        if source:
            made.put("source", self.path(source, path, place) if is_path else source, place)
        made.put("target", target, place)
        if len(parts) > 2:
            _put_options(made, parts[2].split(","), place)
        return made


# -- pieces that know no directory ---------------------------------------------------------------------------------


_PROPAGATIONS = frozenset(f"{r}{word}" for r in ("", "r") for word in ("shared", "slave", "private"))


def _put_options(mount: Map, options: list[str], place: Place) -> None:
    """Put what stands behind the second colon of a short mount where the long form has it.

    What the long form has no key for (as=UID and the like) stays in `options`, as `-v` takes it.
    """
    mine: dict[str, Any] = {}
    rest = []
    for option in options:
        if option in ("ro", "rw"):
            if option == "ro":
                mount.put("read_only", True, place)
        elif option in _PROPAGATIONS and mount["type"] == "bind":
            mine["propagation"] = option
        elif option in ("z", "Z") and mount["type"] == "bind":
            mine["selinux"] = option
        elif option == "nocopy" and mount["type"] == "volume":
            mine["nocopy"] = True
        else:
            rest.append(option)
    if mine:
        mount.put(mount["type"], mine, place)
    if rest:
        mount.put("options", rest, place)


def _or_empty(convert: Converter) -> Converter:
    return lambda value, path, place: Map(place) if value is None else convert(value, path, place)


def _with_values(convert: Converter, convert_value: Converter) -> Converter:
    def both(value: Any, path: str, place: Place) -> Map:
        found: Map = convert(value, path, place)
        return found.like({key: convert_value(one, f"{path}.{key}", found.places[key]) for key, one in found.items()})

    return both


def _named(convert_value: Converter) -> Converter:
    """A list of names, or a mapping from names to what is wished there."""

    def convert(value: Any, path: str, place: Place) -> Map:
        if not isinstance(value, List):
            found: Map = mapping_of(_or_empty(convert_value))(value, path, place)
            return found
        made = Map(place)
        for item, where in zip(value, value.places, strict=True):
            made.put(text(item, path, where), Map(where), where)
        return made

    return convert


def _dependencies(value: Any, path: str, place: Place) -> Map:
    found: Map = _named(record(_DEPENDENCY))(value, path, place)
    for wish in found.values():
        wish.setdefault("condition", CONDITIONS[0])
        wish.setdefault("required", True)
        wish.setdefault("restart", False)
    return found


def _ports(value: Any, path: str, place: Place) -> list[Any]:
    """Each range as one mapping, with docker's short form read as `-p` is."""
    if not isinstance(value, List):
        raise wrong(place, path, "must be a list", "begin its lines with `- `")
    made = []
    for at, (item, where) in enumerate(zip(value, value.places, strict=True)):
        here = f"{path}[{at}]"
        port: Map
        if isinstance(item, Map):
            port = record(_PORT, required=("target",))(item, here, where)
            port.setdefault("protocol", "tcp")
        else:
            port = converted(_short_port, item, here, where)
        made.append(port)
    return made


def _short_port(value: Any, path: str, place: Place) -> Map:
    if isinstance(value, Template):
        raise unread(path, place)
    try:
        asked = parse_port(scalar(value, path, place))
    except BadValue as error:
        raise wrong(place, path, str(error), error.hint) from None
    made = Map(place)
    made.put("target", _range(asked.first, asked.last), place)
    if asked.host_first:
        made.put("published", _range(asked.host_first, asked.host_last), place)
    if asked.host_ip:
        made.put("host_ip", asked.host_ip, place)
    made.put("protocol", asked.protocol, place)
    return made


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _grant(value: Any, path: str, place: Place) -> Map:
    if isinstance(value, str):
        made = Map(place)
        made.put("source", value, place)
        return made
    keys = {"source": text, "target": text, "uid": scalar, "gid": scalar, "mode": mode}
    found: Map = record(keys, required=("source",))(value, path, place)
    return found


def _health_test(value: Any, path: str, place: Place) -> list[str]:
    if isinstance(value, List):
        words: list[str] = list_of(scalar)(value, path, place)
        if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL", "HTTP", "TCP"):
            raise wrong(place, path, "the first word must be NONE, CMD or CMD-SHELL", 'write ["CMD", "true"]')
        return words
    return ["CMD-SHELL", text(value, path, place)]


def _ulimits(value: Any, path: str, place: Place) -> Map:
    def one(item: Any, where: str, at: Place) -> Map:
        made = Map(at)
        if isinstance(item, Map):
            made = record({"soft": integer, "hard": integer}, required=("soft", "hard"))(item, where, at)
        else:
            limit = integer(item, where, at)
            made.update(soft=limit, hard=limit)
        name = where.rpartition(".")[2]
        try:
            parse_ulimit(f"{name}={made['soft']}:{made['hard']}")
        except BadValue as error:
            raise wrong(at, where, str(error), error.hint) from None
        return made

    found: Map = mapping_of(one)(value, path, place)
    return found


def _hosts(value: Any, path: str, place: Place) -> list[str]:
    """NAME=ADDRESS, from a list of that (NAME:ADDRESS too) or from a mapping of one or more addresses."""
    if isinstance(value, List):
        return [item if "=" in item else item.replace(":", "=", 1) for item in list_of(text)(value, path, place)]
    found: Map = mapping_of(one_or_list(text))(value, path, place)
    return [f"{name}={address}" for name, addresses in found.items() for address in addresses]


def _device(value: Any, path: str, place: Place) -> Map:
    if not isinstance(value, str):
        keys: dict[str, Converter] = {"source": text, "target": text, "permissions": text}
        found: Map = record(keys, required=("source",))(value, path, place)
        found.setdefault("target", found["source"])
        found.setdefault("permissions", "rwm")
        return found
    if isinstance(value, Template):
        raise unread(path, place)
    try:
        device = parse_device(value)
    except BadValue as error:
        raise wrong(place, path, str(error), error.hint) from None
    made = Map(place)
    made.update(source=device.source, target=device.target, permissions=device.permissions)
    return made


# fmt: off
_PORT: dict[str, Converter] = {
    "target": scalar, "published": scalar, "host_ip": text, "protocol": one_of("tcp", "udp", "sctp"),
    "mode": one_of("host", "ingress"), "name": text, "app_protocol": text,
}
_MOUNT: dict[str, Converter] = {
    "type": one_of("bind", "volume", "tmpfs", "image", "cluster", "npipe"), "source": text, "target": text,
    "read_only": boolean, "consistency": text,
    "bind": record({
        "propagation": text, "create_host_path": boolean, "selinux": text,
        "recursive": one_of("enabled", "disabled", "writable", "readonly"),
    }),
    "volume": record({"nocopy": boolean, "subpath": text, "labels": pairs()}),
    "tmpfs": record({"size": size, "mode": mode}),
    "image": record({"subpath": text}),
}
_DEPENDENCY: dict[str, Converter] = {"condition": one_of(*CONDITIONS), "restart": boolean, "required": boolean}
_WATCH: dict[str, Converter] = {
    "action": one_of("sync", "rebuild", "restart", "sync+restart", "sync+exec"), "target": text,
    "ignore": one_or_list(text), "include": one_or_list(text), "initial_sync": boolean,
    "exec": record({"command": command, "user": text, "privileged": boolean, "working_dir": text,
                    "environment": pairs()}),
}
_BUILD: dict[str, Converter] = {
    "dockerfile": text, "dockerfile_inline": text, "args": pairs(), "ssh": pairs(), "cache_from": list_of(text),
    "cache_to": list_of(text), "no_cache": boolean, "no_cache_filter": one_or_list(text), "pull": boolean,
    "extra_hosts": _hosts, "isolation": text, "privileged": boolean, "labels": pairs(), "network": text,
    "secrets": list_of(_grant), "shm_size": size, "tags": list_of(text), "target": text, "ulimits": _ulimits,
    "platforms": list_of(text), "entitlements": list_of(text), "provenance": scalar, "sbom": scalar,
}
_HEALTH: dict[str, Converter] = {
    "test": _health_test, "interval": duration, "timeout": duration, "retries": integer, "start_period": duration,
    "start_interval": duration, "disable": boolean,
}
_ENDPOINT: dict[str, Converter] = {
    "aliases": list_of(text), "ipv4_address": text, "ipv6_address": text, "link_local_ips": list_of(text),
    "mac_address": text, "priority": integer, "gw_priority": integer, "driver_opts": mapping_of(scalar),
    "interface_name": text,
}
_LIMITS: dict[str, Converter] = {"cpus": cpus, "memory": size, "pids": integer}
_RESERVATIONS = _LIMITS | {"devices": list_of(anything), "generic_resources": list_of(anything)}
_ROLLOUT: dict[str, Converter] = {
    "parallelism": integer, "delay": duration, "failure_action": text, "monitor": duration,
    "max_failure_ratio": number, "order": one_of("start-first", "stop-first"),
}
_DEPLOY: dict[str, Converter] = {
    "mode": one_of("replicated", "global", "replicated-job", "global-job"), "endpoint_mode": text,
    "replicas": integer, "labels": pairs(),
    "update_config": record(_ROLLOUT), "rollback_config": record(_ROLLOUT),
    "resources": record({"limits": record(_LIMITS), "reservations": record(_RESERVATIONS)}),
    "restart_policy": record({
        "condition": one_of("none", "on-failure", "any"), "delay": duration, "max_attempts": integer,
        "window": duration,
    }),
    "placement": record({"constraints": list_of(text), "preferences": list_of(anything),
                         "max_replicas_per_node": integer}),
}
_HOOK: dict[str, Converter] = {
    "command": command, "user": text, "privileged": boolean, "working_dir": text, "environment": pairs(),
}
_BLKIO: dict[str, Converter] = {
    "weight": integer,
    "weight_device": list_of(record({"path": text, "weight": integer}, required=("path", "weight"))),
    **{name: list_of(record({"path": text, "rate": size}, required=("path", "rate")))
       for name in ("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops")},
}
_SERVICE: dict[str, Converter] = {
    "annotations": pairs(), "attach": boolean, "blkio_config": record(_BLKIO), "cap_add": list_of(text),
    "cap_drop": list_of(text), "cgroup": one_of("host", "private"), "cgroup_parent": text, "command": command,
    "container_name": text, "cpu_count": integer, "cpu_percent": number, "cpu_period": scalar, "cpu_quota": scalar,
    "cpu_rt_period": scalar, "cpu_rt_runtime": scalar, "cpu_shares": integer, "cpus": cpus, "cpuset": text,
    "credential_spec": anything, "depends_on": _dependencies, "deploy": record(_DEPLOY),
    "device_cgroup_rules": list_of(text), "devices": list_of(_device), "dns": one_or_list(text),
    "dns_opt": list_of(text), "dns_search": one_or_list(text), "domainname": text, "entrypoint": command,
    "environment": pairs(), "expose": list_of(scalar), "external_links": list_of(text), "extra_hosts": _hosts,
    "gpus": anything, "group_add": list_of(scalar), "healthcheck": record(_HEALTH), "hostname": text, "image": text,
    "init": boolean, "ipc": text, "isolation": text, "labels": pairs(), "links": list_of(text),
    "logging": record({"driver": text, "options": mapping_of(nullable(scalar))}), "mac_address": text,
    "mem_limit": size, "mem_reservation": size, "mem_swappiness": integer, "memswap_limit": swap, "models": anything,
    "network_mode": text, "networks": _named(record(_ENDPOINT)), "oom_kill_disable": boolean,
    "oom_score_adj": integer, "pid": text, "pids_limit": integer, "platform": text, "ports": _ports,
    "post_start": list_of(record(_HOOK, required=("command",))),
    "pre_stop": list_of(record(_HOOK, required=("command",))), "privileged": boolean, "profiles": list_of(text),
    "provider": anything, "pull_policy": text, "pull_refresh_after": text, "read_only": boolean, "restart": text,
    "runtime": text, "scale": integer, "security_opt": list_of(text), "shm_size": size, "stdin_open": boolean,
    "stop_grace_period": duration, "stop_signal": text, "storage_opt": mapping_of(scalar), "sysctls": pairs(),
    "tmpfs": one_or_list(text), "tty": boolean, "ulimits": _ulimits, "use_api_socket": boolean, "user": scalar,
    "userns_mode": text, "uts": text, "volumes_from": list_of(text), "working_dir": text,
}
_NETWORK: dict[str, Converter] = {
    "name": text, "driver": text, "driver_opts": mapping_of(scalar), "attachable": boolean, "enable_ipv4": boolean,
    "enable_ipv6": boolean, "internal": boolean, "labels": pairs(),
    "external": lambda value, path, place: value if isinstance(value, Map) else boolean(value, path, place),
    "ipam": record({
        "driver": text, "options": mapping_of(scalar),
        "config": list_of(record({
            "subnet": text, "gateway": text, "ip_range": text, "aux_addresses": mapping_of(text),
        })),
    }),
}
_VOLUME: dict[str, Converter] = {
    "name": text, "driver": text, "driver_opts": mapping_of(scalar), "labels": pairs(),
    "external": _NETWORK["external"],
}
_FILE_OBJECT: dict[str, Converter] = {
    "name": text, "environment": text, "external": _NETWORK["external"], "labels": pairs(), "driver": text,
    "driver_opts": mapping_of(scalar), "template_driver": text,
}
# fmt: on
