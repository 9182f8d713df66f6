"""orlop-runtime with real containers: the life of one, what its callers get handed, and what is left behind."""

from __future__ import annotations

import array
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import probe, processes
from support.bundles import RUNTIME, Config, Runtime, base, busybox_root, mount
from support.terminal import Terminal

STAY = ("sleep", "1000")


class Box:
    """A bundle, a state directory of its own, and a container id that no one else has."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.runtime = Runtime(RUNTIME, self.state)
        self.config: Config = base(rootfs)
        self.id = f"orlop-cli-{secrets.token_hex(6)}"
        self.cgroup = str(self.config["linux"]["cgroupsPath"])

    def write(self, *args: str, **process: object) -> None:
        """Write config.json with this command."""
        self.config["process"].update(args=list(args), **process)
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def call(self, verb: str, *words: str, after: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run `verb words ID after`, its own output going to files: a container holds a pipe open."""
        with (self.directory / "out").open("w+") as out, (self.directory / "err").open("w+") as err:
            argv = [*self.runtime.argv, verb, *words, self.id, *after]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=60, check=False)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(argv, done.returncode, out.read(), err.read())

    def make(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.call(verb, "--bundle", str(self.directory), *words)

    def ok(self, verb: str, *words: str, after: tuple[str, ...] = ()) -> str:
        done = self.call(verb, *words, after=after)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, verb: str, *words: str, after: tuple[str, ...] = ()) -> str:
        """Return the message of a call that must fail, and not by a defect."""
        done = self.call(verb, *words, after=after)
        assert done.returncode == (255 if verb == "exec" else 1) and done.stderr.count("\n") == 1, done.stderr
        return json.loads(done.stderr.partition("msg=")[2])

    def status(self) -> str:
        return json.loads(self.ok("state"))["status"]

    def pid(self) -> int:
        return json.loads(self.ok("state"))["pid"]

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        pidfd = os.pidfd_open(self.pid())
        try:
            self.ok("kill", after=("KILL",))
            poll = select.poll()
            poll.register(pidfd)
            assert poll.poll(30_000)
        finally:
            os.close(pidfd)

    def left(self) -> list[str]:
        """Return what is there of the container: state, cgroups."""
        state = [str(path) for path in self.state.glob("*")]
        return state + [str(path) for path in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}")]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    return busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))


@pytest.fixture
def box(tmp_path: Path, rootfs: Path) -> Iterator[Box]:
    made = Box(tmp_path, rootfs)
    made.write(*STAY)
    yield made
    made.call("delete", "--force")
    assert made.left() == []


# -- the life of a container ----------------------------------------------------------------------------------------


def test_each_verb_in_each_state_says_what_runc_says(box: Box) -> None:
    assert box.refused("start") == "container does not exist"
    assert box.make("create").returncode == 0
    assert box.status() == "created"
    assert box.make("create").stderr.count("container with given ID already exists") == 1
    box.ok("start")
    assert box.status() == "running"
    assert box.refused("start") == "cannot start an already running container"
    assert box.refused("resume") == "container not paused"
    assert box.refused("delete") == f"cannot delete container {box.id} that is not stopped: running"
    box.ok("pause")
    assert box.status() == "paused"
    assert box.refused("start") == "cannot start a container in the paused state"
    assert box.refused("exec", after=("true",)).startswith("cannot exec in a paused container")
    with ThreadPoolExecutor(1) as pool:
        ignoring = pool.submit(box.ok, "exec", "--ignore-paused", after=("echo", "resumed"))
        with pytest.raises(TimeoutError):
            ignoring.result(0.5)
        box.ok("resume")
        assert ignoring.result() == "resumed\n"
    box.ok("kill", after=("0",))  # whether it is there
    box.ok("kill", after=("USR1",))  # a process 1 that does not handle it never gets it (pid_namespaces(7))
    box.kill()
    assert box.status() == "stopped"
    assert box.refused("start") == "cannot start a container that has stopped"
    assert box.refused("update", "--pids-limit", "9") == "container not running"
    assert box.refused("kill", after=("0",)) == "container not running"
    assert box.refused("kill") == "container not running"
    assert box.refused("pause") == "container not running"
    assert box.refused("exec", after=("true",)) == "cannot exec in a stopped container"
    box.ok("delete")
    assert box.refused("delete") == "container does not exist"
    assert box.left() == []


def test_nothing_of_the_container_runs_before_start(box: Box) -> None:
    box.write("sh", "-c", "echo ran > /tmp/ran; exec sleep 1000")
    assert box.make("create", "--pid-file", str(box.directory / "pid")).returncode == 0
    pid = int((box.directory / "pid").read_text())
    assert pid == box.pid()
    assert b"sleep" not in processes.read(pid, "cmdline")
    box.ok("delete")  # a created one needs no --force
    assert not processes.is_alive(pid)
    assert box.left() == []


def test_a_created_container_whose_process_was_killed_cannot_be_started(box: Box) -> None:
    assert box.make("create").returncode == 0
    box.kill()
    assert box.status() == "stopped"
    assert box.refused("start") == "cannot start a container that has stopped"


def test_a_start_at_the_same_time_happens_once(box: Box) -> None:
    assert box.make("create").returncode == 0
    calls = [
        subprocess.Popen([*box.runtime.argv, "start", box.id], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    ends = [(call.communicate(timeout=60)[1], call.returncode) for call in calls]
    assert sorted(code for _, code in ends) == [0, 1, 1, 1]
    assert all("cannot start" in err for err, code in ends if code)
    assert box.status() == "running"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("/nonexistent",), 'exec: "/nonexistent": stat /nonexistent: no such file or directory'),
        (("nonexistent",), 'exec: "nonexistent": executable file not found in $PATH'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_failing_command_leaves_nothing(box: Box, args: tuple[str, ...], told: str) -> None:
    box.write(*args)
    before = set(processes.pids())
    for verb in ("create", "run"):
        done = box.make(verb)
        assert done.returncode == 1 and told in json.loads(done.stderr.partition("msg=")[2])
        assert box.left() == []
    assert not [pid for pid in set(processes.pids()) - before if box.id.encode() in processes.read(pid, "cmdline")]


@pytest.mark.parametrize("flag", ["--pid-file=/nonexistent/pid", "--console-socket=/nonexistent/s"])
def test_a_create_that_cannot_tell_its_caller_leaves_nothing(box: Box, flag: str) -> None:
    box.write(*STAY, terminal="console" in flag)
    done = box.make("create", flag)
    assert done.returncode == 1 and "No such file or directory" in done.stderr and done.stderr.count("\n") == 1
    assert box.left() == []


def test_a_damaged_state_stops_no_forced_delete_by_accident(box: Box) -> None:
    """What is damaged can't say which process and cgroup are its own: it is told, and nothing is guessed.

    start asks the container's own socket alone (ADR 16), and does not look.
    """
    assert box.make("create").returncode == 0
    path = box.state / box.id / "state.json"
    whole = path.read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"[]"):
        path.write_bytes(data)
        for verb in ("state", "kill", "delete"):
            assert "state.json" in box.refused(verb)
        assert "state.json" in box.refused("delete", "--force")
    path.write_bytes(whole)
    assert box.status() == "created"


def test_many_lives_leave_nothing(box: Box) -> None:
    box.write("true")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        assert box.make("create").returncode == 0
        box.ok("start")
        box.ok("delete", "--force")
        assert box.left() == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


# -- statuses and signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 0), ("exit 255", 255)])
def test_run_exits_as_the_process_did(box: Box, script: str, code: int) -> None:
    box.write("sh", "-c", script)  # the first process of a PID namespace is deaf to its own SIGKILL
    assert box.make("run").returncode == code
    assert box.left() == []


def test_exec_exits_as_the_process_did(box: Box) -> None:
    assert box.make("run", "--detach").returncode == 0
    assert box.call("exec", after=("sh", "-c", "exit 7")).returncode == 7
    assert box.call("exec", after=("sh", "-c", "kill -9 $$")).returncode == 137
    assert "executable file not found" in box.refused("exec", after=("nonexistent",))
    assert box.status() == "running"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_signals_reach_the_process_in_the_foreground(box: Box, verb: str) -> None:
    script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.01; done"
    words = ["run", "--bundle", str(box.directory), box.id]
    if verb == "exec":
        assert box.make("run", "--detach").returncode == 0
        words = ["exec", box.id, "sh", "-c", script]
    else:
        box.write("sh", "-c", script)
    call = subprocess.Popen([*box.runtime.argv, *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert call.stdout and call.stdout.readline() == "ready\n"
    _send_when_caught(call.pid, signal.SIGUSR1)
    assert call.communicate(timeout=60)[0] == "got\n"
    assert call.returncode == 3


def _send_when_caught(pid: int, number: int) -> None:
    """The command may be ready before the runtime's handlers are: wait for the kernel's word (proc_pid_status(5))."""
    for _ in range(100_000):
        caught = next(line for line in processes.read(pid, "status").splitlines() if line.startswith(b"SigCgt"))
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            os.kill(pid, number)
            return
        threading.Event().wait(0.005)
    raise AssertionError("the runtime catches no signal")


# -- what crosses the border ----------------------------------------------------------------------------------------


def _received(listener: socket.socket) -> tuple[bytes, int]:
    connection, _ = listener.accept()
    with connection:
        name, ancillary, _, _ = connection.recvmsg(64, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    assert len(fds) == 1
    return name, fds[0]


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    fd = os.open(path.parent, os.O_PATH)
    listener.bind(f"/proc/self/fd/{fd}/{path.name}")
    os.close(fd)
    listener.listen(1)
    listener.settimeout(60)
    return listener


@pytest.mark.parametrize("deep", ["", "d" * 120])
def test_the_terminal_and_the_pidfd_go_to_their_sockets(box: Box, deep: str) -> None:
    """Also when the path is longer than the 107 bytes of a socket's address."""
    directory = box.directory / "s" / deep
    directory.mkdir(parents=True)
    box.write("sh", "-c", "read line; echo got $line; tty; exec sleep 1000", terminal=True)
    with _listener(directory / "console") as console, _listener(directory / "pidfd") as pidfds:
        flags = (f"--console-socket={directory}/console", f"--pidfd-socket={directory}/pidfd")
        assert box.make("create", *flags).returncode == 0, (box.directory / "err").read_text()
        _, master = _received(console)
        _, pidfd = _received(pidfds)
    try:
        info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        assert f"Pid:\t{box.pid()}\n" in info
        box.ok("start")
        os.write(master, b"hello\n")
        output = b""
        while b"/dev/" not in output:
            output += os.read(master, 4096)
        assert b"got hello" in output
    finally:
        os.close(master)
        os.close(pidfd)


def test_run_on_a_real_terminal(box: Box) -> None:
    box.write("sh", "-c", "stty size; read line; echo got $line; exit 5", terminal=True)
    argv = [*box.runtime.argv, "run", "--bundle", str(box.directory), box.id]
    with Terminal(argv, os.environ, rows=31, columns=97) as terminal:
        terminal.expect("31 97")
        terminal.send("hello\r")
        terminal.expect("got hello")
        assert terminal.wait() == 5


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_exactly_the_preserved_descriptors_reach_the_process(box: Box, verb: str) -> None:
    script = "exec 9<&-; ls /proc/self/fd | tr '\\n' ' '; cat <&3; cat <&4"
    if verb == "exec":
        assert box.make("run", "--detach").returncode == 0
        words = ["exec", "--preserve-fds", "2", box.id, "sh", "-c", script]
    else:
        box.write("sh", "-c", script)
        words = ["run", "--bundle", str(box.directory), "--preserve-fds", "2", box.id]
    for name in ("three", "four", "five"):
        (box.directory / name).write_text(name)
    shell = 'exec 3<"$1/three" 4<"$1/four" 5<"$1/five"; shift; exec "$@"'
    argv = ["/bin/sh", "-c", shell, "sh", str(box.directory), *box.runtime.argv, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    # The highest is the directory that ls itself reads.
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1 2 3 4 5 threefour", "")


@pytest.mark.parametrize("count", ["1", "5000", "-1", "999999999"])
def test_a_descriptor_that_is_not_open_is_not_made_up(box: Box, count: str) -> None:
    """One of the runtime's own could have the number: the container must never get it."""
    done = box.make("create", "--preserve-fds", count)
    assert done.returncode == 1 and "cannot preserve" in done.stderr
    assert box.left() == []


def test_without_a_new_keyring_the_callers_is_kept(box: Box) -> None:
    # keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) on x86-64.
    program = box.directory / "keyring"
    program.write_bytes(probe.program([("x86_64", 250, (0, 2**64 - 3, 0))]))
    program.chmod(0o755)
    box.config["mounts"].append(mount("/mnt", "none", str(box.directory), "bind"))
    box.write("sh", "-c", "/mnt/keyring > /mnt/serial")
    callers = subprocess.run([program], capture_output=True, check=True).stdout
    serials = []
    for flags in ((), ("--no-new-keyring",)):
        assert box.make("run", *flags).returncode == 0, (box.directory / "err").read_text()
        serials.append((box.directory / "serial").read_bytes())
    assert probe.results(callers)[0] > 0
    assert serials[0] != callers and serials[1] == callers


def test_hooks_of_start_run_at_start_and_once(box: Box) -> None:
    told = box.directory / "told"
    points = ("createRuntime", "poststart", "poststop")
    box.config["hooks"] = {
        point: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {point} >> {told}"]}] for point in points
    }
    box.write(*STAY)
    assert box.make("create").returncode == 0
    assert told.read_text().split() == ["createRuntime"]
    box.ok("start")
    assert told.read_text().split() == ["createRuntime", "poststart"]
    box.ok("delete", "--force")
    assert told.read_text().split() == list(points)


# Of a document: what it says, and where one reads it. On v1, on v2.
CPU = {"shares": 512, "quota": 40000, "period": 80000, "burst": 1000, "cpus": "0"}
MEMORY = {"limit": 128 << 20, "reservation": 64 << 20, "swap": 256 << 20}
FUSE = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
UPDATES: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "v1": (
        {"cpu": CPU, "pids": {"limit": 77}, "devices": [FUSE],
         "memory": {**MEMORY, "swappiness": 7, "disableOOMKiller": True, "kernelTCP": 1 << 20}},
        {"cpu/cpu.shares": "512", "cpu/cpu.cfs_quota_us": "40000", "cpu/cpu.cfs_period_us": "80000",
         "cpu/cpu.cfs_burst_us": "1000", "cpuset/cpuset.cpus": "0", "pids/pids.max": "77",
         "memory/memory.limit_in_bytes": f"{128 << 20}", "memory/memory.soft_limit_in_bytes": f"{64 << 20}",
         "memory/memory.memsw.limit_in_bytes": f"{256 << 20}", "memory/memory.swappiness": "7",
         "memory/memory.oom_control": "oom_kill_disable 1", "memory/memory.kmem.tcp.limit_in_bytes": f"{1 << 20}"},
    ),
    "v2": (
        {"cpu": CPU, "pids": {"limit": 77}, "devices": [FUSE], "memory": MEMORY,
         "unified": {"memory.high": "104857600"}},
        {"cpu.weight": "59", "cpu.max": "40000 80000", "cpu.max.burst": "1000", "cpuset.cpus": "0", "pids.max": "77",
         "memory.max": f"{128 << 20}", "memory.low": f"{64 << 20}", "memory.swap.max": f"{128 << 20}",
         "memory.high": "104857600"},
    ),
}  # fmt: skip


def test_everything_is_updated_while_it_runs(box: Box) -> None:
    """As containerd's shim does: a document. The device could not be opened before; those denied stay denied."""
    document, told = UPDATES["v1" if Path("/sys/fs/cgroup/memory").exists() else "v2"]
    box.config["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666},
        {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o666},
    ]
    box.write(*STAY)
    assert box.make("run", "--detach").returncode == 0
    opened = "for f in fuse mem; do (: </dev/$f) 2>&1 | grep -o 'not permitted'; done"
    assert box.ok("exec", after=("sh", "-c", opened)).split("\n") == ["not permitted"] * 2 + [""]
    resources = box.directory / "resources.json"
    resources.write_text(json.dumps(document))
    box.ok("update", "--resources", str(resources))
    for file, value in told.items():
        assert value in box.ok("exec", after=("cat", f"/sys/fs/cgroup/{file}")).split("\n"), file
    assert box.ok("exec", after=("sh", "-c", opened)) == "not permitted\n"
    resources.write_text(json.dumps({"memory": {"kernel": 1 << 20}}))
    assert "linux.resources.memory.kernel" in box.refused("update", "--resources", str(resources))


# -- documents ------------------------------------------------------------------------------------------------------


def test_events_count_what_the_kernel_counts(box: Box) -> None:
    box.config["linux"]["resources"].update(pids={"limit": 77}, memory={"limit": 64 << 20})
    box.write(*STAY)
    assert box.make("run", "--detach").returncode == 0
    document = json.loads(box.ok("events", "--stats"))
    assert (document["type"], document["id"]) == ("stats", box.id)
    data = document["data"]
    assert data["pids"] == {"current": 1, "limit": 77}
    assert data["cpu"]["usage"]["total"] > 0
    assert 0 < data["memory"]["usage"]["usage"] <= data["memory"]["usage"]["max"] <= 64 << 20
    assert data["memory"]["usage"]["limit"] == 64 << 20
    assert data["memory"]["raw"]["pgfault"] > 0


def test_a_limit_that_can_not_be_given_is_clamped_and_said(box: Box) -> None:
    # Of one who may not raise hard limits, in a service that systemd gives 4096 descriptors.
    without = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
    box.runtime.argv[:0] = ["prlimit", "--nofile=1024:4096", *without]
    box.write("sh", "-c", "ulimit -Sn; ulimit -Hn", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288}])
    done = box.make("run")
    assert (done.returncode, done.stdout.split()) == (0, ["1024", "4096"]), done.stderr
    assert "level=warning" in done.stderr
    assert "RLIMIT_NOFILE is limited to 4096: more than the own hard limit needs CAP_SYS_RESOURCE" in done.stderr
