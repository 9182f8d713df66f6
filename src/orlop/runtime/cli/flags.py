"""Flags as runc's callers write them: Go's grammar (-flag, --flag, --flag=value, --flag value), flags before arguments.

A command's flags are a table of `Flag`s. Parsing stops at the first argument that is no flag, or after "--".
"""

from __future__ import annotations

from ...spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


_DIGITS_MAX = 18  # of an int64


class Flag:
    """One flag. names: without dashes, the first is the key. kind: "bool", "string", "int" or "list"."""

    __slots__ = ("help", "kind", "names")

    def __init__(self, names: str, kind: str, help: str) -> None:
        self.names = names.split()
        self.kind = kind
        self.help = help

    @property
    def default(self) -> object:
        """The value of a flag that was not given."""
        return {"bool": False, "string": "", "int": 0, "list": ()}[self.kind]


class Flags:
    """What was given: typed access by the flag's first name."""

    __slots__ = ("_given", "_values")

    def __init__(self, values: dict[str, object], given: set[str]) -> None:
        self._values = values
        self._given = given

    def given(self, name: str) -> bool:
        """Return whether the flag stood on the command line."""
        return name in self._given

    def on(self, name: str) -> bool:
        """Return a boolean flag."""
        return bool(self._values[name])

    def text(self, name: str) -> str:
        """Return a string flag, "" when it was not given."""
        return str(self._values[name])

    def number(self, name: str) -> int:
        """Return an integer flag, 0 when it was not given."""
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of a flag that may be repeated."""
        value = self._values[name]
        assert isinstance(value, tuple)
        return value


def parse(argv: Sequence[str], table: Sequence[Flag], command: str) -> tuple[Flags, list[str]]:
    """Return (flags, arguments). Raises Invalid with the words of Go's flag package."""
    by_name = {name: flag for flag in table for name in flag.names}
    values = {flag.names[0]: flag.default for flag in table}
    given: set[str] = set()
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        flag = by_name.get(name)
        if flag is None or word.startswith("---"):
            raise _wrong(command, f"flag provided but not defined: -{name[:40]}")
        if flag.kind != "bool" and not equals:
            if not rest:
                raise _wrong(command, f"flag needs an argument: -{name}")
            value = rest.pop(0)
        key = flag.names[0]
        given.add(key)
        converted = _converted(flag, name, value if equals or flag.kind != "bool" else "true", command)
        earlier = values[key]
        values[key] = (*earlier, converted) if isinstance(earlier, tuple) else converted
    return Flags(values, given), rest


def _converted(flag: Flag, name: str, value: str, command: str) -> object:
    if flag.kind == "bool":
        truth = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}.get(value.lower())
        if truth is None:
            raise _wrong(command, f'invalid boolean value "{value[:40]}" for -{name}')
        return truth
    if flag.kind == "int":
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX):
            raise _wrong(command, f'invalid value "{value[:40]}" for flag -{name}: it is not an integer')
        return int(value)
    return value


def _wrong(command: str, cause: str) -> Invalid:
    return Invalid("run", f"orlop-runtime {command}".rstrip(), cause, hint=f"see orlop-runtime {command} --help")


def usage(command: str, arguments: str, summary: str, table: Sequence[Flag]) -> str:
    """Return the help text of a command."""
    lines = [
        f"NAME:\n   orlop-runtime {command} - {summary}",
        f"\nUSAGE:\n   orlop-runtime {command} {arguments}\n\nOPTIONS:",
    ]
    for flag in table:
        names = ", ".join(("-" if len(name) == 1 else "--") + name for name in flag.names)
        lines.append(f"   {names + (' value' if flag.kind != 'bool' else ''):<30} {flag.help}")
    return "\n".join(lines)
