"""`orlop bootstrap`: what a course begins with (docker run hello-world, busybox, ubuntu) where there is no network."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.image import standins
from support.engine import COMMAND, Environment


@pytest.fixture
def registry(orlop: Environment, tmp_path: Path) -> Iterator[str]:
    words = [COMMAND, "registry", "serve", "--root", tmp_path / "registry", "--address", "127.0.0.1:0"]
    server = orlop.inside(lambda: subprocess.Popen(words, env=orlop.variables, stdout=subprocess.PIPE))
    assert server.stdout is not None
    try:
        yield f"127.0.0.1:{int(server.stdout.readline().rpartition(b':')[2])}"
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


@pytest.fixture
def mirror(orlop: Environment, registry: str, peer: Callable[[str], Path]) -> str:
    """It is filled, and docker.io is asked for there."""
    told = orlop("bootstrap", "--busybox", peer("busybox"), registry).stdout
    assert told.splitlines() == [
        f"hello-world:latest is {registry}/library/hello-world:latest",
        f"busybox:latest is {registry}/library/busybox:latest",
        f"ubuntu:24.04 is {registry}/library/ubuntu:24.04",
        f"ubuntu:latest is {registry}/library/ubuntu:latest",
    ]
    return registry


def test_a_course_begins_without_a_network(orlop: Environment, mirror: str) -> None:
    assert mirror not in orlop("images", "--format", "{{.Repository}}").stdout
    done = orlop("run", "--rm", "--network", "none", "hello-world")
    assert "Hello from Docker!" in done.stdout
    assert "Unable to find image 'hello-world:latest' locally" in done.stderr
    refused = orlop("run", "--name", "refused", "--network", "none", "hello-world", "/bin/echo", "hello", check=False)
    assert refused.code == 127
    assert 'exec: "/bin/echo": stat /bin/echo: no such file or directory' in refused.stderr
    assert orlop("inspect", "-f", "{{.Config.Image}}", "refused").stdout == "hello-world\n"
    said = orlop("run", "--rm", "--network", "none", "busybox", "/bin/echo", "hello", "world").stdout
    assert said == "hello world\n"
    pulled = orlop("pull", "ubuntu:24.04").stdout.splitlines()
    assert pulled[0] == "24.04: Pulling from library/ubuntu" and pulled[-1] == "docker.io/library/ubuntu:24.04"
    assert "Image is up to date for ubuntu:24.04" in orlop("pull", "ubuntu:24.04").stdout
    told = orlop("image", "inspect", "-f", "{{json .RepoDigests}}", "ubuntu:24.04").stdout
    (digest,) = (one for one in json.loads(told) if one.startswith("ubuntu@sha256:"))
    orlop("pull", "-q", digest)
    assert orlop("run", "--rm", "--network", "none", "ubuntu").stdout == ""


def test_what_is_there_already_stays(orlop: Environment, mirror: str, peer: Callable[[str], Path]) -> None:
    hosts = orlop.root / "certs.d/docker.io/hosts.toml"
    before = hosts.read_text()
    orlop("bootstrap", "--busybox", peer("busybox"), mirror)  # again: the same images
    other = orlop("bootstrap", "127.0.0.1:1", check=False)
    assert other.code != 0 and "another place for docker.io already" in other.stderr
    assert hosts.read_text() == before


def test_nobody_is_sent_to_a_registry_that_took_nothing(orlop: Environment, peer: Callable[[str], Path]) -> None:
    done = orlop("bootstrap", "--busybox", peer("busybox"), "127.0.0.1:1", check=False)
    assert done.code == 1 and "connection refused" in done.stderr
    assert not (orlop.root / "certs.d/docker.io").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--busybox", "/etc/passwd"], "it is no program"),
        (["--busybox", "/nowhere"], "No such file"),
        (["a registry"], "invalid reference format"),
    ],
)
def test_what_can_not_be_made_is_said(orlop: Environment, words: list[str], told: str) -> None:
    done = orlop("bootstrap", "--no-mirror", *words, check=False)
    assert done.code != 0 and told in done.stderr and "Traceback" not in done.stderr, done


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_hello_is_said_by_a_program_for_each_machine(peer: Callable[[str], Path], tmp_path: Path, machine: str) -> None:
    program = tmp_path / "hello"
    program.write_bytes(standins.hello(machine))
    program.chmod(0o755)
    words = [program] if machine == platform.machine() else [peer(f"qemu-{machine}-static"), program]
    done = subprocess.run(words, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (standins.HELLO, b"")
