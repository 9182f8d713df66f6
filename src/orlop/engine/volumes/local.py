"""The options of docker's `local` driver: `type`, `device` and `o` say what is mounted instead of a directory, `size`
bounds the directory. Pure, but for the question which file systems this kernel has.

Nothing is mounted on the host: a container mounts the device in its own mount namespace (I4). Two containers with the
same disk share it, as the kernel does; how they share a tmpfs: `shared`.
"""

from __future__ import annotations

from ...linux import mount
from ...spec.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = frozenset(("type", "device", "o", "size"))
_NEEDS = {"type": ("device",), "device": ("type",), "o": ("type", "device")}
_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3"))
_BINDS = frozenset(("bind", "rbind"))


class Device:
    """What a volume with options mounts. type "bind" shows a directory of the host."""

    __slots__ = ("device", "options", "type")

    def __init__(self, type: str, device: str, options: tuple[str, ...]) -> None:
        self.type = type
        self.device = device
        self.options = options


def check(name: str, options: Mapping[str, str]) -> None:
    """Raise Invalid with docker's texts for options that do not fit."""
    subject = f"volume {name}"
    for key in options:
        if key not in OPTIONS:
            cause = f'create {name}: invalid option: "{key[:60]}"'
            raise Invalid("create", subject, cause, hint=f"known are {', '.join(sorted(OPTIONS))}")
    for key, needed in _NEEDS.items():
        for other in needed:
            if options.get(key) and not options.get(other):
                cause = f'create {name}: missing required option: "{other}"'
                raise Invalid("create", subject, cause, hint=f"add --opt {other}=...")


def device(name: str, options: Mapping[str, str]) -> Device | None:
    """Return what a volume mounts, None for its own directory. Raises Invalid, Unsupported."""
    if not options.get("type"):
        return None
    fstype, source = options["type"], options["device"]
    words = tuple(word for word in options.get("o", "").split(",") if word)
    if _BINDS & set(words) or fstype in _BINDS:
        if not source.startswith("/"):
            cause = f"invalid mount path: '{source[:200]}' mount path must be absolute"
            raise Invalid("mount", f"volume {name}", cause, hint="make it anew with --opt device=/...")
        return Device("bind", source, words or (fstype,))
    if not mount.has_filesystem(fstype):
        hint = "install its kernel module, or use another type"
        raise Unsupported("mount", f"volume {name}", f"this kernel has no file system {fstype[:40]!r}", hint=hint)
    if fstype in _NETWORK:
        return _network(fstype, source, words)
    return Device(fstype, source, words)


def _network(fstype: str, source: str, words: tuple[str, ...]) -> Device:
    # ":/path" with addr= is how docker's users write an NFS export; the kernel wants the host in the source.
    address = next((word[5:] for word in words if word.startswith("addr=")), "")
    if source.startswith(":/") and address:
        source = f"[{address}]{source}" if ":" in address else f"{address}{source}"
    return Device(fstype, source, words)
