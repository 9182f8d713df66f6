"""JSON at the border: bounded reading of untrusted documents, one way of writing ours.

Built on the C accelerator that the json package itself runs on: importing `json` pulls in `re`, `enum` and
`functools` for 11 ms, half of what a whole `orlop ps` may take. `tests/unit/test_jsonio.py` compares the two.
"""

from __future__ import annotations

from _json import encode_basestring, make_encoder, make_scanner

from .errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    R = TypeVar("R")

_INFINITY = float("inf")
_WHITE_SPACE = " \t\n\r"

DOCUMENT_BYTES_MAX = 4 * 1024 * 1024  # the limit that registries set for manifests


def parse(data: bytes | str, subject: str, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> object:
    """Return the value of one JSON document.

    subject names the document in errors. Raises Invalid for a document that is too large or too deep, is not
    UTF-8 or not JSON, repeats a name in an object (SEC-45: two readers would see two documents), or holds
    NaN, Infinity or half a surrogate pair (which could be read here and written nowhere).
    """
    if len(data) > bytes_max:
        raise Invalid("read", subject, f"it has {len(data)} bytes, the limit is {bytes_max}", code="E0212")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = _parse(text)
        if "\\ud" in text or "\\uD" in text:
            "".join(_encode(value, 0)).encode()
        return value
    except UnicodeEncodeError:
        raise Invalid("read", subject, "it holds half a surrogate pair, which is no character") from None
    except RecursionError:
        raise Invalid("read", subject, "it is nested too deeply", code="E0211") from None
    except ValueError as wrong:
        if str(wrong).startswith("Exceeds the limit"):  # int(), with words about the interpreter
            raise Invalid("read", subject, "a number in it has too many digits") from None
        raise Invalid("read", subject, f"it is not valid JSON: {wrong}", code="E0211") from None


def parse_object(data: bytes | str, subject: str, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> dict[str, object]:
    """Like `parse`, and the document must be a JSON object."""
    value = parse(data, subject, bytes_max=bytes_max)
    if not isinstance(value, dict):
        raise Invalid("read", subject, "it is not a JSON object", code="E0211")
    return value


def without_nul(value: R, subject: str) -> R:
    """Return the value. Raises Invalid for one with a NUL in a string: of ours, none that holds one is read again."""
    waiting: list[object] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and "\0" in one:
            raise Invalid("read", subject, "it has a NUL character in a string", hint="leave it away")
        if isinstance(one, dict):
            waiting += one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return value


def dump(value: object) -> bytes:
    """Return the compact UTF-8 form: no spaces, keys in the order given.

    A byte of a file name that is no UTF-8, as an error may quote it, becomes "?": no reader would take half a
    surrogate pair.
    """
    return "".join(_encode(value, 0)).encode("utf-8", "replace")


def _parse(text: str) -> object:
    start = len(text) - len(text.lstrip(_WHITE_SPACE))
    try:
        value, end = _scan(text, start)
    except SystemError:
        # CPython 3.11's scanner reports a syntax error as json.decoder.JSONDecodeError only when that is imported.
        import json.decoder  # noqa: F401

        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"a value is expected at character {stop.value}") from None
    if rest := text[end:].lstrip(_WHITE_SPACE):
        raise ValueError(f"there is more text after the value, at character {len(text) - len(rest)}")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {repeated!r} stands twice in one object")
    return out


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == _INFINITY:  # 1e999: it could be read, and then not be written
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _unknown_type(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Grammar:
    """What json.JSONDecoder hands to the scanner: the names are the scanner's."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse)


_scan: Callable[[str, int], tuple[object, int]] = make_scanner(_Grammar)  # type: ignore[arg-type]
_encode = make_encoder(None, _unknown_type, encode_basestring, None, ":", ",", False, False, False)
