"""RUN --mount=type=cache: directories that stay between builds.

Each is a volume of the engine, so that it is listed, measured, exported, imported and removed like any other.

sharing: shared uses one directory at the same time; locked waits for it; private takes another one where it is in use.
Who uses one is known in the memory of the engine, like all of a build.

$ORLOP_ROOT/build/pinned/<volume>   an empty file: pruning leaves the volume alone
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import contextmanager

from orlop.engine.volumes import verbs as volumes
from orlop.engine.volumes.store import DATA
from orlop.spec.errors import NotFound, Unavailable
from orlop.spec.mount import VolumeRequest

from .. import graph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orlop.engine.engine import Engine

    from .solve import Solver

LABEL = "io.orlop.build.cache-mount"
PRIVATE_MAX = 64
POLL_S = 0.1
_guard = threading.Condition()
_users: dict[tuple[str, str], list[str]] = {}  # (data directory, volume) -> how each of its users shares it


@contextmanager
def held_cache(solver: Solver, mount: graph.CacheMount) -> Iterator[str]:
    """Hold the directory of a cache mount; yields its path. Waits for one that is locked. Raises Unavailable."""
    with claimed(solver.engine, mount.cache, solver.check, mount.sharing) as name, solver.engine.volumes.held({name}):
        yield _made(solver, name, mount)


@contextmanager
def claimed(engine: Engine, cache_id: str, check: Callable[[], None], sharing: str = graph.LOCKED) -> Iterator[str]:
    """Have the use of a cache mount; yields its volume, which may not be there yet. Waits for who has it otherwise.

    check: raises what ends the waiting.
    """
    root = engine.paths.root
    name = _taken(root, cache_id, sharing, check)
    try:
        yield name
    finally:
        with _guard:
            users = _users[root, name]
            users.remove(sharing)
            if not users:
                del _users[root, name]
            _guard.notify_all()


def in_use(engine: Engine) -> set[str]:
    """Return the names of the volumes that steps use now."""
    with _guard:
        return {name for root, name in _users if root == engine.paths.root}


def mounts(engine: Engine) -> list[tuple[str, str, bool]]:
    """Return every cache mount: its volume, its id, and whether it is pinned."""
    pinned = set(_pins(engine))
    return [
        (record.name, record.labels[LABEL], record.name in pinned)
        for record in engine.volumes.all()
        if LABEL in record.labels
    ]


def pin(engine: Engine, name: str, *, pinned: bool) -> str:
    """Have pruning leave a cache mount alone, or not any more; name: its id or its volume. Returns the volume.

    Raises NotFound.
    """
    found = [volume for volume, mount, _ in mounts(engine) if name in (volume, mount)]
    if not found:
        hint = "list them with: orlop builder du"
        raise NotFound("pin", f"cache mount {name[:60]}", f"there is no cache mount {name[:60]}", hint=hint)
    path = f"{_place(engine)}/{found[0]}"
    try:
        if pinned:
            os.makedirs(_place(engine), 0o700, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        elif os.path.exists(path):
            os.unlink(path)
    except OSError as wrong:
        raise Unavailable("pin", f"cache mount {name[:60]}", wrong.strerror or str(wrong)) from None
    return found[0]


def _pins(engine: Engine) -> list[str]:
    try:
        return os.listdir(_place(engine))
    except FileNotFoundError:
        return []


def _place(engine: Engine) -> str:
    return f"{engine.paths.root}/build/pinned"


def _taken(root: str, cache_id: str, sharing: str, check: Callable[[], None]) -> str:
    base = name_of(cache_id)
    with _guard:
        while True:
            for number in range(PRIVATE_MAX if sharing == graph.PRIVATE else 1):
                name = f"{base}-{number}" if number else base
                users = _users.get((root, name), [])
                if not users or (sharing == graph.SHARED and set(users) == {graph.SHARED}):
                    _users.setdefault((root, name), []).append(sharing)
                    return name
            check()
            _guard.wait(POLL_S)


def name_of(cache_id: str) -> str:
    """Return the name of the volume behind a cache mount: its id in letters that a name may have, and its digest."""
    shown = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in cache_id).strip("-")[:40]
    return f"build-cache-{shown or 'x'}-{hashlib.sha256(cache_id.encode()).hexdigest()[:8]}"


def made(solver: Solver, cache_id: str) -> bool:
    """Make a cache mount that is not here, where the build may read it from elsewhere; tell whether it is here now."""
    with claimed(solver.engine, cache_id, solver.check) as name, solver.engine.volumes.held({name}):
        return _is_here(solver, name) or any(make(cache_id, name) for make in solver.mount_sources)


def _is_here(solver: Solver, name: str) -> bool:
    return os.path.isdir(f"{solver.engine.volumes.path(name)}/{DATA}")


def _made(solver: Solver, name: str, mount: graph.CacheMount) -> str:
    engine = solver.engine
    path = f"{engine.volumes.path(name)}/{DATA}"
    with engine.volumes.filling(name):  # whoever shares it finds it whole
        if _is_here(solver, name) or any(make(mount.cache, name) for make in solver.mount_sources):
            return path
        volumes.create(engine, VolumeRequest(name=name, labels={LABEL: mount.cache}))
        if mount.source is not None:
            _fill(solver, mount, path)
        os.chmod(path, mount.mode)
        os.chown(path, mount.uid, mount.gid)
    return path


def _fill(solver: Solver, mount: graph.CacheMount, path: str) -> None:
    """Copy what a new cache begins with."""
    from .copy import Writer
    from .tree import listing

    assert mount.source is not None
    tree = solver.solved[mount.source].tree
    target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        writer = Writer(target, None, "", 2**62)
        with solver.opened(tree) as root:
            writer.place(root, listing(root, mount.path, tree), "/", into=True)
        writer.close()
    finally:
        os.close(target)
