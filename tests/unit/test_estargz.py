"""eStargz: what is written is an ordinary gzip layer and can be read in part; a table that lies is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from orlop.image.parts import estargz as writer
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.tar import estargz
from orlop.spec.tar.estargz import FOOTER_BYTES, Toc
from support.archives import Archive
from support.estargz import packed, table

LARGE = random.Random(1).randbytes(2_500_000)
TAR = bytes(
    Archive()
    .directory(b"etc", mode=0o755)
    .file(b"etc/large", LARGE, mode=0o4755, uid=7, gid=8, mtime=1234567890)
    .file(b"etc/empty", b"")
    .symlink(b"link", b"etc/large")
    .hard(b"hard", b"etc/large")
    .node(b"null", b"3", 1, 3)
    .file(b"etc/.wh.gone", b"")
)


def toc_of(document: dict[str, Any], end: int = 10_000_000) -> Toc:
    return Toc(json.dumps(document).encode(), end, "a table")


def entry(**changes: object) -> dict[str, object]:
    content = {"offset": 100, "chunkDigest": "sha256:" + "0" * 64}
    return {"name": "f", "type": "reg", "mode": 0o644, "size": 10, **content, **changes}


def test_everybody_else_reads_an_ordinary_layer() -> None:
    blob, diff_id, _ = packed(TAR)
    plain = gzip.decompress(blob)
    assert diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive, tarfile.open(fileobj=io.BytesIO(TAR)) as before:
        told = {one.name: (one.type, one.mode, one.uid, one.size, one.linkname) for one in archive}
        assert {
            one.name: (one.type, one.mode, one.uid, one.size, one.linkname) for one in before
        }.items() <= told.items()
        large = archive.extractfile("etc/large")
        assert large is not None and large.read() == LARGE
    assert [*told][-2:] == [".no.prefetch.landmark", "stargz.index.json"]


def test_the_same_archive_is_the_same_layer_again_and_when_it_was_one_before() -> None:
    blob, _, _ = packed(TAR)
    assert packed(TAR)[0] == blob
    assert packed(gzip.decompress(blob))[0] == blob


def test_each_chunk_lies_where_the_table_says() -> None:
    blob, _, digest = packed(TAR)
    begin = estargz.toc_offset(blob[-FOOTER_BYTES:], len(blob))
    toc = Toc(estargz.unpack_toc(blob[begin:-FOOTER_BYTES], Digest(digest), "a table"), begin, "a table")
    members = {member.name: member for member in toc.members()}
    assert (members[b"etc/large"].mode, members[b"etc/large"].uid) == (0o4755, 7)
    assert members[b"etc/large"].mtime_ns == 1234567890 * 10**9
    assert (members[b"null"].devmajor, members[b"null"].devminor) == (1, 3)
    chunks = toc.contents[b"etc/large"]
    assert len(chunks) == -(-len(LARGE) // writer.CHUNK_BYTES)
    for start, size, offset, skipped, sha in chunks:
        data = gzip.decompress(blob[offset : toc.extent(offset)])[skipped : skipped + size]
        assert data == LARGE[start : start + size] and hashlib.sha256(data).digest() == sha


def test_a_table_with_another_digest_is_refused() -> None:
    blob, _, _ = packed(TAR)
    begin = estargz.toc_offset(blob[-FOOTER_BYTES:], len(blob))
    with pytest.raises(Invalid, match="not the one that the manifest names"):
        estargz.unpack_toc(blob[begin:-FOOTER_BYTES], Digest.of(b"another"), "a table")


def test_a_table_that_unpacks_to_more_than_it_may_is_refused() -> None:
    bomb = gzip.compress(bytes(Archive().file(b"stargz.index.json", bytes(estargz.TOC_BYTES_MAX + 1))))
    with pytest.raises(Invalid, match="no image needs"):
        estargz.unpack_toc(bomb, Digest.of(b""), "a table")


@pytest.mark.parametrize("at", [0, 5, 12, 20, 45])
def test_a_footer_that_is_none_is_refused(at: int) -> None:
    good = bytearray(estargz.footer(1000))
    assert estargz.toc_offset(bytes(good), 5000) == 1000
    good[at] ^= 0x20
    with pytest.raises(Invalid):
        estargz.toc_offset(bytes(good), 5000)


@pytest.mark.parametrize("offset", [0, 4949, 2**63])
def test_a_footer_that_points_out_of_the_layer_is_refused(offset: int) -> None:
    with pytest.raises(Invalid):
        estargz.toc_offset(estargz.footer(offset), 5000)


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"offset": 20_000_000}, "none of its layer's files"),
        ({"offset": 0}, "none of its layer's files"),
        ({"innerOffset": 2**40}, "none of its layer's files"),
        ({"size": 2**36}, "a chunk of it has"),
        ({"size": 2**40}, "its files have more than"),
        ({"size": 2**63}, "no number that fits"),
        ({"size": -1}, "no number that fits"),
        ({"size": 1.5}, "no number that fits"),
        ({"chunkSize": 5}, "end at byte 5 of 10"),
        ({"chunkSize": 11}, "a chunk of it has"),
        ({"chunkOffset": 3}, "gaps or overlap"),
        ({"chunkDigest": None}, "no digest"),
        ({"chunkDigest": "sha256:00"}, "hex digits"),
        ({"chunkDigest": "sha512:" + "0" * 128}, "not SHA-256"),
        ({"name": ""}, "no name"),
        ({"name": "a\0b"}, "none that a file can have"),
        ({"name": "x" * 5000}, "none that a file can have"),
        ({"type": "socket"}, "unknown"),
        ({"modtime": "yesterday"}, "no time"),
        ({"xattrs": {"user.a": "%"}}, "not base64"),
        ({"uid": 2**32 - 1}, "no number that fits"),
    ],
)
def test_an_entry_that_lies_is_refused(lie: dict[str, object], told: str) -> None:
    assert [member.name for member in toc_of({"version": 1, "entries": [entry()]}).members()] == [b"f"]
    with pytest.raises(Invalid, match=told):
        list(toc_of({"version": 1, "entries": [entry(**lie)]}).members())


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"{",
        lambda: b'{"entries":[}',
        lambda: b'{"entries":[1]}',
        lambda: b'{"version":2,"entries":[]}',
        lambda: b'{"entries":' + b"[" * 100_000,
        lambda: b'{"entries":[{"type":"chunk","offset":1}]}',
        lambda: b"\xff",
    ],
)
def test_what_is_no_table_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(Invalid):
        list(Toc(make(), 1000, "a table").members())


def test_ten_million_entries_end_where_there_are_too_many() -> None:
    data = b'{"entries":[' + b'{"name":"d","type":"dir"},' * 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="more than 250000 entries"):
            for _ in Toc(data, 1000, "a table").members():
                pass
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


def test_the_last_of_two_files_of_a_name_counts() -> None:
    twice = [entry(), entry(name="./x/../f", size=20, offset=200)]
    toc = toc_of({"version": 1, "entries": twice})
    list(toc.members())
    assert [(chunk[1], chunk[2]) for chunk in toc.contents[b"f"]] == [(20, 200)]


def test_the_table_is_as_others_write_it() -> None:
    blob, _, digest = packed(TAR)
    found = table(blob, digest)
    large = [one for one in found["entries"] if one["name"] == "etc/large"]
    assert [one["type"] for one in large] == ["reg", "chunk", "chunk"]
    assert "chunkSize" not in large[-1] and large[0]["chunkSize"] == writer.CHUNK_BYTES
    assert large[0]["digest"] == f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
    assert [one["type"] for one in found["entries"] if one["name"] == "hard"] == ["hardlink"]
