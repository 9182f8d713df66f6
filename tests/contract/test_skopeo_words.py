"""`orlop skopeo` beside skopeo: the same words on the same registry and folders, the same output and files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.archives import Archive
from support.engine import Environment
from support.registries import debian_registry

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
