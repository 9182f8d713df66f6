"""linux.netDevices: devices of the host become the container's, with their addresses, or nothing is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.bundles import RUNTIME, Config, Runtime, base, busybox_root

SHOW = "for d in $(ls /sys/class/net); do echo link $d; done; ip addr show; cat /sys/class/net/*/operstate"


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    return busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))


@pytest.fixture
def host(peer: Callable[[str], Path]) -> Iterator[list[str]]:
    """A stand-in for the host's network namespace: the words that run a command in it."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
    assert holder.stdout
    with holder.stdout:
        holder.stdout.readline()
    words = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    try:
        for line in (
            "link add dev0 type veth peer name far0", "link set dev0 mtu 1400 up",
            "link add dev1 type veth peer name far1",
            "addr add 192.0.2.7/24 dev dev0", "addr add 2001:db8::7/64 dev dev0 nodad",
            "addr add 198.51.100.1/32 dev dev0 valid_lft 1000 preferred_lft 1000",
        ):  # fmt: skip
            subprocess.run([*words, peer("ip"), *line.split()], check=True)
        yield words
    finally:
        holder.kill()
        holder.wait()


def config(rootfs: Path, devices: dict[str, object], script: str = SHOW) -> Config:
    value = base(rootfs)
    value["process"]["args"] = ["/bin/sh", "-c", script]  # type: ignore[index]
    value["linux"]["netDevices"] = devices  # type: ignore[index]
    return value


def run(host: list[str], tmp_path: Path, value: Config) -> subprocess.CompletedProcess[str]:
    runtime = Runtime(RUNTIME, tmp_path / "state")
    runtime.argv = [*host, *runtime.argv]
    return runtime.run(tmp_path / "bundle", value, "devices")


def links(host: list[str]) -> set[str]:
    listed = subprocess.run([*host, "ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    return {link["ifname"] for link in json.loads(listed)} - {"lo", "far0", "far1"}


def test_a_device_moves_with_its_permanent_addresses(host: list[str], rootfs: Path, tmp_path: Path) -> None:
    told = run(host, tmp_path, config(rootfs, {"dev0": {"name": "eth0"}, "dev1": {}}))
    assert told.returncode == 0, told
    assert {"link eth0", "link dev1", "link lo"} == {line for line in told.stdout.splitlines() if "link " in line[:5]}
    assert "192.0.2.7/24" in told.stdout and "2001:db8::7/64" in told.stdout
    assert "198.51.100.1" not in told.stdout, "an address with a lifetime is not for good"
    assert "mtu 1400" in told.stdout
    assert told.stdout.count(",UP") >= 2
    assert links(host) == set()


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"nosuch": {}}, "there is no network device nosuch"),
        ({"dev0": {"name": "lo"}}, "the container has another lo already"),
        ({"dev0": {"name": "a" * 16}}, "is no name of a network device"),
        ({"dev0": {"name": "a/b"}}, "is no name of a network device"),
        ({"dev0": {"name": "eth%d"}}, "is no name of a network device"),
        ({"dev0": {"name": ".."}}, "is no name of a network device"),
        ({"dev0": {"name": "x"}, "dev1": {"name": "x"}}, "two devices would be called x"),
    ],
)
def test_what_is_refused_moves_nothing(
    devices: dict[str, object], words: str, host: list[str], rootfs: Path, tmp_path: Path
) -> None:
    told = run(host, tmp_path, config(rootfs, devices))
    assert told.returncode == 1 and words in told.stderr, told
    assert links(host) == {"dev0", "dev1"}


def test_it_needs_a_network_namespace(host: list[str], rootfs: Path, tmp_path: Path) -> None:
    value = config(rootfs, {"dev0": {}})
    rows = value["linux"]["namespaces"]  # type: ignore[index]
    value["linux"]["namespaces"] = [row for row in rows if row["type"] != "network"]  # type: ignore[index]
    assert "has no network namespace to move them to" in run(host, tmp_path, value).stderr


def test_a_joined_namespace_and_a_user_namespace(host: list[str], rootfs: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        try:
            value = config(rootfs, {"dev0": {"name": "eth0"}})
            for row in value["linux"]["namespaces"]:  # type: ignore[index]
                if row["type"] == "network":
                    row["path"] = f"/proc/{other.pid}/ns/net"
            told = run(host, tmp_path, value)
            assert "link eth0" in told.stdout and "192.0.2.7/24" in told.stdout, told
        finally:
            other.kill()
    value = config(rootfs, {"dev1": {"name": "eth1"}})
    value["linux"]["namespaces"].append({"type": "user"})  # type: ignore[index]
    mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]
    value["linux"].update(uidMappings=mapping, gidMappings=mapping)  # type: ignore[attr-defined]
    assert "link eth1" in run(host, tmp_path, value).stdout
