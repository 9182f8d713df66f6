"""How a run ends: by itself, by stop and kill, by the death of its monitor; and what is done then.

Signals go through pidfds only (SEC-36): a number could be somebody else's by now.
"""

from __future__ import annotations

import os
import select
import time

from ...linux import process
from ...linux.signals import reaches
from ...spec import jsonio, signals
from ...spec.errors import Conflict, NotFound, Unavailable
from ...spec.task import EXIT_FILE, HEALTH_FILE, ExitRecord
from ...supervise.restart import RESTART_FILE
from .. import events
from ..networks import attach
from ..supervision import health, orders
from . import freezing, removal, state
from .record import disk_trouble_told, timestamp, write_durably
from .watch import EXITED, REMOVED, Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.task import TaskStatus
    from ..engine import Engine
    from .record import ContainerRecord
    from .state import Task

CONDITIONS = (EXITED, REMOVED)  # that `wait` knows
STOP_TIMEOUT_S_DEFAULT = 10
KILL_WAIT_S_MAX = 10.0  # from SIGKILL to the end of the process
RECORD_WAIT_S_MAX = 10.0  # from the end of the process to its exit record: the monitor empties pipes and logs
RECORD_POLL_S = 0.005
REAPED_WAIT_S_MAX = 2.0
SIGKILL = 9


def watch(engine: Engine, container_id: str, task: Task) -> None:
    """Have the end of a run seen, whether it lies ahead or was missed."""
    assert task.status is not None
    if engine.watcher.watches(container_id, task.status):
        return
    monitor = state.open_monitor(task.status, engine.boot_id)
    init = state.open_init(task.status, engine.boot_id)
    run = Run(container_id, task.status, -1 if monitor is None else monitor, -1 if init is None else init)
    engine.watcher.watch(run)
    directory = engine.records.path(container_id)
    if any(os.path.exists(f"{directory}/{name}") for name in (RESTART_FILE, HEALTH_FILE)):
        engine.notices.watch(container_id, directory)


def look(engine: Engine, container_id: str) -> None:
    """See what a monitor has written meanwhile: a run that ended and is to be followed by another, or that other."""
    task = engine.observe(container_id)
    try:
        record = engine.records.load(container_id)
    except NotFound:
        return
    if task.status is None:
        return
    health.tell_change(engine, record, task)
    ended_before = engine.awaiting.get(container_id)
    if ended_before is not None and ended_before != task.status.started_at:
        del engine.awaiting[container_id]
        events.publish_networks(engine, record, "connect")
        events.publish_container(engine, record, "start")
    if task.state == state.RESTARTING and task.exit is not None and events.died(engine, record, task.exit):
        engine.log.write(f"container {container_id} ended with code {task.exit.exit_code} and is to be restarted")
        engine.awaiting[container_id] = task.status.started_at
        engine.watcher.tell(container_id, EXITED, task.exit.exit_code)


def watch_started(engine: Engine, record: ContainerRecord) -> None:
    """Have the end of a run seen that has just begun, and may be over."""
    task = engine.observe(record.id)  # which watches it when it runs
    if task.state == state.EXITED and task.status is not None:
        watch(engine, record.id, task)


def settle(engine: Engine, run: Run) -> None:
    """Deal with the end of a run: complete the exit record, tell who waits, remove the container if it wants that."""
    directory = engine.records.path(run.container_id)
    try:
        record = engine.records.load(run.container_id)
    except NotFound:
        return
    with engine.locks.hold(run.container_id):  # not while the next start takes what this end gives back
        task = engine.observe(run.container_id)
        if task.is_up or task.status is None:
            return  # there is another run already, which is watched by itself
        if task.status.started_at != run.status.started_at:
            run = Run(run.container_id, task.status, -1, -1)  # the last of a series whose others nobody looked at
        ended = state.read_exit(directory, run.status) or _write_missing(engine, directory, run)
        engine.log.write(f"container {run.container_id} ended with code {ended.exit_code}")
        events.died(engine, record, ended)
        attach.release(engine, run.container_id)
    engine.watcher.tell(run.container_id, EXITED, ended.exit_code)
    engine.boot.consider(run.container_id)
    if record.request.auto_remove and run.container_id not in engine.restarting:
        try:
            removal.discard(engine, record)
        except (NotFound, Conflict):
            return  # somebody was faster, with a removal or a start
        if record.request.remove_image:
            _remove_image(engine, record)


def _remove_image(engine: Engine, record: ContainerRecord) -> None:
    """Remove what a container was made from. An image that another one uses, or that has other names, stays."""
    from ..images.removal import remove

    try:
        remove(engine, record.request.image, force=False, prune=True)
    except (NotFound, Conflict) as wrong:
        engine.log.write(f"image {record.request.image[:100]} stays: {wrong.cause}")


def kill(engine: Engine, reference: str, signal: str) -> None:
    """Send a signal to a container's first process. SIGKILL is waited for, as by docker: what is killed may be removed.

    Raises NotFound, Invalid, Conflict when it does not run, Unavailable when it does not go.
    """
    number = signals.parse(signal or "KILL", f"container {reference[:100]}")
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    state.step(task, "kill", record)
    assert task.status is not None
    if number in (SIGKILL, signals.parse(record.config.stop_signal, record.subject)):
        with disk_trouble_told("kill", record.subject):
            orders.to_stop(engine, record)
    if task.state == state.RESTARTING:
        return
    if number == SIGKILL:
        kill_and_wait(engine, record)
        return
    if not _send(engine, task.status, number):
        state.step(state.Task(state.EXITED), "kill", record)
    events.publish_container(engine, record, "kill", {"signal": str(number)})
    freezing.thaw(engine, record, task.status)


def stop(engine: Engine, reference: str, timeout_s: int | None, signal: str) -> None:
    """Ask the first process to end, and kill it after timeout_s seconds: negative waits for ever, None is the
    container's own time or ten seconds. A container that does not run is left as it is.

    A first process that neither handles nor blocks the signal never sees it (pid_namespaces(7)): waiting would be in
    vain, so it is killed at once. Raises NotFound, Invalid, Unavailable when even SIGKILL does not end it.
    """
    record = engine.records.find(reference)
    number = signals.parse(signal or record.config.stop_signal, record.subject)
    task = engine.observe(record.id)
    state.step(task, "stop", record)
    if not task.is_up:
        return
    if timeout_s is None:
        timeout_s = record.config.stop_timeout_s
    if timeout_s is None:
        timeout_s = STOP_TIMEOUT_S_DEFAULT
    _end_for_good(engine, record, number, float(timeout_s))
    events.publish_container(engine, record, "stop")


def kill_and_wait(engine: Engine, record: ContainerRecord) -> None:
    """End a container by force. Raises Unavailable when the process does not go."""
    _end_for_good(engine, record, SIGKILL, 0.0)


def wait(engine: Engine, reference: str, condition: str, hangup: int) -> int | None:
    """Return the exit code when the container is not running any more (EXITED) or is gone (REMOVED).

    hangup: the client's connection; None is returned when it ends first. Raises NotFound.
    """
    record = engine.records.find(reference)
    waiter = engine.watcher.subscribe(record.id, condition)
    try:
        task = engine.observe(record.id)
        record = engine.records.load(record.id)  # after the look at its state: it was not removed before that
        if condition == EXITED and not task.is_up:
            return removal.exit_code(task, record)
        poll = select.poll()
        poll.register(waiter.fd, select.POLLIN)
        poll.register(hangup, select.POLLRDHUP)
        ready = {fd for fd, _ in poll.poll()}
        return waiter.exit_code if waiter.fd in ready else None
    finally:
        engine.watcher.unsubscribe(waiter)


def _end_for_good(engine: Engine, record: ContainerRecord, number: int, timeout_s: float) -> None:
    """End the run of now, and those that its restart policy would have follow. What is written first holds without us:
    the monitor reads it at the end of the run.
    """
    with disk_trouble_told("stop", record.subject):
        orders.to_stop(engine, record)
    deadline = time.monotonic() + RECORD_WAIT_S_MAX
    while (task := engine.observe(record.id)).is_up and task.status is not None:
        if task.lives:
            _end(engine, record, task.status, number, timeout_s)
        elif time.monotonic() > deadline:
            hint = f"see where it hangs in the kernel: cat /proc/{task.status.monitor_pid}/stack"
            raise Unavailable(
                "stop", record.subject, "its monitor does not call its restart off", hint=hint, code="E1106"
            )
        else:
            time.sleep(RECORD_POLL_S)


def _end(engine: Engine, record: ContainerRecord, status: TaskStatus, number: int, timeout_s: float) -> None:
    init = state.open_init(status, engine.boot_id)
    if init is not None:
        try:
            if number != SIGKILL and reaches(status.pid, number):
                _tell_signal(engine, record, status, init, number)
                ended = state.wait_for(init, timeout_s if timeout_s >= 0 else None)
            else:
                ended = False
            if not ended:
                _tell_signal(engine, record, status, init, SIGKILL)
                if not state.wait_for(init, KILL_WAIT_S_MAX):
                    hint = f"see where it hangs in the kernel: cat /proc/{status.pid}/stack"
                    raise Unavailable(
                        "stop", record.subject, "its process does not end on SIGKILL", hint=hint, code="E1006"
                    )
        finally:
            os.close(init)
    directory = engine.records.path(record.id)
    deadline = time.monotonic() + RECORD_WAIT_S_MAX
    while _runs_still(state.observe(directory, engine.boot_id), status):
        if time.monotonic() > deadline:
            cause = f"its process has ended, but its monitor (process {status.monitor_pid}) does not say so"
            hint = f"see where it hangs in the kernel: cat /proc/{status.monitor_pid}/stack"
            raise Unavailable("stop", record.subject, cause, hint=hint, code="E1106")
        time.sleep(RECORD_POLL_S)
    if (ended_now := state.read_exit(directory, status)) is not None:
        events.died(engine, record, ended_now)  # before whatever the caller tells: its end was first


def _runs_still(task: Task, status: TaskStatus) -> bool:
    return task.state == state.RUNNING and task.status is not None and task.status.started_at == status.started_at


def _tell_signal(engine: Engine, record: ContainerRecord, status: TaskStatus, init: int, number: int) -> None:
    """Send a signal, tell it, and let the container run to see it: v1 holds even a SIGKILL back while it is frozen."""
    if _signal(init, number):
        events.publish_container(engine, record, "kill", {"signal": str(number)})
        freezing.thaw(engine, record, status)


def _send(engine: Engine, status: TaskStatus, number: int) -> bool:
    init = state.open_init(status, engine.boot_id)
    if init is None:
        return False
    try:
        return _signal(init, number)
    finally:
        os.close(init)


def _signal(pidfd: int, number: int) -> bool:
    try:
        process.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def _write_missing(engine: Engine, directory: str, run: Run) -> ExitRecord:
    """Write the exit record that the monitor did not, and return it. It is dead, so the file is ours to write."""
    removal.remove_cgroup(engine, engine.cgroup(run.container_id, run.status).path)
    ended = state.lost(run.status, timestamp())
    if run.init >= 0 and state.wait_for(run.init, KILL_WAIT_S_MAX):
        ended = _with_status(ended, run.init)
    try:
        write_durably(f"{directory}/{EXIT_FILE}", jsonio.dump(ended.to_json()))
    except OSError as wrong:
        engine.log.write(f"the exit record of container {run.container_id} can't be written: {wrong}")
    return ended


def _with_status(ended: ExitRecord, init: int) -> ExitRecord:
    # The status is there once somebody reaped the process, which is not us.
    deadline = time.monotonic() + REAPED_WAIT_S_MAX
    while (status := process.pidfd_exit_status(init)) is None:
        if time.monotonic() > deadline:
            return ended
        time.sleep(0.01)
    number = status & 0x7F
    return ended.replace(exit_code=128 + number if number else status >> 8 & 0xFF, signal=number)
