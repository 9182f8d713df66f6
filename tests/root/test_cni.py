"""Networks of CNI plugins: Debian's real ones, and some that are broken or hostile."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devtools import peers
from support import processes
from support.boxes import Box, ask, serving, silent
from support.engine import Environment
from support.netns import A, B, Netns
from support.tasks import wait_until

Run = Callable[..., Box]


@pytest.fixture
def plugins(orlop: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of plugins: the real ones, and what a test adds. The engine looks nowhere else."""
    found = peers.find("host-local")
    if found is None:
        pytest.skip("needs: host-local")
    directory = tmp_path / "bin"
    directory.mkdir()
    for program in found.parent.iterdir():
        (directory / program.name).symlink_to(program)
    (tmp_path / "net.d").mkdir()
    monkeypatch.setenv("CNI_PATH", str(directory))
    monkeypatch.setenv("NETCONFPATH", str(tmp_path / "net.d"))
    monkeypatch.setenv("PATH", peers.path())
    return directory


def configure(plugins: Path, name: str, *listed: dict[str, Any], version: str = "1.0.0", **more: Any) -> Path:
    path = plugins.parent / "net.d" / f"10-{name}.conflist"
    path.write_text(json.dumps({"cniVersion": version, "name": name, "plugins": listed, **more}))
    return path


def bridge(plugins: Path, **more: Any) -> dict[str, Any]:
    ranges = [[{"subnet": "10.77.0.0/24"}]]
    leases = str(plugins.parent / "leases")
    ipam = {"type": "host-local", "dataDir": leases, "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    return {"type": "bridge", "bridge": "cni-x0", "isGateway": True, "ipMasq": True, "ipam": ipam, **more}


def leases(plugins: Path, name: str = "x") -> list[str]:
    place = plugins.parent / "leases" / name
    return sorted(one for one in os.listdir(place) if one[0].isdigit()) if place.is_dir() else []


PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
FIREWALL = {"type": "firewall", "backend": "iptables"}
TUNING = {"type": "tuning", "capabilities": {"mac": True}, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}


def fake(plugins: Path, name: str, body: str) -> Path:
    """A plugin in Python. It logs each request as a line of JSON; `conf` and `command` are there for body."""
    log = plugins.parent / f"{name}.log"
    told = {key: f"CNI_{key}" for key in ("COMMAND", "CONTAINERID", "NETNS", "IFNAME", "ARGS")}
    (plugins / name).write_text(
        f"#!{sys.executable} -IS\nimport json, os, sys, time\n"
        f"conf, command = json.load(sys.stdin), os.environ['CNI_COMMAND']\n"
        f"told = {{key: os.environ.get(name, '') for key, name in {told!r}.items()}}\n"
        f"open({str(log)!r}, 'a').write(json.dumps({{**told, 'conf': conf}}) + chr(10))\n"
        f"versions = {{'cniVersion': '1.1.0', 'supportedVersions': ['1.0.0', '1.1.0']}}\n{body}\n"
    )
    (plugins / name).chmod(0o755)
    return log


def requests(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


GOOD = """
if command == 'ADD':
    print(json.dumps({**conf.get('prevResult', {}), 'cniVersion': conf['cniVersion'],
                      'ips': [{'address': '10.66.0.9/24'}], 'dns': {}}))
elif command == 'VERSION':
    print(json.dumps(versions))
"""


def test_the_real_plugins_make_a_network(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns, plugins: Path
) -> None:
    if peers.find("iptables") is None:
        pytest.skip("needs: iptables")
    configure(plugins, "x", bridge(plugins), PORTMAP, FIREWALL, TUNING)
    host.inside(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    box = run("--cni", "x", "-p", "8085:80", "--mac-address", "02:00:00:00:00:77", "--name", "web")
    assert box.address("x") == "10.77.0.2"
    assert box.address("x", "MacAddress") == "02:00:00:00:00:77"
    assert "02:00:00:00:00:77" in box.read("/sys/class/net/eth0/address")
    assert box.inside(lambda: Path("/proc/sys/net/ipv4/conf/eth0/arp_filter").read_text()) == "1\n"
    assert orlop("network", "ls", "--format", "{{.Name}} {{.Driver}}", "-f", "driver=cni").stdout == "x cni\n"
    fixed = run("--network", "x", "--ip", "10.77.0.40")
    assert fixed.address("x") == "10.77.0.40"
    with serving(box, 80), serving(neighbour, 9000):
        assert ask(neighbour, A, 8085) == B
        assert ask(fixed, "10.77.0.2", 80) == "10.77.0.40"
        assert ask(box, B, 9000) == A
    assert leases(plugins) == ["10.77.0.2", "10.77.0.40"]
    pid = orlop.engine_pid()
    assert pid is not None
    processes.kill(pid, processes.start_time(pid))
    orlop("rm", "-f", box.id, fixed.id)  # the next engine
    wait_until(lambda: leases(plugins) == [])
    assert silent(neighbour, A, 8085)
    rules = host.run(peers.find("iptables") or "", "-t", "nat", "-S")
    assert "10.77.0." not in rules
    orlop("network", "rm", "x")


def _remove_address(interface: str) -> None:
    from orlop.linux.netlink.rtnetlink import Rtnetlink

    with Rtnetlink() as route:
        link = route.link(interface)
        assert link is not None
        route.delete_address(link.index, "10.77.0.2", 24)


def test_a_running_container_comes_and_goes(run: Run, orlop: Environment, plugins: Path) -> None:
    configure(plugins, "x", bridge(plugins, ipMasq=False), {"type": "tuning", "mtu": 1400})
    orlop("network", "create", "-d", "cni", "x")
    box = run()
    orlop("network", "connect", "x", box.id)
    assert box.address("x") == "10.77.0.2"
    for word in ("status", "check", "gc"):
        assert orlop("network", "cni", word, "x").stdout == f"x: {word} found nothing wrong\n"
    box.inside(lambda: _remove_address("eth1"))
    assert "CHECK ended with status 1" in orlop("network", "cni", "check", "x", check=False).stderr
    orlop("network", "disconnect", "x", box.id)
    assert leases(plugins) == []
    orlop("network", "connect", "x", box.id)
    orlop("stop", "-t", "0", box.id)
    wait_until(lambda: leases(plugins) == [])
    orlop("start", box.id)
    assert len(leases(plugins)) == 1


def test_a_macvlan_of_plugins(run: Run, orlop: Environment, neighbour: Netns, plugins: Path) -> None:
    ipam = {"type": "static", "addresses": [{"address": "192.0.2.9/24"}]}
    path = configure(plugins, "lan", {"type": "macvlan", "master": "up0", "ipam": ipam})
    orlop("network", "create", "-d", "cni", "-o", f"conflist={path}", "cable")
    box = run("--network", "cable")
    with serving(box, 80):
        assert ask(neighbour, "192.0.2.9", 80) == B
    refused = orlop("create", "--network", "cable", "--egress", "deny", "host", "true", check=False)
    assert "--egress deny can't hold in network cable: what macvlan sends passes no rule here" in refused.stderr


def test_every_verb_gets_what_the_specification_says(run: Run, orlop: Environment, plugins: Path) -> None:
    first = fake(plugins, "first", GOOD)
    second = fake(plugins, "second", GOOD)
    listed = ({"type": "first", "capabilities": {"portMappings": True, "aliases": True}}, {"type": "second", "k": 1})
    configure(plugins, "f", *listed, version="1.1.0")
    box = run("--cni", "f", "-p", "9000-9001:90-91/udp", "--network-alias", "deck", "--name", "web")
    for word in ("status", "check", "gc"):
        orlop("network", "cni", word, "f")
    orlop("rm", "-f", box.id)
    orlop("network", "rm", "f")
    told = requests(first)
    assert [one["COMMAND"] for one in told] == ["ADD", "STATUS", "CHECK", "GC", "DEL", "GC"]
    add, status, check, collect, delete, last = told
    assert add["CONTAINERID"] == box.id
    assert (add["IFNAME"], add["NETNS"].startswith("/proc/")) == ("eth0", True)
    assert add["conf"]["runtimeConfig"]["portMappings"] == [
        {"hostPort": 9000, "containerPort": 90, "protocol": "udp"},
        {"hostPort": 9001, "containerPort": 91, "protocol": "udp"},
    ]
    assert "deck" in add["conf"]["runtimeConfig"]["aliases"]["f"]
    assert (add["conf"]["name"], add["conf"]["cniVersion"], "capabilities" in add["conf"]) == ("f", "1.1.0", False)
    assert collect["conf"]["cni.dev/valid-attachments"] == [{"containerID": box.id, "ifname": "eth0"}]
    assert last["conf"]["cni.dev/valid-attachments"] == []
    assert (status["CONTAINERID"], status["NETNS"]) == ("", "")
    others = requests(second)
    assert others[0]["conf"]["prevResult"]["ips"] == [{"address": "10.66.0.9/24"}]
    assert (others[0]["conf"]["k"], "runtimeConfig" in others[0]["conf"]) == (1, False)
    assert check["conf"]["prevResult"] == others[4]["conf"]["prevResult"] == delete["conf"]["prevResult"]
    assert delete["conf"]["runtimeConfig"] == add["conf"]["runtimeConfig"]


# One of each kind: what else they can say is told without an engine, in unit/test_cni_hostile.py.
HOSTILE = [
    ("print('[1]')", "its answer to ADD can't be understood"),
    ("while True: sys.stderr.write('why')", "it says more than 1048576 bytes"),
    ("os.fork() or time.sleep(1000); time.sleep(1000)", "it did not end within 1 s, and was killed"),
    ("print(json.dumps({'code': 7, 'msg': 'no', 'details': 'way'})); sys.exit(1)", "ADD ended with status 1 (error 7)"),
    ("print(json.dumps({'ips': [{'address': '../../x/24'}]}))", "a result that can't be understood"),
]


def test_broken_and_hostile_plugins_are_an_error_and_leave_nothing(orlop: Environment, plugins: Path) -> None:
    good = fake(plugins, "good", GOOD)
    # One that ends by itself is not hurried: on a busy machine a plugin may need a second to begin.
    for name, seconds in (("patient", 100), ("hasty", 1)):
        configure(plugins, name, {"type": "good"}, {"type": "bad"})
        orlop("network", "create", "-d", "cni", "-o", f"timeout={seconds}", name)
    for body, cause in HOSTILE:
        fake(plugins, "bad", f"if command == 'ADD':\n    {body}")
        network = "hasty" if "did not end" in cause else "patient"
        refused = orlop("run", "--rm", "--network", network, "host", "true", check=False)
        assert refused.code == 125, body
        assert cause in refused.stderr, (body, refused.stderr)
    assert [one["COMMAND"] for one in requests(good)][-2:] == ["DEL", "DEL"] or requests(good)[-1]["COMMAND"] == "DEL"
    assert orlop.container_ids() == []
    wait_until(lambda: not [pid for pid in processes.pids() if str(plugins / "bad") in processes.title(pid)])
    assert orlop("run", "--rm", "host", "true").code == 0


def test_configurations_that_are_none(orlop: Environment, plugins: Path) -> None:
    place = plugins.parent / "broken.conflist"
    for document, cause in (
        ("{", "is not valid JSON"),
        ("[]", "JSON"),
        ('{"cniVersion": "1.0.0", "name": "x"}', "`plugins` is no list"),
        ('{"cniVersion": "1.0.0", "name": "x", "plugins": []}', "`plugins` is no list"),
        ('{"cniVersion": "1.0.0", "name": "../x", "plugins": [{"type": "a"}]}', "invalid name"),
        ('{"cniVersion": "9.0.0", "name": "x", "plugins": [{"type": "a"}]}', "its cniVersion (9.0.0) is not spoken"),
        ('{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "../../bin/sh"}]}', "invalid type of a plugin"),
        ('{"cniVersion": "1.0.0", "name": "x", "plugins": ["a"]}', "a plugin is no object"),
        ('{"cniVersion": "1.0.0", "name": "x", "plugins": [' + '{"type":"a"},' * 70 + '{"type":"a"}]}', "no list of 1"),
    ):
        place.write_text(document)
        refused = orlop("network", "create", "-d", "cni", "-o", f"conflist={place}", "x", check=False)
        assert refused.code != 0
        assert cause in refused.stderr, (document[:60], refused.stderr)
    for words, cause in (
        (("network", "create", "-d", "cni", "nowhere"), "no configuration in"),
        (("network", "create", "-d", "cni", "--subnet", "10.1.0.0/24", "x"), "from its configuration"),
        (("network", "create", "-d", "cni", "-o", "timeout=0", "x"), "invalid timeout"),
        (("network", "cni", "status", "bridge"), "needs no plugins"),
        (("run", "--rm", "--cni", "nowhere", "host", "true"), "no configuration in"),
    ):
        refused = orlop(*words, check=False)
        assert refused.code != 0
        assert cause in refused.stderr, refused.stderr
    configure(plugins, "n", {"type": "nosuch"})
    orlop("network", "create", "-d", "cni", "n")
    assert "CNI plugin nosuch is not installed" in orlop("network", "cni", "status", "n", check=False).stderr
    configure(plugins, "p", bridge(plugins))
    refused = orlop("run", "--rm", "--cni", "p", "-p", "80:80", "host", "true", check=False)
    assert "no plugin of the network has the capability portMappings" in refused.stderr
    assert socket.AF_INET and leases(plugins, "p") == []


_WORDS = "portMappings ipRanges bandwidth dns ips mac infinibandGUID deviceID aliases cgroupPath"
ALL = dict.fromkeys(_WORDS.split(), True)


def test_every_capability_is_told_and_one_that_nobody_takes_is_refused(
    run: Run, orlop: Environment, plugins: Path
) -> None:
    """Red: without `cni.chosen`, the option is passed over in silence."""
    log = fake(plugins, "every", GOOD)
    configure(plugins, "all", {"type": "every", "capabilities": ALL})
    configure(plugins, "nil", {"type": "every"})
    chosen = {
        "bandwidth": '{"ingressRate": 1000, "ingressBurst": 2000}',
        "ipRanges": '[[{"subnet": "10.66.0.0/24"}]]',
        "deviceID": "0000:3b:00.5",
        "infinibandGUID": "c2:11:22:33:44:55:66:77",
    }
    texts = [f"cni.{name}={value}".replace('"', '""') for name, value in chosen.items()]
    words = [f'--driver-opt="{text}"' for text in texts]  # each a line of CSV, as docker's
    orlop("network", "create", "-d", "cni", "all")
    orlop("network", "create", "-d", "cni", "nil")
    box = run("--network", "bridge", "--dns", "10.9.8.7", "--dns-search", "a.example", "--dns-option", "ndots:2")
    orlop("network", "connect", *words, "--ip", "10.66.0.9", "--alias", "deck", "all", box.id)
    told = requests(log)[0]["conf"]["runtimeConfig"]
    assert told["bandwidth"] == {"ingressRate": 1000, "ingressBurst": 2000}
    assert told["ipRanges"] == [[{"subnet": "10.66.0.0/24"}]]
    assert (told["deviceID"], told["infinibandGUID"]) == (chosen["deviceID"], chosen["infinibandGUID"])
    assert told["dns"] == {"servers": ["10.9.8.7"], "searches": ["a.example"], "options": ["ndots:2"]}
    assert told["ips"] == ["10.66.0.9"] and "deck" in told["aliases"]["all"]
    assert told["cgroupPath"].endswith(f"/{box.id}")
    refused = orlop("network", "connect", words[0], "nil", box.id, check=False)
    assert "no plugin of the network has the capability bandwidth" in refused.stderr
    for word in ("cni.bandwidth={", "cni.bandwidth=", "cni./=1"):
        refused = orlop("network", "connect", f"--driver-opt={word}", "all", box.id, check=False)
        assert refused.code != 0, word
    refused = orlop("run", "--rm", "--network", "all", "--ip", "10.66.0.77", "host", "true", check=False)
    assert "plugins do not give it the address 10.66.0.77" in refused.stderr
    assert requests(log)[-1]["COMMAND"] == "DEL"


def test_what_was_added_is_cached_as_libcni_has_it_until_it_is_deleted(
    run: Run, orlop: Environment, plugins: Path
) -> None:
    """Red: without `cache.add`, other runtimes and the next collection find nothing."""
    log = fake(plugins, "kept", GOOD + "if command == 'DEL' and os.path.exists(sys.argv[0] + '.sick'): sys.exit(1)")
    path = configure(plugins, "k", {"type": "kept", "capabilities": {"aliases": True}}, version="0.4.0")
    box = run("--cni", "k", "--name", "web")
    place = orlop.root / "cni" / "results" / f"k-{box.id}-eth0"
    kept = json.loads(place.read_text())
    assert list(kept) == [
        *("kind", "containerId", "config", "ifName", "networkName", "netns", "cniArgs", "capabilityArgs", "result")
    ]
    assert (kept["kind"], kept["containerId"], kept["networkName"]) == ("cniCacheV1", box.id, "k")
    assert json.loads(base64.b64decode(kept["config"])) == json.loads(path.read_text())
    assert kept["cniArgs"] == [["IgnoreUnknown", "1"]]
    assert kept["result"] == {"cniVersion": "0.4.0", "ips": [{"address": "10.66.0.9/24"}], "dns": {}}
    (plugins / "kept.sick").touch()
    orlop("rm", "-f", box.id)
    assert place.exists()  # a plugin has refused
    (plugins / "kept.sick").unlink()
    foreign = place.parent / "k-other-eth0"
    foreign.write_text(json.dumps({**kept, "containerId": "other", "netns": "/proc/self/ns/net"}))
    (place.parent / "k-broken").write_text("{")
    os.mkfifo(place.parent / "k-pipe")
    orlop("network", "cni", "gc", "k")
    assert not place.exists() and foreign.exists()
    last = requests(log)[-1]
    assert (last["COMMAND"], last["CONTAINERID"], last["conf"]["prevResult"]) == ("DEL", box.id, kept["result"])
    assert last["conf"]["runtimeConfig"] == {"aliases": kept["capabilityArgs"]["aliases"]}
    assert [one["COMMAND"] for one in requests(log)] == ["ADD", "DEL", "DEL"]  # no GC before 1.1.0


def test_plugins_lie_in_a_directory_beside_the_list(run: Run, orlop: Environment, plugins: Path) -> None:
    """Red: without what `conflist.read` takes from there, the list has no plugin."""
    first, second = fake(plugins, "first", GOOD), fake(plugins, "second", GOOD)
    for name in ("open", "closed"):
        beside = plugins.parent / "net.d" / name
        beside.mkdir()
        (beside / "20-b.conf").write_text('{"type": "second", "k": 2}')
        (beside / "10-a.conf").write_text('{"type": "second", "k": 1}')
        (beside / "10-a.txt").write_text("{")
    configure(plugins, "open", {"type": "first"}, version="1.1.0", loadOnlyInlinedPlugins="False")
    configure(plugins, "closed", {"type": "first"}, version="1.1.0", loadOnlyInlinedPlugins=True, disableGC="true")
    box = run("--cni", "open")
    assert [one["conf"]["k"] for one in requests(second)] == [1, 2]
    other = run("--cni", "closed")
    assert len(requests(second)) == 2
    before = len(requests(first))
    orlop("network", "cni", "gc", "closed")
    assert len(requests(first)) == before
    orlop("rm", "-f", box.id, other.id)


@contextmanager
def started(orlop: Environment, *words: str) -> Iterator[None]:
    """A command under way; its end is waited for."""
    command = orlop.popen(*words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        command.wait(60)


def _killed(orlop: Environment) -> None:
    pid = orlop.engine_pid()
    assert pid is not None
    processes.kill(pid, processes.start_time(pid))


SLOW_ADD = """
if command == 'ADD':
    while not os.path.exists(sys.argv[0] + '.go'): time.sleep(0.01)
    open(sys.argv[0] + '.lease', 'w').close()
if command == 'DEL' and os.path.exists(sys.argv[0] + '.lease'): os.unlink(sys.argv[0] + '.lease')
"""


def test_a_plugin_that_outlives_its_engine_is_ended_before_it_is_asked_again(orlop: Environment, plugins: Path) -> None:
    """Red: without `turns.taken`, the ADD of a dead engine goes on behind the next one's DEL."""
    log = fake(plugins, "slow", SLOW_ADD + GOOD)
    configure(plugins, "s", {"type": "slow"})
    orlop("network", "create", "-d", "cni", "s")
    with started(orlop, "run", "--rm", "--network", "s", "host", "true"):
        wait_until(lambda: [one["COMMAND"] for one in requests(log)] == ["ADD"])
        _killed(orlop)
    orlop("ps")  # the next engine
    wait_until(lambda: [one["COMMAND"] for one in requests(log)][1:2] == ["DEL"])
    (plugins / "slow.go").touch()
    wait_until(lambda: not [pid for pid in processes.pids() if str(plugins / "slow") in processes.title(pid)])
    assert not (plugins / "slow.lease").exists()
    wait_until(lambda: not os.listdir(orlop.run / "cni"))


def test_what_was_added_when_the_engine_dies_is_given_back(orlop: Environment, host: Netns, plugins: Path) -> None:
    """Red: without `client.add` telling of each result, the reference plugin's chains stay."""
    if peers.find("iptables") is None:
        pytest.skip("needs: iptables")
    marks = plugins.parent / "engine"
    fake(
        plugins,
        "last",
        f"""
if command == 'ADD':
    open({str(marks)!r}, 'w').close()
    time.sleep(1000)
""",
    )
    configure(plugins, "x", bridge(plugins), PORTMAP, {"type": "last"})
    orlop("network", "create", "-d", "cni", "x")
    with started(orlop, "run", "--rm", "--network", "x", "-p", "8085:80", "host", "true"):
        wait_until(marks.exists)
        assert leases(plugins) == ["10.77.0.2"]
        _killed(orlop)
    orlop("ps")
    wait_until(lambda: leases(plugins) == [])
    wait_until(lambda: "10.77.0." not in host.run(peers.find("iptables") or "", "-t", "nat", "-S"))
    assert not [link.name for link in host.route.links() if link.name.startswith("veth")]


HANGING_DEL = """
if command == 'DEL':
    while not os.path.exists(sys.argv[0] + '.go'): time.sleep(0.01)
"""


def test_a_plugin_that_hangs_at_the_end_delays_its_own_container_alone(
    run: Run, orlop: Environment, plugins: Path
) -> None:
    """Red: with the plugins of ended containers waited for, the next engine does not begin."""
    log = fake(plugins, "hang", HANGING_DEL + GOOD)
    configure(plugins, "h", {"type": "hang"})
    box = run("--cni", "h")
    pid = int(orlop("inspect", "-f", "{{.State.Pid}}", box.id).stdout)
    _killed(orlop)
    processes.kill(pid, processes.start_time(pid))
    assert orlop("run", "--rm", "host", "true").code == 0
    wait_until(lambda: requests(log)[-1]["COMMAND"] == "DEL")
    with started(orlop, "start", box.id):
        assert orlop("run", "--rm", "host", "true").code == 0
        assert [one["COMMAND"] for one in requests(log)] == ["ADD", "DEL"]
        (plugins / "hang.go").touch()
    wait_until(lambda: [one["COMMAND"] for one in requests(log)] == ["ADD", "DEL", "ADD"])
