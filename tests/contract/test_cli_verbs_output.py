"""What top, port, stats, events and sizes print, against the real docker CLI: the same data are the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_docker import FakeDocker
from support.fake_engine import FakeEngine, Reply

ID = "0123456789abcdef" * 4
TOP = {
    "Titles": ["UID", "PID", "CMD"],
    "Processes": [["root", "1", "sh -c 'sleep 1'"], ["a-user-with-a-very-long-name", "4711", "x"]],
}
PORTS = {
    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    "9/udp": [{"HostIp": "127.0.0.1", "HostPort": "9"}],
    "443/tcp": [{"HostIp": "", "HostPort": "32768"}],
    "22/tcp": None,
}
EVENT = {
    "status": "die", "id": ID, "from": "nginx", "Type": "container", "Action": "die",
    "Actor": {"ID": ID, "Attributes": {"name": "web", "exitCode": "3", "image": "nginx"}},
    "scope": "local", "time": 1767225600, "timeNano": 1767225600123456789,
}  # fmt: skip
NETWORK = {
    "Type": "network", "Action": "prune", "Actor": {"ID": "", "Attributes": {}}, "scope": "local",
    "time": 1767225601, "timeNano": 1767225601000000001,
}  # fmt: skip


def sample(used: int, passed: int, memory: dict[str, int], inactive: str) -> dict[str, Any]:
    cpu = {"cpu_usage": {"total_usage": used}, "system_cpu_usage": passed, "online_cpus": 4}
    return {
        "name": "/web", "id": ID, "read": "2026-01-01T00:00:01Z", "preread": "2026-01-01T00:00:00Z",
        "pids_stats": {"current": 7},
        "cpu_stats": cpu,
        "precpu_stats": {"cpu_usage": {"total_usage": 1}, "system_cpu_usage": 1, "online_cpus": 4},
        "memory_stats": {"usage": memory["usage"], "limit": memory["limit"], "stats": {inactive: memory["inactive"]}},
        "networks": {"eth0": {"rx_bytes": 123_456_789, "tx_bytes": 999}, "eth1": {"rx_bytes": 1, "tx_bytes": 0}},
        "blkio_stats": {"io_service_bytes_recursive": [
            {"major": 8, "minor": 0, "op": "read", "value": 4096}, {"major": 8, "minor": 0, "op": "write", "value": 0},
        ]},
    }  # fmt: skip


SAMPLES = {
    "v2": sample(500, 4000, {"usage": 70 << 20, "limit": 128 << 20, "inactive": 5 << 20}, "inactive_file"),
    "v1": sample(1, 4000, {"usage": 7_123_456, "limit": 25_276_076_032, "inactive": 123_456}, "total_inactive_file"),
    "small": sample(2, 3, {"usage": 1023, "limit": 1 << 50, "inactive": 4096}, "inactive_file"),
}


def streamed(value: object) -> Callable[[Any, Any], Reply]:
    """Return a verb that answers with one line of JSON."""
    return lambda args, fds: Reply({"stream": True}, stream=json.dumps(value).encode() + b"\n")


Both = Callable[..., tuple[str, str]]


@pytest.fixture
def both(peer: Callable[[str], Path]) -> Iterator[Both]:
    """`both(words, api, answers)` runs the same words against a fake dockerd and a fake engine."""

    def run(words: list[str], api: dict[str, object], answers: dict[str, object]) -> tuple[str, str]:
        with FakeDocker(peer("docker"), api) as docker, FakeEngine(answers) as engine:
            theirs = docker(*words, env={"TZ": "UTC"})
            ours = engine(*words, env={"TZ": "UTC"})
        assert (theirs.returncode, ours.code) == (0, 0), (theirs, ours)
        return theirs.stdout, ours.stdout

    yield run


def test_top(both):
    theirs, ours = both(["top", "web"], {"/containers/web/top": TOP}, {"containers.top": TOP})
    assert ours == theirs


@pytest.mark.parametrize("words", [[], ["80"], ["80/tcp"], ["9/udp"], ["443"]])
def test_port(both, words):
    found = {"Id": ID, "Name": "/web", "NetworkSettings": {"Ports": PORTS}}
    theirs, ours = both(["port", "web", *words], {"/containers/web/json": found}, {"containers.inspect": found})
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


@pytest.mark.parametrize("case", SAMPLES)
@pytest.mark.parametrize("form", [[], ["--format", "{{.MemUsage}} {{.MemPerc}} {{.CPUPerc}} {{.NetIO}} {{.BlockIO}}"]])
def test_stats(both, case, form):
    line = streamed([SAMPLES[case]])
    words = ["stats", "--no-stream", *form, "web"]
    theirs, ours = both(words, {"/containers/web/stats": SAMPLES[case]}, {"containers.stats": line})
    assert ours == theirs


@pytest.mark.parametrize(
    "form", [[], ["--format", "json"], ["--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]]
)
@pytest.mark.parametrize("event", [EVENT, NETWORK], ids=["container", "network"])
def test_events(both, form, event):
    line = streamed(event)
    words = ["events", "--since", "1", "--until", "2", *form]
    theirs, ours = both(words, {"/events": event}, {"engine.events": line})
    assert ours == theirs


@pytest.mark.parametrize("form", [[], ["--format", "table {{.Names}}\\t{{.Size}}"]])
@pytest.mark.parametrize("sizes", [(0, 0), (8192, 26_200_000), (2_000_000, 2_000_000)])
def test_sizes(both, form, sizes):
    summary = {
        "Id": ID, "Names": ["/web"], "Image": "host", "ImageID": "sha256:" + "a" * 64, "Command": "sh", "Created": 1,
        "State": "running", "Status": "Up", "Ports": [], "Labels": {}, "Mounts": [], "HostConfig": {},
        "NetworkSettings": {"Networks": {}}, "SizeRw": sizes[0], "SizeRootFs": sizes[1],
    }  # fmt: skip
    theirs, ours = both(["ps", "-s", *form], {"/containers/json": [summary]}, {"containers.list": [summary]})
    assert ours == theirs
