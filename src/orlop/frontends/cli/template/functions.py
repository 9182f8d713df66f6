"""The functions of a template: Go's own, and those that docker adds (json, split, join, title, upper, pad ...)."""

from __future__ import annotations

from ..flags import quote
from . import shapes
from .values import is_true, show, to_json, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OUTPUT_WIDTH_MAX = 1000


def _print(*values: object) -> str:
    """Go's Sprint: a blank between two neighbours that are both no strings."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += show(value)
    return out


def _println(*values: object) -> str:
    return " ".join(map(show, values)) + "\n"


def _printf(form: str, *values: object) -> str:
    out = []
    rest = list(values)[::-1]
    pieces = form.split("%")
    out.append(pieces.pop(0))
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        if not piece:
            out.append("%" + (pieces.pop() if pieces else "!(NOVERB)"))
            continue
        at = len(piece) - len(piece.lstrip("+-# 0123456789."))
        flags, verb = piece[:at], piece[at : at + 1]
        out.append(_verb(flags, verb, rest.pop()) if rest else f"%!{verb}(MISSING)")
        out.append(piece[at + 1 :])
    if rest:
        out.append(f"%!(EXTRA {', '.join(f'{type_name(value)}={show(value)}' for value in rest[::-1])})")
    return "".join(out)


def _verb(flags: str, verb: str, value: object) -> str:
    for number_text in flags.lstrip("+-# 0").split("."):
        if number_text and int(number_text) > OUTPUT_WIDTH_MAX:
            raise ValueError(f"{number_text} is too wide")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if verb in ("d", "x", "X", "o") and number and isinstance(value, int):
        return f"%{flags}{verb}" % value
    if verb in ("f", "e", "g", "F", "E", "G") and isinstance(value, float):
        return f"%{flags}{verb}" % value
    if verb in ("x", "X") and isinstance(value, str):
        digits = value.encode("utf-8", "surrogateescape").hex()
        return f"%{flags.replace('#', '')}s" % (digits if verb == "x" else digits.upper())
    if verb == "v" and "+" in flags and isinstance(value, dict):
        return shapes.show(value, show, named=True) or show(value)
    text = {"v": show, "s": show, "q": _quoted, "t": show}.get(verb)
    if verb == "c" and isinstance(value, int):
        return chr(value)
    if verb == "T":
        return type_name(value)
    if text is None or (verb == "s" and number) or (verb == "t" and not isinstance(value, bool)):
        return f"%!{verb}({type_name(value)}={show(value)})"
    return f"%{flags.replace('+', '').replace('#', '')}s" % text(value)


def _quoted(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_quoted, value))}]"
    return quote(show(value))


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, (list, dict)):
        return len(value)
    raise TypeError(f"len of type {type_name(value)}")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(str(key), "")
        elif isinstance(value, (list, str)):
            if not isinstance(key, int) or isinstance(key, bool):
                raise TypeError(f"cannot index slice/array with type {type_name(key)}")
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key] if isinstance(value, list) else ord(value[key])
        else:
            raise TypeError("index of untyped nil" if value is None else f"can't index item of type {type_name(value)}")
    return value


def _slice(value: object, *bounds: int) -> object:
    if not isinstance(value, (str, list)):
        raise TypeError(f"can't slice item of type {type_name(value)}")
    start, end = (bounds + (0, len(value))[len(bounds) :])[:2]
    if not 0 <= start <= end <= len(value):
        raise IndexError(f"index out of range: {end if start <= len(value) else start}")
    return value[start:end]


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise TypeError("missing argument for comparison")
    return any(_compare(first, other, "==") for other in others)


def _compare(first: object, second: object, sign: str) -> bool:
    kinds = {_comparison_kind(first), _comparison_kind(second)}
    if len(kinds) > 1 and not (sign == "==" and None in (first, second)):
        raise TypeError("incompatible types for comparison")
    if sign == "==":
        return first == second
    if not isinstance(first, (int, float, str)) or isinstance(first, bool):
        raise TypeError("invalid type for comparison")
    return first < second  # type: ignore[operator]


def _comparison_kind(value: object) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def _join(items: object, separator: str) -> str:
    if not isinstance(items, list):
        raise TypeError(f"wrong type for value; expected []string; got {type_name(items)}")
    return separator.join(map(show, items))


def _truncate(text: str, length: int) -> str:
    return text if len(text) < length else text[: max(length, 0)]


def _pad(text: str, before: int, after: int) -> str:
    """docker's pad: nothing for an empty text."""
    if max(before, after) > OUTPUT_WIDTH_MAX:
        raise ValueError(f"more than {OUTPUT_WIDTH_MAX} blanks")
    return f"{' ' * before}{text}{' ' * after}" if text else text


def _title(text: str) -> str:
    """Go's strings.Title: the first letter of each word."""
    out, starts = [], True
    for c in text:
        out.append(c.upper() if starts else c)
        starts = not (c.isalnum() or c in "_'")
    return "".join(out)


def _on_text(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function with a check that its first argument is a string."""

    def checked(text: object, *others: object) -> object:
        if not isinstance(text, str):
            raise TypeError(f"wrong type for value; expected string; got {type_name(text)}")
        return function(text, *others)

    return checked


FUNCTIONS: dict[str, Callable[..., object]] = {
    "and": lambda *_: None,  # these two stop early: see _Command
    "or": lambda *_: None,
    "eq": _equal,
    "ge": lambda first, second: not _compare(first, second, "<"),
    "gt": lambda first, second: not _compare(first, second, "<") and not _compare(first, second, "=="),
    "index": _index,
    "join": _join,
    "json": to_json,
    "le": lambda first, second: _compare(first, second, "<") or _compare(first, second, "=="),
    "len": _length,
    "lower": _on_text(str.lower),
    "lt": lambda first, second: _compare(first, second, "<"),
    "ne": lambda first, second: not _compare(first, second, "=="),
    "not": lambda value: not is_true(value),
    "pad": _on_text(_pad),
    "print": _print,
    "printf": _on_text(_printf),
    "println": _println,
    "slice": _slice,
    "split": _on_text(lambda text, separator: text.split(separator) if separator else list(text)),
    "title": _on_text(_title),
    "truncate": _on_text(_truncate),
    "upper": _on_text(str.upper),
}
