"""Which ids a container gets. The record of the container is the only place where that is kept.

The kernel maps mounts of the machine's file systems for root alone. So the files of an ordinary user's container with
ids of its own lie on disk with those owners (`on_disk`): its image's layers are unpacked once more for each such map.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock

from ...spec.errors import Invalid, Unavailable, Unsupported
from ...spec.runtime import IdMapping
from ..rootless import subids
from . import kept, modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...spec.container import ContainerRequest
    from ..engine import Engine

Maps = tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]
NONE: Maps = ((), ())
NESTING = "nesting"  # of --security-opt
MAP_IDS = "map the ids of"  # the verb of the errors of who has no ids


class Ranges:
    """Ranges that creations hold until their record is written. One for an engine.

    default: the mode of containers that ask for none (docker's --userns-remap).
    """

    def __init__(self, default: str = "") -> None:
        """Raises Invalid for a mode that there is not."""
        modes.parse(default, "the engine")
        self.default = default
        self._lock = Lock()
        self._held: dict[str, Maps] = {}

    @contextmanager
    def hold(self, engine: Engine, request: ContainerRequest, container_id: str, subject: str) -> Iterator[Maps]:
        """Decide the maps of a container, and keep others from them meanwhile.

        Raises Invalid and Unsupported for the request, NotFound for another container, Unavailable when there are no
        ids.
        """
        mode = modes.parse(request.userns or self.default or _needed(engine, request), subject)
        if mode.kind == modes.CONTAINER:
            lender = engine.records.find(mode.name)
            if lender.uid_mappings:
                _check(request, subject)
            yield lender.uid_mappings, lender.gid_mappings  # none: it lives in the engine's own, and so will this one
            return
        if mode.kind == modes.HOST:
            yield NONE
            return
        _check(request, subject)
        if mode.kind in (modes.KEEP_ID, modes.NOMAP):
            yield kept.maps(engine.host.runtime, mode, subject)
            return
        _check_mounts(engine, subject)
        with self._lock:
            if mode.kind == modes.REMAP:
                found = _of_user(mode.name, subject)
            else:
                taken = [(each.uid_mappings, each.gid_mappings) for each in engine.records.all()]
                found = _free((*taken, *self._held.values()), mode, subject)
            self._held[container_id] = found
        try:
            yield found
        finally:
            with self._lock:
                self._held.pop(container_id, None)

    def user(self, engine: Engine, request: ContainerRequest, subject: str) -> str:
        """Return who runs in a container: USER of the request, or with keep-id who started it; "" is the image's."""
        mode = modes.parse(request.userns or self.default, subject)
        if request.user or mode.kind != modes.KEEP_ID:
            return request.user
        return kept.user(engine.host.runtime, mode)


def _needed(engine: Engine, request: ContainerRequest) -> str:
    """Return the mode of a container that runs others, which may not be with the machine's own root."""
    return modes.AUTO if NESTING in request.security_opt and engine.host.runtime.initial_user_namespace else ""


def _check(request: ContainerRequest, subject: str) -> None:
    if request.privileged:
        cause = "privileged mode is incompatible with user namespaces"
        raise Invalid("create", subject, cause, hint="leave --privileged away, or write --userns host")


def _check_mounts(engine: Engine, subject: str) -> None:
    if not engine.host.runtime.initial_user_namespace:
        cause = (
            "this engine lives in a user namespace itself, whose root can't map mounts of the machine's file systems"
        )
        hint = "leave --userns away, or write keep-id or nomap"
        raise Unsupported("create", subject, cause, hint=hint)


def _of_user(user: str, subject: str) -> Maps:
    found = []
    for path in (subids.SUBUID, subids.SUBGID):
        given = subids.read(path, user, -1)
        if not given:
            cause = f"{user} has no ids in {path}"
            raise Unavailable(MAP_IDS, subject, cause, hint=f"echo {user}:100000:65536 >>{path}")
        found.append(_mapping(given[0].first, min(given[0].count, modes.SIZE_DEFAULT)))
    return found[0], found[1]


def _without_pool() -> list[str]:
    """Return the files that give no ids to the engine, for one hint about both."""
    files = (subids.SUBUID, subids.SUBGID)
    return [path for path in files if not any(subids.read(path, user, -1) for user in modes.POOL_USERS)]


def _free(taken: Iterable[Maps], mode: modes.Mode, subject: str) -> Maps:
    held = [maps for maps in taken if not kept.has_every_id(maps)]
    found = []
    for path, kind, named in ((subids.SUBUID, 0, mode.uids), (subids.SUBGID, 1, mode.gids)):
        pool = [each for user in modes.POOL_USERS for each in subids.read(path, user, -1)]
        gaps = unnamed(mode.size, named)
        if gaps and not pool:
            cause = f"{path} gives no ids to {' or '.join(modes.POOL_USERS)}"
            raise Unavailable(MAP_IDS, subject, cause, hint=modes.give_pool(_without_pool()))
        others = (each for maps in held for each in maps[kind])
        used = [subids.Range(each.host_id, each.size) for each in (*others, *named)]
        size = sum(count for _, count in gaps)
        first = free_range(pool, used, size) if size else 0
        if first is None:
            cause = f"{path} has no {size} ids left for {' or '.join(modes.POOL_USERS)}"
            raise Unavailable(MAP_IDS, subject, cause, hint="remove containers, or give them more ids")
        lines = list(named)
        for inside, count in gaps:
            lines.append(IdMapping(container_id=inside, host_id=first, size=count))
            first += count
        if not any(each.container_id == 0 for each in lines):
            raise Invalid("create", subject, "its root would have no id", hint="let one of the mappings begin with 0")
        found.append(tuple(sorted(lines, key=lambda each: each.container_id)))
    return found[0], found[1]


def unnamed(size: int, named: Iterable[IdMapping]) -> list[tuple[int, int]]:
    """Return (first, count) of the ids below size that no mapping names."""
    gaps, at = [], 0
    for begin, count in sorted((each.container_id, each.size) for each in named):
        if at < min(begin, size):
            gaps.append((at, min(begin, size) - at))
        at = max(at, begin + count)
    return [*gaps, (at, size - at)] if at < size else gaps


def free_range(pool: Iterable[subids.Range], used: Iterable[subids.Range], size: int) -> int | None:
    """Return the first of `size` ids in a row that are in the pool and not used; None when there are not so many."""
    taken = sorted((each.first, each.first + each.count) for each in used)
    for part in pool:
        first = part.first
        for begin, end in taken:
            if end <= first:
                continue
            if begin >= first + size:
                break
            first = end
        if first + size <= part.first + part.count:
            return first
    return None


def _mapping(first: int, size: int) -> tuple[IdMapping, ...]:
    return (IdMapping(container_id=0, host_id=first, size=size),)
