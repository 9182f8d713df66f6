"""`image copy` and `image sync` between all places, skopeo as the other side and as the judge of digests."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import registry_server
from support.archives import Archive
from support.engine import Environment
from support.registries import Content, Registry, Request, debian_registry

Peer = Callable[[str], Path]
Skopeo = Callable[..., str]
OCI = "application/vnd.oci.image"
PLATFORMS = ("amd64", "arm64")


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout with an index for two platforms, the second an attestation's neighbour, under the name `two`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        self.images = {platform: self._image(platform) for platform in PLATFORMS}
        entries = [
            one | {"platform": {"os": "linux", "architecture": platform}} for platform, one in self.images.items()
        ]
        self.index = self._blob(
            f"{OCI}.index.v1+json",
            {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries},
        )
        named = self.index | {"annotations": {"org.opencontainers.image.ref.name": "two"}}
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def _image(self, platform: str) -> dict[str, object]:
        tree = bytes(Archive().directory(b".").file(b"platform", platform.encode()))
        layer = self._blob(f"{OCI}.layer.v1.tar+gzip", gzip.compress(tree, mtime=0))
        rootfs = {"type": "layers", "diff_ids": [digest(tree)]}
        config = self._blob(
            f"{OCI}.config.v1+json", {"os": "linux", "architecture": platform, "config": {}, "rootfs": rootfs}
        )
        document = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": [layer]}
        return self._blob(f"{OCI}.manifest.v1+json", document)

    def referrer(self, subject: dict[str, object], artifact_type: str) -> dict[str, object]:
        """Add a manifest that refers to another one, without a name."""
        empty = self._blob("application/vnd.oci.empty.v1+json", b"{}")
        document = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "artifactType": artifact_type}
        document |= {
            "config": empty,
            "layers": [empty],
            "subject": {k: subject[k] for k in ("mediaType", "digest", "size")},
        }
        found = self._blob(f"{OCI}.manifest.v1+json", document)
        index = json.loads((self.path / "index.json").read_text())
        index["manifests"].append(found)
        (self.path / "index.json").write_text(json.dumps(index))
        return found

    def _blob(self, media_type: str, content: object) -> dict[str, object]:
        data = content if isinstance(content, bytes) else json.dumps(content, indent=3).encode()
        (self.path / "blobs/sha256" / digest(data).removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def registry(peer: Peer, tmp_path: Path, orlop: Environment) -> Iterator[str]:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as name:
        yield name


@pytest.fixture
def skopeo(peer: Peer, tmp_path: Path, orlop: Environment) -> Skopeo:
    """`skopeo("copy", ...)` runs it and returns what it printed."""
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    environment = os.environ | {"HOME": str(tmp_path)}

    def run(*args: str) -> str:
        words = [str(peer("skopeo")), "--policy", str(policy), *args]
        done = orlop.inside(lambda: subprocess.run(words, capture_output=True, text=True, env=environment))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def raw_digest(skopeo: Skopeo, place: str) -> str:
    flags = ["--tls-verify=false"] if place.startswith("docker:") else []
    return digest(skopeo("inspect", "--raw", *flags, place).encode())


def places(directory: Path, registry: str) -> list[str]:
    return [
        f"docker://{registry}/copied/it:1",
        f"oci:{directory}/layout-copy:1",
        f"dir:{directory}/dir-copy",
        f"oci-archive:{directory}/archive.tar:1",
    ]


def test_all_platforms_keep_their_digests_everywhere(
    orlop: Environment, layout: Layout, registry: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    source = f"oci:{layout.path}:two"
    for place in [*places(tmp_path, registry), "here:1"]:
        done = orlop("image", "copy", "--all-platforms", source, place)
        assert done.stdout.splitlines()[-1] == f"Digest: {layout.index['digest']}"
        if place != "here:1":
            assert raw_digest(skopeo, place) == layout.index["digest"]
            skopeo("copy", "-q", "--all", "--src-tls-verify=false", place, f"dir:{tmp_path}/judged-{hash(place)}")
        source = place  # the next one gets it from this one
    assert orlop("images", "-q").stdout.count("\n") == 1


def test_one_platform_is_chosen(orlop: Environment, layout: Layout, skopeo: Skopeo, tmp_path: Path) -> None:
    for platform in PLATFORMS:
        place = f"dir:{tmp_path}/{platform}"
        orlop("image", "copy", "-q", "--platform", f"linux/{platform}", f"oci:{layout.path}", place)
        assert raw_digest(skopeo, place) == layout.images[platform]["digest"]
    refused = orlop(
        "image", "copy", "--platform", "linux/s390x", f"oci:{layout.path}", f"dir:{tmp_path}/x", check=False
    )
    assert "has nothing for linux/s390x" in refused.stderr
    assert "linux/amd64, linux/arm64" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_what_skopeo_writes_is_read(
    orlop: Environment, layout: Layout, registry: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    flags = ["-q", "--dest-tls-verify=false", "--override-arch=arm64"]
    wanted = layout.images["arm64"]["digest"]
    for number, place in enumerate(places(tmp_path, registry)):
        skopeo("copy", *flags, f"oci:{layout.path}:two", place)
        target = f"oci:{tmp_path}/read:{number}"
        done = orlop("image", "copy", "--platform", "linux/arm64", place, target)
        assert done.stdout.splitlines()[-1] == f"Digest: {wanted}"
        assert raw_digest(skopeo, target) == wanted


def test_docker_archives_go_both_ways(orlop: Environment, layout: Layout, skopeo: Skopeo, tmp_path: Path) -> None:
    ours, theirs = f"docker-archive:{tmp_path}/ours.tar:a/b:1", f"docker-archive:{tmp_path}/theirs.tar:a/b:1"
    orlop("image", "copy", f"oci:{layout.path}", ours)
    skopeo("copy", "-q", f"oci:{layout.path}:two", theirs)
    for number, place in enumerate((ours, theirs)):
        skopeo("copy", "-q", place, f"oci:{tmp_path}/judged:{number}")
        orlop("image", "copy", "-q", place, f"image{number}:1")
    found = [json.loads(skopeo("inspect", "--config", f"oci:{tmp_path}/judged:{number}")) for number in (0, 1)]
    assert found[0]["rootfs"] == found[1]["rootfs"]
    ids = orlop("images", "-q", "--no-trunc").stdout.split()
    assert len(set(ids)) == 1
    refused = orlop(
        "image", "copy", "--all-platforms", f"oci:{layout.path}", f"docker-archive:{tmp_path}/no", check=False
    )
    assert "images for one platform each" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_a_repository_is_synced_and_what_is_there_is_left_alone(
    orlop: Environment, layout: Layout, registry: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    for tag in ("1", "2"):
        orlop("image", "copy", "-q", "--all-platforms", f"oci:{layout.path}", f"docker://{registry}/deep/name:{tag}")
    source = f"docker://{registry}/deep/name"
    first = orlop("image", "sync", "--all-platforms", source, f"docker://{registry}/mirror").stdout
    assert first.splitlines()[-1] == "Synced 2 tags, 2 of them copied"
    assert raw_digest(skopeo, f"docker://{registry}/mirror/name:2") == layout.index["digest"]
    again = orlop("image", "sync", "--all-platforms", source, f"docker://{registry}/mirror").stdout
    assert again.splitlines()[-1] == "Synced 2 tags, 0 of them copied"
    orlop("image", "sync", "-q", "--all-platforms", source, f"dir:{tmp_path}/synced")
    assert sorted(os.listdir(tmp_path / "synced")) == ["name:1", "name:2"]
    assert raw_digest(skopeo, f"dir:{tmp_path}/synced/name:1") == layout.index["digest"]


def test_nothing_of_a_copy_stays_behind(orlop: Environment, layout: Layout, tmp_path: Path) -> None:
    orlop("image", "copy", "-q", f"oci:{layout.path}", f"dir:{tmp_path}/copied")
    assert not [name for _, _, names in os.walk(orlop.root / "content/blobs") for name in names]
    assert orlop("system", "fsck").code == 0


@pytest.mark.parametrize("how", ["outside", "absolute", "fifo", "changed", "cut", "name"])
def test_a_hostile_layout_reads_nothing_outside(orlop: Environment, layout: Layout, tmp_path: Path, how: str) -> None:
    manifest = layout.path / "blobs/sha256" / str(layout.images["amd64"]["digest"]).removeprefix("sha256:")
    data = manifest.read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(data)
    if how == "name":
        index = json.loads((layout.path / "index.json").read_text())
        index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
        (layout.path / "index.json").write_text(json.dumps(index))
    else:
        manifest.unlink()
    if how == "outside":
        manifest.symlink_to("../../../secret")
    elif how == "absolute":
        manifest.symlink_to(secret)
    elif how == "fifo":
        os.mkfifo(manifest)
    elif how in ("changed", "cut"):
        manifest.write_bytes(data.replace(b"schema", b"Schema") if how == "changed" else data[:-5])
    refused = orlop("image", "copy", "--platform", "linux/amd64", f"oci:{layout.path}", "bad:1", check=False)
    assert refused.code == 1, refused.stdout
    assert orlop("images", "-q").stdout == ""
    assert not [name for _, _, names in os.walk(orlop.root / "content/blobs") for name in names]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("containers-storage:x", "dir:y"), "reads and writes no containers-storage:"),
        (("docker:x", "dir:y"), "begins with docker://"),
        (("oci:", "dir:y"), "it names no path"),
        (("oci:/nowhere/at/all", "x:1"), "No such file or directory"),
        (("no-such-image", "dir:y"), "No such image: no-such-image:latest"),
        (("docker-archive:/etc/passwd", "x:1"), "it is not a tar archive"),
    ],
)
def test_what_can_not_be_copied_is_said(orlop: Environment, words: tuple[str, str], told: str) -> None:
    refused = orlop("image", "copy", *words, check=False)
    assert refused.code == 1
    assert told in refused.stderr


def test_the_images_of_a_name_are_found_shown_and_removed_one_by_one(orlop: Environment, layout: Layout) -> None:
    orlop("image", "copy", "-q", "--all-platforms", f"oci:{layout.path}", "two:1")
    found = {platform: orlop("image", "inspect", "--platform", f"linux/{platform}", "two:1") for platform in PLATFORMS}
    for platform, done in found.items():
        (shown,) = json.loads(done.stdout)
        assert (shown["Architecture"], shown["RepoTags"]) == (platform, ["two:1"])
    assert len(orlop("history", "-q", "--platform", "linux/arm64", "two:1").stdout.split()) == 1
    tree = orlop("images", "--tree").stdout
    assert [line.split()[:2] for line in tree.splitlines()[1:]] == [
        ["two:1", str(layout.index["digest"])[7:19]],
        ["├─", "linux/amd64"],
        ["└─", "linux/arm64"],
    ]
    refused = orlop("rmi", "--platform", "linux/amd64,linux/arm64", "two:1", check=False)
    assert "no platform of it would be left" in refused.stderr
    removed = orlop("rmi", "--platform", "linux/arm64", "two:1").stdout
    assert removed == f"Deleted: {layout.images['arm64']['digest']}\n"
    missing = orlop("image", "inspect", "--platform", "linux/arm64", "two:1", check=False)
    assert "has nothing here for linux/arm64" in missing.stderr
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
    assert orlop("rmi", "two:1").code == 0


def test_a_list_is_annotated_and_inspected_at_length(orlop: Environment, layout: Layout) -> None:
    orlop("image", "copy", "-q", f"oci:{layout.path}", "one:1")
    orlop("manifest", "create", "list:1", "one:1")
    orlop("manifest", "annotate", "--os-features", "a,b", "--os-features", "c", "list:1", "one:1")
    (shown,) = json.loads(orlop("manifest", "inspect", "-v", "list:1").stdout)
    digest = layout.images["amd64"]["digest"]
    assert shown["Ref"] == f"docker.io/library/list:1@{digest}"
    assert shown["Descriptor"]["platform"]["os.features"] == ["a", "b", "c"]
    assert shown["OCIManifest"]["layers"][0]["mediaType"] == f"{OCI}.layer.v1.tar+gzip"


def test_two_images_are_compared_and_taken_apart(orlop: Environment, tmp_path: Path) -> None:
    old = Archive().directory(b"d").file(b"d/same").file(b"d/gone").file(b"d/mode", mode=0o600).file(b"d/data", b"1")
    old.symlink(b"link", b"a").directory(b"empty").file(b"was-file")
    new = Archive().directory(b"d", mtime=9).file(b"d/same", mtime=9).file(b"d/mode").file(b"d/data", b"2")
    new.symlink(b"link", b"b").directory(b"new").file(b"new/inside").directory(b"was-file")
    for name, archive in (("old:1", old), ("new:1", new)):
        orlop("import", "-", name, input=bytes(archive))
    shown = orlop("image", "diff", "old:1", "new:1").stdout
    assert shown.splitlines() == [
        "C /d/data",
        "D /d/gone",
        "C /d/mode",
        "D /empty",
        "C /link",
        "A /new",
        "C /was-file",
    ]
    assert orlop("image", "diff", "new:1", "new:1").stdout == ""
    orlop("run", "--name", "c", "--network", "none", "host", "sh", "-c", "echo x > /etc/written; rm /etc/passwd")
    orlop("commit", "c", "top:1")
    assert orlop("image", "diff", "host", "top:1").stdout.splitlines() == ["D /etc/passwd", "A /etc/written"]
    taken = orlop("image", "tree", "top:1").stdout.splitlines()
    assert taken[1] == "Tags:     [top:1]"
    assert "Top Layer of: [host:latest]" in taken[-2]
    assert "Top Layer of: [top:1]" in taken[-1]


def test_what_refers_to_an_image_goes_along(orlop: Environment, layout: Layout, skopeo: Skopeo, tmp_path: Path) -> None:
    """A signature of one image of the index, and a signature of that, by way of two registries of ours."""
    image = layout.images["amd64"]
    first = layout.referrer(image, "application/vnd.example.signature")
    second = layout.referrer(first, "application/vnd.example.countersignature")
    flags = ["--all-platforms", "--referrers", "-q"]
    with ExitStack() as stack:
        registry = orlop.inside(lambda: stack.enter_context(registry_server.ours(tmp_path / "one")))
        source = f"docker://{registry.host}/signed:1"
        orlop("image", "copy", *flags, f"oci:{layout.path}:two", source)
        for subject, wanted in ((image, first), (first, second)):
            path = f"/v2/signed/referrers/{subject['digest']}"
            listed = json.loads(orlop.inside(lambda path=path: registry("GET", path)).body)["manifests"]
            assert [one["digest"] for one in listed] == [wanted["digest"]]
        orlop("image", "copy", *flags, source, f"oci:{tmp_path}/back:1")
    back = {one["digest"] for one in json.loads((tmp_path / "back/index.json").read_text())["manifests"]}
    assert back == {layout.index["digest"], first["digest"], second["digest"]}
    assert raw_digest(skopeo, f"oci:{tmp_path}/back:1") == layout.index["digest"]
    refused = orlop("image", "copy", "--referrers", f"oci:{layout.path}:two", f"dir:{tmp_path}/no", check=False)
    assert "keeps nothing that refers to an image" in refused.stderr
    assert not [name for _, _, names in os.walk(orlop.root / "content/blobs") for name in names]


def test_what_refers_to_an_image_is_pulled_kept_and_pushed(
    orlop: Environment, layout: Layout, registry: str, tmp_path: Path
) -> None:
    """From a registry that knows of referrers to one that does not, where a tag stands for them, and back."""
    image = layout.images["amd64"]
    first = layout.referrer(image, "application/vnd.example.signature")
    second = layout.referrer(first, "application/vnd.example.countersignature")
    flags = ["--all-platforms", "--referrers", "-q"]
    with ExitStack() as stack:
        ours = orlop.inside(lambda: stack.enter_context(registry_server.ours(tmp_path / "one")))
        name, other = f"{ours.host}/signed:1", f"{registry}/signed:1"
        orlop("image", "copy", *flags, f"oci:{layout.path}:two", f"docker://{name}")
        orlop("pull", *flags, name)
        listed = orlop("images", "-a", "--format", "{{.Repository}}:{{.Tag}}").stdout
        assert listed == f"{name}\n"
        assert orlop("system", "fsck").stdout == "Everything is in order.\n"
        orlop("image", "prune", "-f")
        orlop("tag", name, other)
        orlop("push", "-q", other)
        orlop("rmi", name, other)
        assert orlop("system", "fsck").stdout == "Everything is in order.\n"
        assert not [name for _, _, names in os.walk(orlop.root / "content/blobs") for name in names]
        orlop("pull", *flags, other)
        orlop("image", "copy", "-q", "--all-platforms", "--referrers", other, f"oci:{tmp_path}/back:1")
        orlop("image", "copy", *flags, f"docker://{other}", f"docker://{ours.host}/again:1")
        path = f"/v2/again/referrers/{image['digest']}"
        listed = orlop.inside(lambda: ours("GET", path)).body.decode()
        assert [one["digest"] for one in json.loads(listed)["manifests"]] == [first["digest"]]
    back = {one["digest"] for one in json.loads((tmp_path / "back/index.json").read_text())["manifests"]}
    assert back == {layout.index["digest"], first["digest"], second["digest"]}


def test_an_image_is_a_directory_for_as_long_as_somebody_looks(orlop: Environment, tmp_path: Path) -> None:
    place = tmp_path / "looked at"
    place.mkdir()
    orlop("import", "-", "seen:1", input=bytes(Archive().directory(b".").file(b"f", b"data", mode=0o4755)))
    orlop("tag", "host", "seen:2")
    assert orlop("image", "mount", "seen:1", place).stdout == f"{place}\n"
    try:
        assert (place / "f").read_bytes() == b"data"
        with pytest.raises(OSError, match="Read-only"):
            (place / "g").touch()
        assert os.statvfs(place).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV
        identifier = orlop("images", "-q", "seen:1").stdout.strip()
        assert orlop("image", "mount").stdout.splitlines()[1].split(maxsplit=2) == [identifier, "seen:1", str(place)]
        orlop("rmi", "seen:1")
        orlop("system", "prune", "-af")
        assert (place / "f").read_bytes() == b"data"
        assert orlop("system", "fsck").stdout == "Everything is in order.\n"
        refused = orlop("image", "mount", "host", place, check=False)
        assert f"an image is mounted at {place}" in refused.stderr
    finally:
        orlop("image", "unmount", "--all")
    assert list(place.iterdir()) == []
    assert "no image is mounted as" in orlop("image", "unmount", place, check=False).stderr
    orlop("system", "prune", "-af")
    assert list((orlop.root / "snapshots/active").iterdir()) == []


def test_an_archive_is_imported_from_a_url(orlop: Environment) -> None:
    content = Content()
    path = f"/v2/x/blobs/{content.blob(bytes(Archive().file(b'f')))['digest']}"

    def cut(request: Request) -> bool:
        return request.path == "/cut" and request.reply(200, b"half", content_length="8")

    with orlop.inside(lambda: Registry(content, cut)) as served:
        assert orlop("import", f"http://{served.name}{path}", "fetched:1").stdout.startswith("sha256:")
        for place, told in (("/nowhere", "Not Found"), ("/cut", "IncompleteRead")):
            refused = orlop("import", f"http://{served.name}{place}", "fetched:2", check=False)
            assert refused.code == 1
            assert told in refused.stderr or "it ended after 4 of 8 bytes" in refused.stderr
    assert orlop("images", "-q").stdout.count("\n") == 1
