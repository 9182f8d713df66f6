"""P19: `image prune --packed` keeps a layer once, unpacked; its blob is made again for whoever wants it, bit by bit."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import judges
from support.archives import Archive
from support.engine import Environment
from support.registries import Content, Registry, debian_registry

Peer = Callable[[str], Path]
FILES, FILE_BYTES = 40, 30_000
DROP = ("image", "prune", "-f", "--packed")


def tree(number: int) -> bytes:
    """Return an archive with long and short names, links, empty and small files, and a file that comes twice."""
    noise = random.Random(number)
    archive = Archive().directory(b"d%d" % number)
    for index in range(FILES):
        archive.file(b"d%d/f%d" % (number, index), noise.randbytes(FILE_BYTES))
    archive.hard(b"d%d/again" % number, b"d%d/f0" % number).symlink(b"d%d/link" % number, b"f1")
    archive.file(b"d%d/small" % number, b"few").file(b"d%d/none" % number)
    archive.file(b"d%d/twice" % number, noise.randbytes(5000)).file(b"d%d/twice" % number, noise.randbytes(4000))
    return bytes(archive.file(b"d%d/" % number + b"n" * 180, noise.randbytes(1000)))


@pytest.fixture
def pulled(orlop: Environment) -> Iterator[list[str]]:
    """Three images above one base, with zlib's level 1."""
    content = Content()
    for number in (1, 2, 3):
        content.layered([tree(0), tree(number)], str(number))
    with orlop.inside(lambda: Registry(content)) as served:
        names = [f"{served.name}/lib/x:{number}" for number in (1, 2, 3)]
        for name in names:
            orlop("pull", "-q", name)
        yield names


def disk_bytes(path: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True).stdout.split()[0])


def layers(orlop: Environment) -> set[str]:
    """Return the names of the blobs that are no documents."""
    return {path.name for path in (orlop.root / "content/blobs/sha256").iterdir() if path.stat().st_size > 10_000}


def test_images_of_one_base_lie_here_once_and_leave_as_they_came(
    orlop: Environment, pulled: list[str], peer: Peer, tmp_path: Path
) -> None:
    digests = [
        orlop("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).stdout.split("@")[1] for name in pulled
    ]
    assert len(layers(orlop)) == 4
    told = orlop(*DROP).stdout
    assert told.startswith("Total reclaimed space: 4.") and layers(orlop) == set()
    unpacked = disk_bytes(orlop.root / "snapshots/layers")
    assert disk_bytes(orlop.root / "content") + unpacked <= 1.1 * unpacked
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
    assert "unknown" not in orlop("system", "df", "--verify").stdout
    judge = judges.client(peer, tmp_path, orlop)
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as registry:
        for number, (name, wanted) in enumerate(zip(pulled, digests, strict=True)):
            target = f"{registry}/fresh/x:{number}"
            orlop("tag", name, target)
            orlop("push", "-q", target)
            found = json.loads(judge("skopeo", "inspect", "--tls-verify=false", f"docker://{target}"))
            assert found["Digest"].strip() == wanted.strip()
            orlop("rmi", target)
    with tarfile.open(fileobj=io.BytesIO(orlop("save", pulled[0]).raw_stdout)) as archive:
        for name in archive.getnames():
            if name.startswith("blobs/sha256/") and (member := archive.extractfile(name)):
                assert hashlib.sha256(member.read()).hexdigest() == name.rpartition("/")[2]
    orlop("image", "copy", "-q", pulled[0], f"oci:{tmp_path}/layout:1")
    judge("umoci", "unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/d1/again").stat().st_size == FILE_BYTES
    assert layers(orlop) == set()  # what was made for others has not stayed
    assert "Image is up to date" in orlop("pull", pulled[0]).stdout


def test_a_recipe_keeps_what_it_needs_and_goes_with_its_blob(orlop: Environment, tmp_path: Path) -> None:
    """One blob above two bases: the recipe needs the layer that stands on the first.

    red: where collection marks no chain of a recipe, `save` of the second image finds no tree.
    """
    content = Content()
    for number in (1, 2):
        content.layered([tree(number), tree(0)], str(number))
    with orlop.inside(lambda: Registry(content)) as served:
        names = [f"{served.name}/lib/x:{number}" for number in (1, 2)]
        orlop("pull", "-q", names[0])
        orlop(*DROP)
        orlop("pull", "-q", names[1])  # the layer that both have is made of the recipe
        orlop("rmi", names[0])
        orlop("image", "prune", "-f")
        orlop("save", "-o", tmp_path / "saved.tar", names[1])
        assert orlop("system", "fsck").stdout == "Everything is in order.\n"
        orlop("rmi", names[1])
        orlop("image", "prune", "-f")
    assert os.listdir(orlop.root / "content/recipes") == [] == os.listdir(orlop.root / "snapshots/layers")
    orlop("load", "-q", "-i", tmp_path / "saved.tar")
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"


def deflated(data: bytes, flushed_after: int = 0, **options: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31, **options)
    start = packer.compress(data[:flushed_after]) + packer.flush(zlib.Z_FULL_FLUSH) if flushed_after else b""
    return start + packer.compress(data[flushed_after:]) + packer.flush()


@pytest.mark.parametrize(
    ("pack", "kept"),
    [
        (lambda data: data, False),
        (lambda data: gzip.compress(data, 9, mtime=1_000_000_000), False),
        (lambda data: deflated(data, memLevel=1), True),
        (lambda data: deflated(data, flushed_after=1_500_000), True),  # it begins like one that can be made
        (lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]), True),
    ],
)
def test_what_can_not_be_packed_again_to_the_same_bytes_stays(
    orlop: Environment, pack: Callable[[bytes], bytes], kept: bool
) -> None:
    """red: without the comparison of the digest, in `Recipes.add`, what is flushed goes."""
    content = Content()
    # Text, so that how it is deflated shows.
    data = "".join(f"{number * 7919 % 10007} words and more words {number}\n" for number in range(30_000)).encode()
    archive = bytes(Archive().file(b"text", data).file(b"more", data[::-1]))
    described = content.image(archive, pack(archive), "1")
    if pack(archive) == archive:
        manifest = json.loads(content.manifests["1"][1])
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
        content.manifest(manifest, "1")
    assert described
    with orlop.inside(lambda: Registry(content)) as served:
        orlop("pull", "-q", f"{served.name}/lib/x:1")
    orlop(*DROP)
    assert bool(layers(orlop)) is kept
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"


def test_a_tree_that_has_changed_makes_no_blob(orlop: Environment, pulled: list[str], tmp_path: Path) -> None:
    """red: without the comparison in `Store._made` a changed layer is saved under the old digest."""
    orlop(*DROP)
    (changed,) = orlop.root.glob("snapshots/layers/*/fs/d1/f3")
    changed.write_bytes(bytes(FILE_BYTES))
    (shorter,) = orlop.root.glob("snapshots/layers/*/fs/d2/f3")
    shorter.write_bytes(b"")
    for name in pulled[:2]:
        done = orlop("save", "-o", tmp_path / "saved.tar", name, check=False)
        assert done.code == 1 and "recipe" in done.stderr and "pull it again" in done.stderr
    orlop("save", "-o", tmp_path / "saved.tar", pulled[2])
    found = orlop("system", "fsck", "--repair", check=False).stdout
    assert found.count("damaged: blob") == 2 and found.count("incomplete: image") == 2
    orlop("system", "fsck", "--repair", check=False)
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
    for name in pulled:
        orlop("pull", "-q", name)


def test_a_broken_recipe_is_none(orlop: Environment, pulled: list[str], tmp_path: Path) -> None:
    orlop(*DROP)
    for path in (orlop.root / "content/recipes").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    (orlop.root / "content/recipes/strange").touch()
    found = orlop("system", "fsck", check=False).stdout
    assert "incomplete: image" in found and f"unknown: {orlop.root}/content/recipes/strange" in found
    orlop("image", "prune", "-f")
    orlop("pull", "-q", pulled[0])  # what it lacks comes again
    orlop("save", "-o", tmp_path / "saved.tar", pulled[0])
