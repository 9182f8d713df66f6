"""I1, at length: engines and monitors are killed at any moment of any verb, and nothing is lost, stuck or left.

ORLOP_TEST_KILLS: how many kills (a few by default, hundreds in a night); ORLOP_TEST_SEED: which moments.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from support import processes
from support.engine import Environment
from support.tasks import wait_for_end

KILLS = int(os.environ.get("ORLOP_TEST_KILLS", "15"))
SEED = int(os.environ.get("ORLOP_TEST_SEED", "1"))
WAIT_S_MAX = 90.0
VERB_S_MAX = 0.4  # what a verb takes here, roughly: the moment of a kill is drawn from this
WRITER = "i=0; while [ ! -e /end ]; do echo line $i; i=$((i+1)); sleep 0.005; done; echo last $i; exit 9"
OBEDIENT = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"


def wait_until(condition: Callable[[], object], what: object) -> object:
    deadline = time.monotonic() + WAIT_S_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


class Story:
    """What is done while the kills fall: a verb is begun, its engine is killed, and what must hold is checked."""

    def __init__(self, orlop: Environment) -> None:
        self.orlop = orlop
        self.random = random.Random(SEED)
        self.count = 0

    def interrupted(self, *words: str | os.PathLike[str]) -> tuple[int, str]:
        """Begin a command, kill the engine at some moment, wait for the command; return its status and output."""
        self.orlop("ps")  # an engine is there
        pid = self.orlop.engine_pid()
        command = self.orlop.popen(*words, stdin=-3, stdout=-1, stderr=-2)
        time.sleep(self.random.random() * VERB_S_MAX)
        if pid is not None:
            start = processes.start_time(pid)
            processes.kill(pid, start)
            # With its last thread the listening socket goes: until then somebody may still be connected to it.
            wait_for_end(pid, start)
        out, _ = command.communicate(timeout=WAIT_S_MAX)
        return command.returncode, out.decode()

    def new_name(self) -> str:
        self.count += 1
        return f"c{self.count}"

    def inspect(self, name: str) -> dict[str, object] | None:
        done = self.orlop("inspect", "-f", "{{json .State}}", name, check=False)
        return dict(json.loads(done.stdout)) if done.code == 0 else None

    def settled(self, name: str) -> tuple[str, int]:
        """Return state and exit code of a container that does not run any more."""

        def look() -> tuple[str, int] | None:
            state = self.inspect(name)
            if state is None:
                return "gone", -1
            over = state["Status"] in ("exited", "created") and not self.is_starting(name)
            return (str(state["Status"]), int(str(state["ExitCode"]))) if over else None

        found = wait_until(look, f"{name} is stuck: {self.inspect(name)}")
        assert isinstance(found, tuple)
        return found

    def is_starting(self, name: str) -> bool:
        """Whether a launcher works: then "created" is not the last word."""
        return any("launcher" in processes.title(pid) for pid in self.orlop.processes())

    def forget(self, name: str) -> None:
        said = self.orlop("rm", "-f", name, check=False)
        wait_until(lambda: self.inspect(name) is None, f"{name} can't be removed: {said}")

    # -- the verbs --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        name = self.new_name()
        self.interrupted("run", "-d", "--name", name, "host", "sh", "-c", "echo said; exit 7")
        state, code = self.settled(name)
        assert (state, code) in (("gone", -1), ("created", 0), ("exited", 7)), (state, code)
        if state == "exited":
            assert self.orlop("logs", name).stdout == "said\n"
        self.forget(name)

    def start(self) -> None:
        name = self.new_name()
        self.orlop("create", "--name", name, "host", "sh", "-c", "exit 7")
        self.interrupted("start", name)
        assert self.settled(name) in (("created", 0), ("exited", 7))
        self.orlop("start", name)
        assert self.settled(name) == ("exited", 7)
        self.forget(name)

    def stop(self) -> None:
        name = self.new_name()
        self.orlop("run", "-d", "--name", name, "host", "sh", "-c", OBEDIENT)
        wait_until(lambda: "ready" in self.orlop("logs", name).stdout, name)
        self.interrupted("stop", "-t", "60", name)
        self.orlop("stop", "-t", "60", name)
        assert self.settled(name) == ("exited", 5)
        self.forget(name)

    def restarter(self) -> None:
        name = self.new_name()
        self.orlop(
            "run", "-d", "--name", name, "--restart", "always", "host", "sh", "-c", "echo run; sleep 0.1; exit 3"
        )
        self.interrupted("stop", "-t", "60", name)
        self.orlop("stop", "-t", "60", name)
        state, _ = self.settled(name)
        assert state == "exited"
        runs = self.orlop("logs", name).stdout.splitlines()
        count = int(self.orlop("inspect", "-f", "{{.RestartCount}}", name).stdout)
        assert runs in (["run"] * (count + 1), ["run"] * count), (
            "the last may have been stopped before it said anything"
        )
        self.forget(name)

    def exec(self) -> None:
        code, out = self.interrupted("exec", "writer", "sh", "-c", "echo begun; sleep 0.05; echo done; exit 3")
        assert code == 3 or "begun" not in out, (code, out)
        assert code != 3 or out == "begun\ndone\n"
        assert self.orlop("exec", "writer", "echo", "hi").stdout == "hi\n"

    def copy(self) -> None:
        data = self.random.randbytes(300_000)
        source = self.orlop.root.parent / "source"
        source.write_bytes(data)
        self.interrupted("cp", source, "writer:/tmp/copied")
        self.orlop("cp", source, "writer:/tmp/copied")
        target = self.orlop.root.parent / "target"
        self.interrupted("cp", "writer:/tmp/copied", target)
        self.orlop("cp", "writer:/tmp/copied", target)
        assert target.read_bytes() == data

    def commit(self) -> None:
        image = f"local/kept:{self.count}"
        self.interrupted("commit", "writer", image)
        self.orlop("commit", "writer", image)
        assert self.orlop("run", "--rm", image, "sh", "-c", "exit 4", check=False).code == 4

    def monitor(self) -> None:
        name = self.new_name()
        container = self.orlop("run", "-d", "--name", name, "host", "sleep", "1000").stdout.strip()
        status = json.loads((self.orlop.root / "containers" / container / "status.json").read_text())
        if self.random.random() < 0.5:
            self.interrupted("ps")
        processes.kill(status["monitorPid"], status["monitorStartTime"])
        state, code = self.settled(name)
        assert state == "exited" and code in (137, 255)
        wait_for_end(status["pid"], status["pidStartTime"])  # an engine sees to it
        self.forget(name)

    def remove(self) -> None:
        name = self.new_name()
        self.orlop("run", "-d", "--name", name, "host", "sleep", "1000")
        self.interrupted("rm", "-f", name)
        self.forget(name)


@pytest.fixture
def story(orlop: Environment) -> Iterator[Story]:
    yield Story(orlop)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_engines_and_monitors_are_killed_and_nothing_is_lost(story: Story) -> None:
    orlop = story.orlop
    orlop("run", "-d", "--name", "writer", "host", "sh", "-c", WRITER)
    verbs = (
        story.run,
        story.start,
        story.stop,
        story.restarter,
        story.exec,
        story.copy,
        story.commit,
        story.monitor,
        story.remove,
    )
    for number in range(KILLS):
        verbs[number % len(verbs)]()
    # The writer may see the file, and end with all in its PID namespace, before the command itself has ended: 137.
    assert orlop("exec", "writer", "touch", "/end", check=False).code in (0, 137)
    assert orlop("wait", "writer").stdout.strip() == "9"
    *lines, last = orlop("logs", "writer").stdout.splitlines()
    assert lines == [f"line {index}" for index in range(len(lines))] and last == f"last {len(lines)}"
    assert orlop("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["writer"]
    orlop("rm", "writer")
    assert orlop.container_ids() == []
    assert os.listdir(orlop.run / "tasks") == []
