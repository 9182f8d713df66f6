"""Words of a Dockerfile: quotes taken off, variables replaced. Not a shell: no globs, no commands, no arithmetic.

Source: docker's Dockerfile reference, "Environment replacement"; BuildKit's shell lexer for the corners and texts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXPANDED_CHARACTERS_MAX = 1024 * 1024  # ${a}${a} in a value doubles it; twenty times makes a million
_DEPTH_MAX = 16
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME = _NAME_START | frozenset("0123456789")
_SPACE = frozenset(" \t\r\n\v\f")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return text as one word. Raises ValueError with the cause for what can't be understood."""
    word = _Lexer(text, variables, 0).word("")
    if len(word) > EXPANDED_CHARACTERS_MAX:
        raise ValueError(f"it expands to more than {EXPANDED_CHARACTERS_MAX} characters")
    return word


def split(text: str) -> list[str]:
    """Return the words that white space separates, quotes and escapes still in them."""
    words = []
    word = ""
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\" and quote != "'":
            word += character + next(characters, "")
        elif quote:
            word += character
            quote = "" if character == quote else quote
        elif character in _SPACE:
            if word:
                words.append(word)
            word = ""
        else:
            word += character
            quote = character if character in "'\"" else ""
    return [*words, word] if word else words


class _Lexer:
    __slots__ = ("_at", "_depth", "_text", "_variables")

    def __init__(self, text: str, variables: Mapping[str, str], depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise ValueError("substitutions are nested too deeply")
        self._text = text
        self._at = 0
        self._variables = variables
        self._depth = depth

    def word(self, stop: str) -> str:
        """Return what stands up to the character stop (which is taken), or up to the end for ""."""
        out: list[str] = []
        while self._at < len(self._text):
            character = self._take()
            if character == stop:
                return "".join(out)
            if character == "'":
                out.append(self._until("'", "single"))
            elif character == '"':
                out.append(self._double_quoted())
            elif character == "\\":
                out.append(self._take() or "\\")
            elif character == "$":
                out.append(self._variable())
            else:
                out.append(character)
        if stop:
            raise ValueError(f"syntax error: missing {stop!r}")
        return "".join(out)

    def _take(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _until(self, quote: str, name: str) -> str:
        end = self._text.find(quote, self._at)
        if end < 0:
            raise ValueError(f"unexpected end of statement while looking for matching {name}-quote")
        text = self._text[self._at : end]
        self._at = end + 1
        return text

    def _double_quoted(self) -> str:
        out: list[str] = []
        while self._at < len(self._text):
            character = self._take()
            if character == '"':
                return "".join(out)
            if character == "$":
                out.append(self._variable())
            elif character == "\\":
                following = self._take()
                out.append(following if following in ('"', "$", "\\") else "\\" + following)
            else:
                out.append(character)
        raise ValueError("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        if not name:
            raise ValueError("syntax error: bad substitution")
        following = self._take()
        if following == "}":
            return self._variables.get(name, "")
        empty_counts = following == ":"
        modifier = self._take() if empty_counts else following
        word = self._nested_word()
        value = self._variables.get(name)
        is_set = bool(value) if empty_counts else value is not None
        if modifier == "-":
            return (value or "") if is_set else word
        if modifier == "+":
            return word if is_set else ""
        if modifier == "?":
            if not is_set:
                raise ValueError(f"{name}: {word or 'not set'}")
            return value or ""
        raise ValueError(f"unsupported modifier ({following}{modifier if empty_counts else ''}) in substitution")

    def _nested_word(self) -> str:
        lexer = _Lexer(self._text, self._variables, self._depth + 1)
        lexer._at = self._at
        word = lexer.word("}")
        self._at = lexer._at
        return word

    def _name(self) -> str:
        start = self._at
        if self._text[start : start + 1] in _NAME_START:
            while self._text[self._at : self._at + 1] in _NAME and self._at < len(self._text):
                self._at += 1
        return self._text[start : self._at]
