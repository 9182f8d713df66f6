""".dockerignore: which paths of a context are left out, exactly as docker decides it.

A pattern matches whole paths from the context's root, and so everything below a directory that it matches; the last
pattern that says something about a path wins. `*` and `?` stay in a directory, `**` crosses them, `!` takes back.

Invariant: the time for one path is at most the length of the patterns times the length of the path. Patterns with few
wildcards become regular expressions, which are fast and could be slow only with many; the others are followed in
parallel over sets of positions.
Source: docker's documentation of .dockerignore; moby's patternmatcher for the corners.
"""

from __future__ import annotations

import posixpath
import re

from orlop.spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

    Token = tuple[str, str]  # kind, and for CHARACTER and CLASS the regular expression

PATTERNS_MAX = 20_000
PATTERN_CHARACTERS_MAX = 4096
_CHARACTER, _CLASS, _ANY, _STAR, _DIRECTORIES, _REST = "character", "class", "any", "star", "directories", "rest"
_WILDCARDS_MAX = 3
_DIRECTORIES_MAX = 2
_EXPRESSIONS = {_ANY: "[^/]", _STAR: "[^/]*", _DIRECTORIES: "(?:.*/)?", _REST: ".*"}
_NAME = ".dockerignore"


def parse_lines(text: str) -> tuple[str, ...]:
    """Return the patterns of a .dockerignore: comments and empty lines gone, paths cleaned, no leading slash."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        inverted = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip()
        if pattern:
            pattern = _clean(pattern)
            pattern = pattern[1:] if len(pattern) > 1 and pattern.startswith("/") else pattern
        if pattern or inverted:
            patterns.append(f"{'!' * inverted}{pattern}")
    return tuple(patterns)


def names_for(dockerfile: str) -> tuple[str, str]:
    """Return which files are looked for, the first one first: a Dockerfile may have a .dockerignore of its own."""
    return f"{dockerfile}{_NAME}", _NAME


class Matcher:
    """Says which paths are left out. patterns: as `parse_lines` gives them, or as --exclude has them.

    Raises Invalid for a pattern that is none.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_split(pattern) for pattern in patterns if pattern.strip()]
        if len(self._patterns) > PATTERNS_MAX:
            raise Invalid("read", _NAME, f"it has more than {PATTERNS_MAX} patterns", code="E0212")
        self._groups = list(_groups(self._patterns))
        self.has_exceptions = any(inverted for inverted, _ in self._patterns)

    def excludes(self, path: str) -> bool:
        """Say whether a path is left out. path: from the context's root, without a slash at either end."""
        excluded = False
        for inverted, matches in self._groups:
            if inverted == excluded and matches(path):
                excluded = not inverted
        return excluded

    def prunes(self, path: str) -> bool:
        """Say whether a directory and everything below it is left out, so that nobody needs to look into it."""
        if not self.excludes(path):
            return False
        return not any(inverted and _could_be_below(pattern, path) for inverted, pattern in self._patterns)

    def surely_excludes(self, path: str) -> bool:
        """Say whether a COPY of this path, cleaned, is a mistake: docker does not ask where there are exceptions."""
        if self.has_exceptions:
            return False
        if path in (".", "/"):
            return any(pattern in ("*", "**", "**/*") for _, pattern in self._patterns)
        return self.excludes(path)


def _clean(path: str) -> str:
    """Return what Go's filepath.Clean makes of a path: the name of the root has one slash."""
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


def _split(pattern: str) -> tuple[bool, str]:
    """Return whether a pattern is an exception, and the cleaned rest."""
    cleaned = _clean(pattern.strip())
    inverted = cleaned.startswith("!")
    cleaned = cleaned.removeprefix("!")
    if not cleaned:
        _wrong(pattern, 'illegal exclusion pattern: "!"')
    if len(cleaned) > PATTERN_CHARACTERS_MAX:
        _wrong(pattern, f"it has more than {PATTERN_CHARACTERS_MAX} characters")
    return inverted, cleaned


def _wrong(pattern: str, cause: str) -> NoReturn:
    raise Invalid("read", f"pattern {pattern[:100]!r}", cause, hint=f"correct it in {_NAME} or --exclude")


def _could_be_below(pattern: str, directory: str) -> bool:
    """Say whether an exception can match something below a directory: its part before any wildcard decides."""
    fixed = re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        return pattern.startswith(f"{directory}/") or directory.startswith(f"{pattern}/") or pattern == directory
    return fixed.startswith(f"{directory}/") or f"{directory}/".startswith(fixed)


def _groups(patterns: Sequence[tuple[bool, str]]) -> Iterable[tuple[bool, Callable[[str], bool]]]:
    """Yield one function for each run of patterns of the same kind: the order inside a run makes no difference."""
    run: list[list[Token]] = []
    for index, (inverted, pattern) in enumerate(patterns):
        run.append(_tokens(pattern))
        if index + 1 == len(patterns) or patterns[index + 1][0] != inverted:
            yield inverted, _matches_one_of(run)
            run = []


def _matches_one_of(run: list[list[Token]]) -> Callable[[str], bool]:
    """Return whether one of these patterns matches a path, or a directory that it is in."""
    simple = [tokens for tokens in run if _is_simple(tokens)]
    hard = [tokens for tokens in run if not _is_simple(tokens)]
    expression = "|".join("".join(_expression(token) for token in tokens) for tokens in simple)
    match = re.compile(f"(?:{expression})(?:/|\\Z)", re.DOTALL).match if simple else None
    if not hard and match is not None:
        return lambda path: match(path) is not None
    return lambda path: bool(match and match(path)) or any(_follow(tokens, path) for tokens in hard)


def _is_simple(tokens: list[Token]) -> bool:
    kinds = [kind for kind, _ in tokens]
    directories = kinds.count(_DIRECTORIES) + kinds.count(_REST)
    return directories <= _DIRECTORIES_MAX and directories + kinds.count(_STAR) <= _WILDCARDS_MAX


def _expression(token: Token) -> str:
    kind, text = token
    return _EXPRESSIONS.get(kind, text)


def _tokens(pattern: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            if pattern[at : at + 1] != "*":
                tokens += [] if tokens[-1:] == [(_STAR, "")] else [(_STAR, "")]
                continue
            at += 1
            at += pattern[at : at + 1] == "/"
            token = (_REST if at == len(pattern) else _DIRECTORIES, "")
            tokens += [] if tokens[-1:] == [token] else [token]
        elif character == "?":
            tokens.append((_ANY, ""))
        elif character == "[":
            expression, at = _class(pattern, at)
            tokens.append((_CLASS, expression))
        elif character == "\\":
            if at == len(pattern):
                _wrong(pattern, "syntax error in pattern: nothing follows the backslash")
            tokens.append((_CHARACTER, re.escape(pattern[at])))
            at += 1
        else:
            tokens.append((_CHARACTER, re.escape(character)))
    return tokens


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Return the regular expression of a character class, and where it ends. at: behind the bracket."""
    inverted = pattern[at : at + 1] == "^"
    at += inverted
    parts: list[str] = []
    while pattern[at : at + 1] != "]" or not parts:
        low, at = _class_character(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_character(pattern, at + 1)
        if high < low:
            _wrong(pattern, "syntax error in pattern: a range goes backwards")
        parts.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' * inverted}{''.join(parts)}]", at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at : at + 1]
    if character == "\\":
        at += 1
        character = pattern[at : at + 1]
    elif character in ("-", "]"):
        character = ""
    if not character:
        _wrong(pattern, "syntax error in pattern: a bracket is not closed")
    return character, at + 1


def _follow(tokens: list[Token], path: str) -> bool:
    """Say whether a pattern matches a path or a directory that it is in, all possibilities at the same time."""
    places = [0]
    for kind, text in tokens:
        if not places:
            return False
        if kind == _REST:
            return True
        if kind == _DIRECTORIES:
            behind = [at + 1 for at in range(places[0], len(path)) if path[at] == "/"]
            places = sorted({*places, *behind})
        elif kind == _STAR:
            places = _until_slash(places, path)
        elif kind == _ANY:
            places = [at + 1 for at in places if at < len(path) and path[at] != "/"]
        else:
            fits = re.compile(text, re.DOTALL).match
            places = [at + 1 for at in places if at < len(path) and fits(path, at)]
    return any(at == len(path) or path[at] == "/" for at in places)


def _until_slash(places: list[int], path: str) -> list[int]:
    reached: list[int] = []
    for place in places:
        at = max(place, reached[-1] + 1 if reached else 0)
        if reached and place <= reached[-1]:
            continue
        reached.append(at)
        while at < len(path) and path[at] != "/":
            at += 1
            reached.append(at)
    return reached
