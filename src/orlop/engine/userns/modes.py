"""What --userns asks for. Pure.

"" host              the engine's own user namespace
auto[:OPTION,...]    ids of its own, of those that /etc/subuid gives to `orlop` or `containers`: size=N of them;
                     uidmapping=INSIDE:OUTSIDE:N and gidmapping= give some of them to somebody by name (podman)
remap[=USER]         USER's first 65536 ids, shared with whoever else asks for them (docker's --userns-remap)
container:NAME       that container's user namespace, while it runs
keep-id[:OPTION,...] who started it has the same id inside, and runs there where no -u says otherwise; uid=N and gid=N
                     say another one, size=N how many ids there are (podman). Of root every id is what it is outside
nomap                of an ordinary user: without the user's own id (podman)
"""

from __future__ import annotations

import itertools

from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import IdMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE_DEFAULT = 65536
SIZE_MAX = 2**31
ID_MAX = 2**32 - 2
OPTIONS_MAX = 64
REMAP_USER = "dockremap"
POOL_USERS = ("orlop", "containers")
# What is proposed for them. Nobody else's: others use ids up to 0x6fffffff (systemd's UIDS-GIDS), and none from 2**31
# on may be given pings (network.links.PING_GID_MAX).
POOL = "1879048192:268435456"
HOST, AUTO, REMAP, CONTAINER, KEEP_ID, NOMAP = "host", "auto", "remap", "container", "keep-id", "nomap"
_KNOWN = "known are host, auto, auto:size=N, keep-id, nomap, remap=USER and container:NAME"
_OF_AUTO = "write auto:size=65536, or auto:uidmapping=INSIDE:OUTSIDE:COUNT, with commas between several"
_OF_KEEP_ID = "write keep-id:uid=1000,gid=1000"


def give_pool(files: Sequence[str]) -> str:
    """Return the command that gives the engine ids in these files."""
    return f"echo {POOL_USERS[0]}:{POOL} | tee -a {' '.join(files)}"


class Mode:
    """kind: one of the words above. name: of REMAP its user, of CONTAINER its name or id. size: of AUTO.

    uids, gids: what AUTO maps by name. uid, gid: of KEEP_ID, None for those outside; its size is 0 for all there are.
    """

    __slots__ = ("gid", "gids", "kind", "name", "size", "uid", "uids")

    def __init__(self, kind: str, name: str = "", size: int = 0) -> None:
        self.kind = kind
        self.name = name
        self.size = size
        self.uid: int | None = None
        self.gid: int | None = None
        self.uids: tuple[IdMapping, ...] = ()
        self.gids: tuple[IdMapping, ...] = ()


def parse(text: str, subject: str) -> Mode:
    """Return what a mode means. Raises Invalid with docker's text for one that there is not."""
    kind, separator, options = text.partition("=" if text.startswith(REMAP) else ":")
    if text in ("", HOST):
        return Mode(HOST)
    if kind == AUTO and bool(separator) == bool(options):
        return _auto(_options(options, text, subject, _OF_AUTO), text, subject)
    if kind == KEEP_ID and bool(separator) == bool(options):
        return _keep_id(_options(options, text, subject, _OF_KEEP_ID), text, subject)
    if kind == CONTAINER and options:
        return Mode(CONTAINER, name=options)
    if kind == REMAP:
        return Mode(REMAP, name=options if options not in ("", "default") else REMAP_USER)
    if text == NOMAP:
        return Mode(NOMAP)
    raise _invalid(text, subject, _KNOWN)


def _options(text: str, mode: str, subject: str, hint: str) -> list[tuple[str, str]]:
    pairs = [tuple(word.partition("=")[::2]) for word in text.split(",")] if text else []
    if len(pairs) > OPTIONS_MAX or not all(name and value for name, value in pairs):
        raise _invalid(mode, subject, hint)
    return [(name, value) for name, value in pairs]


def _auto(options: list[tuple[str, str]], text: str, subject: str) -> Mode:
    mode = Mode(AUTO, size=SIZE_DEFAULT)
    for name, value in options:
        if name == "size":
            mode.size = _size(value, text, subject, _OF_AUTO)
        elif name == "uidmapping":
            mode.uids = (*mode.uids, _mapping(value, text, subject))
        elif name == "gidmapping":
            mode.gids = (*mode.gids, _mapping(value, text, subject))
        else:
            raise _invalid(text, subject, _OF_AUTO)
    for mappings in (mode.uids, mode.gids):
        for field in ("container_id", "host_id"):
            spans = sorted((getattr(each, field), each.size) for each in mappings)
            if any(first + size > after for (first, size), (after, _) in itertools.pairwise(spans)):
                raise _invalid(text, subject, "map each id once")
    return mode


def _mapping(value: str, text: str, subject: str) -> IdMapping:
    fields = value.split(":")
    if len(fields) != 3:
        raise _invalid(text, subject, _OF_AUTO)
    if fields[1].startswith("@"):
        cause = f"{value[:100]}: @ means an id as an ordinary user's engine counts them, and this is root's"
        raise Unsupported("create", subject, cause, hint="write the machine's id, without the @")
    inside, outside, size = (_number(field, text, subject, _OF_AUTO) for field in fields)
    if not size or max(inside, outside) + size - 1 > ID_MAX:
        raise _invalid(text, subject, f"ids are 0 to {ID_MAX}")
    return IdMapping(container_id=inside, host_id=outside, size=size)


def _keep_id(options: list[tuple[str, str]], text: str, subject: str) -> Mode:
    mode = Mode(KEEP_ID)
    for name, value in options:
        if name == "size":
            mode.size = _size(value, text, subject, _OF_KEEP_ID)
        elif name in ("uid", "gid"):
            number = _number(value, text, subject, _OF_KEEP_ID)
            if number > ID_MAX:
                raise _invalid(text, subject, f"ids are 0 to {ID_MAX}")
            setattr(mode, name, number)
        else:
            raise _invalid(text, subject, _OF_KEEP_ID)
    return mode


def _size(value: str, text: str, subject: str, hint: str) -> int:
    size = _number(value, text, subject, hint)
    if not 0 < size <= SIZE_MAX:
        raise _invalid(text, subject, f"a size is 1 to {SIZE_MAX}")
    return size


def _number(value: str, text: str, subject: str, hint: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 10):
        raise _invalid(text, subject, hint)
    return int(value)


def _invalid(text: str, subject: str, hint: str) -> Invalid:
    return Invalid("create", subject, f"invalid USER mode: {text[:100]}", hint=hint)
