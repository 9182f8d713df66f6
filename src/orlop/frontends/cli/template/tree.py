"""What a template is made of, and how each part is executed: nodes that print, pipelines that have a value."""

from __future__ import annotations

from .functions import FUNCTIONS
from .values import TemplateError, field, is_true, pairs, show


class Scope:
    """The dot, and the stack of variables that all scopes of one execution share."""

    __slots__ = ("dot", "variables")

    def __init__(self, dot: object, variables: list[tuple[str, object]]) -> None:
        self.dot = dot
        self.variables = variables

    def find(self, name: str) -> int:
        """Return where the innermost variable of that name stands."""
        return next(at for at in range(len(self.variables) - 1, -1, -1) if self.variables[at][0] == name)


class Jump(Exception):
    """break and continue."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self.ends = ends


class Node:
    def execute(self, scope: Scope, out: list[str]) -> None:
        raise NotImplementedError


class Text(Node):
    def __init__(self, text: str) -> None:
        self.text = text

    def execute(self, scope: Scope, out: list[str]) -> None:
        out.append(self.text)


class Print(Node):
    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def execute(self, scope: Scope, out: list[str]) -> None:
        value = self.pipeline.value(scope)
        if not self.pipeline.declares:
            out.append(show(value))


class Leave(Node):
    def __init__(self, *, ends: bool) -> None:
        self.ends = ends

    def execute(self, scope: Scope, out: list[str]) -> None:
        raise Jump(ends=self.ends)


class Branch(Node):
    """if and with."""

    def __init__(self, pipeline: Pipeline, then: list[Node], otherwise: list[Node], *, moves_dot: bool) -> None:
        self.pipeline = pipeline
        self.then = then
        self.otherwise = otherwise
        self.moves_dot = moves_dot

    def execute(self, scope: Scope, out: list[str]) -> None:
        outer = len(scope.variables)
        value = self.pipeline.value(scope)
        chosen = self.then if is_true(value) else self.otherwise
        inner = Scope(value if self.moves_dot and chosen is self.then else scope.dot, scope.variables)
        try:
            for node in chosen:
                node.execute(inner, out)
        finally:
            del scope.variables[outer:]


class Range(Node):
    def __init__(self, pipeline: Pipeline, body: list[Node], otherwise: list[Node]) -> None:
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise

    def execute(self, scope: Scope, out: list[str]) -> None:
        items = list(pairs(self.pipeline.evaluate(scope)))
        outer = len(scope.variables)
        if not items:
            for node in self.otherwise:
                node.execute(scope, out)
        names = self.pipeline.declares
        for key, item in items:
            scope.variables += zip(names, (key, item) if len(names) == 2 else (item,), strict=False)
            try:
                for node in self.body:
                    node.execute(Scope(item, scope.variables), out)
            except Jump as jump:
                if jump.ends:
                    break
            finally:
                del scope.variables[outer:]


class Pipeline:
    """Commands whose values flow into the next one's last argument. declares: variables that take the value."""

    def __init__(self, commands: list[Command], declares: tuple[str, ...], *, is_new: bool) -> None:
        self.commands = commands
        self.declares = declares
        self.is_new = is_new

    def evaluate(self, scope: Scope) -> object:
        value: object = None
        for at, command in enumerate(self.commands):
            value = command.evaluate(scope, (value,) if at else ())
        return value

    def value(self, scope: Scope) -> object:
        """Evaluate, and set the variables."""
        value = self.evaluate(scope)
        for name in self.declares:
            if self.is_new:
                scope.variables.append((name, value))
            else:
                scope.variables[scope.find(name)] = (name, value)
        return value


class Operand:
    """One value: a constant, the dot, a variable, a pipeline in parentheses or a function, and fields of it."""

    def __init__(self, kind: str, content: object, fields: list[str]) -> None:
        self.kind = kind
        self.content = content
        self.fields = fields

    def evaluate(self, scope: Scope, arguments: tuple[object, ...] = ()) -> object:
        value = self._base(scope)
        for at, name in enumerate(self.fields):
            value = field(value, name, arguments if at == len(self.fields) - 1 else ())
        if arguments and not self.fields:
            raise TemplateError(f"can't give argument to non-function {self.content}")
        return value

    def _base(self, scope: Scope) -> object:
        if self.kind == "dot":
            return scope.dot
        if self.kind == "variable":
            return scope.variables[scope.find(str(self.content))][1]
        if isinstance(self.content, Pipeline):
            return self.content.evaluate(scope)
        if isinstance(self.content, Command):
            return self.content.evaluate(scope, ())
        return self.content


class Command:
    """A function or an operand, with arguments."""

    def __init__(self, function: str, operands: list[Operand]) -> None:
        self.function = function
        self.operands = operands

    def evaluate(self, scope: Scope, piped: tuple[object, ...]) -> object:
        if not self.function:
            first, *others = self.operands
            return first.evaluate(scope, (*(operand.evaluate(scope) for operand in others), *piped))
        if self.function in ("and", "or"):
            return self._short_circuit(scope, piped)
        arguments = [*(operand.evaluate(scope) for operand in self.operands), *piped]
        try:
            return FUNCTIONS[self.function](*arguments)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as wrong:
            if "positional argument" in str(wrong):
                raise TemplateError(f"wrong number of args for {self.function}: got {len(arguments)}") from None
            raise TemplateError(f"error calling {self.function}: {wrong}") from None

    def _short_circuit(self, scope: Scope, piped: tuple[object, ...]) -> object:
        value: object = None
        for operand in self.operands:
            value = operand.evaluate(scope)
            if is_true(value) == (self.function == "or"):
                return value
        return piped[0] if piped else value
