"""A network configuration list: parsed once, hostile until then. CNI specification 1.1.0, section 1."""

from __future__ import annotations

import os

from ...spec import jsonio
from ...spec.errors import Invalid, NotFound, OrlopError, Unsupported
from . import versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSIONS = versions.VERSIONS  # whose results and verbs we speak
FILE_BYTES_MAX = 1 << 20
PLUGINS_MAX = 64
DIRECTORIES = ("/etc/cni/net.d", "/usr/local/etc/cni/net.d")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NAME_LENGTH_MAX = 128


class Conflist:
    """A network of plugins. document: the list as it was written, which is what is kept."""

    __slots__ = ("disable_check", "disable_gc", "document", "name", "plugins", "version")

    def __init__(self, document: Mapping[str, object], subject: str) -> None:
        """subject: what errors call it. Raises Invalid, Unsupported for a version that nobody of us speaks."""
        if _is_one(document):
            document = _of_one(document)
        self.document = dict(document)
        self.name = _name(document.get("name"), subject)
        self.version = _version(document, subject)
        self.disable_check = _flag(document, "disableCheck", subject)
        self.disable_gc = _flag(document, "disableGC", subject)
        listed = document.get("plugins")
        if not isinstance(listed, list) or not 0 < len(listed) <= PLUGINS_MAX:
            raise _wrong(subject, f"`plugins` is no list of 1 to {PLUGINS_MAX} plugins")
        self.plugins = tuple(_plugin(one, subject) for one in listed)

    def at_least(self, version: str) -> bool:
        """Tell whether the list's version has what this one brought."""
        return versions.at_least(self.version, version)

    def can(self, capability: str) -> bool:
        """Tell whether a plugin of the list takes this from the runtime."""
        return any(has_capability(plugin, capability) for plugin in self.plugins)


def has_capability(plugin: Mapping[str, object], capability: str) -> bool:
    """Tell whether a plugin takes this from the runtime."""
    declared = plugin.get("capabilities")
    return isinstance(declared, dict) and declared.get(capability) is True


def read(path: str) -> Conflist:
    """Return what a file says, and the plugins in the directory of the network's name beside it (NAME/*.conf).

    Raises NotFound, Invalid, Unsupported.
    """
    document = _parsed(path)
    if not _is_one(document) and not _flag(document, "loadOnlyInlinedPlugins", path):
        inlined = document.get("plugins", [])
        beside = f"{os.path.dirname(path)}/{_name(document.get('name'), path)}"
        if isinstance(inlined, list) and (files := _files(beside, (".conf",))):
            document = {**document, "plugins": [*inlined, *map(_parsed, files[: PLUGINS_MAX + 1])]}
    return Conflist(document, path)


def _parsed(path: str) -> dict[str, object]:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as failure:
        cause = failure.strerror or str(failure)
        raise NotFound("read", path, cause, hint="name a file with a CNI network configuration list") from None
    return jsonio.parse_object(data, path, bytes_max=FILE_BYTES_MAX)


def find(name: str, directories: Iterable[str]) -> Conflist:
    """Return the list of this name, from the first file in the order of names that has it. Raises NotFound.

    A file that can't be understood is passed over, as other runtimes do: it may be another program's.
    """
    places = tuple(directories)
    for directory in places:
        for path in (*_files(directory, (".conflist",)), *_files(directory, (".conf", ".json"))):
            try:
                found = read(path)
            except OrlopError:
                continue
            if found.name == name:
                return found
    hint = f"put NAME.conflist into {places[0]}, or name the file: network create -d cni -o conflist=FILE NAME"
    raise NotFound(
        "find", f"CNI network {name[:60]}", f"no configuration in {', '.join(places)} is named {name[:60]!r}", hint=hint
    )


def _files(directory: str, endings: tuple[str, ...]) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith(endings)]


def _is_one(document: Mapping[str, object]) -> bool:
    return "plugins" not in document and "type" in document


def _flag(document: Mapping[str, object], key: str, subject: str) -> bool:
    """Return a switch, which may be written as a string, too. Raises Invalid."""
    value = document.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _wrong(subject, f"`{key}` is neither true nor false")
    return value


def _of_one(document: Mapping[str, object]) -> dict[str, object]:
    """Return the list of one plugin that a single configuration (.conf) stands for."""
    plugin = {key: value for key, value in document.items() if key not in ("name", "cniVersion")}
    return {"cniVersion": document.get("cniVersion", ""), "name": document.get("name"), "plugins": [plugin]}


def _name(found: object, subject: str) -> str:
    if not isinstance(found, str) or not 0 < len(found) <= _NAME_LENGTH_MAX:
        raise _wrong(subject, "it has no name")
    if not _NAME.issuperset(found) or not found[0].isalnum():
        raise _wrong(subject, f"invalid name {found[:60]!r}")
    return found


def _version(document: Mapping[str, object], subject: str) -> str:
    """Return the latest version that both sides speak; whoever names none speaks the first. Raises Unsupported."""
    offered = document.get("cniVersions", [])
    single = document.get("cniVersion", "")
    if not isinstance(offered, list) or not all(isinstance(one, str) for one in [*offered, single]):
        raise _wrong(subject, "`cniVersion` is no string, or `cniVersions` no list of strings")
    offered = [*offered, single] if single else offered or [versions.OLDEST]
    known = [version for version in VERSIONS if version in offered]
    if not known:
        cause = f"its cniVersion ({', '.join(offered)[:60]}) is not spoken here"
        raise Unsupported("use", subject, cause, hint=f"known are {', '.join(VERSIONS)}")
    return known[-1]


def _plugin(found: object, subject: str) -> dict[str, object]:
    if not isinstance(found, dict):
        raise _wrong(subject, "a plugin is no object")
    kind = found.get("type")
    # It becomes the name of a program: in one of our directories, and nowhere else.
    if not isinstance(kind, str) or not kind or not _NAME.issuperset(kind) or kind.startswith("."):
        raise _wrong(subject, f"invalid type of a plugin: {str(kind)[:60]!r}")
    return found


def _wrong(subject: str, cause: str) -> Invalid:
    return Invalid("use", subject, cause, hint="see https://www.cni.dev/docs/spec/#network-configuration-format")
