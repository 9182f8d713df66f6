"""Downloads without a network: what a reader that comes at the wrong moment gets to see."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.content import Store
from orlop.content.store import Ingest
from orlop.image.download import Downloads
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, OrlopError, Unavailable
from orlop.spec.image import Descriptor

WAIT_S_MAX = 30


class Source:
    """A registry's answer: these pieces, and then the error, if there is one."""

    def __init__(self, *pieces: bytes, error: OrlopError | None = None) -> None:
        self.pieces = [*pieces]
        self.error = error

    @contextlib.contextmanager
    def blob(self, *_: object) -> Iterator[Any]:
        yield self

    status = 200
    length = None

    def read(self) -> bytes:
        if not self.pieces and self.error is not None:
            raise self.error
        return self.pieces.pop(0) if self.pieces else b""


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
    download = downloads.start(
        Descriptor(media_type="x", digest=Digest.of(b"data"), size=4), [Source(*pieces, error=error)]
    )  # type: ignore[list-item]
    assert closed.wait(WAIT_S_MAX)
    with pytest.raises((Invalid, Unavailable), match=told):
        try:
            download.reader()
        finally:
            opened.set()
    downloads.release(download)
