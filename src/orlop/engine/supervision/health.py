"""What health checks say: health.json, which the monitor writes."""

from __future__ import annotations

from ...spec import jsonio
from ...spec.errors import Invalid
from ...spec.task import HEALTH_FILE, Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..containers.record import ContainerRecord
    from ..containers.state import Task
    from ..engine import Engine

_FILE_BYTES_MAX = 256 * 1024


def read(engine: Engine, container_id: str) -> Health | None:
    """Return what the checks of the last run said, None when it has none."""
    path = f"{engine.records.path(container_id)}/{HEALTH_FILE}"
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(_FILE_BYTES_MAX + 1)
        return Health.from_json(jsonio.parse(data, path, bytes_max=_FILE_BYTES_MAX), path)
    except (OSError, Invalid):
        return None


def status(engine: Engine, record: ContainerRecord, task: Task) -> str:
    """Return "starting", "healthy" or "unhealthy", "" without a check."""
    said = read(engine, record.id)
    if said is None or task.status is None or said.run != task.status.started_at:
        return ""
    return said.status
