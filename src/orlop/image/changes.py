"""`--change` of import and commit: the Dockerfile instructions that alter only an image's configuration.

Source: docker's Dockerfile reference; moby's builder for which instructions, BuildKit's parser for the texts.
"""

from __future__ import annotations

from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.image import ContainerConfig, Healthcheck

from .expand import expand, pairs, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Change = Callable[["_State", str], ContainerConfig]

CHANGES_CHARACTERS_MAX = 256 * 1024
PORTS_MAX = 65535
SHELL = ("/bin/sh", "-c")
DURATION_NS_MIN = 1_000_000
_UNITS_NS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")


def apply_changes(changes: Sequence[str], config: ContainerConfig | None = None) -> ContainerConfig:
    """Return the configuration after these instructions. Raises Invalid with docker's words, naming the instruction."""
    state = _State(config or ContainerConfig())
    text = "\n".join(changes)
    if len(text) > CHANGES_CHARACTERS_MAX:
        raise Invalid("apply", "changes", f"they have more than {CHANGES_CHARACTERS_MAX} characters")
    for line in _lines(text):
        word, rest = [*line.split(None, 1), ""][:2]
        change = _CHANGES.get(word.upper())
        if change is None:
            raise _wrong(line, f"{word} is not a valid change command", f"use one of {', '.join(_CHANGES)}")
        try:
            state.config = change(state, rest.rstrip())
        except ValueError as wrong:
            raise _wrong(line, str(wrong)) from None
    return state.config


def _wrong(line: str, cause: str, hint: str = "") -> OrlopError:
    return Invalid("apply", f"change {line[:200]!r}", cause, hint=hint)


def _lines(text: str) -> list[str]:
    """Return the instructions: comments and empty lines gone, lines that end with a backslash joined."""
    out = []
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not pending and not line.strip()):
            continue
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        out.append((pending + line).strip())
        pending = ""
    return [*out, pending.strip()] if pending.strip() else out


class _State:
    """The configuration so far, and whether a CMD was among the changes: an ENTRYPOINT drops an inherited one."""

    __slots__ = ("cmd_set", "config")

    def __init__(self, config: ContainerConfig) -> None:
        self.config = config
        self.cmd_set = False

    def expand(self, text: str) -> str:
        return expand(text, dict(entry.partition("=")[::2] for entry in self.config.env))


def _cmd(state: _State, rest: str) -> ContainerConfig:
    _no_flags(rest)
    state.cmd_set = True
    return state.config.replace(cmd=_command("CMD", rest))


def _entrypoint(state: _State, rest: str) -> ContainerConfig:
    _no_flags(rest)
    config = state.config.replace(entrypoint=_command("ENTRYPOINT", rest))
    return config if state.cmd_set else config.replace(cmd=())


def _env(state: _State, rest: str) -> ContainerConfig:
    env = dict(entry.partition("=")[::2] for entry in state.config.env)
    for name, value in _pairs("ENV", rest):
        env[state.expand(name)] = state.expand(value)
    return state.config.replace(env=tuple(f"{name}={value}" for name, value in env.items()))


def _label(state: _State, rest: str) -> ContainerConfig:
    labels = dict(state.config.labels)
    for name, value in _pairs("LABEL", rest):
        labels[state.expand(name)] = state.expand(value)
    return state.config.replace(labels=labels)


def _expose(state: _State, rest: str) -> ContainerConfig:
    _no_flags(rest)
    words = [part for word in split(rest) for part in state.expand(word).split()]
    if not words:
        raise ValueError("EXPOSE requires at least one argument")
    ports: dict[str, object] = {port: {} for word in words for port in port_specs(word)}
    return state.config.replace(exposed_ports={**state.config.exposed_ports, **ports})


def _user(state: _State, rest: str) -> ContainerConfig:
    return state.config.replace(user=state.expand(_one("USER", rest)))


def _workdir(state: _State, rest: str) -> ContainerConfig:
    import posixpath

    path = state.expand(_one("WORKDIR", rest))
    directory = posixpath.normpath(posixpath.join("/", state.config.working_dir, path))
    return state.config.replace(working_dir="/" + directory.lstrip("/"))


def _volume(state: _State, rest: str) -> ContainerConfig:
    _no_flags(rest)
    words = _exec_form(rest)
    paths = [state.expand(word) for word in (rest.split() if words is None else words)]
    if not paths:
        raise ValueError("VOLUME requires at least one argument")
    if not all(path.strip() for path in paths):
        raise ValueError("VOLUME specified can not be an empty string")
    return state.config.replace(volumes={**state.config.volumes, **{path.strip(): {} for path in paths}})


def _stopsignal(state: _State, rest: str) -> ContainerConfig:
    name = state.expand(_one("STOPSIGNAL", rest))
    if not is_signal(name):
        raise ValueError(f"invalid signal: {name}")
    return state.config.replace(stop_signal=name)


def _onbuild(state: _State, rest: str) -> ContainerConfig:
    word = rest.split(None, 1)[0].upper() if rest else ""
    if not word:
        raise ValueError("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise ValueError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise ValueError(f"{word} isn't allowed as an ONBUILD trigger")
    return state.config.replace(on_build=(*state.config.on_build, rest))


def _healthcheck(state: _State, rest: str) -> ContainerConfig:
    flags, rest = _flags(rest, _HEALTH_FLAGS)
    kind, arguments = [*rest.split(None, 1), "", ""][:2]
    if not kind:
        raise ValueError("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if arguments:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return state.config.replace(healthcheck=Healthcheck(test=("NONE",)))
    if kind.upper() != "CMD":
        raise ValueError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = _exec_form(arguments)
    if words == () or not arguments:
        raise ValueError("Missing command after HEALTHCHECK CMD")
    durations = {name: duration_ns(name, flags[name]) for name in _HEALTH_FLAGS[:-1] if flags.get(name)}
    return state.config.replace(
        healthcheck=Healthcheck(
            test=("CMD-SHELL", arguments) if words is None else ("CMD", *words),
            interval=durations.get("interval", 0),
            timeout=durations.get("timeout", 0),
            start_period=durations.get("start-period", 0),
            start_interval=durations.get("start-interval", 0),
            retries=retries(flags.get("retries", "")),
        )
    )


_CHANGES: dict[str, Change] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


# -- arguments ------------------------------------------------------------------------------------------------------


def _flags(rest: str, known: tuple[str, ...] = ()) -> tuple[dict[str, str], str]:
    """Split leading --name=value words off."""
    flags: dict[str, str] = {}
    while rest.startswith("--"):
        word, rest = [*rest.split(None, 1), ""][:2]
        if word == "--":
            break
        name, equals, value = word[2:].partition("=")
        if name not in known:
            raise ValueError(f"unknown flag: --{name}")
        if not equals:
            raise ValueError(f"missing a value on flag: {name}")
        if name in flags:
            raise ValueError(f"duplicate flag specified: {name}")
        flags[name] = value
    return flags, rest


def _no_flags(rest: str) -> None:
    _flags(rest)


def _one(command: str, rest: str) -> str:
    _no_flags(rest)
    if not rest:
        raise ValueError(f"{command} requires exactly one argument")
    return rest


def _command(name: str, rest: str) -> tuple[str, ...]:
    """Return the command in exec form; the shell form gets the shell in front."""
    if not rest:
        raise ValueError(f"{name} requires at least one argument")
    words = _exec_form(rest)
    return (*SHELL, rest) if words is None else words


def _exec_form(text: str) -> tuple[str, ...] | None:
    """Return the words of a JSON array of strings; None for anything else, which is then the shell form."""
    from orlop.spec.jsonio import parse

    if not text.startswith("["):
        return None
    try:
        value = parse(text, "the exec form")
    except Invalid:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    return tuple(value)


def _pairs(command: str, rest: str) -> tuple[tuple[str, str], ...]:
    """Return name and value of `name=value ...`, or of the old form `name value`."""
    _no_flags(rest)
    found, _ = pairs(command, rest)
    return found


def port_specs(word: str) -> list[str]:
    """Return "port/protocol" for each port of `[host:]port[-port][/protocol]`."""
    spec, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    first, dash, last = spec.rpartition(":")[2].partition("-")
    for text in (first, last) if dash else (first,):
        if not (text.isascii() and text.isdigit() and 0 < len(text) <= 5 and int(text) <= PORTS_MAX):
            raise ValueError(f"invalid containerPort: {spec}")
    if dash and int(last) < int(first):
        raise ValueError(f"invalid containerPort: {spec}")
    return [f"{port}/{protocol}" for port in range(int(first), int(last if dash else first) + 1)]


def duration_ns(name: str, text: str) -> int:
    """Return nanoseconds from Go's form ("1m30s", "1.5h"); "0" is allowed without a unit."""
    total = 0
    rest = text.removeprefix("+")
    if rest == "0":
        return 0
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        rest = rest[len(unit) :]
        whole, _, fraction = digits.partition(".")
        if not (whole or fraction) or "." in fraction or len(digits) > 18:
            raise ValueError(f'time: invalid duration "{text}"')
        if unit not in _UNITS_NS:
            raise ValueError(f'time: {"unknown" if unit else "missing"} unit in duration "{text}"')
        scale = _UNITS_NS[unit]
        total += int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction)
    if not text.removeprefix("+") or total >= 2**63:
        raise ValueError(f'time: invalid duration "{text}"')
    if 0 < total < DURATION_NS_MIN:
        raise ValueError(f'Interval "{name}" cannot be less than 1ms')
    return total


def retries(text: str) -> int:
    if not text:
        return 0
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if text.startswith("-") and int(digits):
        raise ValueError(f"--retries cannot be negative ({text})")
    return int(digits)


def is_signal(name: str) -> bool:
    """Say whether this is a signal's number or name, with or without SIG, RTMIN+n and RTMAX-n included."""
    import signal

    if name.isascii() and name.isdigit():
        return len(name) <= 2 and 0 < int(name) <= 64
    word = name.upper().removeprefix("SIG")
    for base in ("RTMIN+", "RTMAX-"):
        if word.startswith(base):
            offset = word.removeprefix(base)
            return offset.isascii() and offset.isdigit() and len(offset) <= 2 and int(offset) <= 30
    return f"SIG{word}" in signal.Signals.__members__
