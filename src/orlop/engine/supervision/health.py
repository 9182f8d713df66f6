"""What health checks say: health.json, which the monitor writes."""

from __future__ import annotations

from ...linux.path import read_file
from ...spec import jsonio
from ...spec.errors import Invalid
from ...spec.task import HEALTH_FILE, Health
from .. import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..containers.record import ContainerRecord
    from ..containers.state import Task
    from ..engine import Engine

STARTING = "starting"
_FILE_BYTES_MAX = 256 * 1024


def read(engine: Engine, container_id: str) -> Health | None:
    """Return what the checks of the last run said, None when it has none."""
    path = f"{engine.records.path(container_id)}/{HEALTH_FILE}"
    try:
        data = read_file(path, _FILE_BYTES_MAX)
        return Health.from_json(jsonio.parse(data, path, bytes_max=_FILE_BYTES_MAX), path)
    except (OSError, Invalid):
        return None


def status(engine: Engine, record: ContainerRecord, task: Task) -> str:
    """Return "starting", "healthy" or "unhealthy", "" without a check."""
    said = read(engine, record.id) if record.config.health is not None else None
    if said is None or task.status is None or said.run != task.status.started_at:
        return ""
    return said.status


def tell_change(engine: Engine, record: ContainerRecord, task: Task) -> None:
    """Tell that a container's health is another than at the last look, in docker's words."""
    said = status(engine, record, task)
    if said == engine.health.get(record.id, ""):
        return
    engine.health[record.id] = said
    if said and said != STARTING:
        events.publish_container(engine, record, f"health_status: {said}")


def details(engine: Engine, record: ContainerRecord, task: Task) -> dict[str, object] | None:
    """Return docker's State.Health, None for a container without a check or before its first run."""
    said = read(engine, record.id) if record.config.health is not None else None
    if said is None or task.status is None or said.run != task.status.started_at:
        return None
    log = [
        {"Start": result.started_at, "End": result.ended_at, "ExitCode": result.exit_code, "Output": result.output}
        for result in said.log
    ]
    return {"Status": said.status, "FailingStreak": said.failing_streak, "Log": log}
