"""The resolver of containers, asked from inside them; upstream servers are the test's own, on a neighbour."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.network.dns import client, message
from support import engine, processes
from support.boxes import Box
from support.engine import Environment
from support.netns import A, B, Netns, network, wire
from support.tasks import wait_until

C = "192.0.2.3"
WAIT_S = 20.0
Answer = tuple[int, list[str]]
Run = Callable[..., Box]


def ask(box: Box, name: str, kind: int = message.A, *, stream: bool = False, edns: bool = False) -> Answer:
    """Return (code, the addresses or names) of what the resolver answers in a container."""
    raw = message.question(name, kind, 0x4242)
    if edns:  # an OPT record: up to 4096 bytes
        raw = raw[:10] + b"\0\1" + raw[12:] + b"\0\0\x29\x10\0" + bytes(6)

    def go() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as asker:
            asker.settimeout(WAIT_S)
            asker.connect((client.ADDRESS, 53))
            if not stream:
                asker.send(raw)
                return asker.recv(65536)
            asker.sendall(len(raw).to_bytes(2, "big") + raw)
            found = b""
            while len(found) < 2 or len(found) < 2 + int.from_bytes(found[:2], "big"):
                piece = asker.recv(65536)
                assert piece, "the resolver closed the connection"
                found += piece
            return found[2:]

    return read(box.inside(go))


def read(raw: bytes) -> Answer:
    records = []
    at = 12 + len(message.Query(raw[:2] + b"\1\0" + raw[4:6] + bytes(6) + raw[12:]).question)
    for _ in range(int.from_bytes(raw[6:8], "big")):
        kind, length = int.from_bytes(raw[at + 2 : at + 4], "big"), int.from_bytes(raw[at + 10 : at + 12], "big")
        data = raw[at + 12 : at + 12 + length]
        if kind in (message.A, message.AAAA):
            records.append(socket.inet_ntop(socket.AF_INET if kind == message.A else socket.AF_INET6, data))
        else:
            records.append(repr(data))
        at += 12 + length
    return message.code_of(raw), records


class Upstream:
    """A server: has one address for every name, or says `code`, or nothing. asked: the names it was asked for."""

    def __init__(self, place: Netns, address: str, *, says: str = "198.51.100.7", code: int = 0, silent: bool = False):
        self.asked: list[str] = []
        self.says, self.code, self.silent = says, code, silent
        self.place = place
        self.large = False  # over UDP: ask again over TCP
        self.records: list[tuple[int, bytes]] = []  # in the place of `says`
        self._udp = place.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._tcp = place.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self._udp, self._tcp):
            sock.bind((address, 53))
        self._tcp.listen(8)
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def _answer(self, raw: bytes) -> bytes:
        query = message.Query(raw)
        self.asked.append(query.name)
        records = self.records or [message.address(self.says)]
        return message.answer(query, self.code, records if not self.code else None)

    def _serve_udp(self) -> None:
        try:
            while True:
                raw, sender = self._udp.recvfrom(4096)
                answer = self._answer(raw)
                if self.large:
                    answer = message.truncated(message.Query(raw))
                if not self.silent:
                    self._udp.sendto(answer, sender)
        except OSError:
            return

    def _serve_tcp(self) -> None:
        try:
            while True:
                peer, _ = self._tcp.accept()
                with peer:
                    raw = peer.recv(4096)
                    answer = self._answer(raw[2:])
                    peer.sendall(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            return

    def close(self) -> None:
        self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()
        self._udp.close()


@pytest.fixture
def upstream(host: Netns) -> Iterator[Callable[..., Upstream]]:
    made: list[Upstream] = []
    with network() as other:
        wire(host, "up0", A, other, "up0", B, 24)
        other.route.add_address(other.index("up0"), C, 24)

        def start(address: str, **how: Any) -> Upstream:
            made.append(Upstream(other, address, **how))
            return made[-1]

        yield start
        for one in made:
            one.close()


def test_containers_of_a_network_have_names(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "--ipv6", "left")
    orlop("network", "create", "right")
    web = run("--network", "left", "--name", "web", "--hostname", "deck", "--network-alias", "www")
    other = run("--network", "left", "--name", "db", "--network-alias", "www")
    far = run("--network", "right", "--name", "far")
    there = web.address("left")
    for name in ("web", "WEB", "web.left", "deck", web.id[:12]):
        assert ask(other, name) == (0, [there])
    assert ask(other, "web", message.AAAA) == (0, [web.address("left", "GlobalIPv6Address")])
    assert ask(far, "web", message.A)[1] == []
    assert sorted(ask(web, "www")[1]) == sorted([there, other.address("left")])
    assert ask(other, "web", stream=True) == (0, [there])
    backwards = ".".join(reversed(there.split("."))) + ".in-addr.arpa"
    assert ask(other, backwards, message.PTR) == (0, [repr(message.encode_name("web.left"))])
    orlop("rename", "db", "store")
    assert ask(web, "store") == (0, [other.address("left")])
    assert ask(web, "db")[1] == []
    orlop("network", "connect", "--alias", "visitor", "right", web.id)
    assert ask(far, "visitor") == (0, [web.address("right")])
    orlop("network", "disconnect", "right", web.id)
    assert ask(far, "visitor")[1] == []
    assert "nameserver 127.0.0.11" in far.read("/etc/resolv.conf")


def test_a_link_is_a_name_for_one(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "left")
    early = run("--network", "left", "--link", "web:store")  # red: refused, where docker looks when it is asked for
    web = run("--network", "left", "--name", "web")
    linked, other = run("--network", "left", "--link", "web:shop"), run("--network", "left")
    assert ask(linked, "shop") == ask(early, "store") == (0, [web.address("left")])
    assert ask(other, "shop")[1] == ask(linked, "store")[1] == []


def test_a_link_on_the_default_bridge_is_told_in_variables(run: Run, orlop: Environment) -> None:
    exposed = ("--expose", "80", "--expose", "81", "--expose", "53/udp", "--expose", "443", "-p", "8079:79")
    web = run("--name", "web-1", *exposed, "-e", "COLOUR=red", "-e", "HOME=/x")
    words = ("--name", "asks", "--link", "web-1:the-shop", "-e", "THE_SHOP_NAME=mine", "host", "env")
    told = set(orlop("run", *words).stdout.splitlines())
    there = web.address()
    said = {line for line in told if line.startswith("THE_SHOP_")}
    assert "THE_SHOP_NAME=mine" in said  # its own go over what a link says
    assert {f"THE_SHOP_PORT=tcp://{there}:79", "THE_SHOP_PORT_79_TCP_PORT_START=79"} <= said
    assert {"THE_SHOP_PORT_79_TCP_PORT_END=81", f"THE_SHOP_PORT_79_TCP_END=tcp://{there}:81"} <= said
    assert {f"THE_SHOP_PORT_53_UDP=udp://{there}:53", "THE_SHOP_PORT_53_UDP_PROTO=udp"} <= said
    assert {f"THE_SHOP_PORT_443_TCP_ADDR={there}", "THE_SHOP_PORT_443_TCP_PORT=443"} <= said
    assert "THE_SHOP_ENV_COLOUR=red" in said and not any("ENV_HOME" in line for line in said)
    # As moby's daemon/links/links.go says it: as many, and no others.
    assert len(said) == 1 + 5 * 4 + 4 + 1 + 1
    # An address of the next run, for whoever starts then; in an exec as well, where it says nothing of who has gone.
    linked = run("--link", "web-1:shop", "--link", "web-1", "--health-cmd", "env > /env", "--health-interval", "100ms")
    assert f"SHOP_PORT=tcp://{there}:79" in orlop("exec", linked.id, "env").stdout.splitlines()
    wait_until(lambda: f"WEB_1_PORT=tcp://{there}:79\n" in orlop("exec", linked.id, "cat", "/env", check=False).stdout)
    orlop("kill", "web-1")
    orlop("wait", "web-1")
    assert "SHOP_" not in orlop("exec", linked.id, "env").stdout
    refused = orlop("start", "asks", check=False)
    assert refused.code == 1
    assert "Cannot link to a non running container: /web-1 AS /asks/the-shop" in refused.stderr
    orlop("engine", "stop")  # the next one remembers no address that a name had, and gives the first that is free
    taken = run()
    orlop("start", "web-1")
    assert taken.address() == there != web.address()
    assert f"THE_SHOP_PORT=tcp://{web.address()}:79" in orlop("start", "-a", "asks").stdout.splitlines()
    orlop("network", "create", "left")
    orlop("network", "connect", "left", "web-1")
    orlop("network", "disconnect", "bridge", "web-1")
    refused = orlop("start", "asks", check=False)
    assert refused.code == 1 and f"container {web.id} not attached to default bridge network" in refused.stderr
    orlop("rm", "-f", "web-1")
    assert "THE_SHOP_PORT" not in orlop("start", "-a", "asks").stdout
    assert "SHOP" not in orlop("run", "--rm", "--network", "left", "--link", f"{taken.id}:shop", "host", "env").stdout


def test_the_others_are_asked_outside(run: Run, orlop: Environment, upstream: Callable[..., Upstream]) -> None:
    server = upstream(B)
    orlop("network", "create", "left")
    box = run("--network", "left", "--dns", B, "--dns-search", "example.org", "--dns-option", "ndots:1")
    assert ask(box, "api.example.org") == (0, ["198.51.100.7"])
    assert ask(box, "api.example.org", stream=True) == (0, ["198.51.100.7"])
    assert server.asked == ["api.example.org"] * 2
    told = box.read("/etc/resolv.conf")
    assert told == "nameserver 127.0.0.11\nsearch example.org\noptions ndots:1\n"


def test_a_server_that_fails_or_is_silent_is_passed_over(
    run: Run, orlop: Environment, upstream: Callable[..., Upstream]
) -> None:
    # moby#20494, libnetwork#1664: all servers count, and SERVFAIL is a reason to ask the next one.
    first, second = upstream(B, code=message.SERVFAIL), upstream(C)
    orlop("network", "create", "left")
    box = run("--network", "left", "--dns", B, "--dns", C)
    assert ask(box, "one.test") == (0, ["198.51.100.7"])
    first.code, first.silent = 0, True
    assert ask(box, "two.test") == (0, ["198.51.100.7"])
    second.code = message.NXDOMAIN
    before = len(first.asked)
    assert ask(box, "three.test") == (message.NXDOMAIN, [])
    assert len(first.asked) == before  # who was silent is asked last: not every question waits
    second.code = message.REFUSED
    told = orlop("network", "dns", "trace", box.id, "five.test", check=False)
    assert told.code == 1
    assert f"{B}: no answer within 1.5 s" in told.stdout
    assert f"{C}: REFUSED" in told.stdout
    assert "answer: REFUSED" in told.stdout


def test_a_domain_has_servers_of_its_own(run: Run, orlop: Environment, upstream: Callable[..., Upstream]) -> None:
    everybody, corp = upstream(B, says="198.51.100.1"), upstream(C, says="198.51.100.2")
    orlop("network", "create", "left")
    box = run("--network", "left", "--dns", B, "--dns", f"/Corp.Example./lan/{C}", "--dns", f"/x.corp.example/{B}")
    plain = run("--dns", f"/corp.example/{C}", "--dns", B)  # on the default bridge
    for name, says in (
        ("corp.example", "2"),
        ("Git.CORP.example", "2"),
        ("nas.lan", "2"),
        ("notcorp.example", "1"),
        ("example", "1"),
        ("a.x.corp.example", "1"),
    ):
        assert ask(box, name) == (0, [f"198.51.100.{says}"]), name
    assert ask(box, "git.corp.example", stream=True) == (0, ["198.51.100.2"])
    assert ask(plain, "git.corp.example") == (0, ["198.51.100.2"])
    assert ask(plain, "example") == (0, ["198.51.100.1"])
    corp.code = message.SERVFAIL  # nobody else is asked for what is theirs
    before = len(everybody.asked)
    assert ask(box, "git.corp.example") == (message.SERVFAIL, [])
    assert len(everybody.asked) == before
    told = orlop("network", "dns", "trace", box.id, "git.corp.example", check=False).stdout
    assert "names of corp.example have servers of their own" in told
    assert plain.read("/etc/resolv.conf").startswith("nameserver 127.0.0.11\n")
    for words, cause in (
        (("--dns", "/corp/x"), "invalid IP address: x"),
        (("--dns", "//192.0.2.1"), "invalid server for a domain"),
        (("--dns", "/a..b/192.0.2.1"), "not a name"),
        (("--dns", f"/{'a' * 64}/192.0.2.1"), "not a name"),
        (("--dns", "/192.0.2.1"), "invalid server for a domain"),
        (("--network", "host", "--dns", f"/corp/{C}"), "a server for a domain needs the engine's resolver"),
    ):
        refused = orlop("run", "--rm", *words, "host", "true", check=False)
        assert refused.code == 125
        assert cause in refused.stderr, refused.stderr


def test_a_large_answer_is_asked_for_over_tcp(run: Run, orlop: Environment, upstream: Callable[..., Upstream]) -> None:
    server = upstream(B)
    server.large = True
    orlop("network", "create", "left")
    box = run("--network", "left", "--dns", B)
    assert ask(box, "big.test", stream=True) == (0, ["198.51.100.7"])


def test_an_internal_network_asks_nobody_outside(
    run: Run, orlop: Environment, upstream: Callable[..., Upstream]
) -> None:
    # SEC-92, CVE-2024-29018: names must not leave by the resolver when packets can't.
    server = upstream(B)
    orlop("network", "create", "--internal", "closed")
    web = run("--network", "closed", "--name", "web", "--dns", B)
    other = run("--network", "closed", "--dns", B)
    assert ask(other, "web") == (0, [web.address("closed")])
    assert ask(other, "secret.attacker.test") == (message.NXDOMAIN, [])
    assert server.asked == []


def test_trace_says_who_has_a_name(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "left")
    web = run("--network", "left", "--name", "web")
    told = orlop("network", "dns", "trace", "web", "web").stdout
    here = f"web is container {web.id[:12]} in network left\nanswer: NOERROR, "
    assert told == f"{here}{web.address('left')}\n"
    six = orlop("network", "dns", "trace", "--type", "AAAA", "web", "web").stdout
    assert six == f"{here}no address of type AAAA\n"  # red: as if it had one
    plain = run()
    for name in ("a..b", "\u00fc.test", "x" * 300):
        refused = orlop("network", "dns", "trace", "web", name, check=False)
        assert refused.code == 1 and "is no name\nNext: write it as" in refused.stderr
    refused = orlop("network", "dns", "trace", plain.id, "web", check=False)
    assert "it does not ask the resolver" in refused.stderr


def test_a_container_may_be_a_server_itself(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "left")
    box = run("--network", "left", "--name", "web")

    def bind() -> None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as server:
                server.bind(("", 53))

    box.inside(bind)
    assert ask(box, "web")[0] == 0


def _resolver(orlop: Environment) -> list[int]:
    return [pid for pid in orlop.processes() if "resolver" in processes.title(pid)]


def _kill(pid: int) -> None:
    processes.kill(pid, processes.start_time(pid), signal.SIGKILL)


def test_names_outlive_the_engine_and_the_resolver(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "left")
    web, other = run("--network", "left", "--name", "web"), run("--network", "left")
    (pid,) = _resolver(orlop)
    _kill(pid)
    deadline = time.monotonic() + WAIT_S
    while _resolver(orlop) in ([], [pid]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _resolver(orlop) not in ([], [pid])
    deadline = time.monotonic() + WAIT_S
    answered: Answer = (-1, [])
    while answered[0] and time.monotonic() < deadline:
        try:
            answered = ask(other, "web")
        except OSError:
            time.sleep(0.05)  # it is being told who there is
    assert answered == (0, [web.address("left")])
    engine = orlop.engine_pid()
    assert engine is not None
    _kill(engine)
    assert ask(other, "web") == answered  # with nobody but the resolver
    orlop("rm", "-f", web.id)  # the next engine tells the same resolver
    assert ask(other, "web")[1] == []


def test_the_resolver_ends_with_the_last_container(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "left")
    box = run("--network", "left")
    assert len(_resolver(orlop)) == 1
    engine = orlop.engine_pid()
    assert engine is not None
    _kill(engine)
    _kill(_init(box))
    deadline = time.monotonic() + WAIT_S
    while _resolver(orlop) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _resolver(orlop) == []


def _init(box: Box) -> int:
    status = json.loads((box.orlop.root / "containers" / box.id / "status.json").read_text())
    return int(status["pid"])


def test_many_questions_are_all_answered(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "left")
    box = run("--network", "left", "--name", "web")
    raw = message.question("web", message.A, 1)

    def flood() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(WAIT_S)
            asker.connect((client.ADDRESS, 53))
            begin = time.monotonic()
            for _ in range(200):
                for _ in range(50):
                    asker.send(raw)
                for _ in range(50):
                    asker.recv(512)
            return 10_000 / (time.monotonic() - begin)

    assert box.inside(flood) > 500  # a quiet machine answers 19,000 in a second


def test_the_machines_own_servers_are_asked_as_they_are_now(
    run: Run, orlop: Environment, host: Netns, upstream: Callable[..., Upstream], tmp_path: Path
) -> None:
    # P24: a stub on 127.0.0.53 (systemd-resolved, which knows a server for each domain), and a file that changes.
    told = tmp_path / "resolv.conf"
    told.write_text("nameserver 127.0.0.53\nsearch lan.test\n")
    stub = Upstream(host, "127.0.0.53", says="198.51.100.53")
    later = upstream(B, says="198.51.100.9")
    # The engine, and with it the resolver, sees this file as /etc/resolv.conf: it has mounts of its own.
    line = f'mount --make-rprivate / && mount --bind {told} /etc/resolv.conf && exec "$0" network create left'
    command = ["unshare", "--mount", "sh", "-c", line, str(engine.COMMAND)]
    orlop.inside(lambda: subprocess.run(command, env=orlop.variables, check=True, capture_output=True))
    box, plain = run("--network", "left"), run()
    assert box.read("/etc/resolv.conf") == "nameserver 127.0.0.11\nsearch lan.test\noptions ndots:0\n"
    assert ask(box, "one.corp.test") == (0, ["198.51.100.53"])
    assert ask(plain, "two.test") == (0, ["198.51.100.53"])  # the default bridge: 127.0.0.53 is not reached from there
    assert stub.asked == ["one.corp.test", "two.test"]
    told.write_text(f"nameserver {B}\n")
    wait_until(lambda: ask(box, "three.test") == (0, ["198.51.100.9"]))
    assert later.asked
    stub.close()


def test_answers_pass_as_they_are(run: Run, orlop: Environment, upstream: Callable[..., Upstream]) -> None:
    # P24: AAAA alone, an answer of more than 512 bytes with EDNS and without, types that nobody here knows.
    server = upstream(B)
    orlop("network", "create", "left")
    box = run("--network", "left", "--dns", B)
    server.records = [(message.AAAA, bytes(15) + b"\1")]
    assert ask(box, "six.test", message.AAAA) == (0, ["::1"])
    text = b"\xff" + b"x" * 255
    server.records = [(16, text * 3)]
    assert ask(box, "text.test", 16, edns=True) == (0, [repr(text * 3)])
    assert ask(box, "text.test", 16)[1] == []  # truncated: asked again over TCP
    assert ask(box, "text.test", 16, stream=True) == (0, [repr(text * 3)])
    server.records = [(65, b"\0\1\0")]
    assert ask(box, "svc.test", 65) == (0, [repr(b"\0\1\0")])


def _replies(query: message.Query) -> list[bytes]:
    """Return what a hostile server says over UDP to a question: the kind of it is the name's first label."""
    right = message.answer(query, 0, [message.address("198.51.100.7")])
    head, body = right[:12], right[12:]
    wrong = message.answer(query, 0, [message.address("203.0.113.66")])
    loop = b"\xc0" + bytes([12 + len(query.question)])  # a name that points at itself
    record = bytes(2) + b"\0\1\0\1" + bytes(4) + b"\0\4" + bytes(4)
    alias = b"\xc0\x0c\0\5\0\1\0\0\0\5\0\2\xc0\x0c"  # CNAME of itself
    count = (2001).to_bytes(2, "big")
    return {
        "forged": [b"", b"\0", wrong[:11], message.with_id(wrong, query.id ^ 1), wrong[:13], right],
        "other": [message.answer(message.Query(message.question("else.test", 1, query.id)), 0), right],
        "query": [query.raw, right],
        "looped": [head[:6] + b"\0\1" + head[8:] + body[: len(query.question)] + loop + record],
        "lying": [head[:6] + b"\xff\xff" + head[8:] + body],
        "cut": [right[:-3]],
        "aliases": [head[:6] + count + head[8:] + query.question + alias * 2000 + body[len(query.question) :]],
        "huge": [right + bytes(60_000)],
        "silent": [],
    }[query.name.partition(".")[0]]


def test_a_hostile_server_harms_nobody(run: Run, orlop: Environment, host: Netns) -> None:
    """P24: what is forged is passed over, what is broken harms who asked for it, and everybody else is answered.

    Red: with `is_answer_to` always true the forged ones are taken; where `_skip_name` follows a pointer the looped one
    never ends; where addresses lets struct.error pass the resolver dies with the cut one.
    """
    with network() as other:
        wire(host, "up0", A, other, "up0", B, 24)
        server = other.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.bind((B, 53))

        def serve() -> None:
            try:
                while raw_sender := server.recvfrom(4096):
                    query = message.Query(raw_sender[0])
                    for reply in _replies(query):
                        server.sendto(reply, raw_sender[1])
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        orlop("network", "create", "left")
        # Restricted, so that the resolver reads the answers itself.
        box = run("--network", "left", "--egress", "deny", "--egress-allow", "*.test", "--dns", B, "--name", "web")
        (pid,) = _resolver(orlop)
        for kind in ("forged", "other", "query"):
            assert ask(box, f"{kind}.test") == (0, ["198.51.100.7"]), kind
        for kind in ("looped", "lying", "cut", "aliases", "huge"):
            raw = _raw(box, f"{kind}.test")
            assert raw[:2] == b"\x42\x42" and len(raw) <= 512, kind
            assert ask(box, "web")[0] == 0, kind
        assert bool(_raw(box, "aliases.test")[2] & 2)  # asked again over TCP, where nobody answers
        assert ask(box, "silent.test") == (message.SERVFAIL, [])
        assert _resolver(orlop) == [pid]
        server.close()


def _raw(box: Box, name: str) -> bytes:
    def go() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(WAIT_S)
            asker.connect((client.ADDRESS, 53))
            asker.send(message.question(name, message.A, 0x4242))
            return asker.recv(65536)

    return box.inside(go)


def test_a_hostile_server_of_streams_is_not_waited_for(run: Run, orlop: Environment, host: Netns) -> None:
    """Red: without the time of a try in `_Question`, the one that says nothing is waited for by who asked."""
    with network() as other:
        wire(host, "up0", A, other, "up0", B, 24)
        listener = other.inside(lambda: socket.create_server((B, 53)))
        said = [b"\xff\xff" + bytes(100), b"\0\5hello", b"\0\0x", b"\0"]
        held: list[socket.socket] = []

        def serve() -> None:
            try:
                while True:
                    peer, _ = listener.accept()
                    peer.sendall(said[len(held)])
                    if held:  # the first one is left waiting
                        peer.close()
                    held.append(peer)
            except (OSError, IndexError):
                return

        threading.Thread(target=serve, daemon=True).start()
        orlop("network", "create", "left")
        box = run("--network", "left", "--dns", B, "--name", "web")
        for number in range(2):  # two tries of each
            assert ask(box, f"n{number}.test", stream=True) == (message.SERVFAIL, [])
            assert ask(box, "web", stream=True)[0] == 0
        assert len(held) == 4
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in held:
            peer.close()
