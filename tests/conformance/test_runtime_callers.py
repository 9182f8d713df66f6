"""orlop-runtime as the runtime of the real engines, unchanged: podman, dockerd with containerd's shim, buildah, ctr.

Each works on private sockets and data below a workspace that proves its own emptiness at the end.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import platforms
from bench.workspace import CGROUP, Workspace
from support.bundles import RUNTIME, busybox_root
from support.terminal import Terminal

AT_ONCE = int(os.environ.get("ORLOP_TEST_AT_ONCE", "12"))  # the long form, and what a release is held to: 50
WAIT_S_MAX = 100
END_S_MAX = 600  # a hang, not a slow machine
# podman gives its conmon a cgroup beside the container's and never takes it away: here the workspace does.
PLACE = ("--network", "none", "--cgroup-parent", f"/{CGROUP}")


@pytest.fixture(scope="module")
def archive(workspace: Workspace, peer: Callable[[str], Path]) -> Path:
    root = busybox_root(workspace.directory / "bb", peer("busybox"))
    path = workspace.directory / "bb.tar"
    subprocess.run(["tar", "-C", root, "-cf", path, "."], check=True)
    return path


class Command:
    """A program with its first arguments and its environment."""

    def __init__(self, *prefix: str | Path, **environment: str) -> None:
        self.argv = [str(word) for word in prefix]
        self.environment = environment

    def __call__(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        argv = [*self.argv, *args]
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as place:
        yield place


def must(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed; it must have succeeded."""
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(scope="module")
def podman(workspace: Workspace, archive: Path, peer: Callable[[str], Path]) -> Command:
    home = workspace.path("p")
    policy = home / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = workspace.environment(CONTAINERS_CONF=str(platforms.podman_configuration(home)))
    places = [f"--root={home / 'root'}", f"--runroot={home / 'run'}", "--storage-driver=overlay"]
    call = Command(peer("podman"), *places, f"--conmon={peer('conmon')}", f"--runtime={RUNTIME}", **env)
    must(call("import", f"--signature-policy={policy}", str(archive), "bb:1"))
    return call


@pytest.fixture(scope="module")
def docker(workspace: Workspace, archive: Path, peer: Callable[[str], Path]) -> Command:
    runtime = [f"--add-runtime=orlop={RUNTIME}", "--default-runtime=orlop"]
    daemon = workspace.dockerd("d", *runtime, program=peer("dockerd"))
    call = Command(peer("docker"), **daemon.env)
    must(call("import", str(archive), "bb:1"))
    return call


ENGINES = ("podman", "docker")


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Command:
    call: Command = request.getfixturevalue(request.param)
    return call


def run(call: Command, *args: str) -> subprocess.CompletedProcess[str]:
    return call("run", "--rm", *PLACE, *args)


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_run_with_limits_and_exit_codes(engine: Command) -> None:
    assert must(run(engine, "bb:1", "echo", "hi")) == "hi\n"
    assert run(engine, "bb:1", "sh", "-c", "exit 7").returncode == 7
    assert run(engine, "bb:1", "nosuch").returncode == 127
    limit = must(run(engine, "-m", "64m", "bb:1", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    assert limit == "67108864\n"
    status = must(run(engine, "-u", "5:6", "bb:1", "grep", "-E", "^(Uid|Seccomp|CapEff):", "/proc/self/status"))
    assert "Seccomp:\t2" in status and "Uid:\t5\t5\t5\t5" in status


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_containers_life(engine: Command) -> None:
    must(engine("run", "-d", "--name", "life", *PLACE, "bb:1", "sh", "-c", "echo up; exec sleep 1000"))
    assert engine("exec", "life", "sh", "-c", "echo $$; exit 3").returncode == 3
    # docker 20.10 says 126 of what is not there, with runc too.
    assert engine("exec", "life", "nosuch").returncode == (127 if "podman" in engine.argv[0] else 126)
    assert must(engine("exec", "-u", "5", "-w", "/tmp", "-e", "A=b", "life", "sh", "-c", "pwd; echo $A")) == "/tmp\nb\n"
    must(engine("pause", "life"))
    assert "Paused" in must(engine("ps", "-a", "--format", "{{.Status}}"))
    must(engine("unpause", "life"))
    assert "sleep" in must(engine("top", "life"))
    must(engine("stop", "-t", "1", "life"))
    assert must(engine("logs", "life")) == "up\n"
    assert must(engine("inspect", "-f", "{{.State.ExitCode}}", "life")).strip() == "137"
    must(engine("rm", "life"))


def test_docker_updates_and_watches(docker: Command) -> None:
    must(docker("run", "-d", "--name", "up", *PLACE, "bb:1", "sleep", "1000"))
    must(docker("update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "9", "up"))
    assert must(docker("exec", "up", "cat", "/sys/fs/cgroup/pids/pids.max")) == "9\n"
    assert "128MiB" in must(docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "up"))
    must(docker("rm", "-f", "up"))


def test_docker_finds_a_container_healthy(docker: Command) -> None:
    health = ["--health-cmd", "true", "--health-interval", "1s"]
    must(docker("run", "-d", "--name", "health", *PLACE, *health, "bb:1", "sleep", "1000"))
    wait = [*docker.argv, "events", "--since", "0", "--filter", "container=health", "--filter", "event=health_status"]
    with subprocess.Popen(wait, env=docker.environment, stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout
        assert "healthy" in events.stdout.readline()
        events.terminate()
    must(docker("rm", "-f", "health"))


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_terminal(engine: Command) -> None:
    must(engine("run", "-d", "-t", "--name", "tty", *PLACE, "bb:1", "sh", "-c", "test -t 0 && test -t 1"))
    assert must(engine("wait", "tty")).strip() == "0"
    must(engine("rm", "tty"))


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("verb", [("run", "--rm", "-it", *PLACE, "bb:1"), ("exec", "-it", "shown")])
def test_a_terminal_is_shown(engine: Command, verb: tuple[str, ...]) -> None:
    if verb[0] == "exec":
        must(engine("run", "-d", "--name", "shown", *PLACE, "bb:1", "sleep", "1000"))
    shown([*engine.argv, *verb], engine)
    if verb[0] == "exec":
        must(engine("rm", "-f", "shown"))


def shown(words: Sequence[str], caller: Command) -> None:
    """Run a script by these words on a terminal of ours: bytes both ways, its size, its end."""
    # The client sends its size once it hears that the container runs.
    script = "read word; echo got $word; until [ \"$(stty size)\" = '33 99' ]; do sleep 0.1; done; echo sized; exit 5"
    with Terminal([*words, "sh", "-c", script], caller.environment, rows=33, columns=99) as terminal:
        terminal.send("word\n")
        terminal.expect("got word")
        terminal.expect("sized")
        assert terminal.wait() == 5


def test_podman_updates_and_finds_a_container_healthy(podman: Command) -> None:
    health = ["--health-cmd", "test ! -e /sick", "--health-interval", "disable"]
    must(podman("run", "-d", "--name", "up", *PLACE, *health, "bb:1", "sleep", "1000"))
    assert must(podman("healthcheck", "run", "up")) == ""
    assert must(podman("inspect", "-f", "{{.State.Health.Status}}", "up")).strip() == "healthy"
    must(podman("exec", "up", "touch", "/sick"))
    assert podman("healthcheck", "run", "up").returncode == 1
    must(podman("update", "-m", "128m", "--cpus", "0.5", "up"))
    limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    assert must(podman("exec", "up", "sh", "-c", limits)).split() == [str(128 << 20), "50000"]
    must(podman("rm", "-f", "-t", "0", "up"))


def test_podman_checkpoints_and_restores(podman: Command, peer: Callable[[str], Path]) -> None:
    """A counter whose numbers come one after the other, as if nothing had happened."""
    peer("criu")
    count = "i=0; while true; do i=$((i + 1)); echo $i; sleep 0.1; done"
    must(podman("run", "-d", "--name", "frozen", *PLACE, "bb:1", "sh", "-c", count))
    reached(podman, "frozen", 3)
    must(podman("container", "checkpoint", "frozen"))
    assert must(podman("ps", "-a", "--filter", "name=frozen", "--format", "{{.Status}}")).startswith("Exited")
    before = reached(podman, "frozen", 3)
    must(podman("container", "restore", "frozen"))
    reached(podman, "frozen", before + 3)
    must(podman("rm", "-f", "-t", "0", "frozen"))


def reached(engine: Command, name: str, number: int) -> int:
    """Wait until a container that counts has logged the number, and nothing but numbers in order; return the last."""
    deadline = time.monotonic() + WAIT_S_MAX
    numbers: list[int] = []
    while not numbers or numbers[-1] < number:
        assert time.monotonic() < deadline, numbers
        numbers = [int(line) for line in must(engine("logs", name)).split()]
        assert numbers == list(range(1, len(numbers) + 1))
    return numbers[-1]


@pytest.fixture(scope="module")
def buildah(podman: Command, workspace: Workspace, peer: Callable[[str], Path]) -> Command:
    """`buildah run` in one working container; the words before the command."""
    home = workspace.directory / "p"
    env = workspace.environment(CONTAINERS_CONF=str(home / "containers.conf"))
    places = [f"--root={home / 'root'}", f"--runroot={home / 'run'}", "--storage-driver=overlay"]
    return Command(peer("buildah"), *places, **env)


@pytest.fixture(scope="module")
def step(buildah: Command, workspace: Workspace) -> Iterator[Command]:
    policy = workspace.directory / "p/policy.json"
    made = must(buildah("from", f"--signature-policy={policy}", "bb:1")).strip()
    run = ["run", "--isolation", "oci", "--network", "none", "--runtime", str(RUNTIME)]
    yield Command(*buildah.argv, *run, "-v", f"{workspace.path('gate-b')}:/gate", made, "--", **buildah.environment)
    must(buildah("rm", made))


@pytest.fixture(scope="module")
def ctr(podman: Command, workspace: Workspace, peer: Callable[[str], Path]) -> Command:
    """containerd with the image bb:1."""
    home = workspace.path("c")
    config = home / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{home}/s"\n'
    )
    env = workspace.environment()
    workspace.daemon([peer("containerd"), "-c", config, "-l", "error"], env, home / "s")
    call = Command(peer("ctr"), "-a", home / "s", **env)
    saved = home / "bb.tar"
    must(podman("save", "--format", "oci-archive", "-o", str(saved), "localhost/bb:1"))
    must(call("image", "import", str(saved)))
    must(call("image", "tag", must(call("image", "ls", "-q")).split()[0], "bb:1"))
    return call


def ctr_run(workspace: Workspace, name: str, *flags: str) -> list[str]:
    """Return ctr's words for a container of ours. Its state and its cgroup are the workspace's: else one in /run
    outlives a killed test, and the cgroup `default` every test.
    """
    runc = ["--runc-binary", str(RUNTIME), "--runc-root", str(workspace.directory / "c/runc")]
    return ["run", *runc, "--cgroup", f"/{CGROUP}/{name}", *flags, "bb:1", name]


@pytest.fixture
def many(request: pytest.FixtureRequest, workspace: Workspace) -> tuple[Path, Callable[[int, str], list[str]], Command]:
    """Return (a directory that every container sees at /gate, what runs a script in container n, the caller)."""
    name: str = request.param
    call: Command = request.getfixturevalue({"buildah": "step"}.get(name, name))
    gate = workspace.directory / "gate-b" if name == "buildah" else workspace.path(f"gate-{name[0]}")
    if name == "buildah":
        return gate, lambda n, script: ["sh", "-c", script], call
    if name == "ctr":
        flags = ["--rm", "--mount", f"type=bind,src={gate},dst=/gate,options=rbind"]
        return gate, lambda n, script: [*ctr_run(workspace, f"many{n}", *flags), "sh", "-c", script], call
    words = ["run", "--rm", *PLACE, "-v", f"{gate}:/gate", "bb:1"]
    return gate, lambda n, script: [*words, "sh", "-c", script], call


@pytest.mark.parametrize("many", (*ENGINES, "buildah", "ctr"), indirect=True)
def test_many_at_once(many: tuple[Path, Callable[[int, str], list[str]], Command]) -> None:
    """All of them run before the first may end."""
    gate, words, call = many
    script = "touch /gate/up-{0}; while [ ! -e /gate/go ]; do sleep 0.2; done; exit {0}"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            runs = [pool.submit(call, *words(n, script.format(n)), timeout=END_S_MAX) for n in range(AT_ONCE)]
            await_all(gate, runs)
        finally:
            (gate / "go").touch()  # whatever went wrong: none is left waiting, and each is removed by who runs it
        codes = [run.result() for run in runs]
    # buildah's own status is 1, or the command's: its words have it either way.
    assert [_code(done) for done in codes] == list(range(AT_ONCE)), [done for done in codes if done.returncode][:3]


def await_all(gate: Path, runs: Sequence[Future[subprocess.CompletedProcess[str]]]) -> None:
    """Wait until every run is up. However slow a machine is, another one comes up within WAIT_S_MAX."""
    up, deadline = 0, time.monotonic() + WAIT_S_MAX
    while up < len(runs):
        ended = [run.result() for run in runs if run.done()]
        assert not ended, ended[0]
        if (now := len(list(gate.glob("up-*")))) > up:
            up, deadline = now, time.monotonic() + WAIT_S_MAX
        assert time.monotonic() < deadline, f"{up} of {len(runs)} are up, and no other comes"
        time.sleep(0.1)


def _code(done: subprocess.CompletedProcess[str]) -> int:
    found = re.search(r"exit status (\d+)", done.stderr)
    return int(found[1]) if found else done.returncode


def test_buildah_runs_a_step(step: Command) -> None:
    assert must(step("sh", "-c", "echo step > /made; cat /made")) == "step\n"
    assert "exit status 4" in step("sh", "-c", "exit 4").stderr
    at = step.argv.index("run") + 1
    words = [*step.argv[:at], "--terminal", *step.argv[at:]]
    with Terminal([*words, "sh", "-c", "read word; test -t 0 && echo got $word"], step.environment) as terminal:
        terminal.send("word\n")
        terminal.expect("got word")
        assert terminal.wait() == 0


def test_ctr_runs_and_manages_a_task(ctr: Command, workspace: Workspace) -> None:
    assert must(ctr(*ctr_run(workspace, "one", "--rm"), "echo", "hi")) == "hi\n"
    assert ctr(*ctr_run(workspace, "two", "--rm"), "sh", "-c", "exit 6").returncode == 6
    must(ctr(*ctr_run(workspace, "three", "-d"), "sleep", "1000"))
    assert must(ctr("task", "exec", "--exec-id", "e", "three", "echo", "inside")) == "inside\n"
    shown([*ctr.argv, "task", "exec", "-t", "--exec-id", "t", "three"], ctr)
    shown([*ctr.argv, *ctr_run(workspace, "four", "--rm", "-t")], ctr)
    assert "memory" in must(ctr("task", "metrics", "three"))
    must(ctr("task", "pause", "three"))
    assert "PAUSED" in must(ctr("task", "ls"))
    must(ctr("task", "resume", "three"))
    must(ctr("task", "kill", "-s", "KILL", "three"))
    ctr("task", "delete", "-f", "three")
    must(ctr("container", "delete", "three"))


def test_ctr_checkpoints_a_task(
    ctr: Command, workspace: Workspace, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    """containerd's shim calls checkpoint with its own flags, and the task is gone afterwards."""
    peer("criu")
    count = "i=0; while true; do i=$((i + 1)); echo $i > /n; sleep 0.1; done"
    must(ctr(*ctr_run(workspace, "four", "-d"), "sh", "-c", count))
    must(ctr("task", "checkpoint", "--exit", "--image-path", str(tmp_path / "images"), "four"))
    assert {"inventory.img", "pstree.img", "core-1.img"} <= {path.name for path in (tmp_path / "images").iterdir()}
    assert "RUNNING" not in must(ctr("task", "ls"))
    ctr("task", "delete", "-f", "four")
    must(ctr("container", "delete", "four"))
