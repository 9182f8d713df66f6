"""What a registry is given to know its users by: broken password files, broken headers, broken tokens."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from orlop.frontends.registry.auth import Basic, Passwords, Tokens, basic_credentials
from orlop.image.repositories import Repositories
from orlop.linux.crypt import crypt
from orlop.spec.errors import Invalid, Unavailable


def hashed(password: str) -> str:
    made = crypt(password.encode(), b"$2b$04$abcdefghijklmnopqrstuu")
    assert made is not None
    return made.decode()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"# who may push\n\nanna:{hashed('secret')}\n")
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"anna\n", b":hash\n", b"anna:\n", b"anna:secret\n", b"anna:$apr1$x$y\n", b"anna:{SHA}x\n", b"\xff:$2y$05$x\n",
        b"\0\n", b"anna:$1$x$y\n", b"anna:$2x$05$x\n",
    ],
)  # fmt: skip
def test_a_file_that_could_let_somebody_in_is_refused(users: Path, data: bytes) -> None:
    users.write_bytes(data)
    with pytest.raises(Invalid, match="line 1"):
        Passwords(str(users))


def test_a_huge_or_missing_file_is_refused(users: Path) -> None:
    with pytest.raises(Unavailable):
        Passwords(str(users) + "x")
    with users.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(Invalid, match="more than"):
        Passwords(str(users))


def test_a_hash_that_crypt_does_not_take_matches_nothing(users: Path) -> None:
    users.write_text("anna:$2y$99$nonsense\n")
    assert not Passwords(str(users)).match("anna", "")
    assert not Passwords(str(users)).match("anna", "*0")


def test_the_file_is_read_anew_and_what_was_remembered_is_forgotten(users: Path) -> None:
    passwords = Passwords(str(users))
    assert passwords.match("anna", "secret") and passwords.match("anna", "secret")
    assert (
        not passwords.match("anna", "Secret") and not passwords.match("anna", "") and not passwords.match("", "secret")
    )
    users.with_name("new").write_text(f"anna:{hashed('other')}\n")
    users.with_name("new").rename(users)
    assert not passwords.match("anna", "secret") and passwords.match("anna", "other")


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic %%%",
        basic(b"anna"),
        basic(b":secret"),
        basic(b"\xff:x"),
        basic(b"anna:a\0b"),
        "Bearer x",
    ],
)
def test_a_header_without_credentials(header: str) -> None:
    assert basic_credentials(header) is None


def test_credentials_keep_their_colons() -> None:
    assert basic_credentials(basic(b"anna:a:b")) == ("anna", "a:b")


def test_a_long_password_costs_an_answer_and_no_crash(users: Path) -> None:
    assert Basic(Passwords(str(users))).permits(basic(b"anna:" + b"x" * 100_000), "pull", "app") is None


def test_a_token_says_only_what_was_signed(users: Path) -> None:
    tokens = Tokens(Passwords(str(users)), anonymous_pull=True)
    issued = tokens.issue(
        "", "", ["repository:app:pull,push,delete,*", "registry:catalog:*", "nonsense", "repository::pull"]
    )
    assert issued is not None
    token = str(issued["token"])
    assert tokens.permits(f"Bearer {token}", "pull", "app") is True
    assert tokens.permits(f"Bearer {token}", "push", "app") is None
    body, _, signature = token.partition(".")
    other = Tokens(Passwords(str(users)))
    for forged in (
        "",
        ".",
        body,
        f"{body}.",
        f".{signature}",
        f"{body}.AAAA",
        f"{body[:-4]}AAAA.{signature}",
        "\u00e9.x",
        "a" * 9,
    ):
        assert tokens.permits(f"Bearer {forged}", "pull", "app") is None
    assert other.permits(f"Bearer {token}", "pull", "app") is None
    assert tokens.issue("anna", "wrong", ["repository:app:pull"]) is None


@pytest.mark.parametrize("data", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_database_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry/repositories.db").write_bytes(data)
    with pytest.raises(Unavailable, match="repositories"):
        Repositories(str(tmp_path / "registry"))
