"""Which lines of a log are shown: `orlop logs --grep PATTERN --json FIELD=VALUE`.

The client chooses, not the engine: a pattern may take any time (https://docs.python.org/3/library/re.html), and that
must be the time of the one who wrote it.
"""

from __future__ import annotations

import json
import re

from ....spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Test = Callable[[str], bool]

LINE_BYTES_MAX = 16 * 1024 * 1024  # of a longer line, its beginning decides
_ABSENT = object()


class Filter:
    """Passes whole lines on that satisfy every test. Lines come in pieces, of two streams; the text is not changed."""

    __slots__ = ("_lines", "_prefixes", "_tests")

    def __init__(self, tests: Sequence[Test], prefixes: int) -> None:
        """prefixes: how many words stand before what the container wrote: its time, its details."""
        self._tests = tuple(tests)
        self._prefixes = prefixes
        self._lines: dict[int, _Line] = {}

    def __call__(self, stream: int, data: bytes) -> bytes:
        """Return what is to be shown now of a stream, given what comes next of it."""
        line = self._lines.setdefault(stream, _Line())
        return b"".join(self._chosen(line, data))

    def rest(self, stream: int) -> bytes:
        """Return what is to be shown of a last line that has no end."""
        line = self._lines.pop(stream, None)
        return bytes(line.begun) if line and line.begun and self._fits(line.begun) else b""

    def _chosen(self, line: _Line, data: bytes) -> Iterator[bytes]:
        for piece in _split(data):
            ends = piece.endswith(b"\n")
            if line.verdict is None and not line.begun and ends:
                if self._fits(piece):
                    yield piece
                continue
            if line.verdict is None:
                line.begun += piece
                if ends or len(line.begun) >= LINE_BYTES_MAX:
                    line.verdict = self._fits(line.begun)
                    piece = bytes(line.begun)
                    line.begun.clear()
            if line.verdict:
                yield piece
            if ends:
                line.verdict = None

    def _fits(self, line: bytes | bytearray) -> bool:
        text = (
            line.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
        )  # a terminal ends lines with both
        if self._prefixes:
            text = text.split(" ", self._prefixes)[-1]
        return all(test(text) for test in self._tests)


class _Line:
    """What there is of a line. verdict: None until it is known whether it is shown."""

    __slots__ = ("begun", "verdict")

    def __init__(self) -> None:
        self.begun = bytearray()
        self.verdict: bool | None = None


def _split(data: bytes) -> list[bytes]:
    """Return the lines with their ends: bytes.splitlines takes \\r for one, and a log does not."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def matching(pattern: str) -> Test:
    """Return a test for lines in which a regular expression is found. Raises Invalid."""
    try:
        found = re.compile(pattern).search
    except (re.error, RecursionError, OverflowError) as wrong:
        hint = "write a regular expression of Python's; a backslash before a sign takes it as it is"
        raise Invalid("read", f"--grep {pattern[:80]}", f"it is no pattern: {wrong}", hint=hint) from None
    return lambda line: found(line) is not None


def with_field(wanted: str) -> Test:
    """Return a test for lines that are JSON objects with this value. wanted: FIELD=VALUE, FIELD may be a.b.

    A string and a number are compared as the line has them, then there are true, false and null; lists and objects
    equal nothing. Raises Invalid.
    """
    path, equals, value = wanted.partition("=")
    if not path or not equals:
        hint = "write --json level=error; a.b=1 for a field in a field"
        raise Invalid("read", f"--json {wanted[:80]}", "it is not FIELD=VALUE", hint=hint)
    names = path.split(".")

    def has(line: str) -> bool:
        if not line.lstrip().startswith("{"):
            return False
        try:
            # Numbers as the line writes them: what a computer makes of a million digits takes it a while.
            found = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError):
            return False
        if isinstance(found, dict) and path in found:  # a dot may be part of its name
            return _text(found[path]) == value
        for name in names:
            found = found.get(name, _ABSENT) if isinstance(found, dict) else _ABSENT
        return found is not _ABSENT and _text(found) == value

    return has


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return json.dumps(value) if value is None or isinstance(value, bool) else None
