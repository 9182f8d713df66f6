"""The verbs that only look: list and inspect. They take no lock and wait for nobody."""

from __future__ import annotations

from ...spec.errors import Invalid, OrlopError
from ..networks import listing as network_listing
from ..supervision import health
from . import execs, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..engine import Engine
    from .record import ContainerRecord
    from .state import Task

    Test = Callable[[ContainerRecord, Task, str], bool]

_STATES = frozenset("created restarting running removing paused exited dead".split())


def summaries(engine: Engine, everything: bool, filters: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return docker's summary of the containers that run (or of all), the newest first.

    filters: key -> values; a container must fit one value of each key, and every label. A filter on the state looks
    at all containers, as docker's does. Raises Invalid for a filter that does not exist.
    """
    tests = [_test(key, values) for key, values in filters.items() if values]
    everything = everything or "status" in filters or "exited" in filters
    found = []
    for record in engine.records.all():
        task = engine.observe(record.id)
        if (everything or task.is_up) and all(test(record, task) for test in tests):
            summary = inspect.summary(record, task, health.status(engine, record, task))
            found.append((record.created_at, {**summary, **network_listing.summary_of(engine, record)}))
    found.sort(key=lambda entry: entry[0], reverse=True)
    return [entry for _, entry in found]


def details(engine: Engine, reference: str) -> dict[str, object]:
    """Return docker's object of a container. Raises NotFound, Invalid, Internal for a damaged record."""
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    try:
        spec = execs.read_spec(engine, record)
    except OrlopError:
        engine.records.load(record.id)  # NotFound, when it was removed meanwhile
        raise
    found = inspect.details(record, task, spec, engine.records.path(record.id), health.details(engine, record, task))
    found = network_listing.details_of(engine, record, found)
    return {**found, "ExecIDs": execs.running(engine, record) or None}


def _test(key: str, values: Sequence[str]) -> Callable[[ContainerRecord, Task], bool]:
    test = _FILTERS.get(key)
    if test is None:
        hint = f"known are {', '.join(sorted(_FILTERS))}"
        raise Invalid("list", "containers", f"invalid filter '{key[:60]}'", hint=hint)
    for value in values:
        if key == "status" and value not in _STATES:
            cause = f"invalid filter 'status={value[:60]}'"
            raise Invalid("list", "containers", cause, hint=f"known are {', '.join(sorted(_STATES))}")
        if key == "exited" and not (value.isascii() and value.isdecimal()):
            raise Invalid("list", "containers", f"invalid filter 'exited={value[:60]}'", hint="give an exit code")
    combine = all if key == "label" else any
    return lambda record, task: combine(test(record, task, value) for value in values)


def _is_exit(record: ContainerRecord, task: Task, value: str) -> bool:
    return task.exit is not None and task.exit.exit_code == int(value)


def has_label(record: ContainerRecord, value: str) -> bool:
    """Tell whether a container has the label: NAME, or NAME=value."""
    name, equals, wanted = value.partition("=")
    labels = record.config.labels
    return name in labels and (not equals or labels[name] == wanted)


def _has_ancestor(record: ContainerRecord, task: Task, value: str) -> bool:
    digest = record.image_id.removeprefix("sha256:")
    image = record.request.image
    return image == value or image == f"{value}:latest" or (len(value) >= 4 and digest.startswith(value))


def _mounts(record: ContainerRecord, task: Task, value: str) -> bool:
    return any(value in (point.name or point.source, point.destination) for point in record.mounts)


_FILTERS: dict[str, Test] = {
    "ancestor": _has_ancestor,
    "exited": _is_exit,
    "id": lambda record, task, value: record.id.startswith(value),
    "label": lambda record, task, value: has_label(record, value),
    "name": lambda record, task, value: value.removeprefix("/") in record.name,
    "network": lambda record, task, value: value in network_listing.names_of(record),
    "status": lambda record, task, value: task.state == value,
    "volume": _mounts,
}
