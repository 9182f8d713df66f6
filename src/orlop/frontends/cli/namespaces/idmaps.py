"""The ids of a new user namespace, as unshare(1) lets one ask for them."""

from __future__ import annotations

import os

from ....spec.errors import NotFound
from ....spec.runtime import IdMapping
from ..flags import EXIT_USAGE, UsageError
from .program import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AUTO = "auto"
_HINT = "write auto, INNER:OUTER:COUNT, or OUTER,INNER,COUNT as older versions of unshare have it"


class IdMaps:
    """What is written into uid_map and gid_map, if anything. deny: setgroups(2) is given up."""

    __slots__ = ("deny", "gids", "uids")

    def __init__(self, uids: tuple[IdMapping, ...], gids: tuple[IdMapping, ...], deny: bool) -> None:
        self.uids = uids
        self.gids = gids
        self.deny = deny


def id_of(text: str, flag: str) -> int:
    """Return the uid or gid that a number or a name means. Raises UsageError."""
    if text.isdigit():
        return number(text, flag)
    if flag.endswith("user"):
        import pwd

        try:
            return pwd.getpwnam(text).pw_uid
        except (KeyError, ValueError):
            pass
    else:
        import grp

        try:
            return grp.getgrnam(text).gr_gid
        except (KeyError, ValueError):
            pass
    raise UsageError(
        f"invalid argument {text[:40]!r} for --{flag}", "give a number, or a name that is there", EXIT_USAGE
    )


def ranges_of(texts: Sequence[str], flag: str, own: int) -> list[IdMapping]:
    """Return the ranges of --map-users or --map-groups. Raises UsageError, NotFound."""
    return [_subordinate(flag, own) if text == AUTO else _range(text, flag) for text in texts]


def _range(text: str, flag: str) -> IdMapping:
    separator = ":" if ":" in text else ","
    parts = text.split(separator)
    if len(parts) != 3:
        raise UsageError(f"invalid argument {text[:60]!r} for --{flag}", _HINT, EXIT_USAGE)
    first, second, count = (number(part, flag) for part in parts)
    inner, outer = (first, second) if separator == ":" else (second, first)
    if not count:
        raise UsageError(f"invalid argument {text[:60]!r} for --{flag}", "its count is 0", EXIT_USAGE)
    return IdMapping(container_id=inner, host_id=outer, size=count)


def _subordinate(flag: str, own: int) -> IdMapping:
    from ....engine.rootless import subids

    path = subids.SUBUID if flag == "map-users" else subids.SUBGID
    found = subids.read(path, _name(), own)
    if not found:
        cause = f"{path} has no ids for {_name() or own}"
        raise NotFound("map", "ids", cause, hint="orlop doctor says how to get some; or map your own: -r")
    return IdMapping(container_id=0, host_id=found[0].first, size=found[0].count)


def _name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def together(single: IdMapping | None, ranges: Sequence[IdMapping]) -> tuple[IdMapping, ...]:
    """Return a map of one's own id and ranges: what lies at its place moves up, and the last is lost."""
    found = [single] if single else []
    for each in ranges:
        at = single.container_id - each.container_id if single else -1
        if not 0 <= at < each.size:
            found.append(each)
            continue
        if at:
            found.append(each.replace(size=at))
        if each.size - at > 1:
            upper = IdMapping(
                container_id=each.container_id + at + 1, host_id=each.host_id + at, size=each.size - at - 1
            )
            found.append(upper)
    return tuple(found)
