"""Broken inputs from good ones: a seeded mutator, and the loop that shows them to a parser.

Each target has a corpus in the repository (tests/fuzz/corpus/NAME): good inputs, and broken ones that a parser answers
in a way of its own. Mutations start from all of it, and from what a run itself finds to be answered in a new way; the
long form writes that below tests/fuzz/corpus when it is told to keep it (`./dev fuzz --keep`). The same seed gives the
same inputs, so a finding is repeated by running the same test again; the input itself is kept below `.cache/fuzz` too.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from devtools.environment import CACHE

INPUT_BYTES_MAX = 64 * 1024
INPUTS_DEFAULT = 1000
INPUT_S_MAX = 5.0
KEPT = CACHE / "fuzz"
CORPUS = Path(__file__).parents[1] / "fuzz/corpus"
REGRESSIONS = Path(__file__).parents[1] / "fuzz/regressions"
SECONDS = float(os.environ.get("ORLOP_FUZZ_SECONDS", "0"))
SEED = time.time_ns() if SECONDS else 0
CORPUS_FILES_MAX = 24  # of one target: a corpus is read by people, too
CORPUS_BYTES_MAX = 2048  # of a file that a run finds
_POOL_MAX = 1000

_NUMBERS = [0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_TOKENS = [
    *(str(number).encode() for number in _NUMBERS),
    *(number.to_bytes(8, "big", signed=number < 0) for number in _NUMBERS if number < 2**63),
    *(number.to_bytes(4, "little", signed=number < 0) for number in _NUMBERS if number < 2**31),
    *b"../|/|//|\0|\n|\r\n|\"|'|\\|{{|}}|[[|{|}|:|@|=|,|NaN|1e999|null|true|\\u0000|\\ud800|\xff|\xc0\x80|\xed\xa0\x80".split(
        b"|"
    ),
]


_VALUES = [  # of JSON, as its text: each time a new one
    *"null true -1 0 1.5 2147483648 18446744073709551616 [] [null] {}".split(),
    *('""', '"a"', '"../x"', '"\\u0000"', '"\\ud800"', f'"{"x" * 300}"', '["a", "a"]', '{"": {}}'),
]
_WORD = re.compile(rb"[A-Za-z0-9_]+")


class Mutator:
    """An endless stream of inputs near the given ones.

    Some steps know bytes alone; others a line, a word or JSON, and leave the rest of the input whole: what is checked
    behind the first refusal is reached by them.
    """

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = list(seeds)
        self._first = list(seeds)
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        yield from (b"", b"\0", b"\xff" * 512)
        while True:
            data = bytearray(self._random.choice(self._seeds))
            if bytes(data[:1]) in (b"{", b"[") and self._random.random() < 0.5:
                self._document(data)
            elif self._random.random() < 0.3:
                self._random.choice((self._line, self._word))(data)
            else:
                self._bytes(data)
            yield bytes(data[:INPUT_BYTES_MAX])

    def _bytes(self, data: bytearray) -> None:
        for _ in range(self._random.choice((1, 1, 1, 2, 4, 16))):
            self._random.choice(self._STEPS)(self, data)

    def _document(self, data: bytearray) -> None:
        """Another value, a member less, or one of another document, somewhere in JSON that stays JSON."""
        try:
            document = json.loads(bytes(data))
        except (ValueError, RecursionError):
            self._bytes(data)
            return
        for _ in range(self._random.choice((1, 1, 2, 4))):
            at, key = self._place(document)
            if at is None:
                document = json.loads(self._random.choice(_VALUES))
                break
            step = self._random.randrange(6)
            if step == 0:
                del at[key]
            elif step == 1 and isinstance(at, list):
                at *= 2
            elif step == 2 and isinstance(at, dict):
                at[self._random.choice(("", "x", f"{key}x", str(key).swapcase()))] = at[key]
            else:
                at[key] = json.loads(self._random.choice(_VALUES))
        data[:] = json.dumps(document).encode()

    def _place(self, document: object) -> tuple[Any, Any]:
        """Return something with members in a document, and the key of one of them; (None, None) for the whole."""
        places: list[tuple[Any, Any]] = [(None, None)]
        waiting = [document]
        while waiting and len(places) < 1000:
            value = waiting.pop()
            if isinstance(value, dict | list):
                members = list(value.items() if isinstance(value, dict) else enumerate(value))
                places += [(value, key) for key, _ in members]
                waiting += [member for _, member in members]
        return self._random.choice(places)

    def _line(self, data: bytearray) -> None:
        """A line twice, none, its first word alone, or in another's place."""
        lines = bytes(data).split(b"\n")
        at = self._random.randrange(len(lines))
        line = lines[at]
        lines[at : at + 1] = self._random.choice(
            (
                [line, line],
                [],
                [line.split(b" ")[0]],
                [self._random.choice(lines)],
                [line.rpartition(b" ")[0]],
                [line * 2],
            )
        )
        data[:] = b"\n".join(lines)

    def _word(self, data: bytearray) -> None:
        """A word or number: none, an odd one, or one that stands elsewhere."""
        words = [found.span() for found in _WORD.finditer(bytes(data))]
        if not words:
            return
        start, end = self._random.choice(words)
        other_start, other_end = self._random.choice(words)
        other = bytes(data[other_start:other_end])
        data[start:end] = self._random.choice((b"", self._random.choice(_TOKENS), other, other, b"-", b"0", b"zz"))

    def learn(self, data: bytes) -> None:
        """Mutate this one as well from now on."""
        if len(self._seeds) < _POOL_MAX:
            self._seeds.append(data)

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
    """A parser under test. refusals: the exceptions by which it may refuse an input; anything else is a finding.

    seeds: good inputs, beside the corpus, whose files need not be good.
    """

    def __init__(
        self,
        name: str,
        parse: Callable[[bytes], object],
        seeds: Sequence[bytes],
        refusals: tuple[type[BaseException], ...],
    ) -> None:
        self.name, self.parse, self.seeds, self.refusals = name, parse, seeds, refusals

    def corpus(self) -> list[bytes]:
        """Return what the repository has for this target, and what once broke it."""
        files = [*sorted((CORPUS / self.name).glob("*")), *sorted(REGRESSIONS.glob(f"{self.name}-*"))]
        return [path.read_bytes() for path in files]

    def try_all(self) -> None:
        """What a test of this target does: it takes each seed, and it takes or refuses what is made of all of them."""
        assert self.corpus(), "it has none in tests/fuzz/corpus"
        for seed in self.seeds:
            assert self.show(seed), "a seed is a good input"
        self.attack(SECONDS, SEED)

    def show(self, data: bytes) -> bool:
        """Show one input to the parser; return whether it was taken. Other exceptions than refusals pass through."""
        return not self.told(data)

    def told(self, data: bytes) -> str:
        """Show one input; return in which words it was refused, numbers and quoted text left out, "" when taken."""
        started = time.monotonic()
        try:
            self.parse(data)
        except self.refusals as refusal:
            return f"{type(refusal).__name__} {_PARTICULARS.sub('', str(refusal))[:120]}"
        finally:
            assert time.monotonic() - started < INPUT_S_MAX, f"{self.name} took too long for {data[:200]!r}"
        return ""

    def attack(self, seconds: float, seed: int) -> int:
        """Show inputs for so long, or INPUTS_DEFAULT when seconds is 0; return how many. Keeps what breaks it."""
        deadline = time.monotonic() + seconds
        known = [*self.seeds, *self.corpus()]
        inputs = Mutator(known, seed)
        answers: set[str] = set()
        for count, data in enumerate(inputs):
            if time.monotonic() >= deadline if seconds else count >= INPUTS_DEFAULT + len(known):
                return count
            try:
                answer = self.told(data)
            except BaseException as finding:
                finding.add_note(f"the input lies in {self._keep(data)}; in tests/fuzz/regressions it is always tried")
                raise
            if answer not in answers:
                answers.add(answer)
                inputs.learn(data)
                if count >= len(known) and os.environ.get("ORLOP_FUZZ_KEEP"):
                    self._add(data)
        return 0

    def _add(self, data: bytes) -> None:
        place = CORPUS / self.name
        place.mkdir(parents=True, exist_ok=True)
        if len(data) <= CORPUS_BYTES_MAX and len(list(place.iterdir())) < CORPUS_FILES_MAX:
            (place / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)

    def _keep(self, data: bytes) -> Path:
        KEPT.mkdir(parents=True, exist_ok=True)
        path = KEPT / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        return path


def each(targets: Sequence[Target]) -> pytest.MarkDecorator:
    """Make a test of each target."""
    return pytest.mark.parametrize("target", targets, ids=lambda target: target.name)


_PARTICULARS = re.compile(r"""\d+|'[^']*'|"[^"]*"|[^\x20-\x7e]""")
