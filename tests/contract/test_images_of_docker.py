"""docker's own daemon as a client of what we push, load and save: the same digests, the same ID, and it runs."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import judges
from support.archives import Archive
from support.docker_http import Api
from support.engine import Environment
from support.registries import debian_registry


@pytest.fixture
def docker(orlop: Environment, peer: Callable[[str], Path]) -> Iterator[Callable[..., str]]:
    with judges.docker(peer, orlop) as run:
        yield run


def _named(archive: Path) -> list[str]:
    """Return what docker's first file of names has: tag -> topmost layer. Red: we wrote none."""
    with tarfile.open(archive) as file:
        found = json.load(file.extractfile("repositories"))  # type: ignore[arg-type]
        layers = [layer for one in json.load(file.extractfile("manifest.json")) for layer in one["Layers"][-1:]]  # type: ignore[arg-type]
    assert [top for tags in found.values() for top in tags.values()] == [
        layer.removesuffix("/layer.tar").split("/")[-1] for layer in layers
    ]
    return [f"{name}:{tag}" for name, tags in found.items() for tag in tags]


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
        assert _named(tmp_path / "ours.tar") == _named(tmp_path / "theirs.tar") == [name]
        docker("tag", name, back)
        docker("push", back)
        orlop("rmi", "-f", name)
        assert orlop("load", "-i", tmp_path / "theirs.tar").stdout == f"Loaded image: {name}\n"
        assert orlop("image", "inspect", name, "-f", "{{.Id}}").stdout.strip() == ours[0]
        orlop("pull", "-q", back)
        digest = orlop("images", "--digests", "--format", "{{.Digest}}", back).stdout.strip()
        assert f"{registry}/dk/back@{digest}" in docker("image", "inspect", back, "-f", "{{json .RepoDigests}}")
        assert orlop("run", "--rm", "--network", "none", back, "echo", "ok").stdout == "ok\n"


def test_skopeo_copies_from_our_socket_and_to_it(
    orlop: Environment, peer: Callable[[str], Path], tmp_path: Path
) -> None:
    """`docker-daemon:` speaks a version of the API that is older than any other that we answer, for archives only."""
    skopeo = judges.client(peer, tmp_path, orlop)
    orlop("import", "-c", 'CMD ["x"]', "-", "local/x:1", input=bytes(Archive().file(b"etc/name", b"x")))
    socket = f"unix://{orlop.run}/docker.sock"
    layout = f"oci:{tmp_path}/lay:1"
    skopeo("skopeo", "copy", "-q", "--src-daemon-host", socket, "docker-daemon:local/x:1", layout)
    found = json.loads(skopeo("skopeo", "inspect", "--raw", layout))
    orlop("rmi", "local/x:1")
    skopeo("skopeo", "copy", "-q", "--dest-daemon-host", socket, layout, "docker-daemon:local/y:1")
    assert orlop("image", "inspect", "-f", "{{.Id}}", "local/y:1").stdout.strip() == found["config"]["digest"]
    assert skopeo("umoci", "stat", "--image", f"{tmp_path}/lay:1", "--json")
    api = Api(orlop.run / "docker.sock", "")
    for place in ("/v1.22/containers/json", "/v1.39/images/json", "/v1.21/images/get?names=local/y:1"):
        assert "is too old" in api("GET", place).message
