"""`show-run --as`: a request in the words of compose, Kubernetes and quadlet; what they can't say is told."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from orlop.frontends.cli.written import compose, kube, quadlet
from orlop.frontends.compose import loading, project
from orlop.frontends.compose import request as requests
from orlop.spec.container import (
    BindRequest,
    ContainerRequest,
    DeviceRate,
    DeviceRequest,
    DeviceWeight,
    GrantRequest,
    TmpfsRequest,
    UlimitRequest,
)
from orlop.spec.health import Healthcheck
from orlop.spec.mount import BindOptions, ImageOptions, MountRequest, TmpfsOptions, VolumeOptions
from orlop.spec.network import EndpointRequest, PortRequest

# A value of each field that is not its default.
VALUES: dict[str, object] = {
    "image": "i:1",
    "rootfs": "/srv/root",
    "entrypoint": ("/bin/sh", "-c"),
    "args": ("echo $HOME 100%", 'it\'s "here"', ""),
    "env": ("A=$x %h ${y}", "B="),
    "user": "1000:1000",
    "group_add": ("7",),
    "working_dir": "/w d",
    "hostname": "h",
    "domainname": "example.org",
    "labels": {"a": "b c", "n": "1"},
    "annotations": {"x": "y$z"},
    "terminal": True,
    "open_stdin": True,
    "binds": (BindRequest(source="/s", target="/t", options=("ro",)), BindRequest(source="data", target="/d")),
    "tmpfs": (TmpfsRequest(target="/x", options=("size=64m",)),),
    "mounts": (
        MountRequest(type="bind", source="/a", target="/b", read_only=True, bind=BindOptions(propagation="rslave")),
        MountRequest(type="volume", source="v", target="/v", volume=VolumeOptions(no_copy=True, subpath="p")),
        MountRequest(type="tmpfs", target="/m", tmpfs=TmpfsOptions(size_bytes=4096, mode=0o1777)),
        MountRequest(type="image", source="j", target="/j", image=ImageOptions(subpath="q")),
    ),
    "secrets": (GrantRequest(source="key", target="/k", uid=7, mode=0o400),),
    "configs": (GrantRequest(source="conf", target="/c"),),
    "volumes_from": ("other:ro",),
    "volume_driver": "local",
    "storage_opt": {"size": "1g"},
    "read_only": True,
    "memory_bytes": 64 << 20,
    "memory_swap_bytes": -1,
    "memory_reservation_bytes": 32 << 20,
    "memory_swappiness": 0,
    "kernel_memory_bytes": 1 << 30,
    "cpu_nanos": 1_500_000_000,
    "pids_max": 0,
    "cap_add": ("NET_ADMIN",),
    "cap_drop": ("ALL",),
    "privileged": True,
    "security_opt": ("no-new-privileges", "seccomp=unconfined"),
    "network": "host",
    "endpoints": (EndpointRequest(network="bridge", aliases=("a",), ipv4="10.0.0.9"),),
    "ports": (
        PortRequest(host_first=8080, host_last=8080, first=80, last=80),
        PortRequest(host_ip="::1", host_first=53, host_last=54, first=53, last=54, protocol="udp"),
    ),
    "publish_all": True,
    "dns": ("10.0.0.1",),
    "dns_search": ("example.org",),
    "dns_options": ("ndots:2",),
    "extra_hosts": ("db:10.0.0.2",),
    "links": ("db:store",),
    "egress": "deny",
    "egress_allow": ("example.org:443",),
    "host_access": ("5432",),
    "stop_signal": "SIGINT",
    "stop_timeout_s": 3,
    "restart_policy": "always",
    "restart_retries_max": 4,
    "depends_on": ("db:healthy",),
    "health": Healthcheck(test=("CMD-SHELL", "true $x"), interval=10**9, timeout=2 * 10**9, retries=3),
    "health_on_failure": "kill",
    "init": True,
    "log_driver": "json-file",
    "log_options": {"max-size": "1m"},
    "exposed_ports": ("81/tcp",),
    "platform": "linux/amd64",
    "runtime": "orlop",
    "isolation": "default",
    "devices": (DeviceRequest(source="/dev/fuse", target="/dev/f", permissions="rw"),),
    "device_cgroup_rules": ("c 42:* rmw",),
    "ipc": "host",
    "pid": "host",
    "uts": "host",
    "time": "host",
    "userns": "host",
    "cgroup_namespace": "host",
    "cgroup_parent": "/x",
    "shm_bytes": 1 << 20,
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "ulimits": (UlimitRequest(name="core", soft=1, hard=-1),),
    "umask": 0o27,
    "timeout_s": 50,
    "oom_kill_disable": True,
    "oom_score_adj": 5,
    "cpu_shares": 512,
    "cpu_period_us": 50000,
    "cpu_quota_us": 25000,
    "cpu_realtime_period_us": 1000,
    "cpu_realtime_runtime_us": 500,
    "cpuset_cpus": "0",
    "cpuset_mems": "0",
    "blkio_weight": 100,
    "blkio_weight_devices": (DeviceWeight(path="/dev/vda", weight=10),),
    "device_read_bps": (DeviceRate(path="/dev/vda", rate=1000),),
    "device_write_bps": (DeviceRate(path="/dev/vda", rate=1001),),
    "device_read_iops": (DeviceRate(path="/dev/vda", rate=10),),
    "device_write_iops": (DeviceRate(path="/dev/vda", rate=11),),
}
# Of the moment, or said by what calls it.
OF_NO_FORM = {"name", "attach", "stdin_once", "unplugged", "auto_remove", "remove_image"}
COMPOSED = set(VALUES) - {
    *("rootfs", "volume_driver", "kernel_memory_bytes", "publish_all", "egress", "egress_allow", "host_access"),
    *("depends_on", "health_on_failure", "umask", "cpuset_mems", "restart_retries_max", "endpoints", "links", "time"),
    "timeout_s",
}
FORMS = {"compose": compose.document, "kube": kube.document, "quadlet": quadlet.text}


def test_no_field_is_forgotten() -> None:
    assert set(ContainerRequest._fields) == set(VALUES) | OF_NO_FORM


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("field", VALUES)
def test_a_field_is_said_or_told(field: str, form: str) -> None:
    base = {"image": "i"} if field != "rootfs" else {}
    without = FORMS[form](ContainerRequest(**base), "")
    found, missing = FORMS[form](ContainerRequest(**{**base, field: VALUES[field]}), "")
    if field != "restart_retries_max":  # which is nothing without on-failure
        assert found != without[0] or missing


def read_again(asked: ContainerRequest, directory) -> ContainerRequest:
    text = yaml.safe_dump(compose.document(asked, "web")[0], sort_keys=False)
    (directory / "compose.yaml").write_text(text)
    loaded = loading.load(
        loading.Sources(directory=str(directory), files=[str(directory / "compose.yaml")], environ={})
    )
    made = project.make(loaded)
    (service,) = made.services.values()
    return requests.container(made, service, 1, {})


@pytest.mark.parametrize("field", sorted(COMPOSED))
def test_compose_reads_it_as_it_was(field: str, tmp_path) -> None:
    asked = ContainerRequest(**{"image": "i", field: VALUES[field]})
    again = read_again(asked, tmp_path)
    value, wanted = getattr(again, field), VALUES[field]
    if field == "labels":
        value = {key: one for key, one in value.items() if not key.startswith("com.docker.compose.")}
    if field == "binds":  # compose reads them as mounts
        first, second = again.mounts
        assert (first.source, first.target, first.read_only) == ("/s", "/t", True)
        assert (second.type, second.source, second.target) == ("volume", "data", "/d")
    elif field == "mounts":
        assert [one.replace(bind=None) for one in value] == [one.replace(bind=None) for one in VALUES[field]]
        assert value[0].bind.propagation == "rslave" and not value[0].bind.create_mountpoint
    else:
        assert value == wanted
    assert again.name == "web" and again.network == (VALUES[field] if field == "network" else "bridge")


def test_compose_joins_networks_that_are_there(tmp_path) -> None:
    ends = (EndpointRequest(network="front", aliases=("w",), ipv4="10.0.0.9"), EndpointRequest(network="back"))
    asked = ContainerRequest(image="i", network="back", endpoints=ends)
    again = read_again(asked, tmp_path)
    assert again.network == "back"
    assert {one.network: one.ipv4 for one in again.endpoints} == {"front": "10.0.0.9", "back": ""}
    assert compose.document(asked, "web")[0]["networks"]["front"] == {"name": "front", "external": True}


def test_a_quadlet_is_what_systemd_reads() -> None:
    names = ("image", "args", "env", "labels", "security_opt", "read_only", "ports", "binds", "restart_policy")
    text, missing = quadlet.text(ContainerRequest(**{name: VALUES[name] for name in names}), "web")
    assert missing == ["empty words of the command"]  # podman's generator drops them
    lines = text.splitlines()
    assert lines[:2] == ["[Unit]", "Description=web"] and lines[-1] == "WantedBy=default.target"
    for line in (
        "Image=i:1",
        "ContainerName=web",
        'Environment="A=$$x %%h $${y}"',
        "Environment=B=",
        'Label="a=b c"',
        "ReadOnly=true",
        "NoNewPrivileges=true",
        "PodmanArgs=--security-opt=seccomp=unconfined",
        "PublishPort=8080:80",
        "Volume=/s:/t:ro",
        'Exec="echo $$HOME 100%%" "it\'s \\"here\\"" ""',
        "Restart=always",
    ):
        assert line in lines, line


def test_a_key_that_podman_5_4_refuses_becomes_an_argument() -> None:
    text, _ = quadlet.text(ContainerRequest(image="i", memory_bytes=64 << 20), "web")
    assert "PodmanArgs=--memory=67108864" in text.splitlines() and "\nMemory=" not in text


def test_a_value_that_no_key_can_hold_becomes_an_argument() -> None:
    text, _ = quadlet.text(ContainerRequest(image="i", user=" a\nb", hostname="h\\"), "")
    assert 'PodmanArgs="--user= a\\nb"' in text and 'PodmanArgs="--hostname=h\\\\"' in text
    assert not re.search(r"^b", text, re.M)


def test_what_podman_has_not_is_told() -> None:
    asked = ContainerRequest(
        image="i",
        egress="deny",
        ports=(PortRequest(first=80, last=80, mode="nat"),),
        health=Healthcheck(test=("TCP", ":80")),
    )
    text, missing = quadlet.text(asked, "")
    assert missing == ["--egress", "--publish", "--health-tcp"] and "egress" not in text


def test_a_pod_is_what_kubernetes_reads() -> None:
    found, missing = kube.document(ContainerRequest(**{k: v for k, v in VALUES.items() if k != "rootfs"}), "My_Web.1")
    assert found["metadata"]["name"] == "my-web-1" and found["metadata"]["labels"] == {"app": "my-web-1", "n": "1"}
    assert found["metadata"]["annotations"] == {"x": "y$z", "a": "b c"}
    (own,) = found["spec"]["containers"]
    assert own["args"][0] == "echo $HOME 100%" and own["env"][0] == {"name": "A", "value": "$x %h ${y}"}
    assert [one.get("hostPort") for one in own["ports"]] == [8080, 53, 54]
    assert own["resources"] == {"limits": {"memory": "67108864", "cpu": "1500m"}, "requests": {"memory": "33554432"}}
    assert own["securityContext"]["runAsUser"] == 1000 and own["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert {one["name"] for one in own["volumeMounts"]} == {one["name"] for one in found["spec"]["volumes"]}
    assert found["spec"]["restartPolicy"] == "Always" and found["spec"]["hostNetwork"] is True
    assert "--egress" in missing and "--mount type=image" in missing and shlex.join(missing)


def test_a_kube_variable_is_escaped() -> None:
    found, _ = kube.document(ContainerRequest(image="i", args=("$(A)",), env=("B=$(A)", "GONE")), "")
    (own,) = found["spec"]["containers"]
    assert own["args"] == ["$$(A)"] and own["env"] == [{"name": "B", "value": "$$(A)"}]
