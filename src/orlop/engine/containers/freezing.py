"""Pause and unpause: the container's cgroup is frozen, which no process inside can see or refuse.

Nothing is stored: the freezer itself says that a container is paused (state.py), to this engine and to the next one.
Only a verb that freezes for itself says so, in HELD_FILE, so that the next engine thaws what a dead one had frozen.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from ...spec.errors import Conflict, Unavailable, Unsupported
from .. import events
from . import state
from .record import disk_trouble_told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...spec.task import TaskStatus
    from ..engine import Engine
    from .record import ContainerRecord


HELD_FILE = "held"


def pause(engine: Engine, reference: str) -> None:
    """Stop every process of a container where it stands.

    Raises NotFound, Conflict when it does not run or is paused already, Unavailable when a process does not freeze.
    """
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    state.step(task, "pause", record)
    assert task.status is not None
    if not engine.host.runtime.layout.hierarchies():
        cause = "there is no cgroup to freeze it in: this user was given none"
        hint = "on cgroup v2, have systemd delegate one: orlop doctor says how"
        raise Unsupported("pause", record.subject, cause, hint=hint)
    try:
        engine.cgroup(record.id, task.status).freeze()
    except OSError as wrong:
        if wrong.errno in (errno.ENOENT, errno.ENODEV):  # it has ended: its cgroup is gone, or goes while it is written
            state.step(state.Task(state.EXITED), "pause", record)
        hint = "a process that waits for a disk or a network file system can't be frozen: try again"
        raise Unavailable("pause", record.subject, wrong.strerror or str(wrong), hint=hint) from None
    events.publish_container(engine, record, "pause")


def unpause(engine: Engine, reference: str) -> None:
    """Let a container run on. Raises NotFound, Conflict when it is not paused, Unavailable."""
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    state.step(task, "unpause", record)
    assert task.status is not None
    thaw(engine, record, task.status)


def thaw(engine: Engine, record: ContainerRecord, status: TaskStatus) -> None:
    """Let a container run on if it is paused. Raises Unavailable."""
    cgroup = engine.cgroup(record.id, status)
    try:
        if not cgroup.is_frozen():
            return
        cgroup.thaw()
    except FileNotFoundError:
        return  # it has ended
    except OSError as wrong:
        raise Unavailable("unpause", record.subject, f"{wrong.filename}: {wrong.strerror}") from None
    events.publish_container(engine, record, "unpause")


@contextmanager
def held(engine: Engine, record: ContainerRecord) -> Iterator[None]:
    """Keep the processes of a container from changing anything; one that does not run, or is paused, stays as it is."""
    if engine.observe(record.id).state != state.RUNNING or not engine.host.runtime.layout.hierarchies():
        yield  # without a cgroup nothing can hold it still: who reads meanwhile sees what the kernel shows
        return
    with disk_trouble_told("pause", record.subject), open(_held_file(engine, record), "wb"):
        pass
    try:
        try:
            pause(engine, record.id)
        except Conflict:  # it has ended, or been paused, since the look at it
            pass
        yield
    finally:
        release(engine, record)


def release(engine: Engine, record: ContainerRecord) -> None:
    """Let a container run on that `held` froze, in this engine or in one that died. Raises Unavailable."""
    path = _held_file(engine, record)
    if os.path.exists(path):
        task = engine.observe(record.id)
        if task.state == state.PAUSED and task.status is not None:
            thaw(engine, record, task.status)
        os.unlink(path)


def _held_file(engine: Engine, record: ContainerRecord) -> str:
    return f"{engine.records.path(record.id)}/{HELD_FILE}"
