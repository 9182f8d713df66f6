"""Spawner, monitor and container on the real kernel: how a process starts, what its clients see, how it ends."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.linux.cgroup import detect
from orlop.spec import attach as wire
from orlop.spec import errors
from orlop.spec.runtime import Hook, Hooks, Memory, Process, Resources
from orlop.spec.task import SPEC_FILE, STATUS_FILE, LogOptions
from orlop.supervise import client as spawner_client
from support import container, processes
from support.container import make_spec
from support.tasks import CGROUP, Task, Tasks, tasks, wait_for_end, wait_until

PROGRAMS = "sh cat true sleep echo id tty stty head dd wc kill ls readlink env seq".split()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = container.make_root(tmp_path_factory.mktemp("root"), PROGRAMS)
    directory.chmod(0o755)
    (directory / "bin/broken").write_text("#!/no/such/interpreter\n")
    (directory / "bin/broken").chmod(0o755)
    return directory


@pytest.fixture
def box(tmp_path: Path, root: Path) -> Iterator[Tasks]:
    with tasks(tmp_path, root) as made:
        yield made


def shell(script: str) -> tuple[str, str, str]:
    return ("sh", "-c", script)


def cgroups_left() -> list[str]:
    mounts = detect().hierarchies()
    return [f"{mount}{CGROUP}/{name}" for mount in mounts if os.path.isdir(mount + CGROUP) for name in
            os.listdir(mount + CGROUP) if os.path.isdir(f"{mount}{CGROUP}/{name}")]  # fmt: skip


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, 0), ("exit 7", 7, 0), ("kill -9 $$ & wait; exec sleep 100", None, 0), ("exit 255", 255, 0)],
)
def test_an_exit_status_is_recorded(box: Tasks, script: str, code: int | None, number: int) -> None:
    if code is None:
        task = box.start(*shell("exec sleep 100"))
        task.kill()
        code, number = 137, 9
    else:
        task = box.start(*shell(script))
    ended = task.exit()
    assert (ended["exitCode"], ended.get("signal", 0)) == (code, number)
    assert ended["startedAt"] == task.status["startedAt"] < ended["finishedAt"]
    assert not ended.get("error") and not ended.get("oomKilled")


def test_nothing_is_left_of_a_run(box: Tasks) -> None:
    box.start("true").exit()
    wait_until(lambda: processes.spare(box.spawner.pid))
    before = os.listdir(f"/proc/{box.spawner.pid}/fd")
    for _ in range(5):
        task = box.start("true", attached=True, open_stdin=True)
        task.exit()
        assert task.client
        task.client.read()
        assert os.listdir(task.runtime) == []
        assert sorted(os.listdir(task.directory)) == ["config.json", "exit.json", "status.json"]
    wait_until(lambda: processes.spare(box.spawner.pid))
    assert len(os.listdir(f"/proc/{box.spawner.pid}/fd")) == len(before)
    assert cgroups_left() == []
    wait_until(lambda: not processes.monitors(box.spawner.pid))


def test_a_second_run_replaces_the_records_of_the_first(box: Tasks) -> None:
    first = box.start(*shell("echo one; exit 3"))
    assert first.exit()["exitCode"] == 3
    started_at = first.status["startedAt"]
    second = box.request(first.message)
    box.write_spec(first.directory, make_spec(*shell("exit 4")))
    assert second.exit()["exitCode"] == 3
    third = box.request(first.message)
    assert third.exit()["exitCode"] == 4
    assert third.status["startedAt"] != started_at
    assert third.log() == b"one\none\n"


def test_output_without_a_newline_is_logged_at_the_end(box: Tasks) -> None:
    task = box.start(*shell("echo out; echo err >&2; echo -n prompt"))
    task.exit()
    assert sorted(line["log"] for line in map(json.loads, (task.directory / "log.json").read_text().splitlines())) == [
        "err\n",
        "out\n",
        "prompt",
    ]


def test_an_oom_kill_is_recorded(box: Tasks) -> None:
    limit = 16 * 1024 * 1024
    resources = Resources(memory=Memory(limit=limit, swap=limit))
    task = box.start(spec=make_spec(*shell("dd if=/dev/zero of=/dev/null bs=64M count=1"), resources=resources))
    ended = task.exit()
    assert ended["oomKilled"] is True


def test_writers_that_outlive_the_process_end_with_its_cgroup(box: Tasks) -> None:
    spec = make_spec(*shell("sleep 1000 & echo $!; exit 5"), namespaces=_without("pid"))
    task = box.start(spec=spec)
    assert task.exit()["exitCode"] == 5
    sleeper = int(task.log())
    assert not processes.is_alive(sleeper)


def _without(kind: str) -> tuple[object, ...]:
    return tuple(namespace for namespace in make_spec().linux.namespaces if namespace.type != kind)


# -- starts that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "cause"),
    [
        (("no-such-program",), 127, "executable file not found in $PATH"),
        (("/etc",), 126, "is a directory"),
        (("/etc/passwd",), 126, "permission denied"),
        (("broken",), 127, "its interpreter /no/such/interpreter does not exist"),  # found by execve itself
    ],
)
def test_a_command_that_can_not_be_executed(box: Tasks, args: tuple[str, ...], code: int, cause: str) -> None:
    task = box.start(*args, attached=True)
    assert task.error["exitCode"] == code and cause in task.error["cause"]
    assert task.client
    task.client.read()
    assert task.client.ended and task.client.ended["exitCode"] == code
    ended = json.loads((task.directory / "exit.json").read_text())
    assert ended == task.client.ended and cause in ended["error"]
    assert not (task.directory / "status.json").exists()
    assert os.listdir(task.runtime) == [] and cgroups_left() == []


def test_a_failed_start_after_a_good_run_is_not_taken_for_its_past(box: Tasks) -> None:
    first = box.start("true")
    first.exit()
    box.write_spec(first.directory, make_spec("no-such-program"))
    assert box.request(first.message).error["exitCode"] == 127
    assert not (first.directory / "status.json").exists()
    assert json.loads((first.directory / "exit.json").read_text())["exitCode"] == 127


def test_broken_bundles(box: Tasks) -> None:
    task = box.start("true")
    task.exit()
    directory = Path(task.message.directory)
    for content, cause in [
        (None, "No such file"),
        (b"{", "not valid JSON"),
        (b"[]", "expected an object"),
        (b"{}", "ociVersion"),
        (b'{"ociVersion":"1.2.0"}', "has no process"),
        (b" " * (9 * 1024 * 1024), "the limit is"),
    ]:
        (directory / "config.json").unlink(missing_ok=True)
        if content is not None:
            (directory / "config.json").write_bytes(content)
        assert cause in box.request(task.message).error["cause"]
    missing = task.message.replace(rootfs=(task.message.rootfs[0].replace(source="/no/such/directory"),))
    box.write_spec(directory, make_spec("true"))
    assert "/no/such/directory" in box.request(missing).error["cause"]
    nobody = box.request(task.message.replace(user="nosuch"))
    assert nobody.error["cause"] == "unable to find user nosuch: no matching entries in passwd file"
    journal = box.request(task.message.replace(log=LogOptions(driver="splunkk")))
    assert "no log driver 'splunkk'" in journal.error["cause"]


def test_nobody_finds_a_status_before_the_root_is_entered(box: Tasks, tmp_path: Path) -> None:
    told = tmp_path / "told"
    seen = r"""sed 's/.*"bundle":"\([^"]*\)".*/\1/' | xargs ls"""
    hook = Hook(path="/bin/sh", args=("sh", "-c", f"{seen} > {told} 2>&1"))
    task = box.start(spec=make_spec("true").replace(hooks=Hooks(create_runtime=(hook,))))
    task.exit()
    found = told.read_text().split()
    assert SPEC_FILE in found
    assert STATUS_FILE not in found  # who finds one may enter the process, which has the host's files before its eyes


def test_a_killed_launcher_leaves_nothing(box: Tasks, tmp_path: Path) -> None:
    told = tmp_path / "told"
    hook = Hook(path="/bin/sh", args=("sh", "-c", f"echo $PPID > {told}.new; mv {told}.new {told}; exec sleep 1000"))
    spec = make_spec("true").replace(hooks=Hooks(create_runtime=(hook,)))
    children = []

    def kill() -> None:
        wait_until(told.exists)
        launcher = int(told.read_text())
        assert "orlop: launcher" in processes.title(launcher)
        children.extend(pid for pid in processes.pids() if processes.parent(pid) == launcher)
        os.kill(launcher, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(errors.Unavailable, match="died before it answered"):
        box.start(spec=spec)
    thread.join()
    wait_until(lambda: any(processes.title(pid) == "sleep 1000" for pid in children))
    (sleeping,) = [pid for pid in children if processes.title(pid) == "sleep 1000"]
    os.kill(sleeping, signal.SIGKILL)
    wait_until(lambda: not any(processes.is_alive(pid) for pid in children))
    assert len(children) == 2
    wait_until(lambda: not processes.monitors(box.spawner.pid))
    assert box.start("true").exit()["exitCode"] == 0
    assert cgroups_left() == []


# -- clients ----------------------------------------------------------------------------------------------------------


def test_a_client_gives_input_and_gets_output_and_the_end(box: Tasks) -> None:
    task = box.start(*shell("cat; echo done >&2; exit 3"), attached=True, open_stdin=True, stdin_once=True)
    client = task.client
    assert client
    client.send(wire.STDIN, b"hello\n")
    client.read(b"hello\n")
    client.send(wire.STDIN)
    assert client.read() == b"hello\n"
    assert client.output[wire.STDERR] == b"done\n"
    assert client.ended == task.exit() and client.ended["exitCode"] == 3
    assert client.taken == 6


def test_input_ends_when_its_first_client_goes(box: Tasks) -> None:
    task = box.start("wc", "-c", attached=True, open_stdin=True, stdin_once=True)
    assert task.client
    task.client.send(wire.STDIN, b"x" * 5000)
    task.client.close()
    assert task.exit()["exitCode"] == 0
    assert task.log().split() == [b"5000"]


def test_input_stays_open_for_the_next_client_without_stdin_once(box: Tasks) -> None:
    task = box.start("cat", open_stdin=True)
    for text in (b"one\n", b"two\n"):
        client = task.attach()
        client.send(wire.STDIN, text)
        client.read(text)
        client.send(wire.STDIN)
        client.close()
    assert task.log() == b"one\ntwo\n"


def test_without_open_stdin_input_goes_nowhere(box: Tasks) -> None:
    task = box.start(*shell("readlink /proc/self/fd/0; cat; sleep 1000"), attached=True)
    assert task.client
    task.client.send(wire.STDIN, b"x" * 100)
    task.client.wait_for_taken(100)
    assert task.client.read(b"/dev/null\n") == b"/dev/null\n"


def test_twenty_clients_see_the_same_and_each_gets_the_end(box: Tasks) -> None:
    task = box.start(*shell("read go; seq 1 20000"), open_stdin=True)
    clients = [task.attach() for _ in range(20)]
    for client in clients:
        client.send(wire.RESIZE, b"\0\1\0\1")  # no terminal: without effect
    clients[7].send(wire.STDIN, b"go\n")
    expected = b"".join(b"%d\n" % number for number in range(1, 20001))
    for client in clients:
        assert client.read() == expected
        assert client.ended and client.ended["exitCode"] == 0
        client.close()
    assert task.log() == expected


def test_the_process_outlives_its_clients(box: Tasks) -> None:
    task = box.start(*shell("echo 1; read x; echo $x"), attached=True, open_stdin=True)
    assert task.client
    task.client.read(b"1\n")
    task.client.close()
    client = task.attach()
    client.send(wire.STDIN, b"still here\n")
    assert client.read() == b"still here\n"


def test_signals_reach_the_process(box: Tasks) -> None:
    task = box.start(*shell("trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.01; done"), attached=True)
    assert task.client
    task.client.read(b"ready")
    task.client.send(wire.SIGNAL, bytes((signal.SIGUSR1,)))
    task.client.read()
    assert task.client.ended and task.client.ended["exitCode"] == 9


def test_a_client_that_does_not_read_stops_its_container_and_no_other(box: Tasks) -> None:
    slow = box.start(*shell("seq 1 2000000; exit 1"), attached=True, log=LogOptions(max_size_bytes=0))
    assert slow.client
    other = box.start(*shell("seq 1 200000"))
    assert other.exit()["exitCode"] == 0
    assert other.log().endswith(b"\n200000\n")
    size = _stable_size(slow.directory / "log.json")
    assert size < 20 * 1024 * 1024
    slow.client.close()
    assert slow.exit()["exitCode"] == 1
    assert slow.log().endswith(b"\n2000000\n")


def test_what_a_killed_process_left_in_its_pipe_is_logged(box: Tasks) -> None:
    task = box.start(*shell("exec seq 1 100000000"), attached=True, log=LogOptions(max_size_bytes=0))
    size = _stable_size(task.directory / "log.json")
    task.kill()
    task.exit()
    # The client never read, so the process stood still, and its pipe was full.
    assert (task.directory / "log.json").stat().st_size > size + 64 * 1024


def _stable_size(path: Path) -> int:
    sizes = [-1]

    def stable() -> bool:
        sizes.append(path.stat().st_size if path.exists() else 0)
        return len(sizes) > 20 and sizes[-1] > 0 and len(set(sizes[-20:])) == 1

    wait_until(stable)
    return sizes[-1]


def test_a_slow_reader_gets_everything_after_the_monitor_has_gone(box: Tasks) -> None:
    task = box.start(*shell("head -c 900000 /dev/zero"), attached=True, log=LogOptions(driver="none"))
    assert task.exit()["exitCode"] == 0
    assert not (task.directory / "log.json").exists()
    assert task.client
    assert len(task.client.read()) == 900_000
    assert task.client.ended and task.client.ended["exitCode"] == 0


def test_a_frame_of_no_client_ends_its_connection_only(box: Tasks) -> None:
    task = box.start(*shell("read x; echo $x"), open_stdin=True)
    for hostile in (b"GET / HTTP/1.1\r\n\r\n", wire.frame(99), b"\0\0\0\0\xff\xff\xff\xff" + b"x" * 1000):
        client = task.attach()
        client.sock.sendall(hostile)
        client.read()
        client.close()
    client = task.attach()
    client.send(wire.STDIN, b"fine\n")
    assert client.read() == b"fine\n"


# -- terminals --------------------------------------------------------------------------------------------------------


def test_a_terminal(box: Tasks) -> None:
    from orlop.spec.runtime import Box

    # Process 1 gets no signal that it has no handler for (pid_namespaces(7)).
    script = "trap 'stty size' WINCH; trap 'exit 5' INT; tty; stty size; until read x; do :; done; echo $x; read x"
    spec = make_spec(*shell(script), terminal=True)
    task = box.start(spec=spec, attached=True, open_stdin=True, stdin_once=True, console_size=Box(height=11, width=22))
    client = task.client
    assert client
    client.read(b"/dev/pts/0\r\n11 22\r\n")
    client.send(wire.RESIZE, struct.pack(">HH", 33, 44))
    client.read(b"33 44\r\n")
    client.send(wire.STDIN, b"typed\n")
    client.read(b"typed\r\ntyped\r\n")
    client.send(wire.STDIN)  # a terminal's input does not end
    client.send(wire.STDIN, b"\x03")
    client.read()
    assert client.ended and client.ended["exitCode"] == 5
    assert b"33 44\r\n" in task.log()


def test_a_detached_terminal_reads_nothing_and_is_logged(box: Tasks) -> None:
    task = box.start(spec=make_spec(*shell("echo on a terminal; exit 4"), terminal=True))
    assert task.exit()["exitCode"] == 4
    assert task.log() == b"on a terminal\r\n"


# -- users ------------------------------------------------------------------------------------------------------------


def test_a_user_by_name_may_open_its_streams(box: Tasks) -> None:
    task = box.start(*shell("id -u; id -G; echo $HOME; echo to stderr > /dev/stderr"), user="ann")
    assert task.exit()["exitCode"] == 0
    assert sorted(task.log().split(b"\n")) == sorted([b"1000", b"1000 10", b"/home/ann", b"to stderr", b""])


def test_only_three_descriptors_and_no_signal_disposition_of_ours(box: Tasks) -> None:
    task = box.start(
        *shell("ls /proc/self/fd; while read -r l; do case $l in Sig[BI]*) echo $l;; esac; done </proc/self/status")
    )
    task.exit()
    assert task.log() == b"0\n1\n2\n3\nSigBlk: 0000000000000000\nSigIgn: 0000000000000000\n"  # 3: ls reads it


# -- exec -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper(box: Tasks) -> Task:
    return box.start("sleep", "1000")


def test_an_exec_has_its_own_streams_and_end(box: Tasks, sleeper: Task) -> None:
    task = box.exec(sleeper, *shell("echo $$; cat; echo err >&2; exit 6"), open_stdin=True)
    assert task.client
    task.client.send(wire.STDIN, b"in\n")
    task.client.send(wire.STDIN)
    out = task.client.read()
    assert out.endswith(b"\nin\n") and int(out.split()[0]) > 1
    assert task.client.ended == task.exit() and task.client.ended["exitCode"] == 6
    assert not (task.directory / "log.json").exists() and not task.runtime.exists()
    assert processes.is_alive(sleeper.started.pid) and sleeper.log() == b""


def test_an_exec_as_a_user_on_a_terminal(box: Tasks, sleeper: Task) -> None:
    process = Process(cwd="/tmp", args=shell("id -u; tty; pwd"), env=container.ENVIRONMENT, terminal=True)
    task = box.exec(sleeper, process=process, user="1000:10")
    assert task.client
    assert task.client.read() == b"1000\r\n/dev/pts/0\r\n/tmp\r\n"


@pytest.mark.parametrize("program", ["no-such-program", "broken"])
def test_an_exec_of_what_is_not_there(box: Tasks, sleeper: Task, program: str) -> None:
    task = box.exec(sleeper, program)
    assert task.error["exitCode"] == 127
    assert task.client
    task.client.read()
    assert task.client.ended and task.client.ended["exitCode"] == 127
    assert not task.runtime.exists()


def test_an_exec_ends_with_its_container(box: Tasks, sleeper: Task) -> None:
    task = box.exec(sleeper, "sleep", "1000")
    sleeper.kill()
    assert task.exit()["exitCode"] == 137
    assert sleeper.exit()["exitCode"] == 137
    late = box.exec(sleeper, "true")
    assert late.error["kind"] == "conflict" and late.error["cause"] == "it is not running"


def test_an_exec_does_not_wait_for_what_it_left_running(box: Tasks, sleeper: Task) -> None:
    task = box.exec(sleeper, *shell("sleep 1000 & echo left"))
    assert task.exit()["exitCode"] == 0
    assert task.client
    assert task.client.read() == b"left\n"


def test_much_output_of_an_exec_needs_little_memory(box: Tasks, sleeper: Task) -> None:
    task = box.exec(sleeper, *shell("head -c 200000000 /dev/zero; read x"), open_stdin=True)
    client = task.client
    assert client
    seen = 0
    while seen < 200_000_000:
        seen += len(client.sock.recv(1 << 20))
    peak = [line for line in Path(f"/proc/{task.monitor}/status").read_text().splitlines() if "VmHWM" in line]
    assert int(peak[0].split()[1]) < 30 * 1024
    client.send(wire.STDIN)


# -- the monitor itself -----------------------------------------------------------------------------------------------


def test_an_idle_monitor_is_small_and_never_wakes_up(box: Tasks) -> None:
    task = box.start(*shell("echo ready; exec sleep 1000"))
    wait_until(lambda: task.log() == b"ready\n")
    pid = task.monitor
    assert processes.title(pid) == f"orlop: monitor {task.message.id[:12]}"
    rollup = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    assert int(rollup["Private_Dirty:"]) < 1536  # KiB: how the heap lies moves it by a hundred
    names = sorted(os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))
    assert names.count("/dev/null") == 3 and names.count("socket") == 1 and names.count("pipe") == 2
    assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/"
    # The last thing that wakes it is its launcher's end.
    wait_until(lambda: len(_children(pid)) == 1 and processes.read(pid, "stat").rpartition(b")")[2].split()[0] == b"S")
    before = _switches(pid)
    box.start("true").exit()
    assert _switches(pid) == before


def _children(pid: int) -> list[int]:
    return [one for one in processes.pids() if processes.parent(one) == pid]


def _switches(pid: int) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "voluntary_ctxt" in line]


def test_signals_do_not_end_a_monitor(box: Tasks) -> None:
    task = box.start(*shell("read x; exit 8"), open_stdin=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGQUIT):
        os.kill(task.monitor, number)
    client = task.attach()
    client.send(wire.STDIN, b"\n")
    client.read()
    assert task.exit()["exitCode"] == 8


def test_a_full_disk_loses_log_lines_but_not_the_end(box: Tasks, tmp_path: Path) -> None:
    from orlop.linux import mount

    container_id, directory, _ = box.bundle(make_spec("true"))
    mount.mount("none", str(directory), "tmpfs", 0, "size=256k")
    try:
        box.write_spec(directory, make_spec(*shell("seq 1 100000; exit 7")))
        task = box.start("true")
        task.exit()
        full = box.request(task.message.replace(id=container_id, directory=str(directory)))
        assert full.exit()["exitCode"] == 7
        assert full.log().startswith(b"1\n2\n3\n")
        assert (directory / "log.json").read_bytes().endswith(b"}\n")
    finally:
        mount.umount2(str(directory), mount.MNT_DETACH)


# -- deaths -----------------------------------------------------------------------------------------------------------

NUMBERED = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; exit 9"
LINES = b"".join(b"line %d\n" % number for number in range(30_000))


def test_a_killed_spawner_costs_nothing_and_is_replaced(box: Tasks) -> None:
    task = box.start(*shell(NUMBERED), log=LogOptions(max_size_bytes=0))
    for _ in range(3):
        spawner = box.spawner.pid
        os.kill(spawner, signal.SIGKILL)
        box.start("true").exit()
        assert box.spawner.pid != spawner
    assert task.exit()["exitCode"] == 9
    assert task.log() == LINES


def test_a_killed_engine_takes_its_spawner_along_and_nothing_else(box: Tasks, tmp_path: Path) -> None:
    container_id, directory, runtime = box.bundle(make_spec(*shell(NUMBERED)))
    message = box.start("true").message.replace(
        id=container_id, directory=str(directory), runtime_directory=str(runtime), log=LogOptions(max_size_bytes=0)
    )
    engine = os.fork()
    if engine == 0:
        try:
            from orlop.supervise import Spawner

            spawner = Spawner()
            started = spawner.request(message)
            (tmp_path / "spawner.new").write_text(f"{spawner.pid} {processes.start_time(spawner.pid)} {started.pid}")
            os.rename(tmp_path / "spawner.new", tmp_path / "spawner")
            signal.pause()
        finally:
            os._exit(1)
    wait_until((tmp_path / "spawner").exists)
    spawner_pid, spawner_start, pid = map(int, (tmp_path / "spawner").read_text().split())
    os.kill(engine, signal.SIGKILL)
    os.waitpid(engine, 0)
    wait_for_end(spawner_pid, spawner_start)
    from orlop.spec.task import Started

    task = Task(message, Started(pid=pid), None)
    assert task.exit()["exitCode"] == 9
    assert task.log() == LINES


# -- nothing late -----------------------------------------------------------------------------------------------------

LATE = """
import mmap, os, sys
sys.path.insert(0, sys.argv[2])
from orlop.supervise import spawner
_fd = os.open({path!r}, os.O_RDWR)
_page, _spawner = mmap.mmap(_fd, 65536), os.getpid()
def _note(event, args):
    if event == "import" and os.getpid() != _spawner:
        _page.write(args[0].encode() + b" ")
sys.addaudithook(_note)
spawner.main(int(sys.argv[1]))
"""


def test_nothing_is_imported_after_the_fork(box: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "imports"
    noted.write_bytes(bytes(65536))
    monkeypatch.setattr(spawner_client, "_BOOTSTRAP", LATE.format(path=str(noted)))
    spec = make_spec(*shell("echo out; exit 3"), terminal=True, resources=Resources(memory=Memory(limit=1 << 27)))
    terminal = box.start(spec=spec, attached=True, open_stdin=True, user="ann")
    terminal.exit()
    piped = box.start(*shell("read x; echo \u00fc; exit 2"), attached=True, open_stdin=True, stdin_once=True)
    execs = [box.exec(piped, *shell("exit 4")), box.exec(piped, "no-such-program")]
    assert execs[0].exit()["exitCode"] == 4
    assert piped.client
    piped.client.send(wire.STDIN)
    piped.exit()
    box.start("no-such-program")
    box.start("true", user="nosuch")
    wait_until(lambda: not processes.monitors(box.spawner.pid))
    assert noted.read_bytes().rstrip(b"\0").split() == []
