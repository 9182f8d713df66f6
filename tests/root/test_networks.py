"""Networks as users have them: bridges, addresses, published ports, isolation; a machine A with a neighbour B.

A is the network namespace that the private engine lives in; the machine's own network is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.engine.networks.host import Networks
from orlop.linux.netlink.rtnetlink import Hop, Rtnetlink
from support import engine, processes
from support.boxes import Box, ask, serving, silent
from support.engine import Environment
from support.netns import A, B, Netns
from support.tasks import wait_until

UDP = socket.SOCK_DGRAM
Run = Callable[..., Box]


def _keeps_owned_tables() -> bool:
    major, minor, *_ = os.uname().release.split(".")
    return (int(major), int(minor)) >= (6, 9)


def _titled(orlop: Environment, word: str) -> list[int]:
    return [pid for pid in orlop.processes() if word in processes.title(pid)]


def nft(host: Netns, *words: str) -> str:
    from devtools import peers

    found = peers.find("nft")
    if found is None:
        pytest.skip("needs: nft")
    return host.run(found, *words)


def test_the_default_is_a_bridge_with_a_way_out(run: Run, neighbour: Netns) -> None:
    box = run()
    assert box.address() == "10.88.0.2"
    assert box.address(key="Gateway") == "10.88.0.1"
    with serving(neighbour, 9000) as server:
        assert ask(box, B, 9000) == A  # translated: B knows nothing of containers
    assert server.peers == [A]
    hosts = box.read("/etc/hosts")
    assert f"10.88.0.2\t{box.id[:12]}" in hosts
    assert "10.88.0.1\thost.docker.internal" in hosts


def test_containers_of_one_network_reach_one_another(run: Run) -> None:
    one, other = run(), run()
    assert one.address() != other.address()
    with serving(one, 80):
        assert ask(other, one.address(), 80) == other.address()


def test_a_published_port_is_reached_from_everywhere_and_sees_who_comes(
    run: Run, host: Netns, neighbour: Netns
) -> None:
    box, other = run("-p", "8080:80", "-p", "5353:53/udp"), run()
    with serving(box, 80), serving(box, 53, kind=UDP):
        assert ask(neighbour, A, 8080) == B
        assert ask(neighbour, A, 5353, kind=UDP) == B
        assert ask(host, A, 8080) == A
        assert ask(host, "127.0.0.1", 8080) == "10.88.0.1"
        assert ask(other, A, 8080) == "10.88.0.1"
        assert ask(box, A, 8080) == "10.88.0.1"  # hairpin
    box.orlop("rm", "-f", box.id)
    assert silent(neighbour, A, 8080)


def _sctp_init(source: int, destination: int) -> bytes:
    """Return the first packet of an SCTP association (RFC 9260), whose checksum the connection tracker verifies."""
    chunk = struct.pack(">BBHLLHHL", 1, 0, 20, 7, 65536, 1, 1, 1)
    header = struct.pack(">HHL", source, destination, 0)
    crc = 0xFFFFFFFF
    for byte in header + bytes(4) + chunk:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return header + struct.pack("<L", crc ^ 0xFFFFFFFF) + chunk


def test_sctp_is_published_too(run: Run, neighbour: Netns) -> None:
    # Raw sockets at both ends: the kernel need not speak SCTP itself to forward it.
    box = run("-p", "3868:80/sctp", "-p", "3900-3910:3900-3910/sctp")
    assert "0.0.0.0:3868->80/sctp" in box.orlop("ps").stdout
    receiver = box.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP))
    sender = neighbour.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP))
    with receiver, sender:
        receiver.settimeout(20)
        for published, port in ((3868, 80), (3905, 3905)):
            sender.sendto(_sctp_init(5000 + port, published), (A, 0))
            packet, peer = receiver.recvfrom(2048)
            assert peer[0] == B
            assert struct.unpack_from(">HH", packet, 20) == (5000 + port, port)


def test_a_range_keeps_its_numbers_or_is_moved(run: Run, neighbour: Netns) -> None:
    box = run("-p", "20000-20010:20000-20010", "-p", "7000-7002:80-82")
    with serving(box, 20005), serving(box, 81):
        assert ask(neighbour, A, 20005) == B
        assert ask(neighbour, A, 7001) == B
    assert silent(neighbour, A, 7002)
    listed = box.orlop("ps").stdout
    assert "0.0.0.0:7000-7002->80-82/tcp, 0.0.0.0:20000-20010->20000-20010/tcp" in listed


def test_ten_thousand_ports_are_a_few_rules(run: Run, host: Netns, neighbour: Netns) -> None:
    run()  # the bridge and the table are there
    before = nft(host, "list", "ruleset").count("\n")
    box = run("-p", "20000-29999:20000-29999/udp")
    assert nft(host, "list", "ruleset").count("\n") - before <= 5
    with serving(box, 25000, kind=UDP):
        assert ask(neighbour, A, 25000, kind=UDP) == B


def test_a_udp_client_finds_the_next_container(run: Run, orlop: Environment, neighbour: Netns) -> None:
    # Its packets belong to one connection for as long as it sends, and that leads to the container before.
    asker = neighbour.inside(lambda: socket.socket(socket.AF_INET, UDP))
    asker.connect((A, 5353))
    asker.settimeout(0.2)

    def answered() -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                asker.send(b"?")
                return asker.recv(100).decode() == B
            except OSError:
                continue
        return False

    with asker:
        first = run("-p", "5353:53/udp")
        with serving(first, 53, kind=UDP):
            assert answered()
        keep = run()  # takes the next address
        gone = first.address()
        orlop("rm", "-f", first.id)
        second = run("-p", "5353:53/udp")
        assert second.address() not in (keep.address(), gone)
        with serving(second, 53, kind=UDP) as server:
            assert answered()
        assert server.peers


def test_a_neighbour_does_not_reach_the_machines_loopback(run: Run, host: Netns, neighbour: Netns) -> None:
    """SEC-90: packets for 127.0.0.1 that come by the cable, to a published port and to a server of the machine's."""
    box = run("-p", "127.0.0.1:8080:80")

    def route_loopback() -> None:
        from orlop.linux.netlink.rtnetlink import Hop

        lo = neighbour.route.link("lo")
        assert lo is not None
        neighbour.route.set_link(lo.index, up=False)
        neighbour.route.add_route(("127.0.0.1", 32), Hop(A, neighbour.index("up0")))
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")

    neighbour.inside(route_loopback)
    with serving(box, 80) as published, serving(host, 9000) as own:
        assert ask(neighbour, A, 9000) == B  # the machine itself is there
        assert silent(neighbour, "127.0.0.1", 8080)
        assert silent(neighbour, "127.0.0.1", 9000)
        assert ask(host, "127.0.0.1", 8080) == "10.88.0.1"
    assert published.peers == ["10.88.0.1"] and own.peers == [B]


def test_a_port_of_one_address_is_closed_at_the_others(run: Run, host: Netns, neighbour: Netns) -> None:
    box = run("-p", "127.0.0.1:8080:80", "-p", f"{A}:8081:80")
    with serving(box, 80):
        assert ask(host, "127.0.0.1", 8080) == "10.88.0.1"
        assert silent(neighbour, A, 8080)
        assert ask(neighbour, A, 8081) == B
        assert silent(host, "127.0.0.1", 8081)


def test_nobody_from_outside_reaches_what_is_not_published(run: Run, neighbour: Netns) -> None:
    # SEC-90: a neighbour on the same cable routes straight to the container's address.
    box = run("-p", "127.0.0.1:8080:80")
    with serving(box, 80) as server:
        assert silent(neighbour, box.address(), 80)
    assert server.peers == []


def test_a_container_does_not_reach_the_machines_loopback(run: Run, host: Netns) -> None:
    # CVE-2020-8558: the bridge takes packets for 127.0.0.0/8, for the machine's own clients of published ports.
    box = run("--cap-add", "NET_ADMIN")
    with serving(host, 9000) as server:
        assert ask(box, "10.88.0.1", 9000) == box.address()  # the machine itself is there

        def route_loopback() -> None:
            from orlop.linux.netlink.rtnetlink import Hop, Rtnetlink

            with Rtnetlink() as route:
                lo, eth = route.link("lo"), route.link("eth0")
                assert lo is not None
                assert eth is not None
                route.set_link(lo.index, up=False)
                route.add_route(("127.0.0.1", 32), Hop("10.88.0.1", eth.index))
            Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")

        box.inside(route_loopback)
        assert silent(box, "127.0.0.1", 9000)
    assert server.peers == [box.address()]


def test_the_machines_firewall_decides_who_reaches_a_published_port(run: Run, host: Netns, neighbour: Netns) -> None:
    # P01: what the rules for the machine's own input drop does not reach the container either.
    box = run("-p", "8080:80")
    nft(host, "add table inet t")
    nft(host, "add chain inet t input { type filter hook input priority 0; }")
    with serving(box, 80) as server:
        assert ask(neighbour, A, 8080) == B
        nft(host, "add rule inet t input tcp dport 8080 drop")
        assert silent(neighbour, A, 8080)
        nft(host, "flush chain inet t input")
        assert ask(neighbour, A, 8080) == B
        nft(host, f"add rule inet t input tcp dport 8080 ip saddr != {B} drop")
        assert ask(neighbour, A, 8080) == B
    assert server.peers == [B, B, B]
    told = box.orlop("run", "-d", "-p", "8081:80", "host", "sleep", "1000").stderr
    assert "8081/tcp can be reached by those whom this machine's firewall lets in (inet t input)" in told
    nft(host, "delete table inet t")
    assert box.orlop("run", "-d", "-p", "8082:80", "host", "sleep", "1000").stderr == ""


def test_a_port_has_one_owner(run: Run, orlop: Environment, host: Netns) -> None:
    run("-p", "8080:80")
    refused = orlop("run", "--rm", "-p", "8080:80", "host", "true", check=False)
    assert refused.code == 125
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in refused.stderr
    with serving(host, 9000):
        refused = orlop("run", "--rm", "-p", "9000:80", "host", "true", check=False)
    assert refused.code == 125
    assert "failed to bind host port 0.0.0.0:9000/tcp: address already in use" in refused.stderr
    assert f"(process {os.getpid()})" in refused.stderr
    assert len(orlop.container_ids()) == 1


def test_every_address_of_one_family_is_asked_for_by_docker_s_words(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    # 0.0.0.0 was taken for an address: nobody came in. What the container lacks, a relay carries.
    ports = ("0.0.0.0:8080:80", "0.0.0.0:8081:80,mode=nat", "0.0.0.0:8082-8083:80-81", "[::]:8080:80")
    box = run(*(word for port in ports for word in ("-p", port)))
    with serving(box, 80):
        assert [ask(neighbour, A, number) for number in (8080, 8081, 8082)] == [B, B, B]
        assert ask(host, "127.0.0.1", 8080) and ask(host, "::1", 8080) == "10.88.0.1"
        told = orlop("network", "explain", box.id, "80").stdout
        assert "yes: at 127.0.0.1:8080" in told and "yes: at [::1]:8080" in told, told
    for taken in ("0.0.0.0:8080:80", f"{A}:8080:80", "[::1]:8080:80", "8080:80"):
        refused = orlop("run", "--rm", "-p", taken, "host", "true", check=False)
        assert "port is already allocated" in refused.stderr, taken


def test_ports_of_what_runs_come_and_go(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    """red: without `publish`, `withdraw`, the relay's, the reservations or container.json, each at its line."""
    box = run("-p", "8080:80")
    pid = box.inspect("{{.State.Pid}}")
    with serving(box, 80) as server, serving(box, 81), serving(box, 53, kind=UDP):
        orlop(
            "update",
            "--publish-add",
            "8081:81",
            "--publish-add",
            "5353:53/udp",
            "--publish-add",
            "[::1]:8082:80",
            box.id,
        )
        assert (ask(neighbour, A, 8080), ask(neighbour, A, 8081), ask(neighbour, A, 5353, kind=UDP)) == (B, B, B)
        assert ask(host, "::1", 8082) == "10.88.0.1"
        shown = orlop("port", box.id).stdout.splitlines()
        assert "81/tcp -> 0.0.0.0:8081" in shown and "80/tcp -> [::1]:8082" in shown, shown
        assert "0.0.0.0:8080-8081->80-81/tcp" in orlop("ps").stdout
        for taken in ("8080:1", "8081:1"):
            refused = orlop("update", "--publish-add", "9999:9", "--publish-add", taken, box.id, check=False)
            assert refused.code == 1 and "port is already allocated" in refused.stderr
        with serving(host, 9000):
            assert "held by" in orlop("update", "--publish-add", "9000:1", box.id, check=False).stderr
        refused = orlop("update", "--publish-rm", "82", "--publish-add", "9999:9", box.id, check=False)
        assert refused.code == 1
        assert "port 82 of container" in refused.stderr and "80/tcp, 81/tcp, 53/udp" in refused.stderr
        assert "9999" not in orlop("port", box.id).stdout, "all of it or nothing"
        # The same port of the host may lead elsewhere now, or to the same: of what a relay carries too.
        orlop("update", "--publish-rm", "80", *("--publish-add", "8080:80", "--publish-add", "[::1]:8082:80"), box.id)
        assert ask(host, "::1", 8082) == "10.88.0.1" and ask(neighbour, A, 8080) == B
        orlop("update", "--publish-rm", "81", "--publish-rm", "53/udp", box.id)
        assert ask(host, "::1", 8082) == "10.88.0.1", "what stays is still carried"
        assert silent(neighbour, A, 8081) and silent(neighbour, A, 5353, kind=UDP)
        assert ask(neighbour, A, 8080) == B
        engine_pid = orlop.engine_pid()
        assert engine_pid is not None
        os.kill(engine_pid, signal.SIGKILL)
        orlop("update", "--publish-rm", "80", "--publish-add", "8083:80", box.id)
        assert silent(neighbour, A, 8080) and ask(neighbour, A, 8083) == B
        assert server.peers and box.inspect("{{.State.Pid}}") == pid
    other = run("-p", "8080:80", "-p", "8081:80")  # they are others' now
    assert "8083:80" in orlop("show-run", box.id).stdout
    orlop("restart", "-t", "0", box.id)
    box.open()
    with serving(box, 80):
        assert ask(neighbour, A, 8083) == B
    orlop("stop", "-t", "0", box.id, other.id)
    orlop("update", "--publish-add", "8084:80", "--publish-rm", "80", box.id, check=False)
    assert box.inspect("{{json .HostConfig.PortBindings}}") == '{"80/tcp":[{"HostIp":"","HostPort":"8084"}]}'
    still = run("--network", "none")
    assert "no network of its own" in orlop("update", "--publish-add", "1:1", still.id, check=False).stderr


def test_ports_are_free_again_at_once(run: Run, orlop: Environment) -> None:
    for _ in range(3):
        name = orlop("run", "-d", "-p", "8080:80", "host", "sleep", "1000").stdout.strip()
        orlop("stop", "-t", "0", name)
    assert orlop("run", "--rm", "-p", "8080:80", "host", "true").code == 0


def test_networks_of_ones_own_are_islands(run: Run, orlop: Environment) -> None:
    for name in ("left", "right"):
        orlop("network", "create", name)
    one, other = run("--network", "left"), run("--network", "right")
    assert one.address("left").startswith("10.89.")
    with serving(one, 80) as server:
        assert silent(other, one.address("left"), 80)
        orlop("network", "connect", "--alias", "visitor", "left", other.id)
        assert ask(other, one.address("left"), 80) == other.address("left")
        orlop("network", "disconnect", "left", other.id)
        assert silent(other, one.address("left"), 80)
    assert len(server.peers) == 1
    refused = orlop("network", "rm", "left", check=False)
    assert "has active endpoints" in refused.stderr
    orlop("rm", "-f", one.id, other.id)
    assert orlop("network", "rm", "left", "right").stdout == "left\nright\n"


def test_an_internal_network_has_no_way_out(run: Run, orlop: Environment, neighbour: Netns) -> None:
    orlop("network", "create", "--internal", "closed")
    one, other = run("--network", "closed"), run("--network", "closed")
    with serving(neighbour, 9000) as outside, serving(one, 80):
        assert ask(other, one.address("closed"), 80) == other.address("closed")
        assert silent(other, B, 9000)
    assert outside.peers == []


def test_without_icc_containers_reach_only_what_is_published(run: Run, orlop: Environment, neighbour: Netns) -> None:
    orlop("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    one, other = run("--network", "quiet", "-p", "8080:80"), run("--network", "quiet")
    with serving(one, 80):
        assert silent(other, one.address("quiet"), 80)
        assert ask(neighbour, A, 8080) == B


def test_addresses_of_choice(run: Run, orlop: Environment) -> None:
    orlop(
        "network", "create", "--subnet", "10.99.0.0/24", "--gateway", "10.99.0.254", "--ip-range", "10.99.0.128/28",
        "--aux-address", "printer=10.99.0.129", "--ipv6", "--subnet", "fd00:99::/64", "chosen",
    )  # fmt: skip
    fixed = run("--network", "chosen", "--ip", "10.99.0.7", "--ip6", "fd00:99::7", "--mac-address", "02:00:00:00:00:77")
    assert fixed.address("chosen") == "10.99.0.7"
    assert fixed.address("chosen", "GlobalIPv6Address") == "fd00:99::7"
    assert fixed.address("chosen", "MacAddress") == "02:00:00:00:00:77"
    assert fixed.address("chosen", "Gateway") == "10.99.0.254"
    given = run("--network", "chosen")
    assert given.address("chosen") in {f"10.99.0.{number}" for number in range(130, 144)} | {"10.99.0.128"}
    with serving(fixed, 80), serving(fixed, 81, family=socket.AF_INET6):
        assert ask(given, "10.99.0.7", 80)
        assert ask(given, "fd00:99::7", 81) == given.address("chosen", "GlobalIPv6Address")
    for taken in ("10.99.0.7", "10.99.0.0", "10.99.0.255"):
        refused = orlop("run", "--rm", "--network", "chosen", "--ip", taken, "host", "true", check=False)
        assert "Address already in use" in refused.stderr, taken
    refused = orlop("run", "--rm", "--network", "chosen", "--ip", "10.98.0.7", "host", "true", check=False)
    assert "no configured subnet contains IP address 10.98.0.7" in refused.stderr
    refused = orlop("run", "--rm", "--network", "nowhere", "host", "true", check=False)
    assert (refused.code, "network nowhere not found" in refused.stderr) == (125, True)


IFNAME, SYSCTLS = "com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"


def test_an_interface_is_as_it_was_asked_for(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "--ipam-opt", "a=b", "left")
    orlop("network", "create", "right")
    sysctl = f"driver-opt={SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1"
    own = ("--network", "left", "--link-local-ip", "169.254.7.7", "--link-local-ip", "fe80::77")
    box = run(*own, "--network", f"name=right,driver-opt={IFNAME}=uplink0,{sysctl}")

    def interfaces() -> list[str]:
        return sorted(name for _, name in box.inside(socket.if_nameindex))

    def addresses() -> set[tuple[str, int]]:
        with Rtnetlink() as route:
            own = route.link("lan0")
            assert own is not None
            return {(one.address, one.prefix_length) for one in route.addresses() if one.index == own.index}

    assert interfaces() == ["lan0", "lo", "uplink0"]
    assert {("169.254.7.7", 16), ("fe80::77", 64)} < box.inside(addresses)
    proc = "/proc/sys/net/ipv4/conf"
    assert box.inside(lambda: Path(f"{proc}/uplink0/log_martians").read_text()) == "1\n"
    assert box.inside(lambda: Path(f"{proc}/lan0/log_martians").read_text()) == "0\n"
    told = json.loads(box.inspect("{{json .NetworkSettings.Networks}}"))
    assert told["left"]["IPAMConfig"] == {"LinkLocalIPs": ["169.254.7.7", "fe80::77"]}
    assert orlop("network", "inspect", "-f", "{{json .IPAM.Options}}", "left").stdout == '{"a":"b"}\n'
    # A running one, and what can't be: then no interface stays.
    orlop("network", "create", "more")
    wrong = orlop(
        *("network", "connect", "--driver-opt", f"{SYSCTLS}=net.ipv4.conf.IFNAME.nosuch=1", "more", box.id), check=False
    )
    assert wrong.code == 1 and "conf/eth0/nosuch" in wrong.stderr, wrong
    assert interfaces() == ["lan0", "lo", "uplink0"]
    orlop("network", "connect", "--link-local-ip", "169.254.8.8", "--driver-opt", f"{IFNAME}=more0", "more", box.id)
    assert interfaces() == ["lan0", "lo", "more0", "uplink0"]
    for words, cause in (
        (("--network", "left", "--link-local-ip", "10.1.1.1"), "10.1.1.1 is no link-local address"),
        (("--network", "left", "--link-local-ip", "x"), "invalid IP address: x"),
        (("--network", f"name=left,driver-opt={IFNAME}=a/b"), "invalid name of an interface: 'a/b'"),
        (("--network", f"name=left,driver-opt={IFNAME}=lo"), "invalid name of an interface: 'lo'"),
        (("--network", f"name=left,driver-opt={IFNAME}={'x' * 16}"), "invalid name of an interface"),
        (("--dns-search", "a..b"), "a..b is not a valid domain"),
        (("--network", f"name=left,driver-opt={SYSCTLS}=net.ipv4.ip_forward=1"), "invalid sysctl of an interface"),
        (("--network", f"name=left,driver-opt={SYSCTLS}=net.ipv4.../../x.IFNAME.y=1"), "invalid sysctl"),
        (("--network", "name=left,driver-opt=com.docker.network.endpoint.x=1"), "endpoint.x is not known"),
        (
            ("--network", f"name=left,driver-opt={IFNAME}=n", "--network", f"name=right,driver-opt={IFNAME}=n"),
            "two interfaces can't be called n",
        ),
        (
            ("--network", f"container:{box.id}", "--add-host", "a:192.0.2.1"),
            "custom host-to-IP mapping and the network",
        ),
        (("--link", f"{box.id}:db"), "as it does not belong to the default network"),
    ):
        refused = orlop("run", "--rm", *words, "host", "true", check=False)
        assert refused.code == 125 and cause in refused.stderr, refused
    # A start that fails at its second network keeps nothing in the first.
    orlop("network", "create", "spare")
    twice = (f"--network=name=spare,driver-opt={IFNAME}=n", f"--network=name=right,driver-opt={IFNAME}=n")
    never = orlop("create", *twice, "host", "true").stdout.strip()
    assert orlop("start", never, check=False).code == 1
    orlop("network", "rm", "spare")
    for words, cause in (
        (("--ipam-driver", "nosuch"), 'plugin "nosuch" not found'),
        (("--subnet", "10.92.0.0/24", "--subnet", "10.93.0.0/24"), "bridge driver doesn't support multiple subnets"),
        (("-o", "com.docker.network.container_iface_prefix=a/b"), "invalid name of an interface"),
        (("-o", "com.docker.network.bridge.enable_icc=maybe"), "invalid value for"),
    ):
        refused = orlop("network", "create", *words, "wrong", check=False)
        assert refused.code == 1 and cause in refused.stderr, refused


def test_ipv6_is_there_when_asked_for_and_only_then(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    # SEC-93: not even a link-local address where IPv6 is off.
    plain = run()
    assert "eth0" not in plain.read("/proc/net/if_inet6")
    orlop("network", "create", "--ipv6", "six")
    box, other = run("--network", "six", "-p", "8080:80"), run("--network", "six")
    assert box.address("six", "GlobalIPv6Address").startswith("fd")
    assert box.inside(lambda: Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text()) == "0\n"
    for side, address in ((host, "2001:db8::1"), (neighbour, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    with serving(box, 80, family=socket.AF_INET6):
        assert ask(other, box.address("six", "GlobalIPv6Address"), 80)
        assert ask(neighbour, "2001:db8::1", 8080) == "2001:db8::2"
        assert ask(host, "2001:db8::1", 8080)
        # No packet from ::1 leaves a machine: who tries it is refused at once, and tries 127.0.0.1 next.
        with pytest.raises(ConnectionRefusedError):
            host.inside(lambda: socket.create_connection(("::1", 8080), timeout=20))
        assert ask(neighbour, A, 8080) == f"::ffff:{B}"
        assert silent(neighbour, box.address("six", "GlobalIPv6Address"), 80)


def test_a_filter_of_reverse_paths_closes_ipv6_ports_unless_translated_before(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    # firewalld's IPv6_rpfilter: sources must be found where they come from, and a copy of ours comes from elsewhere.
    orlop("network", "create", "--ipv6", "six")
    for side, address in ((host, "2001:db8::1"), (neighbour, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    nft(host, "add table inet firewalld")
    nft(host, "add chain inet firewalld p { type filter hook prerouting priority 10; }")
    nft(host, "add rule inet firewalld p icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept")
    nft(host, "add rule inet firewalld p meta nfproto ipv6 fib saddr . mark . iif oif missing drop")
    ports = ("-p", "8080:80", "-p", "[::]:8081:80,mode=nat")
    told = orlop("run", "-d", "--name", "web", "--network", "six", *ports, "host", "sleep", "1000").stderr
    assert "firewall lets in (inet firewalld p)" in told
    assert "of chain p of table inet firewalld drops it" in orlop("net", "explain", "web", "80").stdout
    box = Box(orlop, "--network", "container:web")
    with serving(box, 80, family=socket.AF_INET6):
        assert silent(neighbour, "2001:db8::1", 8080)
        assert ask(neighbour, "2001:db8::1", 8081) == "2001:db8::2"
        nft(host, "flush chain inet firewalld p")
        nft(host, "add rule inet firewalld p meta nfproto ipv6 fib saddr . mark oif missing drop")
        assert ask(neighbour, "2001:db8::1", 8080) == "2001:db8::2"
    box.close()
    orlop("rm", "-f", "web")


def test_docker_s_gateway_modes(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    mode = "com.docker.network.bridge.gateway_mode_ipv"
    for side, address in ((host, "2001:db8::1"), (neighbour, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    neighbour.route.add_route(("fd00::", 8), Hop("2001:db8::1"))
    orlop("network", "create", "-o", f"{mode}4=routed", "plain")
    orlop("network", "create", "--ipv6", "-o", f"{mode}6=routed", "mixed")
    plain, mixed = run("--network", "plain", "-p", "8080:80"), run("--network", "mixed", "-p", "8081:80")
    outside = serving(neighbour, 9000), serving(neighbour, 9000, family=socket.AF_INET6, address="2001:db8::2")
    six = mixed.address("mixed", "GlobalIPv6Address")
    with serving(plain, 80), serving(plain, 81), serving(mixed, 80, family=socket.AF_INET6), outside[0], outside[1]:
        assert ask(neighbour, plain.address("plain"), 80) == B
        assert silent(neighbour, plain.address("plain"), 81)
        assert silent(neighbour, A, 8080)
        assert ask(plain, B, 9000) == plain.address("plain")
        assert ask(neighbour, six, 80) == "2001:db8::2"
        assert silent(neighbour, "2001:db8::1", 8081)
        assert ask(neighbour, A, 8081) == f"::ffff:{B}"
        assert ask(mixed, "2001:db8::2", 9000) == six
        assert ask(mixed, B, 9000) == A
    assert orlop("port", plain.id).stdout == ""
    orlop("network", "create", "--internal", "-o", f"{mode}4=isolated", "alone")
    one, other = run("--network", "alone"), run("--network", "alone")
    with serving(one, 80):
        assert ask(other, one.address("alone"), 80)
    assert not [found for found in host.route.addresses() if found.address == "10.89.2.1"]
    for words, cause in (
        ((f"{mode}4=isolated",), "can only be used for an internal network"),
        ((f"{mode}6=nat-unprotected",), "would open every port of every container"),
        ((f"{mode}4=x",), "unknown gateway mode x"),
    ):
        refused = orlop("network", "create", "-o", *words, "wrong", check=False)
        assert refused.code == 1 and cause in refused.stderr, refused


def test_a_container_without_ipv4_is_reached_from_everywhere(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    for side, address in ((host, "2001:db8::1"), (neighbour, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    orlop("network", "create", "--ipv4=false", "--ipv6", "six")
    box = run("--network", "six", "-p", "8080:80", "-p", "8081:80,mode=nat", "-p", "9000-9299:9000-9299")
    gateway = box.address("six", "IPv6Gateway")
    with serving(box, 80, family=socket.AF_INET6), serving(box, 9007, family=socket.AF_INET6):
        for place, address in ((host, "127.0.0.1"), (host, "::1"), (host, A), (neighbour, A)):
            assert ask(place, address, 8080) == gateway
        for port in (8080, 8081, 9007):
            assert ask(neighbour, "2001:db8::1", port) == "2001:db8::2"
        assert silent(neighbour, A, 8081)
    taken = orlop("run", "--rm", "-p", "127.0.0.1:8080:80", "host", "true", check=False)
    assert "port is already allocated" in taken.stderr
    orlop("rm", "-f", box.id)
    wait_until(lambda: not _titled(orlop, "orlop: ports"))


def test_ports_that_no_rule_leads_have_a_relay(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    for side, address in ((host, "2001:db8::1"), (neighbour, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    orlop("network", "create", "--ipv6", "six")
    four = run(
        *("-p", "[::1]:8080:80", "-p", "[::1]:5353:53/udp", "-p", "[2001:db8::1]:8081:80", "-p", "8082:80"),
        *("-p", "[2001:db8::1]:8085:80,from=2001:db8::7", "-p", "[2001:db8::1]:8086:80,from=2001:db8::/126"),
    )
    both = run("--network", "six", "-p", "[::1]:8083:80", "-p", "[2001:db8::1]:8084:80,from=2001:db8::7")
    with serving(four, 80), serving(four, 53, kind=UDP), serving(both, 80, family=socket.AF_INET6):
        assert ask(host, "::1", 8080) == "10.88.0.1"
        assert ask(host, "::1", 5353, kind=UDP) == "10.88.0.1"
        assert ask(neighbour, "2001:db8::1", 8081) == "10.88.0.1"
        assert ask(neighbour, A, 8082) == B
        assert ask(host, "::1", 8083).startswith("fd")
        assert silent(neighbour, "2001:db8::1", 8080)
        assert silent(neighbour, "2001:db8::1", 8084)
        assert silent(neighbour, "2001:db8::1", 8085)
        assert ask(neighbour, "2001:db8::1", 8086)
        told = orlop("net", "explain", four.id, "80").stdout
        assert "yes: at [::1]:8080" in told
        assert "it is published at ::1 alone" in told
        assert "other networks       no" in told
        pid = orlop.engine_pid()
        assert pid is not None
        processes.kill(pid, processes.start_time(pid), signal.SIGKILL)
        assert ask(host, "::1", 8080) == "10.88.0.1"
        taken = orlop("run", "--rm", "-p", "[::1]:8080:80", "host", "true", check=False)
        assert taken.code == 125
        assert "port is already allocated" in taken.stderr
    orlop("rm", "-f", four.id, both.id)
    wait_until(lambda: not _titled(orlop, "orlop: ports"))
    refused = orlop("run", "--rm", "-p", "[::1]:8080:80/sctp", "host", "true", check=False)
    assert refused.code == 125
    assert "[::1]:8080/sctp would need a relay" in refused.stderr
    held = host.inside(lambda: socket.create_server(("::1", 8080), family=socket.AF_INET6))
    with held:
        refused = orlop("run", "--rm", "-p", "[::1]:8080:80", "host", "true", check=False)
    assert refused.code == 125
    assert "address already in use" in refused.stderr
    orlop("run", "--rm", "-p", "[::1]:8080:80", "host", "true")
    wait_until(lambda: not _titled(orlop, "orlop: ports"))


def test_the_gateway_has_the_highest_priority(run: Run, orlop: Environment) -> None:
    for name in ("a", "b", "c"):
        orlop("network", "create", name)
    box = run("--network", "a", "--network", "name=b,gw-priority=5", "--network", "c")

    def gateway() -> str:
        def look() -> str:
            from orlop.linux.netlink.rtnetlink import Rtnetlink

            with Rtnetlink() as route:
                return next(one.gateway for one in route.routes(2) if one.destination == ("", 0))

        return box.inside(look)

    assert gateway() == box.address("b", "Gateway")
    orlop("network", "disconnect", "b", box.id)
    assert gateway() == box.address("a", "Gateway")
    assert set(json.loads(box.inspect("{{json .NetworkSettings.Networks}}"))) == {"a", "c"}
    orlop("restart", "-t", "0", box.id)
    box.open()
    assert set(json.loads(box.inspect("{{json .NetworkSettings.Networks}}"))) == {"a", "c"}
    assert gateway() == box.address("a", "Gateway")


def test_a_container_shares_anothers_network(run: Run, orlop: Environment) -> None:
    box = run("--name", "first", "--hostname", "deck")
    other = run("--network", "container:first")
    assert os.fstat(other.fd).st_ino == os.fstat(box.fd).st_ino
    assert other.read("/etc/hosts") == box.read("/etc/hosts")
    refused = orlop("run", "--rm", "--network", "container:first", "-p", "80:80", "host", "true", check=False)
    assert "port publishing and the container type network mode" in refused.stderr
    orlop("stop", "-t", "0", "first")
    refused = orlop("run", "--rm", "--network", "container:first", "host", "true", check=False)
    assert "cannot join network of a non running container" in refused.stderr
    refused = orlop("run", "--rm", "--network", "container:", "host", "true", check=False)
    assert "invalid container format container:<name|id>" in refused.stderr


def test_a_subnet_is_where_no_route_leads(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    # P23: a VPN has 10.0.0.0/8 and, as OpenVPN does, both halves of everything.
    host.run("ip", "route", "add", "10.0.0.0/8", "dev", "up0")
    host.run("ip", "route", "add", "0.0.0.0/1", "dev", "up0")
    host.run("ip", "route", "add", "128.0.0.0/1", "dev", "up0")
    assert run().address().startswith("172.16.0.")
    orlop("network", "create", "free")
    box = run("--network", "free")
    assert box.address("free").startswith("172.16.1.")
    with serving(neighbour, 9000):
        assert ask(box, B, 9000) == A
    # One that is asked for may lie there: docker says nothing to that, podman refuses.
    told = orlop("network", "create", "--subnet", "10.1.2.0/24", "asked")
    assert "WARNING: subnet 10.1.2.0/24 meets 10.0.0.0/8, the way to up0" in told.stderr
    assert "meets" not in orlop("network", "create", "--subnet", "192.168.4.0/24", "apart").stderr
    # And where the administrator says.
    (orlop.root / "networks/pools.json").write_text('[{"base": "192.168.128.0/17", "size": 26}]')
    orlop("network", "create", "chosen")
    form = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
    assert orlop("network", "inspect", "-f", form, "chosen").stdout == "192.168.128.0/26\n"
    (orlop.root / "networks/pools.json").write_text('[{"base": "192.168.128.0/17"}]')
    refused = orlop("network", "create", "wrong", check=False)
    assert refused.code == 1 and "pools.json" in refused.stderr, refused


def test_the_mtu_is_that_of_the_way_out(run: Run, host: Netns, neighbour: Netns) -> None:
    from orlop.linux.netlink.rtnetlink import Hop, mtu

    host.route.set_link(host.index("up0"), mtu(1400))
    host.route.add_route(("", 0), Hop(B))
    box = run()
    assert box.inside(lambda: Path("/proc/self/net/dev").exists())
    inside = box.orlop("exec", box.id, "cat", "/sys/class/net/eth0/mtu").stdout
    assert inside == "1400\n"


def test_the_mtu_follows_the_way_out(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    # P22: a VPN comes up, and containers that run send packets that no router refuses.
    from orlop.linux.netlink.rtnetlink import Hop, mtu

    host.route.add_route(("", 0), Hop(B))
    orlop(
        "network",
        "create",
        "-o",
        "com.docker.network.driver.mtu=1450",
        "-o",
        "com.docker.network.bridge.name=fix0",
        "fix",
    )
    box, fixed = run(), run("--network", "fix")

    def mtus() -> set[int]:
        ends = {link.mtu for link in host.route.links() if link.name.startswith("orlop0") or link.master}
        return ends | {int(box.inside(lambda: _mtu("eth0")))}

    for wanted in (1300, 1500):
        host.route.set_link(host.index("up0"), mtu(wanted))
        wait_until(lambda wanted=wanted: mtus() - {1450} == {wanted})  # type: ignore[misc]
    assert fixed.inside(lambda: _mtu("eth0")) == 1450


def _mtu(name: str) -> int:
    from orlop.linux.netlink.rtnetlink import Rtnetlink

    with Rtnetlink() as route:
        link = route.link(name)
        assert link is not None
        return link.mtu


def test_the_engine_dies_and_the_network_stays(run: Run, orlop: Environment, neighbour: Netns) -> None:
    box = run("-p", "8080:80")
    with serving(box, 80):
        pid = orlop.engine_pid()
        assert pid is not None
        processes.kill(pid, processes.start_time(pid), signal.SIGKILL)
        assert ask(neighbour, A, 8080) == B
        address = box.address()  # the next engine
        assert address == "10.88.0.2"
        other = run()
        assert other.address() == "10.88.0.3"
        refused = orlop("run", "--rm", "-p", "8080:80", "host", "true", check=False)
        assert "port is already allocated" in refused.stderr
        assert ask(neighbour, A, 8080) == B


def test_a_flush_of_the_ruleset_opens_nothing(run: Run, host: Netns, neighbour: Netns) -> None:
    # SEC-94: the table has an owner, whom others' flushes pass over (kernel 6.9).
    box = run("-p", "8080:80")
    nft(host, "flush", "ruleset")
    with serving(box, 80) as server:
        assert silent(neighbour, box.address(), 80)
        run()  # an older kernel gets the table back with the next start
        assert ask(neighbour, A, 8080) == B
        assert silent(neighbour, box.address(), 80)
    assert server.peers == [B]


def test_a_flush_opens_nothing_while_no_engine_is_there(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    box = run("-p", "8080:80")
    address = box.address()

    def flush() -> None:
        nft(host, "flush", "ruleset")
        assert silent(neighbour, address, 80)
        assert ask(neighbour, A, 8080) == B

    if not _keeps_owned_tables():
        pytest.skip("needs: tables of rules that persist (Linux 6.9)")
    with serving(box, 80):
        orlop("engine", "stop")
        wait_until(lambda: _titled(orlop, "orlop: sweeper") and (orlop.run / "sweeper.lock").read_text())
        wait_until(lambda: "progname" in nft(host, "list", "ruleset"))  # it owns them
        flush()
        assert not orlop.engine_pid()
        assert box.address() == address  # the next engine
        assert not _titled(orlop, "orlop: sweeper")
        flush()
        other = run("-p", "8081:80")
        with serving(other, 80):
            assert ask(neighbour, A, 8081) == B
        orlop("rm", "-f", other.id)


@pytest.mark.parametrize(
    "others",
    [(), ("orlop: spawner",), ("orlop: spawner", "orlop: heir")],
    ids=["alone", "with its spawner", "with its heir"],
)
def test_a_flush_opens_nothing_after_the_engine_was_killed(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns, others: tuple[str, ...]
) -> None:
    network: tuple[str, ...] = ()
    if "orlop: heir" in others:  # then the resolver does it, which is there where containers have names
        orlop("network", "create", "own")
        network = ("--network", "own")
    box = run(*network, "-p", "8080:80")
    address = box.address("own" if network else "bridge")
    if not _keeps_owned_tables():
        pytest.skip("needs: tables of rules that persist (Linux 6.9)")
    also = [pid for title in others for pid in _titled(orlop, title)]
    assert len(also) == len(others)
    with serving(box, 80):
        for pid in also:
            os.kill(pid, signal.SIGSTOP)  # it would take over
        _kill_engine(orlop)
        for pid in also:
            processes.kill(pid, processes.start_time(pid))
        wait_until(lambda: "progname" in nft(host, "list", "ruleset"))  # somebody owns them
        nft(host, "flush", "ruleset")
        assert silent(neighbour, address, 80)
        assert ask(neighbour, A, 8080) == B
        assert orlop.engine_pid() is None


def test_rules_that_are_gone_come_back_by_themselves(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    # Nobody owns them while an engine dies, and on kernels before 6.9 never.
    box = run("-p", "8080:80")
    address = box.address()
    (spawner,) = _titled(orlop, "orlop: spawner")
    with serving(box, 80):
        os.kill(spawner, signal.SIGSTOP)
        try:
            _kill_engine(orlop)
            wait_until(lambda: "progname" not in nft(host, "list", "ruleset"))
            nft(host, "flush", "ruleset")
            assert not list(host.nft.tables())
        finally:
            os.kill(spawner, signal.SIGCONT)
        wait_until(lambda: list(host.nft.tables()))
        wait_until(lambda: ask(neighbour, A, 8080) == B)
        assert silent(neighbour, address, 80)
        wait_until(lambda: not _titled(orlop, "orlop: sweeper"))


def _kill_engine(orlop: Environment) -> None:
    pid = orlop.engine_pid()
    assert pid is not None
    processes.kill(pid, processes.start_time(pid), signal.SIGKILL)


def test_nothing_is_left_after_everything_was_killed(orlop: Environment, host: Netns) -> None:
    before = {link.name for link in host.route.links()}
    orlop("network", "create", "own")
    for number in range(3):
        orlop("run", "-d", "--network", "own", "-p", f"{8080 + number}:80", "host", "sleep", "1000")
    for pid in orlop.processes():
        processes.kill(pid, processes.start_time(pid), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while orlop.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    orlop("rm", *orlop.container_ids())
    orlop("network", "rm", "own")
    orlop("engine", "stop")
    deadline = time.monotonic() + 20
    while ({link.name for link in host.route.links()} != before or list(host.nft.tables())) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert {link.name for link in host.route.links()} == before
    assert not list(host.nft.tables())
    assert not list(orlop.root.glob("containers/*"))


def test_what_an_engine_leaves_behind_goes_with_the_last_container(run: Run, orlop: Environment, host: Netns) -> None:
    before = {link.name for link in host.route.links()}
    forwarding = host.inside(lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text())
    orlop("network", "create", "-o", "com.docker.network.bridge.name=deck0", "own")
    first, last = run("--network", "own", "-p", "8080:80"), run("-p", "8081:80")
    for _ in range(2):  # two engines that leave, and one who sweeps
        orlop("engine", "stop")
        wait_until(lambda: len(_titled(orlop, "sweeper")) == 1)
        orlop("ps")
    orlop("engine", "stop")
    wait_until(lambda: not _titled(orlop, "serve"))
    for box in (first, last):
        assert {"deck0"} <= {link.name for link in host.route.links()}
        status = json.loads((orlop.root / "containers" / box.id / "status.json").read_text())
        box.close()  # the last descriptor of its namespace that is not its own
        processes.kill(status["pid"], status["pidStartTime"])
    wait_until(lambda: {link.name for link in host.route.links()} == before)
    wait_until(lambda: not list(host.nft.tables()) and not orlop.processes())
    assert host.inside(lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text()) == forwarding
    again = run("-p", "8080:80")  # the next engine
    with serving(again, 80):
        assert ask(host, "127.0.0.1", 8080)


def test_network_commands_print_what_dockers_do(orlop: Environment) -> None:
    made = orlop("network", "create", "--label", "a=b", "web").stdout.strip()
    assert len(made) == 64
    lines = orlop("network", "ls").stdout.splitlines()
    assert lines[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line.split()[1:] for line in lines[1:]] == [
        ["bridge", "bridge", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
        ["web", "bridge", "local"],
    ]
    assert orlop("network", "ls", "-q", "--filter", "label=a=b").stdout == f"{made[:12]}\n"
    assert orlop("network", "ls", "--format", "{{.Name}} {{.IPv6}}", "--filter", "type=custom").stdout == "web false\n"
    (found,) = json.loads(orlop("network", "inspect", made[:6]).stdout)
    assert (found["Name"], found["Labels"], found["Driver"]) == ("web", {"a": "b"}, "bridge")
    for words, cause in (
        (("create", "web"), "network with name web already exists"),
        (("create", "bridge"), "operation is not permitted on predefined bridge network"),
        (("create", "-d", "overlay", "x"), "This node is not a swarm manager"),  # as dockerd says
        (("create", "-d", "nobodys", "x"), 'plugin "nobodys" not found'),
        (("create", "--gateway", "10.1.1.1", "x"), "every ip-range or gateway must have a corresponding subnet"),
        (("create", "--subnet", "10.77.0.0/33", "x"), "invalid CIDR address: 10.77.0.0/33"),
        (("create", "--subnet", "127.0.0.0/16", "x"), "can't be a network's subnet"),
        (
            ("create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.0", "x"),
            "failed to allocate gateway (10.77.0.0)",
        ),
        (("create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.255", "x"), "Address already in use"),
        (("create", "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.0/16", "x"), "bigger than its parent subnet"),
        (
            ("create", "--subnet", "10.77.0.0/24", "--aux-address", "a=10.77.0.1", "x"),
            "(10.77.0.1): Address already in",
        ),
        (("ls", "-f", "=x"), "invalid filter ''"),
        (("create", "-o", "com.docker.network.bridge.name=br%d", "x"), "invalid name of a link: 'br%d'"),
        (("rm", "bridge"), "bridge is a pre-defined network and cannot be removed"),
        (("rm", "nobody"), "network nobody not found"),
    ):
        refused = orlop("network", *words, check=False)
        assert refused.code != 0
        assert cause in refused.stderr
    assert orlop("network", "rm", "-f", "nobody").stderr == ""
    orlop("network", "create", "--config-only", "plan")  # docker's stay
    assert orlop("network", "prune", "-f").stdout == "Deleted Networks:\nweb\n\n"
    orlop("network", "rm", "plan")


def test_a_macvlan_is_on_the_cable_itself(run: Run, orlop: Environment, neighbour: Netns) -> None:
    made = ("network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", B, "-o", "parent=up0", "lan")
    orlop(*made)
    box, other = run("--network", "lan", "--ip", "192.0.2.77"), run("--network", "lan")
    with serving(box, 80), serving(neighbour, 9000):
        assert ask(neighbour, "192.0.2.77", 80) == B
        assert ask(box, B, 9000) == "192.0.2.77"
        assert ask(other, "192.0.2.77", 80) == other.address("lan")


def test_what_can_not_lie_on_a_link_is_refused(orlop: Environment, neighbour: Netns) -> None:
    def create(driver: str, *options: str) -> str:
        words = [word for option in options for word in ("-o", option)]
        return orlop("network", "create", "-d", driver, *words, f"of-{driver}", check=False).stderr

    assert "there is no link nosuch on this machine" in create("macvlan", "parent=nosuch")
    assert "loopback interface is not a valid ipvlan parent link" in create("ipvlan", "parent=lo")
    assert "parent interface was not found on the host: up9" in create("macvlan", "parent=up9.10")
    assert "unable to parse a valid vlan id from: x" in create("macvlan", "parent=up0.x")
    assert "vlan id must be between 1-4094, received: 4095" in create("macvlan", "parent=up0.4095")
    assert "requested ipvlan mode 'l9' is not valid" in create("ipvlan", "parent=up0", "ipvlan_mode=l9")
    assert "requested ipvlan flag 'x' is not valid" in create("ipvlan", "parent=up0", "ipvlan_flag=x")
    assert "requested macvlan mode 'l2' is not valid" in create("macvlan", "parent=up0", "macvlan_mode=l2")
    for driver, module, options in (("ipvlan", "ipvlan", ["parent=up0"]), ("macvlan", "8021q", ["parent=up0.10"])):
        told = create(driver, *options)  # tests/vm has a kernel that makes them
        assert not told or ("Unknown device type" in told and f"modprobe {module}" in told)
        orlop("network", "rm", f"of-{driver}", check=False)
    assert not create("macvlan", "parent=up0")
    made = orlop(
        "network", "create", "-d", "macvlan", "-o", "parent=up0", "-o", "macvlan_mode=passthru", "x", check=False
    )
    assert "network of-macvlan is already using parent interface up0" in made.stderr


def test_past_the_machines_rules_nothing_is_said_to_be_restricted_or_published(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    made = ("-d", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", B, "-o", "parent=up0", "lan")
    orlop("network", "create", *made)
    refused = orlop("create", "--network", "lan", "--egress", "deny", "host", "true", check=False)
    assert "--egress deny can't hold in network lan" in refused.stderr and refused.code
    denied = run("--egress", "deny")
    refused = orlop("network", "connect", "lan", denied.id, check=False)
    assert "--egress deny can't hold in network lan" in refused.stderr
    # A network that has another driver by the time of the start.
    orlop("network", "create", "later")
    late = orlop("create", "--network", "later", "--egress", "learn", "host", "true").stdout.strip()
    orlop("network", "rm", "later")
    orlop("network", "create", "-d", "macvlan", "-o", "parent=up0", "later")
    assert "--egress learn can't hold in network later" in orlop("start", late, check=False).stderr
    told = orlop("create", "--network", "lan", "-p", "8080:80", "--host-access", "9000", "host", "true").stderr
    assert "Published ports are discarded" in told
    box = run("--network", "lan", "-p", "8080:80", "--host-access", "9000")
    assert box.orlop("port", box.id).stdout == "" and silent(host, "127.0.0.1", 8080)
    assert box.address("lan") not in (A, B)  # the machine's own, and its gateway's
    assert "host.docker.internal" not in box.read("/etc/hosts")
    assert "8080" not in nft(host, "list", "ruleset")


def test_a_network_that_went_is_missed_at_the_start(orlop: Environment) -> None:
    orlop("network", "create", "gone")
    orlop("create", "--name", "late", "--network", "gone", "host", "sleep", "1000")
    orlop("network", "rm", "gone")
    refused = orlop("start", "late", check=False)
    assert refused.code != 0
    assert "network gone not found" in refused.stderr
    orlop("network", "create", "gone")
    orlop("start", "late")
    assert orlop("ps", "--format", "{{.Names}} {{.Networks}}").stdout == "late gone\n"


def test_a_container_reaches_the_loopback_that_it_was_given(run: Run, orlop: Environment, host: Netns) -> None:
    # P60: host.docker.internal leads to what listens on 127.0.0.1 there, at the ports that were given, and no other.
    box = run("--host-access", "9000-9002", "--host-access", "9001", "--host-access", "53/udp")
    other = run("-p", "9002:80")
    gateway = box.address(key="Gateway")
    assert f"{gateway}\thost.docker.internal" in box.read("/etc/hosts")
    with loopback(host, 9000), loopback(host, 9005), loopback(host, 53, UDP), serving(host, 9001), serving(other, 80):
        assert ask(box, gateway, 9000) == box.address()
        assert ask(box, gateway, 53, kind=UDP) == box.address()
        assert ask(box, gateway, 9001) == box.address()
        assert ask(box, gateway, 9002)  # what is published stays what it is
        assert silent(box, gateway, 9005)
        assert silent(box, "127.0.0.1", 9000)
        assert silent(other, gateway, 9000)
        assert ask(other, gateway, 9001) == other.address()
        caged = run("--egress", "deny", "--host-access", "9000")
        assert ask(caged, gateway, 9000) == caged.address()
        assert silent(caged, gateway, 9001)
        orlop("network", "create", "left")
        orlop("network", "connect", "left", box.id)
        assert ask(box, gateway, 9000) == box.address()
        pid = orlop.engine_pid()
        assert pid is not None
        processes.kill(pid, processes.start_time(pid), signal.SIGKILL)
        assert ask(other, gateway, 9001) == other.address()
        orlop("rm", "-f", box.id)
        assert silent(other, gateway, 9000)
    assert "--host-access=9000" in orlop("show-run", caged.id).stdout
    for words, cause in (
        (("--host-access", "x"), "invalid containerPort: x"),
        (("--host-access", "80/sctp"), "invalid proto: sctp"),
        (("--host-access", "1-65535", "--egress", "deny"), "more than 256 ports"),
        (("--host-access", "80", "--network", "host"), "conflicting options: --host-access"),
    ):
        refused = orlop("run", "--rm", *words, "host", "true", check=False)
        assert refused.code == 125
        assert cause in refused.stderr


@contextlib.contextmanager
def loopback(place: Netns, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    """Serve at 127.0.0.1 alone."""
    with serving(place, port, kind=kind, address="127.0.0.1"):
        yield


def test_the_machines_network_and_none(orlop: Environment, host: Netns) -> None:
    shared = orlop("run", "--rm", "--network", "host", "-p", "80:80", "host", "cat", "/proc/net/dev")
    assert "Published ports are discarded when using host network mode" in shared.stderr
    assert {line.split(":")[0].strip() for line in shared.stdout.splitlines()[2:]} == {
        link.name for link in host.route.links()
    }
    alone = orlop("run", "--rm", "--network", "none", "host", "cat", "/proc/net/dev").stdout
    assert [line.split(":")[0].strip() for line in alone.splitlines()[2:]] == ["lo"]


def test_nothing_of_ours_listens_where_containers_could_reach_it(run: Run, orlop: Environment, host: Netns) -> None:
    # SEC-71, CVE-2025-9074: the engine, its resolver and published ports open no socket of the machine's network.
    orlop("network", "create", "own")
    run("-p", "8080:80"), run("--network", "own", "-p", "8081:80/udp")
    listening = host.inside(
        lambda: [
            line.split()[1]
            for name in ("tcp", "tcp6", "udp", "udp6")
            for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        ]
    )
    # What reserves a port of UDP is bound, and never given a packet; of TCP it is not even listed.
    assert [line for line in listening if not line.endswith(":1F91")] == []
    with contextlib.ExitStack() as stack:
        for place in (host, run()):
            sender = stack.enter_context(place.inside(lambda: socket.socket(socket.AF_INET, UDP)))
            for address in ("10.88.0.1", "10.89.0.1", "127.0.0.1"):
                with contextlib.suppress(OSError):
                    sender.sendto(b"?", (address, 8081))

    def queued() -> list[str]:
        lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
        return [line.split()[4] for line in lines if line.split()[1].endswith(":1F91")]

    assert host.inside(queued) == ["00000000:00000000"]


def test_a_published_port_is_nobody_elses(run: Run, orlop: Environment, host: Netns) -> None:
    box = run("-p", "8080:80", "-p", "127.0.0.1:8081:81/udp")

    def taken(port: int, kind: int, address: str = "") -> bool:
        def bind() -> bool:
            with socket.socket(socket.AF_INET, kind) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    other.bind((address, port))
                except OSError as wrong:
                    return wrong.errno == errno.EADDRINUSE
                return False

        return host.inside(bind)

    for _ in range(2):
        assert taken(8080, socket.SOCK_STREAM)
        assert taken(8081, UDP, "127.0.0.1")
        assert not taken(8082, socket.SOCK_STREAM)
        pid = orlop.engine_pid()
        assert pid is not None
        processes.kill(pid, processes.start_time(pid))
        orlop("ps")  # the next engine
    refused = orlop("run", "--rm", "-p", "192.0.2.99:80:80", "host", "true", check=False)
    assert "cannot assign requested address" in refused.stderr
    with host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as bound:
        bound.bind(("", 8083))  # and does not listen: /proc does not show it
        refused = orlop("run", "--rm", "-p", "8083:80", "host", "true", check=False)
        assert "failed to bind host port 0.0.0.0:8083/tcp: address already in use" in refused.stderr
    with host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as local:
        local.bind(("", 40000))  # as the local end of a connection has it, from the kernel's own range
        assert orlop("run", "--rm", "-p", "40000:80", "host", "true").code == 0
    orlop("rm", "-f", box.id)
    wait_until(lambda: not taken(8080, socket.SOCK_STREAM))


# Runs its arguments where the kernel seems to know no nftables: socket(AF_NETLINK, ..., NETLINK_NETFILTER) is refused.
_WITHOUT_NETFILTER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from orlop.linux import abi, seccomp
from orlop.runtime.seccomp import compile
from orlop.spec.runtime import Seccomp
refused = [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 12, "op": "SCMP_CMP_EQ"}]
rule = {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 93, "args": refused}
profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
seccomp.load(compile(Seccomp.from_json(profile, "seccomp"), abi.MACHINE), 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_without_kernel_support_only_who_named_a_network_is_refused(orlop: Environment) -> None:
    # I3: what nobody asked for by name degrades with a warning; what somebody did, fails.
    def ask_for(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", _WITHOUT_NETFILTER, str(engine.CHECKOUT / "src"), str(engine.COMMAND), *words]
        return orlop.inside(lambda: subprocess.run(argv, env=orlop.variables, capture_output=True, text=True))

    plain = ask_for("run", "--rm", "host", "cat", "/proc/net/dev")
    assert plain.returncode == 0, plain.stderr
    assert [line.split(":")[0].strip() for line in plain.stdout.splitlines()[2:]] == ["lo"]
    assert "It runs without a network: the default one can't be set up: Protocol not supported" in plain.stderr
    for words in (("--network", "bridge"), ("-p", "8080:80"), ("--egress", "deny")):
        named = ask_for("run", "--rm", *words, "host", "true")
        assert named.returncode == 125
        assert "Protocol not supported" in named.stderr
    assert orlop.container_ids() == []


def test_an_engine_leaves_while_an_end_is_dealt_with(tmp_path: Path, host: Netns) -> None:
    # The end of the last container may be about to remove its links on a thread of its own when the engine leaves.
    networks = host.inside(lambda: Networks(str(tmp_path / "root"), str(tmp_path), "boot"))
    removal = threading.Thread(target=lambda: None)
    left = threading.Thread(target=lambda: host.inside(networks.leave))
    with networks.lock:
        networks._removals.append(removal)
        left.start()
        left.join(0.2)
        removal.start()
    left.join(20)
    assert not left.is_alive()
    assert networks._left


def test_a_network_is_made_from_anothers_configuration(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "--config-only", "--subnet", "10.99.0.0/24", "--label", "a=b", "plan")
    orlop("network", "create", "--config-from", "plan", "built")
    (found,) = json.loads(orlop("network", "inspect", "built").stdout)
    assert found["IPAM"]["Config"] == [{"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.1"}]
    assert (found["ConfigFrom"], found["Labels"], found["ConfigOnly"]) == ({"Network": "plan"}, {"a": "b"}, False)
    assert run("--network", "built").address("built") == "10.99.0.2"
    for words, cause in (
        (("run", "--rm", "--network", "plan", "host", "true"), "cannot be used for containers"),
        (("network", "rm", "plan"), 'configuration network "plan" is in use'),
        (("network", "create", "--config-from", "built", "x"), 'configuration network "built" does not exist'),
        (("network", "create", "--config-from", "plan", "--ipv6", "x"), "user specified configurations are not"),
        (("network", "create", "--config-only", "--internal", "x"), "can only contain network specific fields"),
        (("network", "create", "--scope", "swarm", "x"), "there is no scope 'swarm' on one machine"),
    ):
        refused = orlop(*words, check=False)
        assert refused.code != 0
        assert cause in refused.stderr, refused.stderr


def test_a_port_is_published_as_its_mode_says(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    # P01: the default obeys the machine's rules, nat passes them by as docker does, routed translates nothing.
    nft(host, "add table inet t")
    nft(host, "add chain inet t input { type filter hook input priority 0; policy drop; }")
    nft(host, 'add rule inet t input iifname "lo" accept; add rule inet t input ct state established accept')
    obeys = run("-p", "8080:80,mode=host-input")
    passes = run("-p", "8081:80,mode=nat", "-p", "7000-7002:80-82,mode=nat", "-p", "127.0.0.1:8082:80,mode=nat")
    routed = run("-p", "80-81,mode=routed")
    with (
        serving(obeys, 80),
        serving(passes, 80) as server,
        serving(passes, 82),
        serving(routed, 80),
        serving(routed, 82),
    ):
        assert silent(neighbour, A, 8080)
        assert ask(neighbour, A, 8081) == B
        assert ask(neighbour, A, 7002) == B
        assert silent(neighbour, A, 8082)
        assert ask(neighbour, routed.address(), 80) == B
        assert silent(neighbour, routed.address(), 82)
        assert silent(neighbour, passes.address(), 80)
        assert ask(host, "127.0.0.1", 8081) == "10.88.0.1"
    assert server.peers[0] == B
    told = orlop("net", "explain", routed.id).stdout
    assert f"(tried from 198.18.0.2 to {routed.address()}:80), if they have a route to it" in told
    orlop("rm", "-f", passes.id, routed.id)
    assert silent(neighbour, A, 8081)
    nft(host, "delete table inet t")


def test_a_port_is_reached_from_where_it_says(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    other = "192.0.2.3"
    neighbour.route.add_address(neighbour.index("up0"), other, 24)
    box = run("-p", f"8080:80,from={B}", "-p", f"8081:80,mode=nat,from=203.0.113.0/24,from={B}/32", "-p", "8082:80")
    with serving(box, 80) as server:
        for port in (8080, 8081, 8082):
            assert ask(neighbour, A, port) == B
            assert bool(_asked_from(neighbour, other, port)) == (port == 8082)
        assert ask(host, "127.0.0.1", 8080)
    assert server.peers == [B, B, B, other, "10.88.0.1"]
    for words, cause in (
        ("80:80,from=x", "invalid IP address: x"),
        ("80:80,mode=magic", "invalid field of a port: 'mode=magic'"),
        ("80:80,mode=routed", "a routed port has no port of the host"),
        ("80:80,", "invalid field of a port: ''"),
    ):
        refused = orlop("run", "--rm", "-p", words, "host", "true", check=False)
        assert refused.code == 125
        assert cause in refused.stderr


def _asked_from(place: Netns, source: str, port: int) -> bytes:
    def go() -> bytes:
        try:
            with socket.create_connection((A, port), timeout=1.0, source_address=(source, 0)) as asker:
                return asker.recv(100)
        except OSError:
            return b""

    return place.inside(go)
