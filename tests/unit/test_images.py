"""Images: imported from archives, found by name, ID and digest, and never half there."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from orlop.content import Store
from orlop.image import Image, Images
from orlop.spec.digest import Digest
from orlop.spec.errors import Conflict, Invalid, NotFound
from orlop.spec.image import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    chain_ids,
)
from orlop.spec.jsonio import dump
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference
from support.archives import Archive

TAR = bytes(Archive().directory(b"bin").file(b"bin/sh", b"x" * 3000, mode=0o755))
HERE = Platform.of_machine(os.uname().machine)
ELSEWHERE = Platform.parse("linux/s390x")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(Store(str(tmp_path / "content")))


def blobs(images: Images) -> set[str]:
    return set(os.listdir(Path(images.store.root) / "blobs/sha256"))


def put(images: Images, image: Image, name: str, document: Index | Manifest, media_type: str) -> Descriptor:
    descriptor = images.store.ingest(dump(document.to_json()), media_type=media_type)
    images.store.names.put(Reference.parse(name).tagged(), descriptor)
    return descriptor


# -- import ---------------------------------------------------------------------------------------------------------


def test_an_imported_image(images: Images) -> None:
    image = images.import_tar(io.BytesIO(TAR), "user/base", ['CMD ["sh"]', "ENV A=1"], "from a test")
    assert image.names == ("user/base:latest",)
    assert (image.config.config.cmd, image.config.config.env) == (("sh",), ("A=1",))
    assert (image.config.os, image.config.architecture) == (HERE.os, HERE.architecture)
    assert image.config.comment == image.config.history[0].comment == "from a test"
    (layer,) = image.layers
    assert layer.diff_id == layer.chain_id == image.chain_id == Digest.of(TAR)
    assert layer.descriptor == Descriptor(media_type=OCI_LAYER, digest=Digest.of(TAR), size=len(TAR))
    assert image.target == image.manifest
    assert image.id == Digest.of(images.store.get(image.id))
    assert blobs(images) == {image.id.hex, image.target.digest.hex, Digest.of(TAR).hex}
    assert image.created[:2] == "20"
    assert image.created.endswith("Z")
    assert image.size == sum(path.stat().st_size for path in (Path(images.store.root) / "blobs/sha256").iterdir())


@pytest.mark.parametrize(
    ("pack", "media_type", "kept"),
    [
        (bytes, OCI_LAYER, True),
        (gzip.compress, OCI_LAYER_GZIP, True),
        (bz2.compress, OCI_LAYER, False),
        (lzma.compress, OCI_LAYER, False),
    ],
)
def test_archives_are_stored_in_a_form_that_the_oci_knows(
    images: Images, pack: type, media_type: str, kept: bool
) -> None:
    packed = pack(TAR)
    image = images.import_tar(io.BytesIO(packed), "x")
    (layer,) = image.layers
    assert layer.diff_id == Digest.of(TAR)
    assert layer.descriptor.media_type == media_type
    assert layer.descriptor.digest == Digest.of(packed if kept else TAR)
    assert len(blobs(images)) == 3
    ((diff_id, opener),) = images.layer_openers(image)
    with opener() as file:
        assert (diff_id, file.read()) == (layer.diff_id, packed if kept else TAR)


def test_an_archive_of_python(images: Images) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(__file__, "x" * 150)
    assert images.import_tar(io.BytesIO(buffer.getvalue())).names == ()


def test_an_archive_of_nothing_is_an_image_of_nothing(images: Images) -> None:
    (layer,) = images.import_tar(io.BytesIO(b"")).layers
    assert layer.diff_id == Digest.of(bytes(1024))


BROKEN = {
    "text": (b"hello\n" * 200, "it is not a tar archive"),
    "a cut archive": (TAR[:1700], "truncated"),
    "a cut gzip": (gzip.compress(TAR)[:-4], "truncated"),
    "a damaged xz": (lzma.compress(TAR)[:-30] + bytes(30), "damaged|truncated"),
    "a gzip of text": (gzip.compress(b"hello\n" * 200), "it is not a tar archive"),
    "a gzip of nothing": (gzip.compress(b""), "it is empty"),
    "a zip": (b"PK\3\4" + bytes(2000), "it is not a tar archive"),
    "damage in the middle": (TAR[:512] + b"\xff" * 512 + TAR[1024:], "it is damaged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_archives_leave_nothing(images: Images, case: str) -> None:
    data, cause = BROKEN[case]
    with pytest.raises(Invalid, match=cause):
        images.import_tar(io.BytesIO(data), "x")
    assert blobs(images) == set()
    assert os.listdir(Path(images.store.root) / "ingest") == []
    assert images.list() == ()


@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    [
        ("Upper", [], "must be lowercase"),
        ("x@" + Digest.of(b""), [], "cannot import digest reference"),
        ("x", ["FROM y"], "FROM is not a valid change command"),
    ],
)
def test_mistakes_are_found_before_the_archive_is_read(
    images: Images, name: str, changes: list[str], cause: str
) -> None:
    class Untouched:
        def read(self, count: int) -> bytes:
            raise AssertionError("read")

    with pytest.raises(Invalid, match=cause):
        images.import_tar(Untouched(), name, changes)


def test_importing_over_a_name_leaves_the_old_image_without(images: Images) -> None:
    old = images.import_tar(io.BytesIO(TAR), "x")
    new = images.import_tar(io.BytesIO(TAR), "x", ["ENV A=1"])
    assert images.resolve("x").id == new.id != old.id
    assert images.resolve(old.id).names == ()
    assert len(images.list()) == 2


def test_a_platform_can_be_named(images: Images) -> None:
    image = images.import_tar(io.BytesIO(TAR), "x", platform="linux/arm64/v8")
    assert (image.config.architecture, image.config.variant) == ("arm64", "")


# -- finding --------------------------------------------------------------------------------------------------------


def test_every_way_to_name_an_image(images: Images) -> None:
    image = images.import_tar(io.BytesIO(TAR), "example.com/a/b:1")
    digest = image.target.digest
    names = (
        "example.com/a/b:1",
        f"example.com/a/b@{digest}",
        f"example.com/a/b:ignored@{digest}",
        image.id,
        image.id.hex,
        image.id.short,
        image.id.hex[:3],
        f"sha256:{image.id.hex[:5]}",
        digest,
        digest.hex,
    )
    for name in names:
        assert images.resolve(name) == image


def test_names_win_over_beginnings_of_ids(images: Images) -> None:
    first = images.import_tar(io.BytesIO(TAR), "x")
    second = images.import_tar(io.BytesIO(TAR), first.id.hex[:4], ["ENV A=1"])
    assert images.resolve(first.id.hex[:4]).id == second.id
    assert images.resolve(first.id.hex[:5]).id == first.id


@pytest.mark.parametrize(
    "name", ["missing", "x:2", "example.com/x", "f" * 64, "sha256:" + "f" * 64, "sha256:ffff", "x@" + Digest.of(b"")]
)
def test_what_is_not_here_is_said_with_the_next_step(images: Images, name: str) -> None:
    images.import_tar(io.BytesIO(TAR), "x")
    with pytest.raises(NotFound, match="No such image: ") as missing:
        images.resolve(name)
    assert "orlop pull" in missing.value.hint


def test_the_default_tag_is_told(images: Images) -> None:
    with pytest.raises(NotFound, match=r"^No such image: debian:latest$"):
        images.resolve("debian")


@pytest.mark.parametrize("name", ["", "A", "sha256:", "a b", "../x", "sha256:XYZ", "sha256:" + "g" * 64])
def test_what_can_name_no_image(images: Images, name: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        images.resolve(name)


def test_an_ambiguous_beginning_is_refused(images: Images) -> None:
    made = [images.import_tar(io.BytesIO(TAR), f"x:{number}", [f"ENV A={number}"]) for number in range(17)]
    first = [image.id.hex[0] for image in made]
    repeated = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(Conflict, match="several image IDs begin like this") as ambiguous:
        images.resolve(f"sha256:{repeated}")
    assert "write more digits" in ambiguous.value.hint


def test_list_is_newest_first_and_without_the_unreadable(images: Images) -> None:
    old = images.import_tar(io.BytesIO(TAR), "old")
    new = images.import_tar(io.BytesIO(TAR), "new", ["ENV A=1"])
    broken = images.import_tar(io.BytesIO(TAR), "broken", ["ENV A=2"])
    images.store.remove(broken.id)
    assert [image.id for image in images.list()] == [new.id, old.id]
    with pytest.raises(NotFound, match="is not in the store"):
        images.resolve("broken")


# -- names ----------------------------------------------------------------------------------------------------------


def test_tag_and_untag(images: Images) -> None:
    image = images.import_tar(io.BytesIO(TAR), "x")
    images.tag("x", "y:1")
    images.tag(image.id.short, "z")
    assert images.resolve("y:1").names == ("x:latest", "y:1", "z:latest")
    assert images.untag("x").id == image.id
    assert images.resolve("z").names == ("y:1", "z:latest")
    with pytest.raises(NotFound, match="No such image: x:latest"):
        images.untag("x")
    images.untag("y:1")
    images.untag("z")
    assert images.list() == ()
    with pytest.raises(NotFound):
        images.tag("x", "w")
    with pytest.raises(Invalid, match="digest reference"):
        images.tag(image.id, "w@" + image.id)


# -- documents that others wrote --------------------------------------------------------------------------------


def test_an_index_gives_the_image_for_this_machine(images: Images) -> None:
    image = images.import_tar(io.BytesIO(TAR), "x")
    foreign = images.import_tar(io.BytesIO(TAR), "foreign", platform=str(ELSEWHERE))
    listed = (
        foreign.target.replace(platform=ELSEWHERE),
        Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b"not here"), size=8, platform=HERE),
        image.target.replace(platform=HERE),
    )
    target = put(images, image, "many", Index(schema_version=2, media_type=OCI_INDEX, manifests=listed), OCI_INDEX)
    found = images.resolve("many")
    assert (found.id, found.target, found.manifest.digest) == (image.id, target, image.target.digest)
    assert images.resolve(target.digest).id == image.id
    only_foreign = Index(schema_version=2, media_type=OCI_INDEX, manifests=listed[:2])
    named = put(images, image, "else", only_foreign, OCI_INDEX)
    assert images.resolve("else").id == foreign.id  # what was pulled for another platform by name
    assert images.for_platform(named, ELSEWHERE).digest == foreign.target.digest
    with pytest.raises(NotFound, match=f"has nothing here for {HERE}"):
        images.for_platform(named, HERE)
    put(images, image, "none", Index(schema_version=2, media_type=OCI_INDEX, manifests=listed[1:2]), OCI_INDEX)
    with pytest.raises(NotFound, match=f"has nothing here for {HERE}"):
        images.resolve("none")


def test_several_layers_have_chain_ids(images: Images) -> None:
    image = images.import_tar(io.BytesIO(TAR), "x")
    more = bytes(Archive().file(b"more"))
    layer = images.store.ingest(more, media_type=OCI_LAYER)
    document = json.loads(images.store.get(image.id))
    document["rootfs"]["diff_ids"].append(Digest.of(more))
    config = images.store.ingest(json.dumps(document).encode(), media_type=OCI_CONFIG)
    layers = (image.layers[0].descriptor, layer)
    manifest = Manifest(schema_version=2, media_type=DOCKER_MANIFEST, config=config, layers=layers)
    put(images, image, "two", manifest, DOCKER_MANIFEST)
    found = images.resolve("two")
    assert tuple(part.chain_id for part in found.layers) == chain_ids((Digest.of(TAR), Digest.of(more)))
    assert found.chain_id == found.layers[-1].chain_id
    wrong = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers[:1])
    put(images, image, "wrong", wrong, OCI_MANIFEST)
    with pytest.raises(Invalid, match="names 2 layers, its manifest 1"):
        images.resolve("wrong")
