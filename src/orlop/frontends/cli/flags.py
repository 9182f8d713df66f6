"""A parser of command lines with the grammar of Go's pflag, which docker's users type without knowing it.

A command's flags are a table: one `Flag` each. What the grammar has and argparse or click have not:
`--rm=false`, `-it=false`, `-e -x` (the next word is the value whatever it looks like), `-m512m`, `-e=A=b`, and
flags that end at the first argument when what follows belongs to another program.
Source of the grammar: the package documentation of github.com/spf13/pflag; the texts are docker's (CLI 28).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any

EXIT_FLAGS = 125  # docker: a flag that can't be parsed, whatever the command
EXIT_USAGE = 1

INT64_MAX = 2**63 - 1


class BadValue(ValueError):
    """A flag's value is refused. args: the cause in docker's words where it has some, and the next step.

    late: docker's client passes it on, and its daemon refuses it: the command ends as for every refusal of the engine.
    """

    def __init__(self, cause: str, hint: str = "", *, late: bool = False) -> None:
        super().__init__(cause)
        self.hint = hint
        self.late = late


class UsageError(Exception):
    """The command line itself is wrong: the message, the next step, the exit status, whether to show the usage.

    code: None is the status that the command has where the engine refuses.
    """

    def __init__(
        self, message: str, hint: str = "", code: int | None = EXIT_FLAGS, *, shows_usage: bool = True
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        self.shows_usage = shows_usage


class Kind:
    """A type of value. name as help shows it; bare is what a flag without a value stands for, None if it needs one.

    many: parse returns a tuple of values, where a flag may be given several times.
    attached: a letter's value may be a path right behind it ("-m/proc/1/ns/mnt"), as getopt(3) has it.
    """

    __slots__ = ("attached", "bare", "many", "name", "parse", "repeatable")

    def __init__(
        self,
        name: str,
        parse: Callable[[str], object],
        *,
        repeatable: bool = False,
        bare: str | None = None,
        many: bool = False,
        attached: bool = False,
    ) -> None:
        self.attached = attached
        self.name = name
        self.parse = parse
        self.repeatable = repeatable
        self.bare = bare
        self.many = many


class Flag:
    """One row of a command's table. short is one letter or ""; a repeatable flag's value is the tuple of all given."""

    __slots__ = ("default", "help", "hidden", "kind", "name", "short")

    def __init__(
        self, name: str, short: str, kind: Kind, help: str, *, default: object = None, hidden: bool = False
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.default = () if kind.repeatable else default
        self.hidden = hidden

    @property
    def title(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Options:
    """What was parsed: flag name -> value (its default when not given)."""

    __slots__ = ("_values", "given")

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._values: dict[str, Any] = {flag.name: flag.default for flag in flags}
        self.given: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def set(self, flag: Flag, value: object) -> None:
        if flag.kind.repeatable:
            before: tuple[object, ...] = self._values[flag.name]
            value = before + value if flag.kind.many and isinstance(value, tuple) else (*before, value)
        self._values[flag.name] = value
        self.given.add(flag.name)


def parse(
    words: Sequence[str], flags: Sequence[Flag], *, interspersed: bool, refused: Collection[str] = ()
) -> tuple[Options, list[str]]:
    """Return the options and the arguments.

    interspersed: flags may follow arguments; else the first argument ends them.
    refused: names (and letters) of docker's flags that this command does not have: the error says so.
    Raises UsageError.
    """
    return _Parser(flags, refused).parse(list(words), interspersed)


class _Parser:
    def __init__(self, flags: Sequence[Flag], refused: Collection[str]) -> None:
        self.by_name = {flag.name: flag for flag in flags}
        self.by_letter = {flag.short: flag for flag in flags if flag.short}
        self.refused = refused
        self.options = Options(flags)

    def parse(self, words: list[str], interspersed: bool) -> tuple[Options, list[str]]:
        arguments: list[str] = []
        words.reverse()  # pop() from the end is the next word
        while words:
            word = words.pop()
            if word == "--":
                break
            if word.startswith("--"):
                self._long(word, words)
            elif word.startswith("-") and word != "-":
                self._letters(word, words)
            else:
                arguments.append(word)
                if not interspersed:
                    break
        return self.options, arguments + words[::-1]

    def _long(self, word: str, words: list[str]) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}")
        flag = self.by_name.get(name)
        if flag is None:
            raise self._unknown(f"--{name}", name, f"unknown flag: --{name}")
        if equals:
            self._set(flag, value)
        elif flag.kind.bare is not None:
            self._set(flag, flag.kind.bare)
        elif words:
            self._set(flag, words.pop())
        else:
            raise UsageError(f"flag needs an argument: --{name}")

    def _letters(self, word: str, words: list[str]) -> None:
        letters = word[1:]
        while letters:
            letter, rest = letters[0], letters[1:]
            flag = self.by_letter.get(letter)
            if flag is None:
                raise self._unknown(f"-{letter}", letter, f"unknown shorthand flag: '{letter}' in -{letters}")
            letters = ""
            if rest.startswith("=") and len(rest) > 1:
                self._set(flag, rest[1:])
            elif flag.kind.attached and rest.startswith(("/", ".")):
                self._set(flag, rest)
            elif flag.kind.bare is not None:
                self._set(flag, flag.kind.bare)
                letters = rest
            elif rest or words:
                self._set(flag, rest or words.pop())
            else:
                raise UsageError(f"flag needs an argument: '{letter}' in -{letter}")

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = flag.kind.parse(text)
        except BadValue as wrong:
            message = f'invalid argument {quote(text)} for "{flag.title}" flag: {wrong}'
            code = None if wrong.late else EXIT_FLAGS
            raise UsageError(message, wrong.hint, code, shows_usage=not wrong.late) from None
        self.options.set(flag, value)

    def _unknown(self, title: str, name: str, message: str) -> UsageError:
        if name in self.refused:
            return UsageError(
                f"unsupported flag: {title}",
                f"docker has this flag, Orlop does not have it yet; leave {title} away if you can do without it",
            )
        if len(name) == 1:
            return UsageError(message)
        return UsageError(message, suggest(name, self.by_name, "--"))


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return "did you mean X?" for the nearest known word, "" when none is near."""
    import difflib  # 20 ms, only after a mistake

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else ""


def quote(text: str) -> str:
    """Return the text in double quotes with everything unprintable escaped, as Go's %q does."""
    named = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(named.get(c) or (c if c.isprintable() else escape(c)) for c in text) + '"'


def escape(c: str) -> str:
    """Return one character as a Go string literal spells it."""
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# -- the kinds that every command uses; those with a grammar of their own lie in `values` -----------------------------


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise BadValue(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax", "write true or false")


def parse_int(text: str) -> int:
    """Go's strconv.ParseInt with base 0: 10, 0x1f, 0b11, 0o17, 017, 1_000."""
    digits = text.lstrip("+-")
    try:
        if len(text) - len(digits) > 1 or len(digits) > 80 or not digits.isascii() or digits != digits.strip():
            raise ValueError
        octal = digits[0] == "0" and digits[1:].isdigit()
        value = int(digits, 8 if octal else 0)
    except (ValueError, IndexError):
        raise BadValue(
            f"strconv.ParseInt: parsing {quote(text)}: invalid syntax", "write a whole number, such as 10"
        ) from None
    value = -value if text.startswith("-") else value
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise BadValue(f"strconv.ParseInt: parsing {quote(text)}: value out of range", "write a smaller number")
    return value


def parse_text(text: str) -> str:
    return text


def parse_texts(text: str) -> tuple[str, ...]:
    """One line of CSV, as Go's pflag reads several values in one: a,"b,c". Raises BadValue."""
    if '"' not in text:
        return tuple(text.split(",")) if text else ()
    import csv

    try:
        (found,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise BadValue(
            f"{quote(text)} is not a list of parts with commas between", "quote a part that has one"
        ) from None
    return tuple(found)


BOOL = Kind("", parse_bool, bare="true")
INT = Kind("int", parse_int)
STRING = Kind("string", parse_text)
LIST = Kind("list", parse_text, repeatable=True)
MAP = Kind("map", parse_text, repeatable=True)
STRINGS = Kind("strings", parse_texts, repeatable=True, many=True)

HELP = Flag("help", "", BOOL, "Print usage", default=False)


def split_values(values: Sequence[str]) -> list[str]:
    """Return the values of a flag of kind STRINGS, one by one."""
    return [part for value in values for part in value.split(",") if part]
