"""The values of a template, and what Go prints of them."""

from __future__ import annotations

from ....spec import jsonio
from ..flags import quote
from . import shapes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RANGE_MAX = 100_000


class TemplateError(Exception):
    """What is wrong, in Go's words."""


class NilList(list[object]):
    """Go's nil slice: empty, and null in JSON."""


class NilMap(dict[str, object]):
    """Go's nil map: empty, and null in JSON."""


class Struct(dict[str, object]):
    """A Go struct: fields that the JSON does not have are there for templates, and `json` leaves them away."""

    def __init__(self, value: Mapping[str, object], absent: Mapping[str, object]) -> None:
        super().__init__(
            {**absent, **{name: item for name, item in value.items() if item is not None or name not in absent}}
        )
        self.hidden = absent.keys() - value.keys()


class Nil:
    """Go's nil pointer to a struct or a number: false, <nil>, null in JSON, without fields."""

    def __bool__(self) -> bool:
        return False


NIL = Nil()


class Row:
    """A value whose fields are known: a name that is none of them is an error. A callable field is a method."""

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str, fields: dict[str, object]) -> None:
        self.kind = kind
        self.fields = fields

    def plain(self) -> dict[str, object]:
        """Return the fields without the methods, sorted: what `json` shows."""
        return {name: value for name, value in sorted(self.fields.items()) if not callable(value)}


def field(value: object, name: str, arguments: tuple[object, ...]) -> object:
    """Return value.name, calling it when it is a method."""
    if isinstance(value, Row):
        if name not in value.fields:
            raise TemplateError(f'executing "" at <.{name}>: can\'t evaluate field {name} in type {value.kind}')
        found = value.fields[name]
        if callable(found):
            try:
                return found(*arguments)
            except TypeError:
                raise TemplateError(f"wrong number of args for {name}: got {len(arguments)}") from None
    elif isinstance(value, dict):
        found = value.get(_key(value, name))
    elif value is None or value is NIL:
        raise TemplateError(f'executing "" at <.{name}>: nil pointer evaluating interface {{}}.{name}')
    else:
        raise TemplateError(f'executing "" at <.{name}>: can\'t evaluate field {name} in type {type_name(value)}')
    if arguments:
        raise TemplateError(f"{name} has arguments but cannot be invoked as function")
    return found


def _key(value: dict[str, object], name: str) -> str:
    """Return the key that a field name means. Go's names differ in case from JSON's: .ID is "Id"."""
    if name in value:
        return name
    alike = [key for key in value if key.lower() == name.lower()]
    if len(alike) != 1 and is_map(value):
        return name
    if len(alike) != 1:
        raise TemplateError(f'executing "" at <.{name}>: map has no entry for key {quote(name)}')
    return alike[0]


def is_map(value: dict[str, object]) -> bool:
    """Tell whether Go has a map here (labels, options: all values are strings) and no struct of known fields."""
    return all(isinstance(item, str) for item in value.values())


def is_true(value: object) -> bool:
    return isinstance(value, Row) or bool(value)


def show(value: object) -> str:
    """Return a value as Go's %v prints it."""
    if isinstance(value, str):
        return value
    if value is None or value is NIL:
        return "<no value>" if value is None else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _show_float(value)
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_show_inner, value))}]"
    if isinstance(value, Row):
        value = value.plain()
    if isinstance(value, dict):
        if known := shapes.show(value, _show_inner):
            return known
        return f"map[{' '.join(f'{key}:{_show_inner(value[key])}' for key in sorted(value))}]"
    return str(value)


def type_name(value: object) -> str:
    """Return what Go calls the type of a decoded JSON value."""
    names: dict[type, str] = {str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def to_json(value: object) -> str:
    return jsonio.dump(_in_gos_order(value)).decode("utf-8", "replace")


def _in_gos_order(value: object) -> object:
    """Sort the keys of maps; a struct keeps its order."""
    if isinstance(value, Row):
        return value.plain()
    if isinstance(value, (NilList, NilMap, Nil)):
        return None
    if isinstance(value, Struct):
        return {key: _in_gos_order(item) for key, item in value.items() if key not in value.hidden}
    if isinstance(value, list):
        return [_in_gos_order(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _in_gos_order(item) for key, item in (sorted(value.items()) if is_map(value) else value.items())}


def _show_inner(value: object) -> str:
    return "<nil>" if value is None else show(value)


def _show_float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def pairs(value: object) -> Iterator[tuple[object, object]]:
    """Yield what range walks over: (key or index, item)."""
    if isinstance(value, Row):
        value = value.plain()
    if isinstance(value, dict):
        yield from sorted(value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if value > RANGE_MAX:
            raise TemplateError(f"range over {value} is longer than {RANGE_MAX}")
        yield from ((number, number) for number in range(value))
    elif value is not None and value is not NIL:
        raise TemplateError(f"range can't iterate over {show(value)}")
