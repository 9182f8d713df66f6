"""The device files of this machine: which devices they name, and what each needs.

A file that can't be read names no device; its trouble is told when one is asked for that is not there. Files of a later
directory win over those of an earlier one; a device that two files of one directory name is of neither.
"""

from __future__ import annotations

import os
import re
import stat

from ...spec import jsonio
from ...spec.errors import Invalid, NotFound
from . import blocks
from .form import Edits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Devices = dict[str, "Named"]

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
DIRECTORIES_VARIABLE = "ORLOP_CDI_DIRS"  # separated by colons, the last one wins
FILES_MAX, FILE_BYTES_MAX, DEVICES_MAX = 1000, 4 * 1024 * 1024, 20_000
VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
AUTO_ALLOW = "org.mobyproject.buildkit.device.autoallow"
CLASS = "org.mobyproject.buildkit.device.class"
_VENDOR = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


class Named:
    """A device: what it needs itself, and what its file says of all of them. file: where it is written."""

    __slots__ = ("annotations", "common", "file", "own")

    def __init__(self, file: str, common: Edits, own: Edits, annotations: dict[str, str]) -> None:
        self.file = file
        self.common = common
        self.own = own
        self.annotations = annotations

    @property
    def is_allowed(self) -> bool:
        """Whether its file lets every build have it."""
        return self.annotations.get(AUTO_ALLOW, "").lower() in ("1", "t", "true")


def directories() -> tuple[str, ...]:
    """Return where device files lie."""
    given = os.environ.get(DIRECTORIES_VARIABLE)
    return tuple(filter(None, given.split(":"))) if given is not None else DIRECTORIES


def is_kind(text: str) -> bool:
    """Tell whether a text is vendor/class."""
    vendor, slash, kind = text.partition("/")
    return bool(slash) and len(text) < 512 and bool(_VENDOR.fullmatch(vendor) and _CLASS.fullmatch(kind))


def known(places: Sequence[str] | None = None) -> tuple[Devices, list[str]]:
    """Return the devices of this machine by their names, and what is wrong with files that can't be read."""
    found: Devices = {}
    troubles: list[str] = []
    for place in directories() if places is None else places:
        here: Devices = {}
        twice: set[str] = set()
        try:
            names = sorted(os.listdir(place))[:FILES_MAX]
        except OSError:
            continue
        for file in names:
            if not file.endswith((".json", ".yaml", ".yml")):
                continue
            try:
                for name, device in _read(f"{place}/{file}"):
                    twice |= {name} & here.keys()
                    here[name] = device
            except (Invalid, ValueError, OSError) as wrong:
                told = wrong.cause if isinstance(wrong, Invalid) else getattr(wrong, "strerror", None) or str(wrong)
                troubles.append(f"{place}/{file}: {told}")
            if len(here) > DEVICES_MAX:
                troubles.append(f"{place} has more than {DEVICES_MAX} devices")
                break
        for name in sorted(twice):
            troubles.append(f"{name} is in two files of {place}")
        found = {**{name: one for name, one in found.items() if name not in twice}, **here}
        found = {name: one for name, one in found.items() if name not in twice}
    return found, troubles


def resolve(names: Iterable[str], subject: str, places: Sequence[str] | None = None) -> tuple[Edits, ...]:
    """Return what these devices need: of each file once what all of its devices need, and then each one's own.

    Raises NotFound with docker's text for those that are not there.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return ()
    devices, troubles = known(places)
    missing = [name for name in wanted if name not in devices]
    if missing:
        cause = f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)[:400]}"
        hint = f"these files can't be read: {'; '.join(troubles)[:600]}" if troubles else _hint(devices)
        raise NotFound("start", subject, cause, hint=hint, code="E0214")
    common: dict[str, Edits] = {}
    own = []
    for name in wanted:
        common.setdefault(devices[name].file, devices[name].common)
        own.append(devices[name].own)
    return tuple(edits for edits in (*common.values(), *own) if edits != Edits())


def matching(text: str, devices: Devices) -> list[str]:
    """Return the devices that a Dockerfile means: vendor/class is the first of that kind, =* all, =CLASS those so
    annotated. Raises ValueError for what is no such name.
    """
    kind, _, name = text.partition("=")
    if not is_kind(kind):
        raise ValueError(f'invalid device "{text[:100]}"')
    of_kind = sorted(one for one in devices if one.startswith(f"{kind}="))
    if not name:
        return of_kind[:1]
    if name == "*":
        return of_kind
    if text in devices:
        return [text]
    return [one for one in of_kind if devices[one].annotations.get(CLASS) == name]


def _hint(devices: Devices) -> str:
    places = " and ".join(directories())
    return f"{places} name {', '.join(sorted(devices))[:400] or 'no device'}"


def _read(path: str) -> list[tuple[str, Named]]:
    """Return the devices of a file. Raises Invalid, ValueError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"it has more than {FILE_BYTES_MAX} bytes")
    value = jsonio.parse(data, path) if path.endswith(".json") else blocks.parse(data.decode())
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")
    version, kind, listed = value.get("cdiVersion"), value.get("kind"), value.get("devices")
    if version not in VERSIONS:
        raise ValueError(f"cdiVersion {str(version)[:40]} is not known here")
    if not isinstance(kind, str) or not is_kind(kind):
        raise ValueError(f"kind {str(kind)[:100]!r} is not vendor/class")
    if not isinstance(listed, list) or not listed:
        raise ValueError("it names no devices")
    common = _edits(value.get("containerEdits"))
    annotations = _annotations(value.get("annotations"))
    found: dict[str, Named] = {}
    for one in listed:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(name, str) or not _DEVICE.fullmatch(name) or name in found:
            raise ValueError(f"a device is called {str(name)[:100]!r}, or two are")
        own = _edits(one.get("containerEdits"))
        found[name] = Named(path, common, own, {**annotations, **_annotations(one.get("annotations"))})
    return [(f"{kind}={name}", one) for name, one in found.items()]


def _annotations(value: object) -> dict[str, str]:
    return {str(name): str(one) for name, one in value.items()} if isinstance(value, dict) else {}


def _edits(value: Any) -> Edits:
    if value is None:
        return Edits()
    edits = Edits.from_json(value)
    for variable in edits.env:
        if "=" not in variable or variable.startswith("=") or "\0" in variable:
            raise ValueError(f"{variable[:60]!r} is not NAME=value")
    for path in (
        *(path for node in edits.device_nodes for path in (node.path, node.host_path or node.path)),
        *(path for mount in edits.mounts for path in (mount.host_path, mount.container_path)),
        *(hook.path for hook in edits.hooks),
    ):
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{path[:100]!r} is not an absolute path")
    for node in edits.device_nodes:
        if set(node.permissions) - set("rwm") or node.type not in ("", "b", "c", "u", "p"):
            raise ValueError(f"device {node.path[:100]} has permissions or a type that nobody knows")
    return edits
