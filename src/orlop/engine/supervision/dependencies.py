"""`--depends-on C[:condition]`: what must have happened to other containers before this one starts.

    started      it runs, or ran since the machine booted
    healthy      its health check says so
    completed    it ran since the machine booted and ended with status 0

A dependency that does not run is started first, with its own dependencies. Names are resolved at each start, so that
a container that was made anew under its old name is meant.
"""

from __future__ import annotations

import time

from ...spec.errors import Conflict, Invalid, NotFound, Unavailable
from ..containers import lifecycle, state
from . import health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ..containers.record import ContainerRecord
    from ..engine import Engine

STARTED, HEALTHY, COMPLETED = "started", "healthy", "completed"
CONDITIONS = (STARTED, HEALTHY, COMPLETED)
NO_CHECK = "has no health check"
WAIT_S_MAX = 300.0
_POLL_S = 0.05


def split(text: str) -> tuple[str, str]:
    """Return the container and the condition that a request names."""
    reference, _, condition = text.partition(":")
    return reference, condition or STARTED


def check(engine: Engine, request: ContainerRequest, name: str) -> None:
    """Raise NotFound for a dependency that does not exist, Invalid for a condition or a cycle."""
    for text in request.depends_on:
        reference, condition = split(text)
        if condition not in CONDITIONS:
            cause = f"there is no condition {condition[:60]!r} for the dependency {reference[:100]}"
            raise Invalid("create", f"container {name}", cause, hint=f"known are {', '.join(CONDITIONS)}", code="E1104")
        _check_way(engine, engine.records.find(reference), (name,))


def ensure(engine: Engine, record: ContainerRecord, way: tuple[str, ...] = ()) -> None:
    """Start what a container depends on, and wait until it is as wanted.

    Raises NotFound, Conflict for a cycle, Unavailable for a dependency that can't become what is wanted.
    """
    if record.name in way:
        cause = f"it depends on itself: {' -> '.join((*way, record.name))}"
        raise Conflict("start", record.subject, cause, hint="make one of them anew without --depends-on", code="E1103")
    for text in record.request.depends_on:
        reference, condition = split(text)
        try:
            needed = engine.records.find(reference)
        except NotFound:
            cause = f"it depends on container {reference}, which is not there"
            raise Unavailable("start", record.subject, cause, hint=f"make {reference} first", code="E1102") from None
        _bring(engine, record, needed, condition, (*way, record.name))


def _check_way(engine: Engine, needed: ContainerRecord, way: tuple[str, ...]) -> None:
    if needed.name in way:
        cause = f"its dependencies form a cycle: {' -> '.join((*way, needed.name))}"
        raise Invalid("create", f"container {way[0]}", cause, hint="leave one --depends-on away", code="E1103")
    for text in needed.request.depends_on:
        try:
            following = engine.records.find(split(text)[0])
        except NotFound:
            if split(text)[0] != way[0]:
                continue
            cause = f"its dependencies form a cycle: {' -> '.join((*way, needed.name, way[0]))}"
            raise Invalid(
                "create", f"container {way[0]}", cause, hint="leave one --depends-on away", code="E1103"
            ) from None
        _check_way(engine, following, (*way, needed.name))


def _bring(
    engine: Engine, record: ContainerRecord, needed: ContainerRecord, condition: str, way: tuple[str, ...]
) -> None:
    if _is_so(engine, needed, condition):
        return
    task = engine.observe(needed.id)
    if not task.is_up:
        lifecycle.start(engine, needed.id, lifecycle.Client(), way=way)
    deadline = time.monotonic() + WAIT_S_MAX
    while not _is_so(engine, needed, condition):
        if trouble := _trouble(engine, needed, condition):
            hint = f"see: orlop why {needed.name}"
            if trouble == NO_CHECK:
                hint = f"make {needed.name} with --health-cmd, or depend on {needed.name}:started"
            raise Unavailable(
                "start", record.subject, f"its dependency {needed.name} {trouble}", hint=hint, code="E1102"
            )
        if time.monotonic() > deadline:
            cause = f"its dependency {needed.name} was not {condition} within {WAIT_S_MAX:.0f} s"
            raise Unavailable("start", record.subject, cause, hint=f"see: orlop why {needed.name}", code="E1102")
        time.sleep(_POLL_S)


def _is_so(engine: Engine, needed: ContainerRecord, condition: str) -> bool:
    task = engine.observe(needed.id)
    in_this_boot = task.status is not None and task.status.boot_id == engine.boot_id
    if condition == STARTED:
        return task.is_up
    if condition == HEALTHY:
        return task.lives and health.status(engine, needed, task) == HEALTHY
    return in_this_boot and task.state == state.EXITED and task.exit is not None and task.exit.exit_code == 0


def _trouble(engine: Engine, needed: ContainerRecord, condition: str) -> str:
    """Return why a condition will not come true, "" as long as it may."""
    task = engine.observe(needed.id)
    if (
        task.state == state.EXITED
        and task.exit is not None
        and not (condition == COMPLETED and not task.exit.exit_code)
    ):
        return f"ended with code {task.exit.exit_code}"
    if condition == HEALTHY and task.lives:
        said = health.status(engine, needed, task)
        if not said:
            return NO_CHECK
        if said == "unhealthy":
            return "is unhealthy"
    return ""
