"""keep-id and nomap: maps that come from the ids which this engine has itself. Pure."""

from __future__ import annotations

from ...snapshot.owners import Shift
from ...spec.errors import Invalid, Unavailable
from ...spec.runtime import IdMapping
from . import modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...runtime.host import HostFacts
    from ..containers.record import ContainerRecord

Lines = tuple[IdMapping, ...]
_EVERY_ID = (IdMapping(container_id=0, host_id=0, size=modes.ID_MAX + 1),)


def maps(host: HostFacts, mode: modes.Mode, subject: str) -> tuple[Lines, Lines]:
    """Return the maps of a container of keep-id or nomap. Raises Invalid, Unavailable."""
    if host.initial_user_namespace:
        if mode.kind == modes.NOMAP:
            cause = "--userns nomap leaves an ordinary user's own id out, and this engine is root's"
            raise Invalid("create", subject, cause, hint="write --userns auto: none of its ids is root's")
        if mode.size:
            hint = "leave size= away, or write auto:size=N"
            raise Invalid("create", subject, "root's keep-id has all ids there are, and takes no size", hint=hint)
        return _EVERY_ID, _EVERY_ID
    found: list[Lines] = []
    for known, own, kind in ((host.uids, mode.uid, "uids"), (host.gids, mode.gid, "gids")):
        count = sum(each.size for each in known)
        count = min(count, mode.size or count)
        inside = _outside(known) if own is None else own
        if count < 2:
            cause = f"it takes subordinate {kind}, and this engine has one id"
            hint = "`orlop doctor` says how to get some; or leave --userns away"
            raise Unavailable("map the ids of", subject, cause, hint=hint)
        if mode.kind == modes.NOMAP:
            found.append((IdMapping(container_id=0, host_id=1, size=count - 1),))
        else:
            found.append(around(inside, count))
    return found[0], found[1]


def around(inside: int, count: int) -> Lines:
    """Return the map of `count` ids of ours in which our first one, who we are, is `inside`, as podman has it.

    Those below move up by one. One far beyond them all stands alone.
    """
    below = min(inside, count - 1)
    lines = [IdMapping(container_id=0, host_id=1, size=below)] if below else []
    lines.append(IdMapping(container_id=inside, host_id=0, size=1))
    if inside + 1 < count:
        lines.append(IdMapping(container_id=inside + 1, host_id=inside + 1, size=count - inside - 1))
    return tuple(lines)


def user(host: HostFacts, mode: modes.Mode) -> str:
    """Return UID:GID of who runs in a container of keep-id."""
    uid = _outside(host.uids) if mode.uid is None else mode.uid
    gid = _outside(host.gids) if mode.gid is None else mode.gid
    return f"{uid}:{gid}"


def has_every_id(found: tuple[Lines, Lines]) -> bool:
    """Tell whether these are the maps of root's keep-id, which take nobody an id away."""
    return found == (_EVERY_ID, _EVERY_ID)


def has_root(record: ContainerRecord) -> bool:
    """Tell whether root of a container with a user namespace of its own is, as an owner of files, the machine's."""
    return any(each.container_id == each.host_id == 0 for each in record.uid_mappings)


def on_disk(record: ContainerRecord, host: HostFacts) -> Shift | None:
    """Return what lies between a container's owners and those of its files on disk; None where they are the same."""
    return shift(record) if record.uid_mappings and not host.initial_user_namespace else None


def shift(record: ContainerRecord) -> Shift:
    """Return what lies between a container's owners and those that this engine sees of what it runs."""
    uids, gids = (
        [(each.container_id, each.host_id, each.size) for each in mappings]
        for mappings in (record.uid_mappings, record.gid_mappings)
    )
    return Shift(uids, gids)


def _outside(known: Lines) -> int:
    return known[0].host_id if known else 0
