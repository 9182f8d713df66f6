"""A volume gets another name, whoever uses it: the records of its containers follow, their mounts stay what they are.

What is moved is noted first (<root>/.move-*), so that an engine that dies meanwhile leaves the next one a whole move.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from ...linux import path
from ...spec import jsonio
from ...spec.errors import OrlopError
from ...spec.mount import VOLUME
from ...spec.task import SPEC_FILE
from .. import events
from ..containers.record import disk_trouble_told, write_durably
from . import preparation
from .store import SNAPSHOT_LABEL, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ..engine import Engine

_NOTE = ".move-"
_NOTE_BYTES_MAX = 4096


def rename(engine: Engine, old: str, new: str) -> None:
    """Give a volume another name, also while containers use it. Raises NotFound, Invalid, Conflict, Unavailable."""
    check_name(new, "rename")
    note = engine.volumes.path(f"{_NOTE}{os.urandom(8).hex()}")
    with ExitStack() as held, disk_trouble_told("rename", f"volume {old[:100]}"):
        users = frozenset(preparation.users(engine, old))
        for container in sorted(users):  # in one order, and who holds one waits for no other: nobody waits in a circle
            held.enter_context(engine.locks.hold(container))
        engine.volumes.load(old)
        write_durably(note, jsonio.dump({"old": old, "new": new}))
        try:
            engine.volumes.rename(old, new, lambda: frozenset(preparation.users(engine, old)) - users)
            for container in sorted(users):
                _follow(engine, container, old, new)
            _follow_snapshots(engine, old, new)
        finally:
            os.unlink(note)
    events.publish(engine, events.VOLUME, "destroy", old, {})
    events.publish(engine, events.VOLUME, "create", new, {})


def finish(engine: Engine) -> None:
    """Finish what an engine that died had begun: a volume that has its new name has it everywhere."""
    directory = engine.volumes.directory
    for name in os.listdir(directory):
        if not name.startswith(_NOTE):
            continue
        try:
            note = jsonio.parse_object(path.read_file(f"{directory}/{name}", _NOTE_BYTES_MAX), name)
            old, new = check_name(str(note.get("old"))), check_name(str(note.get("new")))
            if engine.volumes.find(old) is None and engine.volumes.find(new) is not None:
                for container in list(preparation.users(engine, old)):
                    _follow(engine, container, old, new)
                _follow_snapshots(engine, old, new)
            os.unlink(f"{directory}/{name}")
        except (OSError, OrlopError) as wrong:
            engine.log.write(f"the renaming of a volume in {directory}/{name} is not finished: {wrong}")


def _follow(engine: Engine, container: str, old: str, new: str) -> None:
    """Let the record and the OCI spec of a container name a volume as it is called now."""
    record = engine.records.load(container)
    spec = engine.records.spec(container)
    before = engine.volumes.path(old) + "/"
    mounts = (
        mount.replace(source=f"{engine.volumes.path(new)}/{mount.source.removeprefix(before)}")
        if mount.source is not None and mount.source.startswith(before)
        else mount
        for mount in spec.mounts
    )
    path = f"{engine.records.path(container)}/{SPEC_FILE}"
    write_durably(path, jsonio.dump(spec.replace(mounts=tuple(mounts)).to_json()), last=False)
    points = tuple(
        point.replace(name=new, device=_moved(point.device, before, engine.volumes.path(new)))
        if point.type == VOLUME and point.name == old
        else point
        for point in record.mounts
    )
    engine.records.save(record.replace(mounts=points, request=_asked(record.request, old, new)))


def _follow_snapshots(engine: Engine, old: str, new: str) -> None:
    """Let a volume's snapshots name it as it is called now: it goes back to them only, and prunes spare them."""
    for record in engine.volumes.all():
        if record.labels.get(SNAPSHOT_LABEL) == old:
            engine.volumes.relabel(record.replace(labels={**record.labels, SNAPSHOT_LABEL: new}))


def _moved(device: str, before: str, after: str) -> str:
    return f"{after}/{device.removeprefix(before)}" if device.startswith(before) else device


def _asked(request: ContainerRequest, old: str, new: str) -> ContainerRequest:
    binds = tuple(bind.replace(source=new) if bind.source == old else bind for bind in request.binds)
    mounts = tuple(
        mount.replace(source=new) if mount.type == VOLUME and mount.source == old else mount for mount in request.mounts
    )
    return request.replace(binds=binds, mounts=mounts)
