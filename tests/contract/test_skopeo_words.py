"""`orlop skopeo` beside skopeo: the same words on the same registry and folders, the same output and files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.spec.image import OCI_CONFIG, OCI_MANIFEST
from support.archives import Archive
from support.engine import Environment
from support.registries import Content, Registry, Request, debian_registry, digest

Skopeo = Callable[..., str]


@pytest.fixture
def registry(orlop: Environment, peer: Callable[[str], Path], tmp_path: Path) -> Iterator[str]:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as name:
        tree = bytes(Archive().directory(b"etc").file(b"etc/name", os.urandom(3000)))
        for tag in ("1", "2"):
            changes = ["-c", "LABEL a=b", "-c", f"ENV TAG={tag}"]
            orlop("import", *changes, "-", f"{name}/lib/x:{tag}", input=tree)
            orlop("push", "-q", f"{name}/lib/x:{tag}")
        yield name


@pytest.fixture
def skopeo(orlop: Environment, peer: Callable[[str], Path], tmp_path: Path) -> Skopeo:
    program, policy = peer("skopeo"), tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run(*words: str) -> str:
        argv = [program, "--policy", policy, *words]
        done = orlop.inside(lambda: subprocess.run(argv, capture_output=True, text=True, check=False))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_images_are_described_alike(orlop: Environment, registry: str, skopeo: Skopeo, tmp_path: Path) -> None:
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry}/lib/x:1", f"oci:{tmp_path}/lay:1")
    skopeo("copy", f"oci:{tmp_path}/lay:1", f"dir:{tmp_path}/dir")
    for words in ([f"docker://{registry}/lib/x:1"], [f"oci:{tmp_path}/lay:1"], [f"dir:{tmp_path}/dir"]):
        verify = ["--tls-verify=false"] if words[0].startswith("docker:") else []
        theirs = json.loads(skopeo("inspect", *verify, *words))
        ours = json.loads(orlop("skopeo", "inspect", *verify, *words).stdout)
        if "LayersData" not in theirs:  # Debian 12's does not have it yet
            del ours["LayersData"]
        assert ours == theirs
        for more in (["--raw"], ["--raw", "--config"]):
            told = orlop("skopeo", "inspect", *more, *verify, *words).stdout.rstrip("\n")
            assert told == skopeo("inspect", *more, *verify, *words).rstrip("\n")
    place = f"docker://{registry}/lib/x"
    told = json.loads(orlop("skopeo", "list-tags", place).stdout)
    assert told == json.loads(skopeo("list-tags", "--tls-verify=false", place))
    form = orlop("skopeo", "inspect", "--format", "{{.Os}} {{.Digest}}", f"{place}:1").stdout
    assert form == skopeo("inspect", "--tls-verify=false", "--format", "{{.Os}} {{.Digest}}", f"{place}:1")


def test_times_are_written_alike(orlop: Environment, skopeo: Skopeo, tmp_path: Path) -> None:
    """The time of an image that ends with zeros, one time in ten by itself."""
    for number, time in enumerate(
        ("2026-01-02T03:04:05.120000000Z", "2026-01-02T03:04:05.000000000Z", "2026-01-02T03:04:05Z")
    ):
        place = tmp_path / str(number)
        place.mkdir()
        config = json.dumps(
            {"created": time, "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
        )
        described = {"mediaType": OCI_CONFIG, "digest": digest(config.encode()), "size": len(config)}
        (place / digest(config.encode()).partition(":")[2]).write_text(config)
        (place / "version").write_text("Directory Transport Version: 1.1\n")
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}
        (place / "manifest.json").write_text(json.dumps(document))
        told = orlop("skopeo", "inspect", "--format", "{{json .Created}}", f"dir:{place}").stdout
        assert told.strip() == json.dumps(json.loads(skopeo("inspect", f"dir:{place}"))["Created"])


def test_copies_are_the_same_files(orlop: Environment, registry: str, skopeo: Skopeo, tmp_path: Path) -> None:
    source = f"docker://{registry}/lib/x:1"
    skopeo("copy", "--src-tls-verify=false", source, f"dir:{tmp_path}/theirs")
    digestfile = tmp_path / "digest"
    orlop("skopeo", "copy", "-q", "--digestfile", digestfile, source, f"dir:{tmp_path}/ours")
    files = [sorted(path.name for path in (tmp_path / side).iterdir()) for side in ("theirs", "ours")]
    assert files[0] == files[1]
    assert all(
        (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes() for name in files[0]
    )
    manifest = str(tmp_path / "ours/manifest.json")
    digest = orlop("skopeo", "manifest-digest", manifest).stdout
    assert digest == skopeo("manifest-digest", manifest)
    assert digestfile.read_text() == digest.strip()
    orlop("skopeo", "copy", f"dir:{tmp_path}/ours", "containers-storage:local/y:1")
    orlop("skopeo", "copy", "containers-storage:local/y:1", f"docker://{registry}/lib/y:1")
    assert (
        skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{registry}/lib/y:1") == Path(manifest).read_text()
    )
    orlop("skopeo", "sync", "--src", "docker", "--dest", "dir", "-q", f"{registry}/lib/x", f"{tmp_path}/synced")
    assert sorted(path.name for path in (tmp_path / "synced").iterdir()) == ["x:1", "x:2"]


def test_what_is_deleted_is_gone(orlop: Environment, registry: str, skopeo: Skopeo) -> None:
    place = f"docker://{registry}/lib/x:2"
    orlop("skopeo", "delete", "--tls-verify=false", place)
    told = orlop("skopeo", "inspect", place, check=False)
    assert told.code != 0 and "manifest unknown" in told.stderr
    assert json.loads(skopeo("list-tags", "--tls-verify=false", place[:-2]))["Tags"] == ["1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("inspect", "busybox"), "names no place"),
        (("inspect", "docker-archive:/nowhere.tar"), "read as a whole only"),
        (("delete", "oci:/nowhere"), "only a registry deletes"),
        (("inspect", "--tls-verify=false", "docker://registry.invalid/x"), "certificates"),
        (("sync", "--src", "dir", "--dest", "docker", "a", "b"), "from a registry"),
        (("copy", "--multi-arch", "index-only", "oci:/a", "oci:/b"), "--multi-arch is all or system"),
    ],
)
def test_what_can_not_be_done_is_said(orlop: Environment, words: tuple[str, ...], told: str) -> None:
    done = orlop("skopeo", *words, check=False)
    assert done.code != 0 and told in done.stderr, done


def test_a_layout_is_imported_and_exported_with_its_digest(
    orlop: Environment, registry: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry}/lib/x:1", f"oci:{tmp_path}/lay:1")
    identifier = orlop("import", f"oci:{tmp_path}/lay:1").stdout.strip()
    assert orlop("images", "-q", "--no-trunc", "lay:1").stdout.strip() == identifier
    orlop("skopeo", "copy", "-q", "containers-storage:lay:1", f"oci:{tmp_path}/back:1")
    raw = [skopeo("inspect", "--raw", f"oci:{tmp_path}/{name}:1") for name in ("lay", "back")]
    assert raw[0] == raw[1]
    refused = orlop("import", "-c", "CMD x", f"oci:{tmp_path}/lay:1", check=False)
    assert refused.code != 0 and "its own configuration" in refused.stderr


# -- other forms ------------------------------------------------------------------------------------------------------


def raw(skopeo: Skopeo, place: str) -> dict[str, object]:
    found = json.loads(
        skopeo("inspect", "--raw", *(["--tls-verify=false"] if place.startswith("docker:") else []), place)
    )
    assert isinstance(found, dict)
    return found


def types(manifest: dict[str, Any]) -> list[str]:
    return [str(manifest.get("mediaType")), *(one["mediaType"] for one in [manifest["config"], *manifest["layers"]])]


@pytest.mark.parametrize(
    "words",
    [
        ["--format", "v2s2"],
        ["--format", "oci", "--dest-compress-format", "zstd"],
        ["--dest-compress-format", "gzip", "--dest-compress-level", "9"],
    ],
    ids=" ".join,
)
def test_another_form_is_the_one_that_skopeo_makes(
    orlop: Environment, registry: str, skopeo: Skopeo, tmp_path: Path, words: list[str]
) -> None:
    """Its layer is no compressed one, so each form is another; what comes out, skopeo and our own pull read."""
    place, source = f"docker://{registry}/form", f"docker://{registry}/lib/x:1"
    form = words if "v2s2" not in words else [*words, "--dest-compress-format", "gzip"]
    orlop("skopeo", "copy", "-q", *form, source, f"{place}/ours:1")
    skopeo(
        "copy",
        "-q",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        *form,
        "--dest-compress",
        source,
        f"{place}/theirs:1",
    )
    ours, theirs = raw(skopeo, f"{place}/ours:1"), raw(skopeo, f"{place}/theirs:1")
    assert types(ours) == types(theirs)
    before = raw(skopeo, source)
    assert ours["config"]["digest"] == before["config"]["digest"]  # type: ignore[index]
    name = f"{registry}/form/ours:1"
    orlop("rmi", "-f", f"{registry}/lib/x:1")
    orlop("pull", "-q", name)
    assert orlop("image", "inspect", "-f", "{{.Id}}", name).stdout.strip() == before["config"]["digest"]  # type: ignore[index]
    again = orlop("skopeo", "copy", "-q", *form, f"containers-storage:{name}", f"dir:{tmp_path}/again")
    assert again.code == 0 and json.loads((tmp_path / "again/manifest.json").read_text()) == ours


def test_there_and_back_is_the_same_image(orlop: Environment, registry: str, skopeo: Skopeo, tmp_path: Path) -> None:
    """oci, zstd, uncompressed, docker's and back: what is in it stays, and the way back ends where it began."""
    places = [f"docker://{registry}/lib/x:1", *(f"oci:{tmp_path}/{number}:1" for number in range(4))]
    forms = [["--compression", "zstd"], ["--compression", "uncompressed"], ["--compression", "gzip"]]
    for form, source, target in zip(forms, places, places[1:], strict=False):
        orlop("image", "copy", "-q", *form, source, target)
    kinds = [types(raw(skopeo, place))[2] for place in places[:4]]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["tar", "tar+zstd", "tar", "tar+gzip"]
    assert raw(skopeo, places[2])["layers"] == raw(skopeo, places[0])["layers"]
    orlop("image", "copy", "-q", "--format", "v2s2", places[3], f"dir:{tmp_path}/docker")
    orlop("image", "copy", "-q", "--format", "oci", f"dir:{tmp_path}/docker", places[4])
    assert raw(skopeo, places[4])["layers"] == raw(skopeo, places[3])["layers"]
    skopeo("copy", "-q", places[2], f"dir:{tmp_path}/theirs")
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"


def test_an_index_is_converted_whole(orlop: Environment, registry: str, skopeo: Skopeo, tmp_path: Path) -> None:
    for architecture in ("amd64", "arm64"):
        orlop(
            "import",
            "--platform",
            f"linux/{architecture}",
            "-",
            f"{registry}/multi/{architecture}:1",
            input=bytes(1024),
        )
        orlop("push", "-q", f"{registry}/multi/{architecture}:1")
    names = [f"{registry}/multi/{architecture}:1" for architecture in ("amd64", "arm64")]
    orlop("manifest", "create", "--insecure", f"{registry}/multi/all:1", *names)
    orlop("manifest", "push", "--insecure", f"{registry}/multi/all:1")
    source, target = f"docker://{registry}/multi/all:1", f"docker://{registry}/multi/docker:1"
    orlop("skopeo", "copy", "-q", "--all", "--format", "v2s2", source, target)
    found = raw(skopeo, target)
    assert found["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert [one["platform"]["architecture"] for one in found["manifests"]] == ["amd64", "arm64"]  # type: ignore[attr-defined]
    for one in found["manifests"]:  # type: ignore[attr-defined]
        assert types(raw(skopeo, f"docker://{registry}/multi/docker@{one['digest']}"))[0] == one["mediaType"]
    orlop("skopeo", "copy", "-q", "--all", "--format", "oci", target, f"oci:{tmp_path}/lay:1")
    skopeo("copy", "-q", "--all", f"oci:{tmp_path}/lay:1", f"dir:{tmp_path}/judged")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["skopeo", "copy", "--format", "v2s1"], "there is no form 'v2s1'"),
        (["skopeo", "copy", "--format", "v2s2", "--dest-compress-format", "zstd"], "none for layers with zstd"),
        (["skopeo", "copy", "--dest-compress-format", "zstd:chunked"], "there is no compression 'zstd:chunked'"),
        (["skopeo", "copy", "--dest-compress-format", "gzip", "--dest-compress-level", "10"], "the levels 0 to 9"),
        (["skopeo", "copy", "--dest-compress", "--dest-decompress"], "exclude each other"),
        (["skopeo", "copy", "--preserve-digests", "--format", "v2s2"], "its digest is to be kept"),
        (["image", "copy", "--compression", "zstd", "--compression-level", "high"], "is no number"),
        (["image", "copy", "--referrers", "--compression", "zstd"], "means its digest"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_form_that_there_is_not_is_said(orlop: Environment, tmp_path: Path, words: list[str], told: str) -> None:
    orlop("import", "-", "local/x:1", input=bytes(Archive().directory(b"etc")))
    source = "containers-storage:local/x:1" if words[0] == "skopeo" else "local/x:1"
    done = orlop(*words, source, f"oci:{tmp_path}/lay:1", check=False)
    assert done.code != 0 and told in done.stderr and "Traceback" not in done.stderr, done
    assert not (tmp_path / "lay/index.json").exists()


def test_the_longest_key_of_a_repository_names_the_user(
    orlop: Environment, skopeo: Skopeo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auth.json's keys may be more than a host (containers-auth.json(5)). Red: all had the host's user."""
    content = Content()
    content.layered([bytes(Archive().file(b"a", b"b"))], "1")

    def ask(request: Request) -> bool:
        if request.path.endswith("tags/list"):
            return request.reply(403)
        return "Authorization" not in request.headers and request.reply(401, www_authenticate='Basic realm="r"')

    with orlop.inside(lambda: Registry(content, ask)) as registry:
        keys = ("", "/team", "/team/app", "/team/app/deep", "/tea", "/other/x")
        users = {key: base64.b64encode(f"{key or 'host'}:p".encode()).decode() for key in keys}
        file = tmp_path / "auth.json"
        file.write_text(json.dumps({"auths": {registry.name + key: {"auth": auth} for key, auth in users.items()}}))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
        monkeypatch.setenv("HOME", str(tmp_path))
        for path in (
            "team/app/deep/x",
            "team/app",
            "team/app2",
            "team/x",
            "teams/x",
            "tea/app",
            "other",
            "other/x/y",
            "x",
        ):
            said = []
            for run in (skopeo, lambda *words: orlop("skopeo", *words).stdout):
                registry.requests.clear()
                run("inspect", "--raw", "--tls-verify=false", f"docker://{registry.name}/{path}:1")
                said.append({head["Authorization"] for _, _, head in registry.requests if "Authorization" in head})
            assert said[0] == said[1] and len(said[0]) == 1, path
        assert not registry.fetched("tags/list")  # nobody asked for them: not every registry lists them
        told = orlop("skopeo", "inspect", f"docker://{registry.name}/x:1")
        assert json.loads(told.stdout)["RepoTags"] == [] and "disallows tag list" in told.stderr
        registry.requests.clear()
        orlop("pull", "-q", f"{registry.name}/team/app/x:1")
        assert f"Basic {users['/team/app']}" in {head.get("Authorization") for _, _, head in registry.requests}
