"""Files of variables, as Compose reads them: `.env` and a service's env_file.

NAME=value, `export NAME=value`, NAME alone (passed on from outside); 'single quotes' are literal, "double quotes" have
escapes and may span lines; # begins a comment after a blank. Variables are replaced but in single quotes.
Source: compose-spec 05-services.md (env_file), docker's documentation of .env files.
"""

from __future__ import annotations

import re

from ...spec.errors import Invalid
from .interpolation import BadTemplate, substitute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES_MAX = 1 << 20
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def read(path: str, outside: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables of a file in its order. outside: what variables in values mean. Raises Invalid."""
    return parse(read_text(path), path, outside)


def read_text(path: str) -> str:
    """Return a file of variables as text. Raises Invalid."""
    hint = "name a file with one NAME=value in each line"
    try:
        with open(path, "rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise Invalid("read", f"env file {path}", (error.strerror or str(error)).lower(), hint=hint) from None
    if len(data) > BYTES_MAX:
        raise Invalid("read", f"env file {path}", f"it is larger than {BYTES_MAX} bytes", hint=hint)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise Invalid("read", f"env file {path}", "it is not UTF-8", hint="save the file as UTF-8") from None


def parse(text: str, path: str, outside: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables of a file's text; None for a NAME alone that nobody outside has set. Raises Invalid."""
    return _Reader(text, path, outside).read()


class _Reader:
    def __init__(self, text: str, path: str, outside: Mapping[str, str]) -> None:
        self.text = text
        self.path = path
        self.outside = outside
        self.at = 0
        self.start = 0  # of the assignment that is read
        self.found: dict[str, str | None] = {}

    def read(self) -> dict[str, str | None]:
        while self.at < len(self.text):
            end = self._line_end()
            line = self.text[self.at : end].strip()
            if not line or line.startswith("#"):
                self.at = end + 1
                continue
            self._assignment(end)
        return self.found

    def _assignment(self, end: int) -> None:
        self.start = self.at
        match = _NAME.match(self.text, self.at, end)
        if match is None:
            raise self._wrong(f"unexpected character in variable name near {self.text[self.at : end][:40]!r}")
        name = match[1]
        separator = self.text[match.end() : match.end() + 1] if match.end() < end else ""
        if separator in ("", "#"):
            self.found[name] = self.outside.get(name)
            self.at = end + 1
            return
        if separator not in ("=", ":"):
            raise self._wrong(f"unexpected character {separator!r} in variable name {name!r}")
        self.at = match.end() + 1
        while self.at < end and self.text[self.at] in " \t":
            self.at += 1
        self.found[name] = self._value(end)

    def _value(self, end: int) -> str:
        quote = self.text[self.at : self.at + 1]
        if self.at < end and quote in ("'", '"'):
            return self._quoted(quote)
        raw = self.text[self.at : end]
        self.at = end + 1
        comment = re.search(r"(^|[ \t])#", raw)
        return self._substituted((raw[: comment.start()] if comment else raw).strip())

    def _quoted(self, quote: str) -> str:
        out = []
        at = self.at + 1
        while at < len(self.text) and self.text[at] != quote:
            c = self.text[at]
            if c == "\\" and at + 1 < len(self.text):
                at += 1
                out.append(_escaped(self.text[at], quote))
            else:
                out.append(c)
            at += 1
        if at >= len(self.text):
            raise self._wrong("a quoted value is not closed")
        self.at = at + 1
        self.at = self._line_end() + 1
        return "".join(out) if quote == "'" else self._substituted("".join(out))

    def _substituted(self, value: str) -> str:
        if "$" not in value:
            return value
        known = {**{name: set_to for name, set_to in self.found.items() if set_to is not None}, **self.outside}
        try:
            return substitute(value, known)
        except BadTemplate as error:
            raise self._wrong(str(error)) from None

    def _line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end

    def _wrong(self, cause: str) -> Invalid:
        line = self.text.count("\n", 0, self.start) + 1
        return Invalid("read", f"env file {self.path}", f"line {line}: {cause}", hint="write NAME=value")


def _escaped(c: str, quote: str) -> str:
    if quote == "'":
        return c if c == "'" else f"\\{c}"
    return _ESCAPES.get(c) or (c if c in ('"', "\\") else "$$" if c == "$" else f"\\{c}")
