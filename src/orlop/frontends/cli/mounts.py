"""What `--mount`, `-v` and `--storage-opt` say: docker's grammar and texts, down to those of Go's CSV reader.

Source: docker/cli opts/mount.go and cli/compose/loader/volume.go as of 28, measured with that program; encoding/csv.
"""

from __future__ import annotations

import os

from ...spec.container import BindRequest
from ...spec.mount import (
    BIND,
    IMAGE,
    TMPFS,
    VOLUME,
    BindOptions,
    ImageOptions,
    MountRequest,
    TmpfsOptions,
    VolumeOptions,
)
from .flags import BadValue, UsageError, parse_bool
from .values import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HINT = "write type=bind,source=/HERE,target=/THERE, for instance"
_BARE = frozenset(("readonly", "ro", "idmap", "volume-nocopy", "bind-nonrecursive"))
_OWNER = "host-user<->"  # who owns the source
_MODE_MAX = 2**32 - 1
_OPTION_TYPES = (BIND, VOLUME, IMAGE, TMPFS)
_RECURSIVE = ("enabled", "disabled", "writable", "readonly")


def parse_mount(text: str) -> MountRequest:
    """Return what one --mount asks for. Raises BadValue."""
    mount = _Mount()
    for field in read_record(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and key not in _BARE:
            raise BadValue(f"invalid field '{field}' must be a key=value pair", _HINT)
        setter = _SETTERS.get(key)
        if setter is None:
            raise BadValue(f"unexpected key '{key}' in '{field}'", _HINT)
        setter(mount, key, value if equals else "true")
    return mount.request()


class _Mount:
    """A mount while it is read: plain fields, and the options of each type in the order given."""

    __slots__ = ("consistency", "map", "options", "read_only", "source", "target", "type")

    def __init__(self) -> None:
        self.type = VOLUME
        self.source = ""
        self.target = ""
        self.read_only = False
        self.consistency = ""
        self.map = ""
        self.options: dict[str, dict[str, object]] = {}

    def set(self, key: str, name: str, value: object) -> None:
        self.options.setdefault(key.partition("-")[0], {})[name] = value

    def table(self, key: str, name: str) -> dict[str, str]:
        found = self.options.setdefault(key.partition("-")[0], {}).setdefault(name, {})
        assert isinstance(found, dict)
        return found

    def request(self) -> MountRequest:
        if not self.type:
            raise BadValue("type is required", _HINT)
        if not self.target:
            raise BadValue("target is required", _HINT)
        for name in _OPTION_TYPES:
            if name in self.options and name != self.type:
                hint = f"leave the {name}- options away"
                raise BadValue(f"cannot mix '{name}-*' options with mount type '{self.type}'", hint)
        self._check_recursion(self.options.get(BIND, {}))
        classes = {BIND: BindOptions, VOLUME: VolumeOptions, TMPFS: TmpfsOptions, IMAGE: ImageOptions}
        return MountRequest(
            type=self.type,
            source=self.source,
            target=self.target,
            read_only=self.read_only,
            consistency=self.consistency,
            map=self.map,
            **{name: classes[name](**values) for name, values in self.options.items()},
        )

    def _check_recursion(self, bind: dict[str, object]) -> None:
        for name, word in (("read_only_non_recursive", "writable"), ("read_only_force_recursive", "readonly")):
            if bind.get(name) and not self.read_only:
                cause = f"option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction"
                raise BadValue(cause, "add readonly")
        if bind.get("read_only_force_recursive") and bind.get("propagation") != "rprivate":
            needed = "'bind-propagation=rprivate'"
            cause = f"option 'bind-recursive=readonly' requires {needed} to be specified in conjunction"
            raise BadValue(cause, "add bind-propagation=rprivate")


def _set_type(mount: _Mount, key: str, value: str) -> None:
    mount.type = value.lower()


def _set_source(mount: _Mount, key: str, value: str) -> None:
    mount.source = os.path.abspath(value) if value.startswith(".") else value


def _set_target(mount: _Mount, key: str, value: str) -> None:
    mount.target = value


def _set_read_only(mount: _Mount, key: str, value: str) -> None:
    mount.read_only = _bool(key, value)


def _set_consistency(mount: _Mount, key: str, value: str) -> None:
    mount.consistency = value.lower()


def _set_map(mount: _Mount, key: str, value: str) -> None:
    if key == "idmap":
        mount.map = "idmap" if _bool(key, value) else ""
        return
    mount.map = value.removeprefix(_OWNER)
    if value != "idmap" and not mount.map.replace(":", "", 1).isdecimal():
        raise BadValue(f"invalid value for {key}: {value}", f"write UID, UID:GID, {_OWNER}UID or idmap")


def _set_propagation(mount: _Mount, key: str, value: str) -> None:
    mount.set(key, "propagation", value.lower())


def _set_non_recursive(mount: _Mount, key: str, value: str) -> None:
    mount.set(key, "non_recursive", _bool(key, value))


def _set_recursive(mount: _Mount, key: str, value: str) -> None:
    if value not in _RECURSIVE:
        cause = f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
        raise BadValue(cause, "enabled is what a bind mount is without the option")
    for word, name in zip(
        _RECURSIVE[1:], ("non_recursive", "read_only_non_recursive", "read_only_force_recursive"), strict=True
    ):
        if word == value:
            mount.set(key, name, True)


def _set_no_copy(mount: _Mount, key: str, value: str) -> None:
    mount.set(key, "no_copy", _bool(key, value))


def _set_subpath(mount: _Mount, key: str, value: str) -> None:
    mount.set(key, "subpath", value)


def _set_driver(mount: _Mount, key: str, value: str) -> None:
    mount.set(key, "driver", value)


def _add_label(mount: _Mount, key: str, value: str) -> None:
    _add(mount.table(key, "labels"), value)


def _add_driver_option(mount: _Mount, key: str, value: str) -> None:
    _add(mount.table(key, "driver_options"), value)


def _add(table: dict[str, str], text: str) -> None:
    name, _, value = text.partition("=")
    if name:
        table[name] = value


def _set_size(mount: _Mount, key: str, value: str) -> None:
    try:
        mount.set(key, "size_bytes", parse_bytes(value))
    except BadValue as wrong:
        raise BadValue(f"invalid value for {key}: {value}", wrong.hint) from None


def _set_mode(mount: _Mount, key: str, value: str) -> None:
    mode = int(value, 8) if value and set(value) <= set("01234567") and len(value) < 20 else -1
    if not 0 <= mode <= _MODE_MAX:
        raise BadValue(f"invalid value for {key}: {value}", "write an octal mode, such as 1777")
    mount.set(key, "mode", mode)


def _bool(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except BadValue as wrong:
        raise BadValue(f"invalid value for {key}: {value}", wrong.hint) from None


_SETTERS: dict[str, Callable[[_Mount, str, str], None]] = {
    "type": _set_type,
    "source": _set_source,
    "src": _set_source,
    "target": _set_target,
    "dst": _set_target,
    "destination": _set_target,
    "readonly": _set_read_only,
    "ro": _set_read_only,
    "consistency": _set_consistency,
    "map": _set_map,
    "idmap": _set_map,
    "bind-propagation": _set_propagation,
    "bind-nonrecursive": _set_non_recursive,
    "bind-recursive": _set_recursive,
    "volume-subpath": _set_subpath,
    "volume-nocopy": _set_no_copy,
    "volume-label": _add_label,
    "volume-driver": _set_driver,
    "volume-opt": _add_driver_option,
    "image-subpath": _set_subpath,
    "tmpfs-size": _set_size,
    "tmpfs-mode": _set_mode,
}


# -- CSV as Go reads it (encoding/csv: comma, no comments, strict quotes) ----------------------------------------------


def read_record(text: str) -> list[str]:
    """Return the fields of the first record. Raises BadValue with the texts of Go's encoding/csv."""
    lines = text.split("\n")
    rest = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    rest = [f"{line[:-2]}\n" if line.endswith("\r\n") else line for line in rest]
    if rest and rest[-1].endswith("\r"):
        rest[-1] = rest[-1][:-1]
    number = 0
    while number < len(rest) and rest[number] in ("", "\n"):
        number += 1
    if number == len(rest):
        raise BadValue("EOF", _HINT)
    return _Record(rest, number).read()


class _Record:
    """One record, which begins at line `start` and goes on over line ends inside quotes."""

    def __init__(self, lines: list[str], start: int) -> None:
        self.lines = lines
        self.start = start
        self.number = start
        self.line = lines[start]
        self.at = 0

    def read(self) -> list[str]:
        fields = []
        while True:
            if self.line[self.at : self.at + 1] == '"':
                field, more = self._quoted()
            else:
                field, more = self._plain()
            fields.append(field)
            if not more:
                return fields

    def _plain(self) -> tuple[str, bool]:
        end = self.line.find(",", self.at)
        field = self.line[self.at : end if end >= 0 else len(self.line)]
        if end < 0:
            field = field.removesuffix("\n")
        if '"' in field:
            raise self._error('bare " in non-quoted-field', self.at + field.index('"'))
        self.at = end + 1
        return field, end >= 0

    def _quoted(self) -> tuple[str, bool]:
        self.at += 1
        field = ""
        while True:
            end = self.line.find('"', self.at)
            if end < 0:
                field += self.line[self.at :]
                if self.number + 1 == len(self.lines):
                    raise self._error('extraneous or missing " in quoted-field', len(self.line))
                self.number += 1
                self.line, self.at = self.lines[self.number], 0
                continue
            field += self.line[self.at : end]
            after = self.line[end + 1 : end + 2]
            self.at = end + 2
            if after == '"':
                field += '"'
            elif after == ",":
                return field, True
            elif after in ("", "\n"):
                return field, False
            else:
                raise self._error('extraneous or missing " in quoted-field', end)

    def _error(self, cause: str, at: int) -> BadValue:
        column = len(self.line[:at].encode("utf-8", "surrogateescape")) + 1
        where = f"parse error on line {self.number + 1}, column {column}"
        if self.start != self.number:
            where = f"record on line {self.start + 1}; {where}"
        return BadValue(f"{where}: {cause}", 'write "" for a quotation mark inside quotes')


# -- -v and --storage-opt: what is wrong with these, docker's client says without naming the flag ----------------------


def parse_bind(text: str) -> BindRequest:
    """Return what one -v asks for. A source that begins with a dot is a place here. Raises UsageError."""
    if not text:
        raise _wrong("invalid empty volume spec", "write SOURCE:TARGET, or TARGET for a new volume")
    parts = text.split(":", 2)
    options = parts[2] if len(parts) > 2 else ""
    shown_as = any(word.startswith("as=") for word in options.split(","))
    if not all(parts) or text.endswith(":"):
        raise _wrong(f"invalid spec: {text}: empty section between colons", "write SOURCE:TARGET or SOURCE:TARGET:ro")
    if ":" in options and not shown_as:
        raise _wrong(f"invalid spec: {text}: too many colons", "write SOURCE:TARGET or SOURCE:TARGET:ro")
    if len(parts) == 1:
        return BindRequest(source="", target=text)
    source, target = parts[:2]
    if source.startswith("."):
        source = os.path.abspath(source)
    # podman's rbind is what is done anyway: what is mounted below comes along.
    words = tuple(word for word in options.split(",") if word and word != "rbind")
    return BindRequest(source=source, target=target, options=words)


def parse_storage_opts(texts: tuple[str, ...]) -> dict[str, str]:
    """Return NAME=value pairs. Raises UsageError."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise _wrong("invalid storage option", "write --storage-opt size=1g")
        pairs[name] = value
    return pairs


def _wrong(message: str, hint: str) -> UsageError:
    return UsageError(f"orlop: {message}", hint, shows_usage=False)
