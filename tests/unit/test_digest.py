"""Digests: what is one, and that nothing else becomes one (SEC-44)."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.record import Record

EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()


class Holder(Record):
    digest: Digest


def test_a_digest_is_its_string() -> None:
    digest = Digest.parse(EMPTY)
    assert digest == EMPTY
    assert (digest.algorithm, digest.hex, digest.short) == ("sha256", EMPTY[7:], EMPTY[7:19])
    assert {digest: 1}[Digest.of(b"")] == 1


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_of_agrees_with_hashlib_and_parses_back(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY.upper(),
        "sha256:" + EMPTY[7:].upper(),
        "SHA256:" + EMPTY[7:],
        "sha256:../../../../../../../../../../../../../../../../../../../../../..",
        "sha256:" + "." * 64,
        "sha256:" + "/" * 64,
        "sha256:" + "\u0660" * 64,  # Arabic digits: str.isdigit() and int() take them
        "sha256:" + "\uff41" * 64,  # full width a
        "sha256:" + "0" * 63 + "\n",
        "sha256:" + "0" * 63 + "\0",
        " " + EMPTY,
        EMPTY + " ",
        "sha512:" + EMPTY[7:],
        "md5:" + "0" * 32,
        "sha1:" + "0" * 40,
        "sha256+b64:" + EMPTY[7:],
        "sha256:" + EMPTY,
        "../sha256:" + EMPTY[7:],
        "0" * 1_000_000,
    ],
)
def test_anything_else_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Digest.parse(text)
    assert len(str(refused.value)) < 400
    assert repr(text)[1:20] in str(refused.value)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("nothing", "it is not of the form algorithm:hex"),
        ("md5:" + "0" * 32, "its algorithm is none of sha256, sha512"),
        ("sha512:" + EMPTY[7:], "sha512 has 128 hex digits, not 64"),
        ("sha256:" + "G" * 64, "what follows the colon is not lower-case hex"),
    ],
)
def test_the_cause_is_told(text: str, cause: str) -> None:
    with pytest.raises(Invalid) as refused:
        Digest.parse(text)
    assert refused.value.cause == cause


@given(st.text())
def test_no_text_gets_through_by_chance(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except Invalid:
        return
    assert len(digest.hex) in (64, 128)
    assert int(digest.hex, 16) >= 0


def test_a_record_holds_and_checks_digests() -> None:
    assert Holder.from_json({"digest": EMPTY}).digest.algorithm == "sha256"
    assert Holder(digest=Digest(EMPTY)).to_json() == {"digest": EMPTY}
    with pytest.raises(Invalid, match=r"digest: digest 'sha256:12': sha256 has 64 hex digits, not 2"):
        Holder.from_json({"digest": "sha256:12"})
    with pytest.raises(Invalid, match="digest: expected a string, found an integer"):
        Holder.from_json({"digest": 5})
