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
from ..rootfs import mounted
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
    Who waits for the removal is told once nobody can see anything of it; its files go after that, before this returns.
    Its monitor may still be ending: once the exit record is written it needs nothing of the container.
    """
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        task = engine.observe(record.id)
        state.step(task, "remove", record)
        with disk_trouble_told("remove", record.subject):
            engine.records.condemn(record.id, volumes=volumes or record.request.auto_remove)
        left = _withdraw(engine, record.id)
    if task.exit is not None and task.status is not None:
        events.died(engine, record, task.exit)  # its end may not have been dealt with yet
    events.publish_container(engine, record, "destroy")
    engine.notices.forget(record.id)
    engine.awaiting.pop(record.id, None)
    engine.health.pop(record.id, None)
    engine.watcher.tell(record.id, REMOVED, exit_code(task, record))
    _bury(engine, record.id, left)


def dispose(engine: Engine, container_id: str) -> None:
    """Remove everything of a condemned container. What can't be removed is said in the log and tried again later."""
    _bury(engine, container_id, _withdraw(engine, container_id))


def _withdraw(engine: Engine, container_id: str) -> list[str] | None:
    """Take back all of a condemned container that others can see: addresses, volumes, cgroup, secrets, its layers.

    Return where in the trash its layers lie: emptying them is all that is left, and nobody has to wait for that. None
    when one of them can't be moved there: the next engine tries again.
    """
    attach.release(engine, container_id)
    mounted.release(engine, container_id)
    left = []
    try:
        for key in (*engine.snapshots.keys(f"{container_id}-"), container_id):
            try:
                left.append(engine.snapshots.withdraw(key))
            except NotFound:
                continue
    except OrlopError as wrong:
        engine.log.write(f"container {container_id} is not wholly removed: {wrong}")
        return None
    record, takes_volumes = engine.records.buried(container_id)
    if record is None:
        preparation.remove_made_by(engine, container_id)
    elif takes_volumes:
        preparation.remove_anonymous(engine, record.mounts)
    remove_cgroup(engine, record.cgroup if record is not None else f"{CGROUP}/{container_id}")
    shutil.rmtree(engine.task_directory(container_id), ignore_errors=True)
    secrets.withdraw(engine, container_id)
    return left


def _bury(engine: Engine, container_id: str, left: list[str] | None) -> None:
    """Remove the files of a container that was withdrawn."""
    if left is None:
        return
    for path in left:
        try:
            engine.snapshots.dispose(path)
        except OrlopError as wrong:  # it stays in the trash, for the next sweep
            engine.log.write(f"container {container_id} is not wholly removed: {wrong}")
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
        if not path.startswith(f"{CGROUP}/"):
            _remove_parents(engine, path)
    except OSError as wrong:
        engine.log.write(f"the cgroup {path} can't be removed: {wrong}")


def _remove_parents(engine: Engine, path: str) -> None:
    """Remove the parents that were made for a container's cgroup and hold nothing now, from below.

    One that another container names stays while that is stopped, too: somebody may have set limits there.
    """
    wanted = [record.cgroup for record in engine.records.all() if record.cgroup != path]
    while path := path.rpartition("/")[0]:
        if any(cgroup.startswith(f"{path}/") for cgroup in wanted):
            return
        if not Cgroup(engine.host.runtime.layout, path).prune_made():
            return
