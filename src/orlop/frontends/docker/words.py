"""What several routes read the same way: detach keys, moments, platforms, sizes of terminals."""

from __future__ import annotations

from ...engine.images.filters import moment
from ...spec import jsonio
from ...spec.errors import OrlopError
from ...spec.runtime import Box
from ..cli.flags import BadValue
from ..cli.values import parse_detach_keys
from . import creation
from .door import Door, Status

DETACH_KEYS_DEFAULT = "ctrl-p,ctrl-q"


def detach_keys(text: str) -> bytes:
    """Return the bytes of detach keys ("ctrl-p,ctrl-q"); "" is docker's default. Raises Status."""
    try:
        return parse_detach_keys(text or DETACH_KEYS_DEFAULT)
    except BadValue as wrong:
        raise Status(400, str(wrong)) from None


def named(reference: str) -> str:
    """Return the name or id that a request has to give. Raises Status."""
    if not reference:
        raise Status(400, 'invalid name or ID supplied: ""')
    return reference


def moment_ns(text: str, name: str) -> int | None:
    """Return the nanoseconds since 1970 of "seconds[.fraction]", None for none. Raises Status."""
    if text in ("", "0"):
        return None
    seconds, _, fraction = text.partition(".")
    if not (seconds.isascii() and seconds.isdecimal() and (not fraction or fraction.isdecimal())) or len(text) > 40:
        raise Status(400, f"invalid value for {name}: {text[:60]!r}")
    return int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])


def prune_filters(door: Door) -> tuple[int | None, tuple[str, ...], tuple[str, ...]]:
    """Return what is to be pruned: made before this moment (ns), with all of these labels, without all of those.

    Raises Status for any other filter: what it would have kept must not go.
    """
    filters = door.filters()
    if unknown := set(filters) - {"until", "label", "label!"}:
        raise Status(400, f"invalid filter '{min(unknown)[:60]}'")
    until = [int(moment(text) * 1e9) for text in filters.get("until", ())]
    return min(until) if until else None, filters.get("label", ()), filters.get("label!", ())


def platform(text: str) -> str:
    """Return "os/architecture[/variant]" of a query's value, which is that, or since API 1.47 JSON. Raises Status."""
    if not text.startswith("{"):
        return text
    try:
        found = creation.Reader(jsonio.parse_object(text.encode(), "platform"), "platform")
    except OrlopError as wrong:
        raise Status(400, f"failed to parse platform: {wrong.cause}") from None
    parts = [found.text("os"), found.text("architecture"), found.text("variant")]
    if not all(parts[:2]):
        raise Status(400, "both os and architecture must be provided in a platform")
    return "/".join(filter(None, parts))


def console_size(value: object) -> Box | None:
    """Return docker's ConsoleSize, [rows, columns]; None where there is none."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, int) and 0 < one < 65536 for one in value):
        return Box(height=value[0], width=value[1])
    return None


def terminal_size(door: Door) -> tuple[int, int]:
    """Return the rows and columns of the query. Raises Status."""
    rows, columns = door.number("h"), door.number("w")
    if rows is None or columns is None or not (0 <= rows < 65536 and 0 <= columns < 65536):
        raise Status(400, "a terminal's size is two numbers below 65536")
    return rows, columns
