"""Records: immutable values that are read from and written to JSON.

A record class is its annotations. The same lines give the constructor, the type checker's view, the JSON
names and the validation:

    class Memory(Record):
        limit: int | None = None
        check_before_update: bool = False          # JSON: checkBeforeUpdate

Why not `dataclasses`: importing it (with `inspect` behind it) and decorating forty classes costs more than
the whole rest of a runtime's start, and it neither decodes nor checks. Annotations must be real objects,
so a module of records does not use `from __future__ import annotations`.

Known shapes: str, int, float, bool, object (any JSON), a str subclass whose constructor raises Invalid (Digest),
another Record, `tuple[X, ...]`, `dict[str, X]`, and `X | None`. Anything else is a programmer's error, found when
the class is first decoded.

Bounds: integers are those of 64 bits; the depth and size of documents are bounded by `orlop.spec.jsonio`.
"""

from .errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import GenericAlias, UnionType
    from typing import Any, Self, dataclass_transform

    Decoder = Callable[[object], object]
else:
    # The module that names them is 0.3 ms of every command's start.
    GenericAlias, UnionType = type(tuple[int]), type(int | None)

    def dataclass_transform(**_):
        return lambda cls: cls


INT_MIN = -(2**63)
INT_MAX = 2**64 - 1


class _Mismatch(Exception):
    """A value does not have the declared shape. args: (path inside the value, what is wrong).

    Whoever looks inside a value puts its own part of the path in front: only a document that is wrong pays for paths.
    """

    def under(self, part: str) -> "_Mismatch":
        """Return this one as seen from outside: part is "name" or "[index]"."""
        path, cause = self.args
        dot = "." if path and not path.startswith("[") else ""
        return _Mismatch(f"{part}{dot}{path}", cause)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record:
    """Base of all wire formats. Keyword-only constructor, equality and hash by value, no mutation.

    Class attributes (not annotated, so they are no fields):
    json_names: field name -> JSON name where it is not the camelCase of the field name.
    strict: refuse unknown JSON names (requests) instead of ignoring them (OCI documents, which demand it).
    """

    json_names: "dict[str, str]" = {}
    strict = False

    _fields: "dict[str, tuple[object, bool, Any]]" = {}  # name -> (shape, has default, default)
    _defaults: "dict[str, Any]" = {}
    _codec: "tuple[tuple[str, str, Decoder], ...] | None" = None

    def __init_subclass__(cls) -> None:
        fields = dict(cls._fields)
        for name, shape in cls.__annotations__.items():
            has_default = name in cls.__dict__
            fields[name] = (shape, has_default, cls.__dict__.get(name))
        cls._fields = fields
        cls._defaults = {name: default for name, (_, has_default, default) in fields.items() if has_default}
        cls._codec = None

    def __init__(self, **values: "Any") -> None:
        own, fields = self.__dict__, self._fields
        own.update(self._defaults)
        own.update(values)
        if own.keys() != fields.keys():
            for name in fields:
                if name not in own:
                    raise TypeError(f"{type(self).__name__} needs {name}")
            unknown = (name for name in values if name not in fields)
            raise TypeError(f"{type(self).__name__} has no field {', '.join(unknown)}")
        self.check()

    def check(self) -> None:
        """Raise ValueError when the fields, each well-formed, contradict each other. For subclasses."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={self.__dict__[name]!r}"
            for name, (_, has_default, default) in self._fields.items()
            if not has_default or self.__dict__[name] != default
        )
        return f"{type(self).__name__}({shown})"

    def replace(self, **changes: "Any") -> "Self":
        """Return a copy with these fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    @classmethod
    def from_json(cls, value: object, subject: str = "") -> "Self":
        """Return the record that a parsed JSON value describes.

        subject names the document in errors ("config.json of container web"). Raises Invalid with the path
        of the first field that does not fit: `linux.resources.memory.limit: expected an integer, found "x"`.
        """
        try:
            return cls._decode(value)
        except _Mismatch as wrong:
            path, cause = wrong.args
            raise Invalid(
                "read",
                subject or cls.__name__,
                f"{path}: {cause}" if path else cause,
                hint=f"correct {path or 'the document'} and try again",
            ) from None

    def to_json(self) -> "dict[str, Any]":
        """Return a JSON object; fields that equal their default are left out."""
        codec = self._codec or self._compile()
        out: dict[str, Any] = {}
        for name, json_name, _ in codec:
            value = self.__dict__[name]
            _, has_default, default = self._fields[name]
            if not has_default or value != default:
                out[json_name] = value if type(value) in _PLAIN else _plain(value)
        return out

    @classmethod
    def _compile(cls) -> "tuple[tuple[str, str, Decoder], ...]":
        cls._codec = tuple(
            (name, cls.json_names.get(name) or _camel(name), _decoder(shape, cls, name))
            for name, (shape, _, _) in cls._fields.items()
        )
        return cls._codec

    @classmethod
    def _decode(cls, value: object) -> "Self":
        if type(value) is not dict:
            raise _Mismatch("", f"expected an object, found {_found(value)}")
        codec = cls.__dict__.get("_codec") or cls._compile()
        values = {}
        for name, json_name, decode in codec:
            item = value.get(json_name)
            if item is None:
                if name not in cls._defaults:
                    raise _Mismatch(json_name, "it is required")
                continue
            try:
                values[name] = decode(item)
            except _Mismatch as wrong:
                raise wrong.under(json_name) from None
        if cls.strict and len(value) > len(values):
            known = {json_name for _, json_name, _ in codec}
            for json_name in value:
                if json_name not in known:
                    raise _Mismatch(str(json_name), "there is no such field")
        try:
            return cls(**values)
        except ValueError as wrong:
            raise _Mismatch("", str(wrong)) from None


def prepare() -> None:
    """Make the readers of all wire formats that were imported, for a process that is to be forked."""
    waiting = Record.__subclasses__()
    while waiting:
        shape = waiting.pop()
        if shape.__module__.startswith(f"{__package__}."):  # others are records for their equality and their words
            shape._compile()
        waiting += shape.__subclasses__()


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _found(value: object) -> str:
    if isinstance(value, str):
        return f"the string {value[:40]!r}"
    names = {
        dict: "an object",
        list: "a list",
        bool: "a boolean",
        type(None): "null",
        int: "an integer",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


_PLAIN = frozenset((str, int, bool, type(None)))  # JSON as they are; looked up first, as a spec has a thousand of them


def _plain(value: "Any") -> "Any":
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        return [item if type(item) in _PLAIN else _plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _decoder(shape: object, owner: type, field: str) -> "Decoder":
    """Return the function that checks and converts one JSON value of this shape."""
    if isinstance(shape, UnionType):
        inner = [part for part in shape.__args__ if part is not type(None)]
        if len(inner) == 1:
            return _decoder(inner[0], owner, field)
    elif isinstance(shape, GenericAlias):
        if shape.__origin__ is tuple and shape.__args__[1:] == (Ellipsis,):
            item = shape.__args__[0]
            return _strings if item is str else _tuple_decoder(_decoder(item, owner, field))
        if shape.__origin__ is dict and shape.__args__[0] is str:
            return _dict_decoder(_decoder(shape.__args__[1], owner, field))
    elif isinstance(shape, type):
        if issubclass(shape, Record):
            return shape._decode
        if shape in _SCALARS:
            return _SCALARS[shape]
        if issubclass(shape, str):
            return _text_decoder(shape)
    raise TypeError(f"{owner.__name__}.{field}: a record can't hold {shape!r}")


def _text_decoder(shape: "type[str]") -> "Decoder":
    def decode(value: object) -> object:
        if type(value) is shape:
            return value
        text = _string(value)
        try:
            return shape(text)
        except Invalid as wrong:
            raise _Mismatch("", f"{wrong.subject}: {wrong.cause}") from None

    return decode


def _tuple_decoder(item: "Decoder") -> "Decoder":
    def decode(value: object) -> object:
        if type(value) is not list:
            raise _Mismatch("", f"expected a list, found {_found(value)}")
        done: list[object] = []
        try:
            for part in value:
                done.append(item(part))
        except _Mismatch as wrong:
            raise wrong.under(f"[{len(done)}]") from None
        return tuple(done)

    return decode


def _dict_decoder(item: "Decoder") -> "Decoder":
    def decode(value: object) -> object:
        if type(value) is not dict:
            raise _Mismatch("", f"expected an object, found {_found(value)}")
        done: dict[str, object] = {}
        for key, part in value.items():
            try:
                done[key] = item(part)
            except _Mismatch as wrong:
                raise wrong.under(key) from None
        return done

    return decode


def _strings(value: object) -> object:
    # A profile of system calls is five hundred of them: one call each would be half of a spec's time.
    try:
        if type(value) is list and "\0".join(value).count("\0") == max(len(value) - 1, 0):
            return tuple(value)
    except TypeError:
        pass
    return _each_string(value)


def _string(value: object) -> object:
    if type(value) is not str:
        raise _Mismatch("", f"expected a string, found {_found(value)}")
    if "\0" in value:
        raise _Mismatch("", "a string can't hold a NUL character")
    return value


_each_string = _tuple_decoder(_string)


def _integer(value: object) -> object:
    if type(value) is not int:
        raise _Mismatch("", f"expected an integer, found {_found(value)}")
    if not INT_MIN <= value <= INT_MAX:
        raise _Mismatch("", "the integer does not fit into 64 bits")
    return value


def _number(value: object) -> object:
    if type(value) not in (int, float):
        raise _Mismatch("", f"expected a number, found {_found(value)}")
    return value


def _boolean(value: object) -> object:
    if type(value) is not bool:
        raise _Mismatch("", f"expected a boolean, found {_found(value)}")
    return value


def _anything(value: object) -> object:
    return value


_SCALARS: "dict[type, Decoder]" = {
    str: _string,
    int: _integer,
    float: _number,
    bool: _boolean,
    object: _anything,
}
