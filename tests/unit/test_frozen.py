"""One file with a program's compiled modules: it is used, it is never trusted blindly, and never in the way."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.engine import CHECKOUT

CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from orlop import frozen
frozen.thaw("program")
early = [name for name in ("orlop.ship", "orlop.ship.mast", "orlop.ship.hold") if name in sys.modules]
import orlop.ship.hold as hold
from orlop import ship
assert ship.hold is hold is sys.modules["orlop.ship.hold"] and ship.mast.CARGO is hold.CARGO
assert (hold.__package__, ship.__package__, ship.__spec__.name) == ("orlop.ship", "orlop.ship", "orlop.ship")
print(hold.CARGO, hold.__file__, ship.__path__, type(hold.__spec__.loader).__name__, *early)
frozen.freeze("sail")
assert not any(type(finder) is frozen.Archive for finder in sys.meta_path)
"""


class Place:
    """A package `orlop.ship` with the modules `hold` and `mast`, which it imports, and a cache."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "src"
        self.cache = directory / ".cache"
        self.archive = self.cache / "frozen/program"
        self.ship = self.source / "orlop/ship"
        self.ship.mkdir(parents=True)
        for name in ("__init__.py", "frozen.py"):
            shutil.copy(CHECKOUT / "src/orlop" / name, self.source / "orlop")
        (self.ship / "__init__.py").write_text("")
        (self.ship / "hold.py").write_text("from . import mast\nfrom .mast import CARGO\n")
        self.load("rum")

    def load(self, cargo: str, age_s: int = 1000) -> None:
        mast = self.ship / "mast.py"
        mast.write_text(f"CARGO = {cargo!r}\n")
        # Python's own cache tells by seconds whether a source has changed.
        os.utime(mast, (0, int(time.time()) - age_s))

    def run(self, prefix: str = "pycache", words: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return (CARGO, the name of the loader's class, the names of what was there before it was imported)."""
        options = ["-I", "-S", "-X", f"pycache_prefix={self.cache / prefix}"]
        argv = [sys.executable, *options, "-c", CODE, str(self.source), *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done
        cargo, file, path, *rest = done.stdout.split()
        assert (file, path) == (str(self.ship / "hold.py"), f"['{self.ship}']")
        return cargo, *rest


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def heading(data: bytes) -> Any:
    return marshal.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_heading(value: Any, data: bytes) -> bytes:
    head = marshal.dumps(value)
    return len(head).to_bytes(8, "little") + head + data[8 + int.from_bytes(data[:8], "little") :]


SOURCE, ARCHIVE = "SourceFileLoader", "Archive"


def test_the_second_run_takes_all_from_one_file(place: Place) -> None:
    assert place.run() == ("rum", SOURCE)
    assert place.archive.stat().st_mode & 0o777 == 0o644
    assert place.run() == ("rum", ARCHIVE)
    before = place.archive.stat().st_mtime_ns
    assert place.run() == ("rum", ARCHIVE)
    assert place.archive.stat().st_mtime_ns == before, "nothing was missing"
    assert [path.name for path in place.archive.parent.iterdir()] == ["program"]


def test_a_changed_source_counts_at_once(place: Place) -> None:
    place.run()
    place.load("tar", age_s=500)  # the same size: the time tells
    assert place.run(words=("sail",)) == ("tar", ARCHIVE), "of the module that was changed it is the source"
    assert place.run() == ("tar", ARCHIVE)
    stamp = (place.ship / "mast.py").stat()
    place.load("salt")
    os.utime(place.ship / "mast.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the size tells
    assert place.run() == ("salt", ARCHIVE)


def test_what_others_may_write_is_not_read(place: Place) -> None:
    place.run()
    for mode in (0o664, 0o646):
        place.archive.chmod(mode)
        assert place.run() == ("rum", SOURCE)
        assert place.archive.stat().st_mode & 0o777 == 0o644, "it was written anew"
    elsewhere = place.cache / "elsewhere"
    place.archive.rename(elsewhere)
    place.archive.symlink_to(elsewhere)
    assert place.run() == ("rum", SOURCE)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs: root")
def test_what_belongs_to_others_is_not_read(place: Place) -> None:
    place.run()
    os.chown(place.archive, 65534, 65534)
    assert place.run() == ("rum", SOURCE)
    assert place.archive.stat().st_uid == 0


def test_a_broken_file_is_no_harm(place: Place) -> None:
    place.run()
    whole = place.archive.read_bytes()
    version, rest, rows, orders = heading(whole)
    broken = [
        b"", b"\0" * 99, b"\xff" * 99, whole[:-1], whole + b"x", whole[:7], whole[:8], whole[: len(whole) // 2],
        with_heading(7, whole), with_heading((version,), whole),
        with_heading((f"{version}.", rest, rows, orders), whole),
    ]  # fmt: skip
    for data in broken:
        place.archive.write_bytes(data)
        assert place.run() == ("rum", SOURCE), data[:20]
        assert place.run() == ("rum", ARCHIVE)


def test_what_another_checkout_kept_is_not_taken(place: Place, tmp_path: Path) -> None:
    """A worktree whose cache is a link to the first one's must run its own modules."""
    for _ in range(2):
        place.run(words=("sail",))
    other = Place(tmp_path / "other")
    other.load("tar")
    other.cache = place.cache
    assert other.run(words=("sail",)) == ("tar", SOURCE)
    assert other.run() == ("tar", ARCHIVE)


def test_what_goes_from_the_source_goes_from_the_file(place: Place) -> None:
    (place.ship / "old.py").write_text("")
    (place.ship / "mast.py").write_text("from . import old\nCARGO = 'old'\n")
    place.run()
    assert "orlop.ship.old" in heading(place.archive.read_bytes())[2]
    (place.ship / "old.py").unlink()
    place.load("rum")
    place.run()
    assert set(heading(place.archive.read_bytes())[2]) >= {"orlop.ship", "orlop.ship.hold", "orlop.ship.mast"}
    assert "orlop.ship.old" not in heading(place.archive.read_bytes())[2]


def test_only_beside_a_cache_of_ours_and_where_one_may_write(place: Place) -> None:
    assert place.run(prefix="elsewhere") == ("rum", SOURCE)
    assert not place.archive.exists()
    place.archive.parent.write_text("a file where the directory should be: root ignores modes")
    assert place.run() == ("rum", SOURCE)
    assert place.run() == ("rum", SOURCE)


@pytest.mark.parametrize("same_inode", [False, True])
def test_a_file_that_another_one_replaces_meanwhile_is_left(place: Place, same_inode: bool) -> None:
    """Its inode, its size and its time may come again: what is read must be what was looked for."""
    place.run()
    whole = place.archive.read_bytes()
    moved = whole.replace(b" orlop.ship.hold ", b" orlop.ship.bold ") if same_inode else whole
    code = f"""
import sys
sys.path.insert(0, {str(place.source)!r})
from orlop import frozen
frozen.thaw("program")
import os
was = os.stat({str(place.archive)!r})
{not same_inode} and os.rename({str(place.archive)!r}, {str(place.cache / "before")!r})
open({str(place.archive)!r}, "wb").write({moved!r})
os.utime({str(place.archive)!r}, ns=(was.st_atime_ns, was.st_mtime_ns))
import orlop.ship.hold as hold
print(type(hold.__spec__.loader).__name__, *(name for name in os.listdir("/proc/self/fd") if int(name) > 3))
"""
    argv = [sys.executable, "-I", "-S", "-X", f"pycache_prefix={place.cache / 'pycache'}", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{SOURCE}\n", "and no descriptor stays open"


ALL = ("orlop.ship", "orlop.ship.mast", "orlop.ship.hold")


def test_what_a_verb_imports_is_imported_at_once(place: Place) -> None:
    """From the third run on: the first wrote the modules, the second the order in which they were complete."""
    assert place.run(words=("sail",)) == ("rum", SOURCE)
    assert place.run(words=("sail",)) == ("rum", ARCHIVE)
    assert heading(place.archive.read_bytes())[3] == {"sail": ALL}
    before = place.archive.stat().st_mtime_ns
    assert place.run(words=("--flag", "value", "sail", "x")) == ("rum", ARCHIVE, *ALL)
    assert place.run(words=("row",)) == ("rum", ARCHIVE), "another verb"
    assert place.archive.stat().st_mtime_ns == before


def test_an_order_ends_with_a_change(place: Place) -> None:
    for _ in range(3):
        place.run(words=("sail",))
    place.load("tar", age_s=500)
    assert place.run(words=("sail",)) == ("tar", ARCHIVE)
    assert heading(place.archive.read_bytes())[3] == {}
    place.run(words=("sail",))
    assert place.run(words=("sail",)) == ("tar", ARCHIVE, *ALL)


@pytest.mark.parametrize("names", [ALL[::-1], (*ALL, "orlop.ship.none"), ALL[1:], ALL[2:], ()])
def test_a_wrong_order_is_no_harm(place: Place, names: tuple[str, ...]) -> None:
    for _ in range(2):
        place.run(words=("sail",))
    data = place.archive.read_bytes()
    version, rest, rows, _ = heading(data)
    place.archive.write_bytes(with_heading((version, rest, rows, {"sail": names}), data))
    assert place.run(words=("sail",))[:2] == ("rum", ARCHIVE)


def test_one_writes_at_a_time_and_who_was_killed_is_forgotten(place: Place) -> None:
    beside = place.archive.with_name("program.new")
    beside.parent.mkdir(parents=True)
    beside.write_text("half")
    assert place.run() == ("rum", SOURCE)
    assert not place.archive.exists() and beside.read_text() == "half"
    os.utime(beside, (0, time.time() - 100))
    place.run()
    assert not beside.exists()
    place.run()
    assert place.run() == ("rum", ARCHIVE)
    assert [path.name for path in place.archive.parent.iterdir()] == ["program"]
