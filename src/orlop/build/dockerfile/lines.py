"""From text to logical lines: directives, comments, continuation, here-documents.

A logical line is one instruction with everything that belongs to it. Physical lines are read once, from the first
to the last: the time is that of the text's length, whatever it holds.
Source: docker's Dockerfile reference ("Parser directives", "Format", "Here-Documents").
"""

import re

from orlop.image.expand import Lexer
from orlop.spec.errors import Invalid
from orlop.spec.record import Record
from orlop.spec.reference import Reference

from .fields import command_and_flags, json_words
from .source import Source

INSTRUCTIONS_MAX = 20_000
HEREDOCS_MAX = 100
TEMPLATES, RECIPES = "orlop/dockerfile", "orlop/python"  # with INCLUDE, IF and FOR; a program (orlop.recipe)
LANGUAGES = (
    "docker/dockerfile",
    "docker/dockerfile-upstream",
    TEMPLATES,
    RECIPES,
)  # from whatever registry, of any version
_DIRECTIVES = ("syntax", "escape", "check")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)$")
_WITH_HEREDOCS = frozenset(("add", "copy", "run"))


def is_spoken(frontend: str) -> bool:
    """Tell whether `# syntax=` means the language that is built in; "" does."""
    try:
        return not frontend or Reference.parse(frontend.split()[0]).path in LANGUAGES
    except Invalid:
        return False


def language_of(source: Source) -> str:
    """Return which one of LANGUAGES a text is written in, "" where it does not say. Raises DockerfileError."""
    syntax = directives_of(source).syntax
    return Reference.parse(syntax.split()[0]).path if syntax else ""


def instructions_of(source: Source, escape: str) -> "list[Line]":
    """Return the instructions of a part of a Dockerfile, of which there may be none. Raises DockerfileError."""
    return _Reader(source, escape).read()


def unspoken(frontend: str) -> str:
    """Return what is wrong with a frontend that is none of ours."""
    return f"frontend {frontend[:100]} is an image, and images that read Dockerfiles are not run here"


UNSPOKEN_HINT = "if the file is a Dockerfile, leave the line away or write: # syntax=docker/dockerfile:1"


class Heredoc(Record):
    """name: the word that ends it. strip_tabs: `<<-`. expand: the word is not quoted. content: ends with a newline."""

    name: str
    strip_tabs: bool = False
    expand: bool = True
    content: str = ""

    @property
    def text(self) -> str:
        """The content, without leading tabs where `<<-` asks for it."""
        if not self.strip_tabs:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


class Line(Record):
    """An instruction. word: as it is written; flags: `--name=value` words; rest: what follows them; original: all."""

    word: str
    flags: tuple[str, ...]
    rest: str
    original: str
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    empty_continuation: int = 0  # the line that is empty inside a continued instruction, 0 for none
    lines: tuple[int, int]


class Directives(Record):
    """The directives at the top of the file. Lines are where they stand, 0 for those that are not there."""

    escape: str = "\\"
    syntax: str = ""
    checks: str = ""
    checks_line: int = 0


class Lines(Record):
    """A Dockerfile, line by line."""

    directives: Directives
    lines: tuple[Line, ...]


def read_lines(source: Source) -> Lines:
    """Return the logical lines. Raises DockerfileError."""
    directives = directives_of(source)
    lines = _Reader(source, directives.escape).read()
    if not lines:
        source.wrong((1, 1), "file with no instructions", hint="a Dockerfile begins with FROM")
    return Lines(directives=directives, lines=tuple(lines))


def parse_heredoc(word: str) -> Heredoc | None:
    """Return the here-document that a word such as `<<-"EOF"` begins, without content; None for another word."""
    match = _HEREDOC.match(word)
    if match is None:
        return None
    rest = match[3]
    try:
        words, quoted = (Lexer(rest, {}, keep_quotes=keep, keep_unset=True).words() for keep in (False, True))
    except ValueError:
        return None
    if len(words) != 1:
        return None
    return Heredoc(name=words[0], strip_tabs=bool(match[2]), expand=quoted == words)


def directives_of(source: Source) -> Directives:
    """Return the directives: they end before the first line of another kind."""
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(source.lines, 1):
        match = _DIRECTIVE.match(line.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            break
        if name in found:
            source.wrong((number, number), f"only one {name} parser directive can be used")
        found[name] = match[2], number
    escape, escape_line = found.get("escape", ("\\", 0))
    if escape not in ("\\", "`"):
        source.wrong((escape_line, escape_line), f"invalid escape token '{escape}' does not match ` or \\")
    check, check_line = found.get("check", ("", 0))
    syntax, syntax_line = found.get("syntax", ("", 0))
    if not is_spoken(syntax):
        source.wrong((syntax_line, syntax_line), unspoken(syntax), hint=UNSPOKEN_HINT)
    return Directives(escape=escape, syntax=syntax, checks=check, checks_line=check_line)


class _Reader:
    def __init__(self, source: Source, escape: str) -> None:
        self._source = source
        self._escape = escape
        self._continued = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*$")
        self._at = 0  # lines that were read
        self._comments: list[str] = []

    def read(self) -> "list[Line]":
        lines: list[Line] = []
        while self._at < len(self._source.lines):
            line = self._line()
            if line is None:
                continue
            lines.append(line)
            if len(lines) > INSTRUCTIONS_MAX:
                self._source.wrong(line.lines, f"it has more than {INSTRUCTIONS_MAX} instructions")
        return lines

    def _next(self) -> str:
        self._at += 1
        return self._source.lines[self._at - 1].rstrip("\r")

    def _line(self) -> Line | None:
        text = self._next().lstrip()
        first = self._at
        if text.startswith("#"):
            comment = text[1:].strip()
            self._comments = [*self._comments, comment] if comment else []
            return None
        joined, empty = self._continue(text)
        if not joined.strip():
            self._comments = []
            return None
        word, flags, rest = command_and_flags(joined)
        heredocs = self._heredocs(first, word, rest)
        comments, self._comments = tuple(self._comments), []
        return Line(
            word=word,
            flags=tuple(flags),
            rest=rest,
            original=joined.strip(),
            heredocs=heredocs,
            comments=comments,
            empty_continuation=empty,
            lines=(first, self._at),
        )

    def _continue(self, text: str) -> tuple[str, int]:
        """Return the text with the lines that continue it, and which of them is empty."""
        parts = []
        empty = 0
        while True:
            stripped = self._continued.sub("", text)
            parts.append(stripped)
            if stripped == text:
                return "".join(parts), empty
            text = ""
            while self._at < len(self._source.lines):
                following = self._next()
                if following.lstrip().startswith("#"):
                    continue
                if following.strip():
                    text = following
                    break
                # The end of the file is no line, though the last newline seems to begin one.
                empty = self._at if self._at < len(self._source.lines) else empty

    def _heredocs(self, first: int, word: str, rest: str) -> tuple[Heredoc, ...]:
        if word.lower() == "onbuild":
            word, _, rest = command_and_flags(rest)
        if word.lower() not in _WITH_HEREDOCS or "<<" not in rest or _is_json(rest):
            return ()
        try:
            words = Lexer(rest, {}, escape="\\", keep_quotes=True, keep_escapes=True, keep_unset=True).words()
        except ValueError:
            return ()  # `RUN echo "<<` is the shell's to understand
        begun = [heredoc for heredoc in map(parse_heredoc, words) if heredoc]
        if len(begun) > HEREDOCS_MAX:
            self._source.wrong((first, self._at), f"it has more than {HEREDOCS_MAX} here-documents")
        return tuple(heredoc.replace(content=self._content(first, heredoc)) for heredoc in begun)

    def _content(self, first: int, heredoc: Heredoc) -> str:
        content: list[str] = []
        while self._at < len(self._source.lines):
            self._at += 1
            raw = self._source.lines[self._at - 1]
            line = raw.rstrip("\r")
            if (line.lstrip("\t") if heredoc.strip_tabs else line) == heredoc.name:
                return "".join(content)
            content.append(raw + "\n")
        return self._source.wrong((first, first), f"unterminated heredoc: no line is {heredoc.name!r}")


def _is_json(rest: str) -> bool:
    try:
        return json_words(rest) is not None
    except ValueError:
        return True
