"""Our store is an OCI image layout that others read in place: skopeo and umoci see the same images and files."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orlop.content import Store
from orlop.image import Image, Images, host
from orlop.snapshot import Snapshots
from support import trees
from support.archives import Archive

Peer = Callable[[str], Path]
BASE = bytes(
    Archive()
    .directory(b".")
    .directory(b"bin")
    .file(b"bin/sh", b"x" * 5000, mode=0o4755)
    .directory(b"tmp", mode=0o1777)
    .symlink(b"link", b"bin/sh")
    .hard(b"hard", b"bin/sh")
    .file(b"etc/owned", uid=7, gid=8, mtime=1_000_000_000)
    .file(b"caps", pax={b"SCHILY.xattr.user.note": b"kept"}, mtime=1_000_000_000)
)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(Store(str(tmp_path / "content")))


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo_inspect(peer: Peer, images: Images, name: str, *flags: str) -> dict[str, object]:
    document = json.loads(run(peer("skopeo"), "inspect", *flags, f"oci:{images.store.root}:{name}"))
    assert isinstance(document, dict)
    return document


def imported(images: Images, name: str, changes: Sequence[str] = ()) -> Image:
    return images.import_tar(io.BytesIO(gzip.compress(BASE)), name, changes)


def test_skopeo_sees_what_we_see(images: Images, peer: Peer) -> None:
    image = imported(images, "localhost:5000/user/base:1.0", ["ENV A=1", "LABEL a=b", 'CMD ["sh"]'])
    seen = skopeo_inspect(peer, images, "localhost:5000/user/base:1.0")
    assert seen["Digest"] == image.target.digest
    assert seen["Layers"] == [image.layers[0].descriptor.digest]
    assert seen["Labels"] == {"a": "b"}
    assert seen["Env"] == ["A=1"]
    assert (seen["Os"], seen["Architecture"]) == (image.config.os, image.config.architecture)
    config = skopeo_inspect(peer, images, "localhost:5000/user/base:1.0", "--config")
    assert config["rootfs"] == {"type": "layers", "diff_ids": [image.layers[0].diff_id]}


def test_every_name_is_found_and_no_other(images: Images, peer: Peer) -> None:
    first = imported(images, "one")
    second = imported(images, "two:2", ["ENV B=2"])
    images.tag("one", "user/three:3")
    for name, image in (("one:latest", first), ("two:2", second), ("user/three:3", first)):
        assert skopeo_inspect(peer, images, name)["Digest"] == image.target.digest
    images.untag("one")
    with pytest.raises(AssertionError, match="one:latest"):
        skopeo_inspect(peer, images, "one:latest")


def test_skopeo_copies_out_without_a_change(images: Images, peer: Peer, tmp_path: Path) -> None:
    image = imported(images, "one")
    run(
        peer("skopeo"),
        "--insecure-policy",
        "copy",
        "-q",
        f"oci:{images.store.root}:one:latest",
        f"oci:{tmp_path}/copy:there",
    )
    copied = Store(str(tmp_path / "copy"))
    for digest in (image.target.digest, image.id, image.layers[0].descriptor.digest):
        assert copied.stat(digest) == images.store.stat(digest)


def test_what_skopeo_copies_in_is_an_image_of_ours(images: Images, peer: Peer, tmp_path: Path) -> None:
    other = Images(Store(str(tmp_path / "other")))
    image = imported(other, "one")
    before = set(os.listdir(images.store.root))
    run(
        peer("skopeo"),
        "--insecure-policy",
        "copy",
        "-q",
        f"oci:{other.store.root}:one:latest",
        f"oci:{images.store.root}:example.com/in:2",
    )
    found = images.resolve("example.com/in:2")
    assert (found.id, found.target.digest) == (image.id, image.target.digest)
    assert set(os.listdir(images.store.root)) == before
    images.tag("example.com/in:2", "mine")
    assert skopeo_inspect(peer, images, "mine:latest")["Digest"] == image.target.digest


@pytest.mark.parametrize("name", ["imported", "host"])
def test_umoci_unpacks_the_same_files(images: Images, peer: Peer, tmp_path: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs: root")
    image = imported(images, name) if name == "imported" else host.ensure(images)
    layout = tmp_path / "layout"
    shutil.copytree(images.store.root, layout)  # umoci writes into a layout that it opens
    run(peer("umoci"), "unpack", "--image", f"{layout}:{name}:latest", tmp_path / "bundle")
    snapshots = Snapshots(str(tmp_path / "snapshots"))
    chain = snapshots.unpack(images.layer_openers(image))
    snapshots.close()
    assert chain is not None
    ours = trees.describe(f"{snapshots.root}/layers/{chain.hex}/fs")
    theirs = trees.describe(tmp_path / "bundle/rootfs")
    assert set(ours) == set(theirs)
    undescribed = {".", "etc"} if name == "imported" else {"."}  # made on the way: each tool has its own clock
    different = [path for path in ours if path not in undescribed and ours[path] != theirs[path]]
    assert different == []
    assert ours["."][:3] == theirs["."][:3]


def test_umoci_adds_a_layer_that_we_read(images: Images, peer: Peer, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs: root")
    imported(images, "one")
    layout, umoci = f"{images.store.root}:one:latest", peer("umoci")
    run(umoci, "unpack", "--image", layout, tmp_path / "bundle")
    rootfs = tmp_path / "bundle/rootfs"
    (rootfs / "new").write_text("added")
    (rootfs / "link").unlink()
    shutil.rmtree(rootfs / "etc")
    run(umoci, "repack", "--image", f"{images.store.root}:two:latest", tmp_path / "bundle")
    image = images.resolve("two")
    assert len(image.layers) == 2
    snapshots = Snapshots(str(tmp_path / "snapshots"))
    chain = snapshots.unpack(images.layer_openers(image))
    (overlay,) = snapshots.prepare("c", chain)
    snapshots.close()
    lower = [option.removeprefix("lowerdir=") for option in overlay.options if option.startswith("lowerdir=")]
    top = Path(lower[0])
    assert (top / "new").read_text() == "added"
    assert (top / "link").is_char_device()
    assert (top / "etc").is_char_device()
    assert (Path(lower[1]) / "etc/owned").exists()
