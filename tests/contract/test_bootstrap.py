"""`orlop bootstrap`: what a course begins with (docker run hello-world, busybox, ubuntu) where there is no network."""

from __future__ import annotations

import base64
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.image import standins
from support import registry_server
from support.engine import Environment


@pytest.fixture
def flags() -> list[str]:
    return []


@pytest.fixture
def registry(orlop: Environment, tmp_path: Path, flags: list[str]) -> Iterator[str]:
    with registry_server.beside(orlop, tmp_path / "registry", *flags) as address:
        yield address


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


@pytest.mark.parametrize("flags", [["--tokens", "--htpasswd", "users"]])
def test_a_mirror_knows_who_asks(
    orlop: Environment, request: pytest.FixtureRequest, flags: list[str], peer: Callable[[str], Path], tmp_path: Path
) -> None:
    """What the user has for the mirror goes there, and what is for docker.io does not (SEC-46).

    red: with for_registry in place of for_places the pull is denied.
    """
    orlop("registry", "user", "--root", tmp_path, "add", "--password-stdin", "pupil", input="secret\n")
    flags[-1] = str(tmp_path / "users")
    registry = request.getfixturevalue("registry")
    config = tmp_path / "docker"
    config.mkdir()

    def known(name: str, secret: str) -> dict[str, str]:
        auths = {name: {"auth": base64.b64encode(f"pupil:{secret}".encode()).decode()}}
        (config / "config.json").write_text(json.dumps({"auths": auths}))
        return {"DOCKER_CONFIG": str(config)}

    orlop("bootstrap", "--busybox", peer("busybox"), registry, env=known(registry, "secret"))
    refused = orlop("pull", "hello-world", env=known("https://index.docker.io/v1/", "secret"), check=False)
    assert refused.code != 0
    assert (
        "Hello from Docker!"
        in orlop("run", "--rm", "--network", "none", "hello-world", env=known(registry, "secret")).stdout
    )
    orlop("image", "copy", "-q", "docker://busybox", f"dir:{tmp_path}/copied", env=known(registry, "secret"))
    built = orlop("build", "-q", "-", input="FROM ubuntu:24.04\n", env=known(registry, "secret"))
    assert built.stdout.startswith("sha256:")


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


def test_a_busybox_of_any_file_name(peer: Callable[[str], Path], tmp_path: Path) -> None:
    """By another name than its own it would be asked for an applet of that name.

    red: run as [program, "--list"] a busybox called `cat` is `cat --list`, which is refused.
    """
    program = tmp_path / "cat"
    program.write_bytes(peer("busybox").read_bytes())
    program.chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(standins.busybox(str(program)))) as archive:
        assert archive.getmember("bin/sh").linkname == archive.getmember("bin/cat").linkname == "bin/busybox"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_hello_is_said_by_a_program_for_each_machine(peer: Callable[[str], Path], tmp_path: Path, machine: str) -> None:
    program = tmp_path / "hello"
    program.write_bytes(standins.hello(machine))
    program.chmod(0o755)
    words = [program] if machine == platform.machine() else [peer(f"qemu-{machine}-static"), program]
    done = subprocess.run(words, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (standins.HELLO, b"")
