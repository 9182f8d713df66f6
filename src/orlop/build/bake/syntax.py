"""HCL's native syntax: text to blocks, attributes and expressions. Bounds: size, depth of nesting.

An expression is a tuple whose first word says what it is: evaluate has the list.
Source: HCL native syntax specification (hashicorp/hcl, hclsyntax/spec.md).
"""

from __future__ import annotations

import re

from orlop.spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Expression = tuple[Any, ...]

CHARACTERS_MAX = 4 * 1024 * 1024
DEPTH_MAX = 50
DIGITS_MAX = 300
ITEM = "*"  # no name of a file's: the item that a splat is at
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*|//[^\n]*|/\*(?s:.*?)\*/)
    |(?P<newline>\n)
    |(?P<heredoc><<-?[A-Za-z_][\w-]*[ \t\r]*\n)
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<name>[^\W\d][\w-]*)
    |(?P<operator>\.\.\.|=>|==|!=|<=|>=|&&|\|\||[-+*/%!<>?:=.,~(){}\[\]])
    |(?P<quote>")""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_BINARY = (("||",), ("&&",), ("==", "!="), ("<", ">", "<=", ">="), ("+", "-"), ("*", "/", "%"))
_CONTROL = re.compile(r"%\{~?\s*(if|else|endif|for|endfor)\b")


class Block:
    """`type "label" { ... }`. attributes: name -> expression. line: where it begins, from 1."""

    __slots__ = ("attributes", "blocks", "labels", "line", "type")

    def __init__(self, kind: str, labels: list[str], line: int) -> None:
        self.type = kind
        self.labels = labels
        self.line = line
        self.attributes: dict[str, Expression] = {}
        self.blocks: list[Block] = []


def parse(text: str, name: str) -> Block:
    """Return the body of a file as a block without type. Raises Invalid with file:line."""
    if len(text) > CHARACTERS_MAX:
        raise Invalid("read", name, f"it has more than {CHARACTERS_MAX} characters", code="E0212")
    parser = _Parser(text, name)
    body = Block("", [], 1)
    parser.body(body, "")
    return body


def parse_template(text: str, name: str) -> Expression:
    """Return the expression of a string with ${...} in it, as JSON files have them. Raises Invalid."""
    return _Parser(text, name).template("")


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.name = name
        self.at = 0
        self.depth = 0
        self.nested = 0  # inside brackets, where newlines mean nothing
        self.kind = ""
        self.value = ""
        self.start = 0

    def wrong(self, cause: str) -> NoReturn:
        line = self.text.count("\n", 0, min(self.start, len(self.text))) + 1
        raise Invalid("read", f"{self.name}:{line}", cause, hint="see docker's Bake file reference")

    # -- tokens ---------------------------------------------------------------------------------------------------

    def peek(self) -> str:
        """Look at the next token; its kind is in self.kind, its text is returned."""
        at = self.at
        while True:
            match = _TOKEN.match(self.text, at)
            if match is None:
                self.start = at
                if at >= len(self.text):
                    self.kind, self.value, self.at = "end", "", at
                    return ""
                self.wrong(f"unexpected character {self.text[at]!r}")
            self.kind = match.lastgroup or ""
            if self.kind == "space" or (self.kind == "newline" and self.nested):
                at = match.end()
                continue
            self.at, self.start, self.value = match.start(), match.start(), match[0]
            return self.value

    def take(self) -> str:
        value = self.peek()
        self.at += len(value)
        return value

    def accept(self, *values: str) -> str:
        value = self.peek()
        if self.kind in ("operator", "name") and value in values:
            return self.take()
        return ""

    def expect(self, value: str) -> None:
        if not self.accept(value):
            self.wrong(f"expected {value!r}, found {self.peek()[:40]!r}")

    def newlines(self) -> None:
        while self.peek() == "\n":
            self.take()

    # -- bodies ---------------------------------------------------------------------------------------------------

    def body(self, block: Block, end: str) -> None:
        while True:
            self.newlines()
            value = self.peek()
            if self.kind == "end" and not end:
                return
            if end and value == end:
                return
            if self.kind not in ("name", "quote"):
                self.wrong(f"expected an attribute or a block, found {value[:40] or 'the end of the file'!r}")
            self._item(block, end)

    def _item(self, block: Block, end: str) -> None:
        line = self.text.count("\n", 0, self.at) + 1
        name = self.take() if self.kind == "name" else self._quoted_name()
        if self.accept("="):
            if name in block.attributes:
                self.wrong(f"attribute {name!r} is set twice")
            block.attributes[name] = self.expression()
        else:
            inner = Block(name, [], line)
            self._inner(inner)
            block.blocks.append(inner)
        value = self.peek()
        if self.kind == "end" or value == "\n":
            return
        if not (end and value == end):
            self.wrong(f"expected a new line, found {value[:40]!r}")

    def _inner(self, block: Block) -> None:
        while not self.accept("{"):
            self.peek()
            if self.kind == "quote":
                block.labels.append(self._quoted_name())
            elif self.kind == "name":
                block.labels.append(self.take())
            else:
                self.wrong(f"expected '{{' or '=', found {self.value[:40]!r}")
        self._deeper()
        nested, self.nested = self.nested, 0
        self.body(block, "}")
        self.nested = nested
        self.expect("}")
        self.depth -= 1

    def _quoted_name(self) -> str:
        self.take()
        expression = self.template('"')
        if expression[0] != "literal":
            self.wrong("a name can't have ${...} in it")
        return str(expression[1])

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            self.wrong("it is nested too deeply")

    # -- expressions ----------------------------------------------------------------------------------------------

    def expression(self) -> Expression:
        self._deeper()
        condition = self._binary(0)
        if self.accept("?"):
            yes = self.expression()
            self.expect(":")
            condition = ("if", condition, yes, self.expression())
        self.depth -= 1
        return condition

    def _binary(self, level: int) -> Expression:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while operator := self.accept(*_BINARY[level]):
            left = ("binary", operator, left, self._binary(level + 1))
            self._bounded(left)
        return left

    def _bounded(self, expression: Expression) -> None:
        """Refuse a chain of operators that evaluation would have to go down too deeply."""
        depth = 0
        while expression[0] in ("binary", "index", "attribute", "splat"):
            expression = expression[2] if expression[0] == "binary" else expression[1]
            depth += 1
        if depth > 4 * DEPTH_MAX:
            self.wrong("it is nested too deeply")

    def _unary(self) -> Expression:
        if operator := self.accept("!", "-"):
            self._deeper()
            value = self._unary()
            self.depth -= 1
            return ("unary", operator, value)
        return self._traversal(self._primary())

    def _traversal(self, value: Expression) -> Expression:
        while operator := self.accept("[", "."):
            value = self._bracket(value) if operator == "[" else self._dot(value)
            self._bounded(value)
        return value

    def _splat(self, value: Expression) -> Expression:
        """What follows `[*]` is taken of each item."""
        self._deeper()
        each = self._traversal(("name", ITEM))
        self.depth -= 1
        return ("splat", value, each)

    def _dot(self, value: Expression) -> Expression:
        if self.accept("*"):
            return self._splat(value)
        name = self.take()
        if self.kind == "number" and name.isdigit():
            return ("index", value, ("literal", self._number(name)))
        if self.kind != "name":
            self.wrong(f"expected a name after '.', found {name[:40]!r}")
        return ("attribute", value, name)

    def _bracket(self, value: Expression) -> Expression:
        self.nested += 1
        splat = self.accept("*")
        key = ("literal", None) if splat else self.expression()
        self.nested -= 1
        self.expect("]")
        return self._splat(value) if splat else ("index", value, key)

    def _primary(self) -> Expression:
        value = self.take()
        if self.kind == "number":
            return ("literal", self._number(value))
        if self.kind == "quote":
            return self.template('"')
        if self.kind == "heredoc":
            return self._heredoc(value)
        if self.kind == "name":
            return self._name(value)
        if value in ("(", "[", "{"):
            self.nested += 1
            self._deeper()
            inner = {"(": self._parenthesis, "[": self._tuple, "{": self._object}[value]()
            self.depth -= 1
            return inner
        return self.wrong(f"expected a value, found {value[:40] or 'the end of the file'!r}")

    def _number(self, text: str) -> int | float:
        number = int(text) if text.isdigit() and len(text) <= DIGITS_MAX else float(text)
        if number == float("inf") or len(text) > DIGITS_MAX:
            self.wrong("the number is too large")
        return number

    def _name(self, name: str) -> Expression:
        constants = {"true": True, "false": False, "null": None}
        if name in constants:
            return ("literal", constants[name])
        if not self.accept("("):
            return ("name", name)
        self.nested += 1
        arguments = []
        expanded = False
        while self.peek() != ")":
            arguments.append(self.expression())
            expanded = bool(self.accept("..."))
            if expanded or not self.accept(","):
                break
        self.nested -= 1
        self.expect(")")
        return ("call", name, arguments, expanded)

    def _parenthesis(self) -> Expression:
        value = self.expression()
        self.nested -= 1
        self.expect(")")
        return value

    def _tuple(self) -> Expression:
        if self.peek() == "for" and self.kind == "name":
            return self._for("]")
        items = []
        while self.peek() != "]":
            items.append(self.expression())
            if not self.accept(","):
                break
        self.nested -= 1
        self.expect("]")
        return ("tuple", items)

    def _object(self) -> Expression:
        if self.peek() == "for" and self.kind == "name":
            return self._for("}")
        items = []
        while self.peek() != "}":
            key = self._key()
            if not self.accept("=", ":"):
                self.wrong(f"expected '=' or ':', found {self.peek()[:40]!r}")
            items.append((key, self.expression()))
            self.accept(",")
        self.nested -= 1
        self.expect("}")
        return ("object", items)

    def _key(self) -> Expression:
        value = self.peek()
        if self.kind == "name":
            at = self.at
            self.take()
            if self.peek() in ("=", ":"):
                return ("literal", value)
            self.at = at
        return self.expression()

    def _for(self, end: str) -> Expression:
        self.take()
        names = [self._loop_name()]
        if self.accept(","):
            names.append(self._loop_name())
        self.expect("in")
        source = self.expression()
        self.expect(":")
        key = self.expression() if end == "}" else None
        if end == "}":
            self.expect("=>")
        value = self.expression()
        grouped = bool(self.accept("...")) if end == "}" else False
        condition = self.expression() if self.accept("if") else None
        self.nested -= 1
        self.expect(end)
        return ("for", names, source, key, value, condition, grouped)

    def _loop_name(self) -> str:
        name = self.take()
        if self.kind != "name":
            self.wrong(f"expected a name, found {name[:40]!r}")
        return name

    # -- templates ------------------------------------------------------------------------------------------------

    def _heredoc(self, opening: str) -> Expression:
        indented = opening.startswith("<<-")
        word = opening[3 if indented else 2 :].strip()
        lines = []
        while True:
            end = self.text.find("\n", self.at)
            line = self.text[self.at : end if end >= 0 else len(self.text)]
            if line.strip() == word:
                self.at += len(line)
                break
            if end < 0:
                self.wrong(f"no line is {word!r}, which ends the text")
            lines.append(line)
            self.at = end + 1
        if indented:
            cut = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
            lines = [line[cut:] for line in lines]
        inner = _Parser("".join(f"{line}\n" for line in lines), self.name)
        inner.depth = self.depth + 1
        return inner.template("")

    def template(self, end: str) -> Expression:
        """Read up to the quote (which is taken), or to the end of the text for ""."""
        parts = self._parts(end, ())
        if all(part[0] == "literal" and isinstance(part[1], str) for part in parts):
            return ("literal", "".join(part[1] for part in parts))
        return ("template", parts)

    def _parts(self, end: str, stops: tuple[str, ...]) -> list[Expression]:
        parts: list[Expression] = []
        literal: list[str] = []
        while True:
            self.start = self.at
            character = self.text[self.at : self.at + 1]
            if not character or character == end or (end == '"' and character == "\n"):
                if bool(character) != bool(end) or character == "\n" or stops:
                    self.wrong("a string or a %{...} in it is not closed")
                self.at += len(end)
                break
            if character == "\\" and end == '"':
                literal.append(self._escape())
            elif self.text.startswith(("$${", "%%{"), self.at):
                literal.append(self.text[self.at + 1 : self.at + 3])
                self.at += 3
            elif self.text.startswith("${", self.at):
                self._flush(parts, literal)
                parts.append(self._interpolation(parts))
            elif self.text.startswith("%{", self.at):
                word = _CONTROL.match(self.text, self.at)
                if word and word[1] in stops:
                    break
                self._flush(parts, literal)
                parts.append(self._directive(end))
            else:
                literal.append(character)
                self.at += 1
        self._flush(parts, literal)
        return parts

    def _flush(self, parts: list[Expression], literal: list[str]) -> None:
        if literal:
            parts.append(("literal", "".join(literal)))
            literal.clear()

    def _escape(self) -> str:
        character = self.text[self.at + 1 : self.at + 2]
        if character in ("u", "U"):
            size = 4 if character == "u" else 8
            digits = self.text[self.at + 2 : self.at + 2 + size]
            number = int(digits, 16) if re.fullmatch(f"[0-9a-fA-F]{{{size}}}", digits) else -1
            if not 0 < number <= 0x10FFFF or 0xD800 <= number < 0xE000:
                self.wrong(f"invalid escape \\{character}{digits}")
            self.at += 2 + size
            return chr(number)
        if character not in _ESCAPES or not character:
            self.wrong(f"invalid escape \\{character}")
        self.at += 2
        return _ESCAPES[character]

    def _interpolation(self, parts: list[Expression]) -> Expression:
        self.at += 2
        if self._strip_mark() and parts and parts[-1][0] == "literal":
            parts[-1] = ("literal", parts[-1][1].rstrip())
        value = self._embedded()
        self._close_embedded()
        return value

    def _embedded(self) -> Expression:
        self._deeper()
        nested, self.nested = self.nested, 1
        value = self.expression()
        self.nested = nested
        self.depth -= 1
        return value

    def _strip_mark(self) -> bool:
        if self.text.startswith("~", self.at):
            self.at += 1
            return True
        return False

    def _close_embedded(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t", "\n") and self.at < len(self.text):
            self.at += 1
        strip = self._strip_mark()
        if not self.text.startswith("}", self.at):
            self.start = self.at
            self.wrong("a ${...} is not closed")
        self.at += 1
        while strip and self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def _directive(self, end: str) -> Expression:
        word = _CONTROL.match(self.text, self.at)
        if word is None or word[1] not in ("if", "for"):
            self.wrong("expected %{if ...} or %{for ...}")
        self._deeper()
        self.at = word.end()
        if word[1] == "if":
            condition = self._embedded()
            self._close_embedded()
            yes = self._parts(end, ("else", "endif"))
            no: list[Expression] = []
            if self._control() == "else":
                no = self._parts(end, ("endif",))
                self._control()
            found: Expression = ("if", condition, ("template", yes), ("template", no))
        else:
            self.nested, nested = 1, self.nested
            names = [self._loop_name()]
            if self.accept(","):
                names.append(self._loop_name())
            self.expect("in")
            self.nested = nested
            source = self._embedded()
            self._close_embedded()
            body = self._parts(end, ("endfor",))
            self._control()
            found = ("join", ("for", names, source, None, ("template", body), None, False))
        self.depth -= 1
        return found

    def _control(self) -> str:
        word = _CONTROL.match(self.text, self.at)
        if word is None:
            self.wrong("a %{...} is not closed")
        self.at = word.end()
        self._close_embedded()
        return word[1]
