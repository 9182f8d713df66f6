"""HTML made of tags. Whatever is not made here is text, and is escaped: names, labels and logs are somebody else's.

str(tag("a", name, href=f"/container/{id}"))
"""

from __future__ import annotations

import html
import unicodedata

_EMPTY = frozenset(("meta", "link", "br"))
_KEPT = frozenset("\n\t")


class Markup(str):
    """Text that is HTML already. Made by `tag` and `join` alone."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as HTML: unchanged if it is, else escaped, with what could steer or hide (controls, bidirectional
    overrides, lone surrogates) made visible."""
    if isinstance(value, Markup):
        return value
    shown = "".join(_shown(character) for character in str(value))
    return Markup(html.escape(shown, quote=True))


def tag(_name: str, *children: object, **attributes: str) -> Markup:
    """Return an element. An attribute's name may end with an underscore (class_); its value is text."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    if _name in _EMPTY:
        return Markup(f"<{_name}{words}>")
    return Markup(f"<{_name}{words}>{join(children)}</{_name}>")


def join(parts: object) -> Markup:
    """Return parts one after the other."""
    return Markup("".join(text(part) for part in (parts if isinstance(parts, (list, tuple)) else [parts])))


def _shown(character: str) -> str:
    if character in _KEPT or not unicodedata.category(character).startswith("C"):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
