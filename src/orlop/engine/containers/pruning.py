"""`container prune`: remove what does not run."""

from __future__ import annotations

from ...spec.errors import Conflict, NotFound, OrlopError
from .. import events
from . import inspect, removal
from .filters import has_label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine import Engine
    from .record import ContainerRecord


def prune(
    engine: Engine, until_ns: int | None, labels: Sequence[str], without_labels: Sequence[str]
) -> tuple[list[str], int]:
    """Remove every container that does not run and fits; return their ids and the bytes that were freed.

    until_ns: only those made before this moment. labels: it has all of them; without_labels: it has not all of them.
    """
    ids, freed = [], 0
    for record in list(engine.records.all()):
        if until_ns is not None and inspect.unix_time(record.created_at) * 10**9 >= until_ns:
            continue
        if not all(has_label(record, label) for label in labels):
            continue
        if without_labels and all(has_label(record, label) for label in without_labels):
            continue
        size = _own_size(engine, record)
        try:
            removal.discard(engine, record)
        except (Conflict, NotFound):
            continue  # it runs, or is gone
        ids.append(record.id)
        freed += size
    events.publish(engine, events.CONTAINER, "prune", "", {"reclaimed": str(freed)})
    return ids, freed


def _own_size(engine: Engine, record: ContainerRecord) -> int:
    if record.request.rootfs or engine.observe(record.id).lives:
        return 0
    try:
        return engine.snapshots.usage(record.id).bytes
    except OrlopError:
        return 0
