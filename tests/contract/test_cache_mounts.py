"""Cache mounts that leave the builder (P34): to Debian's docker-registry and to folders, and from there again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.engine import Environment
from support.registries import debian_registry

Peer = Callable[[str], Path]
PACKAGE = os.urandom(3 << 20)
# What pip and apt do: what is in the cache is not fetched. bash speaks HTTP well enough for that.
DOCKERFILE = """\
FROM host
SHELL ["/bin/bash", "-ec"]
RUN --mount=type=cache,id=packages,target=/c <<EOF
if [ ! -e /c/package ]; then
    exec 3<>/dev/tcp/127.0.0.1/PORT
    printf 'GET /package HTTP/1.0\\r\\n\\r\\n' >&3
    sed '1,/^\\r$/d' <&3 >/c/package
fi
sha256sum </c/package >/sum
EOF
"""
COUNTING = "FROM host\nRUN --mount=type=cache,id=%s,target=/c echo x >>/c/n; cat /c/n >/n\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


@contextmanager
def index(near: Environment) -> Iterator[tuple[int, list[str]]]:
    """Serve a package in the network of an engine; yields the port, and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PACKAGE)

        def log_message(self, *_: object) -> None:
            pass

    server = near.inside(lambda: ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def made(orlop: Environment, context: Path, text: str, *words: str | Path) -> str:
    (context / "Dockerfile").write_text(text)
    return orlop("build", "--no-cache", "-q", *words, context).stdout.strip()


def read(orlop: Environment, image: str, path: str) -> str:
    return orlop("run", "--rm", "--network=none", image, "cat", path).stdout


def test_a_warm_cache_comes_from_a_registry_and_nothing_is_fetched(
    orlop: Environment, context: Path, tmp_path: Path, peer: Peer
) -> None:
    """P34's check. Red: where a step asks no source for a mount that is not here, the package is fetched again."""
    host = ["--network=host", "--allow=network.host"]
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as registry, index(orlop) as served:
        port, asked = served
        text = DOCKERFILE.replace("PORT", str(port))
        first = made(orlop, context, text, *host, "--cache-mount-to", f"{registry}/mounts:ci")
        assert asked == ["/package"]
        orlop("builder", "prune", "-af")
        assert not orlop("volume", "ls", "-q").stdout
        again = made(orlop, context, text, *host, "--cache-mount-from", f"{registry}/mounts:ci")
        assert asked == ["/package"]
        assert read(orlop, again, "/sum") == read(orlop, first, "/sum")
        assert hashlib.sha256(PACKAGE).hexdigest() in read(orlop, again, "/sum")
        # The other way: by hand, of all mounts, beside what is there.
        told = orlop("builder", "cache", "export", f"{registry}/mounts:hand").stdout
        assert told.split()[0] == "written" and told.split()[-1] == "packages"
        orlop("builder", "prune", "-af")
        assert orlop("build", "cache", "import", f"{registry}/mounts:hand").stdout.split()[0] == "read"
        made(orlop, context, text, *host)
        assert asked == ["/package"]


def test_what_is_written_is_an_artifact_and_what_is_there_is_written_once(
    orlop: Environment, context: Path, tmp_path: Path
) -> None:
    """Red: with pieces of a fixed size (no _PLACE found) all that is behind the new file is written again."""
    place = tmp_path / "mounts"
    text = "FROM host\nRUN --mount=type=cache,id=big,target=/c %s\n"
    made(orlop, context, text % "head -c 20000000 /dev/urandom >/c/b", "--cache-mount-to", place)
    before = {path.name for path in (place / "blobs/sha256").iterdir()}
    made(orlop, context, text % "echo new >/c/a", "--cache-mount-to", place)
    (target,) = json.loads((place / "index.json").read_text())["manifests"]

    def blob(descriptor: dict[str, str]) -> dict[str, object]:
        found: dict[str, object] = json.loads((place / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())
        return found

    manifest = blob(target)
    assert manifest["artifactType"] == "application/vnd.orlop.cachemounts.v1"
    (mount,) = blob(manifest["config"])["mounts"]  # type: ignore[arg-type, misc]
    assert mount["id"] == "big" and mount["size"] > 20_000_000
    pieces = {piece.removeprefix("sha256:") for piece in mount["pieces"]}
    assert len(pieces & before) >= len(pieces) - 2, "only what is around the new file is new"
    assert orlop("system", "fsck").code == 0
    stored = [path.name for path in (orlop.root / "content/blobs/sha256").iterdir()]
    assert not pieces & set(stored), "nothing of it stays in our store"


def test_a_mount_that_is_here_is_kept_unless_it_is_to_be_replaced(
    orlop: Environment, context: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mounts"
    made(orlop, context, COUNTING % "one", "--cache-mount-to", place)
    image = made(orlop, context, COUNTING % "one", "--cache-mount-from", place)
    assert read(orlop, image, "/n") == "x\nx\n", "its own"
    assert orlop("builder", "cache", "import", place).stdout.split()[0] == "kept"
    assert read(orlop, made(orlop, context, COUNTING % "one"), "/n") == "x\n" * 3
    assert orlop("builder", "cache", "import", "--replace", place).stdout.split()[0] == "read"
    assert read(orlop, made(orlop, context, COUNTING % "one"), "/n") == "x\nx\n"
    listed = orlop("builder", "cache", "ls").stdout
    assert listed.split("\n")[1].split()[-1] == "one"
    assert "there is no cache mount two" in orlop("builder", "cache", "import", place, "two", check=False).stderr
    assert "there is no cache mount two" in orlop("builder", "cache", "export", place, "two", check=False).stderr


def test_a_cached_step_takes_nothing_away_from_what_was_written(
    orlop: Environment, context: Path, tmp_path: Path
) -> None:
    """Red: where `write_mounts` leaves out what is not here, the second build writes the mount `two` alone."""
    place = tmp_path / "mounts"
    text = COUNTING % "one" + "RUN --mount=type=cache,id=two,target=/c echo %s >/c/n\n"
    (context / "Dockerfile").write_text(text % "a")
    both = ["--cache-mount-from", place, "--cache-mount-to", place]
    orlop("build", "-q", "--cache-mount-to", place, context)
    for volume in orlop("volume", "ls", "-q").stdout.split():
        orlop("volume", "rm", volume)
    (context / "Dockerfile").write_text(text % "b")
    orlop("build", "-q", *both, context)
    for volume in orlop("volume", "ls", "-q").stdout.split():
        orlop("volume", "rm", volume)
    told = orlop("builder", "cache", "import", place).stdout
    assert [line.split()[-1] for line in told.splitlines()] == ["one", "two"]


def _broken(place: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Write an artifact anew with another manifest and document."""
    index_file = place / "index.json"
    listed = json.loads(index_file.read_text())
    blobs = place / "blobs/sha256"
    manifest = json.loads((blobs / listed["manifests"][0]["digest"][7:]).read_bytes())
    document = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
    change(manifest, document)

    def put(value: object) -> dict[str, object]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest["config"].update(put(document))
    listed["manifests"][0].update(put(manifest))
    index_file.write_text(json.dumps(listed))


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "no pieces": (lambda manifest, document: manifest.update(layers=[]), "does not name the piece"),
    "another type": (lambda manifest, document: manifest["config"].update(mediaType="text/plain"), "no cache mounts"),
    "no id": (lambda manifest, document: document["mounts"][0].update(id=""), "is no name of a cache mount"),
    "NUL": (lambda manifest, document: document["mounts"][0].update(id="a\0b"), "NUL"),
    "twice": (lambda manifest, document: document.update(mounts=document["mounts"] * 2), "comes twice"),
    "no digest": (lambda manifest, document: document["mounts"][0].update(pieces=["sha256:../../etc"]), "../../etc"),
    "reversed": (lambda manifest, document: document["mounts"][0]["pieces"].reverse(), "cache mount a"),
    "no list": (lambda manifest, document: document.update(mounts=7), "mounts"),
}


def test_a_broken_artifact_is_an_error_and_leaves_nothing(orlop: Environment, context: Path, tmp_path: Path) -> None:
    """Red: without the look at what the manifest names, the first is a KeyError, a defect; without the look at the
    document's type, the second is whatever that document happens to be."""
    place = tmp_path / "mounts"
    made(orlop, context, COUNTING.replace("echo x", "head -c 9000000 /dev/urandom") % "a", "--cache-mount-to", place)
    orlop("builder", "prune", "-af")
    for name, (change, told) in BROKEN.items():
        broken = tmp_path / name
        shutil.copytree(place, broken)
        _broken(broken, change)
        done = orlop("builder", "cache", "import", broken, check=False)
        assert done.code == 1 and told in done.stderr and "defect" not in done.stderr, (name, done.stderr)
        assert not orlop("volume", "ls", "-q").stdout
    # A build only warns: it can do without.
    (context / "Dockerfile").write_text(COUNTING % "a")
    assert "is not used" in orlop("build", "--progress=plain", "--cache-mount-from", broken, context).stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["build", "--cache-mount-to", "type=inline", "."], "an image holds no cache mounts"),
        (["build", "--cache-mount-to", "type=local,dest=x,compression=zstd", "."], "neither mode nor compression"),
        (["build", "--cache-mount-from", "type=s3,bucket=x", "."], "not spoken here"),
        (["builder", "cache", "eat"], "'cache eat' is not understood"),
        (["builder", "cache", "export"], "'cache export' is not understood"),
        (["builder", "cache", "import", "/nowhere"], "No such file or directory"),
        (["builder", "cache", "import", "127.0.0.1:1/x"], "refused"),
    ],
)
def test_what_is_refused(orlop: Environment, context: Path, words: list[str], told: str) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    done = orlop(*words[:-1], words[-1] if words[-1] != "." else context, check=False)
    assert done.code and told in done.stderr
