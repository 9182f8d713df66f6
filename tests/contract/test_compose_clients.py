"""Every other program that brings up compose projects, unchanged, with the same project of five services.

Docker Compose v2 and docker-compose 1.29 speak to our docker.sock; podman-compose runs a program called `podman`, which
is a link to ours; its pods share nothing and are a name that containers have in common. db has to be healthy before api
starts, and api to be there before web; once runs to its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.workspace import Workspace
from support.engine import COMMAND, Environment

PROJECT = """
services:
  db:
    image: box:1
    command: ["sh", "-c", "echo db up; sleep 1; echo $$WHO > /data/ready; exec sleep 1000"]
    stop_signal: KILL
    volumes: ["data:/data"]
    environment: {WHO: store}
    healthcheck: {test: ["CMD", "busybox", "test", "-f", "/data/ready"], interval: 1s, retries: 60}
    networks: {back: {aliases: [store]}}
  cache: {image: "box:1", command: sleep 1000, stop_signal: KILL, networks: [back], tmpfs: /scratch}
  api:
    image: box:1
    command: ["sh", "-c", "echo api sees $$(cat /data/ready); exec busybox httpd -f -p 80 -h /data"]
    stop_signal: KILL
    volumes: ["data:/data:ro"]
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}
    networks: [back, front]
  web:
    image: box:1
    command: sleep 1000
    stop_signal: KILL
    depends_on: [api]
    ports: ["127.0.0.1:18077:80"]
    networks: [front]
    labels: {tier: front}
    read_only: true
    ulimits: {nofile: 100}
    restart: unless-stopped
  once: {image: "box:1", command: echo once done, depends_on: [db], networks: [back]}
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
"""
CLIENTS = ("docker-compose", "docker-compose-1", "podman-compose", "podman-compose in a pod")


class Client:
    """One of the programs, for the project `shop` in a directory."""

    def __init__(self, name: str, program: Path, environment: Environment, directory: Path) -> None:
        self.name, self._environment, self._directory = name, environment, directory
        self._env = os.environ | {
            "DOCKER_HOST": f"unix://{environment.run}/docker.sock",
            "DOCKER_CONFIG": str(directory),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._argv = [str(program), "-p", "shop"]
        if name == "docker-compose-1":
            self._argv = ["/usr/bin/python3", str(program), "--ansi", "never", "-p", "shop"]
            self._env["PYTHONPATH"] = str(program.parents[1] / "lib/python3/dist-packages")
        elif name.startswith("podman-compose"):
            (directory / "bin").mkdir()
            (directory / "bin/podman").symlink_to(COMMAND)
            self._env |= environment.variables | {"PATH": f"{directory}/bin:{os.environ['PATH']}"}
            self._argv += [] if name.endswith("in a pod") else ["--in-pod=false"]

    def __call__(self, *words: str) -> str:
        done = self._environment.inside(
            lambda: subprocess.run(
                [*self._argv, *words],
                cwd=self._directory,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=110,
            )
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return str(done.stdout)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, orlop: Environment, tmp_path: Path, peer: Callable[[str], Path]) -> Client:
    with Workspace() as work:
        orlop("import", str(work.archive()), "box:1")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    own = Path(sys.executable).parent / "podman-compose"
    is_podmans = request.param.startswith("podman-compose")
    return Client(request.param, own if is_podmans else peer(request.param), orlop, tmp_path)


def _inspected(orlop: Environment) -> dict[str, dict[str, Any]]:
    """Return docker's objects of the project's containers by their services."""
    ids = orlop("ps", "-aq", "--no-trunc").stdout.split()
    found = json.loads(orlop("inspect", *ids).stdout) if ids else []
    return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}


def test_five_services_have_their_day(client: Client, orlop: Environment) -> None:
    is_podmans = client.name.startswith("podman-compose")
    client("up", "-d")
    orlop("wait", "--condition", "exited", *[str(one["Id"]) for key, one in _inspected(orlop).items() if key == "once"])
    made = _inspected(orlop)
    states = {service: one["State"] for service, one in made.items()}
    assert {name: state["Status"] for name, state in states.items()} == {
        "db": "running",
        "cache": "running",
        "api": "running",
        "web": "running",
        "once": "exited",
    }
    healthy_at = next(one["End"] for one in states["db"]["Health"]["Log"] if one["ExitCode"] == 0)
    assert states["db"]["StartedAt"] < healthy_at < states["api"]["StartedAt"] < states["web"]["StartedAt"]
    assert "api sees store" in client("logs", "api")
    assert client("exec", "-T", "cache", "busybox", "wget", "-qO-", "http://api/ready") == "store\n"
    assert "10." in client("exec", "-T", "cache", "busybox", "nslookup", "store")
    assert made["web"]["HostConfig"]["ReadonlyRootfs"] is True
    assert client("port", "web", "80").strip().removeprefix("127.0.0.1:") == "18077"
    if client.name == "podman-compose in a pod":  # its default; the pod is its containers
        assert all(one["Config"]["Labels"]["io.orlop.pod"] == "pod_shop" for one in made.values())
    shown = client("ps")
    assert all(made[service]["Name"].removeprefix("/") in shown for service in ("db", "cache", "api", "web"))
    client("pause", "cache")
    assert _inspected(orlop)["cache"]["State"]["Status"] == "paused"
    client("unpause", "cache")
    client("stop", "cache")
    assert _inspected(orlop)["cache"]["State"]["Status"] == "exited"
    client("start", "cache")
    client("kill", "cache")
    assert client("run", "--rm", "-T", "--no-deps", "cache", "echo", "one more").endswith("one more\n")
    before = {service: one["Id"] for service, one in _inspected(orlop).items()}
    client("up", "-d", *(["--scale", "cache=2"] if not is_podmans else []))
    after = _inspected(orlop)
    assert {service: one["Id"] for service, one in after.items() if service != "cache"} == {
        service: container for service, container in before.items() if service != "cache"
    }, "nothing had changed"
    if not is_podmans:
        assert client("ps", "-q", "cache").count("\n") == 2
    client("down", "-v")
    assert orlop("ps", "-aq").stdout == orlop("volume", "ls", "-q").stdout == ""
    assert "shop" not in orlop("network", "ls").stdout
