"""The values of docker's flags that have a grammar of their own: sizes, processors, environment, labels, mounts.

Every function takes the text and returns the value, or raises BadValue with docker's wording and the next step.
"""

from __future__ import annotations

import os

from ...spec import jsonio
from ...spec.errors import Invalid
from .flags import INT64_MAX, BadValue, Flag, Kind, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import GrantRequest


_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_HINT_SIZE = "write a number of bytes or one with a unit: 64k, 512m, 1.5g"
_HINT_CPUS = "write a number of processors, such as 1.5"
_NANO = 10**9
_EXPONENT_MAX = 30
_HINT_DURATION = "write a number with a unit: 90s, 1h30m, 200ms"
_NANOS = {"ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6}  # micro sign and Greek mu
_NANOS |= {"s": _NANO, "m": 60 * _NANO, "h": 3600 * _NANO}

DETACH_KEYS_DEFAULT = b"\x10\x11"  # ctrl-p, ctrl-q


def json_words(text: str) -> tuple[str, ...] | None:
    """Return the words of an array of JSON, as podman takes a command in one flag; None for any other text."""
    if not text.startswith("["):
        return None
    try:
        found = jsonio.parse(text, "the words")
    except Invalid:
        return None  # a command of the shell's may begin so: [ -f /ready ]
    if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
        return None
    return tuple(found)


def parse_bytes(text: str) -> int:
    """A size in bytes: a decimal number, an optional space, and one of b k m g t p (powers of 1024, kb and kib too).

    docker's units.RAMInBytes.
    """
    end = max((text.rfind(c) for c in "0123456789. "), default=-1)
    if end < 0:
        raise BadValue(f"invalid size: '{text}'", _HINT_SIZE)
    number = _number(text[:end] if text[end] == " " else text[: end + 1], text)
    unit = text[end + 1 :].lower()
    factor = 1 if unit in ("", "b") else _UNITS.get(unit[0], 0) if unit[1:] in ("", "b", "ib") else 0
    if not factor:
        raise BadValue(f"invalid suffix: '{unit}'", _HINT_SIZE)
    if number * factor > INT64_MAX:
        raise BadValue(f"invalid size: '{text}'", "write a size that fits into 63 bits")
    return int(number * factor)


def parse_memory_swap(text: str) -> int:
    """Like `parse_bytes`; -1 means unlimited."""
    return -1 if text == "-1" else parse_bytes(text)


def _number(number: str, text: str) -> float:
    if not number or set(number) - set("0123456789.eE+-"):
        raise BadValue(f"strconv.ParseFloat: parsing {quote(number)}: invalid syntax", _HINT_SIZE)
    try:
        value = float(number)
    except ValueError:
        raise BadValue(f"strconv.ParseFloat: parsing {quote(number)}: invalid syntax", _HINT_SIZE) from None
    if value < 0:
        raise BadValue(f"invalid size: '{text}'", _HINT_SIZE)
    return value


def parse_cpus(text: str) -> int:
    """Processors, as billionths: "1.5" is 1500000000. Also 3/2 and 15e-1, as docker takes them."""
    numerator, slash, denominator = text.partition("/")
    try:
        if slash and (set(text) - set("0123456789/+-") or not denominator.isdigit()):
            raise ValueError
        above, below = (int(numerator), int(denominator)) if slash else _decimal(numerator)
        if not below:
            raise ValueError
    except ValueError:
        raise BadValue(f"failed to parse {text} as a rational number", _HINT_CPUS) from None
    if above * _NANO % below:
        raise BadValue("value is too precise", "write at most nine digits after the point")
    nanos = above * _NANO // below
    if not 0 <= nanos <= INT64_MAX:
        raise BadValue(f"{text} is not a number of processors", _HINT_CPUS, late=True)
    return nanos


def _decimal(text: str) -> tuple[int, int]:
    """Return (numerator, denominator) of a decimal number with an optional exponent. Raises ValueError."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole.lstrip("+-") + fraction
    if not digits.isdigit() or not digits.isascii() or len(whole) - len(whole.lstrip("+-")) > 1 or len(digits) > 60:
        raise ValueError
    if "e" in text.lower() and not exponent.lstrip("+-").isdigit():
        raise ValueError
    power = (int(exponent) if exponent else 0) - len(fraction)
    if abs(power) > _EXPONENT_MAX + 60:
        raise ValueError
    value = -int(digits) if text.startswith("-") else int(digits)
    return (value * 10**power, 1) if power >= 0 else (value, 10**-power)


def parse_env(text: str) -> str:
    """NAME=value; NAME alone takes the value of the caller's environment and stays NAME (unset) without one."""
    name, equals, _ = text.partition("=")
    if not name:
        raise BadValue(f"invalid environment variable: {text}", "write NAME=value, or NAME to pass on your own")
    return f"{name}={of_caller(name)}" if not equals and name in os.environ else text


def of_caller(name: str) -> str:
    """Return a variable of the caller's environment. Raises BadValue when JSON can't carry it."""
    value = os.environ[name]
    if not is_utf8(value):
        raise BadValue(f"the value of {name} is not UTF-8", f"give it a value: -e {name}=...")
    return value


def is_utf8(text: str) -> bool:
    """Tell whether the text came from valid UTF-8 (PEP 383 smuggles other bytes in as surrogates)."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def parse_label(text: str) -> tuple[str, str]:
    """KEY=value or KEY."""
    key, _, value = text.partition("=")
    if not key.strip():
        raise BadValue(f"invalid label '{text}': empty name", "write KEY=value")
    return key, value


def parse_stream(text: str) -> str:
    """stdin, stdout or stderr in any case."""
    name = text.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise BadValue("valid streams are STDIN, STDOUT and STDERR", "write -a stdout, for instance")
    return name


def parse_filter(text: str) -> tuple[str, str]:
    """name=value."""
    name, equals, value = text.partition("=")
    if text and not equals:
        raise BadValue("bad format of filter (expected name=value)", "write -f status=exited, for instance")
    return name.strip().lower(), value.strip()


def parse_mount(text: str) -> object:
    """One --mount: a MountRequest."""
    from . import mounts

    return mounts.parse_mount(text)


def parse_tmpfs(text: str) -> tuple[str, tuple[str, ...]]:
    """target[:option,...]."""
    target, _, options = text.partition(":")
    if not target.startswith("/"):
        cause = f"invalid mount path: '{target}' mount path must be absolute"
        raise BadValue(cause, "write --tmpfs /PATH:size=64m", late=True)
    return target, tuple(option for option in options.split(",") if option)


def parse_secret(text: str) -> GrantRequest:
    """NAME[,target=FILE][,uid=N][,gid=N][,mode=OCTAL] or NAME,type=env[,target=VARIABLE]; or source=NAME,...

    As podman's --secret, and docker's of services.
    """
    from ...spec.container import GrantRequest

    first, *rest = text.split(",")
    found = dict(word.partition("=")[::2] for word in ([first] if "=" in first else [f"source={first}"]) + rest)
    kind = found.pop("type", "mount")
    if kind not in ("mount", "env"):
        raise BadValue(f"invalid secret type {kind!r}", "write type=mount, for a file, or type=env, for a variable")
    known = {"source", "target"} if kind == "env" else {"source", "target", "uid", "gid", "mode"}
    if unknown := set(found) - known:
        hint = "known are source, target, uid, gid and mode; of a variable source and target"
        raise BadValue(f"invalid field '{min(unknown)}' in secret request", hint)
    try:
        numbers = {key: int(found[key], 8 if key == "mode" else 10) for key in ("uid", "gid", "mode") if key in found}
    except ValueError:
        raise BadValue(f"invalid secret: {text!r} has no number there", "write uid=1000,gid=1000,mode=0400") from None
    if not found.get("source"):
        raise BadValue("source is required", "write --secret NAME") from None
    if kind == "env":
        return GrantRequest(source=found["source"], env=found.get("target") or found["source"])
    return GrantRequest(source=found["source"], target=found.get("target", "")).replace(**numbers)


def parse_restart(text: str) -> tuple[str, int]:
    """POLICY or on-failure:N -> the policy and N, 0 without one. Which policies there are the engine knows."""
    policy, colon, count = text.partition(":")
    if colon and not policy:
        cause = "invalid restart policy format: no policy provided before colon"
        raise BadValue(cause, "write --restart on-failure:3, for instance")
    if count and not (count.isascii() and count.removeprefix("-").isdecimal() and len(count) < 12):
        cause = "invalid restart policy format: maximum retry count must be an integer"
        raise BadValue(cause, "write --restart on-failure:3, for instance")
    return policy, int(count or 0)


def parse_detach_keys(text: str) -> bytes:
    """Keys with commas between them ("ctrl-p,ctrl-q") -> bytes; "ctrl-" takes a letter or one of @ [ \\ ] ^ _."""
    if not text:
        return DETACH_KEYS_DEFAULT
    out = bytearray()
    for part in text.split(","):
        control = part.removeprefix("ctrl-")
        code = ord(control.upper()) - 64 if len(control) == 1 and control.isascii() else -1
        if part != control and 0 <= code < 32:
            out.append(code)
        elif len(part) == 1 and part.isascii():
            out.append(ord(part))
        else:
            raise BadValue(f"Unknown character: '{part}'", "write keys such as ctrl-p,ctrl-q")
    return bytes(out)


def parse_duration(text: str) -> int:
    """Go's time.ParseDuration: "1h30m", "1.5s", "100ms", "0"; returns nanoseconds."""
    rest = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if len(text) - len(rest) > 1 or not rest:
        raise BadValue(f"time: invalid duration {quote(text)}", _HINT_DURATION)
    total = 0
    while rest and rest != "0":
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: next((at for at, c in enumerate(rest) if c in "0123456789."), len(rest))]
        rest = rest[len(unit) :]
        whole, _, fraction = number.partition(".")
        if not number:
            raise BadValue(f"time: invalid duration {quote(text)}", _HINT_DURATION)
        if not unit:
            raise BadValue(f"time: missing unit in duration {quote(text)}", _HINT_DURATION)
        if unit not in _NANOS:
            raise BadValue(f"time: unknown unit {quote(unit)} in duration {quote(text)}", _HINT_DURATION)
        if not (whole + fraction).isdigit() or len(number) > 40:
            raise BadValue(f"time: invalid duration {quote(text)}", _HINT_DURATION)
        total += int((whole + fraction) or 0) * _NANOS[unit] // 10 ** len(fraction)
    if total > INT64_MAX:
        raise BadValue(f"time: invalid duration {quote(text)}", "write a shorter time")
    return sign * total


def parse_rootfs(text: str) -> str:
    if not text:
        raise BadValue("the directory is empty", "write --rootfs DIRECTORY")
    return os.path.abspath(text)


BYTES = Kind("bytes", parse_bytes)
MEMORY_SWAP = Kind("bytes", parse_memory_swap)
CPUS = Kind("decimal", parse_cpus)
ENV = Kind("list", parse_env, repeatable=True)
LABEL = Kind("list", parse_label, repeatable=True)
STREAM = Kind("list", parse_stream, repeatable=True)
FILTER = Kind("filter", parse_filter, repeatable=True)
MOUNT = Kind("mount", parse_mount, repeatable=True)
TMPFS = Kind("list", parse_tmpfs, repeatable=True)
SECRET = Kind("list", parse_secret, repeatable=True)
RESTART = Kind("string", parse_restart)
DETACH_KEYS = Kind("string", parse_detach_keys)
DETACH_KEYS_FLAG = Flag(
    "detach-keys", "", DETACH_KEYS, "Override the key sequence for detaching a container", default=DETACH_KEYS_DEFAULT
)
DURATION = Kind("duration", parse_duration)
ROOTFS = Kind("string", parse_rootfs)
