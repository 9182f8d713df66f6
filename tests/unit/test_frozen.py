"""One file with a program's compiled modules: it is used, it is never trusted blindly, and never in the way."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.engine import CHECKOUT

CODE = """
import sys
sys.path[:0] = sys.argv[1:]
from orlop import frozen
frozen.thaw("program")
import ship.hold
print(ship.hold.CARGO, ship.hold.__file__, ship.__path__, type(ship.hold.__spec__.loader).__name__, *sys.argv[3:])
frozen.freeze()
assert not any(type(finder) is frozen.Archive for finder in sys.meta_path)
"""


class Place:
    """A package `ship` with the module `hold`, and a cache."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "src"
        self.cache = directory / ".cache"
        self.archive = self.cache / "frozen/program"
        (self.source / "ship").mkdir(parents=True)
        (self.source / "ship/__init__.py").write_text("")
        self.load("rum")

    def load(self, cargo: str, age_s: int = 1000) -> None:
        hold = self.source / "ship/hold.py"
        hold.write_text(f"CARGO = {cargo!r}\n")
        # Python's own cache tells by seconds whether a source has changed.
        os.utime(hold, (0, int(time.time()) - age_s))

    def run(self, prefix: str = "pycache") -> tuple[str, str]:
        """Return (CARGO, the name of the loader's class)."""
        options = ["-I", "-S", "-X", f"pycache_prefix={self.cache / prefix}"]
        argv = [sys.executable, *options, "-c", CODE, str(CHECKOUT / "src"), str(self.source)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done
        cargo, file, path, loader = done.stdout.split()
        assert (file, path) == (str(self.source / "ship/hold.py"), f"['{self.source}/ship']")
        return cargo, loader


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
    before = place.archive.stat().st_mtime_ns
    assert place.run() == ("rum", ARCHIVE)
    assert place.archive.stat().st_mtime_ns == before, "nothing was missing"
    assert [path.name for path in place.archive.parent.iterdir()] == ["program"]


def test_a_changed_source_counts_at_once(place: Place) -> None:
    place.run()
    place.load("tar", age_s=500)  # the same size: the time tells
    assert place.run() == ("tar", SOURCE)
    assert place.run() == ("tar", ARCHIVE)
    stamp = (place.source / "ship/hold.py").stat()
    place.load("salt")
    os.utime(place.source / "ship/hold.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the size tells
    assert place.run() == ("salt", SOURCE)


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
    version, rest, rows = heading(whole)
    broken = [
        b"", b"\0" * 99, b"\xff" * 99, whole[:-1], whole + b"x", whole[:7], whole[:8], whole[: len(whole) // 2],
        with_heading(7, whole), with_heading((version,), whole), with_heading((f"{version}.", rest, rows), whole),
    ]  # fmt: skip
    for data in broken:
        place.archive.write_bytes(data)
        assert place.run() == ("rum", SOURCE), data[:20]
        assert place.run() == ("rum", ARCHIVE)


def test_what_goes_from_the_source_goes_from_the_file(place: Place) -> None:
    (place.source / "ship/old.py").write_text("")
    place.load("old")
    (place.source / "ship/hold.py").write_text("from . import old\nCARGO = 'old'\n")
    place.run()
    assert "ship.old" in heading(place.archive.read_bytes())[2]
    (place.source / "ship/old.py").unlink()
    place.load("rum")
    place.run()
    assert set(heading(place.archive.read_bytes())[2]) >= {"ship", "ship.hold"}
    assert "ship.old" not in heading(place.archive.read_bytes())[2]


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
    moved = whole.replace(b" ship.hold ", b" ship.bold ") if same_inode else whole
    code = f"""
import sys
sys.path[:0] = [{str(CHECKOUT / "src")!r}, {str(place.source)!r}]
from orlop import frozen
frozen.thaw("program")
import os
was = os.stat({str(place.archive)!r})
{not same_inode} and os.rename({str(place.archive)!r}, {str(place.cache / "before")!r})
open({str(place.archive)!r}, "wb").write({moved!r})
os.utime({str(place.archive)!r}, ns=(was.st_atime_ns, was.st_mtime_ns))
import ship.hold
print(type(ship.hold.__spec__.loader).__name__, *(name for name in os.listdir("/proc/self/fd") if int(name) > 3))
"""
    argv = [sys.executable, "-I", "-S", "-X", f"pycache_prefix={place.cache / 'pycache'}", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{SOURCE}\n", "and no descriptor stays open"
