"""The spawner and its client: hostile messages are answered or ignored and kill nobody; a dead spawner is replaced."""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

from orlop.spec import errors, jsonio
from orlop.spec.runtime import Process
from orlop.spec.task import MESSAGE_BYTES_MAX, Start, Started, StartExec, StartTask
from orlop.supervise import Spawner, client, packet
from support import processes
from support.tasks import wait_until

ID = "ab" * 32


def message(**changes):
    fields = {"id": ID, "directory": "/no/such", "runtime_directory": "/no/such", "rootfs": ()} | changes
    return StartTask(**fields)


@pytest.fixture
def spawner():
    made = Spawner()
    yield made
    made.close()


class Raw:
    """A spawner process, spoken to without its client."""

    def __init__(self):
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-I", "-S", "-c", client._BOOTSTRAP, str(theirs.fileno()), client._PACKAGE_PARENT]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        theirs.close()

    def ask(self, data, *fds):
        """Send a message with a reply socket in front of fds; return the answer, None for none."""
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with reply:
            with theirs:
                socket.send_fds(self.ours, [data], [theirs.fileno(), *fds])
            reply.settimeout(20)
            answer = reply.recv(1 << 20)
        return jsonio.parse_object(answer, "answer") if answer else None

    def close(self):
        self.ours.close()
        assert self.process.wait(20) == 0


@pytest.fixture
def raw():
    with contextlib.closing(Raw()) as made:
        yield made


GOOD = jsonio.dump(Start(task=message()).to_json())
EXEC = StartExec(
    id=ID,
    exec_id="cd",
    directory="/tmp",
    runtime_directory="/tmp",
    pid=1,
    pid_start_time=0,
    process=Process(cwd="/", args=("true",)),
)


def start(**changes):
    return jsonio.dump({"task": message().to_json() | changes})


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\0", "not valid JSON"),
        (b"not json", "not valid JSON"),
        (b"\xff\xfe", "can't decode"),
        (b"[]", "not a JSON object"),
        (b"{}", "exactly one of task and exec"),
        (b'{"task":null}', "exactly one of task and exec"),
        (b'{"run":{}}', "there is no such field"),
        (b'{"task":{}}', "task.id: it is required"),
        (b'{"task":1}', "expected an object"),
        (b'{"task":{},"task":{}}', "stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (jsonio.dump({"task": message().to_json(), "exec": EXEC.to_json()}), "exactly one"),
        (start(id=7), "task.id: expected a string"),
        (start(id=""), "is not an id"),
        (start(id="../../etc"), "is not an id"),
        (start(id="ab" * 33), "is not an id"),
        (start(id="x\0y"), "NUL"),
        (start(openStdin="yes"), "expected a boolean"),
        (start(log={"maxFiles": 1 << 70}), "does not fit into 64 bits"),
        (start(attached=True), "1 files came with it, 2 are wanted"),
        (start(directory="/etc/passwd"), "Not a directory"),
        (GOOD, "No such file or directory (/no/such)"),
        (jsonio.dump({"exec": EXEC.to_json() | {"execId": "../x"}}), "is not an id"),
        (jsonio.dump({"exec": EXEC.to_json() | {"pid": -5, "directory": "/no"}}), "No such file"),
        (b'{"task":"' + b"x" * (MESSAGE_BYTES_MAX + 10), "it has more than"),
    ],
    ids=range(25),
)
def test_a_message_that_can_not_be_followed_is_answered(raw, data, cause):
    raw.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    answer = raw.ask(data)
    assert cause in answer["error"]["cause"]
    assert "No such file or directory (/no/such)" in raw.ask(GOOD)["error"]["cause"]


def test_messages_without_a_way_to_answer_are_ignored(raw):
    raw.ours.send(GOOD)
    raw.ours.send(b"")
    with open("/dev/null") as null:
        socket.send_fds(raw.ours, [GOOD], [null.fileno()])
        socket.send_fds(raw.ours, [b""], [null.fileno()])
    assert raw.ask(GOOD)["error"]


@pytest.mark.parametrize("count", [1, 2, 200])
def test_descriptors_that_nobody_asked_for_are_refused_and_closed(raw, count):
    assert raw.ask(GOOD)
    wait_until(lambda: processes.spare(raw.process.pid))
    before = len(os.listdir(f"/proc/{raw.process.pid}/fd"))
    ends = [os.pipe() for _ in range(count)]
    answer = raw.ask(GOOD, *(write for _, write in ends))
    assert f"{count + 1} files came with it" in answer["error"]["cause"] or "too many files" in answer["error"]["cause"]
    for read, write in ends:
        os.close(write)
        assert select.select([read], [], [], 20)[0], "the spawner holds a descriptor that it was sent"
        os.close(read)
    wait_until(lambda: processes.spare(raw.process.pid))
    # While it readies a spare monitor it has one more of its own: before or after.
    wait_until(lambda: len(os.listdir(f"/proc/{raw.process.pid}/fd")) <= before)


def test_a_client_that_is_no_socket_is_refused(raw, tmp_path):
    with open("/dev/null") as null:
        data = start(attached=True, directory=str(tmp_path), runtimeDirectory=str(tmp_path))
        assert "non-socket" in raw.ask(data, null.fileno())["error"]["cause"]
    assert os.listdir(tmp_path) == []


def test_it_ends_with_the_engine_and_leaves_no_children(raw):
    for _ in range(5):
        raw.ask(GOOD)
    wait_until(lambda: not processes.monitors(raw.process.pid))


def test_it_is_warm_and_small(raw):
    raw.ask(GOOD)
    wait_until(lambda: processes.spare(raw.process.pid))
    assert processes.title(raw.process.pid) == "orlop: spawner"
    status = processes.read(raw.process.pid, "status").decode()
    assert "Threads:\t1\n" in status
    names = [os.readlink(f"/proc/{raw.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{raw.process.pid}/fd")]
    assert len(names) == 5  # standard input, output and error, the engine, the spare monitor


def test_a_spare_monitor_takes_the_next_message_and_another_one_follows(raw):
    wait_until(lambda: processes.spare(raw.process.pid))
    first = processes.spare(raw.process.pid)
    assert processes.namespace(first, "pid")
    pidfd = os.pidfd_open(first)
    assert "No such file" in raw.ask(GOOD)["error"]["cause"]
    assert select.select([pidfd], [], [], 20)[0], "the message was not for the spare one"
    os.close(pidfd)
    wait_until(lambda: processes.spare(raw.process.pid) not in (0, first))


@pytest.mark.parametrize("victim", ["monitor", "launcher", "both"])
def test_a_killed_spare_monitor_is_not_missed(raw, victim):
    wait_until(lambda: processes.spare(raw.process.pid))
    monitor = processes.spare(raw.process.pid)

    def launchers():
        return [pid for pid in processes.pids() if processes.parent(pid) == monitor and processes.is_alive(pid)]

    wait_until(launchers)
    (launcher,) = launchers()
    killed = [pid for pid, role in ((launcher, "launcher"), (monitor, "monitor")) if victim in (role, "both")]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(processes.is_alive(pid) for pid in killed))
    for _ in range(3):
        assert "No such file" in raw.ask(GOOD)["error"]["cause"]
    wait_until(lambda: not processes.is_alive(launcher) and not processes.monitors(raw.process.pid))


def test_spare_ones_end_with_the_spawner():
    raw = Raw()
    wait_until(lambda: processes.spare(raw.process.pid))
    monitor = processes.spare(raw.process.pid)
    pidfd = os.pidfd_open(monitor)
    os.kill(raw.process.pid, signal.SIGKILL)
    raw.ours.close()
    raw.process.wait(20)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    wait_until(lambda: not [pid for pid in processes.pids() if processes.parent(pid) == monitor])


def test_in_a_burst_everybody_is_answered(raw):
    def ask(answers):
        answers.append(raw.ask(GOOD)["error"]["cause"])

    answers = []
    threads = [threading.Thread(target=ask, args=(answers,)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40 and all("No such file" in answer for answer in answers)


# -- the client -------------------------------------------------------------------------------------------------------


def test_errors_come_back_with_their_kind(spawner):
    started = spawner.request(message())
    assert isinstance(started, Started) and started.pid == 0
    assert isinstance(errors.from_json(started.error), errors.Unavailable)


def test_what_does_not_fit_is_not_sent(spawner):
    with pytest.raises(errors.Invalid, match="the limit is"):
        spawner.request(message(user="x" * MESSAGE_BYTES_MAX))
    with pytest.raises(errors.Invalid, match="do not fit"):
        spawner.request(message(attached=True))
    assert spawner.pid == 0


def test_the_largest_message_passes(spawner):
    room = MESSAGE_BYTES_MAX - len(jsonio.dump(Start(task=message(user="x")).to_json()))
    assert spawner.request(message(user="x" * (room + 1))).error


def test_a_killed_spawner_is_replaced_and_reaped(spawner):
    spawner.request(message())
    first = spawner.pid
    os.kill(first, signal.SIGKILL)
    assert spawner.request(message()).error
    assert spawner.pid not in (0, first)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_stopped_spawner_is_told(spawner, monkeypatch):
    monkeypatch.setattr(client, "SEND_S_MAX", 0.05)
    monkeypatch.setattr(client, "START_S_MAX", 0.05)
    spawner.start()
    os.kill(spawner.pid, signal.SIGSTOP)
    try:
        with pytest.raises(errors.Unavailable, match="has not answered"):
            spawner.request(message())
        with pytest.raises(errors.Unavailable, match=r"takes no message|has not answered"):
            for _ in range(100):
                with contextlib.suppress(errors.Unavailable):
                    spawner.request(message(user="x" * 100_000))
            spawner.request(message(user="x" * 100_000))
    finally:
        os.kill(spawner.pid, signal.SIGCONT)


def test_an_interpreter_that_is_not_there():
    with pytest.raises(errors.Unavailable, match="/no/python"):
        Spawner("/no/python").start()


def test_an_interpreter_that_ends_at_once():
    broken = Spawner("/bin/false")
    with pytest.raises(errors.Unavailable, match=r"does not stay alive|died before"):
        broken.request(message())
    broken.close()


def test_any_thread_may_ask(spawner):
    causes = []

    def ask(number):
        for turn in range(5):
            path = f"/no/{number}/{turn}"
            causes.append((path, spawner.request(message(directory=path)).error["cause"]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(causes) == 40
    assert all(path in cause for path, cause in causes)


def test_close_is_idempotent_and_leaves_no_zombie(spawner):
    spawner.start()
    pid = spawner.pid
    spawner.close()
    spawner.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert spawner.request(message()).error


def test_a_replaced_spawner_has_what_the_first_had(monkeypatch):
    """Not the engine's whole environment, and not the descriptors that the engine has given itself since."""
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "1")
    monkeypatch.setenv("ORLOP_RUN", "/nowhere")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, hard - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    made = client.Spawner()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        made.start()
        os.kill(made.pid, signal.SIGKILL)
        assert made.request(message()).error
        known = processes.environment(made.pid)
        assert "SECRET_OF_THE_CALLER" not in known and known["ORLOP_RUN"] == "/nowhere"
        assert resource.prlimit(made.pid, resource.RLIMIT_NOFILE)[0] == lower
    finally:
        made.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- packets ----------------------------------------------------------------------------------------------------------


def test_a_cut_packet_says_so():
    ours, theirs = packet.pair()
    packet.send(ours, b"12345")
    got = packet.receive(theirs, 4, 1)
    assert (got.data, got.is_cut) == (b"1234", True)
    read, write = os.pipe()
    packet.send(ours, b"1", [read, read, write, write])
    got = packet.receive(theirs, 4, 1)
    assert got.is_cut and len(got.fds) <= 2
    for fd in (*got.fds, read, write):
        os.close(fd)
    ours.close()
    assert packet.receive(theirs, 4, 1).data == b""
    theirs.close()
