"""What an engine does when it opens: it looks at what is there. The only recovery path, and it runs at every start.

Found                                                   done
a volume that was being renamed                         its containers call it as it is called now
a condemned container                                   its removal is finished
a directory without container.json                      its creation never finished: it is removed
a running container                                     its end is awaited
one whose monitor died without an exit record           the record is completed, leftovers of its cgroup are killed
an ended one that wanted to be removed                  it is removed
a start that the dead engine had begun                  it is awaited for a while: the monitor goes on without an engine
a task directory of no container                        it is removed
addresses and ports of a container that has ended       they are given back; the rules of the others are written anew
a connection to a network that was not finished         it is undone; a disconnection is finished
links, relays that containers have lost                 they are made again (networks.mtu)
a network's directory without network.json              it is removed
one whose restart policy wants it to run                it is started, in the background (supervision.boot)
"""

from __future__ import annotations

import os
import shutil
import threading
import time

from ..spec.errors import Internal, NotFound, OrlopError
from . import events
from .containers import ends, execs, freezing, names, removal, state
from .networks import attach, cni, egress, lifecycle, mtu
from .networks import names as resolver_names
from .steps import sweep as steps
from .volumes import moving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .containers.record import ContainerRecord
    from .engine import Engine

LATE_START_S_MAX = 15.0
_LATE_START_POLL_S = 0.05


def reconcile(engine: Engine) -> None:
    """Bring the engine's view and the world together. One container's trouble never hides the others."""
    moving.finish(engine)
    for container_id in engine.records.condemned():
        removal.dispose(engine, container_id)
    late = []
    for container_id in engine.records.ids():
        try:
            record = engine.records.load(container_id)
        except NotFound:
            _sweep_unfinished(engine, container_id)
        except OrlopError as wrong:
            engine.log.write(f"container {container_id} is left alone: {wrong.cause}")
        else:
            if _look(engine, record):
                late.append(container_id)
    _take_up_networks(engine, late)
    _sweep_tasks(engine)
    steps.sweep(engine)
    _take_up_lazy(engine)
    for container_id in engine.records.ids():
        if container_id not in late:
            engine.boot.consider(container_id)
    if late:
        threading.Thread(target=_await_late_starts, args=(engine, late), name="late starts", daemon=True).start()


def _take_up_lazy(engine: Engine) -> None:
    """Find those who serve layers, where there ever were any."""
    if os.path.isdir(f"{engine.paths.run}/lazy") or os.path.isdir(f"{engine.snapshots.root}/lazy"):
        from .lazy import verb

        verb.take_up(engine)


def _look(engine: Engine, record: ContainerRecord) -> bool:
    """Take up one container. Tell whether a start of it may be under way."""
    freezing.release(engine, record)
    task = engine.observe(record.id)
    if task.state == state.CREATED:
        return os.path.isdir(engine.task_directory(record.id))
    if task.lives:
        execs.take_up(engine, record)
    if task.state == state.EXITED and task.status is not None:
        directory = engine.records.path(record.id)
        if record.request.auto_remove or state.read_exit(directory, task.status) is None:
            ends.watch(engine, record.id, task)
        elif task.exit is not None:
            execs.take_up(engine, record)
            events.died(engine, record, task.exit)  # unless the dead engine had told it
    return False


def _take_up_networks(engine: Engine, late: list[str]) -> None:
    """Hold what running containers hold, and give back what the others have left."""
    engine.networks.store.sweep()
    for container_id in engine.records.ids():
        engine.networks.attachments.load(container_id)
    cni.forget_stale(engine)
    if not engine.networks.attachments.all:
        return
    engine.networks.starting.update(late)
    try:
        engine.networks.adopt()
    except (OSError, Internal) as wrong:
        engine.log.write(f"the rules of the networks can't be written: {wrong}")
    cni.hold_namespaces(engine)
    egress.listen(engine)
    attach.release_ended(engine)
    resolver_names.take_up(engine)
    attach.reserve_again(engine)
    lifecycle.finish(engine)
    _follow_networks(engine)


def _follow_networks(engine: Engine) -> None:
    """Make again what was taken while no engine was there, and see to it from now on."""
    try:
        mtu.follow(engine)
        if engine.networks.follower is not None:
            engine.networks.follower.wake()
    except OSError as wrong:
        engine.log.write(f"what others change of networks is not followed: {wrong}")


def _sweep_unfinished(engine: Engine, container_id: str) -> None:
    engine.log.write(f"container {container_id} was never finished: removed")
    try:
        engine.records.condemn(container_id)
    except NotFound:
        return
    removal.dispose(engine, container_id)


def _sweep_tasks(engine: Engine) -> None:
    for name in os.listdir(engine.tasks):
        if names.is_id(name) and not os.path.isdir(engine.records.path(name)):
            shutil.rmtree(f"{engine.tasks}/{name}", ignore_errors=True)


def _await_late_starts(engine: Engine, waiting: list[str]) -> None:
    """Watch what a dead engine had started, once it runs. What does not run by then never will."""
    begun = tuple(waiting)
    deadline = time.monotonic() + LATE_START_S_MAX
    while waiting and time.monotonic() < deadline:
        time.sleep(_LATE_START_POLL_S)
        waiting = [container_id for container_id in waiting if _still_created(engine, container_id)]
    for container_id in waiting:
        _give_up(engine, container_id)
        engine.boot.consider(container_id)
    engine.networks.starting.difference_update(begun)
    attach.release_ended(engine)


def _still_created(engine: Engine, container_id: str) -> bool:
    try:
        record = engine.records.load(container_id)
    except OrlopError:
        return False
    task = engine.observe(container_id)
    if task.state == state.CREATED:
        return True
    if task.state == state.EXITED and task.status is not None:
        ends.watch(engine, record.id, task)
    return False


def _give_up(engine: Engine, container_id: str) -> None:
    with engine.locks.hold(container_id):
        if engine.observe(container_id).state == state.CREATED:
            shutil.rmtree(engine.task_directory(container_id), ignore_errors=True)
    try:
        record = engine.records.load(container_id)
        if record.request.auto_remove:
            removal.discard(engine, record)
    except OrlopError as wrong:
        engine.log.write(f"container {container_id} could not be removed: {wrong}")
