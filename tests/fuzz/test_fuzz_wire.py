"""What comes over sockets and from other programs, against bytes that nobody would send.

Requests of HTTP and of our own protocol, frames of HTTP/2, answers of netlink and of DNS, folders of a build's client,
results of CNI, compose's files, profiles of seccomp.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from orlop.engine.compile import seccomp_profile
from orlop.frontends.buildkit import filesync, http2
from orlop.frontends.compose import dotenv, interpolation, loading, project, request
from orlop.frontends.http.exchange import Exchange
from orlop.frontends.native import wire as native
from orlop.linux.cgroup import Layout
from orlop.linux.netlink import nftrace, rtnetlink, wire
from orlop.network import pools
from orlop.network.cni import conflist, result
from orlop.network.dns import egress, message
from orlop.runtime import plan, seccomp
from orlop.runtime.host import HostFacts
from orlop.runtime.systemd import annotations
from orlop.runtime.systemd import wire as dbus
from orlop.spec import jsonio, protobuf
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import Spec
from support.container import make_spec
from support.fuzzing import Target, each
from support.requests import receive_request

BODY_BYTES_MAX = 1024

ALL = 2**41 - 1
MACHINE = HostFacts(
    machine="x86_64", kernel=(6, 18), cap_last=40, cap_bounding=ALL, cap_effective=ALL, layout=Layout("none")
)


# -- HTTP -----------------------------------------------------------------------------------------------------------


class _Server:
    """What an Exchange wants of its server."""

    context = None
    timeout_s = 1.0

    def work(self, connection: object) -> None: ...
    def rest(self, connection: object) -> None: ...


class _Echo(Exchange):
    """Reads every body and tells how long it was."""

    def handle_request(self) -> None:
        body = self.body(BODY_BYTES_MAX)
        assert len(body) <= BODY_BYTES_MAX
        self.answer_json(200, {"place": self.place[:100], "bytes": len(body)})

    def log_message(self, format: str, *args: object) -> None: ...


class _Stream:
    """A connection whose peer has said everything already."""

    def __init__(self, data: bytes) -> None:
        self.input, self.output = io.BytesIO(data), io.BytesIO()

    def makefile(self, mode: str, size: int = -1) -> io.BufferedIOBase:
        return io.BufferedReader(self.input) if "r" in mode else self.output  # type: ignore[arg-type]

    def sendall(self, data: bytes) -> None:
        self.output.write(data)

    def settimeout(self, seconds: float | None) -> None: ...
    def setsockopt(self, *words: object) -> None: ...


def _http(data: bytes) -> None:
    stream = _Stream(data)
    _Echo(stream, "", _Server())  # type: ignore[arg-type]  # its constructor handles the connection
    told = stream.output.getvalue()
    assert b" 500 " not in told.partition(b"\r\n")[0]
    # One request is one answer: more answers than heads could be are a body that was taken for a request.
    assert told.count(b"HTTP/1.1 200 ") <= data.count(b"\n") + 1


def _frames(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    taken: list[object] = []
    try:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        http2.Connection(ours, is_client=False, handle=taken.append).run()
    finally:
        ours.close()
        theirs.close()


def _native(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    try:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(5)
        while receive_request(ours) is not None:
            pass
    finally:
        ours.close()
        theirs.close()


# -- builds ---------------------------------------------------------------------------------------------------------


class _Call:
    """A client of fsutil's DiffCopy that sends what it likes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.stream = self

    def messages(self) -> object:
        at = 0
        while at + 2 <= len(self.data):
            (size,) = struct.unpack_from(">H", self.data, at)
            yield self.data[at + 2 : at + 2 + size]
            at += 2 + size

    def send(self, message: bytes) -> None: ...


def _folder(data: bytes) -> None:
    place = tempfile.mkdtemp(prefix="orlop-fuzz-")
    inside = f"{place}/inside"
    os.mkdir(inside)
    os.symlink("..", f"{inside}/up")
    root = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        filesync._Receiver(_Call(data), root, inside).run()  # type: ignore[arg-type]
    finally:
        os.close(root)
        assert os.listdir(place) == ["inside"], "something was made outside"
        shutil.rmtree(place)


def _packet(*fields: tuple[int, object]) -> bytes:
    packet = protobuf.encode(fields)  # type: ignore[arg-type]
    return struct.pack(">H", len(packet)) + packet


def _stat(path: str, mode: int, size: int = 0, link: str = "") -> bytes:
    return _packet((1, filesync.STAT), (2, ((1, path), (2, mode), (5, size), (6, 1), (7, link))))


FOLDER = [
    _stat("d", 1 << 31 | 0o755),
    _stat("d/f", 0o644, 3),
    _stat("l", 1 << 27 | 0o777, 0, "../x"),
    _packet((1, filesync.STAT)),
    _packet((1, filesync.DATA), (3, 1), (4, b"abc")),
    _packet((1, filesync.DATA), (3, 1), (4, b"")),
    _packet((1, filesync.FIN)),
]


# -- the kernel and the network -------------------------------------------------------------------------------------


def _pools(data: bytes) -> None:
    pools.free_subnet([], "", pools.read(jsonio.parse(data, "pools.json"), "pools.json"))


def _netlink(data: bytes) -> None:
    for found in wire.split(data):
        if found.kind == 2:
            wire.Refusal(found)
            continue
        SHAPES.get(found.kind, nftrace.Step)(found.payload)


# RTM_NEWLINK and its like, linux/rtnetlink.h
SHAPES: dict[int, Callable[[bytes], object]] = {
    16: rtnetlink.Link,
    20: rtnetlink.Address,
    24: rtnetlink.Route,
    28: rtnetlink.Neighbour,
    32: rtnetlink.Rule,
}


def _question(data: bytes) -> None:
    query = message.Query(data)
    assert len(query.name) <= 2 * message.NAME_LENGTH_MAX  # each dot inside of a label is escaped
    assert 0 <= query.edns_version < 256
    assert 512 <= query.udp_size <= message.UDP_BYTES_MAX
    message.reverse_address(query.name)
    again = message.answer(query, message.NOERROR, [(message.A, b"\x7f\0\0\1")])
    assert message.is_answer_to(again, query.id, query.question)


def _answer(data: bytes) -> None:
    message.refuse(data)
    if message.is_answer_to(data, 7, QUESTION[12:]):
        assert len(message.addresses(data)) <= len(data)
        message.code_of(data)
        assert message.is_truncated(data) in (True, False)
        assert message.has_answers(data) in (True, False)


QUESTION = message.question("www.example.org", message.A, 7)
ANSWER = message.answer(message.Query(QUESTION), 0, [(message.A, b"\x7f\0\0\1"), (message.AAAA, b"\0" * 16)])
LINK = wire.message(16, 0, 1, struct.pack("=BxHiII", 0, 1, 3, 1, 0) + wire.text(3, "up0") + wire.u32(4, 1500))
KINDS = b"".join(wire.message(kind, 0, 1, b"\2" + b"\0" * (size - 1)) for kind, size in ((20, 8), (24, 12), (28, 12)))
REFUSED = wire.message(2, 0x200, 1, struct.pack("=l", -17) + wire.HEADER.pack(16, 24, 5, 1, 0) + wire.text(1, "no"))


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode(errors="surrogateescape"))


def _conflist(data: bytes) -> None:
    found = conflist.Conflist(jsonio.parse_object(data, "the input"), "the input")
    found.can("portMappings")
    found.at_least("1.1.0")


def _result(data: bytes) -> None:
    found = jsonio.parse_object(data, "the input")
    result.addresses(found)
    result.mac_address(found, "eth0")


# -- what a container is made of ------------------------------------------------------------------------------------


def _profile(data: bytes) -> None:
    profile = seccomp_profile.parse(data.decode(errors="replace"), ("CAP_CHOWN", "CAP_SYS_ADMIN"), MACHINE)
    assert len(seccomp.compile(profile, "x86_64")) % 8 == 0


def _plan(data: bytes) -> None:
    spec = Spec.from_json(jsonio.parse(data, "the input"), "the input")
    compiled = plan.compile(spec, MACHINE, lambda *_: b"")
    for operation in compiled.operations:
        operation.describe()
        operation.call()


def _compose(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="orlop-fuzz-") as place:
        (Path(place) / "compose.yaml").write_bytes(data)
        loaded = loading.load(loading.Sources(directory=place, environ={"TAG": "1"}))
        made = project.make(loaded, project.Wishes(name="fuzz"))
        for service in made.services.values():
            request.container(made, service, 1, {})
        for networks in made.networks.values():
            request.network(made, networks)


COMPOSE = b"""name: shop
x-common: &common
  restart: on-failure:3
  environment: {A: "${TAG:-2}", B: null}
services:
  db:
    <<: *common
    image: "host:${TAG?needed}"
    command: ["sh", "-c", "sleep 1"]
    volumes: ["data:/srv:ro", {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    ports: ["8080-8081:80-81/udp", {target: 1, published: "2", protocol: tcp}]
    healthcheck: {test: [CMD, "true"], interval: 1m30s, retries: 2}
    deploy: {resources: {limits: {memory: 64m, cpus: "0.5", pids: 9}}}
    ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}
    depends_on: {web: {condition: service_started, required: false}}
    networks: {back: {aliases: [x], ipv4_address: 10.1.2.3}}
  web: {extends: {service: db}, profiles: [p], image: host, network_mode: none}
networks: {back: {ipam: {config: [{subnet: 10.1.2.0/24}]}, internal: true}}
volumes: {data: {labels: {a: b}}}
secrets: {s: {environment: TAG}}
"""
DOTENV = b"A=b\nexport C='d e' # x\nE=\"f\\n${A}$C\"\n# no\nG\nH: i\n"
PROFILE = b"""{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": [{"architecture": "SCMP_ARCH_X86_64",
"subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}], "syscalls": [{"names": ["read", "write"], "action":
"SCMP_ACT_ALLOW"}, {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288,
"valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}], "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
{"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}, "errnoRet": null}]}"""
CONFLIST = b"""{"cniVersion": "1.1.0", "name": "net", "disableCheck": true, "plugins": [{"type": "bridge",
"capabilities": {"portMappings": true}, "ipam": {"type": "host-local"}}, {"type": "portmap"}]}"""
RESULT = b"""{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "aa:bb:cc:dd:ee:ff", "sandbox": "/n"}],
"ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 0}, {"address": "fd00::2/64"}],
"dns": {"nameservers": ["10.1.2.1", "::1"]}}"""
GET = b"GET /v1.45/containers/json?all=1&filters=%7B%7D HTTP/1.1\r\nHost: docker\r\nUser-Agent: x\r\n\r\n"
POST = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
HEADERS = bytes.fromhex("000005010500000001") + b"\x82\x86\x84\x41\x00"
OPEN = HEADERS[:4] + b"\x04" + HEADERS[5:]  # its stream does not end with them
DATA = bytes((0, 0, 3, 0, 0, 0, 0, 0, 1)) + b"abc"


SPEC = jsonio.dump(make_spec("sh", sysctl={"net.ipv4.ip_forward": "1"}).to_json())


def _request(verb: str, args: dict[str, object]) -> bytes:
    return native.pack({"verb": verb, "args": args})


def _property(text: str) -> None:
    value = annotations.parse(text, "x")
    dbus.encode(value.signature, [value.value])


TARGETS = [
    Target("http-request", _http, [GET, GET + POST, CHUNKED + GET], ()),
    Target("http2-frames", _frames, [PREFACE, PREFACE + HEADERS, PREFACE + OPEN + 2 * DATA], ()),
    Target("native-request", _native, [_request("containers.list", {"all": True})], (OrlopError,)),
    Target("client-folder", _folder, [b"".join(FOLDER)], (OrlopError,)),
    Target("netlink", _netlink, [LINK, REFUSED, LINK + REFUSED, KINDS], (OSError,)),
    Target("dns-question", _question, [QUESTION, message.question("a.b", message.AAAA, 1)], (ValueError,)),
    Target("dns-answer", _answer, [ANSWER, QUESTION], ()),
    Target("systemd-value", _text(_property), [b"uint64 5", b"'a\\u00e4'", b"[true, false]", b"-1.5e3"], (OrlopError,)),
    Target("egress", _text(egress.Allowed), [b"*.example.org:443", b"10.0.0.0/8", b"fd00::/8"], (ValueError,)),
    Target("cni-conflist", _conflist, [CONFLIST], (OrlopError,)),
    Target("address-pools", _pools, [b'[{"base": "172.30.0.0/16", "size": 24}]'], (OrlopError,)),
    Target("cni-result", _result, [RESULT], (OrlopError, ValueError)),
    Target("seccomp-profile", _profile, [PROFILE], (OrlopError,)),
    Target("runtime-plan", _plan, [SPEC], (OrlopError,)),
    Target("compose", _compose, [COMPOSE], (OrlopError,)),
    Target("dotenv", _text(lambda text: dotenv.parse(text, "x", {"C": "1"})), [DOTENV], (OrlopError,)),
    Target(
        "interpolation",
        _text(lambda text: interpolation.substitute(text, {"A": "1"})),
        [b"${A:-x${B-y}}$$ ${A:+z}$A"],
        (interpolation.BadTemplate,),
    ),
]  # fmt: skip


@each(TARGETS)
def test_a_parser_takes_or_refuses(target: Target) -> None:
    target.try_all()
