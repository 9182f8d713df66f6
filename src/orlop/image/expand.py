"""Words of a Dockerfile: quotes taken off, variables replaced. Not a shell: no globs, no commands, no arithmetic.

One lexer for `build` and for the `--change` of import and commit, so that both understand the same. Bounds: the
length of what comes out, the depth of substitutions, the steps that patterns may take: `${x%*a*b*c}` is matched over
sets of positions, never by trying again, so no pattern is slower than its length times that of the value.
Source: docker's Dockerfile reference, "Environment replacement"; BuildKit's shell lexer for the corners and texts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXPANDED_CHARACTERS_MAX = 1024 * 1024  # ${a}${a} in a value doubles it; twenty times makes a million
PATTERN_STEPS_MAX = 10_000_000
_DEPTH_MAX = 16
_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")
_SPACE = frozenset(" \t\r\n\v\f\x85\xa0")
_ANY = object()
_STAR = object()


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\", unset: set[str] | None = None) -> str:
    """Return text as one word; the names that it uses and variables lacks are added to unset.

    Raises ValueError with the cause for what can't be understood.
    """
    return Lexer(text, variables, escape=escape, unset=unset).word()


def expand_words(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """Return the words of text, split at white space that is neither quoted nor escaped, after the replacement."""
    return Lexer(text, variables, escape=escape).words()


def split(text: str, escape: str = "\\") -> list[str]:
    """Return the words that white space separates, quotes and escapes still in them."""
    words = []
    word: list[str] = []
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == escape and quote != "'":
            following = next(characters, "")
            word.append(character + following if following else "")
        elif quote:
            word.append(character)
            quote = "" if character == quote else quote
        elif character in _SPACE:
            if word:
                words.append("".join(word))
            word = []
        else:
            word.append(character)
            quote = character if character in "'\"" else ""
    return [*words, "".join(word)] if word else words


def pairs(command: str, text: str, escape: str = "\\") -> tuple[tuple[tuple[str, str], ...], bool]:
    """Return name and value of `name=value ...`, and whether it is the old form `name value`.

    Quotes and escapes are still in them. Raises ValueError with docker's words; command: whose arguments they are.
    """
    words = split(text, escape)
    if not words:
        raise ValueError(f"{command} requires at least one argument")
    if "=" not in words[0]:
        name, *value = text.split(None, 1)
        if not value:
            raise ValueError(f"{command} must have two arguments")
        return ((name, value[0]),), True
    found = []
    for word in words:
        name, equals, rest = word.partition("=")
        if not equals:
            raise ValueError(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise ValueError(f"{command} names can not be blank")
        found.append((name, rest))
    return tuple(found), False


class Lexer:
    """One text on its way to a word, and to the words that it falls apart into.

    escape: the character that takes the next one's meaning. keep_quotes and keep_escapes leave them in the word;
    plain_quotes takes them for ordinary characters (the text of a heredoc); keep_unset leaves a variable that is not
    set as it is written.
    """

    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        *,
        escape: str = "\\",
        keep_quotes: bool = False,
        keep_escapes: bool = False,
        plain_quotes: bool = False,
        keep_unset: bool = False,
        unset: set[str] | None = None,
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._keep_quotes = keep_quotes
        self._keep_escapes = keep_escapes
        self._plain_quotes = plain_quotes
        self._keep_unset = keep_unset
        self._unset = set() if unset is None else unset
        self._at = 0
        self._depth = 0
        self._replaced = 0

    def word(self) -> str:
        """Return the whole text as one word; either this or `words` is called, once. Raises ValueError."""
        word = self._until("", self._keep_escapes, None)
        if len(word) > EXPANDED_CHARACTERS_MAX + len(self._text):
            raise ValueError(f"it expands to more than {EXPANDED_CHARACTERS_MAX} characters")
        return word

    def words(self) -> list[str]:
        """Return the words that the text falls apart into. Raises ValueError."""
        words = _Words()
        self._until("", self._keep_escapes, words)
        return words.taken()

    def _until(self, stop: str, keep_escapes: bool, words: _Words | None) -> str:
        """Return what stands up to the character stop (which is taken), or up to the end for ""."""
        out: list[str] = []
        while self._at < len(self._text):
            character = self._take()
            if character == stop:
                return "".join(out)
            apart = True  # white space in it separates words
            value = character
            if character == "$":
                value = self._variable()
            elif character in "'\"" and not self._plain_quotes:
                value = self._single_quoted() if character == "'" else self._double_quoted(keep_escapes)
                apart = False
            elif character == self._escape:
                value = self._take()
                value = self._escape + value if keep_escapes else value
                apart = False
            out.append(value)
            if words is not None:
                words.add(value, apart=apart)
        if stop:
            raise ValueError(f"syntax error: missing {stop!r}")
        return "".join(out)

    def _take(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise ValueError("unexpected end of statement while looking for matching single-quote")
        text = self._text[self._at : end]
        self._at = end + 1
        return f"'{text}'" if self._keep_quotes else text

    def _double_quoted(self, keep_escapes: bool) -> str:
        out: list[str] = []
        while self._at < len(self._text):
            character = self._take()
            if character == '"':
                text = "".join(out)
                return f'"{text}"' if self._keep_quotes else text
            if character == "$":
                out.append(self._variable())
            elif character == self._escape and self._peek() in ('"', "$", self._escape, ""):
                out.append(self._escape + self._take() if keep_escapes else self._take())
            else:
                out.append(character)
        raise ValueError("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        value = self._braced() if self._peek() == "{" else self._bare()
        self._replaced += len(value)
        if self._replaced > EXPANDED_CHARACTERS_MAX:
            raise ValueError(f"it expands to more than {EXPANDED_CHARACTERS_MAX} characters")
        return value

    def _bare(self) -> str:
        name = self._name()
        if not name:
            return "$"
        value = self._value(name)
        return "$" + name if value is None and self._keep_unset else value or ""

    def _braced(self) -> str:
        start = self._at - 1
        self._at += 1
        if not self._peek():
            raise ValueError("syntax error: missing '}'")
        name = "" if self._peek() in "{}:" else self._name()
        if not name:
            raise ValueError("syntax error: bad substitution")
        following = self._take()
        if following == "}":
            value = self._value(name)
            return "${" + name + "}" if value is None and self._keep_unset else value or ""
        if self._depth >= _DEPTH_MAX:
            raise ValueError("substitutions are nested too deeply")
        self._depth += 1
        value = self._modified(name, following)
        self._depth -= 1
        return self._text[start : self._at] if self._keep_unset and name not in self._variables else value

    def _modified(self, name: str, modifier: str) -> str:
        """Return the value after `:-w`, `-w`, `:+w`, `+w`, `:?w`, `?w`, `#p`, `##p`, `%p`, `%%p`, `/p/r` or `//p/r`."""
        empty_counts = modifier == ":"
        if empty_counts:
            modifier = self._take()
        if not modifier:
            raise ValueError("syntax error: missing '}'")
        if modifier not in "-+?" and (empty_counts or modifier not in "#%/"):
            raise ValueError(f"unsupported modifier ({':' * empty_counts}{modifier}) in substitution")
        if modifier in "-+?":
            return self._conditional(name, modifier, empty_counts)
        twice = self._peek() == modifier
        self._at += twice
        pattern = _pattern(self._until("/" if modifier == "/" else "}", True, None))
        if modifier == "/":
            replacement = self._until("}", False, None)
            return _replace(self._value(name) or "", pattern, replacement, everywhere=twice)
        value = self._value(name) or ""
        if modifier == "#":
            return value[_matching_prefix(value, pattern, longest=twice) :]
        end = _matching_prefix(value[::-1], pattern[::-1], longest=twice)
        return value[: len(value) - end]

    def _conditional(self, name: str, modifier: str, empty_counts: bool) -> str:
        word = self._until("}", False, None)
        value = self._value(name)
        is_set = bool(value) if empty_counts else value is not None
        if modifier == "?" and not is_set:
            raise ValueError(f"{name}: {word or ('is not allowed to be ' + ('unset' if value is None else 'empty'))}")
        if modifier == "+":
            return word if is_set else ""
        return value or "" if is_set else word

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        if value is None:
            self._unset.add(name)
        return value

    def _name(self) -> str:
        """Take a name; of digits and the shell's special parameters too, so that they become nothing."""
        start = self._at
        first = self._peek()
        if first in _SPECIAL_PARAMETERS:
            self._at += bool(first)
        elif first.isdigit():
            while self._peek().isdigit():
                self._at += 1
        else:
            while self._peek().isalnum() or self._peek() == "_":
                self._at += 1
        return self._text[start : self._at]


class _Words:
    """The words so far: white space splits them where it came unquoted."""

    __slots__ = ("_in_word", "_word", "_words")

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word: list[str] = []
        self._in_word = False

    def add(self, text: str, *, apart: bool) -> None:
        for piece in text if apart else (text,):
            if not apart or piece not in _SPACE:
                self._word.append(piece)
                self._in_word = True
            elif self._in_word:
                self._end()

    def _end(self) -> None:
        word = "".join(self._word)
        if word:
            self._words.append(word)
        self._word = []
        self._in_word = False

    def taken(self) -> list[str]:
        if self._in_word:
            self._end()
        return self._words


# -- patterns -------------------------------------------------------------------------------------------------------


def _pattern(text: str) -> list[object]:
    """Return the parts of a shell pattern without brackets: characters, any one (?), any number (*)."""
    parts: list[object] = []
    characters = iter(text)
    for character in characters:
        if character == "*":
            if parts[-1:] != [_STAR]:
                parts.append(_STAR)
        elif character == "?":
            parts.append(_ANY)
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise ValueError(f"invalid pattern ({text}) in substitution: invalid escape '\\{escaped}'")
            parts.append(escaped)
        else:
            parts.append(character)
    return parts


def _ends(value: str, start: int, pattern: list[object]) -> list[int]:
    """Return, in order, where a match of the pattern that begins at start can end."""
    ends = [start]
    for part in pattern:
        if not ends:
            break
        if part is _STAR:
            ends = list(range(ends[0], len(value) + 1))
        elif part is _ANY:
            ends = [at + 1 for at in ends if at < len(value)]
        else:
            ends = [at + 1 for at in ends if value[at : at + 1] == part]
    return ends


def _bounded(value: str, pattern: list[object], starts: int = 1) -> None:
    stars = sum(part is _STAR for part in pattern)
    if starts * len(pattern) * (len(value) + 1 if stars else 1) > PATTERN_STEPS_MAX:
        raise ValueError("matching the pattern in the substitution would take too long")


def _matching_prefix(value: str, pattern: list[object], *, longest: bool) -> int:
    _bounded(value, pattern)
    ends = _ends(value, 0, pattern)
    if not ends:
        return 0
    return ends[-1] if longest else ends[0]


def _replace(value: str, pattern: list[object], replacement: str, *, everywhere: bool) -> str:
    """Return value with the longest match at the leftmost place replaced, or each after the other."""
    _bounded(value, pattern, starts=1 if pattern[:1] == [_STAR] else len(value) + 1)
    out: list[str] = []
    at = taken = size = 0
    while pattern and at < len(value):
        ends = _ends(value, at, pattern)
        if not ends or ends[-1] == at:
            at += 1
            continue
        out += (value[taken:at], replacement)
        size += at - taken + len(replacement)
        if size > EXPANDED_CHARACTERS_MAX:
            raise ValueError(f"it expands to more than {EXPANDED_CHARACTERS_MAX} characters")
        at = taken = ends[-1]
        if not everywhere:
            break
    return "".join(out) + value[taken:]
