"""docker-compose 1.29, Debian's own in Python, unchanged against our docker.sock: a project's whole day."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support.engine import Environment

PROJECT = """
version: "3.8"
services:
  web:
    image: box:1
    command: sh -c 'cat /data/f; exec busybox httpd -f -p 80'
    depends_on: [db]
    volumes: ["data:/data"]
    ports: ["80"]
  db:
    image: box:1
    command: sh -c 'trap exit TERM; echo $$A >/data/f; while :; do sleep 0.1; done'
    volumes: ["data:/data"]
    environment: {A: hello}
    networks: {default: {aliases: [store]}}
volumes: {data: {}}
"""


@pytest.fixture
def compose(orlop: Environment, tmp_path: Path, peer: Callable[[str], Path]) -> Callable[..., str]:
    program = peer("docker-compose-1")
    with Workspace() as work:
        orlop("import", str(work.archive()), "box:1")
    (tmp_path / "docker-compose.yml").write_text(PROJECT)
    env = os.environ | {
        "DOCKER_HOST": f"unix://{orlop.run}/docker.sock",
        "PYTHONPATH": str(program.parents[1] / "lib/python3/dist-packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*words: str) -> str:
        argv = ["/usr/bin/python3", str(program), "--ansi", "never", "-p", "shop", *words]
        done = orlop.inside(
            lambda: subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


@pytest.mark.timeout(400)
def test_a_project_lives_and_leaves_nothing(compose: Callable[..., str], orlop: Environment) -> None:
    compose("up", "-d")
    assert "web_1  | hello" in compose("logs", "--no-color", "web")
    assert compose("exec", "-T", "db", "cat", "/data/f") == "hello\n"
    assert "10." in compose("exec", "-T", "web", "busybox", "nslookup", "store")
    assert compose("port", "web", "80").startswith("0.0.0.0:")
    assert compose("run", "--rm", "-T", "db", "echo", "once") == "once\n"
    compose("up", "-d", "--scale", "db=2")
    assert compose("ps", "-q", "db").count("\n") == 2
    compose("down", "-v", "-t", "1")
    assert orlop("ps", "-aq").stdout == orlop("volume", "ls", "-q").stdout == ""
    assert "shop" not in orlop("network", "ls").stdout
