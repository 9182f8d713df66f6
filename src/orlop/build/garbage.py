"""What the cache of builds holds, and what of it goes: by last use, by size, or all that nothing uses now."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from contextlib import contextmanager

from orlop.image import collection
from orlop.spec.errors import Invalid, NotFound

from . import history
from .solver import cachemounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orlop.engine.engine import Engine

    Meant = Callable[[Mapping[str, object]], bool]

SYNCED, USED = "synced", ".used"
_CONDITION = re.compile(r"(?P<key>[a-z]+)(?:(?P<how>==|~=|=)(?P<value>.*))?", re.DOTALL)
_FIELDS = {"type": "Type", "id": "ID", "description": "Description", "inuse": "InUse"}
_TRUTH = {None: True, "true": True, "1": True, "false": False, "0": False}


def usage(engine: Engine) -> list[dict[str, object]]:
    """Return docker's object of each record and each cache mount. Sizes in bytes."""
    from orlop.engine.steps.usage import usage as of_steps
    from orlop.snapshot.usage import measure

    found = of_steps(engine)
    busy = cachemounts.in_use(engine)
    for name, mount, pinned in cachemounts.mounts(engine):
        try:
            used = os.stat(engine.volumes.data(name)).st_mtime
            size = measure(engine.volumes.data(name)).bytes
        except (NotFound, OSError):
            continue  # it goes just now
        found.append(
            {
                "ID": name,
                "Type": "exec.cachemount",
                "Description": f"cached mount {mount}{' (pinned)' if pinned else ''}",
                "InUse": name in busy,
                "Shared": False,
                "Size": size,
                "CreatedAt": "",
                "LastUsedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(used)),
                "UsageCount": 1,
            }
        )
    return [*found, *map(_described, folders(engine))]


def folders(engine: Engine) -> list[os.DirEntry[str]]:
    """Return the folders that were received from clients, the last used first (frontends.buildkit)."""
    try:
        found = [one for one in os.scandir(f"{engine.paths.root}/build/{SYNCED}") if one.is_dir(follow_symlinks=False)]
        return sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)
    except FileNotFoundError:
        return []  # nobody has sent any, or one goes just now


def _described(folder: os.DirEntry[str]) -> dict[str, object]:
    from orlop.snapshot.usage import measure

    return {
        "ID": folder.name,
        "Type": "source.local",
        "Description": "a folder of a client's",
        "InUse": False,
        "Shared": False,
        "Size": measure(folder.path).bytes,
        "CreatedAt": "",
        "LastUsedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(folder.stat().st_mtime)),
        "UsageCount": 1,
    }


@contextmanager
def using(directory: str) -> Iterator[None]:
    """Hold a client's folder, there or not yet: no pruning removes it meanwhile."""
    os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
    fd = _locked(f"{directory}{USED}", fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(fd)


def _locked(path: str, kind: int) -> int:
    """Return a descriptor of a file, locked, and still the one of that name. Raises OSError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass  # it was removed while we waited
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _prune_folders(engine: Engine, unused_s: int, is_meant: Meant = lambda facts: True) -> int:
    """Remove folders of clients that no build has now; return the bytes that they held."""
    from orlop.snapshot.usage import measure

    reclaimed = 0
    for folder in folders(engine):
        if not is_meant(_described(folder)):
            continue
        try:
            if time.time() - folder.stat().st_mtime < unused_s:
                continue
            fd = _locked(f"{folder.path}{USED}", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # a build has it, or it is gone
        try:
            size = measure(folder.path).bytes
            shutil.rmtree(folder.path)
            os.unlink(f"{folder.path}{USED}")
            reclaimed += size
        except OSError as wrong:
            engine.log.write(f"a folder of a client stays: {folder.path}: {wrong.strerror}")
        finally:
            os.close(fd)
    return reclaimed


def prune(
    engine: Engine,
    *,
    everything: bool = False,
    keep_bytes: int = 0,
    max_used_bytes: int = 0,
    min_free_bytes: int = 0,
    unused_s: int = 0,
) -> dict[str, object]:
    """Remove records, the least recently used first; return docker's {CachesDeleted, SpaceReclaimed}.

    everything: the cache mounts too. unused_s: only what was not used for so long. keep_bytes: stop when no more than
    so much is left. max_used_bytes, min_free_bytes: stop too when so much or less is used, or so much of the disk is
    free; 0 is no limit. What images need of the layers stays with them.
    """
    records = sorted(engine.step_cache.all(), key=lambda pair: pair[1])
    sizes = {record.key: record.layer.size if record.layer is not None else 0 for record, _ in records}
    left = sum(sizes.values())
    limits = [max_used_bytes] if max_used_bytes else []
    if min_free_bytes:
        disk = os.statvfs(engine.paths.root)
        limits.append(left - max(0, min_free_bytes - disk.f_bavail * disk.f_frsize))
    keep_bytes = max(keep_bytes, min(limits)) if limits else keep_bytes
    deleted = []
    now = time.time()
    for record, used in records:
        if (keep_bytes and left <= keep_bytes) or now - used < unused_s:
            break
        engine.step_cache.remove(record.key)
        left -= sizes[record.key]
        deleted.append(record.key)
    reclaimed = _mounts(engine) if everything else 0
    if not keep_bytes:
        reclaimed += _prune_folders(engine, unused_s)
    history.trim(engine, 0 if everything else history.BUILDS_KEPT)
    swept = collection.collect(engine.store, engine.snapshots)
    return {"CachesDeleted": deleted, "SpaceReclaimed": swept.size + reclaimed}


def prune_matching(
    engine: Engine, filters: Sequence[str], unused_s: int = 0, limits: Sequence[int] = ()
) -> dict[str, object]:
    """Remove what one of the filters means and was not used for so long, of records, cache mounts and folders.

    A filter is conditions that hold together, with commas between: type, id, description or inuse, and == or ~= (has
    it) and a value. limits: sizes that were given too. Raises Invalid: what is meant is removed, not some of it.
    """
    if any(limits):
        hint = "prune with one, then with the other"
        raise Invalid("prune", "the build cache", "a filter and a size don't go together", hint=hint)
    is_meant = matcher(filters)
    now = time.time()
    deleted = []
    for record, used in list(engine.step_cache.all()):
        facts = {"ID": record.key, "Type": "regular", "Description": record.name, "InUse": False}
        if now - used >= unused_s and is_meant(facts):
            engine.step_cache.remove(record.key)
            deleted.append(record.key)
    reclaimed = _mounts(engine, is_meant, now - unused_s) + _prune_folders(engine, unused_s, is_meant)
    swept = collection.collect(engine.store, engine.snapshots)
    return {"CachesDeleted": deleted, "SpaceReclaimed": swept.size + reclaimed}


def matcher(filters: Sequence[str]) -> Meant:
    """Return what tells whether docker's object of an entry fits one of the filters. Raises Invalid."""
    wanted = [[_condition(text) for text in one.split(",")] for one in filters]

    def is_meant(facts: Mapping[str, object]) -> bool:
        return any(all(condition(facts) for condition in one) for one in wanted)

    return is_meant


def _condition(text: str) -> Meant:
    parts = _CONDITION.fullmatch(text)
    if parts is None or parts["key"] not in _FIELDS or (parts["key"] == "inuse" and parts["value"] not in _TRUTH):
        hint = f"write KEY=VALUE of {', '.join(sorted(_FIELDS))}, or until=24h"
        raise Invalid("prune", "the build cache", f"invalid filter '{text[:60]}'", hint=hint)
    field, value, has = _FIELDS[parts["key"]], parts["value"] or "", parts["how"] == "~="
    if field == "InUse":
        return lambda facts: facts[field] is _TRUTH[parts["value"]]
    if has or field == "ID":  # people know the beginning of one
        return lambda facts: value in str(facts[field])
    return lambda facts: value == facts[field]


def _mounts(engine: Engine, is_meant: Meant = lambda facts: True, used_before: float = 0.0) -> int:
    """Remove the cache mounts that no step uses and nobody has pinned; return the bytes that they held.

    used_before: 0.0 for whenever they were used.
    """
    from orlop.engine.volumes import preparation
    from orlop.snapshot.usage import measure

    reclaimed = 0
    busy = cachemounts.in_use(engine)
    for name, mount, pinned in cachemounts.mounts(engine):
        facts = {"ID": name, "Type": "exec.cachemount", "Description": f"cached mount {mount}", "InUse": name in busy}
        is_old = not used_before or _used(engine, name) <= used_before
        if name not in busy and not pinned and is_old and is_meant(facts):
            try:
                size = measure(engine.volumes.data(name)).bytes
                preparation.remove(engine, name)
            except (NotFound, OSError):
                continue
            reclaimed += size
    return reclaimed


def _used(engine: Engine, volume: str) -> float:
    try:
        return os.stat(engine.volumes.data(volume)).st_mtime
    except (NotFound, OSError):
        return 0.0  # it goes just now
