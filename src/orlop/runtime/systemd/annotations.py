"""Annotations that give a unit properties: `org.systemd.property.NAME` with a value in GVariant's text format.

The form is runc's (libcontainer/specconv, initSystemdProps). Read are booleans, numbers with or without their type,
strings and lists of one of these; what else GVariant can say (tuples, dictionaries, maybes) is refused.
Source: GLib, "GVariant Text Format"; systemd, org.freedesktop.systemd1(5).
"""

from ...spec.errors import Invalid
from .wire import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .unit import Property

PREFIX = "org.systemd.property."
VALUE_CHARACTERS_MAX = 4096
_NAME_CHARACTERS_MIN = 3
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _LETTERS | frozenset("0123456789+-.")
_USEC_PER_SEC = 1_000_000
# Word before a number -> D-Bus type, least and most.
_INTEGERS = {
    "byte": ("y", 0, 2**8 - 1), "int16": ("n", -(2**15), 2**15 - 1), "uint16": ("q", 0, 2**16 - 1),
    "int32": ("i", -(2**31), 2**31 - 1), "uint32": ("u", 0, 2**32 - 1), "handle": ("h", 0, 2**31 - 1),
    "int64": ("x", -(2**63), 2**63 - 1), "uint64": ("t", 0, 2**64 - 1),
}  # fmt: skip
_TEXTS = {"string": "s", "objectpath": "o", "signature": "g"}
_BOUNDS = {kind: (low, high) for kind, low, high in _INTEGERS.values()}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def properties(annotations: dict[str, str]) -> "tuple[Property, ...]":
    """Return the properties that annotations ask for. Raises Invalid, naming the annotation."""
    found = []
    for key, text in annotations.items():
        name = key.removeprefix(PREFIX)
        if name == key or not name:
            continue
        if len(name) < _NAME_CHARACTERS_MIN or not _LETTERS.issuperset(name):
            raise _invalid(key, f"{name[:40]!r} is no name of a property")
        value = parse(text, key)
        stem = name.removesuffix("Sec")
        if stem != name and stem[-1:].islower():  # systemd takes times as microseconds, people write seconds
            name, value = f"{stem}USec", _microseconds(value, key)
        found.append((name, value))
    return tuple(found)


def parse(text: str, subject: str) -> Variant:
    """Return the value that a text describes. subject names it in errors. Raises Invalid."""
    if len(text) > VALUE_CHARACTERS_MAX:
        raise _invalid(subject, f"its value has {len(text)} characters, the limit is {VALUE_CHARACTERS_MAX}")
    reader = _Reader(text, subject)
    value = reader.value()
    reader.end()
    return value


def _microseconds(value: Variant, subject: str) -> Variant:
    number = value.value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _invalid(subject, "a time is a number of seconds")
    exact = number * _USEC_PER_SEC
    if not 0 <= exact <= _BOUNDS["t"][1]:
        raise _invalid(subject, f"{number} seconds are no time")
    return Variant("t", int(exact))


class _Reader:
    __slots__ = ("_at", "_subject", "_text")

    def __init__(self, text: str, subject: str) -> None:
        self._text = text
        self._subject = subject
        self._at = 0

    def value(self) -> Variant:
        first = self._peek()
        if first in ("'", '"'):
            return Variant("s", self._string())
        if first == "[":
            return self._list()
        word = self._word()
        if word in ("true", "false"):
            return Variant("b", word == "true")
        if word == "boolean":
            word = self._word()
            return self._typed("b", Variant("b", word == "true") if word in ("true", "false") else self._number(word))
        if word in _TEXTS:
            return Variant(_TEXTS[word], self._string())
        if word in _INTEGERS:
            kind, low, high = _INTEGERS[word]
            return Variant(kind, self._integer(self._word(), low, high))
        if word == "double":
            return Variant("d", self._double(self._word()))
        return self._number(word)

    def end(self) -> None:
        if self._peek():
            raise self._wrong(f"{self._text[self._at :][:20]!r} stands behind the value")

    def _peek(self) -> str:
        while self._text[self._at : self._at + 1] in (" ", "\t", "\n"):
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _word(self) -> str:
        self._peek()
        start = self._at
        while self._text[self._at : self._at + 1] in _WORD:
            self._at += 1
        if start == self._at:
            raise self._wrong(f"{self._text[start : start + 20]!r} is no value that this version reads")
        return self._text[start : self._at]

    def _list(self) -> Variant:
        self._at += 1
        values: list[Variant] = []
        while self._peek() != "]":
            if values:
                self._comma()
            if self._peek() == "[":
                raise self._wrong("a list of lists is not read by this version")
            values.append(self.value())
        self._at += 1
        kinds = {value.signature for value in values}
        if len(kinds) != 1:
            raise self._wrong("a list has values of one type, and one at least")
        return Variant(f"a{kinds.pop()}", [value.value for value in values])

    def _comma(self) -> None:
        if self._peek() != ",":
            raise self._wrong("between two values of a list stands a comma")
        self._at += 1

    def _string(self) -> str:
        quote = self._peek()
        if quote not in ("'", '"') or not quote:
            raise self._wrong("a text stands in quotes")
        self._at += 1
        found = []
        while (letter := self._text[self._at : self._at + 1]) != quote:
            if not letter:
                raise self._wrong("a text is not closed")
            self._at += 1
            found.append(self._escaped() if letter == "\\" else letter)
        self._at += 1
        text = "".join(found)
        if "\0" in text or any(0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise self._wrong("a text has a character that D-Bus does not carry")
        return text

    def _escaped(self) -> str:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        digits = {"u": 4, "U": 8}.get(letter)
        if digits is None:
            return _ESCAPES.get(letter, letter)
        number = self._text[self._at : self._at + digits]
        self._at += digits
        try:
            return chr(int(number, 16)) if number.isalnum() and len(number) == digits else ""
        except (ValueError, OverflowError):
            raise self._wrong(f"{number!r} is no number of a character") from None

    def _number(self, word: str) -> Variant:
        if "." in word or (word[:2].lower() != "0x" and "e" in word.lower()):
            return Variant("d", self._double(word))
        number = self._integer(word, *_BOUNDS["x"])
        low, high = _BOUNDS["i"]
        return Variant("i" if low <= number <= high else "x", number)

    def _integer(self, word: str, low: int, high: int) -> int:
        try:
            number = int(word, 16 if word.lstrip("+-")[:2].lower() == "0x" else 10)
        except ValueError:
            raise self._wrong(f"{word[:20]!r} is no value that this version reads") from None
        if not low <= number <= high:
            raise self._wrong(f"{word[:20]} is not in {low}..{high}")
        return number

    def _double(self, word: str) -> float:
        try:
            number = float(word)
        except ValueError:
            raise self._wrong(f"{word[:20]!r} is no number") from None
        if number - number != 0:
            raise self._wrong(f"{word[:20]!r} is no finite number")
        return number

    def _typed(self, kind: str, value: Variant) -> Variant:
        if value.signature != kind:
            raise self._wrong("a boolean is true or false")
        return value

    def _wrong(self, cause: str) -> Invalid:
        return _invalid(self._subject, cause)


def _invalid(subject: str, cause: str) -> Invalid:
    hint = f"write it as GVariant's text, for instance {PREFIX}TimeoutStopSec: uint64 5"
    return Invalid("read", f"the annotation {subject[:80]}", cause, hint=hint)
