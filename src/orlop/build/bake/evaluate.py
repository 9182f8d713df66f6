"""HCL's expressions to values: str, int and float, bool, None, list, dict.

What an expression names comes from a Scope, which computes it when it is first asked for, so that variables may use
each other in any order; one that needs itself is refused. Bounds: the number of steps, the size of texts and lists.
Errors are ValueError with the cause; whoever knows the place adds it.
Source: HCL native syntax specification, "Expressions" and "Templates"; its rules for conversion.
"""

from __future__ import annotations

from .syntax import ITEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .syntax import Expression

    Function = Callable[..., Any]

STEPS_MAX = 500_000
STEP_CHARACTERS = 64
CHARACTERS_MAX = 4 * 1024 * 1024
ITEMS_MAX = 100_000
CALLS_DEPTH_MAX = 20


class Scope:
    """What names stand for. compute: gives the value of a name, or raises KeyError."""

    def __init__(self, compute: Callable[[str], Any], functions: Mapping[str, Function]) -> None:
        self.functions = functions
        self._compute = compute
        self._known: dict[str, Any] = {}
        self._computing: list[str] = []
        self._steps = 0
        self._calls = 0

    def step(self, count: int = 1) -> None:
        """Count steps. Raises ValueError when there are too many."""
        self._steps += count
        if self._steps > STEPS_MAX:
            raise ValueError(f"evaluation takes more than {STEPS_MAX} steps")

    def name(self, name: str) -> Any:
        """Return what a name stands for. Raises ValueError."""
        if name in self._known:
            return self._known[name]
        if name in self._computing:
            raise ValueError(f"variable cycle not allowed for {name}: {' -> '.join([*self._computing, name])}")
        if len(self._computing) > CALLS_DEPTH_MAX:
            raise ValueError("variables refer to each other too deeply")
        self._computing.append(name)
        try:
            value = self._compute(name)
        except KeyError:
            raise ValueError(f'there is no variable named "{name}"') from None
        finally:
            self._computing.pop()
        self._known[name] = value
        return value

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Return what a function gives. Raises ValueError."""
        function = self.functions.get(name)
        if function is None:
            from ..dockerfile.source import suggestion

            raise ValueError(f'there is no function named "{name}"{suggestion(name, set(self.functions))}')
        if self._calls >= CALLS_DEPTH_MAX:
            raise ValueError("functions call each other too deeply")
        self._calls += 1
        try:
            result = bounded(function(*arguments))
            self.step(sum(map(_size, (*arguments, result))))
            return result
        except (TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError, ArithmeticError) as wrong:
            raise ValueError(f"invalid arguments for {name}(): {wrong}") from None
        except ValueError as wrong:
            raise ValueError(f"{name}(): {wrong}") from None
        finally:
            self._calls -= 1


def evaluate(expression: Expression, scope: Scope, local: Mapping[str, Any] | None = None) -> Any:
    """Return the value of an expression. local: names that hide the scope's. Raises ValueError."""
    scope.step()
    return bounded(_KINDS[expression[0]](expression, scope, local or {}))


def _size(value: Any) -> int:
    """Return how many steps it takes to go over a value."""
    if isinstance(value, str):
        return len(value) // STEP_CHARACTERS
    return len(value) if isinstance(value, list | dict) else 0


def bounded(value: Any) -> Any:
    """Return the value, unless it is too large."""
    if isinstance(value, str) and len(value) > CHARACTERS_MAX:
        raise ValueError(f"a text has more than {CHARACTERS_MAX} characters")
    if isinstance(value, list | dict) and len(value) > ITEMS_MAX:
        raise ValueError(f"a list has more than {ITEMS_MAX} items")
    if isinstance(value, int) and value.bit_length() > 1024:
        raise ValueError("a number is too large")
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def to_text(value: Any) -> str:
    """Return the text of a value. Raises ValueError for what has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) else format(value, ".15g")
    raise ValueError(f"a string is required, not {kind_of(value)}")


def to_number(value: Any) -> int | float:
    """Return the number that a value is. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a number is required, not {kind_of(value)}")
    if isinstance(value, str):
        if len(value) > 300:
            raise ValueError("a number is required")
        try:
            number = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            raise ValueError(f"a number is required, not {value[:40]!r}") from None
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError("a number is required")
        return number
    return int(value) if isinstance(value, int) else float(value)


def to_bool(value: Any) -> bool:
    """Return the truth that a value is. Raises ValueError."""
    if isinstance(value, bool):
        return value
    if value in ("true", "1"):
        return True
    if value in ("false", "0"):
        return False
    raise ValueError(f"a bool is required, not {kind_of(value)}")


def kind_of(value: Any) -> str:
    """Return what HCL calls the type of a value."""
    if value is None:
        return "null"
    names = {bool: "bool", str: "string", int: "number", float: "number", list: "tuple", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _literal(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    return expression[1]


def _name(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    name = expression[1]
    return local[name] if name in local else scope.name(name)


def _template(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    parts = expression[1]
    if len(parts) == 1 and parts[0][0] not in ("literal", "join", "if"):
        return evaluate(parts[0], scope, local)  # "${x}" is x itself, whatever it is
    texts = []
    size = 0
    for part in parts:
        value = evaluate(part, scope, local)
        if value is None:
            raise ValueError("a null can't be part of a string")
        texts.append(to_text(value))
        size += len(texts[-1])
        scope.step(_size(texts[-1]))
        if size > CHARACTERS_MAX:
            raise ValueError(f"a text has more than {CHARACTERS_MAX} characters")
    return "".join(texts)


def _join(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    return "".join(to_text(item) for item in evaluate(expression[1], scope, local))


def _tuple(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    return [evaluate(item, scope, local) for item in expression[1]]


def _object(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    return {to_text(evaluate(key, scope, local)): evaluate(value, scope, local) for key, value in expression[1]}


def _call(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    _, name, arguments, expanded = expression
    if name in ("try", "can"):
        return _try(name, arguments, scope, local)
    values = [evaluate(argument, scope, local) for argument in arguments]
    if expanded:
        last = values.pop()
        if not isinstance(last, list):
            raise ValueError("only a list can be expanded with ...")
        values += last
    return scope.call(name, values)


def _try(name: str, arguments: list[Expression], scope: Scope, local: Mapping[str, Any]) -> Any:
    for argument in arguments:
        try:
            value = evaluate(argument, scope, local)
        except ValueError:
            continue
        return True if name == "can" else value
    if name == "can":
        return False
    raise ValueError("no expression of try() succeeded")


def _if(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    _, condition, yes, no = expression
    return evaluate(yes if to_bool(evaluate(condition, scope, local)) else no, scope, local)


def _unary(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    value = evaluate(expression[2], scope, local)
    return not to_bool(value) if expression[1] == "!" else -to_number(value)


def _binary(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    _, operator, left, right = expression
    first, second = evaluate(left, scope, local), evaluate(right, scope, local)
    if operator in ("&&", "||"):
        one, other = to_bool(first), to_bool(second)
        return one and other if operator == "&&" else one or other
    if operator in ("==", "!="):
        return same(first, second) == (operator == "==")
    return calculate(operator, to_number(first), to_number(second))


def calculate(operator: str, first: float, second: float) -> Any:
    """Return what an operator makes of two numbers. Raises ValueError."""
    if operator in ("/", "%") and not second:
        raise ValueError("division by zero")
    results: dict[str, Callable[[], Any]] = {
        "+": lambda: first + second,
        "-": lambda: first - second,
        "*": lambda: first * second,
        "/": lambda: first / second,
        "%": lambda: first - second * int(first / second),
        "<": lambda: first < second,
        ">": lambda: first > second,
        "<=": lambda: first <= second,
        ">=": lambda: first >= second,
    }
    try:
        return bounded(results[operator]())
    except OverflowError:
        raise ValueError("a number is too large") from None


def same(first: Any, second: Any) -> bool:
    """Say whether two values are equal; a truth is no number."""
    if isinstance(first, bool) != isinstance(second, bool):
        return False
    return bool(first == second)


def _attribute(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    return index(evaluate(expression[1], scope, local), expression[2])


def _index(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    return index(evaluate(expression[1], scope, local), evaluate(expression[2], scope, local))


def index(value: Any, key: Any) -> Any:
    """Return an item of a list or an object. Raises ValueError."""
    if isinstance(value, dict):
        name = to_text(key)
        if name not in value:
            raise ValueError(f'this object does not have an attribute named "{name}"')
        return value[name]
    if isinstance(value, list):
        number = to_number(key)
        if number != int(number) or not 0 <= number < len(value):
            raise ValueError(f"the list has no item {to_text(key)}")
        return value[int(number)]
    raise ValueError(f"{kind_of(value)} has no attributes or items")


def _splat(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    value = evaluate(expression[1], scope, local)
    items = [] if value is None else value if isinstance(value, list) else [value]
    return [evaluate(expression[2], scope, {**local, ITEM: item}) for item in items]


def _for(expression: Expression, scope: Scope, local: Mapping[str, Any]) -> Any:
    _, names, source, key, value, condition, grouped = expression
    items = evaluate(source, scope, local)
    if not isinstance(items, list | dict):
        raise ValueError(f"{kind_of(items)} can't be iterated over")
    pairs = sorted(items.items()) if isinstance(items, dict) else list(enumerate(items))
    listed: list[Any] = []
    built: dict[str, Any] = {}
    for at, item in pairs:
        inner = {**local, names[-1]: item, **({names[0]: at} if len(names) == 2 else {})}
        if condition is not None and not to_bool(evaluate(condition, scope, inner)):
            continue
        made = evaluate(value, scope, inner)
        if key is None:
            listed.append(made)
            continue
        name = to_text(evaluate(key, scope, inner))
        if grouped:
            built.setdefault(name, []).append(made)
        elif name in built:
            raise ValueError(f'two items of the for expression have the key "{name}"')
        else:
            built[name] = made
    return listed if key is None else built


_KINDS: dict[str, Callable[[Expression, Scope, Mapping[str, Any]], Any]] = {
    "attribute": _attribute,
    "binary": _binary,
    "call": _call,
    "for": _for,
    "if": _if,
    "index": _index,
    "join": _join,
    "literal": _literal,
    "name": _name,
    "object": _object,
    "splat": _splat,
    "template": _template,
    "tuple": _tuple,
    "unary": _unary,
}
