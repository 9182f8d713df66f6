"""References: docker's grammar and defaults, and that no two readings of one name exist (SEC-47)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.reference import PATH_LENGTH_MAX, REFERENCE_LENGTH_MAX, Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4
HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("user/image", "docker.io/user/image", "user/image"),
        ("a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/user/image:1", "docker.io/user/image:1", "user/image:1"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost", "docker.io/library/localhost", "localhost"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("example.com/x", "example.com/x", "example.com/x"),
        ("example:80", "docker.io/library/example:80", "example:80"),
        ("example:80/x:1", "example:80/x:1", "example:80/x:1"),
        ("Example/x", "Example/x", "Example/x"),
        ("EXAMPLE.com/x:LATEST", "EXAMPLE.com/x:LATEST", "EXAMPLE.com/x:LATEST"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("[fc00::1]/a/b", "[fc00::1]/a/b", "[fc00::1]/a/b"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:1@{DIGEST}", f"docker.io/library/x:1@{DIGEST}", f"x:1@{DIGEST}"),
        ("a_b__c-d---e/x.y", "docker.io/a_b__c-d---e/x.y", "a_b__c-d---e/x.y"),
        ("a--b/c:_", "docker.io/a--b/c:_", "a--b/c:_"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
        ("x:1.2.3-rc_1", "docker.io/library/x:1.2.3-rc_1", "x:1.2.3-rc_1"),
        ("xn--n3h.com/x", "xn--n3h.com/x", "xn--n3h.com/x"),
    ],
)
def test_what_docker_makes_of_a_name(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar) == (canonical, familiar)
    assert Reference.parse(canonical) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "path", ["docker.io/localhost/x", "docker.io/a.b/x", f"docker.io/library/{HEX}", "docker.io/library/localhost"]
)
def test_the_short_form_never_names_another_image(path: str) -> None:
    reference = Reference(domain="docker.io", path=path.removeprefix("docker.io/"))
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "invalid reference format"),
        ("Debian", r"invalid reference format: repository name \(library/Debian\) must be lowercase"),
        ("example.com/Debian", r"repository name \(Debian\) must be lowercase"),
        (HEX, "cannot specify 64-byte hexadecimal strings"),
        ("x:", "nothing follows"),
        ("x@", "nothing follows"),
        (":1", "invalid reference format"),
        ("@" + DIGEST, "invalid reference format"),
        ("x::1", "not a tag"),
        ("x:1:2", "not a tag"),
        ("x:-1", "not a tag"),
        ("x:.1", "not a tag"),
        ("x:" + "t" * 129, "not a tag"),
        ("x:1 ", "not a tag"),
        ("x:é", "not a tag"),
        ("x@sha256:12", "sha256 has 64 hex digits, not 2"),
        ("x@md5:" + "0" * 32, "its algorithm is none"),
        (f"x@{DIGEST}@{DIGEST}", "invalid reference format"),
        (f"x@{DIGEST}:1", "invalid reference format"),
        ("/x", "invalid reference format"),
        ("x/", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("example.com//b", "invalid reference format"),
        ("../x", "not a registry"),
        ("a/../b", "invalid reference format"),
        ("a/./b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a-", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a___b/c", "invalid reference format"),
        ("a._b/c", "not a registry"),
        ("a_-b/c", "invalid reference format"),
        ("exa mple.com/x", "not a registry"),
        ("-example.com/x", "not a registry"),
        ("example-.com/x", "not a registry"),
        ("example..com/x", "not a registry"),
        ("example.com:/x", "not a registry"),
        ("example.com:port/x", "not a registry"),
        ("example.com:80:80/x", "not a registry"),
        ("example.com:-1/x", "not a registry"),
        ("user@example.com/x", "invalid reference format"),
        ("https://example.com/x", "not a registry"),
        ("[::1/x", "not a registry"),
        ("[]/x", "invalid reference format"),
        ("[::1]5000/x", "not a registry"),
        ("[fe80::1%25eth0]:80/x", "not a registry"),
        ("docker.io/" + "a" * (PATH_LENGTH_MAX + 1), "must not be more than 255 characters|limit"),
        ("example.com/" + "a" * (PATH_LENGTH_MAX + 1), "must not be more than 255 characters"),
        ("d\u0435bian", "invalid reference format"),  # a Cyrillic letter
        ("\uff44ebian", "invalid reference format"),
        ("x\n", "invalid reference format"),
        ("x\0", "invalid reference format"),
        ("x?y=1", "invalid reference format"),
        ("x#y", "invalid reference format"),
        ("a" * (REFERENCE_LENGTH_MAX + 1), "the limit is"),
    ],
)
def test_what_is_no_reference(text: str, cause: str) -> None:
    with pytest.raises(Invalid, match=cause) as refused:
        Reference.parse(text)
    assert refused.value.verb == "parse"
    assert len(str(refused.value)) < 1200


def test_a_default_tag_is_given_only_where_nothing_else_decides() -> None:
    assert Reference.parse("x").tagged().tag == "latest"
    assert Reference.parse("x:1").tagged().tag == "1"
    assert Reference.parse(f"x@{DIGEST}").tagged().tag == ""


def test_the_constructor_checks_too() -> None:
    with pytest.raises(ValueError, match="not a registry"):
        Reference(domain="a b", path="x")
    with pytest.raises(ValueError, match="without a namespace"):
        Reference(domain="docker.io", path="x")
    assert Reference.from_json({"domain": "localhost", "path": "x"}).name == "localhost/x"


label = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
domain = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.builds(lambda labels, port: ".".join(labels) + port, st.lists(label, min_size=2, max_size=4), st.just("")),
    st.builds(lambda name, port: f"{name}:{port}", label, st.integers(0, 65535)),
    st.builds(lambda port: f"[2001:db8::1]:{port}", st.integers(0, 65535)),
)
component = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,3}", fullmatch=True)
tag = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True))
digest = st.one_of(st.none(), st.binary(max_size=4).map(Digest.of))


@given(domain, st.lists(component, min_size=1, max_size=5), tag, digest)
def test_both_forms_parse_back(host: str, parts: list[str], tag: str, digest: Digest | None) -> None:
    if host == "docker.io" and len(parts) == 1:
        parts = ["library", *parts]
    reference = Reference(domain=host, path="/".join(parts), tag=tag, digest=digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert len(reference.familiar) <= len(str(reference))


@given(st.text(alphabet="aZ0.:/@-_[]sh256 é", max_size=40))
def test_what_parses_is_stable(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except Invalid:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
