"""Times and sizes in the words that docker's tables use (github.com/docker/go-units)."""

from __future__ import annotations

import time

from ...spec.errors import Invalid
from .flags import BadValue
from .values import parse_duration

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def duration(seconds: float) -> str:
    """Return "2 seconds", "About an hour", "3 weeks"."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 60:
        return "Less than a second" if whole < 1 else "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 730, 24 * 30, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // (24 * 365)} years"


def ago(epoch_seconds: float) -> str:
    """Return how long ago a moment was."""
    return f"{duration(time.time() - epoch_seconds)} ago"


def size(number: float, digits: int = 4) -> str:
    """Return a size with that many digits in powers of 1000: "7.27MB"."""
    unit = 0
    while number >= 1000 and unit < len(_DECIMAL) - 1:
        number /= 1000
        unit += 1
    return f"{number:.{digits}g}{_DECIMAL[unit]}"


def binary_size(number: float) -> str:
    """Return a size with four digits in powers of 1024: "7.271MiB"."""
    unit = 0
    while number >= 1024 and unit < len(_BINARY) - 1:
        number /= 1024
        unit += 1
    return f"{number:.4g}{_BINARY[unit]}"


def local_time(epoch_seconds: float) -> str:
    """Return a moment as Go prints it: "2026-11-22 06:52:58 +0000 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(epoch_seconds))


def epoch_ns(text: str) -> int | None:
    """Return the nanoseconds since the epoch of an RFC 3339 time, None for anything else.

    The clock, or its end, may be missing; without a zone it is local time, as in docker's --since.
    """
    import datetime  # 2 ms

    head, point, tail = text.partition(".")
    fraction = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    if point and (not fraction or "T" not in head):
        return None
    try:
        moment = datetime.datetime.fromisoformat(head + tail[len(fraction) :])
    except ValueError:
        return None
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction + "0" * 9)[:9])


def moment_ns(flag: str, text: str) -> int | None:
    """Return nanoseconds since the epoch: a duration back from now, seconds since the epoch, or RFC 3339.

    "" is None. flag: what the text was given to. Raises Invalid.
    """
    if not text:
        return None
    seconds, point, fraction = text.partition(".")
    if text.isascii() and seconds.isdigit() and (not point or fraction.isdigit()) and len(text) < 32:
        return int(seconds) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    try:
        return time.time_ns() - parse_duration(text)
    except BadValue:
        pass
    moment = epoch_ns(text)
    if moment is None:
        raise Invalid(
            "read",
            f"{flag} {text}",
            "it is neither a time nor a duration",
            hint="write 10m, 2026-01-31T12:00:00Z, or seconds since 1970",
            code="E0218",
        )
    return moment
