"""Dockerfiles put together from parts: INCLUDE, IF, FOR, where the first lines say `# syntax=orlop/dockerfile`.

    INCLUDE common/base.Dockerfile      the lines of a file of the context, named from the including one's directory
    IF $TARGETARCH == arm64             also !=, a word alone (not "", 0 or false), and ! before it
    ELSE
    END
    FOR tool IN make gcc $MORE          its lines once for each word, with $tool and ${tool} replaced
    END

They stand where an instruction may begin, and are gone before anything else is read: what comes out is a Dockerfile. A
variable is a build argument, an ARG above, or the platform's. Errors name the file and the line that somebody wrote.
"""

from __future__ import annotations

import posixpath
import re

from orlop.image.expand import expand, expand_words, split
from orlop.spec.errors import Invalid

from . import lines as logical
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .lines import Line

    Read = Callable[[str], bytes | None]
    Written = tuple[str, tuple[str, int]]  # a line, and where it was written

LINES_MAX, DEPTH_MAX, INCLUDES_MAX, BLOCKS_MAX = 200_000, 30, 20, 20_000
_OPENING = frozenset(("IF", "FOR"))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FALSE = ("", "0", "false")


def composed(source: Source, read: Read, values: Mapping[str, str], given: Mapping[str, str]) -> Source:
    """Return the Dockerfile that a template becomes.

    read: gives a file of the context, None where there is none. values: what is known before the first line.
    given: the build arguments. Raises DockerfileError, and Invalid for an included file that is no text.
    """
    escape = logical.directives_of(source).escape
    composer = _Composer(read, dict(values), given, escape)
    written = [(text, (source.name, number)) for number, text in enumerate(source.lines, 1)]
    composer.add(written, (source.name,), 0)
    made = Source(source.name, "\n".join(text for text, _ in composer.out))
    made.places = tuple(place for _, place in composer.out)
    return made


class _Composer:
    def __init__(self, read: Read, values: dict[str, str], given: Mapping[str, str], escape: str) -> None:
        self.out: list[Written] = []
        self._read = read
        self._values = values
        self._given = given
        self._escape = escape
        self._blocks = 0  # that were opened

    def add(self, written: list[Written], chain: tuple[str, ...], depth: int) -> None:
        """Add what lines become. chain: the files that include them, the innermost last."""
        source = Source(chain[-1], "\n".join(text for text, _ in written))
        source.places = tuple(place for _, place in written)
        self._blocks += 1
        if self._blocks > BLOCKS_MAX:
            source.wrong((1, 1), f"it opens more than {BLOCKS_MAX} blocks and files")
        if depth > DEPTH_MAX:
            source.wrong((1, 1), f"blocks are nested more than {DEPTH_MAX} times")
        found = logical.instructions_of(source, self._escape)
        at = done = 0  # the next instruction; lines that are dealt with
        while at < len(found):
            line = found[at]
            word = line.word.upper()
            self._emit(written[done : line.lines[0] - 1], source, line)
            if word in _OPENING:
                middle, end = self._end(source, found, at)
                self._open(source, line, written, (found, middle, end), chain, depth)
                at, done = end + 1, found[end].lines[1]
                continue
            if word in ("ELSE", "END"):
                source.wrong(line.lines, f"{word} without IF or FOR")
            if word == "INCLUDE":
                self._include(source, line, chain, depth)
            else:
                if word == "ARG":
                    self._argument(source, line)
                self._emit(written[line.lines[0] - 1 : line.lines[1]], source, line)
            at, done = at + 1, line.lines[1]
        self._emit(written[done:], source, found[-1] if found else None)

    def _emit(self, written: list[Written], source: Source, line: Line | None) -> None:
        self.out += written
        if len(self.out) > LINES_MAX:
            source.wrong(line.lines if line else (1, 1), f"it becomes more than {LINES_MAX} lines")

    def _end(self, source: Source, found: list[Line], at: int) -> tuple[int, int]:
        """Return which instructions are the ELSE (or the END) and the END of a block."""
        open_blocks, middle = 0, -1
        for number in range(at, len(found)):
            word = found[number].word.upper()
            if word in _OPENING:
                open_blocks += 1
            elif word == "END":
                open_blocks -= 1
                if not open_blocks:
                    return (middle if middle >= 0 else number), number
            elif word == "ELSE" and open_blocks == 1:
                if middle >= 0 or found[at].word.upper() != "IF":
                    source.wrong(found[number].lines, "ELSE stands once in an IF, and in nothing else")
                middle = number
        return source.wrong(found[at].lines, f"{found[at].word.upper()} without END")

    def _open(
        self,
        source: Source,
        line: Line,
        written: list[Written],
        block: tuple[list[Line], int, int],
        chain: tuple[str, ...],
        depth: int,
    ) -> None:
        found, middle, end = block
        first = written[line.lines[1] : found[middle].lines[0] - 1]
        if line.word.upper() == "IF":
            other = written[found[middle].lines[1] : found[end].lines[0] - 1] if middle != end else []
            self.add(first if self._holds(source, line) else other, chain, depth + 1)
            return
        name, keyword, words = (*line.rest.split(None, 2), "", "")[:3]
        if not _NAME.fullmatch(name) or keyword.upper() != "IN":
            source.wrong(line.lines, "FOR needs a name, IN and words", hint="write: FOR tool IN make gcc")
        used = re.compile(rf"\$(?:\{{{name}\}}|{name}(?![A-Za-z0-9_]))")
        for value in self._words(source, line, words):
            body = [(used.sub(lambda _, value=value: value, text), place) for text, place in first]  # type: ignore[misc]
            self.add(body, chain, depth + 1)

    def _holds(self, source: Source, line: Line) -> bool:
        text = line.rest.strip()
        negated = text.startswith("!") and not text.startswith("!=")
        words = self._words(source, line, text[1:] if negated else text)
        if len(words) == 3 and words[1] in ("==", "!=") and not negated:
            return (words[0] == words[2]) == (words[1] == "==")
        if len(words) != 1:
            source.wrong(line.lines, "IF needs a word, or two with == or != between", hint="write: IF $X == y")
        return (words[0].lower() in _FALSE) == negated

    def _words(self, source: Source, line: Line, text: str) -> list[str]:
        """Return the words of a text; one that is only an empty variable is an empty word."""
        try:
            raw = split(text, self._escape)
            found: list[str] = []
            for word in raw:
                made = expand_words(word, self._values, escape=self._escape)
                found += made or ([""] if line.word.upper() == "IF" else [])
            return found
        except ValueError as wrong:
            return source.wrong(line.lines, str(wrong))

    def _argument(self, source: Source, line: Line) -> None:
        try:
            for word in split(line.rest, self._escape):
                name, equals, default = word.partition("=")
                if name in self._given:
                    self._values[name] = self._given[name]
                elif equals:
                    self._values[name] = expand(default, self._values, escape=self._escape)
        except ValueError:
            return  # whoever reads the instruction says so

    def _include(self, source: Source, line: Line, chain: tuple[str, ...], depth: int) -> None:
        words = self._words(source, line, line.rest)
        if len(words) != 1 or not words[0] or "\0" in words[0]:
            source.wrong(line.lines, "INCLUDE needs the name of one file", hint="write: INCLUDE common.Dockerfile")
        here = posixpath.dirname(chain[-1])
        path = words[0].lstrip("/") if words[0].startswith("/") else posixpath.join(here, words[0])
        path = posixpath.normpath(path)
        if path.startswith("../") or path == "..":
            source.wrong(line.lines, f"{path} leads out of the context", hint="name a file of the context")
        if path in chain:
            source.wrong(line.lines, f"files include each other: {' -> '.join([*chain, path])}")
        if len(chain) > INCLUDES_MAX:
            source.wrong(line.lines, f"files include each other more than {INCLUDES_MAX} times")
        data = self._read(path)
        if data is None:
            source.wrong(
                line.lines, f"there is no file {path} in the context", hint="look at the name, and .dockerignore"
            )
        try:
            text = Source.decode(data, path).text.removesuffix("\n")
        except Invalid as wrong:
            source.wrong(line.lines, f"{path} can't be included: {wrong.cause}")
        written = [(each, (path, number)) for number, each in enumerate(text.split("\n"), 1)]
        self.add(written, (*chain, path), depth + 1)
