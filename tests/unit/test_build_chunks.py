"""A stream in pieces: all of it, the same pieces however it comes, and the same pieces of what is the same."""

from __future__ import annotations

import random

import pytest

from orlop.build.cache.chunks import BYTES_MAX, BYTES_MIN, Cutter


def pieces(data: bytes, step: int) -> list[bytes]:
    found: list[bytes] = []
    cutter = Cutter(found.append)
    for start in range(0, len(data), step):
        cutter.write(data[start : start + step])
    cutter.finish()
    return found


RANDOM = random.Random(8).randbytes(24 << 20)
DATA = {
    "random": RANDOM,
    "text": b"".join(b"line %d = [of] many - more\n" % number for number in range(300_000)),
    "zeros": bytes(9 << 20),
    "marks": b"\x0d" * (9 << 20),
    "nothing": b"",
    "one": b"x",
}


@pytest.mark.parametrize("name", DATA)
def test_pieces_are_the_stream_whatever_comes_at_once(name: str) -> None:
    data = DATA[name]
    found = pieces(data, 1 << 16)
    assert b"".join(found) == data
    assert found == pieces(data, 99_991) == pieces(data, max(1, len(data)))
    assert all(BYTES_MIN <= len(piece) <= BYTES_MAX for piece in found[:-1])


def test_what_is_put_in_changes_the_pieces_around_it_alone() -> None:
    """Red: with _PLACE that is never found, all pieces behind the change are others."""
    before = pieces(RANDOM, 1 << 16)
    after = pieces(RANDOM[: 4 << 20] + b"put in" + RANDOM[4 << 20 :], 1 << 16)
    assert len(before) > 10
    assert len(set(before) - set(after)) <= 2
