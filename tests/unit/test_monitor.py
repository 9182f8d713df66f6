"""The parts of a monitor that need no container: its streams with a plain child process, its defects, its records."""

import json
import os
import select
import socket
import subprocess
import threading

import pytest

from orlop.linux import process, tty
from orlop.spec import attach as wire
from orlop.spec.task import ExitRecord
from orlop.supervise import attach, launcher, monitor, record
from orlop.supervise.stdio import Pipes
from support.tasks import Client


def test_a_handover_comes_back_as_it_was_sent():
    sent = launcher.Handover("orlop: monitor ü", "2026-01-02T03:04:05Z", "/orlop/x", "/run/exec/1")
    for terminal in (False, True):
        for log in (None, (0, 1, 0, 0, ""), (1 << 40, 5, 1, 10**9, '{"a b":"c d"}')):
            sent.terminal, sent.open_stdin, sent.input_ends_with_client = terminal, not terminal, terminal
            sent.log, sent.removed_at_end = log, terminal
            got = launcher.Handover.decode(sent.encode())
            assert [getattr(got, name) for name in got.__slots__] == [getattr(sent, name) for name in sent.__slots__]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\xff\0\0\0\0\0", b"\0" * 7, b"a\0b\0c\0d\0e\0f", b"a\0b\0c\0d\0e\01 2 3"]
)
def test_what_is_no_handover_is_refused(data):
    with pytest.raises(ValueError):
        launcher.Handover.decode(data)


# -- records ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


def test_a_status_replaces_the_record_of_the_run_before(directory):
    path, fd = directory
    (path / "exit.json").write_text("{}")
    record.write_status(fd, os.getpid(), os.getppid(), "now", "/orlop/x")
    status = json.loads((path / "status.json").read_text())
    assert status["pid"] == os.getpid() and status["monitorPid"] == os.getppid()
    assert status["pidStartTime"] == process.start_time(os.getpid())
    assert status["bootId"] == process.boot_id() and status["startedAt"] == "now"
    assert os.listdir(path) == ["status.json"]
    assert (path / "status.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("wait_status", "code", "number"), [(0, 0, 0), (7 << 8, 7, 0), (9, 137, 9), (0x80 | 11, 139, 11)]
)
def test_an_exit_is_written_once_and_whole(directory, wait_status, code, number):
    path, fd = directory
    exit_fd = record.reserve_exit(fd)
    assert not (path / "exit.json").exists()
    record.write_exit(fd, exit_fd, record.ended("then", wait_status, False, ""))
    ended = ExitRecord.from_json(json.loads((path / "exit.json").read_text()))
    assert (ended.exit_code, ended.signal, ended.started_at) == (code, number, "then")
    assert os.listdir(path) == ["exit.json"]


def test_the_longest_error_fits_into_what_is_reserved(directory):
    _, fd = directory
    exit_fd = record.reserve_exit(fd)
    reserved = os.fstat(exit_fd).st_size
    record.write_exit(fd, exit_fd, record.failed("then", 125, "\x01\U0001f600" * 5000))
    assert 0 < os.stat("exit.json", dir_fd=fd).st_size <= reserved


def test_a_moment_has_nanoseconds_and_sorts_as_text():
    first, second = record.now(), record.now()
    assert first <= second and len(first) == len("2026-01-02T03:04:05.123456789Z")


# -- a monitor of a plain child ---------------------------------------------------------------------------------------


class Carried:
    """A child process with a monitor, in this process."""

    def __init__(self, directory, script):
        self.path, directory_fd = directory
        pipes = Pipes(open_stdin=True)
        stdin, stdout, _ = pipes.theirs
        self.child = subprocess.Popen(["sh", "-c", script], stdin=stdin, stdout=stdout)
        self.stderr_writer = os.dup(pipes.theirs[2])
        pipes.close_theirs()
        stdin, stdout, stderr = pipes.ours
        handover = launcher.Handover("title", "then", "", "")
        handover.open_stdin = handover.input_ends_with_client = True
        handover.log = (0, 1)
        ours, theirs = socket.socketpair()
        self.client = Client(ours)
        self.monitor = monitor.Monitor(
            handover,
            (
                os.pidfd_open(self.child.pid),
                attach.listen(directory_fd).detach(),
                os.dup(directory_fd),
                os.dup(directory_fd),
                os.open("/dev/null", os.O_WRONLY),
                stdout,
                stderr,
                stdin,
            ),
            [theirs],
        )

    def finish(self):
        status = self.child.wait()
        os.close(self.stderr_writer)
        self.monitor.drain()
        self.monitor.clients.stop_listening()
        self.monitor.clients.close()
        self.monitor.log.finish()
        self.client.close()
        for fd in (self.monitor.pidfd, self.monitor.directory, self.monitor.runtime_directory, self.monitor.exit_fd):
            os.close(fd)
        return status


@pytest.fixture
def carried(directory):
    made = []

    def make(script):
        made.append(Carried(directory, script))
        return made[-1]

    yield make
    for each in made:
        each.child.kill()
        each.child.wait()


def test_bytes_are_carried_until_the_process_ends(carried, directory):
    one = carried("read x; echo got $x; exit 3")
    one.client.send(wire.STDIN, b"this\n")
    one.monitor.carry()
    assert one.finish() == 3
    assert json.loads((directory[0] / "log.json").read_text())["log"] == "got this\n"
    assert one.monitor.defects == []


def test_a_defect_costs_the_clients_and_not_the_process(carried, directory, monkeypatch):
    one = carried("echo before; sleep 0.1; echo after; exit 4")

    def defect(*_):
        raise RuntimeError("made by the test")

    monkeypatch.setattr(attach.Clients, "act", defect)
    one.client.send(wire.STDIN, b"this\n")
    one.monitor.carry()
    assert one.finish() == 4
    assert len(one.monitor.defects) == 1
    assert (directory[0] / "log.json").read_text().count("\n") == 2


def test_a_monitor_that_only_fails_ends_its_process(carried, monkeypatch):
    one = carried("exec sleep 1000")

    def defect(*_):
        raise RuntimeError("made by the test")

    monkeypatch.setattr(monitor.Loop, "turn", defect)
    one.monitor.carry()
    assert one.finish() == -9
    assert len(one.monitor.defects) == monitor.DEFECTS_MAX
    assert "made by the test" in one.monitor.defects[0] and "test_monitor.py" in one.monitor.defects[0]


def test_the_output_of_a_terminal_has_an_end(directory, monkeypatch):
    monkeypatch.setattr(monitor, "DRAIN_S_MAX", 1000.0)
    path, fd = directory
    ptmx = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    terminal, _, _ = tty.open_pty(ptmx)
    child = subprocess.Popen(["echo", "on a terminal"], stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    handover = launcher.Handover("title", "then", "", "")
    handover.terminal, handover.log = True, (0, 1)
    places = [attach.listen(fd).detach(), os.dup(fd), os.dup(fd), os.dup(fd)]
    carrying = monitor.Monitor(handover, (os.pidfd_open(child.pid), *places, ptmx), [])
    carrying.carry()
    child.wait()
    carrying.drain()
    carrying.clients.stop_listening()
    carrying.log.finish()
    assert json.loads((path / "log.json").read_text())["log"] == "on a terminal\r\n"
    for owned in (carrying.pidfd, *places[1:]):
        os.close(owned)


def test_lingering_ends_with_the_last_byte(carried, directory):
    one = carried("exit 0")
    one.monitor.carry()
    for _ in range(10):
        one.monitor.clients.broadcast(wire.STDOUT, b"x" * 60_000)
    assert one.monitor.clients.queued() > 0
    seen = []

    def read():
        while sum(seen) < 10 * 60_008:
            seen.append(len(one.client.sock.recv(1 << 16)))

    thread = threading.Thread(target=read)
    thread.start()
    one.monitor.linger()
    assert one.monitor.clients.queued() == 0
    thread.join(20)
    assert not thread.is_alive()
    one.finish()


def test_lingering_is_bounded(carried, monkeypatch):
    monkeypatch.setattr(monitor, "LINGER_S_MAX", 0.05)
    one = carried("exit 0")
    one.monitor.carry()
    for _ in range(10):
        one.monitor.clients.broadcast(wire.STDOUT, b"x" * 60_000)
    one.monitor.linger()
    assert one.monitor.clients.queued() > 0
    one.finish()


def test_draining_is_bounded_when_somebody_keeps_the_pipe(carried, monkeypatch):
    monkeypatch.setattr(monitor, "DRAIN_S_MAX", 0.05)
    one = carried("exit 0")
    one.monitor.carry()
    one.monitor.drain()  # stderr_writer is open here
    assert not select.select([], [one.stderr_writer], [], 0)[2]
    with pytest.raises(BrokenPipeError):
        os.write(one.stderr_writer, b"x")
    one.finish()
