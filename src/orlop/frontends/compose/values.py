"""Converters of single values: each takes what the document says and returns the canonical form, or raises Invalid.

A value may be text where a variable was replaced, so that numbers, sizes and truth values are read from text too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...spec.errors import Invalid
from ..cli.flags import BadValue, parse_bool, suggest
from ..cli.values import parse_bytes, parse_cpus, parse_duration
from .document import List, Map, Place, wrong
from .interpolation import Template

Converter = Callable[[Any, str, Place], Any]


def text(value: Any, path: str, place: Place) -> str:
    if not isinstance(value, str):
        raise wrong(place, path, f"must be a string, not {kind(value)}", "put it in quotes")
    return value


def scalar(value: Any, path: str, place: Place) -> str:
    """Text, or a number or truth value as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    raise wrong(place, path, f"must be a string or a number, not {kind(value)}")


def boolean(value: Any, path: str, place: Place) -> bool:
    if isinstance(value, bool):
        return value
    try:
        return parse_bool(text(value, path, place))
    except BadValue:
        raise wrong(place, path, f"must be true or false, not {value!r}") from None


def integer(value: Any, path: str, place: Place) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(text(value, path, place), 10)
    except ValueError:
        raise wrong(place, path, f"must be a whole number, not {value!r}") from None


def number(value: Any, path: str, place: Place) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return float(text(value, path, place))
    except ValueError:
        raise wrong(place, path, f"must be a number, not {value!r}") from None


def mode(value: Any, path: str, place: Place) -> int:
    """Permission bits: YAML's 0440 is an octal number already, text is read as octal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(text(value, path, place), 8)
    except ValueError:
        raise wrong(place, path, f"must be an octal mode, not {value!r}", "write 0440") from None


def parsed(parse: Callable[[str], Any]) -> Converter:
    """A converter of what the command line parses too."""

    def convert(value: Any, path: str, place: Place) -> Any:
        try:
            return parse(scalar(value, path, place))
        except BadValue as error:
            raise wrong(place, path, str(error), error.hint) from None

    return convert


size = parsed(parse_bytes)
cpus = parsed(parse_cpus)
duration = parsed(parse_duration)


def swap(value: Any, path: str, place: Place) -> int:
    return -1 if str(value) == "-1" else int(size(value, path, place))


def one_of(*words: str) -> Converter:
    def convert(value: Any, path: str, place: Place) -> str:
        found = text(value, path, place)
        if found not in words:
            raise wrong(place, path, f"must be one of {', '.join(words)}, not {found!r}", suggest(found, words))
        return found

    return convert


def converted(convert: Converter, value: Any, path: str, place: Place) -> Any:
    """Convert a value; a template that can't be read before its variables are replaced stays what it is."""
    try:
        return convert(value, path, place)
    except Invalid:
        if isinstance(value, Template):
            return value
        raise


def unread(path: str, place: Place) -> Invalid:
    """The error of a converter that would take a template's text apart in the wrong place."""
    return wrong(place, path, "its variables are not replaced", "leave --no-interpolate away")


def list_of(convert_item: Converter) -> Converter:
    def convert(value: Any, path: str, place: Place) -> list[Any]:
        if not isinstance(value, List):
            raise wrong(place, path, f"must be a list, not {kind(value)}", "begin its lines with `- `")
        pairs = zip(value, value.places, strict=True)
        return [converted(convert_item, item, f"{path}[{at}]", where) for at, (item, where) in enumerate(pairs)]

    return convert


def one_or_list(convert_item: Converter) -> Converter:
    several = list_of(convert_item)

    def convert(value: Any, path: str, place: Place) -> list[Any]:
        return several(value, path, place) if isinstance(value, List) else [converted(convert_item, value, path, place)]

    return convert


def command(value: Any, path: str, place: Place) -> list[str] | None:
    """Text is split as a shell would; null is the image's own."""
    if value is None:
        return None
    if isinstance(value, Template):
        raise unread(path, place)
    if isinstance(value, List):
        words: list[str] = list_of(scalar)(value, path, place)
        return words
    import shlex

    try:
        return shlex.split(text(value, path, place))
    except ValueError as error:
        raise wrong(place, path, str(error).lower(), "close the quote") from None


def mapping_of(convert_value: Converter) -> Converter:
    def convert(value: Any, path: str, place: Place) -> Map:
        if not isinstance(value, Map):
            raise wrong(place, path, f"must be a mapping, not {kind(value)}", "write KEY: VALUE")
        made = {key: converted(convert_value, one, f"{path}.{key}", value.places[key]) for key, one in value.items()}
        return value.like(made)

    return convert


def pairs(separator: str = "=") -> Converter:
    """A mapping, or a list of KEY=VALUE; a key without a value has None."""

    def convert(value: Any, path: str, place: Place) -> Map:
        if isinstance(value, List):
            made = Map(place)
            for item, where in zip(value, value.places, strict=True):
                key, found, rest = scalar(item, path, where).partition(separator)
                made.put(key, rest if found else None, where)
            return made
        found_map: Map = mapping_of(nullable(scalar))(value, path, place)
        return found_map

    return convert


def nullable(convert_value: Converter) -> Converter:
    def convert(value: Any, path: str, place: Place) -> Any:
        return None if value is None else convert_value(value, path, place)

    return convert


def record(keys: Mapping[str, Converter], *, required: tuple[str, ...] = ()) -> Converter:
    """A mapping with these keys and x-anything. An unknown key is an error: a misspelt one never is silence."""

    def convert(value: Any, path: str, place: Place) -> Map:
        if not isinstance(value, Map):
            raise wrong(place, path, f"must be a mapping, not {kind(value)}", f"keys: {', '.join(list(keys)[:6])} ...")
        made = {}
        for key, one in value.items():
            if key.startswith("x-"):
                if not path:  # those of the whole are shown again by `config`
                    made[key] = one
                continue
            converter = keys.get(key)
            if converter is None:
                hint = suggest(key, keys) or "leave it away; keys of your own begin with x-"
                raise wrong(value.places[key], path, f"additional properties '{key}' not allowed", hint)
            if one is not None or converter in _TAKES_NULL:
                made[key] = converted(converter, one, f"{path}.{key}" if path else key, value.places[key])
        for key in required:
            if key not in made:
                raise wrong(value.place, path, f"{key} is missing")
        return value.like(made)

    return convert


def anything(value: Any, path: str, place: Place) -> Any:
    return value


def kind(value: Any) -> str:
    """Return what a value is, in the words of YAML's users."""
    names = {Map: "a mapping", List: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), "text")


_TAKES_NULL = frozenset((command,))
