"""The verbs of volumes: create, list, inspect, remove, prune. Those that only look take no lock and wait for nobody."""

from __future__ import annotations

import os

from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from .. import events
from ..containers import names
from ..containers.record import disk_trouble_told, timestamp
from ..labels import has_label
from . import local, preparation
from .store import ANONYMOUS_LABEL, LOCAL, SNAPSHOT_LABEL, VolumeRecord, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...spec.mount import VolumeRequest
    from ..engine import Engine

    Test = Callable[["VolumeRecord", "set[str]"], bool]

SCOPE = "local"
_LIST_FILTERS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_FILTERS = frozenset(("label", "label!", "all"))
_TRUE, _FALSE = frozenset(("true", "1", "t")), frozenset(("false", "0", "f"))


def create(engine: Engine, request: VolumeRequest) -> VolumeRecord:
    """Make a volume, or return the one that has this name already, as docker does.

    Raises Invalid, NotFound with docker's texts, Unavailable when the disk does not take it.
    """
    name = check_name(request.name) if request.name else names.new_id()
    subject = f"volume {name}"
    if request.driver not in ("", LOCAL):
        driver = request.driver[:60]
        cause = f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found'
        raise NotFound("create", subject, cause, hint="there are no plugins: leave --driver away, it is local")
    local.check(name, request.driver_options)
    anonymous = {} if request.name else {ANONYMOUS_LABEL: ""}
    record = VolumeRecord(
        name=name,
        created_at=timestamp(),
        labels={**request.labels, **anonymous},
        options=dict(request.driver_options),
    )
    with engine.volumes.held((name,)), disk_trouble_told("create", subject):
        known = engine.volumes.find(name)
        if known is None and engine.volumes.make(record):
            events.publish(engine, events.VOLUME, "create", name, {"driver": record.driver})
            return record
        return known or engine.volumes.load(name)


def summaries(engine: Engine, filters: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return docker's objects of the volumes that fit, by name. Raises Invalid for a filter that does not exist."""
    used = preparation.used(engine)
    tests = _tests(filters, _LIST_FILTERS, "list")
    found = [record for record in engine.volumes.all() if all(test(record, used) for test in tests)]
    return [_object(engine, record) for record in sorted(found, key=lambda record: record.name)]


def inspect(engine: Engine, name: str) -> dict[str, object]:
    """Return docker's object of a volume. Raises NotFound, Internal for a damaged record."""
    return _object(engine, engine.volumes.load(name))


def remove(engine: Engine, name: str, force: bool) -> None:
    """Remove a volume that no container uses. force: one that is not there is no error.

    Raises NotFound, Conflict with docker's texts, Unavailable.
    """
    try:
        with disk_trouble_told("remove", f"volume {name[:100]}"):
            preparation.remove(engine, name)
    except NotFound:
        if not force:
            raise


def prune(engine: Engine, filters: Mapping[str, Sequence[str]]) -> tuple[list[str], int]:
    """Remove the volumes that no container uses and nobody named; with the filter all=true the named ones too.

    Returns their names and how many bytes they had.
    """
    everything = _boolean(filters.get("all", ()), "all", "prune")
    tests = _tests({key: values for key, values in filters.items() if key != "all"}, _PRUNE_FILTERS, "prune")
    used = preparation.used(engine)
    removed, freed = [], 0
    found = list(engine.volumes.all())
    names_of_all = {record.name for record in found}
    for record in found:
        if record.labels.get(SNAPSHOT_LABEL) in names_of_all:
            continue  # the way back of a volume that is there: by name only
        if record.name in used or not (everything or record.is_anonymous):
            continue
        if not all(test(record, used) for test in tests):
            continue
        size = usage(engine, record.name)
        try:
            remove(engine, record.name, False)
        except (Conflict, NotFound):
            continue  # used or removed since
        except OrlopError as wrong:
            engine.log.write(f"volume {record.name} is not pruned: {wrong}")
            continue
        removed.append(record.name)
        freed += size
    events.publish(engine, events.VOLUME, "prune", "", {"reclaimed": str(freed)})
    return removed, freed


def usage(engine: Engine, name: str) -> int:
    """Return how many bytes a volume's own directory occupies, 0 when it is gone meanwhile."""
    from ...snapshot.usage import BLOCK_BYTES, measure

    try:
        if disk := engine.volumes.disk(name):
            return os.stat(disk).st_blocks * BLOCK_BYTES
        return measure(engine.volumes.data(name)).bytes
    except OSError:
        return 0


def _object(engine: Engine, record: VolumeRecord) -> dict[str, object]:
    return {
        "CreatedAt": f"{record.created_at.partition('.')[0]}Z",
        "Driver": record.driver,
        "Labels": dict(record.labels) or None,
        "Mountpoint": engine.volumes.data(record.name),
        "Name": record.name,
        "Options": dict(record.options) or None,
        "Scope": SCOPE,
    }


def _tests(filters: Mapping[str, Sequence[str]], known: frozenset[str], verb: str) -> list[Test]:
    for key, values in filters.items():
        if key not in known:
            hint = f"known are {', '.join(sorted(known))}"
            raise Invalid(verb, "volumes", f"invalid filter '{key[:60]}'", hint=hint, code="E0210")
        if key == "dangling" and values:
            _boolean(values, "dangling", verb)
    return [_test(key, tuple(values)) for key, values in filters.items() if values]


def _test(key: str, values: tuple[str, ...]) -> Test:
    if key == "dangling":
        wanted = values[0].lower() in _TRUE
        return lambda record, used: (record.name not in used) == wanted
    if key == "driver":
        return lambda record, used: record.driver in values
    if key == "name":
        return lambda record, used: any(value in record.name for value in values)
    wants = key == "label"
    return lambda record, used: all(has_label(record.labels, value) == wants for value in values)


def _boolean(values: Sequence[str], key: str, verb: str) -> bool:
    words = {value.lower() for value in values}
    if words <= _TRUE:
        return bool(words)
    if words <= _FALSE:
        return False
    raise Invalid(
        verb, "volumes", f"invalid filter '{key}={next(iter(values))[:60]}'", hint=f"write {key}=true", code="E0210"
    )
