"""The forms in which an instruction's arguments are written: flags, JSON, words, NAME=value.

Errors are ValueError with docker's words: whoever knows the line makes an error of the Dockerfile of it.
"""

from __future__ import annotations

import json

from .source import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SPACE = " \t\v\f\r"
_JSON = json.JSONDecoder(strict=True)


def first_word(text: str) -> tuple[str, str]:
    """Return the first word of a line and what follows it."""
    text = text.strip()
    word = text
    for at, character in enumerate(text):
        if character in _SPACE:
            word = text[:at]
            break
    return word, text[len(word) :].strip()


def command_and_flags(line: str) -> tuple[str, list[str], str]:
    """Return an instruction's word, its leading `--name[=value]` words with quotes taken off, and the rest."""
    word, rest = first_word(line)
    flags = []
    at = 0
    while rest.startswith("--", at):
        flag, at = _flag(rest, at)
        if flag == "--":
            break
        flags.append(flag)
    return word, flags, rest[at:]


def _flag(text: str, at: int) -> tuple[str, int]:
    """Return the flag that begins at a place, and where the next word begins."""
    out = []
    quote = ""
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
            out.append(text[at : at + 1])
        elif quote:
            out.append("" if character == quote else character)
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character.isspace():
            break
        else:
            out.append(character)
        at += 1
    while at < len(text) and text[at].isspace():
        at += 1
    return "".join(out), at


class Flags:
    """The flags of one instruction, checked against those that it has.

    Every `take` names a flag; `done` refuses the others. A flag that may be given once is refused the second time.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._given: dict[str, list[str | None]] = {}
        self._known: list[str] = []
        for word in words:
            name, equals, value = word[2:].partition("=")
            self._given.setdefault(name, []).append(value if equals else None)

    def text(self, name: str) -> str:
        """Return the value of a flag, "" when it is not given."""
        value = self._once(name)
        if value is None and name in self._given:
            raise ValueError(f"missing a value on flag: {name}")
        return value or ""

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of a flag that may be repeated."""
        self._known.append(name)
        values = self._given.get(name, [])
        if None in values:
            raise ValueError(f"missing a value on flag: {name}")
        return tuple(value or "" for value in values)

    def boolean(self, name: str) -> bool | None:
        """Return the value of a switch; None when it is not given, True when it has no value."""
        value = self._once(name)
        if name not in self._given:
            return None
        if value is None or value.lower() == "true":
            return True
        if value.lower() == "false":
            return False
        raise ValueError(f"expecting boolean value for flag {name}, not: {value}")

    def done(self) -> None:
        """Refuse the flags that nobody took."""
        for name in self._given:
            if name not in self._known:
                raise ValueError(f"unknown flag: --{name}{suggestion(name, self._known)}")

    def _once(self, name: str) -> str | None:
        self._known.append(name)
        values = self._given.get(name, [])
        if len(values) > 1:
            raise ValueError(f"duplicate flag specified: {name}")
        return values[0] if values else None


def json_words(text: str) -> tuple[str, ...] | None:
    """Return the words of a JSON array; None for anything else, which then is the shell form.

    What follows the array is left unread, as docker does. Raises ValueError for an array that holds not only strings.
    """
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        value, _ = _JSON.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise ValueError("when using JSON array syntax, arrays must be comprised of strings only")
    if any("\0" in word or _has_surrogate(word) for word in value):
        raise ValueError("a word of the JSON array has a character that can't be passed on")
    return tuple(value)


def _has_surrogate(word: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in word)


def words(text: str) -> tuple[str, ...]:
    """Return what white space separates; quotes mean nothing."""
    return tuple(text.split())


def json_or_words(text: str) -> tuple[str, ...]:
    """Return the words of a JSON array, or else what white space separates."""
    found = json_words(text)
    return words(text) if found is None else found


def integer(text: str, base: int, cause: str, maximum: int = 2**32 - 1) -> int:
    """Return a number without sign. Raises ValueError with the cause."""
    digits = "01234567" if base == 8 else "0123456789"
    if not text or len(text) > 12 or text.strip(digits):
        raise ValueError(cause)
    number = int(text, base)
    if number > maximum:
        raise ValueError(cause)
    return number


def boolean(text: str) -> bool | None:
    """Return what Go's strconv.ParseBool makes of a text, None for what it refuses."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    return None
