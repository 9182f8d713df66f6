"""Downloads without a network: what a reader that comes at the wrong moment gets to see."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.content import Store
from orlop.content.store import Ingest
from orlop.image.download import Download, Downloads
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, OrlopError, Unavailable
from orlop.spec.image import Descriptor

WAIT_S_MAX = 30
DATA = b"some data of a blob"
WANTED = Descriptor(media_type="x", digest=Digest.of(DATA), size=len(DATA))


class Source:
    """A registry's answer: these pieces, and then the error, if there is one."""

    length = None

    def __init__(self, *pieces: bytes, error: OrlopError | None = None, status: int = 200) -> None:
        self.pieces = [*pieces]
        self.error = error
        self.status = status

    @contextlib.contextmanager
    def blob(self, *_: object) -> Iterator[Any]:
        yield self

    def read(self) -> bytes:
        if not self.pieces and self.error is not None:
            raise self.error
        return self.pieces.pop(0) if self.pieces else b""


def start(downloads: Downloads, source: Source, wanted: Descriptor = WANTED) -> Download:
    return downloads.start(wanted, [source])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("pieces", "error", "told"),
    [
        ([b"longer than what was announced"], None, "sends more than the 4 bytes"),
        ([b"else"], None, "has the digest"),
        ([b"da"], Unavailable("pull", "blob", "the line was cut"), "the line was cut"),
    ],
    ids=["too long", "another digest", "cut"],
)
@pytest.mark.parametrize("way", ["close", "keep"])
def test_who_opens_while_it_is_closed_is_told_why_it_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pieces: list[bytes],
    error: OrlopError | None,
    told: str,
    way: str,
) -> None:
    closed, opened = threading.Event(), threading.Event()
    close = getattr(Ingest, way)

    def slow(ingest: Ingest) -> None:
        close(ingest)
        closed.set()
        opened.wait(0.2)  # the reader comes now: it must not find the closed file, and may wait for us

    monkeypatch.setattr(Ingest, way, slow)
    downloads = Downloads(Store(str(tmp_path)))
    download = start(
        downloads, Source(*pieces, error=error), Descriptor(media_type="x", digest=Digest.of(b"data"), size=4)
    )
    assert closed.wait(WAIT_S_MAX)
    with pytest.raises((Invalid, Unavailable), match=told):
        try:
            download.reader()
        finally:
            opened.set()
    downloads.release(download)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_another_process_brings_is_waited_for(tmp_path: Path) -> None:
    """Two stores of one directory are as strange to each other as two processes: locks belong to open files."""
    theirs = Store(str(tmp_path)).resume(WANTED)
    assert theirs is not None
    source = Source(DATA)
    downloads = Downloads(Store(str(tmp_path)))
    download = start(downloads, source)
    theirs.write(DATA[:5])
    wait(lambda: download.received == 5)
    theirs.write(DATA[5:])
    theirs.commit(WANTED)
    download.wait(threading.Event())
    reader = download.reader()
    assert reader.read(100) == DATA and source.pieces == [DATA]
    reader.close()
    downloads.release(download)


def test_what_another_process_gives_up_is_gone_on_with(tmp_path: Path) -> None:
    theirs = Store(str(tmp_path)).resume(WANTED)
    assert theirs is not None
    theirs.write(DATA[:5])
    source = Source(DATA[5:], status=206)
    downloads = Downloads(Store(str(tmp_path)))
    download = start(downloads, source)
    wait(lambda: download.received == 5)
    theirs.keep()
    download.wait(threading.Event())
    assert source.pieces == [] and Store(str(tmp_path)).get(WANTED.digest) == DATA
    downloads.release(download)


def test_who_waits_for_another_process_can_give_up(tmp_path: Path) -> None:
    theirs = Store(str(tmp_path)).resume(WANTED)
    downloads = Downloads(Store(str(tmp_path)))
    download = start(downloads, Source(DATA))
    downloads.release(download)
    wait(lambda: download.ended)
    assert download.error is not None and theirs is not None
    theirs.close()


def test_another_process_that_stands_still_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orlop.image.download.ELSEWHERE_S_MAX", 0.0)
    theirs = Store(str(tmp_path)).resume(WANTED)
    assert theirs is not None
    downloads = Downloads(Store(str(tmp_path)))
    download = start(downloads, Source(DATA))
    download.wait(threading.Event())
    downloads.release(download)
    theirs.write(DATA)
    theirs.commit(WANTED)
    assert Store(str(tmp_path)).partial() == []


def test_who_comes_after_the_last_one_was_asked_asks_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race is forced: the second comes when the first has been refused, and nobody knows it yet."""
    refused, joined = threading.Event(), threading.Event()
    keep = Ingest.keep

    def slow(ingest: Ingest) -> None:
        refused.set()
        joined.wait(WAIT_S_MAX)
        keep(ingest)

    monkeypatch.setattr(Ingest, "keep", slow)
    downloads = Downloads(Store(str(tmp_path)))
    first = start(downloads, Source(error=Unavailable("pull", "blob", "no")))
    assert refused.wait(WAIT_S_MAX)
    second = start(downloads, Source(DATA))
    joined.set()
    second.wait(threading.Event())
    with pytest.raises(Unavailable, match="no"):
        first.wait(threading.Event())
    for download in (first, second):
        downloads.release(download)


def test_who_comes_when_it_was_just_given_up_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closing, going_on = threading.Event(), threading.Event()
    keep = Ingest.keep

    def slow(ingest: Ingest) -> None:
        if ingest.size < len(DATA):
            closing.set()
            going_on.wait(WAIT_S_MAX)
        keep(ingest)

    monkeypatch.setattr(Ingest, "keep", slow)
    downloads = Downloads(Store(str(tmp_path)))
    first = start(downloads, Source(DATA[:5], b"", error=Unavailable("pull", "blob", "it hangs")))
    downloads.release(first)
    assert closing.wait(WAIT_S_MAX)
    second = start(downloads, Source(DATA[5:], status=206) if first.received else Source(DATA))
    going_on.set()
    second.wait(threading.Event())
    downloads.release(second)
