"""A volume as it was: snapshots of it, what changed since, and the way back.

A snapshot is a volume of its own with a label that says whose it is: lists, sizes, exports and removals know it without
more. Its files share their blocks with the volume's where the file system can (copyup.copy_tree).
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from ...snapshot.compare import compare
from ...spec.errors import Conflict, Invalid
from .. import events
from ..containers.record import disk_trouble_told, timestamp
from . import preparation, transfer
from .store import SNAPSHOT_LABEL, VolumeRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine


def take(engine: Engine, volume: str, name: str) -> str:
    """Make a snapshot of a volume and return its name. name: "" takes the volume's and the time.

    What containers write meanwhile is in it or not, file by file. Raises NotFound, Invalid, Conflict, Unavailable.
    """
    original = transfer.own_directory(engine, volume, "take a snapshot of")
    name = name or f"{volume}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    labels = {**original.labels, SNAPSHOT_LABEL: volume}
    record = VolumeRecord(name=name, created_at=timestamp(), labels=labels, options=original.options)
    transfer.make_filled(engine, record, transfer.copying(engine, volume))
    return name


def roll_back(engine: Engine, volume: str, snapshot: str) -> None:
    """Put what a snapshot holds in the place of what a volume holds, at one moment. The snapshot stays.

    Raises NotFound, Invalid when it is none of this volume, Conflict while a container that mounts it runs.
    """
    record = transfer.own_directory(engine, volume, "roll back")
    kept = engine.volumes.load(snapshot)
    if kept.labels.get(SNAPSHOT_LABEL) != volume:
        hint = f"list them with: orlop volume ls --filter label={SNAPSHOT_LABEL}={volume}"
        raise Invalid("roll back", record.subject, f"{snapshot} is no snapshot of it", hint=hint)
    with ExitStack() as held, disk_trouble_told("roll back", record.subject):
        users = frozenset(preparation.users(engine, volume))
        for container in sorted(users):  # in one order, and who holds one waits for no other: nobody waits in a circle
            held.enter_context(engine.locks.hold(container))
        running = sorted(container[:12] for container in users if engine.observe(container).is_up)
        if running:
            cause = f"running containers mount it: {', '.join(running)}"
            raise Conflict("roll back", record.subject, cause, hint=f"stop them first: orlop stop {' '.join(running)}")
        fill = transfer.copying(engine, snapshot)
        engine.volumes.replace(record, fill, lambda: users >= frozenset(preparation.users(engine, volume)))
    events.publish(engine, events.VOLUME, "rollback", volume, {"snapshot": snapshot})


def changes(engine: Engine, volume: str, since: str) -> list[dict[str, str]]:
    """Return [{"kind", "path"}] of what differs in a volume from another, by path. Raises NotFound, Unavailable."""
    for name in (volume, since):
        transfer.own_directory(engine, name, "compare")
    with ExitStack() as held, disk_trouble_told("compare", f"volume {volume}"):
        held.enter_context(engine.volumes.held((volume, since)))
        trees = [[held.enter_context(engine.volumes.contents(name))] for name in (since, volume)]
        found = sorted(compare(*trees), key=lambda change: change[1])
    return [{"kind": kind, "path": os.fsdecode(path)} for kind, path in found]
