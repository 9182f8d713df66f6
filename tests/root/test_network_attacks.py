"""What a container, or a neighbour of the machine, sends that no program of good will would: frames by hand.

A is the machine, B its neighbour on the same cable; both are namespaces.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from orlop.linux.netlink.rtnetlink import Hop
from support.boxes import Box, ask, serving
from support.engine import Environment
from support.netns import A, B, Netns
from support.tasks import wait_until

Run = Callable[..., Box]
UDP = socket.SOCK_DGRAM
LLDP = (
    "01:80:c2:00:00:0e"  # a group that bridges do not forward (802.1D): it is for who is at the other end of the cable
)
SLOW = "01:80:c2:00:00:02"
NEW_ADDRESS = "10.88.0.77"  # nobody's


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(to: str, kind: int, body: bytes, source: str = "02:00:00:00:00:99") -> bytes:
    return mac(to) + mac(source) + struct.pack("!H", kind) + body


def ipv4(source: str, target: str, port: int, data: bytes) -> bytes:
    """A datagram."""
    udp = struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data
    packed = [socket.inet_aton(one) for one in (source, target)]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *packed)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def ipv6(source: str, target: str, protocol: int, data: bytes, hops: int = 255) -> bytes:
    packed = [socket.inet_pton(socket.AF_INET6, one) for one in (source, target)]
    pseudo = b"".join(packed) + struct.pack("!IxxxB", len(data), protocol)
    at = 2 if protocol == 58 else 6
    data = data[:at] + struct.pack("!H", checksum(pseudo + data)) + data[at + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(data), protocol, hops) + b"".join(packed) + data


def advertisement(prefix: str) -> bytes:
    """What a router says (RFC 4861): that it leads everywhere, and which addresses to take."""
    option = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, socket.inet_pton(socket.AF_INET6, prefix))
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option


def send(box: Box | Netns, link: str, *frames: bytes) -> None:
    def go() -> None:
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sender:
            sender.bind((link, 0))
            for one in frames:
                sender.send(one)

    box.inside(go)


def test_no_container_is_a_router_for_the_machine(run: Run, orlop: Environment, host: Netns) -> None:
    """SEC-93: router's advertisements and redirects, to every address that a bridge takes, and to those it does not."""
    wrong = ipv6("fe80::99", "ff02::1", 58, advertisement("2001:db8:bad::"))
    frames = [frame(to, 0x86DD, wrong) for to in ("33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff", LLDP, SLOW)]
    send(run(), "eth0", *frames)  # before this machine forwards IPv6, and believes nobody any more
    orlop("network", "create", "--ipv6", "six")
    box = run("--network", "six")
    host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
    send(box, "eth0", *frames)
    with serving(host, 9000, kind=UDP):
        assert ask(box, box.address("six", "Gateway"), 9000, kind=UDP), "what was sent before has come"
    assert [one.gateway for one in host.route.routes(socket.AF_INET6) if one.gateway] == []
    assert [one.address for one in host.route.addresses() if one.address.startswith("2001:db8:bad")] == []


def test_what_a_container_sends_comes_by_its_bridge(run: Run, host: Netns) -> None:
    """Rules of the machine for a bridge hold for all that its containers send."""
    box = run()
    told: list[str] = []
    with host.inside(lambda: socket.socket(socket.AF_INET, UDP)) as server:
        server.bind(("", 9000))
        server.setsockopt(socket.SOL_IP, 8, 1)  # IP_PKTINFO: by which link
        server.settimeout(20)
        here = host.route.link("orlop0") or next(one for one in host.route.links() if one.kind == "bridge")
        for to in (LLDP, SLOW, here.address):
            send(box, "eth0", frame(to, 0x0800, ipv4(box.address(), "10.88.0.1", 9000, to.encode())))
        while here.address not in told:
            data, ancillary, _, _ = server.recvmsg(100, 100)
            told.append(data.decode())
            index = struct.unpack("=I", ancillary[0][2][:4])[0]
            assert index == here.index, data


def test_nobody_speaks_as_another_to_get_out(run: Run, host: Netns, neighbour: Netns) -> None:
    """--egress deny holds for a container, not for its address: with NET_RAW it can send as anybody."""
    other = run()
    box = run("--egress", "deny", "--egress-allow", f"{B}:9001/udp")
    bridge = next(one for one in host.route.links() if one.kind == "bridge")
    neighbour.route.add_route(("198.51.100.0", 24), Hop(A))
    with serving(neighbour, 9000, kind=UDP) as closed, serving(neighbour, 9001, kind=UDP) as opened:
        for source in (other.address(), NEW_ADDRESS, "198.51.100.1", box.address()):
            for own in (other.address(key="MacAddress"), "02:00:00:00:00:99", box.address(key="MacAddress")):
                for port in (9000, 9001):
                    send(box, "eth0", frame(bridge.address, 0x0800, ipv4(source, B, port, b"?"), own))
        wait_until(lambda: opened.peers)
        assert ask(other, B, 9000, kind=UDP) == A
    assert closed.peers == [A] and set(opened.peers) == {A}, (closed.peers, opened.peers)


def test_a_restricted_container_has_no_way_by_its_link_local_address(run: Run, orlop: Environment, host: Netns) -> None:
    orlop("network", "create", "--ipv6", "six")
    box = run("--network", "six", "--egress", "deny")
    gateway = box.address("six", "IPv6Gateway")

    def from_link_local() -> str:
        with socket.socket(socket.AF_INET6, UDP) as client:
            index = socket.if_nametoindex("eth0")
            own = next(
                line.split()[0]
                for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
                if line.startswith("fe80")
            )
            client.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND: it may be a moment old
            client.bind((socket.inet_ntop(socket.AF_INET6, bytes.fromhex(own)), 0, 0, index))
            client.settimeout(1)
            client.sendto(b"?", (gateway, 9000, 0, index))
            try:
                return client.recv(100).decode()
            except OSError:
                return ""

    with serving(host, 9000, kind=UDP, family=socket.AF_INET6) as server:
        assert ask(host, gateway, 9000, kind=UDP)
        assert box.inside(from_link_local) == ""
    assert server.peers == [gateway]


def test_loopback_is_no_neighbours_whatever_else_is_allowed(run: Run, host: Netns, neighbour: Netns) -> None:
    """SEC-90: with route_localnet on, as kube-proxy sets it, and past the machine's rules (mode=nat)."""
    box = run("-p", "127.0.0.1:8080:80/udp", "-p", "127.0.0.1:8081:80/udp,mode=nat", "-p", "8082:80/udp")
    host.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")

    with serving(box, 80, kind=UDP) as server:
        here = host.route.link("up0")
        assert here is not None
        for port in (8080, 8081, 8082):
            send(neighbour, "up0", frame(here.address, 0x0800, ipv4(B, "127.0.0.1", port, b"?")))
        assert ask(neighbour, A, 8082, kind=UDP) == B
        assert ask(host, "127.0.0.1", 8080, kind=UDP) and ask(host, "127.0.0.1", 8081, kind=UDP)
    assert server.peers == [B, "10.88.0.1", "10.88.0.1"]


def test_published_ports_whatever_the_reverse_path_filter(run: Run, host: Netns, neighbour: Netns) -> None:
    """Ubuntu sets 2 (loose), Red Hat 1 (strict): of all links."""
    box = run("-p", "8080:80")
    with serving(box, 80):
        for value in ("0", "1", "2"):
            host.run("sh", "-c", f"echo {value} >/proc/sys/net/ipv4/conf/all/rp_filter")
            assert ask(neighbour, A, 8080, connect_s=3) == B, value


def test_the_gate_is_no_way_for_packets_to_go_round(run: Run, orlop: Environment, host: Netns) -> None:
    orlop("network", "create", "--ipv6", "six")
    box = run("--network", "six")
    gate = next(one for one in host.route.links() if one.name.startswith("og") and one.name.endswith("-out"))

    def sent() -> int:
        lines = host.run("cat", "/proc/thread-self/net/dev").splitlines()
        return next(int(line.split()[10]) for line in lines if line.split()[0] == f"{gate.name}:")

    def go() -> None:
        with socket.socket(socket.AF_INET6, UDP) as client:
            client.sendto(b"?", ("fd6f:726c:6f70::88", 9000))

    before = sent()
    box.inside(go)
    with serving(host, 9000, kind=UDP, family=socket.AF_INET6):
        assert ask(box, box.address("six", "IPv6Gateway"), 9000, kind=UDP)
    assert sent() - before < 5, "a word of the link itself, at most"
