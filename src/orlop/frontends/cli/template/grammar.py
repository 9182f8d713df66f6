"""The grammar of templates: text to tokens to the tree. Errors are Go's."""

from __future__ import annotations

from ..flags import quote
from .functions import FUNCTIONS
from .tree import Branch, Command, Leave, Node, Operand, Pipeline, Print, Range, Text
from .values import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Token:
    """kind: field, dot, variable, name, constant, end, or the punctuation itself. glued: no blank before it."""

    __slots__ = ("glued", "kind", "value")

    def __init__(self, kind: str, value: object, *, glued: bool) -> None:
        self.kind = kind
        self.value = value
        self.glued = glued


class Parser:
    def __init__(self, text: str) -> None:
        self.pieces = list(_pieces(text))
        self.pieces.reverse()
        self.tokens: list[Token] = []
        self.variables = ["$"]

    def parse(self) -> list[Node]:
        body, end = self._nodes()
        if end:
            raise TemplateError(f"template: :1: unexpected {{{{{end}}}}}")
        return body

    def _nodes(self) -> tuple[list[Node], str]:
        """Return the nodes up to the word that ends the block: end, else, or nothing at the end of the text."""
        nodes: list[Node] = []
        while self.pieces:
            piece = self.pieces.pop()
            if isinstance(piece, str):
                nodes.append(Text(piece))
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

    def _action(self, word: str) -> Node | None:
        if self._peek().kind == "end":
            raise TemplateError("template: :1: missing value for command")
        if word in ("break", "continue"):
            self.tokens.pop()
            self._expect_end()
            return Leave(ends=word == "break")
        if word in ("if", "with", "range"):
            self.tokens.pop()
            return self._block(word)
        pipeline = self._pipeline()
        self._expect_end()
        return Print(pipeline)

    def _block(self, word: str) -> Node:
        known = len(self.variables)
        pipeline = self._pipeline(is_range=word == "range")
        self._expect_end()
        body, end = self._nodes()
        otherwise: list[Node] = []
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
            return Range(pipeline, body, otherwise)
        return Branch(pipeline, body, otherwise, moves_dot=word == "with")

    def _pipeline(self, *, is_range: bool = False) -> Pipeline:
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
        return Pipeline(commands, declares, is_new=is_new)

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

    def _command(self) -> Command:
        function = ""
        operands: list[Operand] = []
        first = self._peek()
        if first.kind == "name":
            function = str(self.tokens.pop().value)
            _check_function(function)
        while self._peek().kind not in ("end", "|", ")"):
            operands.append(self._operand())
        if not function and not operands:
            raise TemplateError("template: :1: missing value for command")
        return Command(function, operands)

    def _operand(self) -> Operand:
        token = self.tokens.pop()
        kind, content, fields = token.kind, token.value, []
        if token.kind == "(":
            content = self._pipeline()
            if self._peek().kind != ")":
                raise TemplateError("template: :1: unclosed left paren")
            self.tokens.pop()
        elif token.kind == "name":
            _check_function(str(token.value))
            kind, content = "(", Command(str(token.value), [])
        elif token.kind == "field":
            kind, fields = "dot", [str(token.value)]
        elif token.kind == "variable":
            if content not in self.variables:
                raise TemplateError(f"template: :1: undefined variable {quote(str(content))}")
        elif token.kind not in ("dot", "constant"):
            raise TemplateError(f'template: :1: unexpected "{token.kind}" in operand')
        while self._peek().kind == "field" and self._peek().glued and kind != "constant":
            fields.append(str(self.tokens.pop().value))
        return Operand(kind, content, fields)

    def _peek(self) -> Token:
        return self.tokens[-1] if self.tokens else _END

    def _expect_end(self) -> None:
        if self._peek().kind != "end":
            raise TemplateError(f"template: :1: unexpected {quote(str(self._peek().value))} in command")


_END = Token("end", "end of action", glued=False)
_BLANKS = " \t\r\n"


def _check_function(name: str) -> None:
    if name not in FUNCTIONS:
        raise TemplateError(f"template: :1: function {quote(name)} not defined")


def _pieces(text: str) -> Iterator[str | list[Token]]:
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


def _action_tokens(text: str) -> tuple[list[Token], str, bool]:
    """Return the tokens up to }}, what follows it, and whether blanks are to be trimmed there."""
    stripped = text.lstrip(_BLANKS)
    if stripped.startswith("/*"):
        _, closing, rest = stripped.partition("*/")
        rest = rest.lstrip(_BLANKS)
        if not closing or not rest.startswith(("}}", "-}}")):
            raise TemplateError("template: :1: unclosed comment")
        return [], rest.partition("}}")[2], rest.startswith("-")
    tokens: list[Token] = []
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


def _token(text: str, at: int, *, glued: bool) -> tuple[Token, int]:
    c = text[at]
    if c in "\"`'":
        return _quoted(text, at, glued=glued)
    if text.startswith(":=", at):
        return Token(":=", ":=", glued=glued), at + 2
    if c in "|(),=":
        return Token(c, c, glued=glued), at + 1
    number = c.isdigit() or (c in "+-." and text[at + 1 : at + 2].isdigit())
    end = at + 1
    while end < len(text) and (
        _in_name(text[end]) or (number and (text[end] == "." or text[end - 1 : end + 1] in _SIGNS))
    ):
        end += 1
    word = text[at:end]
    if number:
        return Token("constant", _number(word), glued=glued), end
    if c == ".":
        return Token("field" if len(word) > 1 else "dot", word[1:], glued=glued), end
    if c == "$":
        return Token("variable", word, glued=glued), end
    if word in _CONSTANTS:
        return Token("constant", _CONSTANTS[word], glued=glued), end
    if _in_name(c):
        return Token("name", word, glued=glued), end
    raise TemplateError(
        f"template: :1: unexpected {quote(c)} in operand" if c.isprintable() else "unrecognized character"
    )


_CONSTANTS: dict[str, object] = {"true": True, "false": False, "nil": None}
_SIGNS = ("e+", "e-", "E+", "E-")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CODES = {"x": 2, "u": 4, "U": 8}


def _quoted(text: str, at: int, *, glued: bool) -> tuple[Token, int]:
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
    return Token("constant", value, glued=glued), at + 1


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
