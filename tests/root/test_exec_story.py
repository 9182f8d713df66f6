"""exec and attach through the real command and kernel: lists, kills, clients that die, many clients, endless output."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from orlop.linux.cgroup import Cgroup, Layout, detect
from support import processes

OUTPUT_BYTES = int(os.environ.get("ORLOP_TEST_EXEC_OUTPUT_BYTES", str(100 * 1024**2)))
LOOK_BYTES = 8 * 1024**2
CLIENTS = 20


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.fixture
def web(orlop):
    orlop("run", "-d", "--name", "web", "host", "sleep", "1000")
    return orlop


def execs(orlop):
    """Return the ids of the execs that run."""
    return [line.split()[0] for line in orlop("exec", "ls", "web").stdout.splitlines()[1:]]


def commands_in(orlop, container="web"):
    """Return the command lines of the container's processes, as the host sees them."""
    lines = orlop("top", container, "-o", "pid,args").stdout.splitlines()[1:]
    return [line.split(None, 1)[1] for line in lines]


def leaves(orlop):
    identity = orlop("inspect", "-f", "{{.Id}}", "web").stdout.strip()
    return list(Path("/sys/fs/cgroup").glob(f"*/orlop/{identity}/exec-*"))


# -- lists and kills ------------------------------------------------------------------------------------------------


def test_execs_are_listed_inspected_and_killed_as_a_whole(web):
    web("exec", "-d", "web", "sh", "-c", "sleep 901 & exec sleep 902")
    until(lambda: len(commands_in(web)) == 3)
    (exec_id,) = execs(web)
    (whole,) = json.loads(web("inspect", "web").stdout)[0]["ExecIDs"]
    assert whole.startswith(exec_id) and len(leaves(web)) == 1
    assert web("exec", "kill", exec_id).stdout == f"{exec_id}\n"
    until(lambda: commands_in(web) == ["sleep 1000"])
    until(lambda: execs(web) == [] and not leaves(web))
    web("exec", "web", "sh", "-c", "sleep 0.5 </dev/null >/dev/null 2>&1 & exit")
    until(lambda: commands_in(web) == ["sleep 1000"] and not leaves(web))
    gone = web("exec", "kill", exec_id, check=False)
    assert gone.code == 1 and "it is not running" in gone.stderr
    assert "No such exec instance: fff" in web("exec", "kill", "fff", check=False).stderr


def test_an_exec_has_the_limits_of_its_container(orlop):
    """As docker's: not those that the engine happens to have."""
    orlop("run", "-d", "--name", "few", "--ulimit", "nofile=100:200", "--ulimit", "core=0", "host", "sleep", "1000")
    assert orlop("exec", "few", "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c").stdout.split() == ["100", "200", "0"]


def test_what_an_exec_leaves_in_the_background_stays(web):
    web("exec", "web", "sh", "-c", "sleep 903 > /dev/null 2>&1 < /dev/null &")
    assert "sleep 903" in commands_in(web), "a daemon that was started so outlives its exec"
    assert execs(web) == []
    web("rm", "-f", "web")


def test_a_container_called_ls_comes_first(orlop):
    orlop("run", "-d", "--name", "ls", "host", "sleep", "1000")
    assert orlop("exec", "ls", "echo", "inside").stdout == "inside\n"


@pytest.mark.parametrize("options", [(), ("-i",)], ids=["plain", "interactive"])
def test_an_exec_ends_with_the_client_that_died(web, options):
    script = "sleep 904 & trap '' TERM HUP PIPE; sleep 905"
    client = web.popen("exec", *options, "web", "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    until(lambda: {"sleep 904", "sleep 905"} <= set(commands_in(web)))
    for pid in (client.pid, *(pid for pid in processes.pids() if client.pid in processes.ancestors(pid))):
        processes.kill(pid, processes.start_time(pid))
    client.communicate()
    until(lambda: commands_in(web) == ["sleep 1000"])
    until(lambda: not leaves(web))


def test_a_detached_exec_outlives_everybody(web):
    web("exec", "-d", "web", "sleep", "906")
    until(lambda: "sleep 906" in commands_in(web))
    pid = web.engine_pid()
    processes.kill(pid, processes.start_time(pid), signal.SIGKILL)
    assert len(execs(web)) == 1 and "sleep 906" in commands_in(web), "the next engine lists it"


def test_detach_keys_let_an_exec_go_on(web, terminal):
    session = terminal("exec", "-it", "web", "sh", "-c", "echo ready; sleep 907")
    session.expect("ready")
    session.send(b"\x10\x11")
    session.wait()
    assert "sleep 907" in commands_in(web)


def test_exec_into_a_paused_container_is_refused_at_once(web):
    web("pause", "web")
    refused = web("exec", "web", "true", check=False, timeout=20)
    assert refused.code == 1 and "is paused, unpause the container before exec" in refused.stderr
    web("unpause", "web")


def test_the_flags_of_exec(web, tmp_path):
    (tmp_path / "env").write_text("FROM=file\n# comment\nBOTH=file\n")
    words = ("-e", "BOTH=flag", "--env-file", tmp_path / "env", "-w", "/tmp", "-u", "7:8")
    shown = web("exec", *words, "web", "sh", "-c", "echo $FROM $BOTH $(pwd) $(id -u):$(id -g)").stdout
    assert shown == "file flag /tmp 7:8\n"
    assert web("exec", "web", "sh", "-c", "exit 9", check=False).code == 9
    assert web("exec", "web", "nosuch", check=False).code == 127
    caps = web("exec", "--privileged", "web", "grep", "CapEff", "/proc/self/status").stdout.split()[1]
    assert int(caps, 16) & 1 << 21, "CAP_SYS_ADMIN"


# -- output without end ---------------------------------------------------------------------------------------------


def rss_kib(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended since it was found
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    return 0


@pytest.mark.timeout(300 + OUTPUT_BYTES // 10**7)
def test_endless_output_costs_no_memory(web):
    """SEC-73; the whole 10 GB with ORLOP_TEST_EXEC_OUTPUT_BYTES."""
    before = {pid: rss_kib(pid) for pid in web.processes()}
    client = web.popen("exec", "web", "head", "-c", str(OUTPUT_BYTES), "/dev/zero", stdout=subprocess.PIPE)
    got, looked, highest = 0, 0, 0
    assert client.stdout is not None

    def grown():
        # Of the exec's own monitor, too: from where it was first seen.
        now = {pid: rss_kib(pid) for pid in web.processes()}
        return sum(max(kib - before.setdefault(pid, kib), 0) for pid, kib in now.items())

    while data := os.read(client.stdout.fileno(), 1 << 20):
        got += len(data)
        if got - looked > LOOK_BYTES:
            looked, highest = got, max(highest, grown())
    assert client.wait(20) == 0 and got == OUTPUT_BYTES
    client.stdout.close()
    assert grown() < 50 * 1024 and highest < 50 * 1024


def test_a_reader_that_stops_stops_the_exec_and_nothing_else(web):
    client = web.popen("exec", "web", "sh", "-c", "cat /dev/zero", stdout=subprocess.PIPE)
    until(lambda: "cat /dev/zero" in " ".join(commands_in(web)))
    assert web("exec", "web", "echo", "on").stdout == "on\n"
    client.kill()
    client.communicate()


# -- many clients ---------------------------------------------------------------------------------------------------


def test_twenty_clients_see_the_same(orlop):
    script = "read go; seq 20000; echo end"
    orlop("run", "-d", "-i", "--name", "web", "host", "sh", "-c", script)
    clients = [orlop.popen("attach", "--no-stdin", "web", stdout=subprocess.PIPE) for _ in range(CLIENTS)]
    outputs: dict[int, bytes] = {}

    def drain(index):
        outputs[index] = clients[index].stdout.read()

    threads = [threading.Thread(target=drain, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    until(lambda: clients_of(orlop) == CLIENTS)
    orlop("attach", "web", input="go\n")
    for thread in threads:
        thread.join(60)
    for client in clients:
        assert client.wait(20) == 0
        client.stdout.close()
    wanted = "".join(f"{n}\n" for n in range(1, 20001)).encode() + b"end\n"
    assert all(output == wanted for output in outputs.values()) and len(outputs) == CLIENTS


def clients_of(orlop):
    """Return how many sockets the monitor holds beside the one that it listens on: its clients."""
    (path,) = orlop.root.glob("containers/*/status.json")
    monitor = json.loads(path.read_text())["monitorPid"]
    return sum(os.readlink(fd).startswith("socket:") for fd in Path(f"/proc/{monitor}/fd").iterdir()) - 1


def _caught(pid):
    """Return the mask of the signals that a client catches: it does as soon as it carries bytes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{(children or [pid])[0]}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("SigCgt"))


def test_start_a_joins_a_container_that_runs(orlop):
    orlop("run", "-d", "-i", "--name", "web", "host", "sh", "-c", "read x; echo got $x; exit 5")
    joined = orlop("start", "-ai", "web", input="this\n", check=False)
    assert (joined.code, joined.stdout) == (5, "got this\n")
    assert orlop("attach", "web", check=False).code == 1


def test_attach_without_stdin_and_without_signals(orlop):
    orlop(
        "run",
        "-d",
        "-i",
        "--name",
        "web",
        "host",
        "sh",
        "-c",
        "trap 'echo hit' INT; echo ready; while :; do sleep 0.1; done",
    )
    until(lambda: "ready" in orlop("logs", "web").stdout)
    client = orlop.popen("attach", "--no-stdin", "--sig-proxy=false", "web", stdout=subprocess.PIPE)
    until(lambda: clients_of(orlop) == 1)
    until(lambda: int(_caught(client.pid), 16) >> (signal.SIGUSR1 - 1) & 1)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=20)
    assert client.returncode == 130
    assert "hit" not in orlop("logs", "web").stdout
    orlop("kill", "web")


# -- cgroup v1 alone ------------------------------------------------------------------------------------------------


def test_a_leaf_on_cgroup_v1_is_killed_alone():
    machine = detect()
    if "freezer" not in machine.v1:
        pytest.skip("needs: cgroup v1")
    layout = Layout("v1", machine.v1)
    container = Cgroup(layout, f"/orlop-test-{os.getpid()}")
    container.create()
    inner = container.leaf("exec-1")
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    try:
        inner.create()
        container.add(sleepers[0].pid)
        inner.add(sleepers[1].pid)
        assert set(container.procs()) == {one.pid for one in sleepers} and inner.procs() == [sleepers[1].pid]
        inner.kill()
        assert sleepers[1].wait(20) == -signal.SIGKILL and sleepers[0].poll() is None
        assert inner.prune()
    finally:
        for one in sleepers:
            one.kill()
            one.wait()
        container.remove()
