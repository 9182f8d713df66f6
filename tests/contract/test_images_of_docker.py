"""docker's own daemon as a client of what we push, load and save: the same digests, the same ID, and it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import judges
from support.engine import Environment
from support.registries import debian_registry


@pytest.fixture
def docker(orlop: Environment, peer: Callable[[str], Path]) -> Iterator[Callable[..., str]]:
    with judges.docker(peer, orlop) as run:
        yield run


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
