"""Secrets at rest: what a sealed file says, where the key lies, and what opens nothing."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from orlop.engine.sealing import KEY_BYTES, MAGIC, OVERHEAD_BYTES, Key
from orlop.spec.errors import Denied, Invalid, OrlopError, Unavailable


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Key:
    monkeypatch.delenv("ORLOP_SECRETS_KEY", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    made = Key(str(tmp_path))
    made.make()
    return made


@pytest.mark.parametrize("size", [0, 1, 31, 32, 135, 136, 137, 4096, 500 * 1024])
def test_what_is_sealed_opens(key: Key, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    first, second = key.seal(data, b"a"), key.seal(data, b"a")
    assert len(first) == size + OVERHEAD_BYTES and first != second
    assert size < 16 or data[:16] not in first
    assert key.open(first, b"a", "secret x") == data == key.open(second, b"a", "secret x")


def test_a_sealed_file_is_what_the_module_says(key: Key) -> None:
    """The construction, written down once more: who changes it opens no file of before."""
    master = Path(key.path).read_bytes()
    sealed = key.seal(b"correct horse", b"about")
    nonce, tag, hidden = sealed[-32 - 32 - 13 : -32 - 13], sealed[-32 - 13 : -13], sealed[-13:]
    both = hmac.new(master, b"orlop secrets: keys of a file\0" + nonce, hashlib.sha512).digest()
    stream = hashlib.shake_256(both[:32]).digest(13)
    assert bytes(a ^ b for a, b in zip(hidden, stream, strict=True)) == b"correct horse"
    covered = sealed[: -32 - 13] + (5).to_bytes(8, "big") + b"about" + hidden
    assert tag == hmac.new(both[32:], covered, hashlib.sha256).digest()


def test_every_bit_counts(key: Key) -> None:
    """red: without the comparison of the tags."""
    sealed = key.seal(b"secret", b"a")
    for at in range(len(sealed)):
        with pytest.raises(OrlopError):
            key.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"a", "secret x")
        with pytest.raises(OrlopError):
            key.open(sealed[:at], b"a", "secret x")
    for about in (b"", b"b", b"aa"):
        with pytest.raises(Invalid, match="damaged"):
            key.open(sealed, about, "secret x")
    with pytest.raises(Invalid, match="damaged"):
        key.open(sealed + b"\0", b"a", "secret x")


def test_the_key_is_made_once_and_for_us_alone(key: Key, tmp_path: Path) -> None:
    kept = Path(key.path).read_bytes()
    assert len(kept) == KEY_BYTES and Path(key.path).stat().st_mode & 0o777 == 0o600
    key.make()
    assert Path(key.path).read_bytes() == kept
    assert sorted(tmp_path.iterdir()) == [tmp_path / "secrets.key"]


def test_a_key_that_is_none_opens_nothing(key: Key) -> None:
    sealed, place = key.seal(b"secret", b"a"), Path(key.path)
    kept = place.read_bytes()
    for content, mode, kind in (
        (kept, 0o640, Denied),
        (kept, 0o604, Denied),
        (kept[:-1], 0o600, Invalid),
        (b"", 0o600, Invalid),
        (kept * 200, 0o600, Invalid),
        (kept[::-1], 0o600, Unavailable),
    ):
        place.write_bytes(content)
        place.chmod(mode)
        with pytest.raises(kind):
            key.open(sealed, b"a", "secret x")
    place.unlink()
    with pytest.raises(Unavailable):
        key.seal(b"secret", b"a")
    place.mkdir()
    with pytest.raises(Invalid):
        key.seal(b"secret", b"a")


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("/var/lib/orlop", "/etc/orlop/secrets.key"),
        ("/home/u/.local/share/orlop", "/home/u/.config/orlop/secrets.key"),
        ("/srv/orlop", "/srv/orlop/secrets.key"),
        ("/srv/var/lib/orlop", "/srv/var/lib/orlop/secrets.key"),
    ],
)
def test_the_key_lies_apart_from_the_data(root: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORLOP_SECRETS_KEY", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert (Key(root).path, Key(root).is_ours) == (place, True)


def test_a_key_may_be_given(key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a variable, or by systemd, which decrypts it for its unit. None of ours is made then, none of ours opens."""
    sealed = key.seal(b"secret", b"a")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Key(str(tmp_path)).is_ours, "a unit has other credentials, too"
    for name, place in (("orlop-secrets-key", ""), ("mine", str(tmp_path / "mine"))):
        if place:
            monkeypatch.setenv("ORLOP_SECRETS_KEY", place)
        given = Key(str(tmp_path))
        if place:
            given.make()
            with pytest.raises(Unavailable, match="mine can't be read"):
                given.seal(b"x", b"a")
        (tmp_path / name).write_bytes(b"k" * 40)
        (tmp_path / name).chmod(0o400)
        given = Key(str(tmp_path))
        assert (given.path, given.is_ours) == (str(tmp_path / name), False)
        with pytest.raises(Unavailable, match="another key"):
            given.open(sealed, b"a", "secret x")
        again = given.seal(b"x", b"a")
        assert given.open(again, b"a", "secret x") == b"x" and again.startswith(MAGIC)
