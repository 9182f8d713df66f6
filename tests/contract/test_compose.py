"""Docker Compose v2, unchanged, against our docker.sock: a project comes up in order, finds itself, and goes."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Environment

PROJECT = """
name: shop
services:
  db:
    image: host
    command: sh -c 'echo db up; trap "exit 0" TERM; while :; do sleep 0.1; done'
    healthcheck: {test: ["CMD", "test", "-e", "/data"], interval: 1s, retries: 30}
    volumes: ["data:/data"]
    networks: {back: {aliases: [store]}}
  web:
    image: host
    command: sh -c 'getent hosts db store; echo $$GREETING; cat /run/note'
    environment: {GREETING: hello}
    configs: [{source: note, target: /run/note}]
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
  tool:
    image: host
    profiles: [tools]
    network_mode: none
    command: echo tool
volumes: {data: {}}
networks: {back: {}}
configs: {note: {file: ./note}}
"""


class Compose:
    def __init__(self, program: Path, environment: Environment, directory: Path) -> None:
        self._argv, self._directory, self._inside = [str(program)], directory, environment.inside
        socket = environment.run / "docker.sock"
        self._env = os.environ | {"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(directory)}

    def __call__(self, *words: str) -> str:
        done = self._inside(
            lambda: subprocess.run(
                [*self._argv, *words], cwd=self._directory, env=self._env, capture_output=True, text=True, timeout=110
            )
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def services(self) -> dict[str, dict[str, object]]:
        return {one["Service"]: one for one in map(json.loads, self("ps", "-a", "--format", "json").splitlines())}


@pytest.fixture
def compose(orlop: Environment, tmp_path: Path, peer: Callable[[str], Path]) -> Iterator[Compose]:
    orlop("info")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    (tmp_path / "note").write_text("a note\n")
    yield Compose(peer("docker-compose"), orlop, tmp_path)


def test_a_project_lives_and_leaves_nothing(compose: Compose, orlop: Environment) -> None:
    compose("up", "-d")
    while (services := compose.services())["web"]["State"] != "exited":
        time.sleep(0.1)
    assert (services["db"]["State"], services["db"]["Health"]) == ("running", "healthy")
    assert (services["web"]["State"], services["web"]["ExitCode"]) == ("exited", 0)
    lines = compose("--ansi=never", "logs", "--no-log-prefix", "--no-color", "web").replace("\x1b[2K", "").splitlines()
    address = lines[0].split()[0]
    assert [line.split() for line in lines] == [[address, "db"], [address, "store"], ["hello"], ["a", "note"]]
    assert compose("exec", "-T", "db", "sh", "-c", "echo in >/data/f; cat /data/f") == "in\n"
    assert compose("run", "--rm", "-T", "tool") == "tool\n"
    compose("up", "-d", "--scale", "db=2", "--no-recreate")
    assert len(compose("ps", "-q", "db").split()) == 2
    compose("restart", "-t", "2", "db")
    compose("down", "-v", "-t", "2")
    assert orlop("ps", "-aq").stdout == ""
    assert orlop("volume", "ls", "-q").stdout == ""
    assert "shop" not in orlop("network", "ls").stdout


def test_either_finds_what_the_other_has_made(compose: Compose, orlop: Environment, tmp_path: Path) -> None:
    own = ("compose", "-f", tmp_path / "compose.yaml")
    orlop(*own, "up", "-d", "db")
    assert {name: one["State"] for name, one in compose.services().items()} == {"db": "running"}
    compose("stop")
    assert json.loads(orlop(*own, "ps", "-a", "--format", "json").stdout)["State"] == "exited"
    compose("down", "-v")
    assert orlop("ps", "-aq").stdout == "" and "shop" not in orlop("volume", "ls").stdout
    compose("up", "-d", "db")
    orlop(*own, "down", "-v")
    assert compose.services() == {} and "shop" not in orlop("network", "ls").stdout + orlop("volume", "ls").stdout
