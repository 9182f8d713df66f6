"""What remains of a container, and how it goes: record, snapshot, cgroup, sockets.

A removal is decided by one rename (record.Records.condemn); whatever interrupts it after that, `dispose` is repeated
by the next engine until nothing is left.
"""

from __future__ import annotations

import os
import shutil

from ..linux.cgroup import Cgroup
from ..spec.errors import NotFound, OrlopError, Unavailable
from . import state
from .record import disk_trouble_told
from .watch import REMOVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.task import TaskStatus
    from .engine import Engine
    from .record import ContainerRecord

MONITOR_WAIT_S_MAX = 10.0  # from the end of the process to the end of its monitor, which empties pipes and logs


def discard(engine: Engine, record: ContainerRecord) -> None:
    """Remove a container that does not run.

    Raises NotFound, Conflict when it runs, Unavailable when its monitor hangs.
    """
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        task = engine.observe(record.id)
        state.step(task, "remove", record)
        if task.status is not None:
            wait_for_monitor(engine, record, task.status)
        with disk_trouble_told("remove", record.subject):
            engine.records.condemn(record.id)
        dispose(engine, record.id)
    engine.watcher.tell(record.id, REMOVED, exit_code(task, record))


def dispose(engine: Engine, container_id: str) -> None:
    """Remove everything of a condemned container. What can't be removed is said in the log and tried again later."""
    try:
        engine.snapshots.remove(container_id)
    except NotFound:
        pass
    except OrlopError as wrong:
        engine.log.write(f"container {container_id} is not wholly removed: {wrong}")
        return
    remove_cgroup(engine, container_id)
    shutil.rmtree(engine.task_directory(container_id), ignore_errors=True)
    engine.records.bury(container_id)


def exit_code(task: state.Task, record: ContainerRecord) -> int:
    """Return docker's ExitCode: of the last run, of a start that failed, else 0."""
    if record.start_error:
        return record.start_exit_code
    return task.exit.exit_code if task.exit else 0


def wait_for_monitor(engine: Engine, record: ContainerRecord, status: TaskStatus) -> None:
    """Return when the monitor of an ended run is gone: until then it may hold the container's files and mounts.

    Raises Unavailable when it does not go.
    """
    monitor = state.open_monitor(status, engine.boot_id)
    if monitor is None:
        return
    try:
        if not state.wait_for(monitor, MONITOR_WAIT_S_MAX):
            cause = f"its monitor (process {status.monitor_pid}) does not end"
            hint = f"see where it hangs in the kernel: cat /proc/{status.monitor_pid}/stack"
            raise Unavailable("remove", record.subject, cause, hint=hint)
    finally:
        os.close(monitor)


def remove_cgroup(engine: Engine, container_id: str) -> None:
    """Kill whatever is left in the container's cgroup and remove it. Nothing is wrong when it is not there."""
    cgroup = Cgroup(engine.host.runtime.layout, f"/orlop/{container_id}")
    try:
        cgroup.kill()
        cgroup.remove()
    except OSError as wrong:
        engine.log.write(f"the cgroup of container {container_id} can't be removed: {wrong}")
