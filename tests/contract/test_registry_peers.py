"""Debian's docker-registry as the server; skopeo, podman and umoci as clients and as judges of digests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import judges
from support.archives import Archive
from support.engine import Environment
from support.registries import Cutter, debian_registry

Peer = Callable[[str], Path]
TREE = bytes(
    Archive()
    .directory(b".")
    .directory(b"bin")
    .file(b"bin/tool", os.urandom(100_000), mode=0o755)
    .symlink(b"link", b"bin/tool")
    .hard(b"hard", b"bin/tool")
)


@pytest.fixture
def registry(peer: Peer, tmp_path: Path, orlop: Environment) -> Iterator[str]:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as name:
        yield name


@pytest.fixture
def judge(peer: Peer, tmp_path: Path, orlop: Environment) -> Callable[..., str]:
    """`judge("skopeo", ...)` runs a peer and returns what it printed."""
    return judges.client(peer, tmp_path, orlop)


def inspected(judge: Callable[..., str], name: str) -> dict[str, object]:
    found = json.loads(judge("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert isinstance(found, dict)
    return found


def digest_of(orlop: Environment, name: str) -> str:
    return orlop("image", "inspect", name, "-f", "{{index .RepoDigests 0}}").stdout.strip().partition("@")[2]


def test_a_round_trip_keeps_the_digest(orlop: Environment, registry: str, judge: Callable[..., str]) -> None:
    name = f"{registry}/user/base:1"
    orlop("import", "-c", 'CMD ["sh"]', "-", name, input=TREE)
    pushed = orlop("push", name).stdout
    digest = digest_of(orlop, name)
    assert f"\n1: digest: {digest} size: " in pushed
    assert inspected(judge, name)["Digest"] == digest
    assert "Layer already exists" in orlop("push", name).stdout
    orlop("rmi", name)
    assert orlop("images", "-q").stdout == ""
    pulled = orlop("pull", name).stdout
    assert pulled.splitlines()[0] == "1: Pulling from user/base"
    assert pulled.splitlines()[-3:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}",
        name,
    ]
    assert digest_of(orlop, name) == digest
    again = orlop("pull", name).stdout
    assert again.splitlines()[-2] == f"Status: Image is up to date for {name}"
    assert orlop("pull", "-q", name).stdout == f"{name}\n"


def test_the_digest_of_the_name_that_is_asked_for_comes_first(orlop: Environment, registry: str) -> None:
    """An image that was made here has names that no registry knows; `index .RepoDigests 0` is what scripts ask."""
    named = [f"{registry}/z/last:1", "aaa/first:1", "zzz/last:1"]
    orlop("import", "-", named[1], input=TREE)
    for name in (named[0], named[2]):
        orlop("tag", named[1], name)
    orlop("push", named[0])
    for name in named:
        first, *rest = json.loads(orlop("image", "inspect", "-f", "{{json .RepoDigests}}", name).stdout)
        assert first.partition("@")[0] == name.removesuffix(":1") and rest == sorted(rest) and len(rest) == 2
    identifier = orlop("image", "inspect", "-f", "{{.Id}}", named[0]).stdout.strip()
    found = json.loads(orlop("image", "inspect", "-f", "{{json .RepoDigests}}", identifier).stdout)
    assert found == sorted(found)


def test_pull_by_digest_and_run_what_is_missing(orlop: Environment, registry: str, judge: Callable[..., str]) -> None:
    name = f"{registry}/user/runs"
    orlop("run", "--rm", "--network", "none", "host", "true")
    orlop("tag", "host", f"{name}:1")
    orlop("push", f"{name}:1")
    digest = digest_of(orlop, f"{name}:1")
    orlop("rmi", f"{name}:1")
    orlop("pull", f"{name}@{digest}")
    listed = orlop("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}").stdout.splitlines()
    assert f"{name} <none> {digest}" in listed
    orlop("rmi", f"{name}@{digest}")
    done = orlop("run", "--rm", "--network", "none", f"{name}:1", "echo", "ok")
    assert done.stdout == "ok\n"
    told = done.stderr.splitlines()
    assert told[0] == f"Unable to find image '{name}:1' locally"
    assert told[-2:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:1"]
    refused = orlop("run", "--rm", "--pull", "never", f"{name}:2", "true", check=False)
    assert refused.code == 125
    assert f"No such image: {name}:2" in refused.stderr
    missing = orlop("pull", f"{name}:nope", check=False)
    assert missing.code == 1
    assert f"manifest for {name}:nope not found: manifest unknown" in missing.stderr


def test_blobs_are_mounted_across_repositories(orlop: Environment, registry: str) -> None:
    orlop("import", "-", f"{registry}/mount/one:1", input=TREE[:512] + TREE[512:])
    orlop("push", f"{registry}/mount/one:1")
    orlop("tag", f"{registry}/mount/one:1", f"{registry}/mount/two:1")
    assert "Mounted from mount/one" in orlop("push", f"{registry}/mount/two:1").stdout


@pytest.mark.parametrize("form", ["v2s2", "oci"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_skopeo_pushes(
    orlop: Environment, registry: str, judge: Callable[..., str], tmp_path: Path, form: str, compression: str
) -> None:
    if compression == "zstd" and form == "v2s2":
        return  # docker's schema has no name for it
    name = f"{registry}/from/skopeo:{form}-{compression}"
    archive = tmp_path / "a.tar"
    orlop("import", "-", "local/x:1", input=TREE)
    orlop("save", "-o", archive, "local/x:1")
    target = f"docker://{name}"
    judge("skopeo", "copy", "--dest-tls-verify=false", "--format", form, "--dest-compress-format", compression,
          "--dest-compress", f"oci-archive:{archive}", target)  # fmt: skip
    orlop("pull", name)
    assert digest_of(orlop, name) == inspected(judge, name)["Digest"]
    container = orlop("create", "--network", "none", name, "x").stdout.strip()
    orlop("rm", container)


def test_indexes_and_platforms(orlop: Environment, registry: str, judge: Callable[..., str], tmp_path: Path) -> None:
    lay = tmp_path / "lay"
    judge("umoci", "init", "--layout", str(lay))
    manifests = []
    for architecture, variant in (("amd64", ""), ("arm64", "v8"), ("arm", "v7")):
        orlop("import", "-", f"{registry}/multi/{architecture}:1", input=TREE + bytes(1024))
        orlop("push", f"{registry}/multi/{architecture}:1")
        manifests.append((f"{registry}/multi/{architecture}:1", architecture, variant))
    orlop("manifest", "create", "--insecure", f"{registry}/multi/all:1", *(name for name, _, _ in manifests))
    for name, architecture, variant in manifests:
        words = ["--os", "linux", "--arch", architecture, *(["--variant", variant] if variant else [])]
        orlop("manifest", "annotate", *words, f"{registry}/multi/all:1", name)
    told = orlop("manifest", "push", "--insecure", f"{registry}/multi/all:1").stdout.split()[-1]
    raw = judge("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/multi/all:1")
    platforms = {one["platform"]["architecture"] for one in json.loads(raw)["manifests"]}
    assert platforms == {"amd64", "arm64", "arm"}
    orlop("rmi", "-f", *orlop("images", "-q").stdout.split())
    orlop("pull", "--platform", "linux/arm64", f"{registry}/multi/all:1")
    assert digest_of(orlop, f"{registry}/multi/all:1") == told
    orlop("pull", "--all-platforms", f"{registry}/multi/all:1")
    orlop("tag", f"{registry}/multi/all:1", f"{registry}/multi/copy:1")
    assert told in orlop("push", f"{registry}/multi/copy:1").stdout
    refused = orlop("pull", "--platform", "linux/s390x", f"{registry}/multi/all:1", check=False)
    assert "no matching manifest for linux/s390x" in refused.stderr


def test_archives_of_and_for_podman(orlop: Environment, judge: Callable[..., str], tmp_path: Path) -> None:
    orlop("import", "-c", "LABEL a=b", "-", "local/x:1", input=TREE)
    orlop("tag", "local/x:1", "local/y:2")
    saved = tmp_path / "saved.tar"
    orlop("save", "-o", saved, "local/x:1", "local/y:2")
    assert saved.read_bytes() == orlop("save", "local/x:1", "local/y:2").raw_stdout
    judge("podman", "load", "-i", str(saved))
    for form in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{form}.tar"
        judge("podman", "save", "--format", form, "-o", str(archive), "localhost/local/x:1")
        assert orlop("load", "--force", "-i", archive).stdout.endswith("Loaded image: localhost/local/x:1\n")
        labels = orlop("image", "inspect", "localhost/local/x:1", "-f", "{{.Config.Labels.a}}").stdout
        assert labels == "b\n"
    identifier = orlop("images", "-q", "--no-trunc", "local/x:1").stdout.strip()
    orlop("rmi", "-f", *orlop("images", "-q").stdout.split())
    loaded = orlop("load", input=saved.read_bytes()).stdout
    assert loaded.splitlines() == ["Loaded image: local/x:1", "Loaded image: local/y:2"]
    assert orlop("images", "-q", "--no-trunc", "local/y:2").stdout.strip() == identifier


def test_uploads_and_downloads_go_on_where_they_were_cut(
    orlop: Environment, registry: str, judge: Callable[..., str]
) -> None:
    with orlop.inside(lambda: Cutter(registry, 3_000_000, times=2)) as proxy:
        orlop("import", "-", f"{proxy.name}/cut/x:1", input=bytes(Archive().file(b"big", os.urandom(9_000_000))))
        orlop("push", "-q", f"{proxy.name}/cut/x:1")
        assert proxy.cuts == 2
    digest = digest_of(orlop, f"{proxy.name}/cut/x:1")
    assert inspected(judge, f"{registry}/cut/x:1")["Digest"] == digest
    assert f"digest: {digest}" in pushed_again(orlop, proxy.name, registry)


def pushed_again(orlop: Environment, name: str, registry: str) -> str:
    orlop("tag", f"{name}/cut/x:1", f"{registry}/cut/x:2")
    return orlop("push", f"{registry}/cut/x:2").stdout


def test_mirrors_of_the_users_file(orlop: Environment, registry: str, tmp_path: Path) -> None:
    orlop("import", "-", f"{registry}/hub/library/tool:1", input=TREE)
    orlop("push", f"{registry}/hub/library/tool:1")
    digest = digest_of(orlop, f"{registry}/hub/library/tool:1")
    orlop("rmi", f"{registry}/hub/library/tool:1")
    file = tmp_path / "registries.conf"
    file.write_text(
        f"""
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "127.0.0.1:1/dead"
        [[registry.mirror]]
        location = "{registry}/hub"
        """
    )
    orlop("engine", "stop")
    environment = {"CONTAINERS_REGISTRIES_CONF": str(file)}
    told = orlop("pull", "tool:1", env=environment).stdout
    assert f"Digest: {digest}" in told
    assert told.splitlines()[-1] == "docker.io/library/tool:1"
    assert orlop("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == "tool:1\n"


def test_a_list_of_several_platforms_by_skopeo(orlop: Environment, registry: str, judge: Callable[..., str]) -> None:
    """--all-platforms brings what skopeo would copy with --all: every digest of the list."""
    for architecture in ("amd64", "arm64"):
        orlop("import", "--platform", f"linux/{architecture}", "-", f"{registry}/list/{architecture}:1", input=TREE)
    names = [f"{registry}/list/{architecture}:1" for architecture in ("amd64", "arm64")]
    orlop("manifest", "create", f"{registry}/list/all:1", *names)
    orlop("manifest", "push", f"{registry}/list/all:1")
    judge("skopeo", "copy", "--all", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
          f"docker://{registry}/list/all:1", f"docker://{registry}/list/copy:1")  # fmt: skip
    orlop("rmi", "-f", *orlop("images", "-q").stdout.split())
    orlop("pull", "--all-platforms", f"{registry}/list/copy:1")
    listed = json.loads(orlop("manifest", "inspect", f"{registry}/list/copy:1").stdout)
    blobs = {path.name for path in (orlop.root / "content/blobs/sha256").iterdir()}
    assert {one["digest"].removeprefix("sha256:") for one in listed["manifests"]} <= blobs
    orlop("tag", f"{registry}/list/copy:1", f"{registry}/list/back:1")
    digest = digest_of(orlop, f"{registry}/list/copy:1")
    assert f"digest: {digest}" in orlop("push", f"{registry}/list/back:1").stdout
