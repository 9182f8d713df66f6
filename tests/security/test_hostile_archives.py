"""Archives made to write outside of their directory (SEC-40, SEC-41): a canary beside it must not change in anything.

Each case is a list of members. It is extracted in one piece, repeated, cut into two layers at every place, and by four
unpackers at once; the canary's names, content, owners, modes, attributes and times are compared each time.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.snapshot import Snapshots, removal
from orlop.snapshot.extract import DEPTH_MAX, Extraction
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, OrlopError
from orlop.spec.tar import Reader
from support import archives, trees
from support.archives import Archive, long_name, pax

pytestmark = pytest.mark.root

Make = Callable[[bytes], Archive]
CASES: dict[str, tuple[Make, str]] = {}  # name -> (members for a canary at this path, how it is refused or "")


def case(make: Make, refused: str = "") -> Make:
    CASES[make.__name__.replace("_", " ").strip()] = (make, refused)
    return make


def hostile(refused: str = "") -> Callable[[Make], Make]:
    return lambda make: case(make, refused)


OUT = "leads out of the root directory"
XATTRS = {b"SCHILY.xattr.user.evil": b"1", b"SCHILY.xattr.trusted.evil": b"1"}
UP = b"../" * 12

# -- names ----------------------------------------------------------------------------------------------------------


@hostile(OUT)
def dot_dot(canary: bytes) -> Archive:
    return Archive().file(b"../../canary/file")


@hostile(OUT)
def dot_dot_far_up(canary: bytes) -> Archive:
    return Archive().file(UP + canary)


@hostile(OUT)
def dot_dot_behind_a_directory(canary: bytes) -> Archive:
    return Archive().directory(b"a").file(b"a/../../../canary/file")


@hostile(OUT)
def dot_dot_as_a_directory(canary: bytes) -> Archive:
    return Archive().directory(b"..", mode=0o777)


@hostile(OUT)
def dot_dot_behind_a_slash(canary: bytes) -> Archive:
    return Archive().directory(b"/../../canary/", mode=0o777)


@hostile(OUT)
def dot_dot_as_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"../../canary/dir", b"x")


@hostile(OUT)
def dot_dot_as_a_whiteout(canary: bytes) -> Archive:
    return Archive().file(b"../../canary/.wh.file")


@hostile(OUT)
def dot_dot_as_an_opaque_marker(canary: bytes) -> Archive:
    return Archive().file(b"../../canary/dir/.wh..wh..opq")


@hostile(OUT)
def dot_dot_in_a_pax_header(canary: bytes) -> Archive:
    return Archive().file(b"fine", pax={b"path": b"../../canary/file"})


@hostile(OUT)
def dot_dot_in_a_gnu_long_name(canary: bytes) -> Archive:
    return Archive().raw(long_name(UP + canary + b"/file")).file(b"fine")


@hostile(OUT)
def dot_dot_in_the_prefix(canary: bytes) -> Archive:
    return Archive().file(b"canary/file", prefix=b"../..")


@hostile()
def absolute_names(canary: bytes) -> Archive:
    return Archive().file(canary + b"/file").directory(canary + b"/dir", mode=0o777).symlink(canary + b"/link", b"x")


@hostile()
def absolute_names_with_many_slashes(canary: bytes) -> Archive:
    return Archive().file(b"////" + canary + b"//file").file(canary + b"/./new")


@hostile("stands in the place of the root directory")
def a_file_called_dot(canary: bytes) -> Archive:
    return Archive().file(b".")


@hostile("stands in the place of the root directory")
def a_symlink_in_place_of_the_root(canary: bytes) -> Archive:
    return Archive().symlink(b"./", canary).file(b"file")


@hostile("stands in the place of the root directory")
def a_file_called_slash(canary: bytes) -> Archive:
    return Archive().symlink(b"/", canary)


@hostile()
def odd_characters(canary: bytes) -> Archive:
    return (
        Archive().file(b"..\\..\\canary\\file").file(b"a\nb").file(b"\x1b[2J").file(b"\xff").file(b"-rf").file(b"~root")
    )


@hostile("File name too long")
def a_name_of_a_thousand_bytes(canary: bytes) -> Archive:
    return Archive().file(b"n" * 1000)


@hostile(f"more than {DEPTH_MAX} directories deep")
def a_name_two_thousand_directories_deep(canary: bytes) -> Archive:
    return Archive().file(b"d/" * 2000 + b"f")


# -- symbolic links -------------------------------------------------------------------------------------------------


@hostile()
def through_an_absolute_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).file(b"l/file").file(b"l/new").directory(b"l/dir", mode=0o777)


@hostile()
def through_a_relative_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", UP + canary).file(b"l/file").file(b"l/dir/new")


@hostile()
def through_a_symlink_to_its_parent(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"..").file(b"l/l/l/canary/file").file(b"l/../x")


@hostile()
def through_a_chain_of_symlinks(canary: bytes) -> Archive:
    return Archive().symlink(b"a", b"b").symlink(b"b", b"d/c").symlink(b"d/c", canary).file(b"a/file")


@hostile()
def through_symlinks_one_step_at_a_time(canary: bytes) -> Archive:
    archive = Archive()
    for index in range(15):
        archive.symlink(b"l/" * index + b"l", b"..")
    return archive.file(b"l/" * 15 + b"canary/file")


@hostile()
def through_a_symlink_with_dot_dot_inside(canary: bytes) -> Archive:
    return Archive().directory(b"a").symlink(b"l", b"a/../../../canary").file(b"l/file")


@hostile()
def through_a_symlink_to_the_root(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"/").file(b"l" + canary + b"/file")


@hostile()
def through_proc_self_root(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"/proc/self/root").file(b"l" + canary + b"/file").symlink(b"m", b"/proc/self/cwd")


@hostile()
def through_a_descriptor_of_the_extractor(canary: bytes) -> Archive:
    archive = Archive()
    for number in range(3, 12):
        archive.symlink(b"l%d" % number, b"/proc/self/fd/%d/.." % number).file(b"l%d/canary/file" % number)
    return archive


@hostile("Too many levels of symbolic links")
def through_a_loop(canary: bytes) -> Archive:
    return Archive().symlink(b"a", b"b").symlink(b"b", b"a").file(b"a/x")


@hostile("Too many levels of symbolic links")
def through_a_link_to_itself(canary: bytes) -> Archive:
    return Archive().symlink(b"a", b"a").directory(b"a/x")


@hostile("Too many levels of symbolic links")
def through_a_chain_of_fifty(canary: bytes) -> Archive:
    archive = Archive()
    for index in range(50):
        archive.symlink(b"l%d" % index, b"l%d" % (index + 1))
    return archive.file(b"l0/x")


@hostile("has no target")
def a_symlink_to_nothing(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"")


@hostile("File name too long|a name of more than")
def a_symlink_to_five_thousand_bytes(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"t" * 5000)


@hostile()
def a_file_in_place_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary + b"/file").file(b"l", b"overwritten", mode=0o777)


@hostile()
def a_directory_in_place_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).directory(b"l", mode=0o777, uid=7, pax=XATTRS).file(b"l/file")


@hostile()
def a_directory_with_a_slash_in_place_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).directory(b"l/", mode=0o777, uid=7, mtime=7).file(b"l/file")


@hostile()
def a_device_in_place_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary + b"/file").node(b"l", b"3", 1, 3, mode=0o666, uid=7)


@hostile()
def a_fifo_in_place_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary + b"/file").node(b"l", b"6", mode=0o666, uid=7)


@hostile()
def attributes_of_a_symlink(canary: bytes) -> Archive:
    records = {b"SCHILY.xattr.trusted.evil": b"1"}
    return Archive().symlink(b"l", canary + b"/file", uid=7, gid=7, mtime=7, mode=0o777, pax=records)


@hostile()
def user_attributes_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary + b"/file", pax=XATTRS)


@hostile()
def a_symlink_in_place_of_a_full_directory(canary: bytes) -> Archive:
    return Archive().file(b"d/e/f").symlink(b"d", canary).file(b"d/file").file(b"d/dir/f")


@hostile()
def a_symlink_in_place_of_the_directory_just_written_to(canary: bytes) -> Archive:
    return Archive().file(b"d/one").symlink(b"d", canary).file(b"d/two").file(b"d/file")


@hostile()
def a_symlink_in_place_of_what_another_symlink_leads_to(canary: bytes) -> Archive:
    archive = Archive().file(b"real/one").symlink(b"alias", b"real").file(b"alias/two")
    return archive.symlink(b"real", canary).file(b"alias/file").file(b"alias/dir/new")


@hostile()
def a_symlink_in_place_of_an_ancestor(canary: bytes) -> Archive:
    return Archive().file(b"a/b/c/d/f").symlink(b"a/b", canary).file(b"a/b/c/d/f").file(b"a/b/file")


@hostile()
def back_and_forth(canary: bytes) -> Archive:
    archive = Archive()
    for _ in range(5):
        archive.directory(b"x").file(b"x/file").symlink(b"x", canary).file(b"x/file").file(b"x")
    return archive


@hostile()
def a_symlink_from_a_pax_header(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"fine", pax={b"linkpath": canary}).file(b"l/file")


@hostile()
def a_symlink_from_a_gnu_long_link(canary: bytes) -> Archive:
    return Archive().raw(long_name(canary, b"K")).symlink(b"l", b"fine").file(b"l/file")


# -- hard links -----------------------------------------------------------------------------------------------------


@hostile(OUT)
def a_hard_link_by_dot_dot(canary: bytes) -> Archive:
    return Archive().hard(b"h", b"../../canary/file").file(b"h", b"overwritten")


@hostile("which is not in front of it")
def a_hard_link_by_an_absolute_name(canary: bytes) -> Archive:
    return Archive().hard(b"h", canary + b"/file").file(b"h", b"overwritten")


@hostile("which is not in front of it")
def a_hard_link_through_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).hard(b"h", b"l/file").file(b"h", b"overwritten")


@hostile("which is not in front of it")
def a_hard_link_through_proc(canary: bytes) -> Archive:
    return Archive().symlink(b"l", b"/proc/self/root" + canary).hard(b"h", b"l/file")


@hostile()
def a_hard_link_to_a_symlink_then_a_file(canary: bytes) -> Archive:
    return Archive().symlink(b"s", canary + b"/file").hard(b"h", b"s").file(b"h", b"overwritten", mode=0o777)


@hostile()
def a_hard_link_to_a_symlink_then_below_it(canary: bytes) -> Archive:
    return Archive().symlink(b"s", canary).hard(b"h", b"s").file(b"h/file").directory(b"h", mode=0o777)


@hostile()
def a_hard_link_to_a_symlink_with_attributes(canary: bytes) -> Archive:
    return Archive().symlink(b"s", canary + b"/file").hard(b"h", b"s", uid=7, mode=0o4777, mtime=7, pax=XATTRS)


@hostile("leads to the directory")
def a_hard_link_to_a_directory(canary: bytes) -> Archive:
    return Archive().directory(b"d").hard(b"h", b"d")


@hostile("can't lead to the root directory")
def a_hard_link_to_the_root(canary: bytes) -> Archive:
    return Archive().hard(b"h", b"/")


@hostile("can't lead to the root directory")
def a_hard_link_to_nothing(canary: bytes) -> Archive:
    return Archive().hard(b"h", b"")


@hostile(OUT)
def a_hard_link_from_a_pax_header(canary: bytes) -> Archive:
    return Archive().file(b"a").hard(b"h", b"a", pax={b"linkpath": b"../../canary/file"})


@hostile()
def a_hard_link_in_place_of_a_symlink(canary: bytes) -> Archive:
    return Archive().file(b"a").symlink(b"l", canary + b"/file").hard(b"l", b"a").file(b"l", b"overwritten")


# -- whiteouts ------------------------------------------------------------------------------------------------------


@hostile()
def a_whiteout_through_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).file(b"l/.wh.file").file(b"l/.wh.dir").file(b"l/.wh..wh..opq")


@hostile()
def an_opaque_marker_through_a_symlinked_ancestor(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).file(b"l/dir/.wh..wh..opq").file(b"l/dir/.wh.inner")


@hostile()
def a_whiteout_of_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).file(b".wh.l").file(b"l/file")


@hostile()
def a_whiteout_then_a_symlink_of_its_name(canary: bytes) -> Archive:
    return Archive().file(b".wh.l").symlink(b"l", canary).file(b"l/file").file(b"l/.wh.dir")


@hostile("the whiteout hides no name")
def a_whiteout_of_nothing(canary: bytes) -> Archive:
    return Archive().file(b"d/.wh.")


@hostile("the whiteout hides no name")
def a_whiteout_of_dot(canary: bytes) -> Archive:
    return Archive().file(b"d/.wh..")


@hostile("the whiteout hides no name")
def a_whiteout_of_dot_dot(canary: bytes) -> Archive:
    return Archive().file(b"d/.wh...")


@hostile("called like a whiteout")
def below_a_whiteout(canary: bytes) -> Archive:
    return Archive().directory(b".wh.d").file(b".wh.d/f")


@hostile()
def whiteouts_of_every_type(canary: bytes) -> Archive:
    archive = Archive().symlink(b".wh.s", canary).directory(b".wh.d", mode=0o777).hard(b".wh.h", canary + b"/file")
    return archive.node(b".wh.n", b"3", 1, 3).symlink(b"d/.wh..wh..opq", canary)


# -- types ----------------------------------------------------------------------------------------------------------


@hostile("Not a directory")
def below_a_file(canary: bytes) -> Archive:
    return Archive().file(b"f").file(b"f/g")


@hostile("Not a directory")
def below_a_fifo(canary: bytes) -> Archive:
    return Archive().node(b"f", b"6").file(b"f/g")


@hostile("Not a directory")
def below_a_device(canary: bytes) -> Archive:
    return Archive().node(b"f", b"3", 1, 3).directory(b"f/g")


@hostile("there is no device|Invalid argument")
def a_device_that_does_not_exist(canary: bytes) -> Archive:
    return Archive().node(b"f", b"4", 2**20, 2**20)


@hostile()
def devices_are_made_and_never_opened(canary: bytes) -> Archive:
    return Archive().node(b"tape", b"3", 9, 0).node(b"disk", b"4", 8, 0, mode=0o666).node(b"tty", b"3", 5, 0)


@hostile()
def a_sparse_file_in_place_of_a_symlink(canary: bytes) -> Archive:
    records = {b"GNU.sparse.size": b"4096", b"GNU.sparse.map": b"0,512", b"GNU.sparse.name": b"l"}
    return Archive().symlink(b"l", canary + b"/file").raw(pax(records)).file(b"ignored", b"x" * 512)


@hostile()
def redirections_of_overlayfs(canary: bytes) -> Archive:
    names = (b"redirect", b"metacopy", b"origin", b"upper", b"impure", b"opaque", b"nlink", b"protattr", b"whiteout")
    records = {b"SCHILY.xattr.trusted.overlay." + name: canary for name in names}
    records |= {b"SCHILY.xattr.user.overlay." + name: canary for name in names}
    return Archive().directory(b"d", pax=records).file(b"f", pax=records)


@hostile("Numerical result out of range")
def an_attribute_with_a_name_too_long(canary: bytes) -> Archive:
    return Archive().file(b"f", pax={b"SCHILY.xattr.user." + b"n" * 300: b"evil"})


@hostile("Argument list too long|No space left")
def an_attribute_with_a_value_too_long(canary: bytes) -> Archive:
    return Archive().file(b"f", pax={b"SCHILY.xattr.user.evil": b"v" * 70000})


@hostile()
def dot_dot_in_a_header_for_all(canary: bytes) -> Archive:
    return (
        Archive().raw(pax({b"path": b"../../canary/file", b"linkpath": canary}, b"g")).file(b"fine").symlink(b"l", b"x")
    )


@hostile(OUT)
def two_names_of_which_the_last_leads_out(canary: bytes) -> Archive:
    return Archive().raw(long_name(b"fine")).file(b"too", pax={b"path": UP + canary + b"/file"})


@hostile(OUT)
def a_hard_link_from_a_gnu_long_link(canary: bytes) -> Archive:
    return Archive().file(b"fine").raw(long_name(UP + canary + b"/file", b"K")).hard(b"h", b"fine").file(b"h", b"evil")


@hostile()
def a_fifo_through_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).node(b"l/made", b"6").node(b"l/fifo", b"6", mode=0o777)


@hostile()
def a_device_through_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).node(b"l/made", b"3", 1, 3).node(b"l/file", b"4", 7, 0)


@hostile()
def a_symlink_through_a_symlink(canary: bytes) -> Archive:
    return Archive().symlink(b"l", canary).symlink(b"l/link", b"elsewhere").symlink(b"l/dir/made", b"file")


# -- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree beside the target; it must be the same at the end, and nothing else may have appeared."""
    canary = tmp_path / "canary"
    (canary / "dir/inner").mkdir(parents=True)
    (canary / "file").write_text("canary")
    (canary / "dir/inner/file").write_text("inner")
    (canary / "link").symlink_to("file")
    os.setxattr(canary / "file", "user.canary", b"yes")
    os.mkfifo(canary / "fifo")
    os.utime(canary / "file", ns=(1, 1))
    before = trees.describe(canary)
    yield canary
    assert trees.describe(canary) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"canary", "target", "snapshots"}


def extract(directory: Path, data: bytes) -> None:
    for name in ("fs", "trash"):
        (directory / name).mkdir(parents=True)
    root, trash = (os.open(directory / name, removal.DIRECTORY_FLAGS) for name in ("fs", "trash"))
    try:
        Extraction(root, trash, "the layer").run(Reader(archives.source(data), "the layer"))
    finally:
        os.close(root)
        os.close(trash)


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert len(CASES) >= 80


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("repeated", [1, 3])
def test_nothing_outside_changes(canary: Path, tmp_path: Path, name: str, repeated: int) -> None:
    make, refused = CASES[name]
    data = b"".join(bytes(make(os.fsencode(canary)))[:-1024] for _ in range(repeated))
    if refused:
        with pytest.raises(Invalid, match=refused):
            extract(tmp_path / "target", data)
    else:
        extract(tmp_path / "target", data)
        assert any((tmp_path / "target/fs").iterdir())


def test_what_is_not_refused_lies_where_it_seems_to_lie(canary: Path, tmp_path: Path) -> None:
    make, _ = CASES["through an absolute symlink"]
    extract(tmp_path / "target", bytes(make(os.fsencode(canary))))
    inside = tmp_path / "target/fs" / str(canary).lstrip("/")
    assert {path.name for path in inside.iterdir()} == {"file", "new", "dir"}
    assert (tmp_path / "target/fs/l").readlink() == canary


def test_a_replaced_symlink_is_a_file_of_its_own(canary: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a file in place of a symlink", "a hard link to a symlink then a file")):
        make, _ = CASES[name]
        extract(tmp_path / "target" / str(number), bytes(make(os.fsencode(canary))))
        made = tmp_path / "target" / str(number) / "fs" / ("l" if number == 0 else "h")
        assert stat.S_ISREG(made.lstat().st_mode)
        assert made.read_text() == "overwritten"


def split_layers(data: bytes) -> Iterator[list[bytes]]:
    """Yield the archive as two layers, cut in front of each member."""
    reader = Reader(archives.source(data), "the layer")
    starts = []
    try:
        for _ in reader:
            starts.append(reader._source.taken)  # just behind the member's header
    except Invalid:
        pass
    for cut in starts[1:]:
        at = cut - 512
        while at >= 512 and data[at - 512 + 156 : at - 512 + 157] in (b"x", b"L", b"K"):
            at -= 512
        yield [data[:at] + bytes(1024), data[at:]]


@pytest.mark.parametrize("name", CASES)
def test_nothing_outside_changes_across_layers(canary: Path, tmp_path: Path, name: str) -> None:
    make, _ = CASES[name]
    data = bytes(make(os.fsencode(canary)))
    snapshots = Snapshots(str(tmp_path / "snapshots"))
    for number, layers in enumerate(split_layers(data)):
        parts = [(Digest.of(layer), lambda layer=layer: io.BytesIO(layer)) for layer in layers]
        try:
            chain = snapshots.unpack(parts)
            snapshots.prepare(f"c{number}", chain)
            snapshots.remove(f"c{number}")
        except OrlopError:
            pass
        assert os.listdir(tmp_path / "snapshots/trash") == os.listdir(tmp_path / "snapshots/unpacking") == []
    snapshots.close()


@pytest.mark.parametrize("name", sorted(CASES)[::4])
def test_nothing_outside_changes_when_several_unpack_at_once(canary: Path, tmp_path: Path, name: str) -> None:
    make, refused = CASES[name]
    data = bytes(make(os.fsencode(canary)))
    results: list[object] = []

    def unpack() -> None:
        snapshots = Snapshots(str(tmp_path / "snapshots"))
        try:
            results.append(snapshots.unpack([(Digest.of(data), lambda: io.BytesIO(data))]))
        except (Invalid, NotFound) as error:
            results.append(type(error))
        snapshots.close()

    threads = [threading.Thread(target=unpack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Invalid if refused else Digest.of(data)] * 4
    assert len(os.listdir(tmp_path / "snapshots/layers")) == (0 if refused else 1)
    assert os.listdir(tmp_path / "snapshots/unpacking") == []
