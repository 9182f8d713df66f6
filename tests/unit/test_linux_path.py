"""Paths below a root, walked by the kernel: links stay inside, nothing is made outside, nothing unfit is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux import path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("outside")
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_PATH)
    yield fd
    os.close(fd)


def where(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "name", ["dir/file", "/dir/file", "//dir/./file", "/../../dir/file", "/dir/sub/../../dir/file"]
)
def test_open_in_root(tree: Path, root: int, name: str) -> None:
    assert where(path.open_in_root(root, name)) == str(tree / "dir/file")


def test_open_in_root_of_nothing_is_the_root(tree: Path, root: int) -> None:
    assert where(path.open_in_root(root, "")) == where(path.open_in_root(root, "/")) == str(tree)


@pytest.mark.parametrize("target", ["/dir/file", "dir/file", "../../../dir/file", "/dir/../../../dir/file"])
def test_links_resolve_as_if_the_root_were_the_hosts(tree: Path, root: int, target: str) -> None:
    (tree / "link").symlink_to(target)
    assert where(path.open_in_root(root, "link")) == str(tree / "dir/file")


def test_magic_links_are_refused(tree: Path, root: int) -> None:
    (tree / "proc").symlink_to("/proc")
    host = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError) as caught:
            path.open_in_root(host, f"/proc/self/fd/{root}")
        assert caught.value.errno == errno.ELOOP and caught.value.filename == f"/proc/self/fd/{root}"
    finally:
        os.close(host)


def test_mkdir_makes_parents_with_the_mode(tree: Path, root: int) -> None:
    umask = os.umask(0)
    try:
        assert where(path.mkdir_in_root(root, "/new/../new/deep/er", 0o750)) == str(tree / "new/deep/er")
    finally:
        os.umask(umask)
    assert (tree / "new/deep").stat().st_mode & 0o7777 == 0o750
    assert where(path.mkdir_in_root(root, "new/deep/er")) == str(tree / "new/deep/er")


@pytest.mark.parametrize("target", ["/made/here", "made/here", "../../made/here"])
def test_mkdir_makes_the_target_of_a_dangling_link(tree: Path, root: int, target: str) -> None:
    (tree / "link").symlink_to(target)
    assert where(path.mkdir_in_root(root, "link/x")) == str(tree / "made/here/x")


@pytest.mark.parametrize("make", [path.mkdir_in_root, path.make_file_in_root])
def test_nothing_is_made_outside(tree: Path, root: int, make: Callable[[int, str], int], tmp_path: Path) -> None:
    (tree / "absolute").symlink_to(tmp_path / "outside")
    (tree / "relative").symlink_to("../outside")
    for name in ("absolute/x", "relative/x", "../outside/x", "dir/../../outside/x"):
        os.close(make(root, name))
    assert [entry.name for entry in (tmp_path / "outside").iterdir()] == ["file"]
    assert (tree / str(tmp_path).lstrip("/") / "outside/x").exists() and (tree / "outside/x").exists()


def test_no_symlinks_refuses_every_link(tree: Path, root: int) -> None:
    (tree / "link").symlink_to("dir")
    (tree / "dangling").symlink_to("nowhere")
    for make in (path.mkdir_in_root, path.make_file_in_root):
        for name in ("link/new", "dangling", "dangling/new"):
            with pytest.raises(OSError) as caught:
                make(root, name, resolve=path.RESOLVE_NO_SYMLINKS)
            assert caught.value.errno == errno.ELOOP
    assert not (tree / "nowhere").exists() and not (tree / "dir/new").exists()


def test_links_in_a_circle_end(tree: Path, root: int) -> None:
    (tree / "one").symlink_to("two")
    (tree / "two").symlink_to("one")
    for make in (path.mkdir_in_root, path.make_file_in_root):
        with pytest.raises(OSError) as caught:
            make(root, "one/x")
        assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way(root: int) -> None:
    with pytest.raises(NotADirectoryError):
        path.mkdir_in_root(root, "dir/file")
    for make in (path.mkdir_in_root, path.make_file_in_root):
        with pytest.raises(NotADirectoryError):
            make(root, "dir/file/x")


def test_make_file_keeps_what_is_there(tree: Path, root: int) -> None:
    (tree / "dangling").symlink_to("/far/away")
    assert where(path.make_file_in_root(root, "dir/file")) == str(tree / "dir/file")
    assert (tree / "dir/file").read_text() == "inside"
    assert where(path.make_file_in_root(root, "dir")) == str(tree / "dir")
    assert where(path.make_file_in_root(root, "new/file")) == str(tree / "new/file")
    assert where(path.make_file_in_root(root, "dangling")) == str(tree / "far/away")
    assert (tree / "far/away").read_bytes() == b""


@pytest.mark.parametrize(("name", "content"), [("dir/file", b"inside"), ("missing", None), ("dir/file/x", None)])
def test_read_in_root(root: int, name: str, content: bytes | None) -> None:
    assert path.read_in_root(root, name, 100) == content


def test_read_in_root_has_a_bound(tree: Path, root: int) -> None:
    (tree / "big").write_bytes(b"x" * 101)
    with pytest.raises(OSError) as caught:
        path.read_in_root(root, "big", 100)
    assert caught.value.errno == errno.EFBIG
    (tree / "big").write_bytes(b"x" * 100)
    assert path.read_in_root(root, "big", 100) == b"x" * 100


def test_read_in_root_never_waits(tree: Path, root: int) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "loop").symlink_to("loop")
    for name, number in (("fifo", errno.EINVAL), ("dir", errno.EINVAL), ("loop", errno.ELOOP)):
        with pytest.raises(OSError) as caught:
            path.read_in_root(root, name, 100)
        assert caught.value.errno == number


def test_no_descriptor_is_left_open(tree: Path, root: int) -> None:
    before = os.listdir("/proc/self/fd")
    (tree / "loop").symlink_to("loop")
    os.mkfifo(tree / "fifo")
    for call in (path.mkdir_in_root, path.make_file_in_root, lambda fd, name: path.read_in_root(fd, name, 3)):
        for name in ("a/b/c", "dir/file/x", "loop/x", "dir/file", "fifo"):
            try:
                made = call(root, name)
            except OSError:
                continue
            if isinstance(made, int):
                os.close(made)
    assert os.listdir("/proc/self/fd") == before
