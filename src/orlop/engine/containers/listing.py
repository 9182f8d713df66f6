"""The verbs that only look: list and inspect. They take no lock and wait for nobody."""

from __future__ import annotations

import time

from ...snapshot import driver_of
from ...spec import jsonio
from ...spec.errors import OrlopError
from ..networks import listing as network_listing
from ..supervision import health
from . import execs, filters, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine import Engine
    from ..supervision.rows import Row
    from .record import ContainerRecord
    from .state import Task


def summaries(
    engine: Engine, everything: bool, chosen: Mapping[str, Sequence[str]], *, size: bool = False
) -> list[dict[str, object]]:
    """Return docker's summary of the containers that run (or of all), the newest first.

    chosen: filters, key -> values. size: look how much each of them wrote, which takes its time.
    Raises Invalid for a filter that does not exist, NotFound for a container that one names.
    """
    now = time.time()
    return [
        _summary(engine, row)
        | {"Status": inspect.status_text(row.record, row.task, now, row.health)}
        | (sizes(engine, row.record) if size else {})
        for row in _chosen(engine, engine.rows.now(), everything, chosen)
    ]


def summaries_json(
    engine: Engine, everything: bool, chosen: Mapping[str, Sequence[str]], limit: int | None = None
) -> bytes:
    """Return the same without sizes as a JSON array, at most `limit` of them. Made anew only when something changed.

    Raises as `summaries` does.
    """
    if chosen or limit is not None:
        return _array(engine, _chosen(engine, engine.rows.now(), everything, chosen)[:limit], time.time())
    rows, good_for, whole = engine.rows.kept(everything)
    if whole is None:  # what a status says of the time changes with whole seconds
        whole = _array(engine, _chosen(engine, rows, everything, chosen), good_for[1])
        engine.rows.keep(everything, good_for, whole)
    return whole


def chosen(
    engine: Engine, everything: bool, filters_: Mapping[str, Sequence[str]]
) -> list[tuple[ContainerRecord, Task, str]]:
    """Return record, task and health of those that run (or of all), the newest first. Raises as `summaries`."""
    rows = _chosen(engine, engine.rows.now(), everything, filters_)
    return [(row.record, row.task, row.health) for row in rows]


def _chosen(engine: Engine, rows: Sequence[Row], everything: bool, filters_: Mapping[str, Sequence[str]]) -> list[Row]:
    test = filters.compile(engine, filters_)
    everything = everything or filters.looks_at_all(filters_)
    return [row for row in rows if (everything or row.task.is_up) and test(row.record, row.task)]


def _array(engine: Engine, rows: Sequence[Row], now: float) -> bytes:
    parts = []
    for row in rows:
        if not row.text:
            row.text = jsonio.dump(_summary(engine, row))[:-1] + b',"Status":'
        parts.append(row.text + jsonio.dump(inspect.status_text(row.record, row.task, now, row.health)) + b"}")
    return b"[" + b",".join(parts) + b"]"


def _summary(engine: Engine, row: Row) -> dict[str, object]:
    """Return docker's summary but for the status, the one part that tells the time."""
    return inspect.summary(row.record, row.task) | network_listing.summary_of(engine, row.record)


def details(engine: Engine, reference: str, *, size: bool = False) -> dict[str, object]:
    """Return docker's object of a container, with its sizes if asked.

    Raises NotFound, Invalid, Internal for a damaged record.
    """
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    try:
        spec = engine.records.spec(record.id)
    except OrlopError:
        engine.records.load(record.id)  # NotFound, when it was removed meanwhile
        raise
    driver = "rootfs" if record.request.rootfs else driver_of(engine.snapshots.directory(record.id)).name
    checks = health.details(engine, record, task)
    found = inspect.details(record, task, spec, engine.records.path(record.id), checks, driver)
    found = network_listing.details_of(engine, record, found)
    found["ExecIDs"] = execs.running(engine, record) or None
    return found | sizes(engine, record) if size else found


def sizes(engine: Engine, record: ContainerRecord) -> dict[str, object]:
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
