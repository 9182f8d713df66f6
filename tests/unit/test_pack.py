"""Trees into archives: read back by Python's tarfile and by our own extractor; layers of several trees seen as one."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from orlop.snapshot.difference import compare
from orlop.snapshot.extract import Extraction, Rules
from orlop.snapshot.layered import open_layers
from orlop.snapshot.pack import HOLE_BYTES_MIN, Packer
from orlop.snapshot.rebase import Rebased
from orlop.spec.errors import Invalid
from orlop.spec.tar import Reader

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs: root")


def packed(path: Path, name: bytes = b".", **options: object) -> bytes:
    out = io.BytesIO()
    packer = Packer(out.write, **options)  # type: ignore[arg-type]
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        packer.add(fd, name)
    finally:
        os.close(fd)
    packer.finish()
    assert packer.bytes == len(out.getvalue())
    return out.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def extract(data: bytes, target: Path, rename: tuple[bytes, bytes] | None = None) -> None:
    reader = Reader(io.BytesIO(data).read, "the archive")
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        source = Rebased(reader, *rename) if rename else reader
        Extraction(root, -1, "the archive", rules=Rules(layer=False, owner=(-1, -1))).run(source)
    finally:
        os.close(root)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "dir/empty").mkdir(parents=True)
    (top / "file").write_bytes(b"x" * 1000)
    (top / "dir/hard").hardlink_to(top / "file")
    (top / "link").symlink_to("nowhere")
    (top / ("n" * 200)).write_text("long")
    with (top / "holes").open("wb") as file:
        file.write(b"a" * 4096)
        file.seek(8 * HOLE_BYTES_MIN)
        file.write(b"z")
    os.mkfifo(top / "fifo")
    os.setxattr(top / "file", "user.note", b"\0\xff=\n")
    os.utime(top / "file", ns=(0, 1_234_567_890_123_456_789))
    return top


def test_what_goes_in_comes_out(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    extract(packed(tree), out)
    assert (out / "file").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.getxattr(out / "file", "user.note") == b"\0\xff=\n"
    assert os.path.samestat((out / "file").stat(), (out / "dir/hard").stat())
    assert os.readlink(out / "link") == "nowhere" and stat.S_ISFIFO((out / "fifo").lstat().st_mode)
    assert (out / "holes").read_bytes() == (tree / "holes").read_bytes()
    assert (out / "holes").stat().st_blocks * 512 < HOLE_BYTES_MIN
    assert (out / ("n" * 200)).read_text() == "long" and (out / "dir/empty").is_dir()


def test_pythons_own_reader_agrees(tree: Path) -> None:
    data = packed(tree, b"top")
    found = members(data)
    assert list(found) == sorted(found, key=lambda name: name.split("/")) and found["top/dir/hard"].isreg()
    assert found["top/file"].linkname == "top/dir/hard" and found["top/file"].islnk()
    assert found["top/holes"].issparse() and found["top/holes"].size == (tree / "holes").stat().st_size
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        content = archive.extractfile("top/holes")
        assert content is not None and content.read() == (tree / "holes").read_bytes()


def test_the_same_tree_gives_the_same_bytes(tree: Path) -> None:
    assert packed(tree) == packed(tree)


def test_a_file_alone_and_a_link_alone(tree: Path) -> None:
    assert list(members(packed(tree / "file", b"new"))) == ["new"]
    assert members(packed(tree / "link", b"new"))["new"].linkname == "nowhere"


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep"
    path.mkdir()
    fds = [os.open(path, os.O_RDONLY)]
    for _ in range(300):
        os.mkdir("d", dir_fd=fds[-1])
        fds.append(os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[-1]))
    try:
        with pytest.raises(Invalid, match="directories deep"):
            packed(path)
    finally:
        for fd in reversed(fds[:-1]):
            os.rmdir("d", dir_fd=fd)
        for fd in fds:
            os.close(fd)


def test_a_file_that_shrinks_keeps_its_announced_size(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    out = bytearray()

    def write(data: bytes) -> None:
        if not out:
            os.truncate(tmp_path / "f", 300_000 - 100_000)
        out.extend(data)

    packer = Packer(write)
    fd = os.open(tmp_path / "f", os.O_PATH)
    packer._emit(b"")
    packer.add(fd, b"f")
    os.close(fd)
    packer.finish()
    with tarfile.open(fileobj=io.BytesIO(bytes(out))) as archive:
        assert archive.getmember("f").size == 300_000


# -- names ----------------------------------------------------------------------------------------------------------


def test_rebasing_renames_the_first_component_and_links(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    extract(packed(tree, b"tree"), out, (b"tree", b"new"))
    assert (out / "new/file").stat().st_nlink == 2 and not (out / "tree").exists()
    extract(packed(tree), out, (b".", b"below/it"))
    assert (out / "below/it/file").stat().st_nlink == 2


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_a_name_that_leads_out_is_refused_before_it_gets_a_prefix(tmp_path: Path, name: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(Invalid, match="leads out"):
        extract(raw.getvalue(), tmp_path, (b".", b"deep/down"))


def test_a_directory_and_something_else_never_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "a/d/full").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/d").write_text("file")
    with pytest.raises(Invalid, match="cannot overwrite non-directory with directory"):
        extract(packed(tmp_path / "a"), tmp_path / "b")
    with pytest.raises(Invalid, match="cannot overwrite directory with non-directory"):
        extract(packed(tmp_path / "b"), tmp_path / "a")
    assert (tmp_path / "a/d/full").is_dir() and (tmp_path / "b/d").read_text() == "file"


# -- layers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, str]:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for path in (upper / "both", upper / "opaque", lower / "both", lower / "opaque", lower / "etc"):
        path.mkdir(parents=True)
    for path in ("both/low", "both/gone", "both/same", "opaque/hidden", "etc/hosts", "file"):
        (lower / path).write_text("lower")
    for path in ("both/up", "both/same", "opaque/new"):
        (upper / path).write_text("upper")
    os.mknod(upper / "both/gone", stat.S_IFCHR, 0)
    os.mknod(upper / "file", stat.S_IFCHR, 0)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "both", "trusted.overlay.origin", b"secret")
    return str(upper), str(lower)


@root_only
def test_layers_are_seen_as_overlayfs_shows_them(layers: tuple[str, str]) -> None:
    out = io.BytesIO()
    packer = Packer(out.write)
    packer.add_directory(open_layers(layers), b".")
    packer.finish()
    found = members(out.getvalue())
    assert set(found) == {".", "both", "both/low", "both/same", "both/up", "etc", "etc/hosts", "opaque", "opaque/new"}
    assert found["both/same"].size == 5 and set(found["both"].pax_headers) == {"mtime"}


@root_only
def test_a_layer_has_the_marks_of_the_oci(layers: tuple[str, str]) -> None:
    found = members(packed(Path(layers[0]), whiteouts=True))
    assert {"both/.wh.gone", ".wh.file", "opaque/.wh..wh..opq"} <= set(found)
    assert found[".wh.file"].isreg() and found[".wh.file"].size == 0
    assert not any("overlay" in key for member in found.values() for key in member.pax_headers)


@root_only
def test_the_difference_of_layers(layers: tuple[str, str]) -> None:
    found = compare(layers[0], layers[1:])
    assert [f"{kind} {path.decode()}" for kind, path in found.changes] == [
        "C both", "D both/gone", "C both/same", "A both/up", "D file", "C opaque", "D opaque/hidden", "A opaque/new",
    ]  # fmt: skip


@root_only
def test_what_was_made_to_mount_on_does_not_count(layers: tuple[str, str]) -> None:
    upper = Path(layers[0])
    (upper / "etc").mkdir()
    (upper / "etc/hosts").write_text("")
    (upper / "run/secrets").mkdir(parents=True)
    (upper / "run/secrets/one").write_text("")
    targets = {b"etc/resolv.conf", b"etc/hosts", b"run/secrets/one"}
    (upper / "etc/resolv.conf").write_text("")
    found = compare(layers[0], layers[1:], targets)
    paths = {path for _, path in found.changes}
    assert b"etc/hosts" in paths and b"etc" in paths, "it was there before: somebody changed it"
    assert b"etc/resolv.conf" not in paths and not any(path.startswith(b"run") for path in paths)
    assert {b"etc/resolv.conf", b"run", b"run/secrets", b"run/secrets/one"} <= found.made
    assert "run/secrets/one" not in members(packed(upper, omit=found.made))
