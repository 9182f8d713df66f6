"""What a container may reach with `--egress deny`: addresses and names that are allowed, and nothing else (P07)."""

# ruff: noqa: F811  (pytest gives fixtures by their names)

from __future__ import annotations

import errno
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux.netlink import rtnetlink
from orlop.linux.netlink.nflog import Nflog
from orlop.linux.netlink.nftables import IPV4, Batch, Nftables
from orlop.network import firewall
from orlop.network.dns import attempts, message
from orlop.network.dns.egress import Allowed, Gatekeeper, group_of
from orlop.network.footprint import Footprint
from support.boxes import Box, serving, silent
from support.boxes import ask as connect
from support.certificates import CERTIFICATE, KEY
from support.engine import Environment
from support.netns import A, B, Netns, network
from support.tasks import wait_until

from .test_names import C, Upstream, _kill, _resolver, ask, upstream  # noqa: F401

Run = Callable[..., Box]
Start = Callable[..., Upstream]


@pytest.fixture
def outside(upstream: Start, host: Netns) -> Iterator[Upstream]:
    """A server of names at B, which gives every name the address C."""
    yield upstream(B, says=C)


def test_only_allowed_names_are_reached_and_asked_for(run: Run, outside: Upstream) -> None:
    box = run("--egress", "deny", "--egress-allow", "api.test:80", "--egress-allow", "*.wide.test", "--dns", B)
    with serving(outside.place, 80) as web, serving(outside.place, 81):
        assert silent(box, C, 80)  # nobody has asked for the name yet
        assert ask(box, "api.test") == (0, [C])
        assert connect(box, C, 80) == A
        assert silent(box, C, 81)
        assert silent(box, B, 80)  # another address, the same machine
        assert ask(box, "tunnel.attacker.test") == (message.NXDOMAIN, [])
        assert ask(box, "wide.test") == (message.NXDOMAIN, [])
        assert ask(box, "a.b.wide.test") == (0, [C])
        assert connect(box, C, 81) == A
    assert outside.asked == ["api.test", "a.b.wide.test"]
    assert web.peers == [A]


class Secure:
    """A server of TLS that has every name: says the one it was asked by. asked: all of them."""

    def __init__(self, place: Netns, address: str, directory: Path, port: int = 443):
        self.asked: list[str | None] = []
        (directory / "server.pem").write_text(CERTIFICATE + KEY)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "server.pem")
        self._context.sni_callback = lambda _, name, __: self.asked.append(name)
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = place.inside(lambda: socket.create_server((address, port), family=self._family))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as client:
                    client.sendall((self.asked[-1] or "nobody").encode())
                    client.unwrap()
            except OSError:
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def fetch(box: Box, address: str, name: str | None, port: int = 443) -> str:
    """Return what a server of TLS says to a container that asks for a name, "" when the connection is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = box.inside(lambda: socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
    try:
        with raw:
            raw.settimeout(20)
            raw.connect((address, port))
            with context.wrap_socket(raw, server_hostname=name) as client:
                return client.recv(100).decode()
    except OSError:
        return ""


def say(box: Box, address: str, port: int, data: bytes) -> bytes:
    """Return what comes back when a container says this to a port, b"" when nothing does."""

    def go() -> bytes:
        try:
            with socket.create_connection((address, port), timeout=20) as client:
                client.sendall(data)
                return client.recv(100)
        except OSError:
            return b""

    return box.inside(go)


def test_two_names_with_one_address_are_told_apart(
    run: Run, orlop: Environment, outside: Upstream, tmp_path: Path
) -> None:
    # P07: both lead to C; what is allowed is a name, however the address is found.
    box = run("--egress", "deny", "--egress-allow", "a.test", "--dns", B, "--name", "caged")
    secure = Secure(outside.place, C, tmp_path)
    with serving(outside.place, 25) as mail:
        assert fetch(box, C, "a.test") == ""  # nobody has asked for the name yet
        assert ask(box, "a.test") == (0, [C])
        assert fetch(box, C, "a.test") == "a.test"
        assert fetch(box, C, "A.test") == "A.test"
        for name in ("b.test", "xa.test", "a.test.b.test", None):
            assert fetch(box, C, name) == "", name
        assert fetch(box, B, "a.test") == ""  # another address
        assert connect(box, C, 25) == A  # a protocol that says no name passes by the address
        assert mail.peers == [A]
        assert box.inside(lambda: _quic(C)) == errno.ECONNREFUSED  # rejected: names of QUIC can't be read
    assert secure.asked == ["a.test", "A.test"]
    # Who takes the rule away in the container, which takes CAP_NET_ADMIN, reaches nothing at all.
    with box.inside(Nftables) as rules:
        batch = Batch()
        batch.delete_table(IPV4, "orlop-names")
        rules.commit(batch)
    assert fetch(box, C, "a.test") == ""
    assert len(secure.asked) == 2
    secure.close()
    told = orlop("network", "egress", "caged").stdout
    assert "denied: b.test:443/tcp" in told.splitlines()
    orlop("stop", "-t", "0", "caged")


def _quic(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(20)
        sender.connect((address, 443))
        sender.send(b"x")
        try:
            sender.recv(1)
        except OSError as failure:
            return failure.errno or 0
    return 0


def test_a_host_of_http_is_asked_for_too(run: Run, outside: Upstream) -> None:
    box = run("--egress", "deny", "--egress-allow", "a.test:80", "--egress-allow", "*.wide.test:80", "--dns", B)
    said: list[bytes] = []
    listener = outside.place.inside(lambda: socket.create_server((C, 80)))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                said.append(client.recv(1000))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n") if said[-1] else None

    threading.Thread(target=serve, daemon=True).start()
    assert ask(box, "a.test") == (0, [C])
    assert say(box, C, 80, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert say(box, C, 80, b"GET / HTTP/1.1\r\nHost: x.wide.test:80\r\n\r\n").startswith(b"HTTP/1.1 200")
    for head in (b"Host: b.test", b"Host: a.test\r\nHost: b.test", b"X: y"):
        assert say(box, C, 80, b"GET / HTTP/1.1\r\n" + head + b"\r\n\r\n") == b""
    assert say(box, C, 80, b"GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n") == b""
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert [one for one in said if one and b"b.test" in one] == []
    assert len([one for one in said if one]) == 2


def test_names_are_told_apart_by_ipv6_too(
    run: Run, orlop: Environment, outside: Upstream, host: Netns, tmp_path: Path
) -> None:
    for side, address in ((host, "2001:db8::1"), (outside.place, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    orlop("network", "create", "--ipv6", "six")
    outside.says = "2001:db8::2"
    box = run("--network", "six", "--egress", "deny", "--egress-allow", "a.test:443", "--dns", B)
    secure = Secure(outside.place, "2001:db8::2", tmp_path)
    assert ask(box, "a.test", message.AAAA) == (0, ["2001:db8::2"])
    assert fetch(box, "2001:db8::2", "a.test") == "a.test"
    assert fetch(box, "2001:db8::2", "b.test") == ""
    assert secure.asked == ["a.test"]
    secure.close()


def test_a_restricted_container_has_neighbours_by_ipv6(
    run: Run, orlop: Environment, outside: Upstream, host: Netns
) -> None:
    for side, address in ((host, "2001:db8::1"), (outside.place, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    orlop("network", "create", "--ipv6", "--ipv4=false", "six")
    orlop("network", "create", "--ipv6", "both")
    allow = ("--egress", "deny", "--egress-allow", "[2001:db8::/64]:9000")
    six = socket.AF_INET6
    for name, port in (("six", 8080), ("both", 8081)):
        box = run("--network", name, *allow, "-p", f"{port}:80")
        with serving(outside.place, 9000, family=six), serving(outside.place, 9001, family=six):
            assert connect(box, "2001:db8::2", 9000) == "2001:db8::1"
            assert silent(box, "2001:db8::2", 9001)
            assert not connect(box, B, 9000)
        with serving(box, 80, family=six):
            assert connect(outside.place, "2001:db8::1", port) == "2001:db8::2"
        assert "ff02" not in orlop("net", "egress", box.id).stdout


def test_what_is_allowed_twice_is_allowed(run: Run, outside: Upstream, tmp_path: Path) -> None:
    run("--egress", "deny", "--egress-allow", "10.0.0.0/8")  # with fewer entries than the next one
    allowed = (
        "a.test",
        "a.test:443",
        "*.test:443/tcp",
        "192.0.2.0/24:25",
        "192.0.2.2:25/tcp",
        "192.0.2.2",
        "10.0.0.0/8",
    )
    box = run("--egress", "deny", *(word for one in allowed for word in ("--egress-allow", one)), "--dns", B)
    secure = Secure(outside.place, C, tmp_path)
    assert ask(box, "a.test") == (0, [C])
    assert ask(box, "b.test") == (0, [C])
    assert [fetch(box, C, name) for name in ("a.test", "b.test", "c.other")] == ["a.test", "b.test", ""]
    with serving(outside.place, 25), serving(outside.place, 26):
        assert connect(box, B, 25) == A
        assert connect(box, B, 26) == A
        assert connect(box, C, 25) == A
        assert connect(box, C, 26) == A  # by its name
    secure.close()


def test_names_lead_out_again_after_the_resolver_died(
    run: Run, orlop: Environment, outside: Upstream, tmp_path: Path
) -> None:
    box = run("--egress", "deny", "--egress-allow", "a.test", "--dns", B)
    secure = Secure(outside.place, C, tmp_path)
    assert ask(box, "a.test") == (0, [C])
    assert fetch(box, C, "a.test") == "a.test"
    (pid,) = _resolver(orlop)
    _kill(pid)
    wait_until(lambda: _resolver(orlop) not in ([], [pid]))
    assert fetch(box, C, "a.test") == ""  # what the one before has opened is closed
    wait_until(lambda: ask_again(box, "a.test"))
    assert fetch(box, C, "a.test") == "a.test"
    assert fetch(box, C, "b.test") == ""
    secure.close()


def test_a_name_leads_to_no_place_of_this_machine(run: Run, orlop: Environment, outside: Upstream, host: Netns) -> None:
    """Who answers for an allowed name says which address it has: the passage must not be led inward by that.

    Red: without `Gatekeeper._is_outside`, each of the three is reached, by a connection of the resolver's own.
    """
    orlop("network", "create", "island")
    other = run("--network", "island")
    box = run("--egress", "deny", "--egress-allow", "*.test", "--dns", B, "--name", "rebound")
    for place, address, port in ((host, "127.0.0.1", 5432), (host, A, 5433), (other, other.address("island"), 5434)):
        outside.says = address
        with serving(place, port, address=address) as inward:
            assert ask(box, f"p{port}.test") == (0, [address])
            assert silent(box, address, port)
            assert inward.peers == []
    outside.says = C  # and what lies outside is reached as ever
    with serving(outside.place, 5435) as outward:
        assert ask(box, "p5435.test") == (0, [C])
        assert connect(box, C, 5435) == A
        assert outward.peers == [A]
    denied = orlop("network", "egress", "rebound").stdout.splitlines()
    assert "denied: p5433.test:5433/tcp" in denied


def ask_again(box: Box, name: str) -> bool:
    try:
        return ask(box, name) == (0, [C])
    except OSError:
        return False


def test_subnets_are_allowed_by_port(run: Run, outside: Upstream, host: Netns) -> None:
    box = run("--egress", "deny", "--egress-allow", "192.0.2.2/31:80/tcp", "--dns", B)
    free = run()
    with serving(outside.place, 80), serving(outside.place, 81), serving(host, 9000):
        assert connect(box, B, 80) == A
        assert silent(box, B, 81)
        assert silent(box, "10.88.0.1", 9000)  # this machine is outside too
        assert connect(free, B, 81) == A
        assert connect(free, "10.88.0.1", 9000) == free.address()


def test_what_is_closed_stays_closed_when_the_resolver_dies(
    run: Run,
    orlop: Environment,
    outside: Upstream,
) -> None:
    box = run("--egress", "deny", "--egress-allow", "api.test", "--dns", B)
    (pid,) = _resolver(orlop)
    _kill(pid)
    with serving(outside.place, 80):
        assert silent(box, B, 80)
        orlop("ps")
        assert silent(box, B, 80)


def test_nothing_is_left_of_a_restriction(orlop: Environment, host: Netns) -> None:
    orlop("run", "--rm", "--egress", "deny", "--egress-allow", "10.0.0.0/8", "host", "true")
    orlop("engine", "stop")
    deadline = time.monotonic() + 20
    while list(host.nft.tables()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(host.nft.tables())


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["--egress", "maybe"], "invalid egress: 'maybe'"),
        (["--egress-allow", "x"], "--egress-allow needs --egress deny"),
        (["--egress", "deny", "--egress-allow", "a b"], "is no name, address or subnet"),
        (["--egress", "deny", "--egress-allow", "x:70000"], "invalid port in 'x:70000'"),
        (["--egress", "deny", "--network", "host"], "a network that is not the container's own"),
    ],
)
def test_what_can_not_be_meant_is_refused(orlop: Environment, flags: list[str], cause: str) -> None:
    refused = orlop("run", "--rm", *flags, "host", "true", check=False)
    assert refused.code == 125
    assert cause in refused.stderr


def test_what_is_denied_is_an_event(run: Run, orlop: Environment, outside: Upstream) -> None:
    box = run("--egress", "deny", "--egress-allow", "api.test:80", "--dns", B, "--name", "caged")
    assert ask(box, "tunnel.attacker.test") == (message.NXDOMAIN, [])
    assert ask(box, "api.test") == (0, [C])
    for _ in range(3):
        assert silent(box, C, 81)
        assert silent(box, B, 443)

    def denied() -> list[str]:
        told = orlop("events", "--since", "10m", "--until", "0s", "--filter", "event=egress_denied", "--format", "json")
        return [json.loads(line)["Actor"]["Attributes"]["to"] for line in told.stdout.splitlines()]

    expected = ["api.test:81/tcp", f"{B}:443/tcp", "tunnel.attacker.test"]
    wait_until(lambda: len(denied()) >= len(expected))
    assert sorted(denied()) == sorted(expected)  # each once
    assert orlop("network", "egress", "caged").stdout == "".join(f"denied: {one}\n" for one in sorted(expected))


def test_what_is_learned_is_enough(run: Run, orlop: Environment, outside: Upstream, host: Netns) -> None:
    box = run("--egress", "learn", "--dns", B, "--name", "pupil")
    with serving(outside.place, 80) as web, serving(outside.place, 81), serving(outside.place, 82):
        assert ask(box, "api.test") == (0, [C])
        assert connect(box, C, 80) == A
        assert connect(box, B, 81) == A
        expected = [f"{B}:81/tcp", "api.test:80/tcp"]
        wait_until(lambda: len(orlop("network", "egress", "pupil").stdout.splitlines()) == 2)
        found = orlop("network", "egress", "pupil").stdout.splitlines()
        assert found == [f"--egress-allow {one}" for one in expected]
        orlop("stop", "-t", "0", "pupil")
        assert orlop("network", "egress", "pupil").stdout.splitlines() == found  # after its end
        caged = run("--egress", "deny", *(word for line in found for word in line.split()), "--dns", B)
        assert ask(caged, "api.test") == (0, [C])
        assert (connect(caged, C, 80), connect(caged, B, 81)) == (A, A)
        assert silent(caged, B, 82)
    assert len(web.peers) == 2


def test_hostile_packets_are_no_attempts() -> None:
    for packet in (b"", b"\x45", b"\x45" + bytes(10), b"\x60" + bytes(20), b"\x00" * 64, bytes(range(256))):
        with pytest.raises((ValueError, IndexError)):
            attempts.parse(packet)
    assert attempts.parse(b"\x4f" + bytes(19))[3] == 0  # a header longer than the packet
    for data in (b"", b"{}\n", b"[1]\n{", b'{"verdict": 3}\n', b"\xff\n" * 9000):
        assert attempts.read(data) == []


def test_a_table_that_was_flushed_is_written_again_as_it_was(tmp_path: Path, peer: Callable[[str], Path]) -> None:
    # Kernels before 6.9 let anybody flush it; here its owner does.
    with network() as net:
        keeper = net.inside(lambda: Gatekeeper("t", lambda *_: 1, lambda _: None, lambda *_: None, lambda _: True))
        allowed = [Allowed("192.0.2.0/24:80"), Allowed("a.test:443")]
        net.route.add_link("ve0", rtnetlink.veth("ve1"))
        ends = [("ve0", ("10.0.0.2", "fd00::2"))]
        keeper.restrict("one", ends, allowed, str(tmp_path / "egress"))
        keeper.answered("one", "a.test", [("198.51.100.7", 60)])

        def rules() -> str:
            return net.run(peer("nft"), "list", "ruleset")

        before = rules()
        assert "198.51.100.7" in before and "10.0.0.2" in before and "fd00::2" in before
        assert "chain ve0" in before
        firewall.forget(keeper._socket, "t")
        assert "10.0.0.2" not in rules()
        keeper.mend()
        assert rules() == before
        keeper.mend()
        assert rules() == before
        keeper.release("one")
        keeper.close()


def test_what_nobody_hears_of_is_denied_nevertheless(
    run: Run, orlop: Environment, host: Netns, outside: Upstream
) -> None:
    # As on a kernel without nfnetlink_log: nobody gets the group that rules would tell.
    group = group_of(Footprint(str(orlop.run)).egress_table)
    with host.inside(lambda: Nflog(group, 100)), serving(outside.place, 80):
        refused = orlop("run", "--rm", "--egress", "learn", "host", "true", check=False)
        assert refused.code == 125
        assert f"nobody could learn: another program has the group {group} of nflog" in refused.stderr
        told = orlop("run", "-d", "--name", "told", "--egress", "deny", "host", "sleep", "1000").stderr
        assert f"What it is denied is denied, and told nowhere: another program has the group {group}" in told
        box = run("--egress", "deny", "--egress-allow", "api.test:80", "--dns", B)
        assert silent(box, C, 80)
        assert ask(box, "api.test") == (0, [C])
        assert connect(box, C, 80) == A
