"""Builds whose engine, client, monitor or command is killed at any moment: no cache is lost, nothing is left, and the
next build is right.

ORLOP_TEST_KILLS: how many kills of each kind (a few by default, hundreds in a night); ORLOP_TEST_SEED: which moments.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from support import processes
from support.engine import Environment

KILLS = int(os.environ.get("ORLOP_TEST_KILLS", "2"))
SEED = int(os.environ.get("ORLOP_TEST_SEED", "1"))
WAIT_S_MAX = 90.0
BUILD_S_MAX = 0.8  # what the build takes here, roughly: the moment of a kill is drawn from this
DOCKERFILE = """\
FROM host AS kept
RUN echo kept > /kept
FROM kept AS one
ARG N
RUN --mount=type=cache,target=/c,id=kills --mount=type=secret,id=s echo $N >> /c/log; sleep 0.3; echo one$N > /one
RUN head -c 300000 /dev/zero > /zeros; mkdir /d; ln -s /one /d/link
FROM kept AS other
ARG N
RUN sleep 0.3; echo other$N > /other
FROM one
COPY --from=other /other /other
COPY f /f
"""
LOOK = ("sh", "-c", "cat /kept /one /other /f; wc -c < /zeros; readlink /d/link")


def children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []  # it ended just now
    return [int(word) for task in tasks for word in processes.read(pid, f"task/{task}/children").split()]


class Story:
    def __init__(self, orlop: Environment, place: Path) -> None:
        self.orlop = orlop
        self.place = place
        self.random = random.Random(SEED)
        (place / "context").mkdir()
        (place / "context/Dockerfile").write_text(DOCKERFILE)
        (place / "context/f").write_text("of the context\n")
        (place / "secret").write_text("a secret of kills")
        self.number = 0

    def words(self, *options: str) -> list[str]:
        secret = f"id=s,src={self.place / 'secret'}"
        own = ["--network=none", "--secret", secret, "--build-arg", f"N={self.number}", "-t", "kills:1"]
        return ["build", "--progress=plain", *own, *options, str(self.place / "context")]

    def victims(self, kind: str) -> list[int]:
        found = self.orlop.processes()
        titles = {pid: processes.title(pid) for pid in found}
        if kind == "engine":
            return [pid for pid in (self.orlop.engine_pid(),) if pid]
        monitors = [pid for pid in found if "orlop: monitor" in titles[pid]]
        if kind == "monitor":
            return monitors
        return [pid for pid in processes.pids() if processes.parent(pid) in monitors]

    def working(self, kind: str) -> list[int]:
        """The same by looking at the engine's children alone: on a busy machine a step ends while all are looked at."""
        engine = self.orlop.engine_pid()
        if kind == "engine" or not engine:
            return [engine] if engine else []
        below = [pid for spawner in children(engine) for pid in children(spawner)]
        monitors = [pid for pid in below if "orlop: monitor" in processes.title(pid)]
        return monitors if kind == "monitor" else [pid for monitor in monitors for pid in children(monitor)]

    def killed(self, kind: str) -> bool:
        """Build, and kill one process of a kind at some moment. Tell whether there was one."""
        self.orlop("version")
        command = self.orlop.popen(*self.words(), stdin=-3, stdout=-3, stderr=-2)
        deadline = time.monotonic() + self.random.random() * BUILD_S_MAX
        while time.monotonic() < deadline and command.poll() is None:
            time.sleep(0.005)
        chosen = [command.pid] if kind == "client" else []
        while not chosen and command.poll() is None:
            chosen = self.working(kind)
        for pid in chosen[:1]:
            processes.kill(pid, processes.start_time(pid))
        command.communicate(timeout=WAIT_S_MAX)
        return bool(chosen)

    def check(self) -> None:
        told = self.orlop(*self.words()).stderr
        (kept,) = {line.split()[0] for line in told.splitlines() if "RUN echo kept" in line}
        assert f"{kept} CACHED" in told, f"what an earlier build had made is lost:\n{told}"
        wanted = f"kept\none{self.number}\nother{self.number}\nof the context\n300000\n/one\n"
        assert self.orlop("run", "--rm", "--network=none", "kills:1", *LOOK).stdout == wanted
        first = self.image_id()
        self.orlop(*self.words("--no-cache"))
        assert self.image_id() == first, "what was in the cache is not what the steps make"

    def image_id(self) -> str:
        return self.orlop("image", "inspect", "-f", "{{.Id}}", "kills:1").stdout

    def left(self) -> list[str]:
        places = [self.orlop.root / "snapshots/active", self.orlop.root / "containers"]
        found = [str(path) for place in places if place.is_dir() for path in place.iterdir()]
        found = [
            path for path in found if "/kept-" not in path
        ]  # the tree of a step that failed is there to be entered
        found += [str(path) for path in self.orlop.run.glob("build-*")]
        # An image of a build that was killed has no record: it is swept, not listed.
        records = self.orlop.root / "build/builds"
        found += [str(path) for path in records.iterdir() if not (path / "build.json").exists()]
        found += [processes.title(pid) for kind in ("monitor", "step") for pid in self.victims(kind)]
        engine = self.orlop.engine_pid()
        assert engine is not None
        mounts = Path(f"/proc/{engine}/mountinfo").read_text().splitlines()
        return found + [line for line in mounts if str(self.orlop.root) in line]


@pytest.mark.parametrize("kind", ["engine", "client", "monitor", "step"])
@pytest.mark.timeout(300 + KILLS * 30)
def test_a_kill_in_a_build_loses_no_cache_and_leaves_nothing(orlop: Environment, tmp_path: Path, kind: str) -> None:
    story = Story(orlop, tmp_path)
    orlop(*story.words())
    before = story.left()
    assert before == []
    hit = 0
    for story.number in range(1, KILLS + 1):
        hit += story.killed(kind)
        story.check()
        deadline = time.monotonic() + WAIT_S_MAX
        while left := story.left():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    assert hit or KILLS < 2, "nobody was killed"
    assert orlop("system", "fsck").code == 0
    assert b"a secret of kills" not in b"".join(
        path.read_bytes() for path in orlop.root.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20
    )
