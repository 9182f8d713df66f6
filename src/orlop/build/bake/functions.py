"""The functions of bake files. They take and give plain values, and raise ValueError or TypeError for wrong ones.

Left out, and refused by name: bcrypt and rsadecrypt. Source: docker's Bake documentation, "Standard library functions".
"""

from __future__ import annotations

import hashlib
import math
import posixpath
import re
from base64 import b64decode, b64encode
from urllib.parse import quote_plus

from .evaluate import bounded, calculate, evaluate, kind_of, same, to_bool, to_number, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .evaluate import Scope
    from .syntax import Expression

RANGE_MAX = 10_000
PATTERN_CHARACTERS_MAX = 1000
# Go's encoder writes them so, for those who put JSON into HTML.
JSON_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_UNSAFE_TARGET = re.compile(r"[^a-zA-Z0-9_-]+")


def user_function(
    parameters: list[str], variadic: str, result: Expression, scope: Callable[[], Scope]
) -> Callable[..., Any]:
    """Return a function that a file defines. variadic: the parameter that takes the rest, "" for none."""

    def call(*arguments: Any) -> Any:
        if len(arguments) < len(parameters) or (len(arguments) > len(parameters) and not variadic):
            raise ValueError(f"it takes {len(parameters)} arguments, not {len(arguments)}")
        local = dict(zip(parameters, arguments, strict=False))
        if variadic:
            local[variadic] = list(arguments[len(parameters) :])
        return evaluate(result, scope(), local)

    return call


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list is required, not {kind_of(value)}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is required, not {kind_of(value)}")
    return value


def _whole(value: Any) -> int:
    number = to_number(value)
    if number != int(number):
        raise ValueError("a whole number is required")
    return int(number)


def _unique(values: list[Any]) -> list[Any]:
    out: list[Any] = []
    for value in values:
        if not any(same(value, other) for other in out):
            out.append(value)
    return out


# -- texts --------------------------------------------------------------------------------------------------------


def _format(template: Any, *values: Any) -> str:
    """Go's verbs: %s %d %q %v %t %f %x %%, with flags and width."""
    given = iter(values)

    def verb(match: re.Match[str]) -> str:
        flags, letter = match[1], match[2]
        if letter == "%":
            return "%"
        if len(flags) > 6:
            raise ValueError("a width is too large")
        try:
            value = next(given)
        except StopIteration:
            raise ValueError("not enough arguments") from None
        if letter in "sv":
            return f"%{flags}s" % (_json(value) if isinstance(value, list | dict) else to_text(value))
        if letter == "q":
            return _json(to_text(value))
        if letter == "t":
            return to_text(to_bool(value))
        if letter in "dxXob":
            return f"{_whole(value):b}" if letter == "b" else f"%{flags}{letter}" % _whole(value)
        return f"%{flags}{letter}" % to_number(value)

    text = re.sub(r"%([-+ #0]*\d*(?:\.\d+)?)([a-zA-Z%])", verb, to_text(template))
    if next(given, None) is not None:
        raise ValueError("too many arguments")
    return text


def _formatlist(template: Any, *values: Any) -> list[str]:
    length = max((len(value) for value in values if isinstance(value, list)), default=1)
    rows = [[value[at] if isinstance(value, list) else value for value in values] for at in range(length)]
    return [_format(template, *row) for row in rows]


def _substr(text: Any, offset: Any, length: Any) -> str:
    word, start, size = to_text(text), _whole(offset), _whole(length)
    start = max(0, start + len(word)) if start < 0 else start
    return word[start:] if size < 0 else word[start : start + size]


def _indent(spaces: Any, text: Any) -> str:
    width = _whole(spaces)
    if not 0 <= width <= 1000:
        raise ValueError("a width is too large")
    return to_text(text).replace("\n", "\n" + " " * width)


def _replace(text: Any, old: Any, new: Any) -> str:
    word, by = to_text(text), to_text(new)
    if len(by) * (word.count(to_text(old)) + 1) + len(word) > 4 * 1024 * 1024:
        raise ValueError("the result is too long")
    return word.replace(to_text(old), by)


def _title(text: Any) -> str:
    return re.sub(r"(?<!\w)\w", lambda match: match[0].upper(), to_text(text))


def _pattern(text: Any) -> re.Pattern[str]:
    """Compile a pattern of Go's, whose syntax is RE2's; one that could take for ever is refused."""
    pattern = to_text(text)
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise ValueError("the pattern is too long")
    # A repeated group that holds a repetition goes back over all its possibilities: Go's engine would not.
    if re.search(r"\([^)]*[*+}][^)]*\)\s*[*+{]", pattern):
        raise ValueError("a repetition inside a repeated group is not supported")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as wrong:
        raise ValueError(f"invalid pattern: {wrong}") from None


def _found(match: re.Match[str]) -> Any:
    if match.re.groupindex:
        return match.groupdict()
    return list(match.groups()) if match.re.groups else match[0]


def _regex(pattern: Any, text: Any) -> Any:
    match = _pattern(pattern).search(to_text(text)[:100_000])
    if match is None:
        raise ValueError("pattern did not match any part of the given string")
    return _found(match)


def _regexall(pattern: Any, text: Any) -> list[Any]:
    return [_found(match) for match in _pattern(pattern).finditer(to_text(text)[:100_000])]


def _regex_replace(text: Any, pattern: Any, replacement: Any) -> str:
    by = re.sub(r"\$(?:\{(\w+)\}|(\w+))", r"\\g<\1\2>", to_text(replacement).replace("\\", "\\\\"))
    try:
        return bounded(_pattern(pattern).sub(by, to_text(text)[:100_000]))  # type: ignore[no-any-return]
    except (re.error, IndexError) as wrong:
        raise ValueError(f"invalid replacement: {wrong}") from None


def _json(value: Any) -> str:
    import json

    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return text.translate(JSON_ESCAPES)


def _plain(value: Any) -> Any:
    """Return a value with numbers as `to_text` writes them: HCL's have more digits than ours, and show fewer."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(to_text(value)) if isinstance(value, float) else value


def _jsondecode(text: Any) -> Any:
    from orlop.spec.errors import Invalid
    from orlop.spec.jsonio import parse

    try:
        return parse(to_text(text), "the argument of jsondecode")
    except Invalid as wrong:
        raise ValueError(wrong.cause) from None


def _csvdecode(text: Any) -> list[dict[str, str]]:
    from ..attributes import rows

    found = [row for row in rows(to_text(text)) if row]  # encoding/csv passes over empty lines
    return [dict(zip(found[0], row, strict=True)) for row in found[1:]] if found else []


def _hash(name: str) -> Callable[[Any], str]:
    return lambda text: hashlib.new(name, to_text(text).encode(), usedforsecurity=False).hexdigest()


# -- lists and objects --------------------------------------------------------------------------------------------


def _flatten(value: Any, depth: int = 0) -> list[Any]:
    if depth > 50:
        raise ValueError("it is nested too deeply")
    out: list[Any] = []
    for item in _list(value):
        out += _flatten(item, depth + 1) if isinstance(item, list) else [item]
    return out


def _setproduct(*lists: Any) -> list[list[Any]]:
    size = 1
    for each in lists:
        size *= len(_list(each))
    if size > RANGE_MAX:
        raise ValueError("the product is too large")
    out: list[list[Any]] = [[]]
    for each in lists:
        out = [[*row, item] for row in out for item in each]
    return out


def _range(*limits: Any) -> list[Any]:
    start, end, step = {1: (0, *limits, 1), 2: (*limits, 1), 3: limits}[len(limits)]
    first, last, by = to_number(start), to_number(end), to_number(step)
    by = -by if len(limits) < 3 and last < first else by
    if not by or (last - first) / by > RANGE_MAX:
        raise ValueError("the range is too long")
    return [bounded(first + by * at) for at in range(max(0, math.ceil((last - first) / by)))]


def _slice(value: Any, start: Any, end: Any) -> list[Any]:
    items, first, last = _list(value), _whole(start), _whole(end)
    if not 0 <= first <= last <= len(items):
        raise ValueError("the indices are outside of the list")
    return items[first:last]


def _chunklist(value: Any, size: Any) -> list[Any]:
    items, width = _list(value), _whole(size)
    if width < 0:
        raise ValueError("the size is negative")
    return [items[at : at + width] for at in range(0, len(items), width)] if width else [items]


def _lookup(value: Any, key: Any, *default: Any) -> Any:
    found = _object(value)
    if to_text(key) in found:
        return found[to_text(key)]
    if not default:
        raise ValueError(f"there is no key {to_text(key)!r}")
    return default[0]


def _element(value: Any, at: Any) -> Any:
    items = _list(value)
    if not items:
        raise ValueError("the list is empty")
    return items[_whole(at) % len(items)]


def _merge(*objects: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for each in objects:
        merged.update(_object({} if each is None else each))
    return merged


def _coalesce(*values: Any) -> Any:
    for value in values:
        if value is not None:
            return value
    raise ValueError("no value is not null")


def _coalescelist(*values: Any) -> Any:
    for value in values:
        if value:
            return value
    raise ValueError("no list has an item")


def _indexof(items: Any, value: Any) -> int:
    for at, item in enumerate(_list(items)):
        if same(item, value):
            return at
    raise ValueError("item not found")


def _hasindex(value: Any, key: Any) -> bool:
    if isinstance(value, dict):
        return to_text(key) in value
    return isinstance(key, int) and 0 <= key < len(_list(value))


def _within(item: Any, items: list[Any]) -> bool:
    return any(same(item, other) for other in items)


def _length(value: Any) -> int:
    if not isinstance(value, list | dict):
        raise ValueError(f"a list or an object is required, not {kind_of(value)}")
    return len(value)


# -- numbers, times, networks -------------------------------------------------------------------------------------


def _parseint(text: Any, base: Any) -> int:
    digits, radix = to_text(text), _whole(base)
    if len(digits) > 200 or not 2 <= radix <= 36:
        raise ValueError("the number is too long or the base is not between 2 and 36")
    return int(digits, radix)


def _pow(base: Any, exponent: Any) -> Any:
    if abs(to_number(exponent)) > 1024:
        raise ValueError("the exponent is too large")
    return bounded(to_number(base) ** to_number(exponent))


def _timestamp() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: Any) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(to_text(text).replace("Z", "+00:00"))


_DATE_FORMATS = (
    *(("YYYY", "%Y"), ("YY", "%y"), ("MMMM", "%B"), ("MMM", "%b"), ("MM", "%m"), ("DD", "%d"), ("EEEE", "%A")),
    *(("EEE", "%a"), ("HH", "%I"), ("hh", "%H"), ("mm", "%M"), ("ss", "%S"), ("AA", "%p"), ("ZZZZ", "%z")),
)


def _formatdate(layout: Any, moment: Any) -> str:
    when, pattern = _moment(moment), re.compile("'(?:[^']|'')*'|" + "|".join(word for word, _ in _DATE_FORMATS))
    names = dict(_DATE_FORMATS)

    def word(match: re.Match[str]) -> str:
        text = match[0]
        return text[1:-1].replace("''", "'") if text.startswith("'") else str(when.strftime(names[text]))

    return pattern.sub(word, to_text(layout))


def _timeadd(moment: Any, text: Any) -> str:
    from datetime import timedelta

    from orlop.image.changes import duration_ns

    word = to_text(text)
    nanoseconds = duration_ns("duration", word.removeprefix("-"))
    change = timedelta(microseconds=nanoseconds // 1000)
    when = _moment(moment)
    return (when - change if word.startswith("-") else when + change).isoformat().replace("+00:00", "Z")  # type: ignore[no-any-return]


def _unixtimestampparse(seconds: Any) -> dict[str, Any]:
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(_whole(seconds), UTC)
    return {
        "year": when.year,
        "month": when.month,
        "month_name": when.strftime("%B"),
        "day": when.day,
        "hour": when.hour,
        "minute": when.minute,
        "second": when.second,
        "weekday": when.isoweekday() % 7,
        "weekday_name": when.strftime("%A"),
        "year_day": when.timetuple().tm_yday,
        "rfc3339": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _cidrsubnet(prefix: Any, more: Any, number: Any) -> str:
    import ipaddress

    network = ipaddress.ip_network(to_text(prefix), strict=False)
    length = network.prefixlen + _whole(more)
    size = 1 << (network.max_prefixlen - length)
    if not 0 <= _whole(number) < 1 << _whole(more):
        raise ValueError("the network has no such subnet")
    return f"{network.network_address + _whole(number) * size}/{length}"


def _cidrhost(prefix: Any, number: Any) -> str:
    import ipaddress

    network = ipaddress.ip_network(to_text(prefix), strict=False)
    return str(network[_whole(number)])


def _cidr(part: str) -> Callable[[Any], str]:
    import ipaddress

    return lambda prefix: str(getattr(ipaddress.ip_network(to_text(prefix), strict=False), part))


def _uuidv4() -> str:
    import uuid

    return str(uuid.uuid4())


def _uuidv5(namespace: Any, name: Any) -> str:
    import uuid

    known = {
        "dns": uuid.NAMESPACE_DNS,
        "url": uuid.NAMESPACE_URL,
        "oid": uuid.NAMESPACE_OID,
        "x500": uuid.NAMESPACE_X500,
    }
    return str(uuid.uuid5(known.get(to_text(namespace)) or uuid.UUID(to_text(namespace)), to_text(name)))


def shown(value: Any) -> str:
    """Return a value as a person reads it."""
    return "" if value is None else _json(value) if isinstance(value, list | dict) else to_text(value)


def _operator(symbol: str) -> Callable[[Any, Any], Any]:
    return lambda one, other: calculate(symbol, to_number(one), to_number(other))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "absolute": lambda number: abs(to_number(number)),
    "add": _operator("+"),
    "and": lambda one, other: to_bool(one) and to_bool(other),
    "base64decode": lambda text: b64decode(to_text(text), validate=True).decode(),
    "base64encode": lambda text: b64encode(to_text(text).encode()).decode(),
    "basename": lambda path: posixpath.basename(to_text(path).rstrip("/")) or "/",
    "byteslen": lambda text: len(to_text(text).encode()),
    "bytesslice": lambda text, at, size: to_text(text).encode()[_whole(at) : _whole(at) + _whole(size)].decode(),
    "ceil": lambda number: math.ceil(to_number(number)),
    "chomp": lambda text: to_text(text).rstrip("\r\n"),
    "chunklist": _chunklist,
    "cidrhost": _cidrhost,
    "cidrnetmask": _cidr("netmask"),
    "cidrsubnet": _cidrsubnet,
    "coalesce": _coalesce,
    "coalescelist": _coalescelist,
    "compact": lambda items: [item for item in _list(items) if item not in ("", None)],
    "concat": lambda *lists: [item for each in lists for item in _list(each)],
    "contains": lambda items, value: _within(value, _list(items)),
    "csvdecode": _csvdecode,
    "dirname": lambda path: posixpath.dirname(to_text(path).rstrip("/")) or "/",
    "distinct": lambda items: _unique(_list(items)),
    "divide": _operator("/"),
    "element": _element,
    "equal": same,
    "flatten": _flatten,
    "floor": lambda number: math.floor(to_number(number)),
    "format": _format,
    "formatdate": _formatdate,
    "formatlist": _formatlist,
    "greaterthan": _operator(">"),
    "greaterthanorequalto": _operator(">="),
    "hasindex": _hasindex,
    "homedir": lambda: posixpath.expanduser("~"),
    "indent": _indent,
    "index": lambda items, at: _object(items)[to_text(at)] if isinstance(items, dict) else _list(items)[_whole(at)],
    "indexof": _indexof,
    "int": lambda number: int(to_number(number)),
    "join": lambda glue, *lists: to_text(glue).join(to_text(item) for each in lists for item in _list(each)),
    "jsondecode": _jsondecode,
    "jsonencode": _json,
    "keys": lambda value: sorted(_object(value)),
    "length": _length,
    "lessthan": _operator("<"),
    "lessthanorequalto": _operator("<="),
    "log": lambda number, base: math.log(to_number(number), to_number(base)),
    "lookup": _lookup,
    "lower": lambda text: to_text(text).lower(),
    "max": lambda *numbers: max(map(to_number, numbers)),
    "md5": _hash("md5"),
    "merge": _merge,
    "min": lambda *numbers: min(map(to_number, numbers)),
    "modulo": _operator("%"),
    "multiply": _operator("*"),
    "negate": lambda number: -to_number(number),
    "not": lambda value: not to_bool(value),
    "notequal": lambda one, other: not same(one, other),
    "or": lambda one, other: to_bool(one) or to_bool(other),
    "parseint": _parseint,
    "pow": _pow,
    "range": _range,
    "regex": _regex,
    "regex_replace": _regex_replace,
    "regexall": _regexall,
    "replace": _replace,
    "reverse": lambda text: to_text(text)[::-1],
    "reverselist": lambda items: _list(items)[::-1],
    "sanitize": lambda text: _UNSAFE_TARGET.sub("_", to_text(text)),
    "sethaselement": lambda items, value: _within(value, _list(items)),
    "setintersection": lambda first, *more: [
        item for item in _unique(_list(first)) if all(_within(item, _list(each)) for each in more)
    ],
    "setproduct": _setproduct,
    "setsubtract": lambda one, other: [item for item in _unique(_list(one)) if not _within(item, _list(other))],
    "setsymmetricdifference": lambda one, other: [
        *(item for item in _unique(_list(one)) if not _within(item, _list(other))),
        *(item for item in _unique(_list(other)) if not _within(item, _list(one))),
    ],
    "setunion": lambda *lists: _unique([item for each in lists for item in _list(each)]),
    "sha1": _hash("sha1"),
    "sha256": _hash("sha256"),
    "sha512": _hash("sha512"),
    "signum": lambda number: (to_number(number) > 0) - (to_number(number) < 0),
    "slice": _slice,
    "sort": lambda items: sorted(map(to_text, _list(items))),
    "split": lambda glue, text: to_text(text).split(to_text(glue)) if to_text(glue) else list(to_text(text)),
    "strlen": lambda text: len(to_text(text)),
    "strrev": lambda text: to_text(text)[::-1],
    "substr": _substr,
    "subtract": _operator("-"),
    "timeadd": _timeadd,
    "timestamp": _timestamp,
    "title": _title,
    "trim": lambda text, characters: to_text(text).strip(to_text(characters)),
    "trimprefix": lambda text, prefix: to_text(text).removeprefix(to_text(prefix)),
    "trimspace": lambda text: to_text(text).strip(),
    "trimsuffix": lambda text, suffix: to_text(text).removesuffix(to_text(suffix)),
    "unixtimestampparse": _unixtimestampparse,
    "upper": lambda text: to_text(text).upper(),
    "urlencode": lambda text: quote_plus(to_text(text)),
    "uuidv4": _uuidv4,
    "uuidv5": _uuidv5,
    "values": lambda value: [item for _, item in sorted(_object(value).items())],
    "zipmap": lambda keys, values: dict(zip(map(to_text, _list(keys)), _list(values), strict=True)),
}
