"""dockerd's configuration file for `orlop serve --config-file`: which keys mean the same here, and why others do not.

Nothing in it is passed over: a key that is not honoured is an error that names it and says where that is set here.
"""

from __future__ import annotations

from ....linux import path
from ....spec import jsonio
from ....spec.errors import Invalid, NotFound, Unavailable

BYTES_MAX = 256 * 1024
_TEXTS = ("storage-driver", "tlscacert", "tlscert", "tlskey", "userns-remap")
# What the engine does in any case.
_FIXED: dict[str, tuple[object, str]] = {
    "live-restore": (True, "containers outlive every engine"),
    "tls": (True, "TCP is served with mutual TLS only"),
    "tlsverify": (True, "TCP is served with mutual TLS only"),
    "log-driver": ("json-file", "a container's log driver is its own: --log-driver"),
    "iptables": (True, "networks have their rules, in a table of their own"),
    "ip-masq": (True, "networks that lead out are masqueraded"),
    "ip-forward": (True, "it is switched on when a network needs it"),
    "experimental": (False, "there is nothing experimental to switch on"),
}
_ELSEWHERE = {
    "authorization-plugins": "a socket with less power takes its place: orlop socket create",
    "group": "who reaches the socket is root; a user gets a socket with less power: orlop socket create --uid",
    "registry-mirrors": "mirrors are named in certs.d/<host>/hosts.toml, or in registries.conf",
    "insecure-registries": "registries without TLS are named in certs.d/<host>/hosts.toml, or in registries.conf",
    "default-address-pools": "where subnets are cut from stands in $ORLOP_ROOT/networks/pools.json",
    "data-root": "the data lies in ORLOP_ROOT",
    "exec-root": "sockets and state lie in ORLOP_RUN",
    "runtimes": "the engine is its own runtime",
    "default-runtime": "the engine is its own runtime",
    "containerd": "there is no containerd beside the engine",
    "log-opts": "a container's log options are its own: --log-opt",
    "metrics-addr": "GET /metrics on docker.sock answers",
}
_NOT_HERE = "orlop has no such setting"


class Settings:
    """What a file says. texts: the flags of its keys that are texts."""

    def __init__(self) -> None:
        self.hosts: tuple[str, ...] = ()
        self.texts: dict[str, str] = {}


def read(place: str) -> Settings:
    """Return what a file says. Raises NotFound, Unavailable, and Invalid for what is not honoured, by its key."""
    try:
        data = path.read_file(place, BYTES_MAX)
    except FileNotFoundError:
        raise NotFound("read", place, f"there is no file {place}", hint="leave --config-file away") from None
    except OSError as wrong:
        raise Unavailable("read", place, wrong.strerror or str(wrong)) from None
    settings = Settings()
    for key, value in jsonio.parse_object(data, place).items():
        _take(settings, place, key, value)
    return settings


def _take(settings: Settings, place: str, key: str, value: object) -> None:
    if key == "hosts":
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise _refused(place, key, "it is no list of texts", "write it as dockerd has it")
        settings.hosts = tuple(map(str, value))
    elif key in _TEXTS:
        if not isinstance(value, str):
            raise _refused(place, key, "it is no text", "write it as dockerd has it")
        settings.texts[key] = value
    elif key in _FIXED:
        wanted, why = _FIXED[key]
        if value != wanted or type(value) is not type(wanted):
            raise _refused(place, key, f"it can only be {jsonio.dump(wanted).decode()}: {why}", "remove it")
    else:
        raise _refused(place, key, _ELSEWHERE.get(key, _NOT_HERE), "remove it from the file")


def _refused(place: str, key: str, cause: str, hint: str) -> Invalid:
    return Invalid("use", f'"{key[:60]}" of {place}', cause, hint=hint)
