"""`--env-file-format`: files of variables as docker, Compose or a shell reads them, and whether they would agree.

docker takes a line as it stands, quotes and all; Compose takes quotes away, knows comments behind values, and replaces
variables; a shell does so by its own rules. One file often means three things: whoever does not say which is warned.
Source: docker's reference of `run --env-file`; `frontends.compose.dotenv`; POSIX, Shell Command Language, 2.2, 2.6.2.
"""

from __future__ import annotations

import re

from ....spec.errors import Invalid
from ..command import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCKER, COMPOSE, SHELL = FORMATS = ("docker", "compose", "shell")
# Without one of these, all three read the same.
_TELLING = re.compile(r"""['"\\$`]|[ \t]\#|^[ \t]*export[ \t]|[ \t]$|=[ \t]|=.*[ \t;&|<>()]""", re.MULTILINE)
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)(=?)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_PLAIN = re.compile(r"""[^\\'"$`\s;&|<>()]+""")
_NAMES_SHOWN = 5


def warn_if_they_differ(path: str, data: bytes, docker: Sequence[str], outside: Mapping[str, str]) -> None:
    """Say on standard error which variables of a file Compose would read otherwise. docker: how docker reads them."""
    text = data.decode("utf-8-sig")
    if not _TELLING.search(text):
        return
    from ...compose import dotenv

    hint = f"; say --env-file-format={DOCKER} or ={COMPOSE}"
    try:
        theirs = dotenv.parse(text.replace("\r\n", "\n"), path, outside)
    except Invalid as wrong:
        warn(f"warning: env file {path} is read as docker does; Compose would not take it ({wrong.cause}){hint}")
        return
    ours = dict(line.partition("=")[::2] for line in docker)
    differing = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if differing:
        names = ", ".join(differing[:_NAMES_SHOWN]) + (" and others" if len(differing) > _NAMES_SHOWN else "")
        warn(f"warning: env file {path} is read as docker does; Compose would read {names} otherwise{hint}")


def as_compose(path: str, data: bytes, outside: Mapping[str, str]) -> list[str]:
    """Return NAME=value of each variable. Raises Invalid."""
    from ...compose import dotenv

    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise Invalid("read", f"env file {path}", "it is not UTF-8", hint="save the file as UTF-8") from None
    return [f"{name}={value}" for name, value in dotenv.parse(text, path, outside).items() if value is not None]


def as_shell(path: str, data: bytes, outside: Mapping[str, str]) -> list[str]:
    """Return what `set -a; . FILE` would set, NAME=value each; nothing is run. Raises Invalid.

    Assignments are all that such a file may have: what a shell would execute is refused.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid("read", f"env file {path}", "it is not UTF-8", hint="save the file as UTF-8") from None
    return [f"{name}={value}" for name, value in _Shell(text, path, outside).read().items()]


class _Shell:
    def __init__(self, text: str, path: str, outside: Mapping[str, str]) -> None:
        self._text = text
        self._path = path
        self._outside = outside
        self._at = 0
        self._found: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        while self._skip():
            match = _NAME.match(self._text, self._at)
            if match is None or not (match[2] or match[0].startswith("export")):
                raise self._wrong("only assignments, NAME=value, are read")
            self._at = match.end()
            if match[2]:
                self._found[match[1]] = self._word()
            elif match[1] in self._outside:
                self._found.setdefault(match[1], self._outside[match[1]])
            if self._at < len(self._text) and self._text[self._at] not in " \t\r\n;":
                raise self._wrong("only assignments, NAME=value, are read")
        return self._found

    def _skip(self) -> bool:
        """Go on to the next word, over comments; tell whether there is one."""
        text = self._text
        while self._at < len(text):
            if text[self._at] in " \t\r\n;":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                return True
        return False

    def _word(self) -> str:
        out = []
        while self._at < len(self._text):
            c = self._text[self._at]
            plain = _PLAIN.match(self._text, self._at)
            if plain:
                out.append(plain[0])
                self._at = plain.end()
            elif c == "'":
                end = self._closing("'")
                out.append(self._text[self._at + 1 : end])
                self._at = end + 1
            elif c == '"':
                out.append(self._double())
            elif c == "\\":
                out.append(self._text[self._at + 1 : self._at + 2].replace("\n", ""))
                self._at += 2
            elif c in "$`":
                out.append(self._variable())
            else:
                break
        return "".join(out)

    def _closing(self, quote: str) -> int:
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise self._wrong("a quoted value is not closed")
        return end

    def _double(self) -> str:
        start, out = self._at, []
        self._at += 1
        while self._text[self._at : self._at + 1] != '"':
            c = self._text[self._at : self._at + 1]
            if not c:
                self._at = start
                raise self._wrong("a quoted value is not closed")
            if c in "$`":
                out.append(self._variable())
                continue
            follows = self._text[self._at + 1 : self._at + 2]
            if c == "\\" and follows and follows in '$`"\\\n':
                out.append(follows.replace("\n", ""))
                self._at += 2
                continue
            out.append(c)
            self._at += 1
        self._at += 1
        return "".join(out)

    def _variable(self) -> str:
        match = _VARIABLE.match(self._text, self._at)
        if match:
            self._at = match.end()
            name = match[1] or match[2]
            return self._found.get(name, self._outside.get(name, ""))
        if self._text[self._at] == "`" or re.match(r"\$[({0-9@*#?!$'\"-]", self._text[self._at : self._at + 2]):
            raise self._wrong("a shell would run or compute something here")
        self._at += 1
        return "$"

    def _wrong(self, cause: str) -> Invalid:
        line = self._text.count("\n", 0, self._at) + 1
        return Invalid(
            "read",
            f"env file {self._path}",
            f"line {line}: {cause}",
            hint=f"correct it, or choose another of {', '.join(FORMATS)}",
        )
