"""A foreground session through the real command, on pipes and on a terminal; the monitor follows a script."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.frontends.cli.session import DetachKeys
from orlop.frontends.cli.values import parse_detach_keys
from orlop.spec import attach, errors
from support.engine import COMMAND
from support.fake_engine import FakeEngine, FakeMonitor, HangUp, Reply, monitored
from support.terminal import Terminal

ID = "f" * 64
Script = Callable[[FakeMonitor], None]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with FakeEngine() as fake:
        yield fake


@pytest.fixture
def scripted(engine: FakeEngine) -> Iterator[Callable[[Script], FakeEngine]]:
    """`scripted(script)`: the next run, start or exec is answered, and its monitor follows the script."""
    threads: list[threading.Thread] = []

    def arrange(script: Script) -> FakeEngine:
        for verb, result in {
            "containers.run": {"id": ID, "warnings": []},
            "containers.start": {},
            "containers.exec": {"exec_id": "e", "pid": 7},
        }.items():
            engine.answers[verb] = monitored(script, result, threads)
        engine.answers["containers.wait"] = {"exit_code": 0}
        return engine

    yield arrange
    for thread in threads:
        thread.join()


def swallow(monitor: FakeMonitor) -> None:
    while monitor.receive() is not None:
        pass


# -- pipes -----------------------------------------------------------------------------------------------------------


def test_output_errors_and_status_come_through(scripted):
    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"out\n")
        monitor.send(attach.STDERR, b"err\n")
        monitor.send(attach.STDOUT, b"\x00\xffmore")
        monitor.exit(42)

    done = scripted(script)("run", "x")
    assert (done.code, done.raw_stdout, done.raw_stderr) == (42, b"out\n\x00\xffmore", b"err\n")


def test_warnings_come_before_the_output(scripted, engine):
    threads: list[threading.Thread] = []
    engine.answers["containers.run"] = monitored(
        lambda monitor: monitor.exit(0), {"id": ID, "warnings": ["no swap limit"]}, threads
    )
    assert engine("run", "x").stderr == "WARNING: no swap limit\n"
    threads[0].join()


def test_standard_input_is_carried_to_its_end(scripted):
    data = os.urandom(300_000)

    def script(monitor: FakeMonitor) -> None:
        monitor.receive_stdin(data)
        assert monitor.receive() == (attach.STDIN, b"")
        monitor.send(attach.STDOUT, b"all")
        monitor.exit(0)

    done = scripted(script)("run", "-i", "x", input=data)
    assert (done.code, done.stdout) == (0, "all")


def test_a_signal_passes_a_process_that_does_not_read_its_input(scripted, engine):
    sent: list[int] = []

    def script(monitor: FakeMonitor) -> None:
        monitor.takes = False
        monitor.send(attach.STDOUT, b"ready")
        while (frame := monitor.receive()) is not None:
            if frame[0] == attach.SIGNAL:
                monitor.exit(130)
                return
            sent.append(len(frame[1]))

    scripted(script)
    feed, end = os.pipe()
    client = subprocess.Popen(
        [str(COMMAND), "run", "-i", "x"], env=engine.variables, stdin=feed, stdout=subprocess.PIPE
    )
    os.close(feed)
    try:
        assert client.stdout is not None and client.stdout.read(5) == b"ready"
        os.set_blocking(end, False)
        full_since, deadline = None, time.monotonic() + 20
        while sum(sent) <= attach.WINDOW_BYTES and time.monotonic() < deadline:
            try:
                os.write(end, bytes(65536))
                full_since = None
            except BlockingIOError:
                full_since = full_since or time.monotonic()
                if sum(sent) > attach.WINDOW_BYTES // 2 and time.monotonic() - full_since > 0.5:
                    break  # the client reads no more: the pipe stays full
                time.sleep(0.01)
        client.send_signal(signal.SIGINT)
        assert client.wait(20) == 130
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
        os.close(end)
    assert sum(sent) <= attach.WINDOW_BYTES, "it sent more than a monitor is bound to read"


def test_standard_input_stays_untouched_without_i(scripted):
    def script(monitor: FakeMonitor) -> None:
        monitor.exit(0)
        assert monitor.receive() is None

    assert scripted(script)("run", "x", input=b"not for you").code == 0


def test_an_echo_of_more_than_all_buffers_hold_does_not_lock_up(scripted):
    data = os.urandom(5_000_000)

    def script(monitor: FakeMonitor) -> None:
        got = 0
        while got < len(data):
            frame = monitor.receive()
            assert frame is not None
            got += len(frame[1])
            monitor.send(attach.STDOUT, frame[1])
        monitor.exit(0)

    assert scripted(script)("run", "-i", "x", input=data).raw_stdout == data


def test_only_the_chosen_streams_are_shown(scripted):
    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"out")
        monitor.send(attach.STDERR, b"err")
        monitor.exit(0)

    done = scripted(script)("run", "-a", "stderr", "x")
    assert (done.stdout, done.stderr) == ("", "err")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, 40])
def test_signals_go_to_the_process(scripted, number):
    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"ready\n")
        assert monitor.receive() == (attach.SIGNAL, bytes((number,)))
        monitor.exit(128 + number)

    with scripted(script).popen("run", "x", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(number)
        assert run.wait() == 128 + number


def test_signals_end_the_client_without_sig_proxy(scripted):
    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"ready\n")
        assert monitor.receive() is None, "the signal was forwarded"

    run = scripted(script).popen("run", "--sig-proxy=false", "x", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    with run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait() == 128 + signal.SIGTERM


def test_a_reader_that_stops_delays_no_signal_and_fills_no_memory(scripted):
    def script(monitor: FakeMonitor) -> None:
        flood = b"".join(attach.frame(attach.STDOUT, b"x" * 60_000) for _ in range(100))
        writer = threading.Thread(target=monitor.stream.sendall, args=(flood,))
        writer.start()
        assert monitor.receive() == (attach.SIGNAL, bytes((signal.SIGINT,)))
        assert writer.is_alive(), "the client took 6 MB that nobody reads"
        told.set()
        writer.join()
        monitor.exit(3)

    told = threading.Event()
    read_end, write_end = os.pipe()
    with scripted(script).popen("run", "x", stdout=write_end, stdin=subprocess.DEVNULL) as run:
        os.close(write_end)
        # A pipe holds 65536 bytes (pipe(7)): now the client waits, and may not do so inside write(2).
        while int.from_bytes(fcntl.ioctl(read_end, termios.FIONREAD, bytes(4)), "little") < 61_441:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        assert told.wait(20)
        while os.read(read_end, 65536):
            pass
        assert run.wait() == 3
    os.close(read_end)


def test_a_reader_that_goes_ends_the_client_as_sigpipe_would(scripted):
    def script(monitor: FakeMonitor) -> None:
        try:
            while True:
                monitor.send(attach.STDOUT, b"y\n" * 1000)
        except OSError:
            pass

    with scripted(script).popen("run", "x", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as run:
        assert run.stdout.read(4) == b"y\ny\n"
        run.stdout.close()
        assert run.wait() == 141


def test_closed_standard_descriptors_do_no_harm(scripted):
    def script(monitor: FakeMonitor) -> None:
        assert monitor.receive() == (attach.STDIN, b"")
        monitor.send(attach.STDOUT, b"lost")
        monitor.exit(5)

    engine = scripted(script)
    done = subprocess.run(["sh", "-c", f'"{COMMAND}" run -i x <&- >&- 2>&-'], env=engine.variables, check=False)
    assert done.returncode == 5


def test_the_stream_tells_the_status_although_the_engine_died_before_its_reply(engine):
    def answer(_: dict[str, Any], fds: list[int]) -> object:
        with FakeMonitor(fds[0]) as monitor:
            monitor.send(attach.STDOUT, b"still here\n")
            monitor.exit(9)
        raise HangUp

    engine.answers["containers.run"] = answer
    done = engine("run", "x")
    assert (done.code, done.stdout) == (9, "still here\n")


def test_an_engine_that_died_before_it_started_anything_is_told(engine):
    def answer(_: dict[str, Any], fds: list[int]) -> object:
        os.close(fds[0])
        raise HangUp

    engine.answers["containers.run"] = answer
    done = engine("run", "x")
    assert done.code == 125
    assert done.stderr.startswith("orlop: cannot read the engine's reply: the engine closed the connection\nNext: ")


def test_the_engine_is_asked_when_the_monitor_died(scripted):
    engine = scripted(lambda monitor: monitor.send(attach.STDOUT, b"half"))
    engine.answers["containers.wait"] = {"exit_code": 137}
    done = engine("run", "x")
    assert (done.code, done.stdout) == (137, "half")
    assert engine.calls[-1] == ("containers.wait", {"container": ID, "condition": "exited"})


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x01junk" + b"\xff" * 20,
        b"\x01\0\0\0\xff\xff\xff\xff",
        attach.frame(attach.EXIT, b"[]"),
        attach.frame(attach.EXIT, b'{"exitCode":"0"}'),
        attach.frame(attach.EXIT, b'{"exitCode":true}'),
        attach.frame(attach.EXIT, b"\xff"),
        attach.header(attach.STDOUT, 100) + b"half",
    ],
)
def test_a_monitor_that_talks_nonsense_is_a_dead_one(scripted, garbage):
    engine = scripted(lambda monitor: monitor.stream.sendall(garbage))
    engine.answers["containers.wait"] = {"exit_code": 137}
    assert engine("run", "x").code == 137


def test_auto_removed_is_awaited(scripted):
    engine = scripted(lambda monitor: monitor.exit(0))
    assert engine("run", "--rm", "x").code == 0
    assert engine.calls[-1] == ("containers.wait", {"container": ID, "condition": "removed"})


def test_a_refused_start_is_told_and_has_the_commands_own_status(engine):
    def refuse(_: dict[str, Any], fds: list[int]) -> object:
        os.close(fds[0])
        raise errors.CommandFailed("start", "container web", 'exec: "nosuch": not found', hint="name it", exit_code=127)

    engine.answers["containers.run"] = refuse
    done = engine("run", "x", "nosuch")
    assert done.code == 127
    assert done.stderr == 'orlop: cannot start container web: exec: "nosuch": not found\nNext: name it (E1907)\n'


def test_the_id_file_is_written_at_the_start_and_is_never_shared(scripted, tmp_path):
    file = tmp_path / "id"

    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"ready\n")
        monitor.receive_stdin(b"go\n")
        monitor.exit(0)

    engine = scripted(script)
    run = engine.popen("run", "-i", "--cidfile", str(file), "x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with run:
        assert run.stdout.readline() == b"ready\n"
        assert file.read_text() == ID
        run.stdin.write(b"go\n")
        run.stdin.flush()
        assert run.wait() == 0
    done = engine("run", "--cidfile", str(file), "x")
    assert done.code == 125
    assert "container ID file found" in done.stderr and f"delete {file}" in done.stderr
    engine.answers["containers.create"] = lambda *_: (_ for _ in ()).throw(errors.NotFound("find", "x", "no image x"))
    assert engine("create", "--cidfile", f"{file}2", "x").code == 1
    assert not (tmp_path / "id2").exists()


def test_a_signal_that_comes_before_the_start_is_not_lost(scripted, engine):
    asked, told = threading.Event(), threading.Event()

    def script(monitor: FakeMonitor) -> None:
        assert monitor.receive() == (attach.SIGNAL, bytes((signal.SIGINT,)))
        monitor.exit(3)

    start = scripted(script).answers["containers.run"]

    def late(args: dict[str, Any], fds: list[int]) -> object:
        asked.set()
        assert told.wait(20)
        return start(args, fds)  # type: ignore[operator]

    engine.answers["containers.run"] = late
    with engine.popen("run", "x", stdin=subprocess.DEVNULL) as run:
        assert asked.wait(20)
        run.send_signal(signal.SIGINT)
        told.set()
        assert run.wait(20) == 3


def test_a_start_that_hangs_can_be_given_up(engine):
    asked, over = threading.Event(), threading.Event()

    def hang(_: dict[str, Any], fds: list[int]) -> object:
        os.close(fds[0])
        asked.set()
        assert over.wait(20)
        raise HangUp

    engine.answers["containers.run"] = hang
    with engine.popen("run", "x", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        assert asked.wait(20)
        while run.poll() is None:  # three of them; the kernel merges those that come together
            run.send_signal(signal.SIGINT)
        assert run.returncode == 130
        assert run.stderr.read() == b""
    over.set()


def test_logs_are_copied_to_the_end(engine):
    frames = attach.frame(attach.STDOUT, b"out\n") + attach.frame(attach.STDERR, b"err\n")
    engine.answers["containers.logs"] = Reply(
        {"stream": True}, stream=frames + attach.frame(attach.STDOUT, b"x" * 60_000) + attach.frame(attach.PLACE)
    )
    done = engine("logs", "-f", "-t", "-n", "5", "--since", "10", "--until", "1970-01-01T00:00:20.5Z", "web")
    assert (done.code, done.stdout, done.stderr) == (0, "out\n" + "x" * 60_000, "err\n")
    wanted = {
        "follow": True,
        "timestamps": True,
        "details": False,
        "tail": 5,
        "since_ns": 10 * 10**9,
        "until_ns": 20_500_000_000,
        "marks": True,
        "place": None,
    }
    assert engine.calls == [("containers.logs", {"container": "web", **wanted})]


def test_a_followed_log_that_never_says_its_end_is_not_asked_for_for_ever(engine):
    engine.answers["containers.logs"] = Reply({"stream": True}, stream=b"")
    done = engine("logs", "-f", "web")
    assert done.code == 1 and "cannot follow the log of container web" in done.stderr
    assert len(engine.calls) == 5


def test_logs_that_are_no_frames_are_told(engine):
    engine.answers["containers.logs"] = Reply({"stream": True}, stream=b"\x01garbage!")
    done = engine("logs", "web")
    assert done.code == 1
    assert "cannot read the log of container web" in done.stderr


def test_exec_has_the_status_of_its_process(scripted):
    engine = scripted(lambda monitor: monitor.exit(4))
    assert engine("exec", "web", "false").code == 4
    assert engine.calls[-1][1]["request"] == {"args": ["false"], "endsWithClient": True}


def test_exec_whose_monitor_died_is_an_error(scripted):
    done = scripted(lambda monitor: None)("exec", "web", "false")
    assert done.code == 1
    assert "its monitor is gone" in done.stderr


def test_attach_uses_the_stream_that_the_engine_passes(engine):
    import socket

    ours, theirs = socket.socketpair()
    engine.answers["containers.attach"] = lambda *_: Reply(
        {"terminal": False, "open_stdin": True}, fds=[theirs.detach()]
    )

    def script() -> None:
        with FakeMonitor(ours.detach()) as monitor:
            monitor.receive_stdin(b"typed")
            monitor.send(attach.STDOUT, b"seen")
            monitor.exit(6)

    thread = threading.Thread(target=script)
    thread.start()
    done = engine("attach", "web", input=b"typed")
    thread.join()
    assert (done.code, done.stdout) == (6, "seen")


# -- a terminal ------------------------------------------------------------------------------------------------------


def cooked(fd: int) -> bool:
    return bool(termios.tcgetattr(fd)[3] & termios.ICANON)


def on_terminal(engine: FakeEngine, *words: str, rows: int = 24, columns: int = 80) -> Terminal:
    """Run a shell that shows whether the terminal is as it was after the command."""
    line = " ".join(("stty -g > $T/before;", str(COMMAND), *words, "; c=$?; stty -g > $T/after;"))
    line += " cmp -s $T/before $T/after && echo restored $c"
    variables = engine.variables | {"T": os.path.dirname(engine.paths.run)}
    return Terminal(["/bin/sh", "-c", line], variables, rows=rows, columns=columns)


def test_the_terminal_is_raw_while_it_runs_and_restored_after(scripted):
    def script(monitor: FakeMonitor) -> None:
        assert monitor.receive() == (attach.RESIZE, bytes((0, 33, 0, 101)))
        monitor.send(attach.STDOUT, b"prompt>")
        monitor.receive_stdin(b"a\x03\x1a\r")  # neither a signal nor a line: raw
        monitor.send(attach.STDOUT, b"bye\r\n")
        monitor.exit(3)

    engine = scripted(script)
    with on_terminal(engine, "run", "-it", "x", rows=33, columns=101) as terminal:
        terminal.expect("prompt>")
        assert not cooked(terminal._fd)
        terminal.send(b"a\x03\x1a\r")
        terminal.expect("restored 3")
    assert engine.calls[0][1]["console_size"] == {"height": 33, "width": 101}


def test_a_resized_window_is_told(scripted):
    def script(monitor: FakeMonitor) -> None:
        assert monitor.receive() == (attach.RESIZE, bytes((0, 24, 0, 80)))
        monitor.send(attach.STDOUT, b"ready")
        assert monitor.receive() == (attach.RESIZE, bytes((0, 50, 1, 0)))
        monitor.exit(0)

    with on_terminal(scripted(script), "run", "-it", "x") as terminal:
        terminal.expect("ready")
        terminal.resize(50, 256)
        terminal.expect("restored 0")


def test_the_detach_keys_leave_it_running(scripted):
    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"ready")
        monitor.receive_stdin(b"ls\x10x")
        assert monitor.receive() == (attach.DETACH, b"")
        assert monitor.receive() is None

    with on_terminal(scripted(script), "run", "-it", "--rm", "x") as terminal:
        terminal.expect("ready")
        terminal.send(b"ls\x10x\x10\x11")
        terminal.expect("restored 0")


def test_the_terminal_is_restored_when_a_signal_ends_us(scripted):
    def script(monitor: FakeMonitor) -> None:
        monitor.send(attach.STDOUT, b"ready")
        swallow(monitor)

    with on_terminal(scripted(script), "run", "-it", "--sig-proxy=false", "x") as terminal:
        terminal.expect("ready")
        children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        terminal.expect("restored 143")


def test_the_terminal_is_restored_when_the_monitor_dies(scripted):
    engine = scripted(lambda monitor: monitor.send(attach.STDOUT, b"ready"))
    engine.answers["containers.wait"] = {"exit_code": 137}
    with on_terminal(engine, "run", "-it", "x") as terminal:
        terminal.expect("restored 137")


def test_the_terminal_is_never_touched_when_the_start_is_refused(engine):
    def refuse(_: dict[str, Any], fds: list[int]) -> object:
        os.close(fds[0])
        raise errors.NotFound("find", "image x", "No such image: x")

    engine.answers["containers.run"] = refuse
    with on_terminal(engine, "run", "-it", "--pull", "never", "x") as terminal:
        terminal.expect("orlop: No such image: x\r\n")
        terminal.expect("restored 125")


def test_a_terminal_is_needed_for_one():
    with FakeEngine() as engine:
        done = engine("run", "-it", "x")
    assert (done.code, done.stderr.splitlines()[0]) == (1, "the input device is not a TTY")
    assert engine.calls == []


# -- detach keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "typed", "passed", "found"),
    [
        ("ctrl-p,ctrl-q", b"abc", b"abc", False),
        ("ctrl-p,ctrl-q", b"a\x10\x11z", b"a", True),
        ("ctrl-p,ctrl-q", b"\x10", b"", False),
        ("ctrl-p,ctrl-q", b"\x10x", b"\x10x", False),
        ("ctrl-p,ctrl-q", b"\x10\x10\x11", b"\x10", True),
        ("ctrl-p,ctrl-q", b"\x11\x10", b"\x11", False),
        ("a", b"xay", b"x", True),
        ("ctrl-@,ctrl-_", b"\x00\x1f", b"", True),
    ],
)
def test_detach_keys_are_found_and_nothing_else_is_swallowed(keys, typed, passed, found):
    assert DetachKeys(parse_detach_keys(keys)).feed(typed) == (passed, found)
    one_by_one = DetachKeys(parse_detach_keys(keys))
    out = b""
    for at in range(len(typed)):
        data, done = one_by_one.feed(typed[at : at + 1])
        out += data
        if done:
            break
    assert (out, done) == (passed, found)
