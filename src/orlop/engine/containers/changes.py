"""What of a container may change after it was made: its name, and its limits, also while it runs."""

from __future__ import annotations

from ...spec.errors import Conflict, Invalid
from .. import events
from . import names
from .record import disk_trouble_told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine


def rename(engine: Engine, reference: str, name: str) -> None:
    """Give a container another name. Raises NotFound, Invalid for what is no name, Conflict for one that is taken."""
    record = engine.records.find(reference)
    if not name:
        cause = "Neither old nor new names may be empty"
        raise Invalid("rename", record.subject, cause, hint="write: orlop rename OLD NEW")
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        if names.check_name(name) == record.name:
            cause = "Renaming a container with the same name as its current name"
            raise Invalid("rename", record.subject, cause, hint="choose another name")
        try:
            with engine.records.reserved(name, record.id) as new, disk_trouble_told("rename", record.subject):
                engine.records.save(record.replace(name=new))
        except Conflict as wrong:
            raise Conflict("rename", record.subject, wrong.cause, hint=wrong.hint) from None
    events.publish_container(engine, record.replace(name=new), "rename", {"oldName": f"/{record.name}"})
