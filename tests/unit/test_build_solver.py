"""The parts of the solver that need no engine: modes, wildcards, digests by stat, forms of secrets, packages."""

from __future__ import annotations

import base64
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.build import contexts
from orlop.build.output import packages, scan
from orlop.build.solver import copy, glob
from orlop.build.solver.cachemounts import name_of
from orlop.build.solver.chmod import changed_mode, check_mode
from orlop.build.solver.digests import Digests
from orlop.build.solver.keys import Key, difference
from orlop.build.solver.tree import Tree, listing
from orlop.engine.volumes.store import check_name
from orlop.spec.errors import Invalid, NotFound, Unavailable

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ("", FILE | 0o644, 0o644),
        ("0711", FILE | 0o644, 0o711),
        ("755", DIRECTORY | 0o700, 0o755),
        ("u=rwX,go=rX", FILE | 0o600, 0o644),
        ("u=rwX,go=rX", FILE | 0o700, 0o755),
        ("u=rwX,go=rX", DIRECTORY | 0o700, 0o755),
        ("a+x", FILE | 0o644, 0o755),
        ("+x", FILE | 0o600, 0o711),
        ("go-rwx", FILE | 0o777, 0o700),
        ("g=u", FILE | 0o750, 0o770),
        ("u+s", FILE | 0o755, 0o4755),
        ("g+s,o+t", DIRECTORY | 0o755, 0o3755),
        ("u=rw,u-w", FILE | 0o777, 0o477),
        ("u-s", FILE | 0o4755, 0o755),
    ],
)
def test_modes_change_as_chmod_changes_them(change, before, after):
    check_mode(change)
    assert oct(changed_mode(change, before)) == oct(after)


@pytest.mark.parametrize("text", ["08", "99999", "rwx", "u=rwz", "u", "u=rw,", "x+u+", "0755 "])
def test_what_is_no_mode_is_refused(text):
    with pytest.raises(Invalid, match="chmod parameter"):
        check_mode(text)


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("*.txt", ["a.txt", ".txt"], ["a.txtx", "a"]),
        ("?", ["a", "\u00e4"], ["", "ab"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        ("\\*", ["*"], ["a"]),
        ("[\\]]", ["]"], ["["]),
        ("a[*]b", ["a*b"], ["axb"]),
    ],
)
def test_wildcards_are_those_of_go(pattern, fits, others):
    assert all(glob.part_matches(name, pattern) for name in fits)
    assert not any(glob.part_matches(name, pattern) for name in others)


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[a-", "[b-a]", "\\", "[-a]", "[a-]"])
def test_malformed_patterns_are_refused(pattern):
    with pytest.raises(Invalid, match="syntax error in pattern"):
        glob.part_matches("a", pattern)


@given(st.text(max_size=20))
def test_any_pattern_fits_or_is_refused(pattern):
    try:
        glob.part_matches("name", pattern)
    except Invalid:
        pass


def test_a_listing_knows_content_and_mode_and_not_times_or_places(tmp_path):
    digests = []
    for name in ("one", "two"):
        place = tmp_path / name
        (place / "d").mkdir(parents=True)
        for file in ("b", "a") if name == "one" else ("a", "b"):
            (place / "d" / file).write_text(file)
            os.utime(place / "d" / file, (time.time(), hash(name) % 10**9))
        (place / "l").symlink_to("d/a")
        digests.append(_listed(place).digest(owners=True))
    assert digests[0] == digests[1]
    (tmp_path / "two/d/a").chmod(0o600)
    assert _listed(tmp_path / "two").digest(owners=True) != digests[0]
    assert list(_listed(tmp_path / "two").inputs(owners=False)) == ["/", "/d", "/d/a", "/d/b", "/l"]


def _listed(place, path="/"):
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return listing(root, path, Tree(directory=str(place)))
    finally:
        os.close(root)


def test_a_path_stays_inside_its_tree(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "c/up").symlink_to("../secret")
    (tmp_path / "c/absolute").symlink_to(tmp_path / "secret")
    for path in ("up", "absolute", "../secret", "/../secret", "none"):
        with pytest.raises(NotFound):
            _listed(tmp_path / "c", path)


def test_digests_are_read_once_and_again_when_a_file_changed(tmp_path):
    file = tmp_path / "f"
    file.write_text("one")
    os.utime(file, (1, 1))
    cache = str(tmp_path / "cache")

    def digest():
        known = Digests(cache)
        opened = []
        found = known.of(os.stat(file), lambda: opened.append(1) or os.open(file, os.O_RDONLY))
        known.save()
        return found, len(opened)

    first, read = digest()
    assert read == 1
    file.write_text("two")
    os.utime(file, (1, 1))  # the same size and time: the change time tells
    second, read = digest()
    assert read == 1 and second != first
    with open(cache, "wb") as damaged:
        damaged.write(b"x" * 100)
    assert digest() == (second, 1)


@given(st.binary(min_size=9, max_size=60), st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_is_found_in_base64_wherever_it_stands(secret, before, after):
    encoded = base64.b64encode(before + secret.strip() + after)
    assert any(form in encoded for form in scan.forms(secret)) or len(secret.strip()) < 9


def test_a_key_is_the_same_everywhere_and_shows_no_value():
    keys = []
    for salt in (b"1" * 32, b"2" * 32):
        key = Key("run", None)
        key.add("command", "make")
        key.add_hidden("variable TOKEN", "hush", salt)
        keys.append(key)
    assert keys[0].hex() == keys[1].hex() and keys[0].inputs != keys[1].inputs
    assert "hush" not in str(keys[0].inputs)
    assert difference(keys[0].inputs, keys[0].inputs) == []


@given(st.text(max_size=80))
def test_any_id_of_a_cache_names_a_volume(text):
    check_name(name_of(text))


def test_packages_of_broken_files():
    files = {
        "var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nVersion: 1\n\n\xff\xfe\n\nVersion: 2\n",
        "lib/apk/db/installed": b"P:musl\nV:1.2\n\nV:3\n",
    }
    root = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = packages.installed(files.get, root)
    finally:
        os.close(root)
    assert [(one.kind, one.name, one.version) for one in found] == [("apk", "musl", "1.2"), ("deb", "a", "1")]


def test_the_reading_of_a_huge_file_ends_with_its_build(tmp_path: Path) -> None:
    """A client had gone, and its tebibyte of nothing was hashed on. Red: it is read to its end, for minutes."""
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    asked: list[int] = []

    def check() -> None:
        asked.append(len(asked))
        if len(asked) >= 3:
            raise Unavailable("build", "the image", "the build was cancelled")

    with pytest.raises(Unavailable):
        Digests(check=check).of(huge.stat(), lambda: os.open(huge, os.O_RDONLY))
    archive = os.open("/dev/zero", os.O_RDONLY)
    try:
        with pytest.raises(Unavailable):
            contexts.extract(archive, str(tmp_path), check)
    finally:
        os.close(archive)


@pytest.mark.parametrize("name", ["hole", "data and a hole", "a hole and data", "small", "none"])
def test_a_copy_has_zeros_for_the_holes_of_what_it_was_made_from(tmp_path: Path, name: str) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    with (tmp_path / "from/file").open("wb") as file:
        if name != "none":
            file.write(b"begin" * 70_000 if name == "data and a hole" else b"")
            file.seek(5_000_000 if "hole" in name else 100)
            file.write(b"end" if name == "a hole and data" else b"")
            file.truncate(file.tell() if name == "a hole and data" else file.tell() + 5)

    _copied(tmp_path, lambda: None)

    made, meant = tmp_path / "to/file", tmp_path / "from/file"
    assert made.stat().st_size == meant.stat().st_size
    assert made.stat().st_blocks * 512 >= made.stat().st_size, "a context that came as an archive has no holes"
    assert made.read_bytes() == meant.read_bytes()


def test_the_copy_of_a_huge_file_ends_with_its_build(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from/file").write_bytes(bytes(copy.SMALL_BYTES + 1))

    def check() -> None:
        raise Unavailable("build", "the image", "the build was cancelled")

    with pytest.raises(Unavailable, match="cancelled"):
        _copied(tmp_path, check)
    assert (tmp_path / "to/file").stat().st_size == 0


def _copied(place: Path, check: Callable[[], None]) -> None:
    """Copy the file `from/file` into the directory `to`, as COPY does."""
    source, target = (os.open(place / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("from", "to"))
    try:
        listed = listing(source, "file", Tree(directory=str(place / "from"), digests=Digests()))
        writer = copy.Writer(target, (os.getuid(), os.getgid()), "", time.time_ns(), check)
        writer.place(source, listed, "/", into=True)
    finally:
        os.close(source)
        os.close(target)
