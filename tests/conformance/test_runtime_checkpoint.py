"""Checkpoint and restore with the real CRIU, and with runc as the judge: each restores what the other has written.

The container counts in memory and writes each number: whoever begins anew is seen to count from 1 again.
"""

from __future__ import annotations

import array
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.bundles import RUNTIME, Config, base, busybox_root, mount

COUNT = "i=0; while true; do i=$((i + 1)); echo $i > /tmp/n; usleep 10000; done"
WAIT_S_MAX = 60


class Counter:
    """A container that counts, in one bundle for every runtime. `own` and `judge` have a state directory each."""

    def __init__(self, directory: Path, rootfs: Path, path: str) -> None:
        self.directory = directory
        self.images = directory / "images"
        self.environment = os.environ | {"PATH": path}
        self.config: Config = base(rootfs)
        self.config["process"].update(args=["/bin/sh", "-c", COUNT])
        self.config["mounts"].append(mount("/shown", "bind", str(directory), "bind", "ro"))
        self.cgroup = str(self.config["linux"]["cgroupsPath"])
        self.id = f"orlop-criu-{secrets.token_hex(6)}"
        self.used: set[str] = set()
        self.write()

    def write(self) -> None:
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def argv(self, runtime: str | Path, verb: str, *words: str) -> list[str]:
        self.used.add(str(runtime))
        state = self.directory / f"state-{Path(runtime).name}"
        return [str(runtime), "--root", str(state), verb, *words, self.id]

    def call(self, runtime: str | Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one call. A container that it makes gets no stream of ours; what the call itself says is in its log."""
        argv = self.argv(runtime, verb, *words)
        if verb not in ("run", "create", "restore"):
            return subprocess.run(
                argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=90, check=False,
            )  # fmt: skip
        log = self.directory / "log"
        log.unlink(missing_ok=True)
        argv[1:1] = ["--log", str(log)]
        null = subprocess.DEVNULL
        done = subprocess.run(argv, env=self.environment, stdin=null, stdout=null, stderr=null, timeout=90, check=False)
        return subprocess.CompletedProcess(argv, done.returncode, log.read_text() if log.exists() else "")

    def must(self, runtime: str | Path, verb: str, *words: str) -> str:
        done = self.call(runtime, verb, *words)
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def start(self, runtime: str | Path) -> None:
        self.must(runtime, "run", "-d", "--bundle", str(self.directory))
        self.reaches(runtime, 3)

    def checkpoint(self, runtime: str | Path, *words: str) -> None:
        self.must(runtime, "checkpoint", "--image-path", str(self.images), *words)

    def restore(self, runtime: str | Path, *words: str) -> None:
        self.must(
            runtime, "restore", "-d", "--bundle", str(self.directory), "--image-path", str(self.images), *words
        )  # fmt: skip

    def inside(self, runtime: str | Path, path: str) -> Path:
        return Path(f"/proc/{json.loads(self.must(runtime, 'state'))['pid']}/root") / path

    def reaches(self, runtime: str | Path, number: int) -> int:
        """Wait until the container has counted to a number; return what it counted to first, after this was called."""
        place = self.inside(runtime, "tmp/n")
        deadline = time.monotonic() + WAIT_S_MAX
        first = 0
        while time.monotonic() < deadline:
            found = int(place.read_text() or 0) if place.exists() else 0
            first = first or found
            if found >= number:
                return first
            time.sleep(0.01)
        raise AssertionError(f"the container does not count to {number}")

    def left(self) -> list[str]:
        """Return what is there of the container: state, cgroups, mounts."""
        states = [str(path) for path in self.directory.glob("state-*/*")]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.directory) in line]
        return states + mounts + [str(path) for path in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}")]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    root = busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))
    (root / "shown").mkdir()
    return root


@pytest.fixture
def counter(tmp_path: Path, rootfs: Path, peer: Callable[[str], Path]) -> Iterator[Counter]:
    made = Counter(tmp_path, rootfs, f"{peer('criu').parent}:{os.environ['PATH']}")
    yield made
    for runtime in made.used:
        made.call(runtime, "delete", "--force")
    assert made.left() == []


PAIRS = {"ours": (0, 0), "runc restores": (0, 1), "runc checkpoints": (1, 0)}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_counter_counts_on(counter: Counter, pair: str, peer: Callable[[str], Path]) -> None:
    writer, reader = ((RUNTIME, peer("runc"))[which] for which in PAIRS[pair])
    counter.start(writer)
    counter.checkpoint(writer)
    assert counter.call(writer, "state").returncode == 1, "it is removed after its checkpoint"
    counter.restore(reader)
    assert counter.reaches(reader, 10) >= 3
    assert (counter.inside(reader, "shown/config.json")).exists()
    assert json.loads(counter.must(reader, "state"))["status"] == "running"


def test_it_runs_on_and_is_restored_as_it_was_then(counter: Counter) -> None:
    counter.config["linux"]["resources"]["pids"] = {"limit": 50}
    counter.write()
    counter.start(RUNTIME)
    counter.checkpoint(RUNTIME, "--leave-running")
    counter.reaches(RUNTIME, 10)
    counter.must(RUNTIME, "delete", "--force")
    pid_file = counter.directory / "pid"
    counter.restore(RUNTIME, "--pid-file", str(pid_file))
    pid = int(pid_file.read_text())
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    assert [row.split()[3] for row in mounts if row.split()[4] == "/proc/keys"] == ["/null"]
    assert any(row.split()[4] == "/shown" and row.split()[5].startswith("ro") for row in mounts)
    assert Path(f"/proc/{pid}/status").read_text().count("CapEff:\t0000000020000420") == 1
    cgroup = next(Path("/sys/fs/cgroup").glob(f"*{counter.cgroup}/pids.max"))
    assert cgroup.read_text() == "50\n"
    assert str(pid) in (cgroup.parent / "cgroup.procs").read_text().split()
    argv = counter.argv(RUNTIME, "exec")
    done = subprocess.run([*argv, "cat", "/tmp/n"], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) >= 3


def changed_namespaces(counter: Counter, without: str, **paths: str) -> None:
    kept = [row for row in counter.config["linux"]["namespaces"] if row["type"] not in (without, *paths)]
    counter.config["linux"]["namespaces"] = kept + [{"type": kind, "path": path} for kind, path in paths.items()]
    counter.write()


def test_without_a_cgroup_namespace_the_hierarchies_are_found_again(counter: Counter) -> None:
    """v1 hierarchies are bind mounts of the container's own cgroups then."""
    changed_namespaces(counter, "cgroup")
    counter.start(RUNTIME)
    counter.checkpoint(RUNTIME)
    counter.restore(RUNTIME)
    counter.reaches(RUNTIME, 10)
    pid = json.loads(counter.must(RUNTIME, "state"))["pid"]
    inside = counter.inside(RUNTIME, "sys/fs/cgroup/pids/cgroup.procs")
    # v2 has no such file: its hierarchy is a mount of its own. init never ends, the commands it runs do.
    assert not inside.exists() or {pid, 1} & set(map(int, inside.read_text().split())) == {pid}


def test_a_user_namespace_is_dumped(counter: Counter) -> None:
    """Device nodes are the host's there, bound. CRIU 4.1 can't restore bind mounts into one: runc's fail alike."""
    changed_namespaces(counter, "user")
    counter.config["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 0, "size": 65536}]
    counter.config["linux"].update(uidMappings=maps, gidMappings=maps)
    counter.write()
    counter.start(RUNTIME)
    counter.checkpoint(RUNTIME, "--leave-running")
    counter.reaches(RUNTIME, 10)


def test_a_joined_network_namespace_is_joined_again(counter: Counter) -> None:
    """It is not in the images: whoever made it keeps it."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as keeper:
        try:
            while os.readlink(f"/proc/{keeper.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.01)
            changed_namespaces(counter, "network", network=f"/proc/{keeper.pid}/ns/net")
            counter.start(RUNTIME)
            counter.checkpoint(RUNTIME)
            counter.restore(RUNTIME)
            counter.reaches(RUNTIME, 10)
            pid = json.loads(counter.must(RUNTIME, "state"))["pid"]
            assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{keeper.pid}/ns/net")
            counter.must(RUNTIME, "delete", "--force")
            changed_namespaces(counter, "network", network="/proc/2147483647/ns/net")
            words = ("--bundle", str(counter.directory), "--image-path", str(counter.images))
            assert "/proc/2147483647/ns/net" in refused(counter.call(RUNTIME, "restore", "-d", *words))
        finally:
            keeper.kill()


def test_its_output_goes_to_whoever_restores_it(counter: Counter) -> None:
    counter.config["process"]["args"][2] = (
        "i=0; while true; do i=$((i + 1)); echo $i; echo $i > /tmp/n; [ -e /tmp/end ] && exit 7; usleep 10000; done"
    )
    counter.write()
    run = counter.argv(RUNTIME, "run", "--bundle", str(counter.directory))
    with subprocess.Popen(
        run, env=counter.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as first:
        assert first.stdout and first.stdout.readline() == "1\n"
        counter.reaches(RUNTIME, 3)
        counter.checkpoint(RUNTIME)
        before = [int(line) for line in first.stdout]
    restore = counter.argv(
        RUNTIME, "restore", "--bundle", str(counter.directory), "--image-path", str(counter.images)
    )  # fmt: skip
    with subprocess.Popen(
        restore, env=counter.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as second:
        assert second.stdout and int(second.stdout.readline()) == before[-1] + 1
        counter.inside(RUNTIME, "tmp/end").touch()
        assert int(second.stdout.read().split()[-1]) > before[-1]
    assert second.returncode == 7


def test_the_terminal_goes_to_its_socket_again(counter: Counter) -> None:
    counter.config["process"].update(terminal=True, args=["/bin/sh", "-c", f"read word; echo got $word; {COUNT}"])
    counter.write()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(counter.directory / "socket"))
        listening.listen()
        flag = ("--console-socket", str(counter.directory / "socket"))
        counter.must(RUNTIME, "run", "-d", "--bundle", str(counter.directory), *flag)
        terminal = master_of(listening)
        counter.checkpoint(RUNTIME)
        os.close(terminal)
        counter.restore(RUNTIME, *flag)
        terminal = master_of(listening)
    os.write(terminal, b"word\n")
    said = b""
    while b"got word" not in said:
        said += os.read(terminal, 1024)
    os.close(terminal)
    counter.reaches(RUNTIME, 3)


def master_of(listening: socket.socket) -> int:
    """Return the descriptor that a runtime sends."""
    with listening.accept()[0] as connection:
        _, ancillary, _, _ = connection.recvmsg(64, socket.CMSG_SPACE(4))
    return array.array("i", ancillary[0][2])[0]


def test_hooks_of_the_caller_run_again(counter: Counter) -> None:
    told = counter.directory / "told"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >> {told}"]}
    counter.config["hooks"] = {"createRuntime": [hook]}
    counter.write()
    counter.start(RUNTIME)
    counter.checkpoint(RUNTIME)
    told.unlink()
    counter.restore(RUNTIME)
    state = json.loads(told.read_text())
    assert state["id"] == counter.id and state["status"] == "creating" and state["pid"] > 0


# -- what is refused ------------------------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1 and "Traceback" not in done.stdout, done.stdout
    return str(done.stdout)


def test_memory_tracking_that_the_kernel_lacks_is_told(counter: Counter) -> None:
    """A pre-dump needs soft-dirty pages (CONFIG_MEM_SOFT_DIRTY); where they are, the dump after it builds on it."""
    counter.start(RUNTIME)
    done = counter.call(RUNTIME, "checkpoint", "--pre-dump", "--image-path", str(counter.images))
    if done.returncode:
        assert "cannot checkpoint with --pre-dump (memory tracking): CRIU" in refused(done)
    else:
        after = counter.directory / "after"
        counter.must(RUNTIME, "checkpoint", "--image-path", str(after), "--parent-path", "../images")
        counter.must(RUNTIME, "restore", "-d", "--bundle", str(counter.directory), "--image-path", str(after))
    counter.reaches(RUNTIME, 10)


def test_without_criu_it_is_named(counter: Counter) -> None:
    counter.start(RUNTIME)
    counter.environment["PATH"] = str(counter.directory)
    assert 'there is no program \\"criu\\" on PATH' in refused(counter.call(RUNTIME, "checkpoint"))


def test_a_criu_that_does_not_work_with_this_kernel_is_told(counter: Counter) -> None:
    """What CRIU 3.17 does on a kernel from 6.16 on, to the word."""
    old = counter.directory / "criu"
    problem = "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds"
    # version: 3.17.1; to everything else the answer is no.
    old.write_text(
        "#!/usr/bin/python3\nimport socket, sys\n"
        f"if sys.argv[1] == 'check': sys.exit({problem!r})\n"
        "end = socket.socket(fileno=int(sys.argv[2]))\n"
        "kind = end.recv(65536)[1]\n"
        r"end.send(b'\x08\n\x10\x01R\x06\x08\x03\x10\x11 \x01' if kind == 10 else bytes([8, kind, 16, 0]))" + "\n"
    )
    old.chmod(0o755)
    counter.start(RUNTIME)
    argv = counter.argv(RUNTIME, "checkpoint", "--image-path", str(counter.images))
    argv[1:1] = ["--criu", str(old)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    kernel = os.uname().release
    assert f"CRIU 3.17.1 does not work with the kernel {kernel}: vdso: Unexpected rt vDSO area bounds" in done.stderr
    counter.reaches(RUNTIME, 10)


def test_what_criu_refuses_is_told_in_its_words_and_changes_nothing(counter: Counter) -> None:
    """A stream that is a file outside: no restore could open it, so CRIU writes nothing."""
    outside = counter.directory / "outside"
    argv = counter.argv(RUNTIME, "run", "-d", "--bundle", str(counter.directory))
    with outside.open("w") as file:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=60, check=True)
    done = counter.call(RUNTIME, "checkpoint", "--image-path", str(counter.images))
    assert "CRIU: Can't lookup mount" in refused(done) and f"path={outside}" in done.stdout, done.stdout
    counter.reaches(RUNTIME, 10)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("checkpoint", "--manage-cgroups-mode", "x"), "Invalid manage cgroups mode"),
        (("checkpoint", "--empty-ns", "pid"), "is not supported"),
        (("checkpoint", "--page-server", "nowhere"), "ADDRESS:PORT"),
        (("checkpoint", "--page-server", "a:99999"), "ADDRESS:PORT"),
        (("checkpoint", "--parent-path", "/abs"), "--parent-path must be relative"),
        (("checkpoint", "--parent-path", "none"), "none is no directory"),
        (("restore", "--no-pivot"), "--no-pivot is not supported"),
        (("restore", "--image-path", "/nonexistent"), "the checkpoint /nonexistent does not exist"),
    ],
)
def test_words_that_mean_nothing_are_refused(counter: Counter, words: tuple[str, ...], told: str) -> None:
    if words[0] == "checkpoint":
        counter.must(RUNTIME, "run", "-d", "--bundle", str(counter.directory))
        words = (*words, "--image-path", str(counter.images))
    else:
        words = (*words, "--bundle", str(counter.directory))
    assert told in refused(counter.call(RUNTIME, *words))


def test_a_container_that_does_not_run_has_no_checkpoint(counter: Counter) -> None:
    counter.must(RUNTIME, "create", "--bundle", str(counter.directory))
    assert "Container cannot be checkpointed in created state" in refused(counter.call(RUNTIME, "checkpoint"))


def test_a_scope_takes_systemd(counter: Counter) -> None:
    """Where systemd runs the restored processes are born into a scope of its; where it does not, that is said."""
    counter.start(RUNTIME)
    counter.checkpoint(RUNTIME)
    argv = counter.argv(
        RUNTIME, "restore", "-d", "--bundle", str(counter.directory), "--image-path", str(counter.images)
    )
    argv[1:1] = ["--systemd-cgroup"]
    counter.config["linux"]["cgroupsPath"] = f"orlop.slice:test:{counter.id}"
    counter.write()
    done = subprocess.run(argv, env=counter.environment, capture_output=True, text=True, timeout=60, check=False)
    if Path("/run/systemd/system").is_dir():
        assert done.returncode == 0, done.stderr
        counter.must(RUNTIME, "delete", "--force")
    else:
        assert done.returncode == 1 and "systemd is not running here" in done.stderr, done.stderr
    assert counter.left() == []


HOSTILE = {
    "no images": {},
    "no list": {"descriptors.json": b"{}"},
    "numbers": {"descriptors.json": b"[1, 2, 3]"},
    "too many": {"descriptors.json": json.dumps(["pipe:[1]"] * 4000).encode()},
    "huge": {"descriptors.json": b"[" + b" " * 100_000 + b"]"},
    "images of nothing": {"inventory.img": b"", "descriptors.json": b"[]"},
    "images of noise": {f"{name}.img": bytes(range(256)) * 9 for name in ("inventory", "pstree", "core-1", "files")},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_broken_checkpoint_is_an_error_that_leaves_nothing(counter: Counter, case: str) -> None:
    """SEC-48: a checkpoint is data from anywhere."""
    counter.images.mkdir()
    for name, data in HOSTILE[case].items():
        (counter.images / name).write_bytes(data)
    words = ("--bundle", str(counter.directory), "--image-path", str(counter.images))
    refused(counter.call(RUNTIME, "restore", "-d", *words))
    assert counter.left() == []


def test_a_link_in_a_checkpoint_leads_nowhere(counter: Counter) -> None:
    """SEC-48: descriptors.json as a link to a file of the host's, for reading and for writing."""
    canary = counter.directory / "canary"
    canary.write_text('["pipe:[1]"]')
    counter.images.mkdir()
    (counter.images / "descriptors.json").symlink_to(canary)
    words = ("--bundle", str(counter.directory), "--image-path", str(counter.images))
    refused(counter.call(RUNTIME, "restore", "-d", *words))
    counter.start(RUNTIME)
    refused(counter.call(RUNTIME, "checkpoint", "--image-path", str(counter.images)))
    assert canary.read_text() == '["pipe:[1]"]'
