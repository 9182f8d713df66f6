"""docker's own daemon as a client of what we push, load and save: the same digests, the same ID, and it runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import platforms
from bench.workspace import Workspace
from devtools.failure import Failure
from support import processes
from support.engine import Environment
from support.registries import debian_registry


@pytest.fixture
def docker(orlop: Environment, peer: Callable[[str], Path]) -> Iterator[Callable[..., str]]:
    """`docker(*args)` runs docker's client on a daemon of its own, in the engine's network; returns its output."""
    peer("dockerd")
    with Workspace() as work:
        try:
            made = orlop.inside(lambda: platforms.docker(work))
        except Failure as refused:
            pytest.fail(f"dockerd does not come up: {refused}")

        def run(*args: str) -> str:
            words = [made.run.argv[0], *args]
            done = orlop.inside(lambda: subprocess.run(words, env=made.run.env, capture_output=True, text=True))
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        yield run
    # containerd and its shims end after dockerd has, on their own
    deadline = time.monotonic() + 30
    while any(str(work.directory) in processes.title(pid) for pid in processes.pids()):
        assert time.monotonic() < deadline, "something of dockerd's does not end"
        time.sleep(0.05)


def test_docker_and_we_read_each_other(
    orlop: Environment, docker: Callable[..., str], peer: Callable[[str], Path], tmp_path: Path
) -> None:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as registry:
        name, back = f"{registry}/dk/host:1", f"{registry}/dk/back:1"
        orlop("run", "--rm", "--network", "none", "host", "true")
        orlop("tag", "host", name)
        orlop("push", "-q", name)
        ours = orlop("image", "inspect", name, "-f", "{{.Id}} {{index .RepoDigests 0}}").stdout.split()
        docker("pull", "-q", name)
        assert docker("image", "inspect", name, "-f", "{{.Id}} {{index .RepoDigests 0}}").split() == ours
        orlop("save", "-o", tmp_path / "ours.tar", name)
        docker("rmi", "-f", name)
        assert docker("load", "-i", str(tmp_path / "ours.tar")) == f"Loaded image: {name}"
        assert docker("run", "--rm", "--network", "none", name, "sh", "-c", "echo from docker") == "from docker"
        docker("save", "-o", str(tmp_path / "theirs.tar"), name)
        docker("tag", name, back)
        docker("push", back)
        orlop("rmi", "-f", name)
        assert orlop("load", "-i", tmp_path / "theirs.tar").stdout == f"Loaded image: {name}\n"
        assert orlop("image", "inspect", name, "-f", "{{.Id}}").stdout.strip() == ours[0]
        orlop("pull", "-q", back)
        digest = orlop("images", "--digests", "--format", "{{.Digest}}", back).stdout.strip()
        assert f"{registry}/dk/back@{digest}" in docker("image", "inspect", back, "-f", "{{json .RepoDigests}}")
        assert orlop("run", "--rm", "--network", "none", back, "echo", "ok").stdout == "ok\n"
