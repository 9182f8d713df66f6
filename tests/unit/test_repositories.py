"""A registry's repositories: what the sweep takes and leaves, quotas, and pushes that go on while it sweeps."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.image.repositories import Repositories, Rules
from orlop.spec.digest import Digest
from orlop.spec.distribution import Page, RegistryError, parse_content_range, parse_range
from orlop.spec.errors import Conflict
from orlop.spec.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

HOUR_S = 3600.0


@pytest.fixture
def open_root(tmp_path: Path) -> Iterator[object]:
    opened: list[Repositories] = []

    def open_it(**rules: float) -> Repositories:
        opened.append(Repositories(str(tmp_path / "registry"), Rules(**rules)))  # type: ignore[arg-type]
        return opened[-1]

    yield open_it
    for one in opened:
        try:
            one.close()
        except OSError:
            pass  # the test has closed it


def push_blob(repositories: Repositories, name: str, data: bytes) -> Digest:
    upload = repositories.uploads.start(name)
    upload.ingest.write(data)
    repositories.finish(upload, Digest.of(data))
    return Digest.of(data)


def document(config: bytes, *layers: bytes, **more: object) -> bytes:
    parts = [{"mediaType": OCI_LAYER, "digest": Digest.of(data), "size": len(data)} for data in layers]
    head = {"mediaType": OCI_CONFIG, "digest": Digest.of(config), "size": len(config)}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": head, "layers": parts} | more).encode()


def push_image(repositories: Repositories, name: str, tag: str, *layers: bytes, **more: object) -> Digest:
    for data in (b"{}", *layers):
        push_blob(repositories, name, data)
    return repositories.put_manifest(name, tag, OCI_MANIFEST, document(b"{}", *layers, **more)).digest


def blob(repositories: Repositories, name: str, digest: Digest) -> bytes:
    with repositories.open_blob(name, digest) as file:
        return file.read()


def files(repositories: Repositories) -> set[str]:
    return set(os.listdir(f"{repositories.store.root}/blobs/sha256"))


def test_the_sweep_leaves_what_a_tag_leads_to(open_root):
    repositories = open_root(unused_s=0, untagged_s=0)
    digest = push_image(repositories, "app", "1", b"layer")
    before = files(repositories)
    swept = repositories.sweep()
    assert (swept.manifests, swept.links, swept.blobs) == (0, 0, 0)
    assert files(repositories) == before
    assert repositories.manifest("app", digest).data
    assert blob(repositories, "app", Digest.of(b"layer")) == b"layer"


def test_a_deleted_tag_frees_its_bytes_and_no_shared_ones(open_root):
    repositories = open_root(unused_s=0, untagged_s=0)
    push_image(repositories, "app", "1", b"shared", b"one")
    push_image(repositories, "app", "2", b"shared", b"two")
    push_image(repositories, "other", "1", b"one")
    repositories.delete_manifest("app", "2")
    swept = repositories.sweep()
    assert (swept.manifests, swept.links, swept.blobs) == (1, 1, 2)  # the manifest is a file, too
    repositories.delete_manifest("app", "1")
    repositories.sweep()
    assert Digest.of(b"shared").hex not in files(repositories)
    assert Digest.of(b"one").hex in files(repositories)  # of another repository
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        repositories.open_blob("app", Digest.of(b"one"))


def test_by_default_an_untagged_manifest_stays(open_root):
    repositories = open_root(unused_s=0)
    digest = push_image(repositories, "app", "1", b"layer")
    repositories.delete_manifest("app", "1")
    assert repositories.sweep().blobs == 0
    assert repositories.manifest("app", digest)


def test_an_index_and_a_subject_hold_what_they_lead_to(open_root):
    repositories = open_root(unused_s=0, untagged_s=0)
    child = push_image(repositories, "app", "x", b"layer")
    part = {"mediaType": OCI_MANIFEST, "digest": child, "size": len(document(b"{}", b"layer"))}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [part]}).encode()
    top = repositories.put_manifest("app", "1", OCI_INDEX, index).digest
    repositories.delete_manifest("app", "x")
    signature = document(b"{}", b"signature", subject=part)
    push_blob(repositories, "app", b"signature")
    signed = repositories.put_manifest("app", Digest.of(signature), OCI_MANIFEST, signature)
    assert signed.subject == child
    repositories.sweep()
    assert {repositories.manifest("app", digest).digest for digest in (top, child, signed.digest)}
    repositories.delete_manifest("app", "1")
    assert repositories.sweep().manifests == 3
    assert files(repositories) == set()
    assert repositories.names(Page()) == []


def test_a_fresh_blob_waits_for_its_manifest(open_root):
    repositories = open_root()
    push_blob(repositories, "app", b"layer")
    assert repositories.sweep().links == 0
    assert blob(repositories, "app", Digest.of(b"layer")) == b"layer"


def test_a_blob_that_is_looked_for_stays(open_root, monkeypatch):
    repositories = open_root(unused_s=HOUR_S)
    digest = push_blob(repositories, "app", b"layer")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 0.9 * HOUR_S)
    blob(repositories, "app", digest)  # as HEAD: somebody is about to push what needs it
    monkeypatch.setattr(time, "time", lambda: now + 1.5 * HOUR_S)
    assert repositories.sweep().links == 0
    monkeypatch.setattr(time, "time", lambda: now + 2.5 * HOUR_S)
    assert repositories.sweep().links == 1


def test_a_push_is_not_swept_away_under_its_manifest(open_root, monkeypatch):
    """Red: where nothing unused is kept, a sweep between a push's blobs and its manifest made the push fail."""
    repositories = open_root(unused_s=0.0)
    for data in (b"{}", b"layer"):
        push_blob(repositories, "app", data)
    assert repositories.sweep().links == 0
    image = push_image(repositories, "app", "1", b"layer")
    repositories.delete_manifest("app", image)
    assert repositories.sweep().links == 2  # those of a manifest that is gone go at once
    digest = push_blob(repositories, "app", b"layer")
    repositories.open_blob("app", digest, looked_for=True).close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + HOUR_S)
    assert repositories.sweep().links == 1


def test_a_file_that_a_killed_server_left_is_swept(open_root):
    repositories = open_root()
    repositories.store.ingest(b"committed, and killed before its row was written")
    swept = repositories.sweep()
    assert (swept.blobs, swept.bytes) == (1, 48)


def test_a_leased_blob_is_left(open_root):
    repositories = open_root()
    digest = repositories.store.ingest(b"blob").digest
    with repositories._leases.take(digest):
        assert repositories.sweep().blobs == 0
    assert repositories.sweep().blobs == 1


def test_pushes_and_deletes_beside_the_sweep_lose_nothing(open_root):
    repositories = open_root(unused_s=HOUR_S, untagged_s=0)
    over = threading.Event()
    wrong: list[str] = []

    def push(number: int) -> None:
        chance = random.Random(number)
        while not over.is_set():
            layers = [bytes([chance.randrange(6)]) * 100 for _ in range(2)]  # few: they are shared and come back
            name = f"repo{chance.randrange(3)}"
            try:
                digest = push_image(repositories, name, f"tag{number}", *layers)
                for data in layers:
                    if blob(repositories, name, Digest.of(data)) != data:
                        wrong.append("another content")
                repositories.manifest(name, digest)
                if chance.random() < 0.5:
                    repositories.delete_manifest(name, f"tag{number}")
            except RegistryError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    removed = sweeps = 0
    while (removed < 20 or sweeps < 60) and not wrong and any(thread.is_alive() for thread in threads):
        removed += repositories.sweep().blobs
        sweeps += 1
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_quota_counts_each_blob_once(open_root):
    repositories = open_root(quota_bytes=2000)
    push_blob(repositories, "app", b"x" * 900)
    push_blob(repositories, "app", b"x" * 900)
    push_blob(repositories, "app", b"y" * 900)
    with pytest.raises(RegistryError, match="DENIED"):
        push_blob(repositories, "app", b"z" * 900)
    assert Digest.of(b"z" * 900).hex not in files(repositories)
    assert repositories.used_bytes("app") == 1800
    push_blob(repositories, "other", b"z" * 900)
    with pytest.raises(RegistryError, match="DENIED"):
        repositories.mount("app", Digest.of(b"z" * 900), "other")


def test_uploads_are_bounded_and_expire(open_root):
    repositories = open_root(uploads_max=2, upload_s=HOUR_S)
    first = repositories.uploads.start("app")
    repositories.uploads.start("app")
    with pytest.raises(RegistryError, match="TOOMANYREQUESTS"):
        repositories.uploads.start("app")
    first.touched -= 2 * HOUR_S
    repositories.uploads.start("app")
    with pytest.raises(RegistryError, match="BLOB_UPLOAD_UNKNOWN"):
        repositories.uploads.find("app", first.id)
    assert len(os.listdir(f"{repositories.store.root}/ingest")) == 2


def test_an_upload_belongs_to_its_repository(open_root):
    repositories = open_root()
    upload = repositories.uploads.start("app")
    with pytest.raises(RegistryError, match="BLOB_UPLOAD_UNKNOWN"):
        repositories.uploads.find("other", upload.id)


def test_one_process_serves_a_root(open_root):
    open_root()
    with pytest.raises(Conflict, match="another process serves it"):
        open_root()


def test_what_was_told_is_there_after_a_restart(open_root):
    first = open_root()
    digest = push_image(first, "app", "1", b"layer")
    first.close()
    second = open_root()
    assert second.manifest("app", "1").digest == digest
    assert second.tags("app", Page()) == ["1"]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-9", (0, 10)), ("bytes=5-", (5, 100)), ("bytes=-5", (95, 100)), ("bytes=-500", (0, 100)),
        ("bytes=90-500", (90, 100)), ("bytes=9-3", None), ("bytes=1-2,4-5", None), ("lines=1-2", None),
        ("bytes=", None), ("bytes=-", None), ("bytes=a-b", None), ("bytes=1", None), ("", None),
        ("bytes=" + "9" * 400 + "-", None), ("bytes=\u0661-2", None),
    ],
)  # fmt: skip
def test_ranges(header, found):
    assert parse_range(header, 100) == found


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_ranges_that_hold_nothing(header):
    with pytest.raises(RegistryError, match="RANGE_INVALID"):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["", "1", "-", "5-1", "a-b", "1-", "-1", "0x1-2", "9" * 30 + "-" + "9" * 31])
def test_content_ranges_that_are_none(header):
    with pytest.raises(RegistryError, match="BLOB_UPLOAD_INVALID"):
        parse_content_range(header)


def test_content_ranges():
    assert parse_content_range("0-1023") == (0, 1023)
    assert parse_content_range("bytes 5-9/100") == (5, 9)


def test_the_newest_tags_are_kept_and_those_of_a_pattern(open_root, monkeypatch):
    repositories = open_root(unused_s=0, untagged_s=0, keep_last=2, keep_tags=("v*.*",))
    now = time.time()
    for number, tag in enumerate(("a", "v1.0", "b", "c", "d")):
        monkeypatch.setattr(time, "time", lambda number=number: now - 100 + number)
        push_image(repositories, "app", tag, b"layer of " + tag.encode())
        push_image(repositories, "other", "only", b"old")
    monkeypatch.setattr(time, "time", lambda: now)
    swept = repositories.sweep()
    assert (swept.tags, swept.manifests) == (2, 2)
    assert repositories.tags("app", Page()) == ["c", "d", "v1.0"]
    assert repositories.tags("other", Page()) == ["only"]
    assert Digest.of(b"layer of a").hex not in files(repositories)
    assert blob(repositories, "app", Digest.of(b"layer of v1.0"))


def test_who_has_too_much_forgets_what_was_asked_for_longest_ago(open_root, monkeypatch):
    repositories = open_root(total_bytes=4200)
    now = time.time()
    shared = b"s" * 500
    for number in range(3):
        monkeypatch.setattr(time, "time", lambda number=number: now - 1000 + number)
        push_image(repositories, f"app{number}", "1", shared, bytes([number]) * 500)
    assert not repositories.is_crowded
    monkeypatch.setattr(time, "time", lambda: now)
    repositories.touch("app0", repositories.manifest("app0", "1").digest)
    push_image(repositories, "app3", "1", b"x" * 1000)
    assert repositories.is_crowded
    repositories.sweep()
    assert not repositories.is_crowded
    with pytest.raises(RegistryError, match="MANIFEST_UNKNOWN"):
        repositories.manifest("app1", "1")
    assert Digest.of(bytes([1]) * 500).hex not in files(repositories)
    for name, data in (("app0", shared), ("app0", bytes([0]) * 500), ("app3", b"x" * 1000)):
        assert blob(repositories, name, Digest.of(data)) == data
