"""remove_in_place: whole trees below one descriptor, without a place of our own on their file system."""

import os

import pytest

from orlop.snapshot import removal


@pytest.fixture
def parent(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def nested(depth):
    fd = os.open(".", os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to("/"), os.mkdir])
def test_one_thing_goes(tmp_path, parent, make):
    make(tmp_path / "x")
    removal.remove_in_place(parent, b"x")
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_no_error(parent):
    removal.remove_in_place(parent, "x")


def test_a_tree_goes_and_what_its_links_lead_to_stays(tmp_path, parent):
    (tmp_path / "kept/in").mkdir(parents=True)
    for name in ("x/a/b", "x/c/d/e", "x/f"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
        (tmp_path / name / "link").symlink_to(tmp_path / "kept")
    os.chmod(tmp_path / "x/f", 0)
    before = len(os.listdir("/proc/self/fd"))
    removal.remove_in_place(parent, "x")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "in"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_that_is_too_deep_is_refused(tmp_path, parent, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    nested(removal.IN_PLACE_DEPTH_MAX + 5)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="too long"):
        removal.remove_in_place(parent, "x")
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_is_filled_while_it_is_emptied_ends(tmp_path, parent, monkeypatch):
    """Whoever fills it faster than we empty it makes the copy fail; the engine does not turn for ever."""
    monkeypatch.setattr(removal, "IN_PLACE_ENTRIES_MAX", 50)
    (tmp_path / "x").mkdir()
    for number in range(60):
        (tmp_path / f"x/{number}").write_text("")
    with pytest.raises(OSError, match="not empty"):
        removal.remove_in_place(parent, "x")
