"""Streams over a machine's port: what goes in comes out, nobody holds up others, a hostile machine loses its link."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.frontends.machine import streams
from orlop.frontends.machine.streams import CREDIT, DATA, EOF, OPEN, WINDOW_BYTES, Links
from orlop.supervise.loop import Loop


class Pair:
    """A host and a guest on one loop. services: the guest's ends of what was opened."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.ports = pair()
        self.services: list[socket.socket] = []
        self.host = Links(self.loop, self.ports[0].fileno())
        self.guest = Links(self.loop, self.ports[1].fileno(), self._serve)

    def _serve(self, name: str) -> socket.socket | None:
        if name != "echo":
            return None
        ours, theirs = pair()
        self.services.append(theirs)
        return ours

    def open(self, service: str = "echo") -> socket.socket:
        ours, theirs = pair()
        assert self.host.open(service, theirs)
        self.turn(10)
        return ours

    def turn(self, times: int = 200) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.loop.turn(0)


OPENED: list[socket.socket] = []


def pair() -> tuple[socket.socket, socket.socket]:
    made = socket.socketpair()
    for one in made:
        one.setblocking(False)
        OPENED.append(one)
    return made


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def linked() -> Pair:
    return Pair()


def taken(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_both_directions_end_by_themselves(linked: Pair) -> None:
    client = linked.open()
    (service,) = linked.services
    client.send(b"asked")
    client.shutdown(socket.SHUT_WR)
    linked.turn()
    assert (service.recv(100), service.recv(100)) == (b"asked", b"")
    service.send(b"answered")
    linked.turn()
    assert client.recv(100) == b"answered"
    assert len(linked.host) == len(linked.guest) == 1
    service.close()
    linked.turn()
    assert client.recv(100) == b""
    assert len(linked.host) == len(linked.guest) == 0


def test_much_arrives_whole_though_the_sender_has_gone(linked: Pair) -> None:
    client = linked.open()
    (service,) = linked.services
    content, got, rest = random.Random(1).randbytes(3 * WINDOW_BYTES), b"", b""
    rest = content

    def carried() -> bool:
        nonlocal got, rest
        if rest:
            try:
                rest = rest[service.send(rest) :]
            except BlockingIOError:
                pass
        elif service.fileno() >= 0:
            service.close()
        got += taken(client)
        return len(got) == len(content)

    linked.until(carried)
    assert got == content
    linked.turn()
    assert client.recv(1) == b"" and len(linked.host) == len(linked.guest) == 0


def test_who_does_not_read_holds_up_nobody(linked: Pair) -> None:
    deaf, client = linked.open(), linked.open()
    first, second = linked.services
    sent = 0
    for _ in range(1000):
        try:
            sent += first.send(bytes(100_000))
        except BlockingIOError:
            pass
        linked.turn(1)
    second.send(b"there")
    linked.turn()
    assert client.recv(100) == b"there"
    assert sent < 8 * WINDOW_BYTES  # a window, and what kernels keep
    deaf.close()
    linked.turn()
    assert len(linked.host) == len(linked.guest) == 1


def test_a_client_that_goes_is_told_of(linked: Pair) -> None:
    client = linked.open()
    client.close()
    linked.turn()
    assert linked.services[0].recv(1) == b""
    assert len(linked.host) == len(linked.guest) == 0


def test_a_service_that_is_not_there_closes_its_stream_alone(linked: Pair) -> None:
    other = linked.open()
    assert linked.open("no such").recv(1) == b""
    assert len(linked.host) == 1 and not linked.host.ended and taken(other) == b""


def test_streams_are_bounded(linked: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 2)
    kept = [linked.open(), linked.open()]
    _, theirs = pair()
    assert not linked.host.open("echo", theirs)
    assert len(kept) == len(linked.host) == 2


FRAMES = {
    "opens": (9, OPEN, b"docker"),
    "is of no kind": (1, 99, b""),
    "goes on after its end": ((1, EOF, b""), (1, DATA, b"x")),
    "gives more credit than there is": (1, CREDIT, b"\0\0\0\1"),
    "gives no number as credit": (1, CREDIT, b""),
    "sends more than its credit": tuple((1, DATA, bytes(32768)) for _ in range(9)),
}


def frame(number: int, kind: int, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return number.to_bytes(4, "big") + bytes((kind,)) + size.to_bytes(4, "big") + payload


@pytest.mark.parametrize("what", [*FRAMES, "is endless"])
def test_a_machine_that_misbehaves_loses_its_link(what: str) -> None:
    loop = Loop()
    port, machine = pair()
    host = Links(loop, port.fileno())
    client, theirs = pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    host.open("docker", theirs)
    found = FRAMES.get(what, ())
    frames = found if found and isinstance(found[0], tuple) else (found,)
    data = frame(1, DATA, b"", 1 << 31) if what == "is endless" else b"".join(frame(*one) for one in frames)  # type: ignore[misc, arg-type]
    for at in range(0, len(data), 10_000):
        machine.setblocking(True)
        machine.send(data[at : at + 10_000])
        for _ in range(5):
            loop.turn(0)
    assert host.ended and len(host) == 0
    if what != "sends more than its credit":
        assert client.recv(1) == b""


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.binary(max_size=40)), max_size=30),
    st.binary(max_size=60),
)
def test_nothing_that_a_machine_says_is_more_than_the_end_of_its_link(
    frames: list[tuple[int, int, bytes]], rest: bytes
) -> None:
    loop = Loop()
    port, machine = pair()
    host = Links(loop, port.fileno())
    client, theirs = pair()
    host.open("docker", theirs)
    machine.send(b"".join(frame(*one) for one in frames) + rest)
    for _ in range(20):
        loop.turn(0)
    machine.close()
    for _ in range(20):
        loop.turn(0)
    assert host.ended and len(host) == 0 and client.fileno() >= 0


def test_a_closed_stream_still_gets_what_was_sent(linked: Pair) -> None:
    client = linked.open()
    linked.services[0].send(b"last words")
    linked.services[0].close()
    linked.turn()
    assert client.recv(100) == b"last words"
