"""What the cache of builds holds, and what of it goes: by last use, by size, or all that nothing uses now."""

from __future__ import annotations

import os
import time

from orlop.image import collection
from orlop.spec.errors import NotFound

from . import history
from .solver import cachemounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.engine.engine import Engine


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
    return found


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
    history.trim(engine, 0 if everything else history.BUILDS_KEPT)
    swept = collection.collect(engine.store, engine.snapshots)
    return {"CachesDeleted": deleted, "SpaceReclaimed": swept.size + reclaimed}


def _mounts(engine: Engine) -> int:
    """Remove the cache mounts that no step uses and nobody has pinned; return the bytes that they held."""
    from orlop.engine.volumes import preparation
    from orlop.snapshot.usage import measure

    reclaimed = 0
    busy = cachemounts.in_use(engine)
    for name, _, pinned in cachemounts.mounts(engine):
        if name not in busy and not pinned:
            try:
                size = measure(engine.volumes.data(name)).bytes
                preparation.remove(engine, name)
            except (NotFound, OSError):
                continue
            reclaimed += size
    return reclaimed
