"""Layers read in part from registries that lie, fail or change: proven bytes or an error, and little memory (P18)."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.engine.lazy import layer as lazy
from orlop.image.parts import ranges as parts
from orlop.image.parts.ranges import Ranges
from orlop.image.registry import client
from orlop.snapshot.skeleton import lay_out
from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.image import Descriptor
from orlop.spec.tar.estargz import TOC_DIGEST, toc_offset
from support.archives import Archive
from support.estargz import packed
from support.pulling import Puller
from support.registries import Content, Registry, Request

LARGE = random.Random(1).randbytes(3_000_000)
SMALL = random.Random(2).randbytes(5000)
TAR = bytes(Archive().directory(b"etc", mode=0o755).file(b"etc/small", SMALL).file(b"etc/large", LARGE))
BLOB, _, TOC = packed(TAR)
END = toc_offset(BLOB[-51:], len(BLOB))


@pytest.fixture
def registry() -> Iterator[Registry]:
    content = Content()
    content.blob(BLOB)
    with Registry(content) as served:
        yield served


@pytest.fixture
def puller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Puller]:
    monkeypatch.setattr(client, "BACKOFF_S", 0.01)
    made = Puller(tmp_path)
    yield made
    made.close()


def ranges_of(puller: Puller, registry: Registry, cancel: threading.Event | None = None) -> Ranges:
    described = Content().blob(BLOB)
    descriptor = Descriptor.from_json({"mediaType": "x", **described, "annotations": {TOC_DIGEST: TOC}}, "a layer")
    return Ranges(puller.store, descriptor, [puller.repository(registry.name)], cancel or threading.Event())


class Opened:
    """The layer as the kernel has it. told: why reads failed."""

    def __init__(self, puller: Puller, ranges: Ranges) -> None:
        self.told: list[str] = []
        toc = lazy.read_toc(ranges)
        self.skeleton = lay_out(puller.snapshots.root, [toc], ())[0]
        self.file = lazy.LayerFile(0, self.skeleton, toc, ranges, lazy.Kept(self.told.append))

    def content(self, path: bytes) -> bytes:
        start, end, _ = next(piece for piece in self.skeleton.pieces if path in piece[2])
        return b"".join(bytes(part) for part in self.file.read(start, end - start))

    def close(self) -> None:
        os.close(self.skeleton.file)


def change(registry: Registry, body: bytes) -> None:
    """Let the registry send other bytes from now on."""
    name = next(iter(registry.content.blobs))
    registry.content.blobs[name] = body


def test_what_is_read_is_what_was_packed(puller: Puller, registry: Registry) -> None:
    ranges = ranges_of(puller, registry)
    opened = Opened(puller, ranges)
    assert opened.content(b"etc/large") == LARGE and opened.content(b"etc/small") == SMALL
    start = opened.skeleton.pieces[0][0]
    whole = b"".join(bytes(part) for part in opened.file.read(0, opened.file.size))
    for offset, count in ((start + 1_048_570, 20), (0, 4096), (start - 3, 9), (opened.file.size - 5, 100)):
        assert b"".join(bytes(part) for part in opened.file.read(offset, count)) == whole[offset : offset + count]
    assert len(whole) == opened.file.size and len(LARGE) < ranges.fetched < 2 * len(BLOB)
    opened.close()


def test_bytes_that_change_between_two_ranges_reach_nobody(puller: Puller, registry: Registry) -> None:
    opened = Opened(puller, ranges_of(puller, registry))
    change(registry, bytes(byte ^ 1 for byte in BLOB[:END]) + BLOB[END:])
    with pytest.raises(OSError) as failed:
        opened.content(b"etc/large")
    assert failed.value.errno == errno.EIO and "damaged" in opened.told[0]
    opened.close()


def test_another_file_in_the_place_of_one_reaches_nobody(puller: Puller, registry: Registry) -> None:
    other, _, _ = packed(TAR.replace(SMALL[:2000], SMALL[:2000][::-1]))
    opened = Opened(puller, ranges_of(puller, registry))
    change(registry, other[: len(BLOB)].ljust(len(BLOB), b"\0"))
    with pytest.raises(OSError):
        opened.content(b"etc/small")
    assert opened.content(b"etc/large") == LARGE  # its members are the same
    opened.close()


def test_another_table_of_contents_is_refused(puller: Puller, registry: Registry) -> None:
    other, _, _ = packed(bytes(Archive().file(b"etc/other", LARGE)))
    change(registry, other[: len(BLOB) - 51].ljust(len(BLOB) - 51, b"\0") + BLOB[-51:])
    with pytest.raises(Invalid):
        Opened(puller, ranges_of(puller, registry))


def test_a_registry_without_ranges_is_told_apart(puller: Puller, registry: Registry) -> None:
    registry.rules.append(lambda request: "blobs" in request.path and request.reply(200, BLOB))
    with pytest.raises(OrlopError, match="gives blobs only whole"):
        ranges_of(puller, registry).read(1000, 2000)


def test_a_range_of_another_place_is_refused(puller: Puller, registry: Registry) -> None:
    def elsewhere(request: Request) -> bool:
        return "blobs" in request.path and request.reply(206, BLOB[:1000], content_range=f"bytes 0-999/{len(BLOB)}")

    registry.rules.append(elsewhere)
    with pytest.raises(Invalid, match="another place"):
        ranges_of(puller, registry).read(parts.BLOCK_BYTES * 2, parts.BLOCK_BYTES * 3)


def test_a_range_that_is_longer_is_refused(puller: Puller, registry: Registry) -> None:
    def long(request: Request) -> bool:
        told = f"bytes 0-{parts.BLOCK_BYTES - 1}/{len(BLOB)}"
        return "blobs" in request.path and request.reply(206, BLOB[: parts.BLOCK_BYTES + 100], content_range=told)

    registry.rules.append(long)
    with pytest.raises(Invalid, match="more than"):
        ranges_of(puller, registry).read(0, 100)


def test_a_range_that_is_cut_is_asked_for_again(puller: Puller, registry: Registry) -> None:
    cuts = 2

    def cut(request: Request) -> bool:
        nonlocal cuts
        if "blobs" not in request.path or not cuts:
            return False
        cuts -= 1
        told = f"bytes 0-{parts.BLOCK_BYTES - 1}/{len(BLOB)}"
        return request.reply(206, BLOB[:100], content_range=told, content_length="100")

    registry.rules.append(cut)
    assert ranges_of(puller, registry).read(0, 1000) == BLOB[:1000]


def test_a_registry_that_is_gone_is_an_error_soon_and_works_again_later(puller: Puller, registry: Registry) -> None:
    opened = Opened(puller, ranges_of(puller, registry))
    gone = [True]
    registry.rules.append(lambda request: bool(gone) and request.reply(503))
    with pytest.raises(OSError) as failed:
        opened.content(b"etc/large")
    assert failed.value.errno == errno.EIO and opened.told
    gone.clear()
    assert opened.content(b"etc/large") == LARGE
    opened.close()


def test_one_that_sends_a_byte_now_and_then_is_left(
    puller: Puller, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ANSWER_S_MAX", 0.3)

    def drips(request: Request) -> bool:
        if "blobs" not in request.path:
            return False
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 0-{parts.BLOCK_BYTES - 1}/{len(BLOB)}")
        request.send_header("Content-Length", str(parts.BLOCK_BYTES))
        request.end_headers()
        for number in range(1000):
            request.wfile.write(BLOB[number : number + 1])
            request.wfile.flush()
            time.sleep(0.05)
        return True

    registry.rules.append(drips)
    before = time.monotonic()
    with pytest.raises(OrlopError, match=r"bytes came in 0 s"):
        ranges_of(puller, registry).read(0, 1000)
    assert time.monotonic() - before < 20


def test_many_readers_fetch_each_block_once(puller: Puller, registry: Registry) -> None:
    ranges = ranges_of(puller, registry)
    opened = Opened(puller, ranges)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(opened.content(b"etc/large"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [LARGE] * 8 and ranges.fetched < 2 * len(BLOB)
    opened.close()


def test_what_has_come_already_is_not_asked_for(puller: Puller, registry: Registry) -> None:
    ranges = ranges_of(puller, registry)
    with puller.store.resume(ranges.descriptor) as coming:  # type: ignore[union-attr]
        coming.write(BLOB[:500_000])
        assert ranges.read(1000, 400_000) == BLOB[1000:400_000]
    assert not registry.requests
    puller.store.ingest(BLOB, ranges.descriptor)
    assert ranges.read(0, len(BLOB)) == BLOB and not registry.requests


@pytest.mark.parametrize("name", ["../../../etc/evil", "a/../../evil"])
def test_a_path_that_leads_out_is_refused(puller: Puller, name: str) -> None:
    class Listing:
        subject = "a table"

        def members(self) -> Iterator[object]:
            from orlop.spec.tar import Member

            member = Member(name.encode())
            member.extents = ()
            yield member

    with pytest.raises(Invalid, match="leads out"):
        lay_out(puller.snapshots.root, [Listing()], ())  # type: ignore[list-item]
    assert os.listdir(f"{puller.snapshots.root}/trash") == []
