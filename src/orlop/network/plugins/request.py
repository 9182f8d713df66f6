"""What a plugin is asked for: its environment and configuration, untrusted until checked here."""

from __future__ import annotations

from ...spec import jsonio
from ...spec.errors import OrlopError
from ..cni import versions
from ..cni.client import MARKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = dict[str, object]

VERSIONS = versions.VERSIONS
CONFIG_BYTES_MAX = 1 << 20
INCOMPATIBLE, UNSUPPORTED, UNKNOWN_CONTAINER, ENVIRONMENT, IO, DECODING, INVALID, LATER = 1, 2, 3, 4, 5, 6, 7, 11
OWN = 100  # the first code that is a plugin's own
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_INTERFACE_LENGTH_MAX = 15
_NAME_LENGTH_MAX = 253
_NETWORK_SHOWN_MAX, _CONTAINER_SHOWN_MAX = 40, 64


class PluginError(Exception):
    """What is told on standard output when a plugin fails. code: one of the specification's, section 5."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Call:
    """One request. config: the plugin's configuration; name: the network's; netns: "" once it is gone."""

    __slots__ = ("args", "command", "config", "container", "interface", "name", "netns", "path", "version")

    def __init__(self, environment: Mapping[str, str], data: bytes) -> None:
        """data: of standard input. Raises PluginError."""
        self.command = environment.get("CNI_COMMAND", "")
        if self.command not in COMMANDS:
            raise PluginError(ENVIRONMENT, f"unknown CNI_COMMAND: {self.command[:20]}")
        missing = [name for name in _NEEDED.get(self.command, ()) if not environment.get(name)]
        if missing:
            raise PluginError(ENVIRONMENT, "required env variables [" + ",".join(missing) + "] missing")
        self.config = _parse(data)
        self.version = text(self.config, "cniVersion") or versions.OLDEST
        if self.version not in VERSIONS:
            raise PluginError(
                INCOMPATIBLE,
                "incompatible CNI versions",
                f'config is "{self.version[:20]}", plugin supports {list(VERSIONS)}',
            )
        since = _SINCE.get(self.command, VERSIONS[0])
        if not versions.at_least(self.version, since):
            raise PluginError(INCOMPATIBLE, f"config version does not allow {self.command}", f"it came with {since}")
        self.name = text(self.config, "name")
        self.container = environment.get("CNI_CONTAINERID", "")
        self.netns = environment.get("CNI_NETNS", "")
        self.interface = environment.get("CNI_IFNAME", "")
        self.args = environment.get("CNI_ARGS", "")
        self.path = tuple(one for one in environment.get("CNI_PATH", "").split(":") if one)
        if not _ID.issuperset(self.name) or not self.name or not self.name[0].isalnum() or len(self.name) > 128:
            raise PluginError(INVALID, f"invalid name of a network: {self.name[:40]!r}")
        if self.command in _NEEDED:
            self._check()

    def _check(self) -> None:
        if (
            not _ID.issuperset(self.container)
            or not self.container[0].isalnum()
            or len(self.container) > _NAME_LENGTH_MAX
        ):
            raise PluginError(ENVIRONMENT, "invalid characters in containerID", self.container[:80])
        check_interface(self.interface)

    @property
    def previous(self) -> Json:
        """The result of the plugin before, in the form of the latest version; {} for none."""
        found = table(self.config, "prevResult")
        return versions.latest(found) if found else {}

    @property
    def owner(self) -> str:
        """What the rules of this attachment are marked with."""
        return owner(self.name, self.container, self.interface)

    def valid(self) -> frozenset[tuple[str, str]]:
        """Return (container, interface) of all that is not to be collected. Raises PluginError when nobody says."""
        said = next((key for key in MARKS if self.config.get(key) is not None), "")
        if not said:
            raise PluginError(INVALID, f"`{MARKS[0]}` is missing", "without it everything would go")
        return frozenset((text(one, "containerID"), text(one, "ifname")) for one in tables(self.config, said))

    @property
    def runtime(self) -> Json:
        """What the runtime says of the capabilities that were declared."""
        return table(self.config, "runtimeConfig")

    def arg(self, key: str) -> str:
        """Return a value of CNI_ARGS, "" for none."""
        for pair in self.args.split(";"):
            found, equals, value = pair.partition("=")
            if equals and found == key:
                return value
        return ""

    def result(self, found: Mapping[str, object]) -> Json:
        """Return a result in the form of the configuration's version."""
        return versions.told(found, self.version)


def owner(network: str, container: str, interface: str) -> str:
    """Return what rules are marked with: at most 127 bytes, as nft(8) has it."""
    return f"{of_network(network)}{_short(container, _CONTAINER_SHOWN_MAX)} {interface}"


def of_network(network: str) -> str:
    """Return how the marks of a network begin."""
    return f"{_short(network, _NETWORK_SHOWN_MAX)} "


def _short(word: str, length_max: int) -> str:
    if len(word) <= length_max:
        return word
    import hashlib

    return hashlib.sha256(word.encode()).hexdigest()[:length_max]


def check_interface(name: str) -> None:
    """Raise PluginError for what is no name of a link."""
    bad = not 0 < len(name) <= _INTERFACE_LENGTH_MAX or name in (".", "..")
    if bad or any(char in "/:" or char.isspace() or not char.isprintable() for char in name):
        raise PluginError(ENVIRONMENT, "invalid interface name", name[:40])


def _parse(data: bytes) -> Json:
    try:
        return jsonio.parse_object(data, "the configuration", bytes_max=CONFIG_BYTES_MAX)
    except OrlopError as wrong:
        raise PluginError(DECODING, "failed to parse the configuration", wrong.cause) from None


def text(found: Mapping[str, object], key: str) -> str:
    """Return a string of a configuration, "" for none. Raises PluginError for another type."""
    value = found.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PluginError(INVALID, f"`{key}` is no string")
    return value


def table(found: Mapping[str, object], key: str) -> Json:
    """Return an object of a configuration, {} for none. Raises PluginError for another type."""
    value = found.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PluginError(INVALID, f"`{key}` is no object")
    return value


def tables(found: Mapping[str, object], key: str) -> list[Json]:
    """Return a list of objects, [] for none. Raises PluginError for another type."""
    value = found.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise PluginError(INVALID, f"`{key}` is no list of objects")
    return value


def flag(found: Mapping[str, object], key: str) -> bool:
    """Return a boolean, False for none. Raises PluginError for another type."""
    value = found.get(key)
    if value is not None and not isinstance(value, bool):
        raise PluginError(INVALID, f"`{key}` is neither true nor false")
    return value is True


def whole(found: Mapping[str, object], key: str) -> int:
    """Return an integer, 0 for none. Raises PluginError for another type, and for less than 0."""
    value = found.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PluginError(INVALID, f"`{key}` is no number")
    return value


def refuse(found: Mapping[str, object], keys: str) -> None:
    """Raise PluginError for a field that is set and can't be honoured."""
    for key in keys.split():
        if found.get(key):
            raise PluginError(UNSUPPORTED, f"unsupported field: {key}", "leave it out, or use the reference plugin")
