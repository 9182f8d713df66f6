"""The YAML that device files are written in: blocks of mappings and lists, scalars, quoted or not, comments.

What tools for CDI write and people copy from manuals is this much. Anything else (anchors, tags, block scalars, several
documents) is an error that names the line: what is read otherwise than it is meant gives a container another device.
Source: YAML 1.2.2, chapters 7.3, 7.4 (on one line) and 8.2.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEPTH_MAX = 32
_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s\-?:,\[\]{}#&*!|>'"%@`][^#]*?|-[^\s#][^#]*?):(?=\s|$)""")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o?[0-7]+")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "/": "/", "0": "\0", "r": "\r", "e": "\x1b"}
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False, "True": True, "False": False}


def parse(text: str) -> object:
    """Return the value of a document. Raises ValueError with the line."""
    return _Blocks(text).document()


class _Blocks:
    def __init__(self, text: str) -> None:
        self._lines: list[tuple[int, int, str]] = []  # (line, indentation, content)
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.rstrip()
            content = line.lstrip(" ")
            if number == 1 and content == "---":
                continue
            if not content or content.startswith("#"):
                continue
            if content.startswith("\t"):
                self._wrong(number, "it is indented by a tab")
            self._lines.append((number, len(line) - len(content), content))
        self._at = 0

    def document(self) -> object:
        if not self._lines:
            return None
        value = self._block(self._lines[0][1], 0)
        if self._at < len(self._lines):
            self._wrong(self._lines[self._at][0], "it is indented otherwise than what it belongs to")
        return value

    def _wrong(self, line: int, cause: str) -> NoReturn:
        raise ValueError(f"line {line}: {cause}")

    def _block(self, indent: int, depth: int) -> object:
        line, _, content = self._lines[self._at]
        if depth > DEPTH_MAX:
            self._wrong(line, "it is nested too deeply")
        if content == "-" or content.startswith("- "):
            return self._list(indent, depth)
        if _KEY.match(content):
            return self._mapping(indent, depth)
        self._at += 1
        return self._scalar(content, line)

    def _here(self, indent: int) -> tuple[int, str] | None:
        if self._at < len(self._lines) and self._lines[self._at][1] == indent:
            line, _, content = self._lines[self._at]
            return line, content
        return None

    def _list(self, indent: int, depth: int) -> list[object]:
        found: list[object] = []
        while (here := self._here(indent)) and (here[1] == "-" or here[1].startswith("- ")):
            line, content = here
            rest = content[1:].lstrip(" ")
            if rest and not rest.startswith("#"):
                # What follows the dash is a block of its own, as far to the right as it stands.
                inner = indent + len(content) - len(rest)
                self._lines[self._at] = line, inner, rest
                found.append(self._block(inner, depth + 1))
            else:
                self._at += 1
                found.append(self._below(indent, depth))
        return found

    def _mapping(self, indent: int, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while here := self._here(indent):
            line, content = here
            match = _KEY.match(content)
            if match is None:
                self._wrong(line, "it is no key with a value")
            key = self._scalar(match[1], line)
            name = match[1] if not isinstance(key, str) else key
            if name in found:
                self._wrong(line, f"{name} comes twice")
            rest = content[match.end() :].strip()
            self._at += 1
            if rest and not rest.startswith("#"):
                found[name] = self._scalar(rest, line)
            else:
                found[name] = self._below(indent, depth, lists=True)
        return found

    def _below(self, indent: int, depth: int, *, lists: bool = False) -> object:
        """Return the block further to the right; a mapping's list may stand right below its key."""
        if self._at < len(self._lines):
            _, inner, content = self._lines[self._at]
            if inner > indent or (lists and inner == indent and (content == "-" or content.startswith("- "))):
                return self._block(inner, depth + 1)
        return None

    def _scalar(self, text: str, line: int) -> object:
        value, rest = self._flow(text, line, 0, inside=False)
        rest = rest.strip()
        if rest and not rest.startswith("#"):
            self._wrong(line, f"{rest[:40]!r} follows a value")
        return value

    def _flow(self, text: str, line: int, depth: int, *, inside: bool) -> tuple[object, str]:
        """Return the value that a text begins with, and what follows it."""
        if depth > DEPTH_MAX:
            self._wrong(line, "it is nested too deeply")
        first = text[:1]
        if first == "[":
            return self._flow_list(text[1:].lstrip(), line, depth)
        if first == "{":
            return self._flow_mapping(text[1:].lstrip(), line, depth)
        if first == '"':
            return self._double(text, line)
        if first == "'":
            match = re.match(r"'((?:[^']|'')*)'", text)
            if match is None:
                self._wrong(line, "a quotation mark is missing")
            return match[1].replace("''", "'"), text[match.end() :]
        if first in ("&", "*", "!", "|", ">", "%", "@", "`") and first:
            self._wrong(line, f"{first!r} begins what is not read in device files")
        end = re.search(r"\s#|[,\]}]" if inside else r"\s#", text)
        plain, rest = (text[: end.start()], text[end.start() :]) if end else (text, "")
        plain = plain.strip()
        if ": " in plain or plain.endswith(":"):
            self._wrong(line, "a key stands where a value should")
        return _plain(plain), rest

    def _double(self, text: str, line: int) -> tuple[str, str]:
        match = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        if match is None:
            self._wrong(line, "a quotation mark is missing")
        wrong = [letter for letter in re.findall(r"\\(.)", match[1]) if letter not in _ESCAPES]
        if wrong:
            self._wrong(line, f"\\{wrong[0]} is not known")
        return re.sub(r"\\(.)", lambda found: _ESCAPES[found[1]], match[1]), text[match.end() :]

    def _flow_list(self, text: str, line: int, depth: int) -> tuple[list[object], str]:
        found: list[object] = []
        while not text.startswith("]"):
            if not text:
                self._wrong(line, "a list does not end on its line")
            value, text = self._flow(text, line, depth + 1, inside=True)
            found.append(value)
            text = self._next(text, "]", line)
        return found, text[1:]

    def _flow_mapping(self, text: str, line: int, depth: int) -> tuple[dict[str, object], str]:
        found: dict[str, object] = {}
        while not text.startswith("}"):
            match = _KEY.match(text)
            if match is None:
                self._wrong(line, "a mapping does not end on its line")
            name = self._scalar(match[1], line)
            value, text = self._flow(text[match.end() :].lstrip(), line, depth + 1, inside=True)
            found[str(name)] = value
            text = self._next(text, "}", line)
        return found, text[1:]

    def _next(self, text: str, end: str, line: int) -> str:
        text = text.lstrip()
        if text.startswith(","):
            return text[1:].lstrip()
        if not text.startswith(end):
            self._wrong(line, f"{end!r} is missing")
        return text


def _plain(text: str) -> object:
    """Return what a word without quotation marks means."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) < 20:
        if _OCTAL.fullmatch(text) and text not in ("0",):
            return int(text.removeprefix("0o"), 8)
        if _INTEGER.fullmatch(text):
            return int(text)
    return text
