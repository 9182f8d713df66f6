"""`registry serve --cache-of`: what another registry has, fetched once, proven, and there when that one is not."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import registry_server
from support.archives import Archive
from support.registries import Content, Registry, Request, digest

Peer = Callable[[str], Path]
NAME = "lib/x"
BIG = os.urandom(3 << 20)


@pytest.fixture
def content() -> Content:
    content = Content()
    tree = bytes(Archive().file(b"f", os.urandom(100_000)))
    content.image(tree, gzip.compress(tree, 1, mtime=0), "1")
    return content


@pytest.fixture
def upstream(content: Content) -> Iterator[Registry]:
    with Registry(content) as registry:
        yield registry


@pytest.fixture
def cache(upstream: Registry, tmp_path: Path) -> Iterator[registry_server.Registry]:
    with registry_server.ours(tmp_path / "cache", "--cache-of", upstream.name) as cache:
        yield cache


def manifest_of(content: Content, tag: str = "1") -> str:
    return digest(content.manifests[tag][1])


def big(content: Content) -> str:
    """Add a large blob, and a manifest by which the cache knows how large it is; return its path."""
    tree = bytes(Archive().file(b"f", BIG))
    content.image(tree, gzip.compress(tree, 0, mtime=0), "big")
    return f"/v2/{NAME}/blobs/{digest(gzip.compress(tree, 0, mtime=0))}"


def files_of(cache_root: Path) -> list[str]:
    return [name for _, _, names in os.walk(cache_root / "content/blobs") for name in names]


def test_clients_get_what_the_other_registry_has_and_it_is_asked_once(
    cache: registry_server.Registry, upstream: Registry, content: Content, tmp_path: Path, peer: Peer
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    for number in range(2):
        words = ["copy", "-q", "--src-tls-verify=false", f"docker://{cache.host}/{NAME}:1", f"dir:{tmp_path}/{number}"]
        subprocess.run([peer("skopeo"), "--policy", policy, *words], check=True)
        assert digest((tmp_path / f"{number}/manifest.json").read_bytes()) == manifest_of(content)
    for blob in content.blobs:
        assert upstream.fetched(blob) == 1
    assert upstream.fetched("/manifests/") == 1
    assert cache("GET", "/v2/_catalog").body == b'{"repositories":["lib/x"]}'


def test_while_the_other_one_is_away_what_is_known_is_served_and_called_old(
    cache: registry_server.Registry, upstream: Registry, content: Content
) -> None:
    fresh = cache("GET", f"/v2/{NAME}/manifests/1")
    assert "warning" not in fresh.headers
    for blob in content.blobs:
        assert cache("GET", f"/v2/{NAME}/blobs/{blob}").status == 200
    upstream.rules.append(lambda request: request.reply(503))
    old = cache("GET", f"/v2/{NAME}/manifests/1")
    assert (old.status, old.body) == (200, fresh.body)
    assert old.headers["warning"].startswith("110 ")
    assert "warning" not in cache("GET", f"/v2/{NAME}/manifests/{manifest_of(content)}").headers
    for blob, data in content.blobs.items():
        assert cache("GET", f"/v2/{NAME}/blobs/{blob}").body == data
    assert cache("GET", f"/v2/{NAME}/tags/list").body == b'{"name":"lib/x","tags":["1"]}'
    unknown = cache("GET", f"/v2/{NAME}/manifests/2")
    assert (unknown.status, unknown.codes) == (503, ["UNAVAILABLE"])


def test_a_tag_means_what_it_means_there_now(cache: registry_server.Registry, content: Content) -> None:
    before = cache("GET", f"/v2/{NAME}/manifests/1").body
    tree = bytes(Archive().file(b"other"))
    content.image(tree, gzip.compress(tree), "1")
    assert cache("GET", f"/v2/{NAME}/manifests/1").body == content.manifests["1"][1] != before
    assert cache("GET", f"/v2/{NAME}/manifests/{digest(before)}").body == before
    del content.manifests["1"]
    gone = cache("GET", f"/v2/{NAME}/manifests/1")
    assert (gone.status, gone.codes) == (404, ["MANIFEST_UNKNOWN"])


def test_many_who_ask_at_once_are_served_by_one_download(
    cache: registry_server.Registry, upstream: Registry, content: Content
) -> None:
    path = big(content)
    assert cache("GET", f"/v2/{NAME}/manifests/big").status == 200
    gate = threading.Event()
    upstream.rules.append(lambda request: "/blobs/" in request.path and not gate.wait(60))
    answers: list[bytes] = []

    def get() -> None:
        answers.append(cache("GET", path).body)

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert {digest(body) for body in answers} == {path.rpartition("/")[2]}
    assert len(answers) == 8
    assert upstream.fetched(path.rpartition("/")[2]) == 1


def test_a_part_is_served_while_the_whole_comes(cache: registry_server.Registry, content: Content) -> None:
    path = big(content)
    cache("GET", f"/v2/{NAME}/manifests/big")
    whole = content.blobs[path.rpartition("/")[2]]
    part = cache("GET", path, Range="bytes=1000000-1999999")
    assert (part.status, part.body) == (206, whole[1_000_000:2_000_000])
    assert part.headers["content-range"] == f"bytes 1000000-1999999/{len(whole)}"
    assert cache("GET", path, Range="bytes=5-9").body == whole[5:10]
    assert cache("HEAD", path).headers["content-length"] == str(len(whole))


def test_what_is_false_is_neither_kept_nor_handed_on_whole(
    cache: registry_server.Registry, upstream: Registry, content: Content, tmp_path: Path
) -> None:
    path = big(content)
    cache("GET", f"/v2/{NAME}/manifests/big")
    wanted = path.rpartition("/")[2]
    whole = content.blobs[wanted]

    def lie(request: Request) -> bool:
        return "/blobs/" in request.path and request.reply(200, whole[:-1] + bytes([whole[-1] ^ 1]))

    upstream.rules.append(lie)
    raw = cache.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert len(raw.partition(b"\r\n\r\n")[2]) < len(whole)
    assert wanted.removeprefix("sha256:") not in files_of(tmp_path / "cache")
    upstream.rules[:] = [lambda request: "/manifests/" in request.path and request.reply(200, b'{"schemaVersion": 1}')]
    broken = cache("GET", f"/v2/{NAME}/manifests/other")
    assert (broken.status, broken.codes) == (503, ["UNAVAILABLE"])
    upstream.rules.clear()
    assert cache("GET", path).body == whole


def test_what_came_before_a_break_or_a_death_is_gone_on_with(
    upstream: Registry, content: Content, tmp_path: Path
) -> None:
    path = big(content)
    wanted = path.rpartition("/")[2]
    whole = content.blobs[wanted]
    half = len(whole) // 2
    arrived = threading.Event()
    asked: list[str] = []

    def stops(request: Request) -> bool:
        if "/blobs/" not in request.path or request.command != "GET":
            return False
        asked.append(request.headers.get("Range", ""))
        if arrived.is_set():
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(whole)))
        request.end_headers()
        request.wfile.write(whole[:half])
        request.wfile.flush()
        arrived.wait(60)
        request.close_connection = True
        return True

    upstream.rules.append(stops)
    with registry_server.ours(tmp_path / "cache", "--cache-of", upstream.name) as cache:
        cache("GET", f"/v2/{NAME}/manifests/big")
        thread = threading.Thread(target=lambda: cache.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()))
        thread.start()
        partial = tmp_path / "cache/content/ingest" / wanted.replace(":", "-")
        while not partial.exists() or partial.stat().st_size < half:
            assert thread.is_alive()
        cache.process.kill()
        cache.process.wait(30)
        thread.join()
    arrived.set()
    with registry_server.ours(tmp_path / "cache", "--cache-of", upstream.name) as cache:
        assert cache("GET", path).body == whole
    assert asked[-1] == f"bytes={half}-"


def test_a_cache_takes_nothing_and_gives_out_nothing_of_other_repositories(
    cache: registry_server.Registry, upstream: Registry, content: Content
) -> None:
    blob = next(iter(content.blobs))
    assert cache("GET", f"/v2/{NAME}/manifests/1").status == 200
    assert cache("GET", f"/v2/{NAME}/blobs/{blob}").status == 200
    upstream.rules.append(lambda request: "/secret/" in request.path and request.reply(404))
    assert cache("GET", f"/v2/lib/secret/blobs/{blob}").codes == ["BLOB_UNKNOWN"]
    for method, path in (
        ("POST", f"/v2/{NAME}/blobs/uploads/"),
        ("PUT", f"/v2/{NAME}/manifests/2"),
        ("DELETE", f"/v2/{NAME}/manifests/1"),
    ):
        refused = cache(method, path)
        assert (refused.status, refused.codes) == (405, ["UNSUPPORTED"])
        assert upstream.name.encode() in refused.body


def test_a_cache_that_is_full_forgets_and_fetches_again(content: Content, upstream: Registry, tmp_path: Path) -> None:
    for number in range(4):
        tree = bytes(Archive().file(b"f", os.urandom(1_000_000)))
        content.image(tree, gzip.compress(tree, 1, mtime=0), f"t{number}")
    root = tmp_path / "cache"
    with registry_server.ours(root, "--cache-of", upstream.name, "--cache-size", "2500k") as cache:
        for number in range(4):
            fetch_image(cache, f"t{number}")
        deadline = time.monotonic() + 60
        while occupied(root) > 2500 * 1024:
            assert time.monotonic() < deadline, occupied(root)
            time.sleep(0.05)
        before = upstream.fetched("/blobs/")
        fetch_image(cache, "t3")
        assert upstream.fetched("/blobs/") == before
        fetch_image(cache, "t0")
        assert upstream.fetched("/blobs/") > before


def fetch_image(cache: registry_server.Registry, tag: str) -> None:
    manifest = cache("GET", f"/v2/{NAME}/manifests/{tag}")
    assert manifest.status == 200, manifest
    document = json.loads(manifest.body)
    for part in (document["config"], *document["layers"]):
        got = cache("GET", f"/v2/{NAME}/blobs/{part['digest']}")
        assert got.status == 200 and digest(got.body) == part["digest"]


def occupied(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "content/blobs/sha256").iterdir())
