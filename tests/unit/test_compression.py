"""Compressed streams: read as the programs read them, refused when damaged, bounded when they grow (SEC-42)."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.content import compression
from orlop.content.compression import BZIP2, GZIP, NONE, XZ, ZSTD, Decompressed, detect
from orlop.linux import zstd
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from support import archives

DATA = bytes(range(256)) * 4000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    NONE: bytes,
    GZIP: gzip.compress,
    XZ: lzma.compress,
    BZIP2: bz2.compress,
}
ZSTD_HELLO = bytes.fromhex("28b52ffd045851000068656c6c6f207a737464cfdb609c")

compressed = pytest.mark.parametrize("kind", [GZIP, XZ, BZIP2])


def read(data: bytes, step: int = 100_000) -> bytes:
    stream = Decompressed(archives.source(data, step), "the blob")
    out = io.BytesIO()
    while piece := stream.read(1 << 20):
        assert len(piece) <= compression.OUTPUT_BYTES
        out.write(piece)
    assert stream.read(1) == b""
    return out.getvalue()


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("step", [1_000_000, 4001, 3])
def test_what_was_compressed_comes_back(kind: str, step: int) -> None:
    data = DATA if step > 3 else DATA[:2000]
    packed = COMPRESS[kind](data)
    assert detect(packed) == kind
    assert read(packed, step) == data


@given(st.binary(max_size=3000), st.sampled_from(sorted(COMPRESS)), st.integers(1, 400))
def test_any_data_in_any_pieces(data: bytes, kind: str, step: int) -> None:
    packed = COMPRESS[kind](b"x" + data)
    assert read(packed, step) == b"x" + data


@compressed
def test_members_may_follow_each_other(kind: str) -> None:
    pack = COMPRESS[kind]
    assert read(pack(b"one") + pack(b"") + pack(b"two"), 5) == b"onetwo"


@compressed
@pytest.mark.parametrize("zeros", [1, 5, 600, 300_000])
def test_zeros_behind_it_are_a_tapes_padding(kind: str, zeros: int) -> None:
    assert read(COMPRESS[kind](DATA) + bytes(zeros)) == DATA


@compressed
@pytest.mark.parametrize("tail", [b"x", b"garbage" * 100, bytes(300_000) + b"x", b"\0" * 20 + b"x" * 20])
def test_something_else_behind_it_is_refused(kind: str, tail: bytes) -> None:
    with pytest.raises(Invalid, match=f"something else follows its {kind} data"):
        read(COMPRESS[kind](DATA) + tail)


@compressed
def test_every_truncation_is_noticed(kind: str) -> None:
    packed = COMPRESS[kind](DATA[:5000])
    for length in range(12, len(packed)):
        with pytest.raises(Invalid, match=r"truncated|damaged"):
            read(packed[:length], 1000)


@compressed
def test_damage_is_noticed(kind: str) -> None:
    packed = bytearray(COMPRESS[kind](DATA))
    packed[len(packed) // 2] ^= 0x55
    with pytest.raises(Invalid, match=f"its {kind} data is damaged|truncated"):
        read(bytes(packed))


def test_nothing_is_nothing() -> None:
    assert read(b"") == b""
    assert read(b"\x1f\x8b") == b"\x1f\x8b"


def test_a_tar_whose_first_file_is_called_like_bzip2_is_a_tar() -> None:
    assert detect(archives.header(b"BZh9README")) == NONE
    assert detect(bz2.compress(b"")) == detect(bz2.compress(b"x")) == BZIP2


def test_skippable_frames_announce_zstd() -> None:
    assert detect(b"\x50\x2a\x4d\x18\x04\0\0\0") == detect(b"\x5f\x2a\x4d\x18") == ZSTD
    assert detect(b"\x60\x2a\x4d\x18") == NONE


def test_zstd_is_read() -> None:
    assert read(ZSTD_HELLO) == b"hello zstd"
    assert read(ZSTD_HELLO, step=1) == b"hello zstd"
    assert read(ZSTD_HELLO * 3) == b"hello zstd" * 3


def test_large_zstd_frames() -> None:
    data = bytes(range(256)) * 40_000 + bytes(3_000_000) + os.urandom(300_000)
    library = zstd.load()
    room = ctypes.create_string_buffer(len(data) + 1_000_000)
    library.ZSTD_compress.restype = ctypes.c_size_t
    size = library.ZSTD_compress(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), 3)
    packed = room.raw[:size]
    assert read(packed) == data
    assert read(packed, step=77) == data
    assert read(packed * 2) == data * 2


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_damaged_zstd(cut: int) -> None:
    for broken in (ZSTD_HELLO[:-cut], ZSTD_HELLO[:8] + b"\xff" * cut + ZSTD_HELLO[8 + cut :]):
        with pytest.raises(Invalid):
            read(broken)


def test_a_zstd_window_is_bounded() -> None:
    # a frame header (RFC 8878, 3.1.1.1) that asks for a window of 2**41 bytes
    with pytest.raises(Invalid, match="damaged"):
        read(b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(64))


def test_zstd_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "LIBRARY", "libnothing.so")
    with pytest.raises(Unsupported, match="zstd") as refused:
        read(ZSTD_HELLO)
    assert "zstd -d" in refused.value.hint


class Zeros:
    """A gzip stream of zeros without end: about 1 KiB for every MiB."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        self.handed_out = 0

    def read(self, count: int) -> bytes:
        data = b""
        while not data:
            data = self._deflate.compress(bytes(1 << 20))
        self.handed_out += len(data)
        return data


def test_a_bomb_is_refused_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "RATIO_FREE_BYTES", 32 << 20)
    zeros = Zeros()
    stream = Decompressed(zeros.read, "the blob")
    total = 0
    with pytest.raises(Invalid, match="it looks made to fill the disk") as refused:
        while True:
            total += len(stream.read(1 << 20))
    assert 31 << 20 <= total <= 34 << 20
    assert "decompress it yourself" in refused.value.hint


def test_what_is_too_long_is_refused_whatever_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "UNCOMPRESSED_BYTES_MAX", 1000)
    for pack in COMPRESS.values():
        with pytest.raises(Invalid, match="more than 1000 bytes uncompressed"):
            read(pack(DATA[:1001]))
        assert read(pack(DATA[:1000])) == DATA[:1000]


def test_an_xz_that_wants_too_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}]
    with pytest.raises(Invalid, match="damaged"):
        read(lzma.compress(b"x", lzma.FORMAT_XZ, filters=filters))


@given(st.binary(max_size=300), st.sampled_from([GZIP, XZ, BZIP2]), st.integers(1, 100))
def test_noise_behind_a_magic_never_breaks_anything_but_the_reading(noise: bytes, kind: str, step: int) -> None:
    head = COMPRESS[kind](b"abc")[:12]
    try:
        read(head + noise, step)
    except OrlopError:
        pass
