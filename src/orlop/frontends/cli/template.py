"""Go's text/template, as far as docker's --format takes it: parse once, execute for each row or object.

Values are JSON values and `Row` objects (a table's line, whose fields are fixed and may be methods). What is not
here: define, template, block, and methods of Go's own types. Source of the language: https://pkg.go.dev/text/template;
of the functions: docker's formatting guide. Errors are Go's, so that what people find about them applies.
"""

from __future__ import annotations

from ...spec import jsonio
from ...spec.errors import Invalid
from .flags import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEMPLATE_BYTES_MAX = 64 * 1024
RANGE_MAX = 100_000


class TemplateError(Exception):
    """What is wrong, in Go's words."""


class Row:
    """A value whose fields are known: a name that is none of them is an error. A callable field is a method."""

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str, fields: dict[str, object]) -> None:
        self.kind = kind
        self.fields = fields

    def plain(self) -> dict[str, object]:
        """Return the fields without the methods, sorted: what `json` shows."""
        return {name: value for name, value in sorted(self.fields.items()) if not callable(value)}


class Template:
    """A parsed template. Raises Invalid, which names the template, for one that is malformed or can't be executed."""

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            if len(text) > TEMPLATE_BYTES_MAX:
                raise TemplateError(f"it is longer than {TEMPLATE_BYTES_MAX} characters")
            self._body = _Parser(text).parse()
        except (TemplateError, RecursionError) as wrong:
            raise self._invalid(wrong) from None

    def render(self, value: object) -> str:
        out: list[str] = []
        scope = _Scope(value, [("$", value)])
        try:
            for node in self._body:
                node.execute(scope, out)
        except (TemplateError, RecursionError) as wrong:
            raise self._invalid(wrong) from None
        except _Jump:
            raise self._invalid(TemplateError("break or continue outside of range")) from None
        return "".join(out)

    def _invalid(self, wrong: Exception) -> Invalid:
        cause = str(wrong) if isinstance(wrong, TemplateError) else "it is nested too deeply"
        shown = self._text if len(self._text) <= 200 else self._text[:200] + "..."
        return Invalid("use", f"the template {shown}", cause, hint="--format '{{json .}}' shows all that there is")


# -- the tree --------------------------------------------------------------------------------------------------------


class _Scope:
    """The dot, and the stack of variables that all scopes of one execution share."""

    __slots__ = ("dot", "variables")

    def __init__(self, dot: object, variables: list[tuple[str, object]]) -> None:
        self.dot = dot
        self.variables = variables

    def find(self, name: str) -> int:
        """Return where the innermost variable of that name stands."""
        return next(at for at in range(len(self.variables) - 1, -1, -1) if self.variables[at][0] == name)


class _Jump(Exception):
    """break and continue."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self.ends = ends


class _Node:
    def execute(self, scope: _Scope, out: list[str]) -> None:
        raise NotImplementedError


class _Text(_Node):
    def __init__(self, text: str) -> None:
        self.text = text

    def execute(self, scope: _Scope, out: list[str]) -> None:
        out.append(self.text)


class _Print(_Node):
    def __init__(self, pipeline: _Pipeline) -> None:
        self.pipeline = pipeline

    def execute(self, scope: _Scope, out: list[str]) -> None:
        value = self.pipeline.value(scope)
        if not self.pipeline.declares:
            out.append(show(value))


class _Leave(_Node):
    def __init__(self, *, ends: bool) -> None:
        self.ends = ends

    def execute(self, scope: _Scope, out: list[str]) -> None:
        raise _Jump(ends=self.ends)


class _Branch(_Node):
    """if and with."""

    def __init__(self, pipeline: _Pipeline, then: list[_Node], otherwise: list[_Node], *, moves_dot: bool) -> None:
        self.pipeline = pipeline
        self.then = then
        self.otherwise = otherwise
        self.moves_dot = moves_dot

    def execute(self, scope: _Scope, out: list[str]) -> None:
        outer = len(scope.variables)
        value = self.pipeline.value(scope)
        chosen = self.then if is_true(value) else self.otherwise
        inner = _Scope(value if self.moves_dot and chosen is self.then else scope.dot, scope.variables)
        try:
            for node in chosen:
                node.execute(inner, out)
        finally:
            del scope.variables[outer:]


class _Range(_Node):
    def __init__(self, pipeline: _Pipeline, body: list[_Node], otherwise: list[_Node]) -> None:
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise

    def execute(self, scope: _Scope, out: list[str]) -> None:
        pairs = list(_pairs(self.pipeline.evaluate(scope)))
        outer = len(scope.variables)
        if not pairs:
            for node in self.otherwise:
                node.execute(scope, out)
        names = self.pipeline.declares
        for key, item in pairs:
            scope.variables += zip(names, (key, item) if len(names) == 2 else (item,), strict=False)
            try:
                for node in self.body:
                    node.execute(_Scope(item, scope.variables), out)
            except _Jump as jump:
                if jump.ends:
                    break
            finally:
                del scope.variables[outer:]


class _Pipeline:
    """Commands whose values flow into the next one's last argument. declares: variables that take the value."""

    def __init__(self, commands: list[_Command], declares: tuple[str, ...], *, is_new: bool) -> None:
        self.commands = commands
        self.declares = declares
        self.is_new = is_new

    def evaluate(self, scope: _Scope) -> object:
        value: object = None
        for at, command in enumerate(self.commands):
            value = command.evaluate(scope, (value,) if at else ())
        return value

    def value(self, scope: _Scope) -> object:
        """Evaluate, and set the variables."""
        value = self.evaluate(scope)
        for name in self.declares:
            if self.is_new:
                scope.variables.append((name, value))
            else:
                scope.variables[scope.find(name)] = (name, value)
        return value


class _Operand:
    """One value: a constant, the dot, a variable, a pipeline in parentheses or a function, and fields of it."""

    def __init__(self, kind: str, content: object, fields: list[str]) -> None:
        self.kind = kind
        self.content = content
        self.fields = fields

    def evaluate(self, scope: _Scope, arguments: tuple[object, ...] = ()) -> object:
        value = self._base(scope)
        for at, name in enumerate(self.fields):
            value = field(value, name, arguments if at == len(self.fields) - 1 else ())
        if arguments and not self.fields:
            raise TemplateError(f"can't give argument to non-function {self.content}")
        return value

    def _base(self, scope: _Scope) -> object:
        if self.kind == "dot":
            return scope.dot
        if self.kind == "variable":
            return scope.variables[scope.find(str(self.content))][1]
        if isinstance(self.content, _Pipeline):
            return self.content.evaluate(scope)
        if isinstance(self.content, _Command):
            return self.content.evaluate(scope, ())
        return self.content


class _Command:
    """A function or an operand, with arguments."""

    def __init__(self, function: str, operands: list[_Operand]) -> None:
        self.function = function
        self.operands = operands

    def evaluate(self, scope: _Scope, piped: tuple[object, ...]) -> object:
        if not self.function:
            first, *others = self.operands
            return first.evaluate(scope, (*(operand.evaluate(scope) for operand in others), *piped))
        if self.function in ("and", "or"):
            return self._short_circuit(scope, piped)
        arguments = [*(operand.evaluate(scope) for operand in self.operands), *piped]
        from .template_functions import FUNCTIONS

        try:
            return FUNCTIONS[self.function](*arguments)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as wrong:
            if "positional argument" in str(wrong):
                raise TemplateError(f"wrong number of args for {self.function}: got {len(arguments)}") from None
            raise TemplateError(f"error calling {self.function}: {wrong}") from None

    def _short_circuit(self, scope: _Scope, piped: tuple[object, ...]) -> object:
        value: object = None
        for operand in self.operands:
            value = operand.evaluate(scope)
            if is_true(value) == (self.function == "or"):
                return value
        return piped[0] if piped else value


# -- values ----------------------------------------------------------------------------------------------------------


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
    elif value is None:
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
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _show_float(value)
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_show_inner, value))}]"
    if isinstance(value, Row):
        value = value.plain()
    if isinstance(value, dict):
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


def _pairs(value: object) -> Iterator[tuple[object, object]]:
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
    elif value is not None:
        raise TemplateError(f"range can't iterate over {show(value)}")


# -- the grammar -----------------------------------------------------------------------------------------------------


class _Token:
    """kind: field, dot, variable, name, constant, end, or the punctuation itself. glued: no blank before it."""

    __slots__ = ("glued", "kind", "value")

    def __init__(self, kind: str, value: object, *, glued: bool) -> None:
        self.kind = kind
        self.value = value
        self.glued = glued


class _Parser:
    def __init__(self, text: str) -> None:
        self.pieces = list(_pieces(text))
        self.pieces.reverse()
        self.tokens: list[_Token] = []
        self.variables = ["$"]

    def parse(self) -> list[_Node]:
        body, end = self._nodes()
        if end:
            raise TemplateError(f"template: :1: unexpected {{{{{end}}}}}")
        return body

    def _nodes(self) -> tuple[list[_Node], str]:
        """Return the nodes up to the word that ends the block: end, else, or nothing at the end of the text."""
        nodes: list[_Node] = []
        while self.pieces:
            piece = self.pieces.pop()
            if isinstance(piece, str):
                nodes.append(_Text(piece))
                continue
            self.tokens = piece[::-1]
            word = self._peek().value if self._peek().kind == "name" else ""
            if word in ("end", "else"):
                self.tokens.pop()
                if word == "end":
                    self._expect_end()
                return nodes, str(word)
            node = self._action(str(word))
            if node is not None:
                nodes.append(node)
        return nodes, ""

    def _action(self, word: str) -> _Node | None:
        if self._peek().kind == "end":
            raise TemplateError("template: :1: missing value for command")
        if word in ("break", "continue"):
            self.tokens.pop()
            self._expect_end()
            return _Leave(ends=word == "break")
        if word in ("if", "with", "range"):
            self.tokens.pop()
            return self._block(word)
        pipeline = self._pipeline()
        self._expect_end()
        return _Print(pipeline)

    def _block(self, word: str) -> _Node:
        known = len(self.variables)
        pipeline = self._pipeline(is_range=word == "range")
        self._expect_end()
        body, end = self._nodes()
        otherwise: list[_Node] = []
        if end == "else":
            if self._peek().kind == "name" and self._peek().value in ("if", "with"):
                otherwise = [self._block(str(self.tokens.pop().value))]
                end = "end"
            else:
                self._expect_end()
                otherwise, end = self._nodes()
        if end != "end":
            raise TemplateError(
                "template: :1: unexpected EOF" if not end else f"template: :1: unexpected {{{{{end}}}}}"
            )
        del self.variables[known:]
        if word == "range":
            return _Range(pipeline, body, otherwise)
        return _Branch(pipeline, body, otherwise, moves_dot=word == "with")

    def _pipeline(self, *, is_range: bool = False) -> _Pipeline:
        declares, is_new = self._declaration(is_range)
        commands = [self._command()]
        while self._peek().kind == "|":
            self.tokens.pop()
            commands.append(self._command())
            if not commands[-1].function and not commands[-1].operands[0].fields:
                raise TemplateError("template: :1: non executable command in pipeline stage 2")
        for name in declares:
            if not is_new and name not in self.variables:
                raise TemplateError(f"template: :1: undefined variable {quote(name)}")
        if is_new:
            self.variables += declares
        return _Pipeline(commands, declares, is_new=is_new)

    def _declaration(self, is_range: bool) -> tuple[tuple[str, ...], bool]:
        names: list[str] = []
        at = len(self.tokens) - 1
        while at > 0 and self.tokens[at].kind == "variable" and self.tokens[at - 1].kind in (":=", "=", ","):
            names.append(str(self.tokens[at].value))
            sign = self.tokens[at - 1].kind
            at -= 2
            if sign == ",":
                continue
            if len(names) > (2 if is_range else 1):
                raise TemplateError("template: :1: too many declarations in command")
            del self.tokens[at + 1 :]
            return tuple(names), sign == ":="
        return (), False

    def _command(self) -> _Command:
        function = ""
        operands: list[_Operand] = []
        first = self._peek()
        if first.kind == "name":
            function = str(self.tokens.pop().value)
            _check_function(function)
        while self._peek().kind not in ("end", "|", ")"):
            operands.append(self._operand())
        if not function and not operands:
            raise TemplateError("template: :1: missing value for command")
        return _Command(function, operands)

    def _operand(self) -> _Operand:
        token = self.tokens.pop()
        kind, content, fields = token.kind, token.value, []
        if token.kind == "(":
            content = self._pipeline()
            if self._peek().kind != ")":
                raise TemplateError("template: :1: unclosed left paren")
            self.tokens.pop()
        elif token.kind == "name":
            _check_function(str(token.value))
            kind, content = "(", _Command(str(token.value), [])
        elif token.kind == "field":
            kind, fields = "dot", [str(token.value)]
        elif token.kind == "variable":
            if content not in self.variables:
                raise TemplateError(f"template: :1: undefined variable {quote(str(content))}")
        elif token.kind not in ("dot", "constant"):
            raise TemplateError(f'template: :1: unexpected "{token.kind}" in operand')
        while self._peek().kind == "field" and self._peek().glued and kind != "constant":
            fields.append(str(self.tokens.pop().value))
        return _Operand(kind, content, fields)

    def _peek(self) -> _Token:
        return self.tokens[-1] if self.tokens else _END

    def _expect_end(self) -> None:
        if self._peek().kind != "end":
            raise TemplateError(f"template: :1: unexpected {quote(str(self._peek().value))} in command")


_END = _Token("end", "end of action", glued=False)
_BLANKS = " \t\r\n"


def _check_function(name: str) -> None:
    from .template_functions import FUNCTIONS

    if name not in FUNCTIONS:
        raise TemplateError(f"template: :1: function {quote(name)} not defined")


def _pieces(text: str) -> Iterator[str | list[_Token]]:
    """Yield the text between actions, trimmed as {{- and -}} ask, and the tokens of each action."""
    trims = False
    while text:
        before, opening, text = text.partition("{{")
        if trims:
            before = before.lstrip(_BLANKS)
        trims = False
        if opening and text[:1] == "-" and text[1:2] in (*_BLANKS,) and len(text) > 1:
            before, text = before.rstrip(_BLANKS), text[1:]
        if before:
            yield before
        if opening:
            tokens, text, trims = _action_tokens(text)
            if tokens:
                yield tokens


def _action_tokens(text: str) -> tuple[list[_Token], str, bool]:
    """Return the tokens up to }}, what follows it, and whether blanks are to be trimmed there."""
    stripped = text.lstrip(_BLANKS)
    if stripped.startswith("/*"):
        _, closing, rest = stripped.partition("*/")
        rest = rest.lstrip(_BLANKS)
        if not closing or not rest.startswith(("}}", "-}}")):
            raise TemplateError("template: :1: unclosed comment")
        return [], rest.partition("}}")[2], rest.startswith("-")
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        start = at
        while text[at : at + 1] in (*_BLANKS,) and at < len(text):
            at += 1
        if text.startswith("}}", at):
            return tokens or [_END], text[at + 2 :], False
        if at > start and text.startswith("-}}", at):
            return tokens or [_END], text[at + 3 :], True
        if at >= len(text):
            break
        token, at = _token(text, at, glued=at == start)
        tokens.append(token)
    raise TemplateError("template: :1: unclosed action")


def _token(text: str, at: int, *, glued: bool) -> tuple[_Token, int]:
    c = text[at]
    if c in "\"`'":
        return _quoted(text, at, glued=glued)
    if text.startswith(":=", at):
        return _Token(":=", ":=", glued=glued), at + 2
    if c in "|(),=":
        return _Token(c, c, glued=glued), at + 1
    number = c.isdigit() or (c in "+-." and text[at + 1 : at + 2].isdigit())
    end = at + 1
    while end < len(text) and (
        _in_name(text[end]) or (number and (text[end] == "." or text[end - 1 : end + 1] in _SIGNS))
    ):
        end += 1
    word = text[at:end]
    if number:
        return _Token("constant", _number(word), glued=glued), end
    if c == ".":
        return _Token("field" if len(word) > 1 else "dot", word[1:], glued=glued), end
    if c == "$":
        return _Token("variable", word, glued=glued), end
    if word in _CONSTANTS:
        return _Token("constant", _CONSTANTS[word], glued=glued), end
    if _in_name(c):
        return _Token("name", word, glued=glued), end
    raise TemplateError(
        f"template: :1: unexpected {quote(c)} in operand" if c.isprintable() else "unrecognized character"
    )


_CONSTANTS: dict[str, object] = {"true": True, "false": False, "nil": None}
_SIGNS = ("e+", "e-", "E+", "E-")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CODES = {"x": 2, "u": 4, "U": 8}


def _quoted(text: str, at: int, *, glued: bool) -> tuple[_Token, int]:
    """Read "..." with escapes, `...` without, or a character constant."""
    mark, out, at = text[at], [], at + 1
    while at < len(text) and text[at] != mark and (mark == "`" or text[at] != "\n"):
        if text[at] == "\\" and mark != "`":
            piece, at = _escaped(text, at + 1)
            out.append(piece)
        else:
            out.append(text[at])
            at += 1
    if text[at : at + 1] != mark:
        raise TemplateError("template: :1: unterminated quoted string")
    value: object = "".join(out)
    if mark == "'":
        if len(out) != 1 or len(out[0]) != 1:
            raise TemplateError("template: :1: malformed character constant")
        value = ord(out[0])
    return _Token("constant", value, glued=glued), at + 1


def _escaped(text: str, at: int) -> tuple[str, int]:
    c = text[at : at + 1]
    if c in _CODES:
        digits = text[at + 1 : at + 1 + _CODES[c]]
        try:
            return chr(int(digits, 16)), at + 1 + len(digits)
        except (ValueError, OverflowError):
            raise TemplateError("template: :1: invalid syntax") from None
    if c and c in "\\\"'":
        return c, at + 1
    if c not in _ESCAPES:
        raise TemplateError("template: :1: invalid syntax")
    return _ESCAPES[c], at + 1


def _number(word: str) -> int | float:
    parse: Callable[[str], int | float]
    for parse in (lambda text: int(text, 0), float):
        try:
            number = parse(word)
        except ValueError:
            continue
        if abs(number) < float("inf"):  # neither 1e999 nor nan is a number in a template
            return number
    raise TemplateError(f"template: :1: bad number syntax: {quote(word)}")


def _in_name(c: str) -> bool:
    return c == "_" or c.isalnum()
