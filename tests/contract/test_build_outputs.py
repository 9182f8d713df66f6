"""--output with all its attributes: what skopeo, tar and a registry find there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engine import Environment
from support.registries import debian_registry

Peer = Callable[[str], Path]
OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
DOCKERFILE = "FROM scratch AS one\nCOPY f /d/f\nFROM one\nCOPY f /d/g\nADD --link f /h\nLABEL a=b\n"
BASE = "FROM host\nRUN mkdir -p /w/gone /w/again /w/kept && touch /w/gone/x /w/again/old /w/kept/a /w/file\n"
SQUASHED = """\
FROM base:1
RUN rm -r /w/gone /w/again && echo more > /w/kept/b
RUN mkdir /w/again && touch /w/again/new
RUN rm /w/file && mkdir /w/file && ln /w/kept/b /w/kept/c && chmod 700 /w/kept
"""


@pytest.fixture
def registry(peer: Peer, tmp_path: Path, orlop: Environment) -> Iterator[str]:
    peer("skopeo")
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as name:
        yield name


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    (place / "f").write_text("content\n" * 1000)
    (place / "Dockerfile").write_text(DOCKERFILE)
    return place


def raw(orlop: Environment, where: str, *words: str) -> Any:
    argv = ["skopeo", "inspect", "--raw", *words, where]
    done = orlop.inside(lambda: subprocess.run(argv, capture_output=True, check=True))
    return json.loads(done.stdout)


def layers(orlop: Environment, context: Path, place: Path, attributes: str) -> list[dict[str, Any]]:
    orlop("build", "-q", "-o", f"type=oci,dest={place},{attributes}", context)
    found: list[dict[str, Any]] = raw(orlop, f"oci-archive:{place}")["layers"]
    return found


def blob(archive: Path, digest: str) -> bytes:
    with tarfile.open(archive) as opened:
        file = opened.extractfile(f"blobs/sha256/{digest.partition(':')[2]}")
        assert file is not None
        return file.read()


def test_layers_that_can_be_read_in_part_are_whole_layers_too(
    orlop: Environment, context: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "estargz.tar"
    packed = layers(orlop, context, archive, "name=parts:1,compression=estargz,force-compression=true")
    manifest = raw(orlop, f"oci-archive:{archive}")
    diff_ids = json.loads(blob(archive, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    for one, diff_id in zip(packed, diff_ids, strict=True):
        data = blob(archive, one["digest"])
        assert f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}" == diff_id
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            table = opened.extractfile("stargz.index.json")
            assert table is not None
            digest = f"sha256:{hashlib.sha256(table.read()).hexdigest()}"
        assert one["annotations"]["containerd.io/snapshot/stargz/toc.digest"] == digest
    orlop("load", "-i", archive)
    fetched = orlop("run", "--rm", "-d", "parts:1", "/none", check=False)
    assert "/none" in fetched.stderr, "it is a root file system"
    assert packed == layers(orlop, context, tmp_path / "again.tar", "compression=estargz,force-compression=true")


def test_layers_are_compressed_the_same_way_each_time(orlop: Environment, context: Path, tmp_path: Path) -> None:
    plain = layers(orlop, context, tmp_path / "plain.tar", "compression=uncompressed")
    packed = layers(orlop, context, tmp_path / "gzip.tar", "compression=gzip")
    assert {one["mediaType"] for one in packed} == {f"{OCI}layer.v1.tar+gzip"}
    for before, after in zip(plain, packed, strict=True):
        data = blob(tmp_path / "gzip.tar", after["digest"])
        assert f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}" == before["digest"]
        assert data[4:8] == bytes(4), "no time in gzip's header"
    assert packed == layers(orlop, context, tmp_path / "again.tar", "compression=gzip")
    strong = layers(orlop, context, tmp_path / "zstd.tar", "compression=zstd,compression-level=19")
    assert {one["mediaType"] for one in strong} == {f"{OCI}layer.v1.tar+zstd"}
    config = json.loads(blob(tmp_path / "zstd.tar", raw(orlop, f"oci-archive:{tmp_path}/zstd.tar")["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [one["digest"] for one in plain]
    orlop("rmi", orlop("load", "-q", "-i", tmp_path / "zstd.tar").stdout.split()[-1])


def test_only_own_layers_are_compressed_unless_forced(orlop: Environment, context: Path, tmp_path: Path) -> None:
    orlop("build", "-q", "-t", "base:1", "--target", "one", context)
    (context / "Dockerfile").write_text("FROM base:1\nCOPY f /x\n")
    kinds = [one["mediaType"][-4:] for one in layers(orlop, context, tmp_path / "a.tar", "compression=gzip")]
    assert kinds == [".tar", "gzip"]
    forced = layers(orlop, context, tmp_path / "b.tar", "compression=gzip,force-compression=true")
    assert [one["mediaType"][-4:] for one in forced] == ["gzip", "gzip"]


def test_docker_s_media_types_and_a_push_by_digest(orlop: Environment, context: Path, registry: str) -> None:
    attributes = "push=true,push-by-digest=true,name-canonical=true,oci-mediatypes=false,compression=gzip"
    metadata = context.parent / "metadata"
    name = f"{registry}/app"
    orlop("build", "-q", "-o", f"type=image,name={name},{attributes}", "--metadata-file", metadata, context)
    told = json.loads(metadata.read_text())
    assert told["image.name"] == f"{name}@{told['containerimage.digest']}"
    manifest = raw(orlop, f"docker://{told['image.name']}", "--tls-verify=false")
    assert manifest["mediaType"] == f"{DOCKER}distribution.manifest.v2+json"
    assert {one["mediaType"] for one in manifest["layers"]} == {f"{DOCKER}image.rootfs.diff.tar.gzip"}
    tags = ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]
    assert orlop.inside(lambda: subprocess.run(tags, capture_output=True, check=False)).returncode, "no tag"
    assert orlop("image", "inspect", told["image.name"]).code == 0


def test_several_platforms_with_annotations_and_attestations(orlop: Environment, context: Path, registry: str) -> None:
    words = ["--platform", "linux/amd64,linux/arm64", "--attest", "type=sbom", "-t", f"{registry}/app:1", "--push"]
    notes = ["--annotation", "index,manifest:of=both", "--annotation", "manifest[linux/arm64]:arm=only"]
    orlop("build", "-q", *words, *notes, "--annotation", "manifest-descriptor:near=it", context)
    index = raw(orlop, f"docker://{registry}/app:1", "--tls-verify=false")
    assert index["annotations"] == {"of": "both"}
    amd, arm, *attestations = index["manifests"]
    assert amd["annotations"] == arm["annotations"] == {"near": "it"}
    assert [one["annotations"]["vnd.docker.reference.digest"] for one in attestations] == [amd["digest"], arm["digest"]]
    found = [
        raw(orlop, f"docker://{registry}/app@{one['digest']}", "--tls-verify=false")["annotations"]
        for one in (amd, arm)
    ]
    assert found == [{"of": "both"}, {"of": "both", "arm": "only"}]


def test_folders_and_archives_of_several_platforms(orlop: Environment, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = ["--platform", "linux/amd64,linux/arm/v6"]
    orlop("build", "-q", *both, "-o", out, "-o", f"type=tar,dest={tmp_path}/t.tar", context)
    assert sorted(path.name for path in out.iterdir()) == ["linux_amd64", "linux_arm_v6"]
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert {"linux_amd64/d/f", "linux_arm_v6/h"} <= set(archive.getnames())
    (out / "old").touch()
    orlop("build", "-q", "-o", f"type=local,dest={out},mode=delete", context)
    assert sorted(path.name for path in out.iterdir()) == ["d", "h"]
    orlop("build", "-q", "-o", f"type=oci,dest={tmp_path}/layout,tar=false", "-t", "x:7", context)
    assert len(raw(orlop, f"oci:{tmp_path}/layout:7")["layers"]) == 3
    assert not orlop("images", "-q", "--no-trunc", "x").stdout, "nobody asked for it in the store"


def test_times_of_the_base_image_are_bounded(orlop: Environment, context: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.tar"
    with tarfile.open(late, "w") as archive:
        member = tarfile.TarInfo("late")
        member.mtime = 2_000_000_000
        archive.addfile(member)
    orlop("import", late, "late:1")
    (context / "Dockerfile").write_text("FROM late:1\nCOPY f /x\n")
    epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000000000"]
    orlop("build", "-q", *epoch, "-o", f"type=oci,dest={tmp_path}/o.tar,rewrite-timestamp=true", "-t", "r:1", context)
    manifest = raw(orlop, f"oci-archive:{tmp_path}/o.tar")
    for layer in manifest["layers"]:
        (tmp_path / "layer").write_bytes(blob(tmp_path / "o.tar", layer["digest"]))
        with tarfile.open(tmp_path / "layer") as opened:
            assert max(member.mtime for member in opened) == 1_000_000_000
    orlop("load", "-q", "-i", tmp_path / "o.tar")
    assert orlop("history", "-q", "r:1").stdout


def test_a_squashed_image_has_one_layer_and_the_same_files(orlop: Environment, context: Path) -> None:
    (context / "Dockerfile").write_text(BASE)
    orlop("build", "-q", "-t", "base:1", context)
    (context / "Dockerfile").write_text(SQUASHED)
    listing = ["sh", "-c", "cd /w; find . -printf '%p %y %m\\n' | sort; stat -c %h kept/b; cat kept/b"]
    shown = []
    for words in ([], ["--squash"]):
        image = orlop("build", "-q", *words, context).stdout.strip()
        shown.append(orlop("run", "--rm", "--network=none", image, *listing).stdout)
    assert shown[0] == shown[1] and "./again/new f" in shown[0] and "gone" not in shown[0]
    base = len(json.loads(orlop("inspect", "base:1").stdout)[0]["RootFS"]["Layers"])
    assert len(json.loads(orlop("inspect", image).stdout)[0]["RootFS"]["Layers"]) == base + 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "type=image,compresion=gzip"], "it has no attribute 'compresion'"),
        (["-o", "type=image,oci-mediatypes=false,compression=estargz"], "docker's media types have none"),
        (["-o", "type=image,compression=estargz", "--cache-to", "type=inline"], "an inline cache names layers"),
        (["-o", "type=image,compression=gzip,compression-level=10"], "gzip has no such level"),
        (["-o", "type=image,oci-mediatypes=false,compression=zstd"], "docker's media types have none"),
        (["-o", "type=registry,registry.insecure=true"], "said by the machine's files"),
        (["-o", "type=cacheonly,name=x"], "it has no attribute 'name'"),
        (["-o", "type=local"], "dest is required"),
        (["--annotation", "index:a=b"], "index annotations are not supported"),
        (["--annotation", "manifesto"], "it is not KEY=VALUE"),
        (["-o", "type=oci,dest=/proc/nothing"], "No such file or directory"),
    ],
)
def test_what_cant_be_honoured_is_refused(orlop: Environment, context: Path, words: list[str], told: str) -> None:
    done = orlop("build", *words, context, check=False)
    assert done.code and told in done.stderr


def test_platforms_cross_built_copied_to_and_not_run(orlop: Environment, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM --platform=$BUILDPLATFORM host AS build\nARG BUILDPLATFORM TARGETPLATFORM TARGETARCH TARGETVARIANT\n"
        "RUN echo $TARGETPLATFORM $TARGETARCH $TARGETVARIANT > /made\nFROM scratch\nCOPY --from=build /made /made\n"
    )
    both = ["--platform", "linux/arm64,linux/arm/v6"]
    orlop("build", "-q", *both, "-t", "cross:1", "-o", tmp_path / "a", "-o", "type=image", context)
    assert (tmp_path / "a/linux_arm_v6/made").read_text() == "linux/arm/v6 arm v6\n"
    (context / "Dockerfile").write_text("FROM base\nCOPY f /f\n")
    given = [*both, "--build-context", "base=docker-image://cross:1"]
    orlop("build", "-q", *given, "-o", tmp_path / "b", context)
    found = [(tmp_path / "b" / name / "made").read_text() for name in ("linux_arm64", "linux_arm_v6")]
    assert found == ["linux/arm64 arm64\n", "linux/arm/v6 arm v6\n"], "each has its own base"
    (context / "Dockerfile").write_text("FROM cross:1\nRUN true\n")
    done = orlop("build", "--platform", "linux/arm64", context, check=False)
    assert done.code and "executes none of those" in done.stderr and "BUILDPLATFORM" in done.stderr


def test_a_layout_as_a_named_context(orlop: Environment, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    orlop("build", "-q", "-t", "x:v1", "-o", f"type=oci,dest={layout},tar=false", context)
    (context / "Dockerfile").write_text("FROM given\nCOPY f /new\nFROM scratch\nCOPY --from=given /h /h\n")
    given = ["--build-context", f"given=oci-layout://{layout}:v1"]
    orlop("build", "-q", *given, "--target", "0", "-o", tmp_path / "out", context)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["d", "h", "new"]
    orlop("build", "-q", *given, context)
    for wrong, told in ((":v2", "has no image v2"), ("/none:v1", "No such file")):
        refused = orlop("build", "--build-context", f"given=oci-layout://{layout}{wrong}", context, check=False)
        assert refused.code and told in refused.stderr
