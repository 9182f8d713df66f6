"""YAML text as plain values that know where they stand.

Plain scalars mean what they mean to Compose (YAML 1.2 as go-yaml v3 reads it): `on` and `22:22` are text, `0440` is
octal. The tags !reset and !override are kept beside the value (compose-spec, merge).
Bounds: a document of BYTES_MAX, DEPTH_MAX levels and VALUES_MAX values after its aliases are followed, so that a few
lines of aliases do not fill the memory.
"""

from __future__ import annotations

import re

from ...spec.errors import Invalid, Unsupported
from .. import libraries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BYTES_MAX = 8 << 20
DEPTH_MAX = 64
VALUES_MAX = 200_000

_PLAIN = "!plain"
_STANDARD = "tag:yaml.org,2002:"
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")


class Place:
    """Where something stands in a file; lines and columns from 1."""

    __slots__ = ("column", "file", "line")

    def __init__(self, file: str, line: int, column: int) -> None:
        self.file, self.line, self.column = file, line, column

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Map(dict[str, "Any"]):
    """A mapping. places: where each key stands. reset, override: the keys whose value has that tag."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, Place] = {}
        self.reset: set[str] = set()
        self.override: set[str] = set()

    def put(self, key: str, value: Any, place: Place) -> None:
        self[key] = value
        self.places[key] = place

    def like(self, values: dict[str, Any]) -> Map:
        """Return a mapping of these values at the same place, with the places and tags that this one knows."""
        made = Map(self.place)
        made.update(values)
        made.places = {key: self.places.get(key, self.place) for key in values}
        made.reset, made.override = set(self.reset), set(self.override)
        return made


class List(list["Any"]):
    """A sequence. places: where each item stands."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []


def wrong(place: Place | None, path: str, cause: str, hint: str = "") -> Invalid:
    """Return the error of one value. path: services.web.ports, "" for the whole."""
    where = str(place) if place is not None else "the compose file"
    return Invalid("read", where, f"{path}: {cause}" if path else cause, hint=hint)


def unsupported(place: Place | None, path: str, cause: str, hint: str = "leave the key away") -> Unsupported:
    """Return the error of a value that means something, and nothing that Orlop has."""
    return Unsupported("use", str(place) if place is not None else "the compose file", f"{path}: {cause}", hint=hint)


def parse(text: bytes, file: str) -> list[Map]:
    """Return the documents of a file. Raises Invalid with the place."""
    if len(text) > BYTES_MAX:
        raise Invalid("read", file, f"it is larger than {BYTES_MAX} bytes", hint="split it and use include")
    yaml = library()
    try:
        source = text.decode("utf-8-sig")
        _check_depth(yaml, source, file)
        nodes = list(yaml.compose_all(source, _loader(yaml)))
    except UnicodeDecodeError as error:
        raise Invalid("read", file, f"byte {error.start} is not UTF-8", hint="save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        cause = str(getattr(error, "problem", None) or getattr(error, "reason", "it is not YAML"))
        raise wrong(place, "", cause, "correct the YAML") from None
    except RecursionError:
        raise Invalid("read", file, f"it is nested deeper than {DEPTH_MAX} levels", hint="flatten it") from None
    documents = []
    for node in nodes:
        value = _Reader(file, yaml).value(node, 0) if node is not None else None
        if value is None:
            continue
        if not isinstance(value, Map):
            raise wrong(Place(file, 1, 1), "", "the top level must be a mapping", "begin with `services:`")
        documents.append(value)
    return documents


def _check_depth(yaml: Any, source: str, file: str) -> None:
    """Raise Invalid for what is nested too deeply: PyYAML's composer calls itself in C, and would end the process."""
    depth = 0
    for event in yaml.parse(source, _loader(yaml)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX + 1:
            raise Invalid("read", file, f"it is nested deeper than {DEPTH_MAX} levels", hint="flatten it")


def library() -> Any:
    """Return PyYAML. Raises Unavailable."""

    def take() -> Any:
        import yaml

        return yaml

    return libraries.load(take, "compose files", "install it: apt-get install python3-yaml, or pip install PyYAML")


def _loader(yaml: Any) -> Any:
    base: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # Every untagged plain scalar gets one tag of our own, which tells it from `!!str 5`.
    return type("Loader", (base,), {"yaml_implicit_resolvers": {None: [(_PLAIN, re.compile(""))]}})


class _Reader:
    """Turns the nodes of one document into values."""

    def __init__(self, file: str, yaml: Any) -> None:
        self._file = file
        self._yaml = yaml
        self._count = 0

    def value(self, node: Any, depth: int) -> Any:
        self._count += 1
        place = self._place(node)
        if depth > DEPTH_MAX or self._count > VALUES_MAX:
            raise wrong(place, "", f"more than {DEPTH_MAX} levels or {VALUES_MAX} values", "use fewer aliases")
        if isinstance(node, self._yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in (f"{_STANDARD}map", f"{_STANDARD}seq", "!override", "!reset"):
            raise wrong(place, "", f"unknown tag {node.tag}", "Compose has !reset and !override")
        if isinstance(node, self._yaml.SequenceNode):
            items = List(place)
            for child in node.value:
                items.append(self.value(child, depth + 1))
                items.places.append(self._place(child))
            return items
        return self._map(node, place, depth)

    def _map(self, node: Any, place: Place, depth: int) -> Map:
        made = Map(place)
        merged: list[Map] = []
        for key_node, child in node.value:
            key_place = self._place(key_node)
            key = self._key(key_node, key_place)
            if key == "<<" and not key_node.style:
                merged += self._merged(child, depth)
                continue
            if key in made or key in made.reset:
                raise wrong(key_place, "", f'mapping key "{key}" already defined', "leave one of them away")
            if child.tag == "!reset":
                made.reset.add(key)
                made.places[key] = key_place
                continue
            if child.tag == "!override":
                made.override.add(key)
            made.put(key, self.value(child, depth + 1), key_place)
        for other in merged:
            for key, value in other.items():
                if key not in made:
                    made.put(key, value, other.places[key])
        return made

    def _merged(self, node: Any, depth: int) -> list[Map]:
        """Return what `<<` names: a mapping, or several with the first the strongest (yaml.org/type/merge)."""
        nodes = node.value if isinstance(node, self._yaml.SequenceNode) else [node]
        maps = [self.value(one, depth + 1) for one in nodes]
        if not all(isinstance(one, Map) for one in maps):
            raise wrong(self._place(node), "", "map merge requires map or sequence of maps as the value", "")
        return maps

    def _key(self, node: Any, place: Place) -> str:
        if not isinstance(node, self._yaml.ScalarNode):
            raise wrong(place, "", "a key must be text", "quote it")
        return str(node.value)

    def _scalar(self, node: Any, place: Place) -> Any:
        text = str(node.value)
        if node.tag == _PLAIN:
            return resolve(text)
        if node.tag == f"{_STANDARD}null":
            return None
        if node.tag in (f"{_STANDARD}int", f"{_STANDARD}float", f"{_STANDARD}bool"):
            value = resolve(text)
            if isinstance(value, str | None):
                raise wrong(place, "", f"{text!r} is no {node.tag.removeprefix(_STANDARD)}", "leave the tag away")
            return value
        if node.tag.startswith(_STANDARD) or node.tag in ("!", "!override", "!reset"):
            return resolve(text) if not node.style and node.tag != f"{_STANDARD}str" else text
        raise wrong(place, "", f"unknown tag {node.tag}", "Compose has !reset and !override")

    def _place(self, node: Any) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)


def resolve(text: str) -> str | int | float | bool | None:
    """Return what a plain scalar means to go-yaml v3."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text[0] not in "+-.0123456789" or len(text) > 100:
        return text
    if _INTEGER.match(text):
        return _integer(text)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return float(text.replace(".", "")) if _NOT_FINITE.match(text) else text


def _integer(text: str) -> int | str:
    digits = text.replace("_", "")
    bare = digits.lstrip("+-")
    if len(bare) > 1 and bare[0] == "0" and bare.isdecimal():  # YAML 1.1's octal, as Go's ParseInt with base 0
        return int(digits, 8) if not set(bare) & set("89") else text
    try:
        return int(digits, 0)
    except ValueError:
        return text
