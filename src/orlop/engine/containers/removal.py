"""What remains of a container, and how it goes: record, snapshot, cgroup, sockets.

A removal is decided by one rename (record.Records.condemn); whatever interrupts it after that, `dispose` is repeated
by the next engine until nothing is left.
"""

from __future__ import annotations

import shutil

from ...linux.cgroup import Cgroup
from ...spec.errors import NotFound, OrlopError
from .. import events, secrets
from ..networks import attach
from ..volumes import preparation
from . import state
from .record import CGROUP, disk_trouble_told
from .watch import REMOVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine
    from .record import ContainerRecord


def discard(engine: Engine, record: ContainerRecord, *, volumes: bool = False) -> None:
    """Remove a container that does not run. Raises NotFound, Conflict when it runs.

    volumes: those that nobody named go with it; with `--rm` they always do.
    Its monitor may still be ending: once the exit record is written it needs nothing of the container.
    """
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        task = engine.observe(record.id)
        state.step(task, "remove", record)
        with disk_trouble_told("remove", record.subject):
            engine.records.condemn(record.id, volumes=volumes or record.request.auto_remove)
        dispose(engine, record.id)
    if task.exit is not None and task.status is not None:
        events.died(engine, record, task.exit)  # its end may not have been dealt with yet
    events.publish_container(engine, record, "destroy")
    engine.notices.forget(record.id)
    engine.awaiting.pop(record.id, None)
    engine.health.pop(record.id, None)
    engine.watcher.tell(record.id, REMOVED, exit_code(task, record))


def dispose(engine: Engine, container_id: str) -> None:
    """Remove everything of a condemned container. What can't be removed is said in the log and tried again later."""
    attach.release(engine, container_id)
    try:
        for key in (*engine.snapshots.keys(f"{container_id}-"), container_id):
            try:
                engine.snapshots.remove(key)
            except NotFound:
                continue
    except OrlopError as wrong:
        engine.log.write(f"container {container_id} is not wholly removed: {wrong}")
        return
    record, takes_volumes = engine.records.buried(container_id)
    if record is None:
        preparation.remove_made_by(engine, container_id)
    elif takes_volumes:
        preparation.remove_anonymous(engine, record.mounts)
    remove_cgroup(engine, record.cgroup if record is not None else f"{CGROUP}/{container_id}")
    shutil.rmtree(engine.task_directory(container_id), ignore_errors=True)
    secrets.withdraw(engine, container_id)
    engine.records.bury(container_id)


def exit_code(task: state.Task, record: ContainerRecord) -> int:
    """Return docker's ExitCode: of the last run, of a start that failed, else 0."""
    if record.start_error:
        return record.start_exit_code
    return task.exit.exit_code if task.exit else 0


def remove_cgroup(engine: Engine, path: str) -> None:
    """Kill whatever is left in a container's cgroup and remove it. Nothing is wrong when it is not there."""
    if not engine.host.runtime.layout.hierarchies():
        return  # this engine was given none: what was in its PID namespace has ended with it
    cgroup = Cgroup(engine.host.runtime.layout, path)
    try:
        cgroup.kill()
        cgroup.remove()
    except OSError as wrong:
        engine.log.write(f"the cgroup {path} can't be removed: {wrong}")
