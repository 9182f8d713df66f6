"""Our own CNI plugins: beside the reference ones, which do the same with the same configuration."""

# ruff: noqa: F811  (pytest gives fixtures by their names)

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from devtools.environment import ROOT
from support.boxes import Box, ask, serving, silent
from support.engine import Environment
from support.netns import A, B, Netns

from .test_cni import PORTMAP, bridge, configure, leases, plugins  # noqa: F401
from .test_networks import nft

Run = Callable[..., Box]
OURS = {"bridge": "orlop-cni-bridge", "host-local": "orlop-cni-host-local", "loopback": "orlop-cni-loopback"}
LAST = ["last_reserved_ip.0", "last_reserved_ip.1"]  # of an IPv4 and an IPv6 range
KINDS = ("bridge", "firewall", "host-local", "loopback", "portmap")
OWN_PORTMAP = {**PORTMAP, "type": "orlop-cni-portmap"}
OWN_FIREWALL = {"type": "orlop-cni-firewall", "ingressPolicy": "same-bridge"}


@pytest.fixture
def both(plugins: Path) -> Path:
    """The directory of plugins, with ours in it."""
    for kind in KINDS:
        (plugins / f"orlop-cni-{kind}").symlink_to(ROOT / "cni" / f"orlop-cni-{kind}")
    return plugins


@pytest.fixture
def empty(host: Netns) -> Iterator[str]:
    """The path of a network namespace on the host of the test."""
    sleeper = host.inside(lambda: subprocess.Popen(["unshare", "-n", "sleep", "1000"]))
    own = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{sleeper.pid}/ns/net") in (own, _netns(host)):
        pass
    yield f"/proc/{sleeper.pid}/ns/net"
    sleeper.kill()
    sleeper.wait()


def _netns(place: Netns) -> str:
    return place.inside(lambda: os.readlink("/proc/thread-self/ns/net"))


def call(
    place: Netns, directory: Path, kind: str, command: str, conf: dict[str, Any], netns: str = "", container: str = "c1"
) -> tuple[int, Any]:
    """Run a plugin; return (exit status, what it says)."""
    told = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": netns,
        "CNI_PATH": str(directory),
        "PATH": os.environ["PATH"],
    }
    done = place.inside(
        lambda: subprocess.run(
            [directory / kind], env=told, input=json.dumps(conf), text=True, capture_output=True, timeout=120
        )
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None


def conf(directory: Path, ours: str, version: str) -> dict[str, Any]:
    """The configuration of a bridge; ours: "bridge", "host-local", both or neither, by our own plugins."""
    made = bridge(directory, isDefaultGateway=True)
    made["ipam"]["ranges"].append([{"subnet": "fd00:77::/64"}])
    made["ipam"]["routes"] = [{"dst": "10.99.0.0/16", "gw": "10.77.0.7"}]
    made["ipam"]["dataDir"] = str(directory.parent / ours.replace(" ", "") / "leases")
    made["ipam"]["type"] = OURS["host-local"] if "host-local" in ours else "host-local"
    made["type"] = OURS["bridge"] if "bridge" in ours else "bridge"
    return {"cniVersion": version, "name": "x", **made}


def normal(told: Any) -> Any:
    """What a plugin says, without the names and numbers that are drawn."""
    told = json.loads(json.dumps(told))
    for number, one in enumerate(told.get("interfaces", [])):
        one["mac"] = bool(one.get("mac"))
        one["name"] = one["name"] if not one["name"].startswith("veth") else f"veth{number}"
        for key in ("mtu", "sandbox"):
            one.pop(key, None)
    return told


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_results_and_leases_are_those_of_the_reference_plugins(
    host: Netns, both: Path, empty: str, version: str
) -> None:
    told, kept = {}, {}
    for ours in ("", "bridge", "host-local", "bridge host-local"):
        wanted = conf(both, ours, version)
        code, said = call(host, both, wanted["type"], "ADD", wanted, empty)
        assert code == 0, (ours, said)
        told[ours] = normal(said)
        place = Path(wanted["ipam"]["dataDir"]) / "x"
        kept[ours] = {one.name: one.read_bytes() for one in place.iterdir() if one.name != "lock"}
        if version not in ("0.2.0", "0.3.1"):
            assert call(host, both, wanted["type"], "CHECK", {**wanted, "prevResult": said}, empty)[0] == 0, ours
        assert call(host, both, wanted["type"], "DEL", {**wanted, "prevResult": said}, empty) == (0, None)
        assert call(host, both, wanted["type"], "DEL", wanted, empty) == (0, None)  # again
        left = sorted(one.name for one in place.iterdir() if one.name != "lock")
        assert left == LAST, ours
        code, said = call(host, both, wanted["type"], "ADD", wanted, "/proc/nobody/ns/net")
        assert code == 1
        assert said["code"]
        assert sorted(one.name for one in place.iterdir() if one.name != "lock") == LAST, ours
    for ours in told:
        assert told[ours] == told[""], ours
        assert kept[ours] == kept[""], ours


def test_versions_are_told(host: Netns, both: Path) -> None:
    for kind in KINDS:
        code, said = call(host, both, f"orlop-cni-{kind}", "VERSION", {})
        assert code == 0
        assert {"1.0.0", "1.1.0"} <= set(said["supportedVersions"])


def test_a_network_of_our_own_plugins(run: Run, orlop: Environment, host: Netns, neighbour: Netns, both: Path) -> None:
    own = bridge(both, type=OURS["bridge"], hairpinMode=True)
    own["ipam"]["type"] = OURS["host-local"]
    configure(both, "x", own, OWN_PORTMAP, OWN_FIREWALL, version="1.1.0")
    other = bridge(both, type=OURS["bridge"], bridge="cni-y0")
    other["ipam"] = {**other["ipam"], "type": OURS["host-local"], "ranges": [[{"subnet": "10.78.0.0/24"}]]}
    configure(both, "y", other, version="1.1.0")
    box, second = run("--cni", "x", "-p", "8085:80", "-p", "127.0.0.1:8086:80"), run("--cni", "x")
    stranger = run("--cni", "y")
    assert leases(both) == [box.address("x"), second.address("x")]
    with serving(box, 80), serving(second, 80), serving(neighbour, 9000) as outside:
        assert ask(neighbour, A, 8085) == B
        assert silent(neighbour, A, 8086)
        assert ask(host, "127.0.0.1", 8085)
        assert ask(host, "127.0.0.1", 8086)
        assert ask(box, A, 8085) == "10.77.0.1"  # by way of the machine, to itself
        assert ask(box, second.address("x"), 80) == box.address("x")
        assert silent(stranger, second.address("x"), 80)
        assert ask(box, B, 9000) == A  # masqueraded
        assert outside.peers == [A]
    orlop("network", "cni", "status", "x")
    orlop("network", "cni", "check", "x")
    lost = both.parent / "leases" / "x" / "10.77.0.99"
    lost.write_text("nobody\r\neth0")
    orlop("network", "cni", "gc", "x")
    assert leases(both) == [box.address("x"), second.address("x")]
    orlop("rm", "-f", box.id, second.id)
    assert leases(both) == []
    assert silent(host, "127.0.0.1", 8085)
    for table, names in (
        ("orlop-cni-ports", ("ports", "ports-anywhere", "hairpin")),
        ("orlop-cni-firewall", ("within",)),
    ):
        for name in names:
            assert list(host.nft.elements(2, table, name)) == []


OWN = ("bridge", "portmap", "firewall")
RULES = {
    "orlop-cni-masq": ("masqueraded",),
    "orlop-cni-ports": ("ports-anywhere", "hairpin"),
    "orlop-cni-firewall": ("within",),
}


def _attached(
    place: Netns, directory: Path, command: str, netns: str, container: str, previous: Any = None
) -> list[tuple[int, Any]]:
    """Run our own plugins one after the other, with one published port; return what each says."""
    conf: dict[str, Any] = {
        **bridge(directory, type=OURS["bridge"]),
        "cniVersion": "1.0.0",
        "name": "x",
        "ingressPolicy": "same-bridge",
        "runtimeConfig": {"portMappings": [{"hostPort": 8085, "containerPort": 80}]},
    }
    conf["ipam"]["type"] = OURS["host-local"]
    told: list[tuple[int, Any]] = []
    for kind in OWN:
        done = call(
            place, directory, f"orlop-cni-{kind}", command, conf | previous if previous else conf, netns, container
        )
        told.append(done)
        if command == "ADD":
            previous = {"prevResult": done[1]}
            if done[0]:
                break
    return told


def _marked(host: Netns) -> set[str]:
    return {
        comment for table, names in RULES.items() for name in names for _, comment in host.nft.commented(2, table, name)
    }


def test_an_end_without_a_result_takes_back_its_own_and_nobody_elses(host: Netns, both: Path, empty: str) -> None:
    """Red: with rules found by what prevResult says, those of a container whose ADD nobody heard of stay."""
    assert [code for code, _ in _attached(host, both, "ADD", empty, "c1")] == [0, 0, 0]
    assert _marked(host) == {"x c1 eth0"}
    # The port is c1's, and its DEL is not the other's.
    with closing(Netns()) as second:
        refused = _attached(host, both, "ADD", f"/proc/{os.getpid()}/fd/{second.fd}", "c2")
        assert [code for code, _ in refused] == [0, 1]
        assert "a port is taken already, by x c1 eth0" in refused[1][1]["msg"]
        assert [code for code, _ in _attached(host, both, "DEL", "", "c2")] == [0, 0, 0]
    assert _marked(host) == {"x c1 eth0"}
    code, said = call(host, both, "orlop-cni-portmap", "GC", {"cniVersion": "1.1.0", "name": "x"})
    assert (code, said["code"]) == (1, 7)  # nobody says who is valid
    valid = {"cniVersion": "1.1.0", "name": "x", "cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    for name in ("x", "other"):
        assert call(host, both, "orlop-cni-portmap", "GC", {**valid, "name": name}) == (0, None)
    assert _marked(host) == {"x c1 eth0"}
    # A second ADD of the same is refused, and takes nothing away.
    assert _attached(host, both, "ADD", empty, "c1")[0][0] == 1
    assert leases(both) == ["10.77.0.2"]
    assert [code for code, _ in _attached(host, both, "DEL", "", "c1")] == [0, 0, 0]
    assert _marked(host) == set() and leases(both) == []


def test_an_isolation_that_can_not_be_kept_is_refused(run: Run, orlop: Environment, host: Netns, both: Path) -> None:
    nft(host, "add table inet t; add chain inet t onward { type filter hook forward priority 5; policy drop; }")
    own = bridge(both, type=OURS["bridge"])
    own["ipam"]["type"] = OURS["host-local"]
    configure(both, "x", own, OWN_FIREWALL, version="1.1.0")
    refused = orlop("run", "--rm", "--cni", "x", "host", "true", check=False)
    assert refused.code == 125
    assert "chain onward of table t drops forwarded packets by policy" in refused.stderr
    assert leases(both) == []
    told = orlop("network", "cni", "status", "x", check=False)
    assert told.code != 0


def test_ranges_are_used_up_and_come_round(host: Netns, both: Path) -> None:
    kept = both.parent / "kept"
    ipam = {"type": "host-local", "dataDir": str(kept), "ranges": [[{"subnet": "10.1.0.0/29", "rangeEnd": "10.1.0.4"}]]}
    wanted = {"cniVersion": "1.0.0", "name": "x", "type": "x", "ipam": ipam}
    for directory, kind in ((kept, "host-local"), (both.parent / "ours", "orlop-cni-host-local")):
        ipam["dataDir"] = str(directory)
        got = []
        for number in range(4):
            code, said = call(host, both, kind, "ADD", wanted, "/x", f"c{number}")
            got.append(said["ips"][0]["address"] if code == 0 else said["msg"])
        assert got[:3] == ["10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29"], kind
        assert "no IP addresses available in range set: 10.1.0.1-10.1.0.4" in got[3], kind
        assert call(host, both, kind, "DEL", wanted, "", "c1")[0] == 0
        code, said = call(host, both, kind, "ADD", wanted, "/x", "c9")
        assert said["ips"][0]["address"] == "10.1.0.3/29", kind
        assert call(host, both, kind, "ADD", wanted, "/x", "c9")[0] == 1  # it has one
        asked = {**wanted, "args": {"cni": {"ips": ["10.1.0.4"]}}}
        assert call(host, both, kind, "ADD", asked, "/x", "c10")[0] == 1  # somebody has it


HOSTILE = [
    ("bridge", "ADD", {"cniVersion": "9.9.9"}, 1),
    ("bridge", "GC", {"cniVersion": "1.0.0", "name": "x"}, 1),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "../x"}, 7),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "bridge": "a/b"}, 4),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "bridge": 7}, 7),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "vlan": 7}, 2),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "ipam": {"type": "../../bin/sh"}}, 7),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "ipam": {"type": "nobody"}}, 100),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "runtimeConfig": {"mac": "zz:1"}}, 7),
    ("bridge", "ADD", {"cniVersion": "1.0.0", "name": "x", "runtimeConfig": {"mac": ["02:00:00:00:00:01"]}}, 7),
    ("host-local", "ADD", {"cniVersion": "1.0.0", "name": "x"}, 7),
    ("host-local", "ADD", {"cniVersion": "1.0.0", "name": "x", "ipam": {"subnet": "10.0.0.0/31"}}, 7),
    ("host-local", "ADD", {"cniVersion": "1.0.0", "name": "x", "ipam": {"subnet": "x"}}, 7),
    ("host-local", "ADD", {"cniVersion": "1.0.0", "name": "x", "ipam": {"ranges": [[[]]]}}, 7),
    ("portmap", "ADD", {"cniVersion": "1.0.0", "name": "x"}, 7),
    ("portmap", "ADD", {"cniVersion": "1.0.0", "name": "x", "prevResult": {"ips": [{"address": "10.0.0.1/8"}]},
                        "runtimeConfig": {"portMappings": [{"hostPort": 99999, "containerPort": 1}]}}, 7),
    ("firewall", "ADD", {"cniVersion": "1.0.0", "name": "x", "ingressPolicy": "magic", "prevResult": {"ips": []}}, 7),
    ("loopback", "CHECK", {"cniVersion": "0.3.1", "name": "x"}, 1),
]  # fmt: skip


def test_what_is_wrong_is_an_error_with_a_code(host: Netns, both: Path, empty: str) -> None:
    before = {link.name for link in host.route.links()}
    for kind, command, wanted, expected in HOSTILE:
        if "ipam" in wanted:
            wanted["ipam"].setdefault("dataDir", str(both.parent / "kept"))
        code, said = call(host, both, f"orlop-cni-{kind}", command, wanted, empty)
        assert (code, said["code"]) == (1, expected), (kind, wanted, said)
        assert said["msg"]
    assert {link.name for link in host.route.links()} - before <= {"cni0"}
    program = both / "orlop-cni-bridge"
    for given, variables, expected in (
        (b"", {"CNI_COMMAND": "ADD"}, 4),
        (b"", {"CNI_COMMAND": "DANCE"}, 4),
        (b"", {}, 4),
        (b"{", {"CNI_COMMAND": "STATUS"}, 6),
        (b"[" * 100_000, {"CNI_COMMAND": "STATUS"}, 6),
        (b'{"a": "' + b"x" * (2 << 20) + b'"}', {"CNI_COMMAND": "STATUS"}, 6),
        (
            b'{"cniVersion": "1.0.0", "name": "x"}',
            {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "../x", "CNI_IFNAME": "e"},
            4,
        ),
        (
            b'{"cniVersion": "1.0.0", "name": "x"}',
            {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "x", "CNI_IFNAME": "a/b"},
            4,
        ),
    ):
        done = subprocess.run(
            [program], env={"PATH": os.environ["PATH"], **variables}, input=given, capture_output=True
        )
        assert done.returncode == 1
        assert json.loads(done.stdout)["code"] == expected, done.stdout
        assert done.stderr == b""
