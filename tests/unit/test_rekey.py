"""The key of secrets is renewed: at whatever instant that is cut short, each secret opens, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.engine import sealing
from orlop.engine.secrets import Data
from orlop.spec.container import SECRET, DataRecord
from orlop.spec.errors import Invalid, Unavailable


class Cut(Exception):
    """The engine died here."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("ORLOP_SECRETS_KEY", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    yield tmp_path


def made(root: Path, *names: str) -> Data:
    data = Data(str(root), SECRET)
    for name in names:
        data.make(DataRecord(id=name * 64, name=name, created_at="2026-01-01T00:00:00Z"), name.encode() * 9)
    return data


def opened(root: Path) -> dict[str, bytes]:
    """What a new engine reads."""
    data = Data(str(root), SECRET)
    return {record.name: data.read(record) for record in data.all()}


WHOLE = {"a": b"a" * 9, "b": b"b" * 9, "c": b"c" * 9}


def test_all_are_sealed_with_a_new_key(root: Path) -> None:
    data = made(root, "a", "b", "c")
    old, sealed = (root / "secrets.key").read_bytes(), (root / "secrets/a/data").read_bytes()
    assert data.rekey() == 3
    assert (root / "secrets.key").read_bytes() != old and not (root / "secrets.key.next").exists()
    assert opened(root) == WHOLE
    # Whoever has the old key, and a copy of the disk as it is now, has nothing.
    (root / "secrets.key").write_bytes(old)
    with pytest.raises(Unavailable, match="another key"):
        opened(root)
    (root / "secrets/a/data").write_bytes(sealed)
    assert Data(str(root), SECRET).read(data.find("a")) == WHOLE["a"]


@pytest.mark.parametrize("step", range(6))
def test_one_that_was_cut_short_loses_nothing_and_goes_on(
    root: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, left = made(root, "a", "b", "c"), step
    old = (root / "secrets.key").read_bytes()
    seal, end, renew = sealing.Key.seal, sealing.Key.end_renewal, sealing.Key.renew

    def die(work: object) -> object:
        def one(*args: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Cut
            assert callable(work)
            return work(*args)

        return one

    with monkeypatch.context() as patched:
        for name, work in (("seal", seal), ("end_renewal", end), ("renew", renew)):
            patched.setattr(sealing.Key, name, die(work))
        if step < 5:
            with pytest.raises(Cut):
                data.rekey()
        else:
            data.rekey()
    assert opened(root) == WHOLE
    again = Data(str(root), SECRET)
    again.replace(again.find("b").replace(version=2), b"newer")  # meanwhile
    again.go_on()
    assert opened(root) == WHOLE | {"b": b"newer"}
    assert ((root / "secrets.key").read_bytes() == old) is (step == 0)
    assert not (root / "secrets.key.next").exists()


def test_what_cannot_be_read_keeps_its_key(root: Path) -> None:
    data = made(root, "a", "b")
    record = root / "secrets/a/record.json"
    kept = record.read_bytes()
    record.write_bytes(b"{")
    with pytest.raises(Unavailable, match="a can't be read"):
        data.rekey()
    record.write_bytes(kept)
    sealed = root / "secrets/b/data"
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Invalid, match="does not fit its seal"):
        data.rekey()
    sealed.write_bytes(whole)
    assert Data(str(root), SECRET).rekey() == 1 and opened(root) == {"a": b"a" * 9, "b": b"b" * 9}


def test_a_key_that_is_provided_follows_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(root, "a")
    for number in (1, 2):
        (root / f"key{number}").write_bytes(bytes([number]) * 32)
        (root / f"key{number}").chmod(0o600)
    monkeypatch.setenv("ORLOP_SECRETS_KEY", str(root / "key1"))
    assert Data(str(root), SECRET).rekey(str(root / "secrets.key")) == 1
    monkeypatch.setenv("ORLOP_SECRETS_KEY", str(root / "key2"))
    second = Data(str(root), SECRET)
    assert not second.makes_its_key
    with pytest.raises(Unavailable, match="another key"):
        second.read(second.find("a"))
    assert second.rekey(str(root / "key1")) == 1 and opened(root) == {"a": b"a" * 9}
    monkeypatch.delenv("ORLOP_SECRETS_KEY")
    assert Data(str(root), SECRET).rekey(str(root / "key2")) == 1 and opened(root) == {"a": b"a" * 9}
