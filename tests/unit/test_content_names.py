"""index.json: names that other tools find, one writer at a time, readers without a lock."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from orlop.content import Store
from orlop.content.names import Names
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.image import OCI_MANIFEST, Descriptor
from orlop.spec.reference import Reference


def target(text: str) -> Descriptor:
    return Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(text.encode()), size=1)


def name(text: str) -> Reference:
    return Reference.parse(text).tagged()


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Store(str(tmp_path / "content")).names


def index(names: Names) -> list[dict[str, object]]:
    entries = json.loads(Path(names._path).read_text())["manifests"]
    assert isinstance(entries, list)
    return entries


def known(names: Names) -> dict[str, str]:
    return {str(found.familiar) if found else "": descriptor.digest.short for found, descriptor in names.entries()}


def test_a_name_is_written_for_skopeo_and_for_containerd(names: Names) -> None:
    names.put(name("debian"), target("a"))
    (entry,) = index(names)
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "debian:latest",
        "io.containerd.image.name": "docker.io/library/debian:latest",
    }
    found = names.get(name("debian"))
    assert found is not None
    assert found.digest == target("a").digest
    assert names.get(name("debian:12")) is None


def test_a_name_that_moves_leaves_its_image_a_place(names: Names) -> None:
    names.put(name("x"), target("a"))
    names.put(name("x"), target("b"))
    assert known(names) == {"": target("a").digest.short, "x:latest": target("b").digest.short}
    names.put(name("y"), target("a"))
    assert known(names) == {"x:latest": target("b").digest.short, "y:latest": target("a").digest.short}


def test_a_name_that_moves_leaves_no_second_place(names: Names) -> None:
    names.put(name("x"), target("a"))
    names.put(name("y"), target("a"))
    names.put(name("x"), target("b"))
    assert known(names) == {"y:latest": target("a").digest.short, "x:latest": target("b").digest.short}


def test_the_same_again_changes_nothing(names: Names) -> None:
    for _ in range(3):
        names.put(name("x"), target("a"))
        names.put(None, target("a"))
    assert known(names) == {"x:latest": target("a").digest.short}


def test_what_was_displaced_can_be_dropped(names: Names) -> None:
    names.put(name("x"), target("a"))
    names.put(name("x"), target("b"), keep_displaced=False)
    assert known(names) == {"x:latest": target("b").digest.short}


def test_remove(names: Names) -> None:
    names.put(name("x"), target("a"))
    names.put(name("y"), target("a"))
    assert names.remove(name("x")).digest == target("a").digest
    assert known(names) == {"y:latest": target("a").digest.short}
    with pytest.raises(NotFound, match="No such image: x:latest"):
        names.remove(name("x"))


def test_names_that_other_tools_wrote(names: Names) -> None:
    texts = ["foreign:1", "docker.io/library/other:2", "latest", "Not A Name", ""]
    manifests = [
        {**target(text).to_json(), "annotations": {"org.opencontainers.image.ref.name": text, "x": "y"}}
        for text in texts
    ]
    Path(names._path).write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    assert set(known(names)) == {"foreign:1", "other:2", "latest:latest", ""}
    names.put(name("foreign:1"), target("b"))
    assert index(names)[-1]["annotations"] == {
        "org.opencontainers.image.ref.name": "foreign:1",
        "io.containerd.image.name": "docker.io/library/foreign:1",
    }
    assert {"x": "y"} in [entry.get("annotations") for entry in index(names)]


@pytest.mark.parametrize(
    ("short", "full", "expected"),
    [
        ("two:latest", "docker.io/library/one:latest", "two:latest"),
        ("latest", "example.com/one:latest", "example.com/one:latest"),
        ("", "example.com/one:1", "example.com/one:1"),
        ("example.com/one:1", "not a name", "example.com/one:1"),
        ("Not A Name", "example.com/one:1", ""),
    ],
)
def test_the_full_name_counts_where_the_short_one_agrees(names: Names, short: str, full: str, expected: str) -> None:
    annotations = {"org.opencontainers.image.ref.name": short, "io.containerd.image.name": full}
    manifests = [{**target("a").to_json(), "annotations": annotations}]
    Path(names._path).write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    assert list(known(names)) == [expected]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schemaVersion": 2}', '{"schemaVersion":2,"manifests":[{}]}', "\0"])
def test_a_broken_index_is_said_and_not_overwritten(names: Names, text: str) -> None:
    Path(names._path).write_text(text)
    with pytest.raises(Invalid, match=r"index\.json"):
        names.entries()
    with pytest.raises(Invalid, match=r"index\.json"):
        names.put(name("x"), target("a"))
    assert Path(names._path).read_text() == text


def test_an_index_that_is_no_file_is_not_waited_for(names: Names) -> None:
    """Red: with open() a fifo hangs every command that names an image."""
    os.unlink(names._path)
    os.mkfifo(names._path)
    with pytest.raises(Unavailable, match=r"index\.json"):
        names.entries()


def test_writers_do_not_lose_each_others_names(names: Names) -> None:
    def put(worker: int) -> None:
        mine = Names(names._root)
        for number in range(10):
            mine.put(name(f"n{worker}-{number}"), target(f"{worker} {number}"))

    threads = [threading.Thread(target=put, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names.entries()) == 60


def test_readers_do_not_wait_for_a_writer(names: Names) -> None:
    names.put(name("x"), target("a"))
    lock = os.open(names._root, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert set(known(names)) == {"x:latest"}
    finally:
        os.close(lock)
