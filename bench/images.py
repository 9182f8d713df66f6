"""Images: the same tree of real files pulled from and pushed to docker-registry on loopback by all that can.

A round removes the image first (and for a push what the registry has), untimed. The layer is made once, by GNU tar and
gzip, from files of this machine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from devtools import peers
from devtools.failure import Failure
from support import registry_server

from .measure import Subject
from .platforms import Platform
from .workspace import Workspace

TREE_BYTES = 216 * 1024 * 1024
TREE_FILES = 10_000
MANY = 500
ROUNDS_MAX = 3
_SMALL_BYTES = 32 * 1024


def pulls(work: Workspace, platforms: Sequence[Platform], stack: ExitStack) -> list[Subject]:
    """Return a subject for each platform that pulls, and GNU tar on the same layer. Raises Failure."""
    layer, name = _published(work, stack)
    place = work.directory / "untarred"
    untar = Subject(
        "tar -xzf of the layer",
        ["/bin/sh", "-c", f"exec tar -C {place} -xzf {layer}"],
        work.environment(),
        before=lambda: _emptied(place),
    )
    return [*(_pull(work, one, name) for one in platforms if one.name in _REMOVE), untar]


def pushes(work: Workspace, platforms: Sequence[Platform], stack: ExitStack) -> list[Subject]:
    """Return a subject for each platform that pushes. Raises Failure."""
    _, name = _published(work, stack)
    data = work.directory / "images-registry/data"
    found = []
    for one in platforms:
        if one.name not in _REMOVE:
            continue
        command, env = words_before(one), one.run.env
        work.run([*command, *_PULL[one.name], name], env)
        argv = [*command, *_PUSH[one.name], name]
        found.append(Subject(f"{one.name} push", argv, env, before=lambda: shutil.rmtree(data, ignore_errors=True)))
    return found


def listing(work: Workspace, ours: Platform) -> list[Subject]:
    """Return a subject that lists MANY images, those of the other figures among them."""
    command, env = words_before(ours), ours.run.env
    archive = work.directory / "many.tar"
    if not archive.exists():
        _write_many(archive)
        work.run([*command, "load", "-q", "-i", str(archive)], env)
    return [Subject(f"orlop images, {MANY} of them", [*command, "images"], env)]


_PULL = {"orlop": ["pull", "-q"], "docker": ["pull", "-q"], "podman": ["pull", "-q", "--tls-verify=false"]}
_PUSH = {"orlop": ["push", "-q"], "docker": ["push", "-q"], "podman": ["push", "-q", "--tls-verify=false"]}
_REMOVE = {"orlop": ["rmi", "-f"], "docker": ["rmi", "-f"], "podman": ["rmi", "-f"]}


def words_before(platform: Platform) -> list[str]:
    """Return the platform's program with its global flags: what stands before the verb."""
    return platform.run.argv[: platform.run.argv.index("run")]


def _pull(work: Workspace, platform: Platform, name: str) -> Subject:
    command, env = words_before(platform), platform.run.env
    return Subject(
        f"{platform.name} pull", [*command, *_PULL[platform.name], name], env, before=remover(command, platform, name)
    )


def remover(command: Sequence[str], platform: Platform, name: str) -> Callable[[], None]:
    """Return what removes an image by a platform's program, whether it is there or not."""
    env: Mapping[str, str] = platform.run.env
    argv = [*command, *_REMOVE[platform.name], name]
    return lambda: _ignore(subprocess.run(argv, env=env, capture_output=True, check=False))


def _ignore(_: object) -> None:
    pass


def _emptied(place: Path) -> None:
    """Make an empty directory; a removal that is still felt (ext4) falls into no timed run."""
    if place.exists():
        place.rename(place.with_name(f"gone-{time.monotonic_ns()}"))
    place.mkdir()


def _published(work: Workspace, stack: ExitStack) -> tuple[Path, str]:
    """Return the layer's file and the name of the image with it in a docker-registry that runs until the stack ends."""
    program = peers.find("docker-registry")
    if program is None:
        raise Failure("docker-registry is missing")
    server = stack.enter_context(registry_server.theirs(program, _again(work, "images-registry")))
    layer = work.directory / "tree.tar.gz"
    if not layer.exists():
        _pack(layer)
    name = f"{server.host}/bench/tree:1"
    skopeo = peers.find("skopeo")
    if skopeo is None:
        raise Failure("skopeo is missing")
    layout = _layout(work, layer)
    policy = work.directory / ".config/containers/policy.json"
    words: list[str | Path] = [
        skopeo,
        "--policy",
        policy,
        "copy",
        "-q",
        "--dest-tls-verify=false",
        f"oci:{layout}:1",
        f"docker://{name}",
    ]
    work.run(words, work.environment())
    return layer, name


def _again(work: Workspace, name: str) -> Path:
    place = work.directory / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def _files() -> Iterator[tuple[str, int]]:
    """Yield files of this machine, small ones first, and their sizes."""
    for top, is_small in (("/usr/share", True), ("/usr", False)):
        for directory, names, files in os.walk(top):
            names.sort()
            for name in sorted(files):
                path = f"{directory}/{name}"
                if os.path.isfile(path) and not os.path.islink(path):
                    size = os.path.getsize(path)
                    if (size < _SMALL_BYTES) is is_small:
                        yield path, size


def _pack(target: Path) -> None:
    """Write TREE_BYTES in at most TREE_FILES files as a gzipped tar."""
    chosen: list[str] = []
    total = 0
    small = TREE_FILES * 9 // 10
    for path, size in _files():
        if size < _SMALL_BYTES and len(chosen) >= small:
            continue
        if len(chosen) >= TREE_FILES or total >= TREE_BYTES:
            break
        chosen.append(path)
        total += size
    plain = target.with_suffix("")
    listed = "".join(f"{path.lstrip('/')}\n" for path in chosen)
    subprocess.run(["tar", "-C", "/", "-cf", plain, "-T", "-"], input=listed, text=True, check=True)
    subprocess.run(["gzip", "-6", plain], check=True)


def _layout(work: Workspace, layer: Path) -> Path:
    """Return an OCI layout of the image with this layer, made once."""
    place = work.directory / "layout"
    if place.exists():
        return place
    (place / "blobs/sha256").mkdir(parents=True)
    with gzip.open(layer) as stream:
        diff_id = hashlib.file_digest(stream, "sha256").hexdigest()
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.link(layer, place / "blobs/sha256" / digest)
    config = _blob(place, _config([f"sha256:{diff_id}"], 0))
    described = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{digest}",
        "size": layer.stat().st_size,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [described],
    }
    entry = {"mediaType": manifest["mediaType"], **_blob(place, manifest)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return place


def _config(diff_ids: Sequence[str], number: int) -> dict[str, object]:
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return {"os": "linux", "architecture": machine, "rootfs": rootfs, "config": {"Labels": {"number": str(number)}}}


def _blob(layout: Path, document: object) -> dict[str, object]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _write_many(archive: Path) -> None:
    """Write docker's archive of MANY images that share one layer."""
    empty = bytes(10240)
    entries = []
    with tarfile.open(archive, "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        add("layer.tar", empty)
        for number in range(MANY):
            config = json.dumps(_config([f"sha256:{hashlib.sha256(empty).hexdigest()}"], number)).encode()
            add(f"{number}.json", config)
            entries.append({"Config": f"{number}.json", "RepoTags": [f"many/{number}:1"], "Layers": ["layer.tar"]})
        add("manifest.json", json.dumps(entries).encode())
