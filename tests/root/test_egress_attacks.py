"""Ways out that the owner of a container with `--egress deny` tries: other sources and links, names that lie (P07)."""

# ruff: noqa: F811  (pytest gives fixtures by their names)

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux.netlink.nftables import IPV4
from orlop.linux.netlink.rtnetlink import Hop
from orlop.network.dns import client, message
from orlop.network.footprint import Footprint
from support.boxes import Box, serving, silent
from support.boxes import ask as connect
from support.engine import Environment
from support.netns import A, B, Netns
from support.tasks import wait_until

from .test_names import C, Upstream, _init, _kill, _resolver, ask, upstream  # noqa: F401

Run = Callable[..., Box]
Start = Callable[..., Upstream]
METADATA = "169.254.169.254"
SIX, NEIGHBOUR_SIX = "2001:db8::1", "2001:db8::2"


@pytest.fixture
def outside(upstream: Start, host: Netns) -> Iterator[Upstream]:
    """A server of names at B, which gives every name the address C."""
    yield upstream(B, says=C)


def _datagram(source: str, destination: str, port: int) -> bytes:
    data = struct.pack("!HHHH", 4000, port, 8 + 4, 0) + b"leak"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + data


def _spoof(box: Box, source: str, destination: str, port: int) -> None:
    """Send a datagram of somebody else's from a container: CAP_NET_RAW is enough."""

    def go() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(_datagram(source, destination, port), (destination, 0))

    box.inside(go)


def _link_local(place: Box | Netns, interface: str) -> str:
    def go() -> str:
        with open("/proc/thread-self/net/if_inet6", encoding="ascii") as file:
            lines = [line.split() for line in file]
        found = [words[0] for words in lines if words[5] == interface and words[0].startswith("fe80")]
        return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(found[0])) if found else ""

    return place.inside(go)


def test_nothing_leaves_from_other_addresses(run: Run, orlop: Environment, outside: Upstream, host: Netns) -> None:
    """Red: without the chains of `Senders` the spoofed datagrams come to B, and the machine answers at fe80::."""
    orlop("network", "create", "--ipv6", "six")
    for side, address in ((host, SIX), (outside.place, NEIGHBOUR_SIX)):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    free = run("--network", "six")
    box = run("--network", "six", "--egress", "deny", "--egress-allow", f"{B}:9000", "--name", "caged")
    unused = box.address("six").rpartition(".")[0] + ".77"
    bridge = next(link.name for link in host.route.links() if link.kind == "bridge" and link.name.startswith("br-"))
    near = _link_local(host, bridge)
    assert near
    with (
        serving(outside.place, 9001, kind=socket.SOCK_DGRAM) as sink,
        serving(outside.place, 9000) as allowed,
        serving(host, 9002, family=socket.AF_INET6) as here,
    ):
        _spoof(free, free.address("six"), B, 9001)
        wait_until(lambda: len(sink.peers) == 1)
        for source in (unused, free.address("six"), "203.0.113.9"):
            _spoof(box, source, B, 9001)
        assert connect(box, B, 9000) == A  # behind them, and what is allowed is
        assert len(sink.peers) == 1 and len(allowed.peers) == 1
        for where in (near, _gateway_six(orlop)):
            scope = f"{where}%eth0" if where.startswith("fe80") else where
            assert silent(box, scope, 9002)
        assert here.peers == []
        # What finds neighbours goes no further than to them: with a router's hops it is an ordinary way out.
        heard = outside.place.inside(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
        with heard:
            heard.settimeout(5)
            for who, text in ((box, b"leak"), (free, b"done")):
                who.inside(lambda t=text: _solicit(t))  # type: ignore[misc]
            got = b""
            while b"done" not in got:
                got = heard.recv(200)
                assert b"leak" not in got
    told = orlop("network", "egress", "caged").stdout
    assert f"denied: {B}:9001/udp" in told.splitlines()


def _solicit(text: bytes) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        raw.sendto(b"\x87\0\0\0" + bytes(4) + socket.inet_pton(socket.AF_INET6, SIX) + text, (NEIGHBOUR_SIX, 0))


def _gateway_six(orlop: Environment) -> str:
    (network,) = json.loads(orlop("network", "inspect", "six").stdout)
    return next(str(one["Gateway"]) for one in network["IPAM"]["Config"] if ":" in one["Subnet"])


def test_a_name_leads_to_no_link_of_the_machines(run: Run, orlop: Environment, outside: Upstream, host: Netns) -> None:
    """Red: without `is_near` the credentials at 169.254.169.254 are told; UDP went to any address that a name has."""
    outside.place.route.add_address(outside.place.index("up0"), METADATA, 32)
    host.route.add_route((METADATA, 32), Hop(B))
    box = run("--egress", "deny", "--egress-allow", "*.test", "--egress-allow", f"{METADATA}:81", "--dns", B)
    datagrams = socket.SOCK_DGRAM
    with (
        serving(outside.place, 80) as web,
        serving(outside.place, 5000, kind=datagrams, address=METADATA) as secret,
        serving(outside.place, 5000, kind=datagrams, address=C) as udp,
    ):
        outside.says = METADATA
        assert ask(box, "rebound.test") == (0, [METADATA])
        assert silent(box, METADATA, 80)
        assert silent(box, METADATA, 5000, kind=datagrams)
        outside.says = C
        assert ask(box, "right.test") == (0, [C])
        assert (connect(box, C, 80), connect(box, C, 5000, kind=datagrams)) == (A, A)
        assert (len(web.peers), len(udp.peers), len(secret.peers)) == (1, 1, 0)
    with serving(outside.place, 81):
        assert connect(box, METADATA, 81) == A  # who writes the address means it
    outside.says = A
    with serving(host, 5001, kind=datagrams) as inward:
        assert ask(box, "inward.test") == (0, [A])
        assert silent(box, A, 5001, kind=datagrams)
        assert inward.peers == []
    told = orlop("network", "dns", "trace", box.id, "trace.test").stdout
    assert f"{A} is this machine's, a container's or a link's own: no name opens a way there" in told
    assert told.endswith(f"answer: NOERROR, {A}\n")


def test_a_trace_is_no_attempt(run: Run, orlop: Environment, outside: Upstream) -> None:
    """Red: what somebody asks about a container was told as tried by it, and opened the way there."""
    box = run("--egress", "deny", "--egress-allow", "api.test:80", "--dns", B, "--name", "caged")
    for name, said in (("evil.test", "answer: NXDOMAIN"), ("api.test", f"answer: NOERROR, {C}")):
        told = orlop("network", "dns", "trace", "caged", name, check=False).stdout.splitlines()
        assert told[-1] == said
    with serving(outside.place, 80):
        assert silent(box, C, 80)
    wait_until(lambda: orlop("network", "egress", "caged").stdout != "")
    assert orlop("network", "egress", "caged").stdout == f"denied: {C}:80/tcp\n"


def test_networks_change_and_nothing_opens_or_closes(run: Run, orlop: Environment, outside: Upstream) -> None:
    """Red: restricted anew it was free for a moment, and what its names had opened was closed."""
    orlop("network", "create", "more")
    box = run("--egress", "deny", "--egress-allow", "api.test:80", "--dns", B)
    own = box.address()
    assert ask(box, "api.test") == (0, [C])
    over = threading.Event()

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not over.is_set():
                for target in (B, C):
                    try:
                        sender.sendto(b"x", (target, 9000))
                    except OSError:
                        pass

    with serving(outside.place, 9000, kind=socket.SOCK_DGRAM) as sink, serving(outside.place, 80):
        thread = threading.Thread(target=box.inside, args=(flood,))
        thread.start()
        try:
            for _ in range(3):
                orlop("network", "connect", "more", box.id)
                assert connect(box, C, 80) == A
                _spoof(box, box.address("more"), B, 9000)
                orlop("network", "disconnect", "more", box.id)
            assert connect(box, C, 80) == A
        finally:
            over.set()
            thread.join()
        assert sink.peers == []
    assert box.address() == own


def test_who_comes_after_is_not_restricted(run: Run, orlop: Environment, outside: Upstream, host: Netns) -> None:
    """Red: with engine and resolver killed nobody opens the address of who ends: the next one with it is closed in."""
    box = run("--egress", "deny", "--egress-allow", "10.9.0.0/16")
    stays = run()
    address = box.address()
    pid = _init(box)
    (resolver,) = _resolver(orlop)
    engine = orlop.engine_pid()
    assert engine is not None
    for one in (engine, resolver, pid):
        _kill(one)
    table = Footprint(str(orlop.run)).egress_table
    with serving(outside.place, 80):
        heir = run()
        assert heir.address() == address
        assert connect(heir, B, 80) == A
        assert connect(stays, B, 80) == A
    assert not host.nft.has_table(IPV4, table)


def test_a_name_of_the_own_network_is_allowed_as_any(run: Run, orlop: Environment) -> None:
    """Red: a container's name opened nothing, and its address is known only once it runs."""
    orlop("network", "create", "left")
    db = run("--network", "left", "--name", "db")
    box = run("--network", "left", "--egress", "deny", "--egress-allow", "db:5432")
    with serving(db, 5432) as served, serving(db, 5433):
        assert ask(box, "db") == (0, [db.address("left")])
        assert connect(box, db.address("left"), 5432) == box.address("left")
        assert served.peers == [box.address("left")]
        bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if bridged.exists() and bridged.read_text().strip() == "1":  # else nothing on one bridge passes a rule
            assert silent(box, db.address("left"), 5433)


def test_who_stays_behind_is_not_let_out(run: Run, orlop: Environment, outside: Upstream) -> None:
    """An engine takes the links away; here the resolver alone sees the end: of a container whose network another one
    has joined, and of a monitor that was killed. Red: it opened the address, and who was still there was free."""
    caged = ("--egress", "deny", "--egress-allow", "10.9.0.0/16")
    owner, orphan = run("--name", "owner", *caged), run(*caged)
    guest = run("--network", "container:owner")
    free = run()
    monitor = json.loads((orlop.root / "containers" / orphan.id / "status.json").read_text())["monitorPid"]
    engine = orlop.engine_pid()
    assert engine is not None
    with serving(outside.place, 80) as web:
        assert connect(free, B, 80) == A
        _kill(engine)
        init = _init(orphan)
        for box, pid in ((owner, _init(owner)), (orphan, monitor)):
            _kill(pid)
            # When it is seen, its end of the resolver's sockets is closed: nobody answers there any more.
            wait_until(lambda box=box: _is_unanswered(box))  # type: ignore[misc]
        assert silent(guest, B, 80) and silent(orphan, B, 80)
        assert connect(free, B, 80) == A
        assert len(web.peers) == 2
    _kill(init)  # nobody else does: its monitor is gone
    orlop("rm", "-f", orphan.id, owner.id, guest.id)


def _is_unanswered(box: Box) -> bool:
    try:
        ask(box, "x.test", stream=True)
    except (OSError, AssertionError):
        return True
    return False


def test_names_are_answered_after_both_were_killed(run: Run, orlop: Environment) -> None:
    """Red: the next engine started a resolver only for the next container."""
    orlop("network", "create", "left")
    web, other = run("--network", "left", "--name", "web"), run("--network", "left")
    engine = orlop.engine_pid()
    assert engine is not None
    for one in (engine, *_resolver(orlop)):
        _kill(one)
    orlop("ps")
    assert ask(other, "web") == (0, [web.address("left")])


def test_what_is_learned_has_every_name(run: Run, orlop: Environment, outside: Upstream) -> None:
    """Red: of two names with one address the last was learned, and of one that is only asked for nothing."""
    box = run("--egress", "learn", "--dns", B, "--name", "pupil")
    names = ["a.test", "b.test", "mail.test"]
    outside.says = C
    with serving(outside.place, 80):
        assert ask(box, "a.test") == ask(box, "b.test") == (0, [C])
        assert connect(box, C, 80) == A
        outside.records = [(15, b"\0\5" + message.encode_name("mx.test"))]
        assert ask(box, "mail.test", 15)[0] == 0
        outside.records = []
        outside.code = message.NXDOMAIN
        assert ask(box, "nobody.test")[0] == message.NXDOMAIN
        outside.code = 0
        expected = [f"--egress-allow {one}" for one in ("a.test:80/tcp", "b.test:80/tcp", "mail.test/dns")]
        wait_until(lambda: len(orlop("network", "egress", "pupil").stdout.splitlines()) == 3)
        found = orlop("network", "egress", "pupil").stdout.splitlines()
        assert found == expected
        lines = orlop.root / "containers" / box.id / "egress"
        before = lines.read_text()
        orlop("restart", "-t", "0", "pupil")
        box.open()
        assert ask(box, "a.test") == (0, [C])
        assert connect(box, C, 80) == A
        caged = run("--egress", "deny", *(word for line in found for word in line.split()), "--dns", B)
        assert [ask(caged, name)[0] for name in (*names, "c.test")] == [0, 0, 0, message.NXDOMAIN]
        assert silent(caged, C, 81)
        orlop("stop", "-t", "0", "pupil")
        assert lines.read_text() == before  # each once, also after a restart


@pytest.mark.parametrize("text", ["10.0.0.0/8/dns", "a.test:53/dns", "a.test:1/icmp", "192.0.2.1/dns"])
def test_an_entry_that_is_none_is_refused(orlop: Environment, text: str) -> None:
    refused = orlop("run", "--rm", "--egress", "deny", "--egress-allow", text, "host", "true", check=False)
    assert refused.code == 125
    assert "has no port" in refused.stderr


def test_a_stream_is_answered_as_it_asks(run: Run, orlop: Environment, upstream: Start) -> None:
    """RFC 7766: several questions at once (glibc asks for A and AAAA so), and the end of what is asked is not the end
    of what is listened to. Who takes no answers keeps nobody else waiting.

    Red: one question of a packet was answered; the connection was closed with the other direction; a send waited.
    """
    orlop("network", "create", "left")
    server = upstream(B, silent=True)
    box, other = run("--network", "left", "--name", "web", "--dns", B), run("--network", "left", "--dns", B)

    def framed(name: str, number: int, kind: int = message.A) -> bytes:
        raw = message.question(name, kind, number)
        return len(raw).to_bytes(2, "big") + raw

    def several() -> list[int]:
        with socket.create_connection((client.ADDRESS, 53), timeout=20) as asker:
            asker.sendall(
                framed("slow.test", 1) + framed("web", 2) + framed("web", 3, message.AAAA) + framed("web", 4)[:9]
            )
            asker.sendall(framed("web", 4)[9:])
            asker.shutdown(socket.SHUT_WR)
            found = b""
            while piece := asker.recv(65536):
                found += piece
        ids = []
        while found:
            length = int.from_bytes(found[:2], "big")
            ids.append(int.from_bytes(found[2:4], "big"))
            found = found[2 + length :]
        return ids

    assert box.inside(several) == [2, 3, 4, 1]  # the slow one last
    server.silent = False
    held = []

    def deaf() -> None:
        for _ in range(32):
            asker = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            asker.connect((client.ADDRESS, 53))
            asker.setblocking(False)
            held.append(asker)
            try:
                while True:
                    asker.send(framed("web", 9) * 100)
            except OSError:
                continue

    box.inside(deaf)
    answers = []

    def patient() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.9)  # less than it waited for one who is deaf
            asker.connect((client.ADDRESS, 53))
            for number in range(20):
                asker.send(message.question("web", message.A, number))
                answers.append(asker.recv(512)[:2])

    other.inside(patient)
    assert len(answers) == 20
    for asker in held:
        asker.close()


def test_one_who_asks_without_end_leaves_room_for_others(run: Run, orlop: Environment, upstream: Start) -> None:
    """Red: all questions that may be under way were those of one container."""
    upstream(B, silent=True)
    upstream(C)
    loud, other = run("--network", "bridge", "--egress", "learn", "--dns", B), run("--egress", "learn", "--dns", C)

    def flood() -> int:
        refused = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            asker.connect((client.ADDRESS, 53))
            for number in range(5000):
                asker.send(message.question(f"n{number}.test", message.A, number))
                if number % 50 == 49:  # as fast as they are taken
                    asker.settimeout(0.02)
                    try:
                        while asker.recv(512):
                            refused += 1
                    except OSError:
                        continue
        return refused

    assert loud.inside(flood) > 1000
    assert ask(other, "one.test") == (0, ["198.51.100.7"])
