"""Restart policies, health checks and --init beside a real dockerd (20.10): the same states, counts and words."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bench.workspace import Workspace
from support.archives import Archive
from support.engine import Environment

IMAGE = "box"
WAIT_S_MAX = 60.0
T = TypeVar("T")
LINKS = "sh sleep true false echo kill test head tr cat".split()


@pytest.fixture(scope="module")
def archive(peer: Callable[[str], Path]) -> bytes:
    made = Archive().directory(b"bin").file(b"bin/busybox", peer("busybox").read_bytes(), mode=0o755)
    for name in LINKS:
        made.symlink(b"bin/" + name.encode(), b"busybox")
    return bytes(made.directory(b"tmp", mode=0o1777))


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as place:
        yield place


class Side:
    """One of the two: `side(*words)` runs its command line."""

    def __init__(self, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.run = run

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    def refusal(self, *words: str) -> tuple[int, str]:
        done = self.run(*words)
        return done.returncode, done.stderr

    def state(self, name: str, template: str) -> str:
        return self("inspect", "-f", template, name)

    def wait_for(self, name: str, template: str, value: str) -> None:
        until(lambda: self.state(name, template), lambda now: now == value)


def until(look: Callable[[], T], is_wanted: Callable[[T], bool]) -> None:
    """Look again and again until what is seen is wanted."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not is_wanted(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.03)


@pytest.fixture(scope="module")
def docker(workspace: Workspace, archive: bytes, peer: Callable[[str], Path]) -> Side:
    env = workspace.dockerd("d", "--storage-driver=vfs", program=peer("dockerd")).env

    def call(*words: str, input: bytes = b"") -> subprocess.CompletedProcess[str]:
        argv = [str(peer("docker")), *words]
        done = subprocess.run(argv, env=env, input=input, capture_output=True, timeout=120, check=False)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())

    assert call("import", "-", IMAGE, input=archive).returncode == 0
    return Side(call)


@pytest.fixture(scope="module")
def ours(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    environment = Environment(tmp_path_factory.mktemp("ours") / "root")
    environment("import", "-", IMAGE, input=archive)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        done = environment(*words, check=False, timeout=120)
        return subprocess.CompletedProcess(list(words), done.code, done.stdout, done.stderr)

    yield Side(call)
    assert not environment.close()


@pytest.fixture(params=["docker", "ours"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """Each story is told to both: what it asserts is then docker's behaviour, and ours."""
    found: Side = request.getfixturevalue(request.param)
    yield found
    for container in found("ps", "-aq").split():
        found.run("rm", "-f", container)


def run(side: Side, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
    side("run", "-d", "--name", "it", "--network", "none", *flags, IMAGE, *command)


STATE = "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}} {{.State.Running}} {{.State.Restarting}}"


def test_on_failure(side: Side) -> None:
    run(side, "--restart", "on-failure:2", command=("sh", "-c", "exit 5"))
    side.wait_for("it", STATE, "exited 2 5 false false")
    assert side.state("it", "{{json .HostConfig.RestartPolicy}}") == '{"Name":"on-failure","MaximumRetryCount":2}'
    side("start", "it")
    side.wait_for("it", STATE, "exited 2 5 false false")


def test_always_waits_and_stops(side: Side) -> None:
    run(side, "--restart", "always", command=("sh", "-c", "exit 6"))
    assert side("wait", "it") == "6"
    side.wait_for(
        "it", "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.Pid}}", "restarting true true 0"
    )
    # Each pause is twice the one before; a command may come just when it is over.
    until(lambda: side("ps", "--format", "{{.Status}}"), lambda status: "Restarting (6) " in status)
    waits = "is restarting, wait until the container is running"
    until(lambda: side.refusal("exec", "it", "true"), lambda refusal: refusal[0] == 1 and waits in refusal[1])
    code, told = side.refusal("rm", "it")
    assert code == 1 and "container before" in told
    side("stop", "it")
    side.wait_for("it", "{{.State.Status}} {{.State.Running}}", "exited false")
    count = side.state("it", "{{.RestartCount}}")
    time.sleep(1)
    assert side.state("it", "{{.RestartCount}}") == count


def test_a_kill_is_an_end(side: Side) -> None:
    run(side, "--restart", "always")
    side("kill", "it")
    side.wait_for("it", STATE, "exited 0 137 false false")
    side("start", "it")
    side("update", "--restart", "no", "it")
    os.kill(int(side.state("it", "{{.State.Pid}}")), 9)
    side.wait_for("it", STATE, "exited 0 137 false false")


def test_somebody_else_s_kill_is_not(side: Side) -> None:
    run(side, "--restart", "unless-stopped")
    os.kill(int(side.state("it", "{{.State.Pid}}")), 9)
    side.wait_for("it", "{{.State.Status}} {{.RestartCount}}", "running 1")
    started, finished = (side.state("it", f"{{{{.State.{name}}}}}") for name in ("StartedAt", "FinishedAt"))
    assert "0001-01-01T00:00:00Z" < finished < started
    side("restart", "-t", "0", "it")
    assert side.state("it", "{{.State.Status}} {{.RestartCount}}") == "running 0"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--restart", "bogus"), "invalid restart policy"),
        (("--restart", "on-failure:x"), "maximum retry count must be an integer"),
        (("--restart", "always:3"), "maximum ret"),
        (("--no-healthcheck", "--health-cmd", "x"), "--no-healthcheck conflicts with --health-* options"),
        (("--health-interval", "-1s", "--health-cmd", "x"), "--health-interval cannot be negative"),
        (("--health-interval", "1us", "--health-cmd", "x"), "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_what_is_refused(side: Side, flags: tuple[str, ...], words: str) -> None:
    code, told = side.refusal("run", "-d", *flags, IMAGE, "true")
    assert code == 125 and words in told, told


CHECKED = ("--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "10s")


def health(side: Side) -> dict[str, Any]:
    return dict(json.loads(side.state("it", "{{json .State.Health}}")))


def test_health_changes(side: Side) -> None:
    run(side, *CHECKED, "--health-cmd", "echo said; test -e /tmp/well")
    assert json.loads(side.state("it", "{{json .Config.Healthcheck}}")) == {
        "Test": ["CMD-SHELL", "echo said; test -e /tmp/well"],
        "Interval": 200_000_000,
        "Timeout": 10_000_000_000,
        "Retries": 2,
    }
    side.wait_for("it", "{{.State.Health.Status}}", "unhealthy")
    assert "(unhealthy)" in side("ps", "--format", "{{.Status}}")
    found = health(side)
    assert sorted(found) == ["FailingStreak", "Log", "Status"] and found["FailingStreak"] >= 2
    assert sorted(found["Log"][-1]) == ["End", "ExitCode", "Output", "Start"]
    assert (found["Log"][-1]["ExitCode"], found["Log"][-1]["Output"]) == (1, "said\n")
    side("exec", "it", "sh", "-c", ": > /tmp/well")
    side.wait_for("it", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", "healthy 0")
    deadline = time.monotonic() + WAIT_S_MAX
    while len(health(side)["Log"]) < 5:
        assert time.monotonic() < deadline
    assert len(health(side)["Log"]) == 5


def test_health_begins_with_starting_in_each_run(side: Side) -> None:
    run(side, "--health-interval", "1h", "--health-cmd", "true")
    assert health(side) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    side("restart", "-t", "0", "it")
    assert health(side)["Status"] == "starting"


def test_a_check_that_takes_too_long(side: Side) -> None:
    run(side, *CHECKED, "--health-timeout", "300ms", "--health-cmd", "sleep 50")
    side.wait_for("it", "{{.State.Health.Status}}", "unhealthy")
    last = health(side)["Log"][-1]
    assert last["ExitCode"] == -1 and last["Output"].startswith("Health check exceeded timeout (")


def test_long_output(side: Side) -> None:
    run(side, *CHECKED, "--health-cmd", "head -c 9000 /dev/zero | tr '\\0' x")
    side.wait_for("it", "{{.State.Health.Status}}", "healthy")
    output = health(side)["Log"][-1]["Output"]
    assert output == "x" * 4096 + "..."


def test_init(side: Side) -> None:
    run(side, "--init")
    side("stop", "it")
    side.wait_for("it", STATE, "exited 0 143 false false")
    assert side.state("it", "{{.HostConfig.Init}}") == "true"


def test_shared_memory_is_joined_by_name(side: Side) -> None:
    joins = ("run", "--rm", "--network", "none", "--ipc", "container:it", IMAGE, "cat", "/dev/shm/said")
    run(side)
    code, told = side.refusal(*joins)
    assert code == 125 and "can't join IPC of container " in told
    assert ": non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in told
    side("rm", "-f", "it")
    run(side, "--ipc", "shareable", command=("sh", "-c", "echo shared > /dev/shm/said; exec sleep 1000"))
    assert side(*joins) == "shared"
    side("stop", "-t", "0", "it")
    code, told = side.refusal(*joins)
    assert code == 125 and "can't join IPC of container " in told and " is not running" in told


def test_a_tmpfs_volume_is_shared_and_goes_with_its_last_user(side: Side) -> None:
    side("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    run(side, "-v", "memory:/m", command=("sh", "-c", "echo shared > /m/said; exec sleep 1000"))
    reads = ("run", "--rm", "--network", "none", "-v", "memory:/m", IMAGE, "sh", "-c", "cat /m/* || true")
    until(lambda: side(*reads), lambda seen: "shared" in seen)
    side("rm", "-f", "it")
    assert "shared" not in side(*reads)
    side("volume", "rm", "memory")
