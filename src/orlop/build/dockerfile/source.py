"""A Dockerfile's text, places in it, and errors that show the place."""

from __future__ import annotations

from orlop.spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DOCKERFILE_BYTES_MAX = 8 * 1024 * 1024
_CONTEXT_LINES = 2
_SHOWN_LINES_MAX = 40
_SHOWN_CHARACTERS_MAX = 240
# What is wrong already where BuildKit cuts a text into lines and words.
_OF_LINES = (
    "ENV must have", "LABEL must have", "Syntax error - ", "unsupported mount type", "invalid value", "unexpected key",
    "unsupported sharing",
)  # fmt: skip
_BOM = b"\xef\xbb\xbf"
_RULE = "-" * 20


class Source:
    """A Dockerfile. name: as the user called it. lines: without their ends; line 1 is lines[0].

    places: the file and the line where each line was written, () where all of them are its own.
    """

    __slots__ = ("lines", "name", "places", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.lines = text.split("\n")
        self.places: tuple[tuple[str, int], ...] = ()

    @classmethod
    def decode(cls, data: bytes, name: str) -> Source:
        """Return the Dockerfile that these bytes are. Raises Invalid for what is no text, or too long."""
        if len(data) > DOCKERFILE_BYTES_MAX:
            raise Invalid("read", name, f"it has {len(data)} bytes, the limit is {DOCKERFILE_BYTES_MAX}", code="E0212")
        data = data.removeprefix(_BOM)
        try:
            text = data.decode()
        except UnicodeDecodeError as wrong:
            line = data.count(b"\n", 0, wrong.start) + 1
            raise Invalid("read", f"{name}:{line}", "it is not UTF-8", hint="save it as UTF-8 and try again") from None
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise Invalid("read", f"{name}:{line}", "it has a NUL character: it is no Dockerfile")
        return cls(name, text)

    def wrong(self, lines: tuple[int, int], cause: str, *, hint: str = "") -> NoReturn:
        """Raise DockerfileError for these lines."""
        raise DockerfileError(self, lines, cause, hint=hint)

    def unparsed(self, lines: tuple[int, int], cause: str, *, hint: str = "") -> NoReturn:
        """Raise DockerfileError for an instruction that is none, as BuildKit counts it."""
        raise DockerfileError(self, lines, cause, hint=hint, parsing=not cause.startswith(_OF_LINES))

    def place(self, line: int) -> tuple[str, int]:
        """Return the file and the line where a line was written."""
        return self.places[line - 1] if 0 < line <= len(self.places) else (self.name, line)

    def excerpt(self, first: int, last: int) -> str:
        """Return the lines from first to last with some around them, marked as BuildKit does it."""
        start = max(1, first - _CONTEXT_LINES)
        end = min(len(self.lines), last + _CONTEXT_LINES, start + _SHOWN_LINES_MAX)
        shown = [
            f"{self.place(number)[1]:4} | {'>>>' if first <= number <= last else '   '} "
            f"{self.lines[number - 1].rstrip(chr(13))[:_SHOWN_CHARACTERS_MAX]}"
            for number in range(start, end + 1)
        ]
        return "\n".join([":".join(map(str, self.place(first))), _RULE, *shown, _RULE])


class DockerfileError(Invalid):
    """What is wrong with some lines of a Dockerfile. lines: the first and the last."""

    def __init__(
        self, source: Source, lines: tuple[int, int], cause: str, *, hint: str = "", parsing: bool = False
    ) -> None:
        super().__init__("read", ":".join(map(str, source.place(lines[0]))), cause, hint=hint)
        self.source = source
        self.lines = lines
        self.parsing = parsing

    def __str__(self) -> str:
        return f"{self.subject}: {self.cause}"

    @property
    def excerpt(self) -> str:
        """The lines that are meant, with what stands around them."""
        return self.source.excerpt(*self.lines)

    @property
    def docker_text(self) -> str:
        """The error in the classic builder's words, for those who speak to docker."""
        return f"dockerfile parse error on line {self.lines[0]}: {self.cause}"

    @property
    def buildkit_text(self) -> str:
        """The error in BuildKit's words, which names the line where an instruction is wrong in itself."""
        return self.docker_text if self.parsing else self.cause


def suggestion(wrong: str, known: tuple[str, ...] | list[str] | set[str]) -> str:
    """Return ` (did you mean X?)` for the known word that is nearest to the wrong one, "" when none is near."""
    limit = 1 if len(wrong) < 4 else 2
    letters = sorted(wrong.lower())
    near = ((_distance(wrong.lower(), word.lower(), limit), sorted(word.lower()) != letters, word) for word in known)
    distance, _, word = min(near, default=(limit + 1, False, ""))
    return f" (did you mean {word}?)" if 0 < distance <= limit else ""


def _distance(left: str, right: str, limit: int) -> int:
    """Return how many characters must be changed, added or removed; limit + 1 for more than limit."""
    if abs(len(left) - len(right)) > limit or len(left) > 100:
        return limit + 1
    row = list(range(len(right) + 1))
    for index, character in enumerate(left, 1):
        above, row[0] = row[0], index
        for column, other in enumerate(right, 1):
            above, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, above + (character != other))
    return row[-1]
