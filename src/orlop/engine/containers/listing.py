"""The verbs that only look: list and inspect. They take no lock and wait for nobody."""

from __future__ import annotations

from ...spec.errors import OrlopError
from ..networks import listing as network_listing
from ..supervision import health
from . import execs, filters, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine import Engine
    from .record import ContainerRecord


def summaries(
    engine: Engine, everything: bool, chosen: Mapping[str, Sequence[str]], *, size: bool = False
) -> list[dict[str, object]]:
    """Return docker's summary of the containers that run (or of all), the newest first.

    chosen: filters, key -> values. size: look how much each of them wrote, which takes its time.
    Raises Invalid for a filter that does not exist, NotFound for a container that one names.
    """
    test = filters.compile(engine, chosen)
    everything = everything or filters.looks_at_all(chosen)
    found = []
    for record in engine.records.all():
        task = engine.observe(record.id)
        if (everything or task.is_up) and test(record, task):
            summary = inspect.summary(record, task, health.status(engine, record, task))
            summary |= network_listing.summary_of(engine, record)
            found.append((record.created_at, summary | _sizes(engine, record) if size else summary))
    found.sort(key=lambda entry: entry[0], reverse=True)
    return [entry for _, entry in found]


def details(engine: Engine, reference: str, *, size: bool = False) -> dict[str, object]:
    """Return docker's object of a container, with its sizes if asked.

    Raises NotFound, Invalid, Internal for a damaged record.
    """
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    try:
        spec = execs.read_spec(engine, record)
    except OrlopError:
        engine.records.load(record.id)  # NotFound, when it was removed meanwhile
        raise
    found = inspect.details(record, task, spec, engine.records.path(record.id), health.details(engine, record, task))
    found = network_listing.details_of(engine, record, found)
    found["ExecIDs"] = execs.running(engine, record) or None
    return found | _sizes(engine, record) if size else found


def _sizes(engine: Engine, record: ContainerRecord) -> dict[str, object]:
    """Return docker's sizes: of what the container wrote, and of that and its image together."""
    if record.request.rootfs:
        return {"SizeRw": 0, "SizeRootFs": 0}
    try:
        own = engine.snapshots.usage(record.id).bytes
    except OrlopError:
        own = 0
    try:
        image = engine.images.resolve(record.image_id).size
    except OrlopError:
        image = 0
    return {"SizeRw": own, "SizeRootFs": own + image}
