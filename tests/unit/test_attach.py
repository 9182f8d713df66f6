"""Clients and streams of a monitor, with plain pipes and child processes: bounds, back-pressure, hostile frames."""

import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.linux import tty
from orlop.spec import attach as wire
from orlop.supervise import attach
from orlop.supervise.loop import READ, Loop
from orlop.supervise.stdio import READ_BYTES, Input, Output, Pipes, Terminal


class Recorder:
    """A process that notes what clients do to it."""

    def __init__(self):
        self.got = []

    def write(self, data, taken):
        self.got.append(data)
        taken(len(data))

    def end_with_client(self):
        self.got.append("gone")

    def end_input(self):
        self.got.append("end")

    def resize(self, rows, columns):
        self.got.append((rows, columns))

    def signal(self, number):
        self.got.append(number)


class Hoarder(Recorder):
    """A process that does not read its input."""

    def __init__(self):
        super().__init__()
        self.pending = []

    def write(self, data, taken):
        self.pending.append((data, taken))

    def read_one(self):
        data, taken = self.pending.pop(0)
        taken(len(data))


class Peer:
    """The client's end of a connection."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.setblocking(False)
        self.decoder = wire.Decoder()
        self.frames = []
        self.ended = False

    def send(self, kind, payload=b""):
        self.sock.sendall(wire.frame(kind, payload))

    def receive(self):
        while not self.ended:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                return self.frames
            except ConnectionResetError:
                data = b""
            self.ended = not data
            self.frames += self.decoder.feed(data)
        return self.frames

    def output(self):
        return b"".join(payload for kind, payload in self.receive() if kind == wire.STDOUT)

    def taken(self):
        return sum(int.from_bytes(payload, "big") for kind, payload in self.receive() if kind == wire.TAKEN)


class Server:
    """Clients of a recorded process, in a loop that is turned by hand."""

    def __init__(self, process):
        self.loop = Loop()
        self.process = process
        self.relieved = 0
        self.clients = attach.Clients(self.loop, process, self._relieve)
        self.peers = []

    def _relieve(self):
        self.relieved += 1

    def connect(self):
        ours, theirs = socket.socketpair()
        self.clients.add(theirs)
        self.peers.append(Peer(ours))
        return self.peers[-1]

    def turn(self):
        """Handle everything that is there."""
        for _ in range(100):
            self.loop.turn(0)

    def close(self):
        self.clients.stop_listening()
        self.clients.close()
        self.loop.close()
        for peer in self.peers:
            peer.sock.close()


@pytest.fixture
def serve():
    servers = []

    def make(process=None):
        servers.append(Server(process or Recorder()))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


# -- frames -----------------------------------------------------------------------------------------------------------


def test_frames_reach_the_process_in_order(serve):
    server = serve()
    peer = server.connect()
    peer.send(wire.STDIN, b"typed")
    peer.send(wire.RESIZE, b"\0\x18\0\x50")
    peer.send(wire.SIGNAL, bytes((signal.SIGINT,)))
    peer.send(wire.STDIN)
    server.turn()
    assert server.process.got == [b"typed", (24, 80), signal.SIGINT, "end"]
    assert peer.taken() == 5


@pytest.mark.parametrize(
    "hostile",
    [
        wire.frame(wire.STDOUT, b"x"),
        wire.frame(wire.EXIT, b"{}"),
        wire.frame(wire.TAKEN, b"\0\0\0\1"),
        wire.frame(wire.RESIZE, b""),
        wire.frame(wire.RESIZE, b"\0" * 5),
        wire.frame(wire.SIGNAL, b""),
        wire.frame(wire.SIGNAL, b"\0"),
        wire.frame(wire.SIGNAL, b"\x41"),
        wire.frame(wire.SIGNAL, b"\x09\x09"),
        wire.frame(255),
        wire.header(wire.STDIN, wire.PAYLOAD_BYTES_MAX + 1),
        b"GET /attach HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
    ],
    ids=repr,
)
def test_a_hostile_frame_ends_its_connection_and_nothing_else(serve, hostile):
    server = serve()
    first, second = server.connect(), server.connect()
    second.sock.sendall(hostile)
    server.turn()
    second.receive()
    assert second.ended
    assert server.process.got == []
    assert server.clients.broadcast(wire.STDOUT, b"on")
    assert first.output() == b"on"


@given(st.lists(st.binary(max_size=60), max_size=6))
@settings(deadline=None)
def test_no_bytes_of_a_client_break_the_monitor(parts):
    server = Server(Recorder())
    peer = server.connect()
    for part in parts:
        try:
            peer.sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            break
        server.turn()
    server.clients.broadcast(wire.STDERR, b"still here")
    server.close()


def test_what_was_sent_before_a_connection_broke_reaches_the_process(serve):
    server = serve()
    peer = server.connect()
    peer.send(wire.STDIN, b"last words")
    peer.sock.close()
    server.clients.broadcast(wire.STDOUT, b"nobody hears this")
    server.turn()
    assert server.process.got == [b"last words", "end", "gone"]


def test_only_the_first_client_of_all_ends_the_input_by_going(serve):
    server = serve()
    first, second = server.connect(), server.connect()
    second.sock.close()
    server.turn()
    assert server.process.got == []
    first.sock.close()
    server.turn()
    assert server.process.got == ["end", "gone"]
    server.connect().sock.close()
    server.turn()
    assert server.process.got == ["end", "gone"]


def test_a_client_that_says_that_it_detaches_is_not_missed(serve):
    server = serve()
    first = server.connect()
    first.sock.sendall(wire.frame(wire.DETACH))
    first.sock.close()
    server.turn()
    server.turn()
    assert server.process.got == ["end"]


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_stops_the_output_until_it_reads_or_goes(serve):
    server = serve()
    slow, quick = server.connect(), server.connect()
    chunk = b"x" * READ_BYTES
    sent = 0
    while server.clients.broadcast(wire.STDOUT, chunk):
        sent += len(chunk)
        quick.receive()
        server.turn()
        assert sent < 4 * attach.QUEUE_BYTES_MAX
    quick.receive()
    server.turn()
    assert attach.QUEUE_BYTES_MAX <= server.clients.queued() < attach.QUEUE_BYTES_MAX + 2 * READ_BYTES
    for _ in range(30):
        server.turn()
        quick.receive()
    assert server.relieved == 0
    while server.relieved == 0:
        slow.receive()
        server.turn()
    assert server.clients.queued() < attach.QUEUE_BYTES_MAX // 2
    while server.clients.broadcast(wire.STDOUT, chunk):
        quick.receive()
    slow.sock.close()
    server.turn()
    assert server.relieved == 2
    assert server.clients.broadcast(wire.STDOUT, b"on")


def test_a_process_that_does_not_read_bounds_what_a_client_may_send(serve):
    server = serve(Hoarder())
    peer = server.connect()
    frame = wire.frame(wire.STDIN, b"x" * 1000)
    sent = 0
    try:
        while True:
            sent += peer.sock.send(frame)
            server.turn()
            assert sent < 100 * wire.WINDOW_BYTES
    except BlockingIOError:
        pass
    held = sum(len(data) for data, _ in server.process.pending)
    assert 2 * wire.WINDOW_BYTES <= held < 2 * wire.WINDOW_BYTES + 2 * wire.PAYLOAD_BYTES_MAX
    while server.process.pending:
        server.process.read_one()
        server.turn()
        peer.receive()
    # All that was sent whole arrives; the frame that was cut at the end waits for its rest.
    assert peer.taken() == sent // len(frame) * 1000


def test_a_signal_passes_a_process_that_does_not_read(serve):
    server = serve(Hoarder())
    peer = server.connect()
    for _ in range(wire.WINDOW_BYTES // wire.PAYLOAD_BYTES_MAX):
        peer.send(wire.STDIN, b"x" * wire.PAYLOAD_BYTES_MAX)
        server.turn()
    peer.send(wire.SIGNAL, b"\x02")
    server.turn()
    assert server.process.got == [signal.SIGINT]
    assert peer.taken() == 0


def test_a_client_that_writes_and_never_reads_costs_no_memory(serve):
    server = serve()
    peer = server.connect()
    while server.clients.broadcast(wire.STDOUT, b"x" * READ_BYTES):
        pass
    queued = server.clients.queued()
    for _ in range(5000):
        peer.send(wire.STDIN, b"x")
        server.loop.turn(0)
    assert server.clients.queued() == queued
    assert len(server.process.got) == 5000


def test_twenty_clients_see_everything(serve):
    server = serve()
    peers = [server.connect() for _ in range(20)]
    expected = b""
    for number in range(200):
        data = b"%d " % number * 3000
        expected += data[:READ_BYTES]
        server.clients.broadcast(wire.STDOUT, data[:READ_BYTES])
        for peer in peers:
            peer.receive()
        server.turn()
    assert all(peer.output() == expected for peer in peers)


# -- the socket -------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening(serve, tmp_path):
    # Longer than a socket's path may be.
    directory = tmp_path / ("d" * 100)
    directory.mkdir(mode=0o700)
    server = serve()
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    server.clients.accept_on(attach.listen(fd), fd)
    yield server, directory
    server.clients.stop_listening()
    os.close(fd)


def test_clients_connect_and_see_what_comes_from_then_on(listening):
    server, directory = listening
    server.clients.broadcast(wire.STDOUT, b"before")
    with contextlib.closing(attach.connect(str(directory))) as sock:
        server.turn()
        server.clients.broadcast(wire.STDOUT, b"after")
        assert sock.recv(100) == wire.frame(wire.STDOUT, b"after")


def test_who_knocked_before_the_end_is_let_in(listening):
    server, directory = listening
    with contextlib.closing(attach.connect(str(directory))) as sock:
        server.clients.stop_listening()
        assert not (directory / "attach.sock").exists()
        server.clients.broadcast(wire.EXIT, b"{}")
        server.clients.close()
        assert sock.recv(100) == wire.frame(wire.EXIT, b"{}")
    with pytest.raises(FileNotFoundError):
        attach.connect(str(directory))


def test_the_socket_of_a_dead_monitor_is_replaced(serve, tmp_path):
    (tmp_path / "attach.sock").touch()
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    server = serve()
    server.clients.accept_on(attach.listen(fd), fd)
    attach.connect(str(tmp_path)).close()
    server.clients.stop_listening()
    os.close(fd)


def test_there_is_a_last_client(listening):
    server, directory = listening
    socks = []
    for _ in range(attach.CLIENTS_MAX + 1):
        socks.append(attach.connect(str(directory)))
        server.loop.turn(0)
    assert socks[-1].recv(1) == b""
    server.clients.broadcast(wire.STDOUT, b"x")
    assert socks[-2].recv(100)
    for sock in socks:
        sock.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs: root")
def test_another_user_is_turned_away(listening):
    server, directory = listening
    directory.chmod(0o755)
    (directory / "attach.sock").chmod(0o666)
    code = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "d = os.open(sys.argv[1], os.O_PATH)\n"
        "os.setuid(65534)\n"
        "s.connect(f'/proc/self/fd/{d}/attach.sock')\n"
        "s.settimeout(10)\n"
        "print(s.recv(1))\n"
    )
    child = subprocess.Popen([os.sys.executable, "-I", "-c", code, directory], stdout=subprocess.PIPE)
    server.loop.turn(10)
    assert child.communicate(timeout=10)[0] == b"b''\n"
    assert server.clients.broadcast(wire.STDOUT, b"x")


# -- streams ----------------------------------------------------------------------------------------------------------


class Child:
    """A child process with streams of ours, and everything it wrote."""

    def __init__(self, argv, open_stdin=False):
        self.loop = Loop()
        pipes = Pipes(open_stdin)
        stdin, stdout, stderr = pipes.theirs
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)
        pipes.close_theirs()
        self.input = Input(self.loop, pipes.ours[0])
        self.written = {wire.STDOUT: b"", wire.STDERR: b""}
        self.outputs = [
            Output(self.loop, pipes.ours[stream], stream, self._sink) for stream in (wire.STDOUT, wire.STDERR)
        ]
        for output in self.outputs:
            output.resume()

    def _sink(self, stream, data):
        assert 0 < len(data) <= READ_BYTES
        self.written[stream] += data

    def run(self):
        while any(output.fd >= 0 for output in self.outputs):
            self.loop.turn(10)
        self.input.close()
        self.loop.close()
        return self.process.wait()


def test_both_streams_are_read_to_their_end():
    child = Child(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert child.run() == 7
    assert child.written == {wire.STDOUT: b"out\n", wire.STDERR: b"err\n"}


def test_without_open_stdin_the_process_reads_end_of_file():
    child = Child(["sh", "-c", "cat; readlink /proc/self/fd/0"])
    child.run()
    assert child.written[wire.STDOUT] == b"/dev/null\n"


def test_input_waits_for_its_reader_and_then_ends():
    child = Child(["sh", "-c", "sleep 0.1; wc -c"], open_stdin=True)
    taken = []
    for _ in range(100):
        child.input.write(b"x" * 10_000, taken.append)
    child.input.finish()
    child.run()
    assert child.written[wire.STDOUT].strip() == b"1000000"
    assert sum(taken) == 1_000_000


def test_input_that_nobody_reads_is_dropped_and_told():
    child = Child(["sh", "-c", "exec <&-; echo closed; sleep 0.1"], open_stdin=True)
    while not child.written[wire.STDOUT]:
        child.loop.turn(10)
    taken = []
    child.input.write(b"x" * 1_000_000, taken.append)
    child.input.write(b"more", taken.append)
    child.run()
    assert sum(taken) == 1_000_004


def test_output_waits_while_it_is_paused():
    child = Child(["sh", "-c", "head -c 300000 /dev/zero; echo done >&2"])
    child.outputs[0].pause()
    child.loop.turn(0.2)
    assert child.written == {wire.STDOUT: b"", wire.STDERR: b""}
    child.outputs[0].resume()
    child.run()
    assert len(child.written[wire.STDOUT]) == 300_000


def test_what_a_dead_process_left_in_the_pipe_is_drained_without_waiting_for_its_children():
    child = Child(["sh", "-c", "sleep 100 & echo $!; exit 0"])
    child.process.wait()
    assert [output.drain() for output in child.outputs] == [False, False]
    sleeper = int(child.written[wire.STDOUT])
    os.kill(sleeper, signal.SIGKILL)
    assert child.run() == 0


class OnTerminal:
    """A child on a terminal of its own."""

    def __init__(self, argv):
        self.loop = Loop()
        self.written = b""
        ptmx = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        peer, _, _ = tty.open_pty(ptmx)
        self.process = subprocess.Popen(
            ["setsid", "-c", *argv], stdin=peer, stdout=peer, stderr=peer, start_new_session=False
        )
        os.close(peer)
        self.terminal = Terminal(ptmx)
        self.input = Input(self.loop, self.terminal.input())
        self.output = Output(self.loop, ptmx, wire.STDOUT, self._sink)
        self.output.resume()

    def _sink(self, _stream, data):
        self.written += data

    def read_until(self, text):
        deadline = time.monotonic() + 10
        while text not in self.written:
            assert time.monotonic() < deadline, self.written
            self.loop.turn(1)

    def end(self):
        status = self.process.wait()
        self.terminal.release()
        self.output.drain()
        assert self.output.fd < 0, "the terminal has an end"
        self.input.close()
        self.loop.close()
        return status


def test_a_terminal_carries_input_output_and_its_size():
    child = OnTerminal(["sh", "-c", "trap 'stty size' WINCH; echo ready; until read line; do :; done; echo got $line"])
    child.read_until(b"ready")
    child.terminal.resize(33, 77)
    child.read_until(b"33 77")
    child.input.write(b"hello\n", lambda _: None)
    child.read_until(b"got hello")
    assert child.end() == 0


def test_a_process_may_close_its_terminal_and_open_it_again():
    child = OnTerminal(["sh", "-c", "exec <&- >&- 2>&-; sleep 0.1; echo again >/dev/tty"])
    child.read_until(b"again")
    assert child.end() == 0


def test_the_loop_forgets_what_it_does_not_watch():
    loop = Loop()
    read, write = os.pipe()
    seen = []
    loop.watch(read, READ, seen.append)
    os.write(write, b"x")
    loop.turn(0)
    loop.watch(read, 0, seen.append)
    loop.turn(0)
    loop.unwatch(read)
    assert len(seen) == 1
    os.close(read)
    os.close(write)
    loop.close()
