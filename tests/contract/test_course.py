"""The commands of a course on containers, in its order, by docker's own client on a machine without a network.

What it fetches is what `orlop bootstrap` makes; the registry that it logs in to is ours.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux.netlink import namespace
from support import registry_server
from support.engine import Environment
from support.terminal import Terminal

WAIT_S_MAX = 60.0
COUNTER = "while true; do echo hello world; sleep 0.1; done"


class Course:
    """docker's client, on our socket."""

    def __init__(self, orlop: Environment, program: Path, place: Path) -> None:
        self.orlop, self.program = orlop, program
        self.env = os.environ | {"DOCKER_HOST": f"unix://{orlop.run}/docker.sock", "DOCKER_CONFIG": str(place)}

    def __call__(self, *words: str, code: int = 0, input: str = "") -> str:
        """Return what a command prints, the errors after the output."""
        argv = [self.program, *words]
        done = self.orlop.inside(
            lambda: subprocess.run(argv, env=self.env, input=input, capture_output=True, text=True, timeout=120)
        )
        assert done.returncode == code, (words, done)
        return done.stdout + done.stderr

    def terminal(self, *words: str) -> Terminal:
        return self.orlop.inside(lambda: Terminal([self.program, *words], self.env))


@pytest.fixture
def docker(orlop: Environment, peer: Callable[[str], Path], tmp_path: Path) -> Iterator[Course]:
    with registry_server.beside(orlop, tmp_path / "registry") as address:
        orlop("bootstrap", "--busybox", peer("busybox"), address)
        yield Course(orlop, peer("docker"), tmp_path / "config")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_the_chapter(docker: Course) -> None:
    assert docker("run", "busybox", "/bin/echo", "hello", "world").startswith("hello world\n")
    made = docker("run", "-d", "busybox", "/bin/sh", "-c", COUNTER).strip()
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert made[:12] in docker("ps") and "busybox" in docker("ps")
    until(lambda: "hello world\n" in docker("logs", made), "it speaks")
    assert docker("stop", made[:12]) == f"{made[:12]}\n" and made[:12] not in docker("ps")
    assert "Hello from Docker!" in docker("run", "hello-world")
    refused = docker("run", "hello-world", "/bin/echo", "hello", "world", code=127)
    assert re.search('OCI runtime create failed.*exec: "/bin/echo": stat /bin/echo: no such file or directory', refused)


def test_images_are_pulled(docker: Course) -> None:
    assert "Status: Downloaded newer image for ubuntu:latest" in docker("pull", "ubuntu")
    assert "Status: Image is up to date for ubuntu:latest" in docker("pull", "ubuntu")
    assert "Already exists" in docker("pull", "ubuntu:24.04") or "up to date" in docker("pull", "ubuntu:24.04")
    found = json.loads(docker("image", "inspect", "-f", "{{json .RepoDigests}}", "ubuntu"))
    (digest,) = (one for one in found if not one.startswith("host@"))  # of which it is made
    assert re.fullmatch("ubuntu@sha256:[0-9a-f]{64}", digest)
    assert f"Digest: {digest.partition('@')[2]}" in docker("pull", digest)
    assert docker("run", "ubuntu") == ""


def test_a_shell_and_its_neighbours(docker: Course) -> None:
    docker("pull", "-q", "ubuntu")
    docker("pull", "-q", "busybox")
    with docker.terminal("run", "-it", "--name", "shell", "ubuntu") as screen:
        screen.expect(r"root@", WAIT_S_MAX)
        identity = docker("inspect", "-f", "{{slice .Id 0 12}}", "shell").strip()
        screen.expect(f"{identity}:/#", WAIT_S_MAX)
        screen.send(b"exit\n")
        assert screen.wait(WAIT_S_MAX) == 0
    assert docker("inspect", "-f", "{{.State.Status}}", "shell") == "exited\n"
    docker("run", "-d", "--name", "counter", "ubuntu", "/bin/bash", "-c", f"trap 'exit 130' INT; {COUNTER}")
    with docker.terminal("exec", "-it", "counter", "/bin/bash") as screen:
        screen.expect("root@", WAIT_S_MAX)
        screen.send(b"exit\n")
        assert screen.wait(WAIT_S_MAX) == 0
    assert docker("inspect", "-f", "{{.State.Status}}", "counter") == "running\n"
    with docker.terminal("attach", "counter") as screen:
        screen.expect("hello world", WAIT_S_MAX)
        screen.send(b"\x03")
        assert screen.wait(WAIT_S_MAX) != 0
    until(lambda: docker("inspect", "-f", "{{.State.Status}}", "counter") == "exited\n", "it ends with Ctrl-C")


def test_the_exercises(docker: Course, orlop: Environment, tmp_path: Path) -> None:
    orlop("registry", "user", "--root", tmp_path / "private", "--password-stdin", "add", "me", input="secret\n")
    with registry_server.beside(orlop, tmp_path / "private") as address:
        assert "Login Succeeded" in docker("login", "-u", "me", "--password-stdin", address, input="secret")
        assert "unauthorized" in docker("login", "-u", "me", "--password-stdin", address, code=1, input="wrong").lower()
    docker("run", "--name", "first", "hello-world")
    (found,) = json.loads(docker("inspect", "first"))
    assert found["Config"]["Image"] == "hello-world" and re.fullmatch("sha256:[0-9a-f]{64}", found["Image"])


def test_a_network_of_ones_own(docker: Course, peer: Callable[[str], Path]) -> None:
    nft = peer("nft")

    def rules() -> str:
        return docker.orlop.inside(
            lambda: subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True)
        ).stdout

    docker("run", "-d", "--name", "elsewhere", "busybox", "sleep", "1000")
    before = rules()
    docker("network", "create", "n1")
    docker("run", "-d", "--net", "n1", "--name", "web", "-p", "18080:80", "busybox", "httpd", "-f", "-p", "80")
    address = docker("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "web").strip()
    assert address in docker("run", "--rm", "--net", "n1", "busybox", "nslookup", "web", "127.0.0.11")

    def knock(box: str) -> None:
        """Connect from where a container is: a static busybox has no resolver that its own wget could use."""
        pid = docker("inspect", "-f", "{{.State.Pid}}", box).strip()
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespace.inside(netns, lambda: socket.create_connection((address, 80), timeout=2)).close()
        finally:
            os.close(netns)

    knock("web")
    with pytest.raises(OSError):
        knock("elsewhere")

    def status() -> int:
        client = http.client.HTTPConnection("127.0.0.1", 18080, timeout=20)
        client.request("GET", "/")
        return client.getresponse().status

    assert docker.orlop.inside(status) == 404
    assert rules() != before
    docker("rm", "-f", "web")
    docker("network", "rm", "n1")
    assert rules() == before


def test_what_process_1_ignores_and_what_not(docker: Course) -> None:
    docker("run", "-d", "--name", "loop", "busybox", "sh", "-c", COUNTER)
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", "loop"))
    inside = docker("exec", "loop", "ps", "-o", "pid,args").splitlines()
    assert [line.split()[1:] for line in inside if line.split()[0] == "1"] == [["sh", "-c", *COUNTER.split()]]
    assert pid != 1 and "sh" in Path(f"/proc/{pid}/cmdline").read_text()
    view = ("run", "--rm", "--privileged", "--pid=host", "busybox", "nsenter", "-t", str(os.getpid()), "-m", "-u")
    assert docker(*view, "readlink", "/proc/self/ns/mnt").strip() == os.readlink("/proc/self/ns/mnt")
    os.kill(pid, signal.SIGTERM)
    said = docker("logs", "loop")
    until(lambda: len(docker("logs", "loop")) > len(said), "it goes on")
    os.kill(pid, signal.SIGKILL)
    until(lambda: "loop" not in docker("ps"), "it has ended")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "loop") == "137\n"
    events = ("events", "--since", "1h", "--until", "0s", "--filter", "event=die", "--filter", "container=loop")
    until(lambda: "exitCode=137" in docker(*events), "it is told")
