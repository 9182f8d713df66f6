"""Bake files read and merged: what they define, as values that are computed when somebody asks for them.

Files are read in order; what a later one says of a variable, a function or a group stands, what it says of a target is
laid over it. A variable takes its value from --var, then from the environment, then from its default.
"""

from __future__ import annotations

from orlop.spec.errors import Invalid
from orlop.spec.jsonio import parse as parse_json

from .evaluate import Scope, evaluate, to_bool, to_number, to_text
from .functions import FUNCTIONS, user_function
from .syntax import DEPTH_MAX, Block, parse, parse_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn

    from .syntax import Expression

BLOCKS_MAX = 5000
_BLOCKS = ("variable", "function", "group", "target")
_IGNORED_KEYS = ("//",)


class Definition:
    """A block of a file: what it is called, its attributes, where it stands."""

    __slots__ = ("attributes", "blocks", "file", "line", "name")

    def __init__(self, name: str, attributes: dict[str, Expression], file: str, line: int) -> None:
        self.name = name
        self.attributes = attributes
        self.blocks: list[Block] = []
        self.file = file
        self.line = line

    def wrong(self, cause: str, hint: str = "") -> NoReturn:
        """Raise Invalid for this block."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        raise Invalid("read", place, f"{self.name}: {cause}", hint=hint)


class Document:
    """What bake files define. targets: name -> its blocks, the first file's first. built_in: names that bake gives."""

    def __init__(
        self, files: Sequence[tuple[str, str]], environment: Mapping[str, str], built_in: Mapping[str, str]
    ) -> None:
        self.variables: dict[str, Definition] = {}
        self.groups: dict[str, Definition] = {}
        self.targets: dict[str, list[Definition]] = {}
        self._functions: dict[str, Callable[..., Any]] = dict(FUNCTIONS)
        self._globals: dict[str, Expression] = {}
        self.environment = environment
        self._built_in = built_in
        self._blocks = 0
        for name, text in files:
            self._read(name, text)
        self.scope = Scope(self._compute, self._functions)
        for variable in self.variables.values():
            self._validate(variable)

    def value(self, definition: Definition, name: str, local: Mapping[str, Any] | None = None) -> Any:
        """Return the value of an attribute, None when it is not set. Raises Invalid."""
        expression = definition.attributes.get(name)
        if expression is None:
            return None
        try:
            return evaluate(expression, self.scope, local)
        except ValueError as wrong:
            definition.wrong(f"{name}: {wrong}")

    def variable(self, name: str) -> Any:
        """Return the value of a variable. Raises Invalid."""
        try:
            return self.scope.name(name)
        except ValueError as wrong:
            self.variables[name].wrong(str(wrong))

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, name: str, text: str) -> None:
        is_json = name.endswith(".json") or (not name.endswith(".hcl") and text.lstrip().startswith("{"))
        body = _from_json(text, name) if is_json else parse(text, name)
        self._globals.update(body.attributes)
        for block in body.blocks:
            self._blocks += 1
            if self._blocks > BLOCKS_MAX:
                raise Invalid("read", name, f"it has more than {BLOCKS_MAX} blocks", code="E0212")
            self._define(block, name)

    def _define(self, block: Block, file: str) -> None:
        if block.type not in _BLOCKS or len(block.labels) != 1:
            hint = 'write variable "NAME" { ... }, function, group or target'
            raise Invalid(
                "read", f"{file}:{block.line}", f"unexpected block {' '.join([block.type, *block.labels])!r}", hint=hint
            )
        definition = Definition(block.labels[0], block.attributes, file, block.line)
        definition.blocks = block.blocks
        if block.type == "function":
            self._define_function(definition)
        elif block.type == "target":
            self.targets.setdefault(definition.name, []).append(definition)
        else:
            found = self.variables if block.type == "variable" else self.groups
            found[definition.name] = definition

    def _define_function(self, definition: Definition) -> None:
        result = definition.attributes.get("result")
        if result is None:
            definition.wrong("the function has no result")
        parameters = _names(definition, "params")
        variadic = [*_names(definition, "variadic_params", listed=False), ""][0]
        self._functions[definition.name] = user_function(parameters, variadic, result, lambda: self.scope)

    # -- values ---------------------------------------------------------------------------------------------------

    def _compute(self, name: str) -> Any:
        if name in self.variables:
            return self._variable(self.variables[name])
        if name in self._globals:
            return evaluate(self._globals[name], self.scope)
        if name == "target":
            return _Targets(self)
        if name.startswith("target."):
            return self._target_attribute(*name.split(".", 2)[1:])
        return self._built_in[name]

    def _variable(self, variable: Definition) -> Any:
        expression = variable.attributes.get("default")
        default = None if expression is None else evaluate(expression, self.scope)
        given = self.environment.get(variable.name)
        kind = _type_name(variable.attributes.get("type"))
        if given is None:
            return "" if expression is None and not kind else _typed(default, kind)
        return _typed(given, kind) if kind else _like(given, default)

    def _validate(self, variable: Definition) -> None:
        for block in variable.blocks:
            if block.type != "validation":
                variable.wrong(f"unexpected block {block.type!r}")
            rule = Definition(variable.name, block.attributes, variable.file, block.line)
            condition = self.value(rule, "condition")
            if condition is not True:
                message = self.value(rule, "error_message")
                rule.wrong(str(message or "the validation of the variable failed"))

    def _target_attribute(self, target: str, attribute: str) -> Any:
        for definition in reversed(self.targets[target]):
            if attribute in definition.attributes:
                return evaluate(definition.attributes[attribute], self.scope)
        raise KeyError(attribute)


class _Targets(dict[str, object]):
    """What `target` is in an expression: attributes of targets, each computed when it is asked for."""

    def __init__(self, document: Document, target: str = "") -> None:
        super().__init__()
        self._document = document
        self._target = target

    def __contains__(self, name: object) -> bool:
        targets = self._document.targets
        if not self._target:
            return name in targets
        return any(name in definition.attributes for definition in targets[self._target])

    def __getitem__(self, name: str) -> object:
        if not self._target:
            return _Targets(self._document, name)
        value: object = self._document.scope.name(f"target.{self._target}.{name}")
        return value


def _names(definition: Definition, attribute: str, *, listed: bool = True) -> list[str]:
    """Return the names that an attribute of a function lists: they are written without quotes."""
    expression = definition.attributes.get(attribute, ("tuple", []))
    items = expression[1] if expression[0] == "tuple" else [expression]
    names = [item[1] for item in items if item[0] in ("name", "literal") and isinstance(item[1], str)]
    if len(names) != len(items) or (expression[0] != "tuple" and listed):
        definition.wrong(f"{attribute} is no list of names")
    return names


def _type_name(expression: Expression | None) -> str:
    if expression is None:
        return ""
    if expression[0] in ("name", "call", "literal"):
        return str(expression[1])
    raise ValueError("the type is malformed")


def _typed(value: Any, kind: str) -> Any:
    if value is None or kind in ("", "any"):
        return value
    if kind == "string":
        return to_text(value)
    if kind == "number":
        return to_number(value)
    if kind == "bool":
        return to_bool(value)
    if kind in ("list", "set", "tuple") and isinstance(value, str):
        return _comma_separated(value)
    if kind in ("map", "object") and isinstance(value, str):
        return parse_json(value, "the variable")
    return value


def _like(text: str, default: Any) -> Any:
    """Return a value of the environment as the kind that the default has."""
    if isinstance(default, bool):
        return to_bool(text)
    if isinstance(default, int | float):
        return to_number(text)
    if isinstance(default, list):
        return _comma_separated(text)
    if isinstance(default, dict):
        return parse_json(text, "the variable")
    return text


def _comma_separated(text: str) -> list[str]:
    from ..attributes import rows

    found = rows(text)
    if len(found) > 1:
        raise ValueError("a list of values is one line")
    return found[0] if found else []


# -- JSON -----------------------------------------------------------------------------------------------------------


def _from_json(text: str, name: str) -> Block:
    document = parse_json(text, name)
    if not isinstance(document, dict):
        raise Invalid("read", name, "it is not a JSON object", code="E0211")
    body = Block("", [], 0)
    for key, value in document.items():
        if key in _BLOCKS:
            body.blocks += _json_blocks(key, value, name)
        elif key not in _IGNORED_KEYS:
            body.attributes[key] = _json_expression(value, name)
    return body


def _json_blocks(kind: str, value: object, name: str) -> Iterator[Block]:
    if isinstance(value, list):  # blocks of one kind may come in several objects
        for each in value:
            yield from _json_blocks(kind, each, name)
        return
    if not isinstance(value, dict):
        raise Invalid("read", name, f"{kind} is not an object")
    for label, attributes in value.items():
        for each in attributes if isinstance(attributes, list) else [attributes]:
            if not isinstance(each, dict):
                raise Invalid("read", name, f"{kind}.{label} is not an object")
            yield _json_block(kind, label, each, name)


def _json_block(kind: str, label: str, attributes: dict[str, object], name: str) -> Block:
    block = Block(kind, [label], 0)
    for key, value in attributes.items():
        if key in _IGNORED_KEYS:
            continue
        if key == "validation" and kind == "variable":
            rules = value if isinstance(value, list) else [value]
            block.blocks += [_json_block("validation", label, rule, name) for rule in rules if isinstance(rule, dict)]
        else:
            block.attributes[key] = _json_expression(value, name)
    return block


def _json_expression(value: object, name: str, depth: int = 0) -> Expression:
    if depth > DEPTH_MAX:
        raise Invalid("read", name, "it is nested too deeply", code="E0211")
    if isinstance(value, str):
        return parse_template(value, name)
    if isinstance(value, list):
        return ("tuple", [_json_expression(item, name, depth + 1) for item in value])
    if isinstance(value, dict):
        items = ((("literal", key), _json_expression(item, name, depth + 1)) for key, item in value.items())
        return ("object", [pair for pair in items if pair[0][1] not in _IGNORED_KEYS])
    return ("literal", value)
