"""Our registry beside Debian's docker-registry: the same requests, the same answers. Skopeo and podman as clients."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import platforms
from support import registry_server
from support.engine import COMMAND
from support.registry_server import INDEX_TYPE, MANIFEST_TYPE, Answer, Registry

Peer = Callable[[str], Path]

CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'
LAYER = b"layer" * 1000


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def manifest(**more: object) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(LAYER, "application/vnd.oci.image.layer.v1.tar")],
        }
        | more
    ).encode()


MANIFEST = manifest()
ABSENT = digest_of(b"absent")


@pytest.fixture(scope="module")
def us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_server.ours(tmp_path_factory.mktemp("ours") / "root") as registry:
        yield registry


@pytest.fixture(scope="module")
def them(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Registry]:
    with registry_server.theirs(peer("docker-registry"), tmp_path_factory.mktemp("theirs")) as registry:
        yield registry


def fill(registry: Registry, name: str) -> None:
    for blob in (CONFIG, LAYER):
        assert registry.upload(name, blob, digest_of(blob)).status == 201
    put = registry("PUT", f"/v2/{name}/manifests/1.0", MANIFEST, Content_Type=MANIFEST_TYPE)
    assert put.status == 201, put


# (what, method, path, body, headers). NAME is a filled repository.
REQUESTS: list[tuple[str, str, str, bytes, dict[str, str]]] = [
    ("ping", "GET", "/v2/", b"", {}),
    ("blob", "GET", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {}),
    ("blob's head", "HEAD", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {}),
    ("first bytes", "GET", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {"Range": "bytes=0-9"}),
    ("middle", "GET", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {"Range": "bytes=10-20"}),
    ("open end", "GET", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {"Range": "bytes=4990-"}),
    ("last bytes", "GET", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {"Range": "bytes=-7"}),
    ("known blob", "GET", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {"If-None-Match": f'"{digest_of(LAYER)}"'}),
    ("absent blob", "GET", f"/v2/NAME/blobs/{ABSENT}", b"", {}),
    ("blob of nobody", "GET", f"/v2/no/such/blobs/{ABSENT}", b"", {}),
    ("manifest by tag", "GET", "/v2/NAME/manifests/1.0", b"", {"Accept": MANIFEST_TYPE}),
    ("manifest by digest", "GET", f"/v2/NAME/manifests/{digest_of(MANIFEST)}", b"", {"Accept": MANIFEST_TYPE}),
    ("manifest's head", "HEAD", "/v2/NAME/manifests/1.0", b"", {"Accept": MANIFEST_TYPE}),
    ("absent tag", "GET", "/v2/NAME/manifests/nope", b"", {"Accept": MANIFEST_TYPE}),
    ("absent manifest", "GET", f"/v2/NAME/manifests/{ABSENT}", b"", {"Accept": MANIFEST_TYPE}),
    ("tags", "GET", "/v2/NAME/tags/list", b"", {}),
    ("tags of nobody", "GET", "/v2/no/such/tags/list", b"", {}),
    ("manifest not JSON", "PUT", "/v2/NAME/manifests/bad", b"{", {"Content-Type": MANIFEST_TYPE}),
    ("manifest's digest", "PUT", f"/v2/NAME/manifests/{ABSENT}", MANIFEST, {"Content-Type": MANIFEST_TYPE}),
    ("delete an absent blob", "DELETE", f"/v2/NAME/blobs/{ABSENT}", b"", {}),
    ("delete an absent manifest", "DELETE", f"/v2/NAME/manifests/{ABSENT}", b"", {}),
    ("mount", "POST", f"/v2/NAME2/blobs/uploads/?mount={digest_of(LAYER)}&from=NAME", b"", {}),
    ("mount of nothing", "POST", f"/v2/NAME2/blobs/uploads/?mount={ABSENT}&from=NAME", b"", {}),
    ("wrong method", "POST", f"/v2/NAME/blobs/{digest_of(LAYER)}", b"", {}),
    ("pages of tags", "GET", "/v2/NAME/tags/list?n=-1", b"", {}),
]
SAME_HEADERS = ("content-length", "content-type", "content-range", "docker-content-digest", "etag", "accept-ranges")


@pytest.fixture(scope="module")
def filled(us: Registry, them: Registry) -> tuple[Registry, Registry]:
    for registry in (us, them):
        fill(registry, "some/app")
    return us, them


@pytest.mark.parametrize(("what", "method", "path", "body", "headers"), REQUESTS, ids=[row[0] for row in REQUESTS])
def test_the_same_request_has_the_same_answer(
    filled: tuple[Registry, Registry], what: str, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    path = path.replace("NAME", "some/app")
    mine, other = (
        registry(method, path, body, **{k.replace("-", "_"): v for k, v in headers.items()}) for registry in filled
    )
    if what == "pages of tags":  # that one ignores what it does not understand; the specification leaves it open
        assert (mine.status, mine.codes) == (400, ["PAGINATION_NUMBER_INVALID"])
        return
    assert mine.status == other.status, (mine, other)
    if mine.status >= 400:
        if method != "HEAD" and mine.status not in (405, 416):  # there that one answers without a document
            assert _code(mine) == _code(other), (mine, other)
        return
    assert mine.body.strip() == other.body.strip(), (mine, other)
    for name in SAME_HEADERS:
        if name in other.headers and mine.status != 304 and (name != "content-length" or what != "tags"):
            assert mine.headers.get(name, "").partition(";")[0] == other.headers[name].partition(";")[0], name


def _code(answer: Answer) -> str:
    return answer.codes[0]


def test_chunks_go_on_where_the_last_one_ended(us: Registry) -> None:
    content = b"0123456789" * 100
    place = us("POST", "/v2/chunks/blobs/uploads/").headers["location"]
    first = us("PATCH", place, content[:400], Content_Range="0-399")
    assert (first.status, first.headers["range"]) == (202, "0-399")
    wrong = us("PATCH", place, content[500:], Content_Range="500-999")
    assert (wrong.status, wrong.codes) == (416, ["RANGE_INVALID"])
    assert us("PATCH", place, content[400:500], Content_Range="400-600").codes == ["SIZE_INVALID"]
    seen = us("GET", place)
    assert (seen.status, seen.headers["range"]) == (204, "0-399")
    end = us("PUT", f"{place}?digest={digest_of(content)}", content[400:], Content_Range="400-999")
    assert end.status == 201, end
    assert us("GET", end.headers["location"]).body == content
    assert us("GET", place).codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_a_body_in_chunks_and_one_request_for_all(us: Registry) -> None:
    content = b"x" * 300_000
    whole = us("POST", f"/v2/whole/blobs/uploads/?digest={digest_of(content)}", iter([content[:1000], content[1000:]]))
    assert whole.status == 201, whole
    assert us("GET", whole.headers["location"]).body == content
    wrong = us("POST", f"/v2/whole/blobs/uploads/?digest={ABSENT}", content)
    assert (wrong.status, wrong.codes) == (400, ["DIGEST_INVALID"])
    assert us("GET", f"/v2/whole/blobs/{ABSENT}").status == 404


def test_a_given_up_upload_is_gone(us: Registry) -> None:
    place = us("POST", "/v2/gone/blobs/uploads/").headers["location"]
    assert us("DELETE", place).status == 204
    assert us("PUT", f"{place}?digest={ABSENT}").codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_sha512_names_a_blob_too(us: Registry) -> None:
    content = b"content"
    digest = "sha512:" + hashlib.sha512(content).hexdigest()
    assert us.upload("long", content, digest).status == 201
    assert us("GET", f"/v2/long/blobs/{digest}").body == content


def test_a_range_beyond_the_end(us: Registry) -> None:
    # docker-registry announces the whole blob here and sends an error instead.
    fill(us, "ranges")
    answer = us("GET", f"/v2/ranges/blobs/{digest_of(LAYER)}", Range="bytes=5000-")
    assert (answer.status, answer.codes) == (416, ["RANGE_INVALID"])


def test_referrers(us: Registry) -> None:
    fill(us, "signed")
    nobody = us("GET", f"/v2/signed/referrers/{ABSENT}")
    assert (nobody.status, nobody.headers["content-type"]) == (200, INDEX_TYPE)
    assert json.loads(nobody.body)["manifests"] == []
    subject = descriptor(MANIFEST, MANIFEST_TYPE)
    pushed = {}
    for kind in ("example/signature", "example/sbom"):
        data = manifest(subject=subject, artifactType=kind, annotations={"kind": kind})
        put = us("PUT", f"/v2/signed/manifests/{digest_of(data)}", data, Content_Type=MANIFEST_TYPE)
        assert (put.status, put.headers["oci-subject"]) == (201, digest_of(MANIFEST))
        pushed[kind] = descriptor(data, MANIFEST_TYPE) | {"artifactType": kind, "annotations": {"kind": kind}}
    all_of_them = us("GET", f"/v2/signed/referrers/{digest_of(MANIFEST)}")
    assert json.loads(all_of_them.body)["manifests"] == list(pushed.values())
    assert "oci-filters-applied" not in all_of_them.headers
    one = us("GET", f"/v2/signed/referrers/{digest_of(MANIFEST)}?artifactType=example%2Fsbom")
    assert json.loads(one.body)["manifests"] == [pushed["example/sbom"]]
    assert one.headers["oci-filters-applied"] == "artifactType"
    page = us("GET", f"/v2/signed/referrers/{digest_of(MANIFEST)}?n=1")
    assert json.loads(page.body)["manifests"] == [pushed["example/signature"]]
    following = re.fullmatch(r'<(.*)>; rel="next"', page.headers["link"])
    assert following
    assert json.loads(us("GET", following[1]).body)["manifests"] == [pushed["example/sbom"]]


def test_lists_come_in_pages(us: Registry) -> None:
    fill(us, "paged")
    for tag in ("a", "b", "c"):
        assert us("PUT", f"/v2/paged/manifests/{tag}", MANIFEST, Content_Type=MANIFEST_TYPE).status == 201
    found, place = [], "/v2/paged/tags/list?n=3"
    while place:
        answer = us("GET", place)
        found += json.loads(answer.body)["tags"]
        link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("link", ""))
        place = link[1] if link else ""
    assert found == ["1.0", "a", "b", "c"]
    assert json.loads(us("GET", "/v2/paged/tags/list?n=0").body)["tags"] == []
    assert len(json.loads(us("GET", "/v2/paged/tags/list?n=1000000000000").body)["tags"]) == 4
    assert "paged" in json.loads(us("GET", "/v2/_catalog?n=1000").body)["repositories"]


def test_a_manifest_without_its_parts_is_refused(us: Registry) -> None:
    assert us.upload("half", CONFIG, digest_of(CONFIG)).status == 201
    answer = us("PUT", "/v2/half/manifests/1", MANIFEST, Content_Type=MANIFEST_TYPE)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [descriptor(MANIFEST, MANIFEST_TYPE)]}
    )
    answer = us("PUT", "/v2/half/manifests/1", index.encode(), Content_Type=INDEX_TYPE)
    assert answer.codes == ["MANIFEST_BLOB_UNKNOWN"]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (manifest(manifests=[]), MANIFEST_TYPE),  # SEC-45
        (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"),
        (MANIFEST.replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2'), MANIFEST_TYPE),
        (MANIFEST, "text/plain"),
        (MANIFEST.replace(b"sha256:", b"sha256:../"), MANIFEST_TYPE),
    ],
)
def test_a_manifest_that_could_be_another_is_refused(us: Registry, data: bytes, media_type: str) -> None:
    fill(us, "twofold")
    answer = us("PUT", "/v2/twofold/manifests/x", data, Content_Type=media_type)
    assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])
    assert us("GET", "/v2/twofold/manifests/x").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../etc/passwd/blobs/" + ABSENT,
        "/v2/a/blobs/sha256:../../../../etc/passwd",
        "/v2/a/blobs/sha256:" + "A" * 64,
        "/v2/a/blobs/uploads/../../x",
        "/v2/A/tags/list",
        "/v2/a//b/tags/list",
        "/v2/" + "a/" * 200 + "b/tags/list",
        "/v2/a/manifests/" + "t" * 129,
        "/v2/a/manifests/.x",
        "/v2/%2e%2e/%2e%2e/tags/list",
        "/v2/a%00b/tags/list",
    ],
)
def test_names_and_digests_are_checked_before_anything_else(us: Registry, path: str) -> None:
    assert us("GET", path).status in (400, 404)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\nHost: b\r\n",
    ],
)
def test_a_request_with_two_ends_is_answered_once(us: Registry, head: bytes) -> None:
    host = b"" if head.startswith(b"Host") else b"Host: localhost\r\n"
    request = (
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\n" + host + head + b"\r\nGET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    answer = us.raw(request)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "body", [b"", b"5\r\nabc", b"5\r\nabcdeXX", b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabc\r\n"]
)
def test_a_broken_body_of_chunks_is_refused(us: Registry, body: bytes) -> None:
    head = (
        b"POST /v2/a/blobs/uploads/?digest="
        + ABSENT.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = us.raw(head + body)
    assert answer.startswith(b"HTTP/1.1 400 "), answer


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "header",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Host": "evil.example"},
        {"Host": "evil.example:5000"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
    ],
    ids=str,
)
def test_no_page_of_a_browser_is_served(us: Registry, method: str, header: dict[str, str]) -> None:
    """SEC-72; red: without the look at the marks of a page, without the one at the host that it asks for."""
    answer = us(method, "/v2/a/blobs/uploads/" if method == "POST" else "/v2/", **header)
    assert (answer.status, answer.codes) == (403, ["DENIED"])
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_names_of_this_machine_are_served(us: Registry, tmp_path: Path) -> None:
    hosts = ("localhost", "LOCALHOST:1", "a.localhost", "[::1]:5000", "10.0.0.7", "host.docker.internal:5000")
    assert [us("GET", "/v2/", Host=host).status for host in hosts] == [200] * len(hosts)
    with registry_server.ours(tmp_path / "root", "--host", "mirror.test") as named:
        assert named("GET", "/v2/", Host="mirror.test:5000").status == 200
        assert named("GET", "/v2/", Host="evil.test").status == 403


def test_a_short_body_is_no_blob(us: Registry) -> None:
    digest = digest_of(b"abc")
    head = f"POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabc"
    assert us.raw(head.encode()).startswith(b"HTTP/1.1 400 ")
    assert us("GET", f"/v2/a/blobs/{digest}").status == 404


def test_a_blob_of_another_repository_is_not_given_out(us: Registry) -> None:
    fill(us, "private")
    assert us("GET", f"/v2/elsewhere/blobs/{digest_of(LAYER)}").status == 404
    fill(us, "elsewhere2")
    assert us("GET", f"/v2/elsewhere2/manifests/{digest_of(manifest(annotations={'a': 'b'}))}").status == 404


# -- real clients -----------------------------------------------------------------------------------------------------


def run(*command: object, check: bool = True, input: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, input=input)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def layout(tmp_path: Path, peer: Peer, trusting: None) -> str:
    """An image with one layer, made by umoci."""
    umoci, place = peer("umoci"), tmp_path / "layout"
    run(umoci, "init", "--layout", place)
    run(umoci, "new", "--image", f"{place}:1")
    (tmp_path / "file").write_bytes(b"content" * 100_000)
    run(umoci, "insert", "--image", f"{place}:1", tmp_path / "file", "/file")
    return f"oci:{place}:1"


def test_skopeo_pushes_mounts_pulls_and_deletes(us: Registry, layout: str, tmp_path: Path, peer: Peer) -> None:
    skopeo = peer("skopeo")
    here = f"docker://{us.host}/team"
    run(skopeo, "copy", "--dest-tls-verify=false", layout, f"{here}/app:1")
    run(skopeo, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"{here}/app:1", f"{here}/copy:2")
    run(skopeo, "copy", "--src-tls-verify=false", f"{here}/copy:2", f"oci:{tmp_path / 'back'}:1")
    same = [run(skopeo, "inspect", "--raw", place).stdout for place in (layout, f"oci:{tmp_path / 'back'}:1")]
    assert same[0] == same[1]
    run(skopeo, "delete", "--tls-verify=false", f"{here}/copy:2")
    assert run(skopeo, "inspect", "--tls-verify=false", f"{here}/copy:2", check=False).returncode != 0
    assert "1" in run(skopeo, "list-tags", "--tls-verify=false", f"{here}/app").stdout


@pytest.mark.parametrize("tokens", [False, True])
def test_users_are_asked_for_their_password(layout: str, tmp_path: Path, peer: Peer, tokens: bool) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(f"anna:{hashed('secret')}\n")
    skopeo, flags = peer("skopeo"), ["--htpasswd", str(users), "--anonymous-pull", *(["--tokens"] if tokens else [])]
    with registry_server.ours(tmp_path / "root", *flags) as registry:
        place = f"docker://{registry.host}/app:1"
        assert registry("GET", "/v2/").status == 401
        assert "nauthorized" in run(skopeo, "copy", "--dest-tls-verify=false", layout, place, check=False).stderr
        wrong = run(skopeo, "copy", "--dest-tls-verify=false", "--dest-creds", "anna:wrong", layout, place, check=False)
        assert wrong.returncode != 0
        run(skopeo, "copy", "--dest-tls-verify=false", "--dest-creds", "anna:secret", layout, place)
        scheme = registry("GET", "/v2/").headers["www-authenticate"].partition(" ")[0]
        assert scheme == ("Bearer" if tokens else "Basic")
        if tokens:
            # Whoever may only read gets a token for that, and it opens nothing else.
            answer = json.loads(registry("GET", "/token?scope=repository:app:pull,push").body)
            bearer = f"Bearer {answer['token']}"
            assert registry("GET", "/v2/app/manifests/1", Authorization=bearer).status == 200
            assert registry("DELETE", "/v2/app/manifests/1", Authorization=bearer).status == 401
            assert registry("GET", "/v2/other/tags/list", Authorization=bearer).status == 401
            # A digest known from where this token may not read opens nothing: the mount becomes an upload.
            anna = "Basic " + base64.b64encode(b"anna:secret").decode()
            answer = json.loads(registry("GET", "/token?scope=repository:own:push", Authorization=anna).body)
            config = json.loads(registry("GET", "/v2/app/manifests/1", Authorization=bearer).body)["config"]["digest"]
            mount = f"/v2/own/blobs/uploads/?mount={config}&from=app"
            assert registry("POST", mount, Authorization=f"Bearer {answer['token']}").status == 202
            answer = json.loads(
                registry("GET", "/token?scope=repository:own:push&scope=repository:app:pull", Authorization=anna).body
            )
            assert registry("POST", mount, Authorization=f"Bearer {answer['token']}").status == 201
            forged = bearer[:-6] + "AAAAA="
            assert registry("GET", "/v2/app/manifests/1", Authorization=forged).status == 401
            answer = json.loads(registry("GET", "/token?scope=repository:app:*").body)
            assert registry("DELETE", "/v2/app/manifests/1", Authorization=f"Bearer {answer['token']}").status == 401
            run(skopeo, "delete", "--tls-verify=false", "--creds", "anna:secret", place)
            assert registry("GET", "/v2/app/manifests/1", Authorization=bearer).status == 404
        else:
            assert registry("GET", "/v2/app/manifests/1").status == 200
            for broken in ("Basic", "Basic !!!", "Basic " + base64.b64encode(b"anna").decode(), "Bearer x", "x" * 5000):
                assert registry("GET", "/v2/", Authorization=broken).status == 401


def test_an_account_made_here_opens_the_registry(layout: str, tmp_path: Path, peer: Peer) -> None:
    skopeo, root = peer("skopeo"), tmp_path / "root"
    user = [str(COMMAND), "registry", "user", "--root", str(root)]
    assert run(*user, "add", "--password-stdin", "anna", input="first\n").stdout == "anna: added\n"
    assert run(*user, "add", "--password-stdin", "bob", input="other").stdout == "bob: added\n"
    assert (root / "users").stat().st_mode & 0o777 == 0o600
    with registry_server.ours(root) as registry:
        place = f"docker://{registry.host}/app:1"
        assert registry("GET", "/v2/app/manifests/1").status == 401
        run(skopeo, "copy", "--dest-tls-verify=false", "--dest-creds", "anna:first", layout, place)
        assert run(*user, "add", "--password-stdin", "anna", input="secret").stdout == "anna: has a new password\n"
        bob = "Basic " + base64.b64encode(b"bob:other").decode()
        assert registry("GET", "/v2/", Authorization=bob).status == 200
        assert run(*user, "rm", "bob").stdout == "bob\n"
        assert registry("GET", "/v2/", Authorization=bob).status == 401
        credentials = ("--tls-verify=false", "--creds")
        assert run(skopeo, "list-tags", *credentials, "anna:first", place[:-2], check=False).returncode != 0
        assert '"1"' in run(skopeo, "list-tags", *credentials, "anna:secret", place[:-2]).stdout
    assert run(*user, "ls").stdout == "anna\n"
    for words, told in ((["rm", "bob"], "has no user bob"), (["add", "--password-stdin", "a:b"], "no colon")):
        done = run(*user, *words, input="x", check=False)
        assert done.returncode != 0 and told in done.stderr
    assert (root / "users").read_text().startswith("anna:$2b$10$")


def test_what_is_deleted_is_free_at_once_where_nothing_is_kept(layout: str, tmp_path: Path, peer: Peer) -> None:
    skopeo, root = peer("skopeo"), tmp_path / "root"
    with registry_server.ours(root, "--keep-untagged", "0s", "--keep-unused", "0s") as registry:
        run(skopeo, "copy", "--dest-tls-verify=false", layout, f"docker://{registry.host}/app:1")
        blobs = root / "content/blobs/sha256"
        assert len(list(blobs.iterdir())) == 3
        assert registry("DELETE", "/v2/app/manifests/1").status == 202
        deadline = time.monotonic() + 60
        while list(blobs.iterdir()):
            assert time.monotonic() < deadline, list(blobs.iterdir())
            time.sleep(0.05)


def hashed(password: str) -> str:
    """Return the bcrypt hash of a password, made by the library that checks it."""
    from orlop.linux.crypt import crypt

    made = crypt(password.encode(), b"$2b$05$abcdefghijklmnopqrstuu")
    assert made is not None
    return made.decode()


def test_https(layout: str, tmp_path: Path, peer: Peer) -> None:
    skopeo, certificates = peer("skopeo"), tmp_path / "certificates"
    certificates.mkdir()
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", tmp_path / "key.pem", "-out", certificates / "ca.crt",
    )  # fmt: skip
    flags = ["--tls-cert", certificates / "ca.crt", "--tls-key", tmp_path / "key.pem"]
    with registry_server.ours(tmp_path / "root", *map(str, flags)) as registry:
        place = f"docker://{registry.host}/app:1"
        assert run(skopeo, "copy", layout, place, check=False).returncode != 0  # nobody has heard of its authority
        run(skopeo, "copy", "--dest-cert-dir", certificates, layout, place)
        run(skopeo, "copy", "--src-cert-dir", certificates, place, f"oci:{tmp_path / 'back'}:1")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            registry("GET", "/v2/")
        with pytest.raises(ssl.SSLError):
            context = ssl.create_default_context()
            with socket.create_connection(("127.0.0.1", registry.port)) as stream:
                context.wrap_socket(stream, server_hostname="127.0.0.1")


def test_podman_pushes_and_pulls(
    us: Registry, layout: str, tmp_path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINERS_CONF", str(platforms.podman_configuration(tmp_path)))
    with tempfile.TemporaryDirectory(prefix="orlop-", dir="/tmp") as run_root:  # at most 50 characters
        podman = [peer("podman"), "--root", tmp_path / "p", "--runroot", run_root, "--storage-driver", "vfs"]
        image = run(*podman, "pull", "-q", layout).stdout.strip()
        run(*podman, "push", "-q", "--tls-verify=false", image, f"{us.host}/podman/app:1")
        run(*podman, "rmi", "-a", "-f")
        assert run(*podman, "pull", "-q", "--tls-verify=false", f"{us.host}/podman/app:1").stdout.strip() == image
