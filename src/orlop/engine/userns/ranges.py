"""Which ids a container gets. The record of the container is the only place where that is kept."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock

from ...spec.errors import Invalid, Unavailable, Unsupported
from ...spec.runtime import IdMapping
from ..rootless import subids
from . import modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...spec.container import ContainerRequest
    from ..engine import Engine

Maps = tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]
NONE: Maps = ((), ())
NESTING = "nesting"  # of --security-opt


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
            lender = engine.records.find(mode.container)
            if lender.uid_mappings:
                _check(engine, request, subject)
            yield lender.uid_mappings, lender.gid_mappings  # none: it lives in the engine's own, and so will this one
            return
        if mode.kind == modes.HOST:
            yield NONE
            return
        _check(engine, request, subject)
        with self._lock:
            if mode.kind == modes.REMAP:
                found = _of_user(mode.user, subject)
            else:
                taken = [(each.uid_mappings, each.gid_mappings) for each in engine.records.all()]
                found = _free((*taken, *self._held.values()), mode.size, subject)
            self._held[container_id] = found
        try:
            yield found
        finally:
            with self._lock:
                self._held.pop(container_id, None)


def _needed(engine: Engine, request: ContainerRequest) -> str:
    """Return the mode of a container that runs others, which may not be with the machine's own root."""
    return modes.AUTO if NESTING in request.security_opt and engine.host.runtime.initial_user_namespace else ""


def _check(engine: Engine, request: ContainerRequest, subject: str) -> None:
    if request.privileged:
        cause = "privileged mode is incompatible with user namespaces"
        raise Invalid("create", subject, cause, hint="leave --privileged away, or write --userns host")
    if not engine.host.runtime.initial_user_namespace:
        cause = (
            "this engine lives in a user namespace itself, whose root can't map mounts of the machine's file systems"
        )
        raise Unsupported("create", subject, cause, hint="leave --userns away")


def _of_user(user: str, subject: str) -> Maps:
    found = []
    for path in (subids.SUBUID, subids.SUBGID):
        given = subids.read(path, user, -1)
        if not given:
            cause = f"{user} has no ids in {path}"
            raise Unavailable("map the ids of", subject, cause, hint=f"echo {user}:100000:65536 >>{path}")
        found.append(_mapping(given[0].first, min(given[0].count, modes.SIZE_DEFAULT)))
    return found[0], found[1]


def _free(taken: Iterable[Maps], size: int, subject: str) -> Maps:
    held = list(taken)
    found = []
    for path, kind in ((subids.SUBUID, 0), (subids.SUBGID, 1)):
        pool = [each for user in modes.POOL_USERS for each in subids.read(path, user, -1)]
        if not pool:
            cause = f"{path} gives no ids to {' or '.join(modes.POOL_USERS)}"
            hint = f"echo {modes.POOL_USERS[0]}:2147483648:1073741824 >>{path}"
            raise Unavailable("map the ids of", subject, cause, hint=hint)
        used = [subids.Range(each.host_id, each.size) for maps in held for each in maps[kind]]
        first = free_range(pool, used, size)
        if first is None:
            cause = f"{path} has no {size} ids left for {' or '.join(modes.POOL_USERS)}"
            raise Unavailable("map the ids of", subject, cause, hint="remove containers, or give them more ids")
        found.append(_mapping(first, size))
    return found[0], found[1]


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
