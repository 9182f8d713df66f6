"""The native socket's server and what a client can do to it. The engine behind it is a stub: no verb needs one here."""

import os
import resource
import select
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from orlop.frontends.native import server as native_server
from orlop.frontends.native import verbs, wire
from orlop.frontends.native.server import Server
from orlop.spec import errors
from orlop.spec.paths import Paths


class StubLog:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    def exception(self, what: str, error: BaseException) -> str:
        self.lines.append(f"{what}: {error!r}")
        return "c0ffee"


class StubWatcher:
    needed = False

    def busy(self) -> bool:
        return self.needed

    def watching(self) -> list[str]:
        return []


class StubBoot:
    def busy(self) -> bool:
        return False


class Running:
    """A server that runs in a thread, and connections to it."""

    def __init__(self, directory, idle_s=None) -> None:
        self.log = StubLog()
        self.watcher = StubWatcher()
        self.path = str(directory / "s")
        paths = Paths(str(directory), str(directory))
        engine = SimpleNamespace(log=self.log, watcher=self.watcher, boot=StubBoot(), paths=paths, waits={})
        engine.owners = SimpleNamespace(busy=False)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(2048)
        self.server = Server(engine, listener, idle_s)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.opened: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(self.path)
        self.opened.append(client)
        return client

    def ask(self, verb: str, args: dict[str, object] | None = None, fds=()) -> object:
        client = self.connect()
        wire.send_request(client, verb, args or {}, fds)
        return wire.receive_reply(client)[0]

    def close(self) -> None:
        for client in self.opened:
            client.close()
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.server.close()


@pytest.fixture
def running(tmp_path):
    server = Running(tmp_path)
    yield server
    server.close()


def ended(client: socket.socket) -> bool:
    """Tell whether the server closed the connection, after an error or without."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_requests_follow_each_other_on_one_connection(running):
    client = running.connect()
    for _ in range(3):
        wire.send_request(client, "engine.ping", {})
        result, _ = wire.receive_reply(client)
        assert isinstance(result, dict)
        assert result["pid"] == os.getpid()


def test_requests_sent_at_once_are_answered_in_turn(running):
    client = running.connect()
    for _ in range(20):
        wire.send_request(client, "engine.ping", {})
    for _ in range(20):
        assert "version" in wire.receive_reply(client)[0]


@pytest.mark.parametrize(
    ("verb", "args", "text"),
    [
        ("containers.fly", {}, "there is no verb 'containers.fly'"),
        ("x" * 5000, {}, "there is no verb 'xxx"),
        ("engine.ping", {"loud": True}, "loud: there is no such field"),
        ("containers.stop", {}, "container: it is required"),
        ("containers.stop", {"container": 7}, "container: expected a string, found an integer"),
        ("containers.stop", {"container": "a\0b"}, "NUL"),
        ("containers.stop", {"container": "web", "timeout_s": "9"}, "timeout_s: expected an integer"),
        ("containers.stop", {"container": "web", "timeout_s": 2**70}, "timeout_s: the integer does not fit"),
        ("containers.create", {"request": []}, "request: expected an object"),
        ("containers.create", {"request": {"imagge": "x"}}, "request.imagge: there is no such field"),
        ("containers.create", {"request": {"binds": [{"source": "/"}]}}, r"request.binds\[0\].target: it is required"),
        ("containers.list", {"filters": {"name": "web"}}, "filters.name: expected a list"),
        ("containers.run", {"request": {}, "attached": True}, "an attach stream has to come with it"),
        ("images.import", {}, "an archive has to come with it, and 0 descriptors came"),
        ("containers.wait", {"container": "web", "condition": "bored"}, "invalid condition: 'bored'"),
    ],
)
def test_a_wrong_request_is_told_and_the_connection_goes_on(running, verb, args, text):
    client = running.connect()
    wire.send_request(client, verb, args)
    with pytest.raises((errors.Invalid, errors.NotFound), match=text) as caught:
        wire.receive_reply(client)
    assert len(str(caught.value)) < 500
    wire.send_request(client, "engine.ping", {})
    assert wire.receive_reply(client)[0]


@pytest.mark.parametrize("verb", ["images.import", "images.load"])
def test_what_no_archive_can_be_read_from_is_told(running, tmp_path, verb):
    """red: without the look at the descriptor: reading it was a defect of the engine."""
    reads, writes = os.pipe()
    poll, directory = select.epoll(), os.open(tmp_path, os.O_RDONLY)
    client = running.connect()
    try:
        for fd, told in ((writes, "only be written"), (poll.fileno(), "not an archive"), (directory, "not an archive")):
            wire.send_request(client, verb, {}, (fd,))
            with pytest.raises(errors.Invalid, match=told):
                wire.receive_reply(client)
    finally:
        poll.close()
        for fd in (reads, writes, directory):
            os.close(fd)


def message(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        (wire.REQUEST_BYTES_MAX + 1).to_bytes(4, "big"),
        message(b""),
        message(b"{"),
        message(b"[]"),
        message(b'"engine.ping"'),
        message(b'{"args":{}}'),
        message(b'{"verb":7}'),
        message(b'{"verb":"engine.ping","args":[]}'),
        message(b'{"verb":"engine.ping","verb":"engine.stop"}'),
        message(b'{"verb":"engine.ping","args":{"x":' + b"[" * 100_000),
        message(b'{"verb":"\xff"}'),
        message(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        message(os.urandom(300_000)),
    ],
)
def test_what_is_no_request_ends_its_connection_and_nothing_else(running, sent):
    client = running.connect()
    client.sendall(sent)
    with pytest.raises(errors.Invalid):
        wire.receive_reply(client)
    assert ended(client)
    assert running.ask("engine.ping")


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0", message(b'{"verb":"engine.ping"}')[:-1]])
def test_a_client_that_goes_in_the_middle_leaves_nothing(running, sent):
    client = running.connect()
    client.sendall(sent)
    client.close()
    assert running.ask("engine.ping")
    assert wait_until(lambda: len(running.server._resting) <= 1)


def wait_until(condition) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_large_request_that_comes_slowly_is_read(running):
    client = running.connect()
    payload = b'{"verb":"engine.ping","args":{' + b" " * 200_000 + b"}}"
    whole = message(payload)
    for start in range(0, len(whole), 30_000):
        client.sendall(whole[start : start + 30_000])
        time.sleep(0.005)
    assert wire.receive_reply(client)[0]


def test_half_requests_time_out(running, monkeypatch):
    monkeypatch.setattr(native_server, "REQUEST_S_MAX", 0.2)
    half = running.connect()
    half.sendall(b"\0\0")
    long_half = running.connect()
    long_half.sendall((1 << 20).to_bytes(4, "big") + b"x" * 100_000)  # enough for a worker to begin
    assert ended(half)
    assert ended(long_half)


def test_a_silent_connection_is_closed_in_the_end(running, monkeypatch):
    monkeypatch.setattr(native_server, "SILENCE_S_MAX", 0.2)
    assert ended(running.connect())


def test_a_thousand_half_open_connections_delay_nobody(running):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        count = min(1000, (min(hard, 8192) - 200) // 2)
        for index in range(count):
            client = running.connect()
            if index % 3:
                client.sendall(b"\0\0\0"[: index % 3] if index % 2 else message(b"x" * 100)[:50])
        begun = time.monotonic()
        for _ in range(20):
            assert running.ask("engine.ping")
        assert time.monotonic() - begun < native_server.REQUEST_S_MAX / 2
        assert threading.active_count() < 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_the_limit_are_told(running, monkeypatch):
    monkeypatch.setattr(native_server, "CONNECTIONS_MAX", 3)
    first = [running.connect() for _ in range(3)]
    assert wait_until(lambda: len(running.server._resting) == 3)
    with pytest.raises(errors.Unavailable, match="3 connections already"):
        wire.receive_reply(running.connect())
    first[0].close()
    assert wait_until(lambda: len(running.server._resting) == 2)
    assert running.ask("engine.ping")


def test_descriptors_that_nobody_asked_for_are_closed(running):
    running.ask("engine.ping")
    read_end, write_end = os.pipe()
    running.ask("engine.ping", fds=[write_end, write_end])
    with pytest.raises(errors.NotFound):
        running.ask("no.such", fds=[write_end] * 4)
    with pytest.raises(errors.Invalid):
        running.ask("containers.run", {"request": {}, "attached": True}, fds=[write_end])
    os.close(write_end)
    assert os.read(read_end, 1) == b""  # no copy of the other end is left anywhere
    os.close(read_end)


def test_too_many_descriptors_end_the_connection_and_are_closed(running):
    read_end, write_end = os.pipe()
    client = running.connect()
    wire.send_request(client, "engine.ping", {}, [write_end] * 9)
    with pytest.raises(errors.Invalid, match="descriptors"):
        wire.receive_reply(client)
    os.close(write_end)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_a_peer_of_another_user_is_not_answered(running):
    running.server._uids.clear()
    client = running.connect()
    assert client.recv(1) == b""
    assert wait_until(lambda: any(line.startswith("denied: process") for line in running.log.lines))


def test_a_defect_is_an_internal_error_with_its_place_in_the_log(running, monkeypatch):
    def broken(call, args):
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(verbs.VERBS, "engine.ping", verbs.Verb(verbs.call.Nothing, broken))
    with pytest.raises(errors.Internal, match="c0ffee") as caught:
        running.ask("engine.ping")
    assert "engine.log" in caught.value.hint
    assert running.log.lines == ["verb engine.ping: ZeroDivisionError('oh')"]


def test_clients_that_wait_leave_room_for_the_others(running, monkeypatch):
    monkeypatch.setattr(native_server, "WAITING_WORKERS_MAX", 2)
    release = threading.Event()
    waits = verbs.Verb(verbs.call.Nothing, lambda call, args: release.wait(30), lasts=True)
    monkeypatch.setitem(verbs.VERBS, "containers.wait", waits)
    clients = [running.connect() for _ in range(2)]
    for client in clients:
        wire.send_request(client, "containers.wait", {})
    assert wait_until(lambda: running.server._waiting == 2)
    with pytest.raises(errors.Unavailable, match="2 clients that wait already"):
        running.ask("containers.wait")
    assert running.ask("engine.ping")
    release.set()
    for client in clients:
        assert wire.receive_reply(client)[0] is True


def test_a_stream_follows_the_result_and_ends_the_connection(running, monkeypatch):
    pieces = [b"a" * 100_000, b"b"]
    streams = verbs.Verb(verbs.call.Nothing, lambda call, args: verbs.Reply({"stream": True}, stream=iter(pieces)))
    monkeypatch.setitem(verbs.VERBS, "engine.ping", streams)
    client = running.connect()
    wire.send_request(client, "engine.ping", {})
    assert wire.receive_reply(client)[0] == {"stream": True}
    received = b""
    while data := client.recv(65536):
        received += data
    assert received == b"".join(pieces)


def test_an_idle_server_leaves_unless_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(native_server, "SWEEP_S", 0.02)
    running = Running(tmp_path, idle_s=0.1)
    client = running.connect()
    running.thread.join(0.5)
    assert running.thread.is_alive(), "a connection keeps it"
    running.watcher.needed = True
    client.close()
    running.thread.join(0.5)
    assert running.thread.is_alive(), "somebody waits for a container"
    running.watcher.needed = False
    running.thread.join(30)
    assert not running.thread.is_alive()
    running.close()


def test_the_stop_verb_is_answered_before_the_server_leaves(tmp_path):
    running = Running(tmp_path)
    assert running.ask("engine.stop") == {"pid": os.getpid()}
    running.thread.join(30)
    assert not running.thread.is_alive()
    running.close()


@pytest.mark.parametrize("rests", [True, False], ids=["resting", "not taken back yet"])
def test_a_client_that_comes_while_the_server_leaves_is_told(tmp_path, monkeypatch, rests):
    if not rests:
        monkeypatch.setattr(Server, "_take_back", lambda self: self._employ())
    server = Running(tmp_path)
    resting = server.connect()
    wire.send_request(resting, "engine.ping", {})
    wire.receive_reply(resting)
    stopper = server.connect()
    wire.send_request(stopper, "engine.stop", {})
    wire.receive_reply(stopper)
    server.thread.join(30)
    late = server.connect()
    wire.send_request(late, "engine.ping", {})
    stopper.setblocking(False)
    with pytest.raises(BlockingIOError):
        stopper.recv(1)  # the end of this stream means that the socket is gone, and here it is not yet
    server.server.close()
    for client in (resting, late):
        with pytest.raises(errors.Unavailable, match="it is stopping"):
            wire.receive_reply(client)
    stopper.setblocking(True)
    assert ended(stopper)
    for client in server.opened:
        client.close()
