"""Variables in compose files: $NAME, ${NAME}, the forms with a default, an error or a replacement, nested; $$ is $.

Source: compose-spec, 12-interpolation.md.
"""

from __future__ import annotations

from .document import List, Map, Place, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

_OPERATORS = (":-", ":?", ":+", "-", "?", "+")  # the longer ones first
DEPTH_MAX = 32


class Template(str):
    """Text with variables that stay as they are written: whoever reads a value keeps what it can't read yet."""

    __slots__ = ()


class BadTemplate(ValueError):
    """The text is no template, or asks for an error itself (`${NAME:?text}`)."""


def substitute(text: str, variables: Mapping[str, str], missing: Callable[[str], None] = lambda _: None) -> str:
    """Return the text with its variables replaced. missing is told of one that is not set. Raises BadTemplate."""
    return _Template(text, variables, missing).until_end()


class _Template:
    def __init__(self, text: str, variables: Mapping[str, str], missing: Callable[[str], None]) -> None:
        self.text = text
        self.at = 0
        self.variables = variables
        self.missing = missing

    def until_end(self) -> str:
        return self._words("", 0)

    def _words(self, end: str, depth: int) -> str:
        """Read on to `end` (not consumed), or to the end of the text."""
        if depth > DEPTH_MAX:
            raise BadTemplate("it is nested too deeply")
        out = []
        while self.at < len(self.text) and self.text[self.at] != end:
            if self.text[self.at] == "$":
                out.append(self._variable(depth))
                continue
            stop = min(
                (at for c in ("$", end or "$") if (at := self.text.find(c, self.at)) >= 0), default=len(self.text)
            )
            out.append(self.text[self.at : stop])
            self.at = stop
        if end and self.at >= len(self.text):
            raise BadTemplate("a brace is not closed")
        return "".join(out)

    def _variable(self, depth: int) -> str:
        self.at += 1
        following = self.text[self.at : self.at + 1]
        if following == "$":
            self.at += 1
            return "$"
        if following != "{":
            return self._value(self._name())
        self.at += 1
        name = self._name()
        operator = next((one for one in _OPERATORS if self.text.startswith(one, self.at)), "")
        self.at += len(operator)
        if not operator:
            self._close()
            return self._value(name)
        return self._operation(name, operator, depth)

    def _operation(self, name: str, operator: str, depth: int) -> str:
        """Read the word behind an operator, and the brace; return what they stand for."""
        start = self.at
        is_used = self._uses_word(name, operator)
        word = self._words("}", depth + 1) if is_used else self._skip(depth)
        self._close()
        if operator.endswith("?") and is_used:
            raise BadTemplate(f"required variable {name} is missing a value: {word or self.text[start : self.at - 1]}")
        if operator.endswith("+"):
            return word if is_used else ""
        return word if is_used else self.variables[name]

    def _uses_word(self, name: str, operator: str) -> bool:
        value = self.variables.get(name)
        is_there = bool(value) if operator[0] == ":" else value is not None
        return is_there if operator.endswith("+") else not is_there

    def _skip(self, depth: int) -> str:
        """Read a word that is not used: what it lacks nobody misses."""
        told, self.missing = self.missing, lambda _: None
        start = self.at
        try:
            return self._words("}", depth + 1)
        except BadTemplate as error:
            if not str(error).startswith("required variable"):
                raise
            self.at = start
            nested = 0
            while self.at < len(self.text) and (self.text[self.at] != "}" or nested):
                nested += {"{": 1, "}": -1}.get(self.text[self.at], 0)
                self.at += 1
            return ""
        finally:
            self.missing = told

    def _value(self, name: str) -> str:
        value = self.variables.get(name)
        if value is None:
            self.missing(name)
        return value or ""

    def _name(self) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] == "_"):
            self.at += 1
        name = self.text[start : self.at]
        if not name or not name.isascii() or name[0].isdigit():
            raise BadTemplate("a variable's name is missing; write $$ for a dollar sign")
        return name

    def _close(self) -> None:
        if self.text[self.at : self.at + 1] != "}":
            raise BadTemplate("a brace is not closed")
        self.at += 1


class Variable:
    """What a document says of one variable; None: nothing. alternate: what stands for a value that is set."""

    __slots__ = ("alternate", "default", "is_required")

    def __init__(self) -> None:
        self.is_required = False
        self.default: str | None = None
        self.alternate: str | None = None


def variables(document: Any) -> dict[str, Variable]:
    """Return the variables that a document's values ask for, those in the defaults of others too, by name."""
    found: dict[str, Variable] = {}
    for value in _texts(document):
        try:
            _Collector(value, found).until_end()
        except BadTemplate:
            continue  # what it lacks is told where it is used
    return dict(sorted(found.items()))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


class _Collector(_Template):
    """Reads a template without replacing anything: every word counts, used or not."""

    def __init__(self, text: str, found: dict[str, Variable]) -> None:
        super().__init__(text, {}, lambda _: None)
        self._found = found

    def _value(self, name: str) -> str:
        self._found.setdefault(name, Variable())
        return ""

    def _operation(self, name: str, operator: str, depth: int) -> str:
        start = self.at
        self._words("}", depth + 1)
        word = self.text[start : self.at]
        self._close()
        variable = self._found.setdefault(name, Variable())
        if operator.endswith("?"):
            variable.is_required = True
        elif operator.endswith("+"):
            variable.alternate = word
        else:
            variable.default = word
        return ""


def as_written(document: Map) -> Map:
    """Return the document with the values that have variables marked as templates."""
    return _Marker().map(document, "")


def interpolate(document: Map, variables: Mapping[str, str], missing: Callable[[str], None]) -> Map:
    """Return the document with the variables of its values (not of its keys) replaced. Raises Invalid."""
    return _Walk(variables, missing).map(document, "")


class _Walk:
    def __init__(self, variables: Mapping[str, str], missing: Callable[[str], None]) -> None:
        self.variables = variables
        self.missing = missing

    def map(self, found: Map, path: str) -> Map:
        prefix = f"{path}." if path else ""
        return found.like(
            {key: self._value(value, f"{prefix}{key}", found.places[key]) for key, value in found.items()}
        )

    def _value(self, value: Any, path: str, place: Place) -> Any:
        if isinstance(value, str):
            return self._text(value, path, place) if "$" in value else value
        if isinstance(value, Map):
            return self.map(value, path)
        if isinstance(value, List):
            made = List(value.place)
            made.places = value.places
            pairs = zip(value, value.places, strict=True)
            made += [self._value(item, f"{path}[{at}]", where) for at, (item, where) in enumerate(pairs)]
            return made
        return value

    def _text(self, value: str, path: str, place: Place) -> str:
        try:
            return substitute(value, self.variables, self.missing)
        except BadTemplate as error:
            hint = "write ${NAME}, ${NAME:-default}, or $$ for a dollar sign"
            cause = str(error)
            if not cause.startswith("required variable"):
                cause = f'invalid interpolation format: {cause}: "{value[:80]}"'
            raise wrong(place, path, cause, hint) from None


class _Marker(_Walk):
    """Marks instead of replacing."""

    def __init__(self) -> None:
        super().__init__({}, lambda _: None)

    def _text(self, value: str, path: str, place: Place) -> str:
        return Template(value) if "$" in value.replace("$$", "") else value
