"""Images as large as people have them: many small files, many layers, one huge layer; through a registry and back.

skopeo says what the registry has. ORLOP_TEST_CONTENT=all makes them whole (50,000 files, a layer of 1 GiB), adds a
Debian as mmdebstrap makes it, and has docker, podman and umoci judge them too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import debian, judges, trees
from support.archives import Archive, header
from support.engine import Environment
from support.registries import Content, Registry, debian_registry

WHOLE = os.environ.get("ORLOP_TEST_CONTENT") == "all"
FILES = 50_000 if WHOLE else 3000
LAYER_MIB = 1024 if WHOLE else 48
LAYERS = 60
MEMORY_BYTES_MAX = 256 << 20
TIMEOUT_S = 1800 if WHOLE else 180
Peer = Callable[[str], Path]


class Place:
    """A registry, and those who judge what is in it."""

    def __init__(self, orlop: Environment, peer: Peer, registry: str, directory: Path) -> None:
        self.orlop, self.peer, self.registry, self.directory = orlop, peer, registry, directory
        self.judge = judges.client(peer, directory, orlop)

    def there_and_back(self, archive: Path, name: str) -> Path:
        """Import an archive, push it, remove it, pull it: the same digest, and the engine stays small all the time.

        Returns the tree.
        """
        orlop, name = self.orlop, f"{self.registry}/{name}"
        orlop("import", "-c", 'CMD ["true"]', archive, name)
        orlop("push", "-q", name)
        digest = orlop("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).stdout
        orlop("rmi", name)
        orlop("pull", "-q", name)
        assert orlop("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).stdout == digest
        assert engine_peak_bytes(orlop) < MEMORY_BYTES_MAX
        (layer,) = (orlop.root / "snapshots/layers").iterdir()
        self.judged(name, digest.strip().partition("@")[2], layer / "fs")
        return layer / "fs"

    def judged(self, name: str, digest: str, tree: Path) -> None:
        """Have the others say the same of an image that we have pushed."""
        found = json.loads(self.judge("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
        assert found["Digest"] == digest
        if not WHOLE:
            return
        layout, bundle = self.directory / "layout", self.directory / "bundle"
        self.judge("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:1")
        self.judge("umoci", "unpack", "--image", f"{layout}:1", bundle)
        theirs, ours = trees.describe(bundle / "rootfs"), trees.describe(tree)
        for described in (theirs, ours):
            described.pop(".")  # no member describes it
        assert theirs == ours
        self.judge("podman", "pull", "-q", "--tls-verify=false", name)
        assert self.judge("podman", "image", "inspect", "-f", "{{.Digest}}", name).strip() == digest
        image_id = self.orlop("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()
        with judges.docker(self.peer, self.orlop) as docker:
            docker("pull", "-q", name)
            told = docker("image", "inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", name).split()
            assert told == [image_id, f"{name.rpartition(':')[0]}@{digest}"]
            back = f"{name}-back"
            docker("tag", name, back)
            docker("push", "-q", back)
        self.orlop("pull", "-q", back)
        assert self.orlop("image", "inspect", "-f", "{{.Id}}", back).stdout.strip() == image_id


@pytest.fixture
def place(peer: Peer, tmp_path: Path, orlop: Environment) -> Iterator[Place]:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as name:
        yield Place(orlop, peer, name, tmp_path)


def engine_peak_bytes(orlop: Environment) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{orlop.engine_pid()}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


@pytest.mark.timeout(TIMEOUT_S)
def test_many_small_files(place: Place, tmp_path: Path) -> None:
    archive = tmp_path / "many.tar.gz"
    with gzip.open(archive, "wb", 1) as file:
        for number in range(FILES):
            if number % 100 == 0:
                file.write(header(b"d%d" % (number // 100), b"5", mode=0o755))
            name, data = b"d%d/f%d" % (number // 100, number), b"%d\n" % number * (number % 400)
            file.write(bytes(Archive().file(name, data))[: 512 + -(-len(data) // 512) * 512])
        file.write(bytes(1024))
    tree = place.there_and_back(archive, "many:1")
    assert len([path for path in tree.rglob("f*") if path.is_file()]) == FILES
    last = FILES - 1
    assert (tree / f"d{last // 100}/f{last}").read_bytes() == b"%d\n" % last * (last % 400)


@pytest.mark.timeout(TIMEOUT_S)
def test_one_huge_layer(place: Place, tmp_path: Path) -> None:
    archive = tmp_path / "huge.tar.gz"
    written = hashlib.sha256()
    with gzip.open(archive, "wb", 1) as file:
        file.write(header(b"huge", size=LAYER_MIB << 20))
        for number in range(LAYER_MIB):
            data = os.urandom(512 << 10) + bytes([number % 256]) * (512 << 10)
            written.update(data)
            file.write(data)
        file.write(bytes(1024))
    with (place.there_and_back(archive, "huge:1") / "huge").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == written.digest()


if WHOLE:

    @pytest.mark.timeout(TIMEOUT_S)
    def test_a_debian(place: Place, tmp_path: Path) -> None:
        archive = tmp_path / "debian.tar"
        debian.archive(place.peer, archive, "important")
        tree = place.there_and_back(archive, "debian:1")
        assert sum(len(files) for _, _, files in os.walk(tree)) > 8_000
        ran = place.orlop("run", "--rm", "--network", "none", f"{place.registry}/debian:1", "dpkg", "--audit")
        assert (ran.stdout, ran.stderr) == ("", "")


def test_sixty_layers_make_a_root_that_runs(orlop: Environment, tmp_path: Path) -> None:
    """Each layer adds a file, replaces one and removes one; the base is the image of this machine's programs."""
    orlop("run", "--name", "base", "--network", "none", "host", "true")
    orlop("export", "-o", tmp_path / "base.tar", "base")
    base = (tmp_path / "base.tar").read_bytes()
    content = Content()
    trees = [base]
    for number in range(1, LAYERS):
        layer = Archive().file(b"only-%d" % number).file(b"newest", b"%d" % number)
        if number > 1:
            layer.file(b".wh.only-%d" % (number - 1))
        trees.append(bytes(layer))
    content.layered(trees, "1")
    with orlop.inside(lambda: Registry(content)) as served:
        name = f"{served.name}/lib/x:1"
        done = orlop("run", "--rm", "--network", "none", name, "sh", "-c", "cat newest; echo; echo only-*")
    assert done.stdout == f"{LAYERS - 1}\nonly-{LAYERS - 1}\n"
