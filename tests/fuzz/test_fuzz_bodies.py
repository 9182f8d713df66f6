"""What docker's and podman's clients ask a container to be made of, against bodies that none of them would send."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orlop.engine.networks.store import Store
from orlop.frontends.docker import creation as docker
from orlop.frontends.docker.door import parse_body
from orlop.frontends.libpod import creation as libpod
from orlop.spec import jsonio
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import OrlopError
from support.fuzzing import Target, each

# Of an engine a translation reads nothing but which networks there are: none.
ENGINE = cast("Any", SimpleNamespace(networks=SimpleNamespace(store=None)))

DOCKER = {
    "Image": "i", "Cmd": ["sh", "-c", "x"], "Entrypoint": "e", "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/v": {}}, "StopTimeout": 5, "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
    "HostConfig": {
        "Binds": ["/a:/b:ro"], "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5}}],
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080-8081"}]}, "NetworkMode": "bridge",
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "Memory": 1048576, "NanoCpus": 5,
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/d", "CgroupPermissions": "r"}],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Tmpfs": {"/x": "size=1m"}, "CapAdd": ["CHOWN"],
        "SecurityOpt": ["profile=strict"], "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}],
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["a/b=c"]}],
    },
    "NetworkingConfig": {"EndpointsConfig": {"n": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.5"}}}},
}  # fmt: skip
PODMAN = {
    "name": "c", "image": "i", "command": ["sh"], "entrypoint": ["e"], "env": {"A": "b"}, "stdin": True,
    "mounts": [{"type": "bind", "source": "/a", "destination": "/b", "options": ["rbind", "ro"]}],
    "volumes": [{"Name": "v", "Dest": "/v", "Options": ["rw"]}], "timezone": "UTC", "umask": "0022",
    "portmappings": [{"host_port": 8080, "container_port": 80, "range": 2, "protocol": "tcp,udp"}],
    "expose": {"80": "tcp"}, "netns": {"nsmode": "bridge"}, "userns": {"nsmode": "auto", "value": "size=1000"},
    "idmappings": {"UIDMap": [{"container_id": 0, "host_id": 1, "size": 9}], "GIDMap": []},
    "Networks": {"podman": {"aliases": ["a"], "static_ips": ["10.0.0.5"]}}, "restart_policy": "always",
    "resource_limits": {"memory": {"limit": 1048576}, "cpu": {"quota": 5, "period": 1000}, "pids": {"limit": 9}},
    "r_limits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}], "read_only_filesystem": True, "work_dir": "/w",
    "log_configuration": {"driver": "k8s-file", "size": 5}, "devices": [{"path": "/dev/null:/d:r"}],
    "healthconfig": {"Test": ["CMD", "true"]}, "secrets": [{"Source": "s", "Target": "t", "Mode": 256}],
}  # fmt: skip


def _docker(data: bytes) -> None:
    _looked_at(docker.container(parse_body(data), "c", ""))


def _podman(data: bytes) -> None:
    _looked_at(libpod.container(ENGINE, parse_body(data)))


def _looked_at(request: ContainerRequest) -> None:
    try:
        again = ContainerRequest.from_json(jsonio.parse_object(jsonio.dump(request.to_json()), "itself"))
    except OrlopError as wrong:  # a container's record that nobody reads again: it can't be removed, either
        raise AssertionError(f"what was taken is not read again: {wrong}") from None
    assert again == request


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


TARGETS = [
    Target("docker-creation", _docker, [_dump(DOCKER), _dump({"Image": "i"})], (OrlopError,)),
    Target("podman-creation", _podman, [_dump(PODMAN)], (OrlopError,)),
]


@pytest.fixture(scope="module", autouse=True)
def no_networks(tmp_path_factory: pytest.TempPathFactory) -> None:
    ENGINE.networks.store = Store(str(tmp_path_factory.mktemp("networks")))


@each(TARGETS)
def test_a_parser_takes_or_refuses(target: Target) -> None:
    target.try_all()
