"""What docker writes into an image's history (`created_by`), which tools read back into a Dockerfile.

The forms are those of BuildKit's history: `%q` and `%v` of Go for lists, "# buildkit" after what made a layer.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orlop.spec.health import Healthcheck

COMMENT = "buildkit.dockerfile.v0"
LAYER = " # buildkit"
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}
_UNITS = ((3_600_000_000_000, "h"), (60_000_000_000, "m"))


def quoted_list(words: Iterable[str]) -> str:
    """Return Go's %q of a list of strings: ["a" "b"]."""
    return f"[{' '.join(map(quoted, words))}]"


def plain_list(words: Iterable[str]) -> str:
    """Return Go's %v of a list of strings: [a b]."""
    return f"[{' '.join(words)}]"


def quoted(text: str) -> str:
    """Return a text as Go's strconv.Quote writes it."""
    return f'"{"".join(_character(character) for character in text)}"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def health(check: Healthcheck) -> str:
    """Return Go's %q of docker's HealthcheckConfig: how often it is tried again is a character."""
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    tries = "\\'" if check.retries == ord("'") else _character(chr(min(check.retries, 0x10FFFF))).replace('\\"', '"')
    return f"&{{{quoted_list(check.test)} {' '.join(quoted(duration(time)) for time in times)} '{tries}'}}"


def duration(nanoseconds: int) -> str:
    """Return a duration as Go writes it: 1h0m5s, 1.5s, 100ms."""
    if nanoseconds < 1_000_000_000:
        for scale, unit in ((1_000_000, "ms"), (1000, "µs"), (1, "ns")):
            if nanoseconds >= scale:
                return _decimal(nanoseconds, scale) + unit
        return "0s"
    out = ""
    for scale, unit in _UNITS:
        count, nanoseconds = divmod(nanoseconds, scale)
        out += f"{count}{unit}" if count or out else ""
    return f"{out}{_decimal(nanoseconds, 1_000_000_000)}s"


def _decimal(number: int, scale: int) -> str:
    whole, rest = divmod(number, scale)
    digits = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
