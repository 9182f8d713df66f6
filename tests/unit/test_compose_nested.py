"""Every key below a key of a compose file, one by one: it changes what is asked of the engine, or is named, or refused.

The keys of services themselves are tried in test_compose_files.py; what images, hooks and watching read has its tests
where they are. A key that is in no row is told by `test_every_key_has_its_row`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orlop.frontends.compose import fields, loading, project, request
from orlop.spec.errors import OrlopError, Unsupported

TOP = {"networks": "n: {}", "volumes": "v: {}", "secrets": "s: {environment: S}", "configs": "c: {content: x}"}
ALL = "networks: [n]\n    volumes: ['v:/v']\n    secrets: [s]\n    configs: [c]"
OTHERS_PROVE = {"networks.priority"}  # of one network there is no order: test_compose_files.py


def rows() -> dict[str, tuple[str, str, str]]:
    """Return what is tried: where -> (the section, its text without the key, with it)."""
    found: dict[str, tuple[str, str, str]] = {}

    def put(where: str, around: str, keys: dict[str, str], section: str = "web") -> None:
        for key, value in keys.items():
            less = around.replace(", @", "").replace("@", "")
            found[f"{where}.{key}"] = (section, less, around.replace("@", f"{key}: {value}"))

    put("ports", "ports: [{target: 80, published: '9', @}]", {
        "host_ip": "127.0.0.1", "protocol": "udp", "app_protocol": "http",
    })  # fmt: skip
    put("ports", "ports: [{target: 80, @}]", {"published": "'9'"})
    put("volumes", "volumes: [{type: bind, source: ./e, target: /x, @}]", {"read_only": "true"})
    put("volumes.bind", "volumes: [{type: bind, source: ./e, target: /x, bind: {@}}]", {
        "propagation": "shared", "create_host_path": "false", "selinux": "z", "recursive": "disabled",
    })  # fmt: skip
    put("volumes.volume", "volumes: [{type: volume, source: v, target: /x, volume: {@}}]", {
        "nocopy": "true", "subpath": "a", "labels": "{a: b}",
    })  # fmt: skip
    put("volumes.tmpfs", "volumes: [{type: tmpfs, target: /x, tmpfs: {@}}]", {"size": "5m", "mode": "0o700"})
    put("volumes.image", "volumes: [{type: image, source: i, target: /x, image: {@}}]", {"subpath": "a"})
    put("healthcheck", "healthcheck: {test: x, @}", {
        "interval": "5s", "timeout": "5s", "retries": "5", "start_period": "5s", "start_interval": "5s",
        "disable": "true",
    })  # fmt: skip
    put("networks", "networks: {n: {@}}", {
        "aliases": "[a]", "ipv4_address": "10.0.0.5", "ipv6_address": "'fd00::5'", "link_local_ips": "[169.254.1.1]",
        "mac_address": "'02:00:00:00:00:01'", "gw_priority": "5", "driver_opts": "{a: b}", "interface_name": "lan",
    })  # fmt: skip
    put("depends_on", "depends_on: {db: {@}}", {"condition": "service_healthy", "restart": "true", "required": "false"})
    put("logging", "logging: {@}", {"driver": "none", "options": "{a: b}"})
    for kind in ("secrets", "configs"):
        put(kind, f"{kind}: [{{source: {kind[0]}, @}}]", {"target": "/y", "uid": "'5'", "gid": "'5'", "mode": "0o400"})
    device = {f"device_{way}_{unit}": "[{path: /d, rate: 5}]" for way in ("read", "write") for unit in ("bps", "iops")}
    put("blkio_config", "blkio_config: {@}", {"weight": "300", "weight_device": "[{path: /d, weight: 5}]", **device})
    put("devices", "devices: [{source: /dev/null, @}]", {"target": "/dev/x", "permissions": "r"})
    put("env_file", "env_file: [{path: ./q, @}]", {"format": "raw"})
    put("deploy", "deploy: {@}", {
        "mode": "global", "endpoint_mode": "vip", "replicas": "2", "labels": "{a: b}",
        "placement": "{constraints: [a]}", "update_config": "{parallelism: 2}",
        "rollback_config": "{order: stop-first}",
    })  # fmt: skip
    put("deploy.resources.limits", "deploy: {resources: {limits: {@}}}", {"cpus": "1", "memory": "5m", "pids": "5"})
    put("deploy.resources.reservations", "deploy: {resources: {reservations: {@}}}", {
        "cpus": "1", "memory": "5m", "pids": "5", "devices": "[{capabilities: [gpu]}]",
        "generic_resources": "[{discrete_resource_spec: {kind: g, value: 1}}]",
    })  # fmt: skip
    put("deploy.restart_policy", "deploy: {restart_policy: {@}}", {
        "condition": "on-failure", "delay": "5s", "max_attempts": "3", "window": "5s",
    })  # fmt: skip
    named = {"name": "z", "labels": "{a: b}", "external": "true"}
    driven = {"driver": "x", "driver_opts": "{a: b}"}
    put("top.networks", "n: {@}", named | driven | {
        "attachable": "true", "enable_ipv4": "false", "enable_ipv6": "true", "internal": "true",
    }, "networks")  # fmt: skip
    put("top.networks.ipam", "n: {ipam: {@}}", {"driver": "x", "options": "{a: b}"}, "networks")
    put("top.networks.ipam.config", "n: {ipam: {config: [{@}]}}", {"subnet": "10.9.0.0/24"}, "networks")
    put("top.networks.ipam.config", "n: {ipam: {config: [{subnet: 10.9.0.0/24, @}]}}", {
        "gateway": "10.9.0.9", "ip_range": "10.9.0.0/25", "aux_addresses": "{a: 10.9.0.7}",
    }, "networks")  # fmt: skip
    put("top.volumes", "v: {@}", named | driven, "volumes")
    for kind, given in (("secrets", "s: {environment: S, @}"), ("configs", "c: {content: x, @}")):
        put(f"top.{kind}", given, driven | {"name": "z", "labels": "{a: b}", "template_driver": "x"}, kind)
        put(f"top.{kind}", f"{kind[0]}: {{@}}", {"file": "./e", "environment": "S", "external": "true"}, kind)
    put("top.configs", "c: {@}", {"content": "y"}, "configs")
    return found


ROWS = rows()


def asked(directory: Path, section: str, text: str) -> object:
    """Return all that a project of this text asks of the engine, or the error that says where it can't be."""
    tops = dict(TOP) | ({section: text} if section in TOP else {})
    service = text if section == "web" else ALL
    lines = [f"services:\n  web:\n    image: b\n    {service}\n  db: {{image: b}}"]
    lines += [f"{name}: {{{value}}}" for name, value in tops.items()]
    (directory / "compose.yaml").write_text("\n".join(lines) + "\n")
    for name in "eq":
        (directory / name).write_text("A='b'\n")
    try:
        loaded = loading.load(loading.Sources([str(directory / "compose.yaml")], environ={"S": "value"}))
        return said(project.make(loaded))
    except OrlopError as wrong:
        return wrong


def said(made: project.Project) -> list[object]:
    web = made.service("web")
    container: dict[str, Any] = request.container(made, web, 1, {"db": 1}).to_json()
    found: list[object] = [
        {key: value for key, value in container.items() if key != "labels"},
        request.without_effect(made),
    ]
    found += [request.network(made, one).to_json() for one in made.networks.values() if not one.external]
    found += [request.volume(made, one).to_json() for one in made.volumes.values() if not one.external]
    for kind in ("secrets", "configs"):
        found += [request.data(made, kind, *one).to_json() for one in request.stored(made, [web], kind).items()]
    tops = (made.networks, made.volumes, made.secrets, made.configs)
    found += [(one.key, one.name, one.external) for top in tops for one in top.values()]
    return [*found, web.scale, sorted((name, repr(wish)) for name, wish in web.depends_on.items())]


@pytest.mark.parametrize("where", sorted(ROWS))
def test_a_key_is_obeyed_named_or_refused_with_its_place(tmp_path: Path, where: str) -> None:
    """red: with a key that is read and forgotten; ports' app_protocol was."""
    section, without, with_it = ROWS[where]
    before, after = asked(tmp_path, section, without), asked(tmp_path, section, with_it)
    if isinstance(after, OrlopError):
        assert "compose.yaml:" in str(after) and isinstance(after, Unsupported) and after.hint, after
    elif isinstance(before, OrlopError):  # what is nothing without the key
        assert "compose.yaml:" in str(before), before
    else:
        assert after != before


def test_every_key_has_its_row() -> None:
    known = {
        "ports": set(fields._PORT) - {"target", "mode", "name"},  # where it is; the same here; for who reads the file
        "healthcheck": set(fields._HEALTH) - {"test"},
        "networks": set(fields._ENDPOINT),
        "depends_on": set(fields._DEPENDENCY),
        "blkio_config": set(fields._BLKIO),
        "deploy": set(fields._DEPLOY) - {"resources", "restart_policy"},
        "deploy.resources.limits": set(fields._LIMITS),
        "deploy.resources.reservations": set(fields._RESERVATIONS),
        "top.networks": set(fields._NETWORK) - {"ipam"},
        "top.volumes": set(fields._VOLUME),
        "top.secrets": set(fields._FILE_OBJECT) | {"file"},
        "top.configs": set(fields._FILE_OBJECT) | {"file", "content"},
    }
    missing = {f"{where}.{key}" for where, keys in known.items() for key in keys} - set(ROWS)
    assert missing == OTHERS_PROVE


def test_models_are_refused_and_limits_reserve_nothing(tmp_path: Path) -> None:
    text = "services:\n  web:\n    image: b\nmodels:\n  m: {model: ai/x}\n"
    (tmp_path / "compose.yaml").write_text(text)
    made = project.make(loading.load(loading.Sources([str(tmp_path / "compose.yaml")], environ={})))
    with pytest.raises(Unsupported, match=r"compose\.yaml:4:1: models: "):
        request.container(made, made.service("web"), 1, {})
    wrong = asked(tmp_path, "web", "deploy: {resources: {limits: {devices: [{capabilities: [gpu]}]}}}")
    assert isinstance(wrong, OrlopError) and "compose.yaml:4:35: " in str(wrong)
