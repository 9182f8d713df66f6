"""Registries that lie: nothing they say becomes an image, nothing secret goes where they point, memory stays small.

SEC-42 to SEC-46, SEC-52. Each lie is a rule that answers instead of an honest registry.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.image.pull import Pull
from orlop.image.registry import Patience, client, transport
from orlop.image.registry.upload import Upload
from orlop.spec.digest import Digest
from orlop.spec.errors import OrlopError
from orlop.spec.image import OCI_INDEX, OCI_MANIFEST
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference
from support.archives import Archive
from support.pulling import Puller
from support.registries import Content, Registry, Request, Rule, digest

TAR = bytes(Archive().directory(b"bin").file(b"bin/sh", os.urandom(200_000), mode=0o755))
PACKED = gzip.compress(TAR)
RSS_BYTES_MAX = 256 * 1024**2


@pytest.fixture
def puller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Puller]:
    monkeypatch.setattr(client, "BACKOFF_S", 0.01)
    made = Puller(tmp_path)
    yield made
    made.close()


def honest() -> Content:
    content = Content()
    content.image(TAR, PACKED, "1")
    return content


def on(part: str, answer: Callable[[Request], object]) -> Rule:
    """Return a rule for GET and HEAD of paths with this part."""

    def rule(request: Request) -> bool:
        if part not in request.path:
            return False
        answer(request)
        return True

    return rule


LAYER = f"blobs/{digest(PACKED)}"


def endless(request: Request) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    while True:
        request.wfile.write(piece)


def cut(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(PACKED)))
    request.end_headers()
    request.wfile.write(PACKED[:1000])
    request.close_connection = True


def other_range(request: Request) -> None:
    if request.headers.get("Range"):
        request.reply(206, PACKED[5:], content_range=f"bytes 5-{len(PACKED) - 1}/{len(PACKED)}")
    else:
        cut(request)


def odd_range(request: Request) -> None:
    if request.headers.get("Range"):
        request.reply(206, PACKED[5:], content_range="bytes \xb2-9/9")
    else:
        cut(request)


def raw_head(name: str, value: str) -> Callable[[Request], object]:
    """Return an answer with one header as nobody would send it, and the digest that makes it worth reading."""

    def answer(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", OCI_MANIFEST)
        request.send_header("Docker-Content-Digest", digest(document()))
        request.send_header(name, value)
        request.end_headers()
        request.close_connection = True

    return answer


def redirect(to: str) -> Callable[[Request], object]:
    return lambda request: request.reply(307, location=to)


def manifest(data: bytes, media_type: str = OCI_MANIFEST, told: str = "") -> Callable[[Request], object]:
    return lambda request: request.reply(200, data, content_type=media_type, docker_content_digest=told or digest(data))


def document(**changes: object) -> bytes:
    _, data = honest().manifests["1"]
    found = json.loads(data) | changes
    return json.dumps({key: value for key, value in found.items() if value is not None}).encode()


def many_headers(request: Request) -> None:
    request.send_response(200)
    for number in range(100_000):
        request.send_header(f"X-{number}", "x" * 1000)
    request.end_headers()


HALF = 'Bearer realm="http://[::1/token",service="x"'
GIANT = b'{"schemaVersion":2,"x":"' + b"x" * (5 * 1024**2) + b'"}'
DEEP = b'{"schemaVersion":2,"layers":' + b"[" * 100_000
LIES: dict[str, tuple[Rule, str]] = {
    "a layer with another digest": (on(LAYER, lambda r: r.reply(200, bytes(len(PACKED)))), "has the digest"),
    "a longer layer": (on(LAYER, lambda r: r.reply(200, PACKED + b"x")), "bytes"),
    "a shorter layer": (on(LAYER, lambda r: r.reply(200, PACKED[:-1])), "bytes"),
    "a layer without end": (on(LAYER, endless), "more than"),
    "a layer that is cut each time": (on(LAYER, cut), "ended after|reach"),
    "a range of another place": (on(LAYER, other_range), "another place"),
    "a layer that is not there": (on(LAYER, lambda r: r.reply(404)), "not found"),
    "a layer at a file": (on(LAYER, redirect("file:///etc/passwd")), "not an http"),
    "a layer at the metadata service": (on(LAYER, redirect("http://169.254.169.254/latest")), "reach|no address"),
    "a layer at itself for ever": (on(LAYER, redirect(f"/v2/lib/x/{LAYER}")), "redirects more than"),
    "a layer at an address with a password": (on(LAYER, redirect("http://u:p@127.0.0.1/")), "user name"),
    "a redirect to nowhere": (on(LAYER, lambda r: r.reply(307)), "no Location"),
    "a redirect to half an address": (on("manifests", redirect("http://[::1/")), "ask URL"),
    "a redirect to a port that is none": (on("manifests", redirect("http://127.0.0.1:99999/")), "ask URL"),
    "a redirect to a name that is none": (on("manifests", redirect("http://" + "x" * 300 + "/")), "reach"),
    "a challenge to half an address": (on("manifests", lambda r: r.reply(401, www_authenticate=HALF)), "ask URL"),
    "a layer at half an address": (on(LAYER, redirect("http://[::1/")), "ask URL"),
    "a length of too many digits": (on("manifests", raw_head("Content-Length", "9" * 5000)), "digest"),
    "a length in another script": (on("manifests", raw_head("Content-Length", "\xb2")), "digest"),
    "a range in another script": (on(LAYER, odd_range), "another place"),
    "a giant manifest": (on("manifests", manifest(GIANT)), "limit is"),
    "a manifest without end": (on("manifests", endless), "more than|status|document"),
    "a deep manifest": (on("manifests", manifest(DEEP)), "nested|JSON"),
    "a manifest of another digest": (on("manifests", manifest(document(), told=digest(b""))), "digest"),
    "a digest that is none": (on("manifests", manifest(document(), told="sha256:../../x")), "digest"),
    "a manifest called an index": (on("manifests", manifest(document(), OCI_INDEX)), "calls itself"),
    "a manifest called a page": (on("manifests", manifest(document(), "text/html")), "no media type"),
    "both manifest and index": (on("manifests", manifest(document(manifests=[]))), "has no place"),
    "a name twice": (on("manifests", manifest(document()[:-1] + b',"layers":[]}')), "stands twice"),
    "a digest as a path": (on("manifests", manifest(document().replace(b"sha256:", b"sha256:../"))), "digest"),
    "a size below zero": (on("manifests", manifest(document(layers=[
        {"mediaType": "x", "digest": digest(PACKED), "size": -1}]))), "negative"),
    "a size that is not the layer's": (on("manifests", manifest(document(layers=[
        {"mediaType": "x", "digest": digest(PACKED), "size": 7}]))), "bytes"),
    "fewer layers than the configuration": (on("manifests", manifest(document(layers=[]))), "names 1 layers"),
    "ten thousand layers": (on("manifests", manifest(document(layers=[
        {"mediaType": "x", "digest": digest(b"%d" % n), "size": 1} for n in range(10_000)]))), "more than"),
    "a hundred thousand headers": (on("manifests", many_headers), "no HTTP|reach"),
    "no answer at all": (on("manifests", lambda r: setattr(r, "close_connection", True)), "without an answer"),
    "always too many requests": (on("manifests", lambda r: r.reply(429, retry_after="7200")), "429|7200"),
    "always broken": (on("manifests", lambda r: r.reply(500)), "500"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_becomes_no_image(puller: Puller, lie: str) -> None:
    rule, cause = LIES[lie]
    with Registry(honest(), rule) as registry, pytest.raises(OrlopError) as caught:
        puller.pull(registry)
    assert _fits(caught.value, cause), str(caught.value)
    assert puller.store.names.entries() == ()
    assert not puller.snapshots.unpacked()
    assert digest(PACKED) not in puller.blobs()
    for found in puller.store.digests():
        assert Digest.of(puller.store.get(found)) == found
    with Registry(honest()) as registry:
        assert puller.pull(registry)[-1]["status"] == f"Status: Downloaded newer image for {registry.name}/lib/x:1"


def _fits(error: OrlopError, cause: str) -> bool:
    return any(part in f"{error} {error.hint}" for part in cause.split("|"))


def test_memory_stays_small(puller: Puller) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for lie in ("a layer without end", "a manifest without end", "a giant manifest"):
        with Registry(honest(), LIES[lie][0]) as registry, pytest.raises(OrlopError):
            puller.pull(registry)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < RSS_BYTES_MAX


def test_a_pull_that_nobody_waits_for_any_more_is_no_defect(puller: Puller) -> None:
    """Red: where the very first answer was still waited for, it was told as one in the engine's log."""
    with Registry(honest(), lambda request: bool(request.send_error(503)) or True) as registry:
        one = Pull(
            *(puller.store, puller.downloads, [puller.repository(registry.name)]),
            *(Reference.parse(f"{registry.name}/lib/x:1"), Platform.parse("linux/amd64")),
        )
        one.cancel.set()
        with puller.store.leases.hold() as lease, pytest.raises(OrlopError, match="interrupted"):
            list(one.run(lease, puller.snapshots.unpack))


def test_a_wrong_configuration(puller: Puller) -> None:
    content = honest()
    other = bytes(Archive().file(b"else"))
    content.image(other, PACKED, "1")  # the layer's content is not what the configuration says
    with Registry(content) as registry, pytest.raises(OrlopError, match="has the diff_id"):
        puller.pull(registry)
    assert puller.store.names.entries() == ()
    assert not puller.snapshots.unpacked()


def test_a_broken_connection_is_resumed(puller: Puller) -> None:
    asked = []

    def rule(request: Request) -> bool:
        if LAYER not in request.path:
            return False
        asked.append(request.headers.get("Range", ""))
        if len(asked) > 3:
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(PACKED) - 1}/{len(PACKED)}")
        request.send_header("Content-Length", str(len(PACKED) - start))
        request.end_headers()
        request.wfile.write(PACKED[start : start + 50_000])
        request.close_connection = True
        return True

    with Registry(honest(), rule) as registry:
        puller.pull(registry)
    assert asked == ["", "bytes=50000-", "bytes=100000-", "bytes=150000-"]


def test_what_a_dead_pull_had_got_is_gone_on_with(puller: Puller) -> None:
    described = puller.store.ingest(b"x")  # any descriptor's class
    ingest = puller.store.resume(described.replace(digest=Digest(digest(PACKED)), size=len(PACKED)))
    ingest.write(PACKED[:1234])
    ingest.keep()
    with Registry(honest()) as registry:
        puller.pull(registry)
    ranges = [headers.get("Range") for method, path, headers in registry.requests if LAYER in path]
    assert ranges == ["bytes=1234-"]


def test_a_damaged_beginning_is_thrown_away(puller: Puller) -> None:
    described = puller.store.ingest(b"x").replace(digest=Digest(digest(PACKED)), size=len(PACKED))
    ingest = puller.store.resume(described)
    ingest.write(bytes(1234))
    ingest.keep()
    with Registry(honest()) as registry:
        with pytest.raises(OrlopError, match="digest"):
            puller.pull(registry)
        puller.pull(registry)


def test_retry_after_is_heeded(puller: Puller) -> None:
    times: list[float] = []

    def rule(request: Request) -> bool:
        times.append(time.monotonic())
        return len(times) == 1 and request.reply(429, retry_after="1")

    with Registry(honest(), rule) as registry:
        puller.pull(registry)
    assert times[1] - times[0] >= 0.95


@pytest.mark.parametrize("trouble", ["429", "500", "cut", "silent"])
def test_a_mirror_in_trouble_is_left_for_the_next_place(
    puller: Puller, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """red: where the order stays, each manifest, configuration and layer waits for the first place again."""
    over = threading.Event()
    if trouble == "silent":
        monkeypatch.setattr(transport, "STALL_S", 0.2)

    def broken(request: Request) -> bool:
        if trouble in ("cut", "silent"):
            assert trouble == "cut" or over.wait(60)
            request.close_connection = True
            return True
        return request.reply(int(trouble))

    with Registry(honest(), broken) as mirror, Registry(honest()) as registry:
        reference = Reference.parse(f"{registry.name}/lib/x:1")
        places = [puller.repository(mirror.name), puller.repository(registry.name)]
        one = Pull(puller.store, puller.downloads, places, reference, Platform.parse("linux/amd64"))
        try:
            with puller.store.leases.hold() as lease:
                told = list(one.run(lease, puller.snapshots.unpack))
        finally:
            over.set()
        assert {"status": f"Status: Downloaded newer image for {reference.familiar}"} in told
        assert 0 < len(mirror.requests) <= 2  # a second time, and no third thing is asked there


def test_twenty_pulls_fetch_each_blob_once(puller: Puller) -> None:
    content = Content()
    shared = bytes(Archive().file(b"shared", os.urandom(300_000)))
    for number in range(4):
        content.image(shared, gzip.compress(shared, mtime=0), f"{number}")
    gate = threading.Event()

    def slow(request: Request) -> bool:
        if f"blobs/{digest(gzip.compress(shared, mtime=0))}" in request.path:
            gate.wait(20)
        return False

    failures: list[BaseException] = []

    def pull(registry: Registry, number: int) -> None:
        try:
            puller.pull(registry, str(number % 4))
        except BaseException as wrong:
            failures.append(wrong)

    with Registry(content, slow) as registry:
        threads = [threading.Thread(target=pull, args=(registry, number)) for number in range(20)]
        for thread in threads:
            thread.start()
        while registry.fetched("/blobs/") < 2:
            time.sleep(0.01)
        gate.set()
        for thread in threads:
            thread.join()
    assert failures == []
    for blob in content.blobs:
        assert registry.fetched(blob) == 1


def test_what_a_refused_pull_had_begun_is_given_up(puller: Puller) -> None:
    content, gate = honest(), threading.Event()
    config = json.loads(content.manifests["1"][1])["config"]["digest"]

    def rule(request: Request) -> bool:
        if config in request.path:
            return request.reply(404)
        return LAYER in request.path and not gate.wait(20)

    with Registry(content, rule) as registry:
        with pytest.raises(OrlopError, match="not found"):
            puller.pull(registry)
        assert puller.downloads.users(Digest(digest(PACKED))) == 0
        gate.set()


def test_whoever_joins_a_download_brings_their_own_registry(puller: Puller) -> None:
    asked, gate = threading.Event(), threading.Event()

    def lost(request: Request) -> bool:
        if LAYER not in request.path:
            return False
        asked.set()
        gate.wait(20)
        return request.reply(404)

    failures: list[BaseException] = []

    def pull(registry: Registry) -> None:
        try:
            puller.pull(registry)
        except BaseException as wrong:
            failures.append(wrong)

    with Registry(honest(), lost) as broken, Registry(honest()) as whole:
        first = threading.Thread(target=pull, args=(broken,))
        first.start()
        assert asked.wait(20)
        second = threading.Thread(target=pull, args=(whole,))
        second.start()
        while puller.downloads.users(Digest(digest(PACKED))) < 2:
            time.sleep(0.01)
        gate.set()
        first.join()
        second.join()
    assert failures == []
    assert len(puller.images.list()) == 1
    assert len(puller.store.names.entries()) == 2


# -- secrets ----------------------------------------------------------------------------------------------------------


def heard(registry: Registry) -> list[str]:
    return [headers["Authorization"] for _, _, headers in registry.requests if "Authorization" in headers]


def challenge(realm: str) -> Rule:
    def rule(request: Request) -> bool:
        if "Authorization" in request.headers:
            return False
        return request.reply(401, www_authenticate=f'Bearer realm="{realm}",service="s",scope="repository:lib/x:pull"')

    return rule


def token(request: Request) -> bool:
    return request.path.startswith("/token") and request.reply(200, b'{"token":"t0k","expires_in":300}')


def test_a_token_is_fetched_with_the_password_and_used(puller: Puller) -> None:
    with Registry(honest(), token) as realm, Registry(honest(), challenge(f"http://{realm.name}/token")) as registry:
        puller.pull(registry)
    assert len(realm.requests) == 1
    assert heard(realm)[0].startswith("Basic ")
    assert set(heard(registry)) == {"Bearer t0k"}


@pytest.mark.parametrize("part", ["/token", "redirect", "link"])
def test_no_secret_goes_to_another_host(puller: Puller, part: str) -> None:
    with Registry(honest(), token, host="127.0.0.2") as evil:
        away = f"http://{evil.name}"
        rules = {
            "/token": challenge(f"{away}/token"),
            "redirect": on("blobs/", lambda r: r.reply(307, location=f"{away}{r.path}")),
            "link": on("tags/list", lambda r: r.reply(200, b'{"tags":["1"]}', link=f'<{away}/x>; rel="next"')),
        }
        with Registry(honest(), rules[part], basic) as registry, contextlib.suppress(OrlopError):
            if part == "link":
                list(puller.repository(registry.name).tags(Patience(tries=1)))
            puller.pull(registry)
    assert heard(evil) == []
    assert part == "/token" or evil.requests


def test_no_secret_goes_where_a_foreign_layer_lies(puller: Puller) -> None:
    """CVE-2020-15157: whoever made the image wrote these addresses, and the registry wanted a password."""
    with Registry(honest(), token, host="127.0.0.2") as evil:
        place = [f"http://{evil.name}/v2/x/blobs/{digest(PACKED)}"]
        layer = {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "urls": place}
        told = manifest(document(layers=[layer | {"digest": digest(PACKED), "size": len(PACKED)}]))
        gone = on(LAYER, lambda r: r.reply(404))
        with Registry(honest(), basic, gone, on("manifests", told)) as registry:
            puller.pull(registry)
    assert evil.requests and heard(evil) == []
    assert heard(registry)


def test_no_secret_goes_where_an_upload_is_sent(puller: Puller) -> None:
    """The Location that answers the beginning of an upload is the registry's to choose, and may be anybody's."""
    blob = puller.store.ingest(PACKED)
    with Registry(honest(), lambda r: r.reply(201), host="127.0.0.2") as evil:
        begin: Rule = lambda r: r.command == "POST" and r.reply(202, location=f"http://{evil.name}/upload")  # noqa: E731
        with Registry(Content(), basic, begin) as registry, contextlib.suppress(OrlopError):
            repository = puller.repository(registry.name)
            Upload(repository, blob, Patience(tries=1), lambda _: None).run(lambda: puller.store.open(blob.digest))
    assert [method for method, _, _ in evil.requests] and heard(evil) == []
    assert heard(registry)


def basic(request: Request) -> bool:
    if "Authorization" in request.headers:
        return False
    return request.reply(401, www_authenticate='Basic realm="x"')


def test_a_registry_that_always_wants_more_is_left(puller: Puller) -> None:
    with (
        Registry(honest(), lambda r: r.reply(401, www_authenticate='Basic realm="x"')) as registry,
        pytest.raises(OrlopError, match="pull access denied"),
    ):
        puller.pull(registry)
    assert len(registry.requests) == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"token":""}', b'{"token":5}', b'{"token":"a b"}', b'{"token":"a\\r\\nX: y"}', b"x" * 300_000],
)
def test_broken_tokens(puller: Puller, data: bytes) -> None:
    with (
        Registry(honest(), lambda r: r.reply(200, data)) as realm,
        Registry(honest(), challenge(f"http://{realm.name}/token")) as registry,
        pytest.raises(OrlopError),
    ):
        puller.pull(registry)


def test_tag_lists_are_bounded(puller: Puller) -> None:
    def more(request: Request) -> bool:
        number = int(request.path.partition("last=")[2] or 0)
        tags = json.dumps({"tags": [f"t{number}"]}).encode()
        return request.reply(200, tags, link=f'</v2/lib/x/tags/list?last={number + 1}>; rel="next"')

    with Registry(honest(), on("tags/list", more)) as registry:
        assert len(list(puller.repository(registry.name).tags(Patience()))) == client.PAGES_MAX


def test_what_is_here_is_asked_for_by_its_head_only(puller: Puller) -> None:
    """Registries count who gets manifests (429): a second pull is no get."""
    content = honest()
    with Registry(content) as registry:
        puller.pull(registry)
        before = registry.fetched("")
        puller.pull(registry)
        assert registry.fetched("") == before
        assert [method for method, _, _ in registry.requests[-1:]] == ["HEAD"]
