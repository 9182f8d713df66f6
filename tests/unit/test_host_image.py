"""The image `host`: made once, the same each time, made anew when this host has changed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.content import Store
from orlop.image import Images, host
from orlop.image.closure import SEARCH_PATH
from orlop.spec.errors import NotFound
from support.archives import Archive


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    images = Images(Store(str(tmp_path_factory.mktemp("host") / "content")))
    host.ensure(images)
    return images


@pytest.fixture
def fresh(tmp_path: Path) -> Images:
    return Images(Store(str(tmp_path / "content")))


def members(images: Images) -> dict[str, tarfile.TarInfo]:
    (layer,) = host.ensure(images).layers
    with tarfile.open(images.store.path(layer.descriptor.digest)) as archive:
        return {info.name: info for info in archive}


def record(images: Images) -> Path:
    return Path(images.store.root) / host.RECORD_FILE


def test_what_the_image_says(images: Images) -> None:
    image = images.resolve("host")
    assert image.names == ("host:latest",)
    assert image.config.config.cmd in (("bash",), ("sh",))
    assert image.config.config.env == ("PATH=" + ":".join(SEARCH_PATH),)
    assert image.created == "1970-01-01T00:00:00Z"


def test_what_is_in_it(images: Images) -> None:
    found = members(images)
    names = {os.path.basename(name) for name in found}
    assert names >= {"sh", "ls", "cat", "id", "env", "hostname", "grep", "sed", "isolation", "passwd", "group"}
    assert found["tmp"].mode == 0o1777
    assert found["root"].mode == 0o700
    assert {found[name].type for name in ("proc", "sys", "dev", "etc")} == {tarfile.DIRTYPE}
    assert found["usr/bin/isolation"].mode == 0o755


def test_it_is_sorted_owned_by_root_and_of_1970(images: Images) -> None:
    found = members(images)
    assert list(found) == sorted(found, key=os.fsencode)
    assert {(info.uid, info.gid, info.mtime) for info in found.values()} == {(0, 0, 0)}
    assert not [name for name, info in found.items() if info.mode & 0o6000]


def test_every_name_has_its_parents_and_every_link_its_target(images: Images) -> None:
    found = members(images)

    def resolve(name: str, depth: int = 0) -> str:
        """Return where a name leads inside the archive alone."""
        assert depth < 40, name
        parts = name.strip("/").split("/")
        for index in range(len(parts)):
            prefix = "/".join(parts[: index + 1])
            info = found.get(prefix)
            assert info is not None, f"{prefix} of {name} is missing"
            if info.issym():
                target = os.path.normpath(
                    os.path.join("/" + os.path.dirname(prefix), info.linkname, *parts[index + 1 :])
                )
                return resolve(target, depth + 1)
        return "/".join(parts)

    for name, info in found.items():
        parent = os.path.dirname(name)
        assert not parent or found[resolve(parent)].isdir()
        if info.issym():
            resolve(name)


def test_the_second_time_nothing_is_made(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> object:
        raise AssertionError("made again")

    monkeypatch.setattr(host, "_collect", never)
    assert host.ensure(images) == images.resolve("host")


def test_the_same_files_make_the_same_image(images: Images, fresh: Images) -> None:
    assert host.ensure(fresh).id == host.ensure(images).id
    record(fresh).unlink()
    assert host.ensure(fresh).id == host.ensure(images).id
    assert record(fresh).exists()
    assert len(fresh.list()) == 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: (path / "file").write_text("longer than before"),
    "time": lambda path: os.utime(path / "file", ns=(1, 1)),
    "another file of the same size and time": lambda path: replace_unnoticed(path / "file"),
    "removed": lambda path: (path / "file").unlink(),
    "a new program": lambda path: (path / "directory/new").write_text(""),
}


def replace_unnoticed(path: Path) -> None:
    info = path.stat()
    path.with_name("new").write_text("y" * info.st_size)
    os.utime(path.with_name("new"), ns=(info.st_atime_ns, info.st_mtime_ns))
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_makes_it_anew(
    fresh: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """One more file and directory are watched; what happens to them is what apt does to /usr/bin."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    host.ensure(fresh)
    document = json.loads(record(fresh).read_text())
    document["watched"] += [f"{tmp_path}/file", f"{tmp_path}/directory"]
    document["state"] = host._state(tuple(document["watched"]))
    record(fresh).write_text(json.dumps(document))
    made: list[int] = []
    real = host._collect
    monkeypatch.setattr(host, "_collect", lambda: made.append(1) or real())
    host.ensure(fresh)
    assert made == []
    CHANGES[change](tmp_path)
    host.ensure(fresh)
    host.ensure(fresh)
    assert made == [1]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"manifest": "x", "watched": []}'])
def test_a_damaged_record_is_only_a_lost_cache(fresh: Images, damage: str) -> None:
    image = host.ensure(fresh)
    record(fresh).write_text(damage)
    assert host.ensure(fresh).id == image.id


def test_an_image_that_the_user_calls_host_is_left_alone(fresh: Images) -> None:
    own = fresh.import_tar(io.BytesIO(bytes(Archive().file(b"mine"))), "host")
    record(fresh).write_text("")
    assert host.ensure(fresh).id == own.id
    fresh.untag("host")
    assert host.ensure(fresh).id != own.id
    fresh.import_tar(io.BytesIO(bytes(Archive().file(b"mine"))), "host")
    assert host.ensure(fresh).layers[0].diff_id == own.layers[0].diff_id


def test_a_lost_blob_is_made_again(fresh: Images) -> None:
    image = host.ensure(fresh)
    fresh.store.remove(image.layers[0].descriptor.digest)
    fresh.store.remove(image.id)
    assert host.ensure(fresh).id == image.id
    assert fresh.store.stat(image.layers[0].descriptor.digest) is not None


def test_a_host_without_a_shell_is_told_what_to_do(fresh: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PROGRAMS", ("no-such-program",))
    with pytest.raises(NotFound, match="no shell") as missing:
        host.ensure(fresh)
    assert "orlop import" in missing.value.hint
    assert fresh.list() == ()
