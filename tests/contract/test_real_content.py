"""Images as large as people have them: many small files, many layers, one huge layer; through a registry and back.

ORLOP_TEST_FILES, ORLOP_TEST_LAYER_MIB: how many and how large (a few and small by default).
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.archives import Archive, header
from support.engine import Environment
from support.registries import Content, Registry, debian_registry

FILES = int(os.environ.get("ORLOP_TEST_FILES", "3000"))
LAYER_MIB = int(os.environ.get("ORLOP_TEST_LAYER_MIB", "48"))
LAYERS = 60
MEMORY_BYTES_MAX = 256 << 20
Peer = Callable[[str], Path]


@pytest.fixture
def registry(peer: Peer, tmp_path: Path, orlop: Environment) -> Iterator[str]:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as name:
        yield name


def engine_peak_bytes(orlop: Environment) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{orlop.engine_pid()}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def there_and_back(orlop: Environment, archive: Path, name: str) -> None:
    """Import an archive, push it, remove it, pull it: the same digest, and the engine stays small all the time."""
    orlop("import", archive, name)
    orlop("push", "-q", name)
    digest = orlop("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).stdout
    orlop("rmi", name)
    orlop("pull", "-q", name)
    assert orlop("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).stdout == digest
    assert engine_peak_bytes(orlop) < MEMORY_BYTES_MAX


@pytest.mark.timeout(120 + FILES // 50)
def test_many_small_files(orlop: Environment, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "many.tar.gz"
    with gzip.open(archive, "wb", 1) as file:
        for number in range(FILES):
            if number % 100 == 0:
                file.write(header(b"d%d" % (number // 100), b"5", mode=0o755))
            name, data = b"d%d/f%d" % (number // 100, number), b"%d\n" % number * (number % 400)
            file.write(bytes(Archive().file(name, data))[: 512 + -(-len(data) // 512) * 512])
        file.write(bytes(1024))
    there_and_back(orlop, archive, f"{registry}/many:1")
    (layer,) = (orlop.root / "snapshots/layers").iterdir()
    found = [path for path in (layer / "fs").rglob("f*") if path.is_file()]
    assert len(found) == FILES
    assert (layer / f"fs/d{(FILES - 1) // 100}/f{FILES - 1}").read_bytes() == b"%d\n" % (FILES - 1) * (
        (FILES - 1) % 400
    )


@pytest.mark.timeout(120 + LAYER_MIB)
def test_one_huge_layer(orlop: Environment, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "huge.tar.gz"
    written = hashlib.sha256()
    with gzip.open(archive, "wb", 1) as file:
        file.write(header(b"huge", size=LAYER_MIB << 20))
        for number in range(LAYER_MIB):
            data = os.urandom(512 << 10) + bytes([number % 256]) * (512 << 10)
            written.update(data)
            file.write(data)
        file.write(bytes(1024))
    there_and_back(orlop, archive, f"{registry}/huge:1")
    (layer,) = (orlop.root / "snapshots/layers").iterdir()
    with (layer / "fs/huge").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == written.digest()


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
