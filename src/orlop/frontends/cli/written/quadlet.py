"""A container as a quadlet unit: NAME.container for podman's generator of systemd units.

Made of the command line: a flag with a key of its own becomes that key, any other that podman knows becomes PodmanArgs.
Source: podman-systemd.unit(5) for the keys and systemd.syntax(7) for the quotes.
"""

from __future__ import annotations

from ..commandline import flag_of, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.container import ContainerRequest

_KEYS = {
    "add-host": "AddHost",
    "annotation": "Annotation",
    "cap-add": "AddCapability",
    "cap-drop": "DropCapability",
    "device": "AddDevice",
    "dns": "DNS",
    "dns-option": "DNSOption",
    "dns-search": "DNSSearch",
    "entrypoint": "Entrypoint",
    "env": "Environment",
    "expose": "ExposeHostPort",
    "group-add": "GroupAdd",
    "health-cmd": "HealthCmd",
    "health-interval": "HealthInterval",
    "health-on-failure": "HealthOnFailure",
    "health-retries": "HealthRetries",
    "health-start-period": "HealthStartPeriod",
    "health-timeout": "HealthTimeout",
    "hostname": "HostName",
    "init": "RunInit",
    "ip": "IP",
    "ip6": "IP6",
    "label": "Label",
    "log-driver": "LogDriver",
    "log-opt": "LogOpt",
    "mount": "Mount",
    "network": "Network",
    "network-alias": "NetworkAlias",
    "pids-limit": "PidsLimit",
    "publish": "PublishPort",
    "read-only": "ReadOnly",
    "rootfs": "Rootfs",
    "secret": "Secret",
    "shm-size": "ShmSize",
    "stop-signal": "StopSignal",
    "stop-timeout": "StopTimeout",
    "sysctl": "Sysctl",
    "tmpfs": "Tmpfs",
    "ulimit": "Ulimit",
    "user": "User",
    "userns": "UserNS",
    "volume": "Volume",
    "workdir": "WorkingDir",
}
_SPLIT = frozenset({"Annotation", "Environment", "Label", "Sysctl"})  # split into words, so quoted
_BARE = frozenset({"ReadOnly", "RunInit"})
_SILENT = frozenset({"name", "detach", "attach", "rm", "restart"})
_OURS = frozenset(  # that podman has not
    "depends-on domainname egress egress-allow host-access health-http health-tcp isolation kernel-memory link"
    " link-local-ip runtime timens".split()
)
_RESTART = {"always": "always", "unless-stopped": "always", "on-failure": "on-failure"}


def text(request: ContainerRequest, name: str) -> tuple[str, list[str]]:
    """Return the unit, and the flags that podman has not."""
    own = ["[Container]"]
    if request.image:
        own.append(f"Image={_literal(request.image)}")
    if name:
        own.append(f"ContainerName={_plain(name)}")
    missing = [flag_of("configs")] if request.configs else []
    flags, rest = _split(words(request, ""), request)
    for flag, value in flags:
        key = _KEYS.get(flag)
        if flag in _SILENT:
            continue
        if flag in _OURS or (flag == "publish" and ("," in value)) or (flag == "volume" and ":as=" in value):
            missing.append(f"--{flag}")
        elif flag == "security-opt":
            own.append(_security(value))
        elif key is None or not _fits(key, value):
            own.append(f"PodmanArgs={_quoted(f'--{flag}={value}' if value else f'--{flag}')}")
        else:
            own.append(f"{key}={_quoted(value) if key in _SPLIT else _literal(value or 'true')}")
    if rest:
        own.append(f"Exec={' '.join(_quoted(word) for word in rest)}")
        if "" in rest:  # podman's generator drops it
            missing.append("empty words of the command")
    unit = [f"[Unit]\nDescription={_plain(name or request.image)}\n", "\n".join(own) + "\n"]
    if policy := _RESTART.get(request.restart_policy):
        unit.append(f"[Service]\nRestart={policy}\n\n[Install]\nWantedBy=default.target\n")
    if request.restart_policy == "on-failure" and request.restart_retries_max:
        missing.append("the count of --restart")
    return "\n".join(unit), list(dict.fromkeys(missing))


def _split(line: list[str], request: ContainerRequest) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the flags of a command line as pairs, and the command."""
    count = len(request.args or ()) + (max(len(request.entrypoint or ()) - 1, 0))
    ahead = line[1 : len(line) - count - (1 if request.image or request.rootfs else 0)]
    pairs = [word.removeprefix("--").partition("=") for word in ahead]
    return [(flag, value) for flag, _, value in pairs], line[len(line) - count :] if count else []


def _security(value: str) -> str:
    kind, _, what = value.partition("=")
    if kind == "no-new-privileges":
        return f"NoNewPrivileges={what or 'true'}"
    if kind == "seccomp" and what.startswith("/"):
        return f"SeccompProfile={_literal(what)}"
    return f"PodmanArgs={_quoted(f'--security-opt={value}')}"


def _fits(key: str, value: str) -> bool:
    """Tell whether a value can stand behind a key: of those that are not split, one line without blanks at its ends."""
    if key in _SPLIT:
        return bool(value)
    return value.isprintable() and value == value.strip() and not value.endswith("\\") and (bool(value) or key in _BARE)


def _plain(value: str) -> str:
    return value.replace("%", "%%")


def _literal(value: str) -> str:
    """Return what stands in the line that starts it: there systemd looks for variables too."""
    return _plain(value).replace("$", "$$")


def _quoted(word: str) -> str:
    """Return a word as systemd reads it: specifiers and variables twice, the rest in quotes where it needs them."""
    word = word.replace("%", "%%").replace("$", "$$")
    if word and all(c.isascii() and (c.isalnum() or c in "@%$_+=:,./-") for c in word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in escaped) + '"'


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    return short or "".join(f"\\x{byte:02x}" for byte in character.encode())
