"""Random networks, containers, ports and firewalls: what is said of a port is what packets find.

Who asks: the machine A, its neighbours B and C on two cables, a container of the same network, and one of another. No
model says what is right: real connections do, and `net explain` and what `run` prints must agree with them.

ORLOP_PORT_ROUNDS: how many set-ups (2); ORLOP_PORT_SEED: the first one's.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from orlop.linux.netlink.rtnetlink import IFA_F_NODAD, Hop
from support.boxes import Box, ask
from support.engine import Environment
from support.netns import A, B, Netns, network, wire

from .test_networks import nft

ROUNDS = int(os.environ.get("ORLOP_PORT_ROUNDS", "2"))
SEED = int(os.environ.get("ORLOP_PORT_SEED", "5"))
A2, A_FAR, C = "192.0.2.10", "203.0.113.1", "203.0.113.2"
A6, B6, A6_FAR, C6 = "2001:db8::1", "2001:db8::2", "2001:db8:1::1", "2001:db8:1::2"
OWN = (A, A2, A_FAR, A6, A6_FAR, "127.0.0.1", "::1")
UNPUBLISHED = 7777
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
PRIORITIES = (-150, 0, 5, 9000, 20_000, 2_000_000_000)
QUICK_S, SURE_S = 0.4, 10.0


def firewall(rng: random.Random, port: int, inner: int) -> str:
    """Return the machine's own rules: of a hand, of ufw, of firewalld, of dockerd."""
    priority = rng.choice(PRIORITIES)
    drop = f"meta l4proto {{ tcp, udp }} th dport {port} drop"
    known = "ct state established,related accept; iif lo accept; ip6 nexthdr icmpv6 accept;"
    kinds = (
        "",
        f"table inet t {{ chain i {{ type filter hook input priority {priority}; {drop}; }}; }}",
        f"table inet t {{ chain i {{ type filter hook input priority {priority}; policy drop; {known} }}; }}",
        f"table inet t {{ chain i {{ type filter hook input priority {priority}; policy drop; {known}"
        f" meta l4proto {{ tcp, udp }} th dport {port} accept; }}; }}",
        f"table ip t {{ chain i {{ type filter hook input priority 0; {drop}; }}; }}",
        f"table ip6 t {{ chain i {{ type filter hook input priority 0; {drop}; }}; }}",
        f"table inet t {{ chain p {{ type filter hook prerouting priority -300; {drop}; }}; }}",
        f"table inet t {{ chain o {{ type filter hook output priority 0; {drop}; }}; }}",
        f"table inet t {{ chain f {{ type filter hook forward priority {priority}; meta l4proto {{ tcp, udp }}"
        f" th dport {inner} reject; }}; }}",
        # iptables-nft, as ufw and dockerd leave it
        "table ip filter { chain user { }; chain INPUT { type filter hook input priority 0; policy drop;"
        f" {known.replace('ip6 nexthdr icmpv6 accept;', '')} jump user; }};"
        " chain FORWARD { type filter hook forward priority 0; policy drop; ct state established accept; }; };"
        f" add rule ip filter user udp dport {port} accept; add rule ip filter user tcp dport {port} accept",
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
        # firewalld
        "table inet firewalld {"
        " chain PREROUTING { type filter hook prerouting priority 10; policy accept;"
        " icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept;"
        " meta nfproto ipv6 fib saddr . mark . iif oif missing drop; };"
        f" chain INPUT {{ type filter hook input priority 10; policy accept; {known}"
        f" meta l4proto {{ tcp, udp }} th dport {port} accept; ct state invalid drop;"
        " reject with icmpx admin-prohibited; };"
        f" chain FORWARD {{ type filter hook forward priority 10; policy accept; {known} ct status dnat accept;"
        " reject with icmpx admin-prohibited; }; }",
        "table inet firewalld { chain FORWARD { type filter hook forward priority 10; policy accept;"
        " ct state established,related accept; reject with icmpx admin-prohibited; }; }",
    )
    return rng.choice(kinds)


class Answering:
    """Answers at one port of a container, by both families and protocols."""

    def __init__(self, box: Box, port: int, stack: ExitStack) -> None:
        for kind in KINDS.values():
            sock = box.inside(lambda kind=kind: socket.socket(socket.AF_INET6, kind))  # type: ignore[misc]
            stack.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("::", port))
            self._start(sock, kind == socket.SOCK_STREAM)

    def _start(self, sock: socket.socket, is_stream: bool) -> None:
        import threading

        def go() -> None:
            try:
                if is_stream:
                    sock.listen(64)
                while True:
                    if is_stream:
                        client, _ = sock.accept()
                        with client:
                            client.sendall(b"here")
                    else:
                        _, peer = sock.recvfrom(10)
                        sock.sendto(b"here", peer)
            except OSError:
                return

        threading.Thread(target=go, daemon=True).start()


@contextmanager
def cables(host: Netns) -> Iterator[tuple[Netns, Netns]]:
    """B and C, which know ways to all networks of A."""
    with network() as near, network() as far:
        wire(host, "up0", A, near, "up0", B, 24)
        wire(host, "up1", A_FAR, far, "up0", C, 24)
        host.route.add_address(host.index("up0"), A2, 32, IFA_F_NODAD)
        for link, own, other, theirs in (("up0", A6, near, B6), ("up1", A6_FAR, far, C6)):
            host.route.add_address(host.index(link), own, 64, IFA_F_NODAD)
            other.route.add_address(other.index("up0"), theirs, 64, IFA_F_NODAD)
        for other, way in ((near, (A, A6)), (far, (A_FAR, A6_FAR))):
            for gateway in way:
                other.route.add_route(("", 0), Hop(gateway, other.index("up0")))
        yield near, far


def options(rng: random.Random) -> list[str]:
    """Return the options of a network."""
    found = rng.choice(
        (
            [],
            [],
            ["-o", "com.docker.network.bridge.enable_icc=false"],
            ["--internal"],
            ["-o", "com.docker.network.bridge.gateway_mode_ipv4=routed"],
            ["-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1"],
            ["-o", f"com.docker.network.bridge.name=isle{rng.randrange(10_000)}"],
        )
    )
    six = rng.choice(([], ["--ipv6"], ["--ipv6"], ["--ipv6", "--ipv4=false"]))
    return [*([] if "--ipv4=false" in six and "ipv4=" in str(found) else found), *six]


def publishing(rng: random.Random, host_port: int, inner: int) -> str:
    """Return what -p is given, but for the protocol."""
    where = rng.choice(("", "", "", "0.0.0.0:", f"{A}:", f"{A2}:", "127.0.0.1:", "[::]:", "[::1]:", f"[{A6}]:"))
    count = rng.choice((0, 0, 2))
    ports = f"{host_port}-{host_port + count}:{inner}-{inner + count}" if count else f"{host_port}:{inner}"
    return where + ports


def tail(rng: random.Random, where: str) -> str:
    choices = ["", "", "", ",mode=nat", f",from={B}/32", ",from=10.0.0.0/8", f",from={C}/32"]
    return rng.choice(["", ",mode=nat"] if where.startswith("[") else choices)


class Case:
    """One container of a set-up, and what `run` said of it."""

    def __init__(
        self, box: Box, told: str, where: str, protocol: str, ports: tuple[int, int], net: str, is_internal: bool
    ) -> None:
        self.is_internal = is_internal
        self.box = box
        self.told = told
        self.where = where
        self.protocol = protocol
        self.host_port, self.inner = ports
        self.net = net
        self.addresses = [one for one in (box.address(net), box.address(net, "GlobalIPv6Address")) if one]


def set_up(rng: random.Random, orlop: Environment, number: int) -> Iterator[Case]:
    host_port, inner = 8000 + 10 * number, 80
    for place in range(2):
        net = f"n{number}-{place}"
        chosen = options(rng)
        orlop("network", "create", *chosen, net)
        for member in range(2 - place):
            ports = (host_port + 100 * (2 * place + member), inner)
            spec, protocol = publishing(rng, *ports), rng.choice(("tcp", "tcp", "udp"))
            spec += f"/{protocol}{tail(rng, spec)}"
            done = orlop("run", "-d", "--network", net, "-p", spec, "host", "sleep", "1000", check=False)
            if done.code:  # a port in a family or of a mode that the network can't have
                assert "relay" in done.stderr or "can't" in done.stderr, done
                continue
            box = Box.__new__(Box)
            box.orlop, box.id, box.fd = orlop, done.stdout.strip(), -1
            box.open()
            yield Case(box, done.stderr, spec, protocol, ports, net, "--internal" in chosen)


def asks_there(case: Case, other: Case) -> bool:
    """Tell whether a container has an address of each family that a port is published in: without, it asks nowhere."""
    has = {":" in one for one in other.addresses}
    named = case.where.startswith("["), case.where[0].isdigit() and "." in case.where
    wanted = {True} if named[0] else {False} if named[1] else {":" in one for one in case.addresses}
    return wanted <= has


def attempts(case: Case, others: list[Case], hosts: dict[str, Netns]) -> Iterator[tuple[str, Any, str, int]]:
    """Yield (who, from where, to which address, which port)."""
    places: dict[str, Any] = dict(hosts)
    for other in others:
        if other is not case:
            if other.net == case.net:
                places["same"] = other.box
            elif not other.is_internal and asks_there(case, other):
                places["islands"] = other.box
    gateways = [case.box.address(case.net, key) for key in ("Gateway", "IPv6Gateway")]
    for who, place in places.items():
        for address in (*OWN, *filter(None, gateways)):
            if who == "A" or address not in ("127.0.0.1", "::1"):
                yield who, place, address, case.host_port
        for address in case.addresses:
            yield who, place, address, case.inner
            yield who, place, address, UNPUBLISHED


def tried(case: Case, others: list[Case], hosts: dict[str, Netns], pool: ThreadPoolExecutor) -> dict[Any, bool]:
    kind = KINDS[case.protocol]

    def one(what: tuple[str, Any, str, int], wait_s: float = QUICK_S) -> tuple[Any, bool]:
        who, place, address, port = what
        return (who, address, port), ask(place, address, port, kind=kind, connect_s=wait_s, wait_s=wait_s) == "here"

    return dict(pool.map(one, list(attempts(case, others, hosts))))


def explained(case: Case, *port: str) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    found = json.loads(case.box.orlop("net", "explain", "-f", "json", case.box.id, *port).stdout)["Ports"]
    by_kind = {"this machine": "A", "other machines": "out", "same network": "same", "other networks": "islands"}
    said = {}
    for verdict in found[0]["From"] if found else ():
        kind = next(short for long, short in by_kind.items() if verdict["Who"].startswith(long))
        said[kind] = verdict["Can"], verdict["Why"]
    return found[0] if found else {}, said


def disagreements(case: Case, reach: dict[Any, bool], asked: set[str]) -> Iterator[str]:
    """Yield what is said otherwise than it is."""
    _, said = explained(case, f"{case.inner}/{case.protocol}")
    for who, (can, why) in said.items():
        sources = ("B", "C") if who == "out" else (who,)
        if not asked.intersection(sources):
            continue
        # Of its own network a container is asked at its address; of others, at what the machine publishes.
        at = [
            (source, address, port)
            for source, address, port in reach
            if source in sources and port != UNPUBLISHED and (who != "same" or address in case.addresses)
        ]
        reached = [one for one in at if reach[one]]
        if (can == "yes" and not reached) or (can == "no" and reached):
            yield f"net explain says of {who}: {can} ({why}); reached: {reached}"
    outside = [one for one, found in reach.items() if found and one[0] in ("B", "C") and one[2] != UNPUBLISHED]
    if "from this machine only" in case.told and outside:
        yield f"run says {case.told!r}; reached: {outside}"
    is_for_all = not any(word in case.where for word in ("127.0.0.1", "[::1]", "from="))
    can_be = said.get("out", ("", ""))[0] != "no" or "published" not in said["out"][1]
    if not case.told and is_for_all and can_be and not outside and said:
        yield f"run says nothing, and nobody outside reaches it; explain: {said.get('out')}"
    wrong = [one for one, found in reach.items() if found and one[2] == UNPUBLISHED and one[0] not in ("A", "same")]
    if wrong:
        yield f"what is not published is reached: {wrong}"


@pytest.mark.parametrize("number", range(SEED, SEED + ROUNDS))
def test_what_is_said_of_ports_is_so(orlop: Environment, host: Netns, number: int) -> None:
    rng = random.Random(number)
    with ExitStack() as stack:
        near, far = stack.enter_context(cables(host))
        pool = stack.enter_context(ThreadPoolExecutor(48))
        rules = firewall(rng, 8000 + 10 * number + rng.choice((0, 100, 200)), 80)
        if rules:
            first, _, more = rules.partition("; add rule")
            nft(host, first)
            nft(host, "add rule" + more) if more else None
        cases = list(set_up(rng, orlop, number))
        for case in cases:
            stack.callback(case.box.close)
            for port in (case.inner, UNPUBLISHED):
                Answering(case.box, port, stack)
        hosts = {"A": host, "B": near, "C": far}
        wrong = []
        for case in cases:
            reach = tried(case, cases, hosts, pool)
            wrong += [
                f"{case.net} -p {case.where}: {one}" for one in disagreements(case, reach, {one[0] for one in reach})
            ]
    assert not wrong, f"seed {number}, {rules or 'no rules'}:\n" + "\n".join(wrong)
