"""orlop-runtime given what an attacker would give it: descriptors, sizes, numbers, names, a pid that was recycled."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import launcher
from support.bundles import RUNTIME, Config, Runtime, base, busybox_root, cgroups
from support.pace import SLOW

RECYCLED_PIDS = int(os.environ.get("ORLOP_TEST_RECYCLED_PIDS", "100"))
MEMORY_BYTES_MAX = 256 << 20


class Box:
    """One container of a test, in a state directory of its own."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.runtime = Runtime(RUNTIME, directory / "state")
        self.config: Config = base(rootfs)
        self.wrapper: tuple[str, ...] = ()
        self.id = f"orlop-hostile-{os.getpid()}"

    def run(self, *args: str, verb: str = "run", **more: object) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container; its last words."""
        self.config["process"]["args"] = list(args)
        (self.directory / "config.json").write_text(json.dumps(self.config))
        argv = [*self.wrapper, *self.runtime.argv, verb, "--bundle", str(self.directory), self.id]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60 * SLOW, check=False, **more)

    def refused(self) -> str:
        """Return the one line that a start which must fail says; nothing is left of it."""
        done = self.run("true")
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
        assert not list((self.directory / "state").glob("*"))
        return done.stderr


@pytest.fixture
def box(tmp_path: Path, peer: Callable[[str], Path]) -> Iterator[Box]:
    made = Box(tmp_path, busybox_root(tmp_path / "root", peer("busybox")))
    yield made
    made.runtime("delete", "--force", made.id)


def test_sec_04_what_a_caller_leaves_open_stays_outside(box: Box) -> None:
    """A descriptor of the host's root that the caller forgot to close on exec."""
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        shown = box.run("sh", "-c", "ls /proc/self/fd; ls /proc/1/fd", pass_fds=[root])
        assert set(shown.stdout.split()) <= {"0", "1", "2", "3"} and shown.returncode == 0, shown  # 3: ls itself
        detached = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        argv = [*box.runtime.argv, "run", "-d", "--bundle", str(box.directory), box.id]
        box.config["process"]["args"] = ["sleep", "1000"]
        (box.directory / "config.json").write_text(json.dumps(box.config))
        subprocess.run(argv, check=True, pass_fds=[root], timeout=60 * SLOW, **detached)
        argv = [*box.runtime.argv, "exec", box.id, "sh", "-c", "ls /proc/self/fd /proc/1/fd"]
        done = subprocess.run(argv, capture_output=True, text=True, pass_fds=[root], timeout=60 * SLOW, check=True)
        names = {word for word in done.stdout.split() if word.isdecimal()}
        assert names and names <= {"0", "1", "2", "3"}, done.stdout
    finally:
        os.close(root)


def link_to_zero(passwd: Path) -> None:
    passwd.symlink_to("/dev/zero")


def fifo(passwd: Path) -> None:
    os.mkfifo(passwd)


def sparse(passwd: Path) -> None:
    with passwd.open("wb") as file:
        file.truncate(8 << 30)


def link_to_the_hosts(passwd: Path) -> None:
    passwd.symlink_to("../../../../../../../../etc/shadow")


@pytest.mark.parametrize("make", [fifo, sparse])
def test_sec_17_a_passwd_that_never_ends(box: Box, make: Callable[[Path], None]) -> None:
    """CVE-2024-9676: HOME is looked up in the image. An error, at once and in little memory."""
    passwd = box.rootfs / "etc/passwd"
    passwd.unlink()
    make(passwd)
    box.config["process"]["env"] = ["PATH=/bin"]
    box.wrapper = ("prlimit", f"--as={MEMORY_BYTES_MAX}")
    assert "/etc/passwd of the image" in box.refused()


@pytest.mark.parametrize("make", [link_to_zero, link_to_the_hosts])
def test_sec_17_a_passwd_that_is_a_link_out(box: Box, make: Callable[[Path], None]) -> None:
    passwd = box.rootfs / "etc/passwd"
    passwd.unlink()
    make(passwd)
    box.config["process"]["env"] = ["PATH=/bin"]
    assert box.run("sh", "-c", "echo home=$HOME").stdout == "home=/\n"


@pytest.mark.parametrize(
    "path", ["../x", "/../../x", "/a/../../b", "/a/b\n", "/" + "x" * 300, "/" + "y/" * 3000, "/a\0b", "/cgroup.procs"]
)
def test_sec_23_a_cgroup_path_that_leaves_its_place(box: Box, path: str) -> None:
    box.config["linux"]["cgroupsPath"] = path
    assert "cgroup" in box.refused()


@pytest.mark.parametrize("path", ["a/b", "../x", ".", "x" * 4096, "a\u2024b", "--", " "])
def test_sec_23_an_id_that_is_a_path(box: Box, path: str) -> None:
    for verb in ("state", "delete", "kill", "start", "checkpoint", "restore"):
        done = subprocess.run(
            [*box.runtime.argv, verb, path], capture_output=True, text=True, timeout=60 * SLOW, check=False
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not (box.directory / "x").exists()
    argv = [*box.runtime.argv, "create", "--bundle", str(box.directory), path]
    (box.directory / "config.json").write_text(json.dumps(box.config))
    try:
        null = subprocess.DEVNULL  # a container that was made would hold a pipe open
        done = subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=60 * SLOW, check=False)
        assert done.returncode == 1 and not (box.directory / "x").exists(), done
    finally:
        box.runtime("delete", "--force", path)


def sized(name: str) -> Callable[[Config], object]:
    data = "x" * 70_000
    return {
        "hostname": lambda config: config.update(hostname=data),
        "domainname": lambda config: config.update(domainname=data),
        "mount data": lambda config: config["mounts"].append(
            {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [f"size={data}"]}
        ),
        "mount source": lambda config: config["mounts"].append(
            {"destination": "/mnt", "type": "bind", "source": f"/{data}", "options": ["bind"]}
        ),
        "destination": lambda config: config["mounts"].append(
            {"destination": f"/{data}", "type": "tmpfs", "source": "tmpfs"}
        ),
        "sysctl": lambda config: config["linux"].update(sysctl={f"net.{data}": "1"}),
        "cwd": lambda config: config["process"].update(cwd=f"/{data}"),
        "argument": lambda config: config["process"].update(env=["A=" + data * 100]),
        "id maps": lambda config: (
            config["linux"]["namespaces"].append({"type": "user"}),
            config["linux"].update(
                uidMappings=[{"containerID": n, "hostID": n, "size": 1} for n in range(20_000)],
                gidMappings=[{"containerID": 0, "hostID": 0, "size": 1}],
            ),
        ),
    }[name]


SIZES = "hostname,domainname,mount data,mount source,destination,sysctl,cwd,argument,id maps"


@pytest.mark.parametrize("name", SIZES.split(","))
def test_sec_26_what_is_too_large_is_an_error(box: Box, name: str) -> None:
    """CVE-2021-43784: lengths that a 16 bit field can't hold."""
    sized(name)(box.config)
    done = box.run("true")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-400:]
    assert not list((box.directory / "state").glob("*"))


@pytest.mark.parametrize("user", [-1, 2**32, 2**32 - 1, 2**64, 1.5, "0", True, [0]])
@pytest.mark.parametrize("field", ["uid", "gid"])
def test_sec_27_an_id_is_a_number_that_the_kernel_has(box: Box, field: str, user: object) -> None:
    """CVE-2024-40635: nothing wraps, nothing is taken for something else, nobody becomes root by accident."""
    box.config["process"]["user"] = {"uid": 5, "gid": 5, field: user}
    done = box.run("id", "-u" if field == "uid" else "-g")
    assert done.returncode == 1 and "Traceback" not in done.stderr and not done.stdout, done


@pytest.mark.parametrize(
    "user", ["-1", "4294967296", "4294967295", " 0", "0x0", "1000:", ":", "0:-1", "root", "\uff11", "1.0", ""]
)
def test_sec_27_exec_takes_no_strange_user(box: Box, user: str) -> None:
    """CVE-2026-30892: runc's exec takes numbers, so a name or half of one is an error and never root."""
    box.config["process"].update(args=["sleep", "1000"], user={"uid": 5, "gid": 5})
    (box.directory / "config.json").write_text(json.dumps(box.config))
    null = subprocess.DEVNULL
    argv = [*box.runtime.argv, "run", "-d", "--bundle", str(box.directory), box.id]
    subprocess.run(argv, check=True, timeout=60 * SLOW, stdin=null, stdout=null, stderr=null)
    done = box.runtime("exec", "--user", user, box.id, "id", "-u")
    if user == "":
        assert done.stdout == "5\n", done  # as if it had not been given
    else:
        assert done.returncode == 255 and "Traceback" not in done.stderr and not done.stdout, done


def endless(path: Path) -> None:
    """More than any document, and none of it on disk."""
    with path.open("wb") as file:
        file.truncate(8 << 30)


NO_DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "a FIFO": fifo,
    "a device": link_to_zero,
    "8 GiB": endless,
    "a directory": Path.mkdir,
    "a loop": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", NO_DOCUMENTS)
def test_what_is_no_document_is_told_at_once(box: Box, kind: str) -> None:
    """config.json, state.json and what is named by flags. Red where they are opened and read as they come: the FIFO is
    waited for, and of state.json every byte was read.
    """
    make, small = NO_DOCUMENTS[kind], {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (512 << 20,) * 2)}
    state, bundle = box.directory / "state" / "broken", box.directory / "bundle"
    for directory in (state, bundle):
        directory.mkdir(parents=True)
    named = box.directory / "named"
    for path in (state / "state.json", bundle / "config.json", named):
        make(path)
    box.config["process"]["args"] = ["sleep", "1000"]
    (box.directory / "config.json").write_text(json.dumps(box.config))
    null = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.run([*box.runtime.argv, "run", "-d", "-b", box.directory, box.id], check=True, timeout=60, **null)
    verbs = ("state", "start", "kill", "pause", "delete")
    calls = [
        ["run", "--bundle", str(bundle), "x"], ["exec", "--process", str(named), box.id],
        ["update", "--resources", str(named), box.id], *([verb, "broken"] for verb in verbs),
    ]  # fmt: skip
    for words in calls:
        done = subprocess.run(
            [*box.runtime.argv, *words], capture_output=True, text=True, timeout=60, check=False, **small
        )
        assert done.returncode in (1, 255) and done.stderr.count("\n") == 1, (words, done)
        assert "Traceback" not in done.stderr and (".json" in done.stderr or "named" in done.stderr), (words, done)
    assert box.runtime("list", "--quiet").stdout == f"{box.id}\n"


def test_a_pipe_may_be_a_process(box: Box) -> None:
    """As a shell's `--process <(...)`, which is runc's callers' habit."""
    box.config["process"]["args"] = ["sleep", "1000"]
    (box.directory / "config.json").write_text(json.dumps(box.config))
    null = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.run([*box.runtime.argv, "run", "-d", "-b", box.directory, box.id], check=True, timeout=60, **null)
    ours, theirs = os.pipe()
    with open(theirs, "w") as file:
        json.dump({"cwd": "/", "args": ["echo", "piped"], "env": ["PATH=/bin"]}, file)
    argv = [*box.runtime.argv, "exec", "--process", f"/dev/fd/{ours}", box.id]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, pass_fds=[ours])
    finally:
        os.close(ours)
    assert done.stdout == "piped\n", done


def test_a_pid_file_is_written_through_no_link(box: Box) -> None:
    """It appears by a rename, and what has the name meanwhile may be somebody's link. Red without O_EXCL."""
    victim, planted = box.directory / "victim", box.directory / ".pid"
    victim.write_text("kept")
    planted.symlink_to(victim)
    (box.directory / "pid").symlink_to(victim)
    box.config["process"]["args"] = ["true"]
    (box.directory / "config.json").write_text(json.dumps(box.config))
    done = box.runtime("run", "--pid-file", str(box.directory / "pid"), "--bundle", str(box.directory), box.id)
    assert done.returncode == 0 and victim.read_text() == "kept", done
    assert (box.directory / "pid").read_text().isdigit() and not planted.is_symlink()


def test_a_log_that_nobody_reads_is_not_waited_for(box: Box) -> None:
    """Red without O_NONBLOCK. What is said goes to standard error as well."""
    log = box.directory / "log"
    os.mkfifo(log)
    done = box.runtime("--log", str(log), "state", "nosuch")
    assert done.returncode == 1 and "container does not exist" in done.stderr, done


def test_a_failure_is_told_also_where_not_all_can_be_undone(box: Box, tmp_path: Path) -> None:
    """Somebody has moved into the new cgroup, so that it stays; the error is the first one, and the id is free again.

    Red where the undoing's own error takes the place of the error: EBUSY was told, and the state stayed.
    """
    path = box.config["linux"]["cgroupsPath"]
    hook = tmp_path / "hook"
    places = f"/sys/fs/cgroup{path} /sys/fs/cgroup/*{path}"  # on v2 alone, on v1
    moved = f"for place in {places}; do [ ! -d $place ] || echo $bystander >$place/cgroup.procs; done"
    box.config["process"]["terminal"] = True
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        hook.write_text(f"#!/bin/sh\nbystander={bystander.pid}\n{moved}\n")
        hook.chmod(0o755)
        box.config["hooks"] = {"createRuntime": [{"path": str(hook), "env": ["PATH=/bin:/usr/bin"]}]}
        try:
            (box.directory / "config.json").write_text(json.dumps(box.config))
            argv = [
                *box.runtime.argv,
                "create",
                "--console-socket",
                str(tmp_path / "nobody"),
                "-b",
                box.directory,
                box.id,
            ]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1 and "nobody" in done.stderr and "busy" not in done.stderr, done
            assert not list((box.directory / "state").glob("*"))
        finally:
            bystander.kill()
            bystander.wait()
            for left in (*cgroups(box.config), Path(f"/sys/fs/cgroup{path}")):
                if left.exists():
                    left.rmdir()


RECYCLE = """
import os, sys, time
sys.path[:0] = sys.argv[1].split(":")
from orlop.linux import process
from orlop.runtime.cli.store import Entry, Store
store, tick = Store(sys.argv[2]), os.sysconf("SC_CLK_TCK")
other = os.fork() or time.sleep(1000)
pidfs = process.inode_of(other) != process.inode_of(os.getpid())
os.kill(other, 9)
os.waitpid(other, 0)
store.reserve("web")
def child():
    pid = os.fork()
    if pid == 0:
        os.pause() if hasattr(os, "pause") else time.sleep(1000)
    return pid
def end(pid):
    os.kill(pid, 9)
    os.waitpid(pid, 0)
pid = child()
for round in range(int(sys.argv[3])):
    entry = Entry(
        id="web", bundle="/b", pid=pid, pid_start_time=process.start_time(pid), boot_id=process.boot_id(), created="",
        pid_inode=process.inode_of(pid),
    )
    store.save(entry)
    assert store.status(entry) == "running"
    end(pid)
    # Where a pidfd tells processes apart (6.9), the number comes again within the tick that start times are told in.
    while not pidfs and time.clock_gettime(time.CLOCK_BOOTTIME) * tick < entry.pid_start_time + 2:
        time.sleep(0.002)
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    again = child()
    assert again == pid, (again, pid)
    assert store.open_init(entry) is None and store.status(entry) == "stopped", round
    assert os.waitpid(again, os.WNOHANG) == (0, 0)
end(pid)
print("recycled", round + 1)
"""


def test_sec_36_a_recycled_pid_is_nobody(tmp_path: Path) -> None:
    """A pid that is another process's now: neither taken for the container's nor signalled."""
    command = [sys.executable, "-c", RECYCLE, launcher.IMPORTS, str(tmp_path / "state"), str(RECYCLED_PIDS)]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *command],
        capture_output=True,
        text=True,
        timeout=110 * SLOW,
        check=False,
    )
    assert done.stdout == f"recycled {RECYCLED_PIDS}\n", done


def test_sec_36_no_verb_signals_a_recycled_pid(box: Box) -> None:
    """The state says a pid that is alive and somebody else's: this test's child."""
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        try:
            state = box.directory / "state" / box.id
            state.mkdir(parents=True)
            (state / "config.json").write_text(json.dumps(box.config))
            document = {
                "id": box.id, "bundle": str(box.directory), "pid": bystander.pid, "pidStartTime": 1,
                "bootId": Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "created": "",
            }  # fmt: skip
            (state / "state.json").write_text(json.dumps(document))
            assert json.loads(box.runtime("state", box.id).stdout)["status"] == "stopped"
            for verb in (("kill", box.id, "KILL"), ("exec", box.id, "true"), ("checkpoint", box.id)):
                assert box.runtime(*verb).returncode == (255 if verb[0] == "exec" else 1)
            assert box.runtime("delete", "--force", box.id).returncode == 0
            assert bystander.poll() is None
        finally:
            bystander.kill()
