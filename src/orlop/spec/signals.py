"""Signal names and numbers as command lines take them: TERM, SIGTERM, 15, RTMIN+3."""

from __future__ import annotations

import signal

from .errors import Invalid

_NUMBERS = {entry.name.removeprefix("SIG"): int(entry) for entry in signal.Signals} | {
    # RTMIN of glibc: the kernel's 32 and 33 are taken by its threads.
    "RTMIN": int(signal.SIGRTMIN),
    "RTMAX": int(signal.SIGRTMAX),
    "CLD": int(signal.SIGCHLD),
    "IOT": int(signal.SIGABRT),
    "POLL": int(signal.SIGIO),
}
_NAMES = {number: name for name, number in reversed(_NUMBERS.items())}


def parse(text: str, subject: str) -> int:
    """Return the number of a signal. subject names the container in errors. Raises Invalid."""
    name = text.strip().upper().removeprefix("SIG")
    number = _NUMBERS.get(name) or _real_time(name)
    if number is None and name.isascii() and name.isdigit() and 0 < int(name[:4]) <= signal.SIGRTMAX:
        number = int(name[:4])
    if number is None:
        hint = "use a name such as TERM, HUP or USR1, or a number from 1 to 64"
        raise Invalid("send a signal to", subject, f"invalid signal: {text[:40]}", hint=hint, code="E0205")
    return number


def name(number: int) -> str:
    """Return the name with its prefix ("SIGTERM"); "signal 50" for a number without a name."""
    known = _NAMES.get(number)
    return f"SIG{known}" if known else f"signal {number}"


def _real_time(name: str) -> int | None:
    for base, sign in (("RTMIN+", 1), ("RTMAX-", -1)):
        digits = name.removeprefix(base)
        if digits != name and digits.isascii() and digits.isdigit() and len(digits) <= 2:
            number = _NUMBERS[base[:-1]] + sign * int(digits)
            return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None
    return None
