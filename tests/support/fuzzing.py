"""Broken inputs from good ones: a seeded mutator, and the loop that shows them to a parser.

The same seed gives the same inputs, so a finding is repeated by running the same test again; the input itself is kept
below `.cache/fuzz` too.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from devtools.environment import CACHE

INPUT_BYTES_MAX = 64 * 1024
INPUTS_DEFAULT = 300
INPUT_S_MAX = 5.0
KEPT = CACHE / "fuzz"

_NUMBERS = [0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_TOKENS = [
    *(str(number).encode() for number in _NUMBERS),
    *(number.to_bytes(8, "big", signed=number < 0) for number in _NUMBERS if number < 2**63),
    *(number.to_bytes(4, "little", signed=number < 0) for number in _NUMBERS if number < 2**31),
    *b"../|/|//|\0|\n|\r\n|\"|'|\\|{{|}}|[[|{|}|:|@|=|,|NaN|1e999|null|true|\\u0000|\\ud800|\xff|\xc0\x80|\xed\xa0\x80".split(
        b"|"
    ),
]


class Mutator:
    """An endless stream of inputs near the given ones."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = list(seeds)
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._seeds
        yield from (b"", b"\0", b"\xff" * 512)
        while True:
            data = bytearray(self._random.choice(self._seeds))
            for _ in range(self._random.choice((1, 1, 1, 2, 4, 16))):
                self._random.choice(self._STEPS)(self, data)
            yield bytes(data[:INPUT_BYTES_MAX])

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)

    def _overwrite(self, data: bytearray) -> None:
        token = self._random.choice(_TOKENS)
        at = self._at(data)
        data[at : at + len(token)] = token

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._random.choice(_TOKENS) * self._random.choice((1, 1, 1, 100))

    def _truncate(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _cut(self, data: bytearray) -> None:
        start = self._at(data)
        del data[start : start + self._random.randint(1, 64)]

    def _repeat(self, data: bytearray) -> None:
        start = self._at(data)
        piece = data[start : start + self._random.randint(1, 512)]
        data[start:start] = piece * self._random.choice((1, 2, 50))

    def _splice(self, data: bytearray) -> None:
        other = self._random.choice(self._seeds)
        data[self._at(data) :] = other[self._at(bytearray(other)) :]

    def _at(self, data: bytearray) -> int:
        return self._random.randint(0, len(data))

    _STEPS = (_flip, _flip, _overwrite, _insert, _truncate, _cut, _repeat, _splice)


class Target:
    """A parser under test. refusals: the exceptions by which it may refuse an input; anything else is a finding."""

    def __init__(
        self, name: str, parse: Callable[[bytes], object], seeds: Sequence[bytes], refusals: tuple[type[Exception], ...]
    ) -> None:
        self.name, self.parse, self.seeds, self.refusals = name, parse, seeds, refusals

    def show(self, data: bytes) -> bool:
        """Show one input to the parser; return whether it was taken. Other exceptions than refusals pass through."""
        started = time.monotonic()
        try:
            self.parse(data)
        except self.refusals:
            return False
        finally:
            assert time.monotonic() - started < INPUT_S_MAX, f"{self.name} took too long for {data[:200]!r}"
        return True

    def attack(self, seconds: float, seed: int) -> int:
        """Show inputs for so long, or INPUTS_DEFAULT when seconds is 0; return how many. Keeps what breaks it."""
        deadline = time.monotonic() + seconds
        for count, data in enumerate(Mutator(self.seeds, seed)):
            if time.monotonic() >= deadline if seconds else count >= INPUTS_DEFAULT:
                return count
            try:
                self.show(data)
            except BaseException as finding:
                finding.add_note(f"the input lies in {self._keep(data)}; in tests/fuzz/regressions it is always tried")
                raise
        return 0

    def _keep(self, data: bytes) -> Path:
        KEPT.mkdir(parents=True, exist_ok=True)
        path = KEPT / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        return path
