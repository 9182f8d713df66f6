"""The state of a container: computed from what lies on disk and lives in the kernel, never stored.

    status.json (monitor)                       exit.json (monitor)      state
    none                                        none                     created
    none                                        of a failed start        created, and why it does not run
    any                                         of the same run          exited
    of this boot, and its monitor lives         of the same run, with    restarting
                                                the time of the next
    of this boot, and its monitor lives         none, or an older one    running
    of another boot, or its monitor is gone     none, or an older one    exited, code 255: nobody saw the end

A running container whose cgroup is frozen is paused: the kernel knows, nobody else does (`paused`).

Invariants:
1. A run is named by its `started_at`, which both files of one run share: an exit record of an earlier run is history.
2. The monitor writes exit.json before it ends, so "the monitor is gone" is believed only when exit.json is read again
   after it was seen gone.
3. Only the arrows of ARROWS exist; a verb asks `step` before it acts.
"""

import os
import select

from ...linux import path, process
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid
from ...spec.record import Record
from ...spec.task import EXIT_FILE, STATUS_FILE, ExitRecord, TaskStatus
from .record import ContainerRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    R = TypeVar("R", bound=Record)

CREATED, RUNNING, PAUSED, RESTARTING = "created", "running", "paused", "restarting"
EXITED, GONE = "exited", "gone"

EXIT_CODE_LOST = 255
EXIT_LOST = "its monitor ended without writing how the container ended"
_FILE_BYTES_MAX = 64 * 1024

# (state, verb): the state after it, and the function that walks the arrow. Where docker's daemon answers 304, the arrow
# leads back: nothing is done and nothing is wrong.
ARROWS = {
    (CREATED, "start"): RUNNING,  # containers.start
    (EXITED, "start"): RUNNING,  # containers.start
    (RUNNING, "start"): RUNNING,  # 304
    (RUNNING, "exit"): EXITED,  # the monitor; seen by watch.Watcher
    (RUNNING, "kill"): RUNNING,  # containers.kill; an exit may follow
    (RUNNING, "exec"): RUNNING,  # execs.start
    (RUNNING, "attach"): RUNNING,  # containers.attach
    (RUNNING, "stop"): EXITED,  # containers.stop
    (RUNNING, "pause"): PAUSED,  # freezing.pause
    (PAUSED, "unpause"): RUNNING,  # freezing.unpause
    (PAUSED, "kill"): RUNNING,  # ends.kill, which thaws: a signal is seen by who runs
    (PAUSED, "stop"): EXITED,  # ends.stop, which thaws
    (PAUSED, "exit"): EXITED,  # as above
    (RUNNING, "fail"): RESTARTING,  # the monitor: an end that its restart policy answers
    (PAUSED, "fail"): RESTARTING,  # as above
    (RESTARTING, "fail"): RESTARTING,  # the monitor: a restart whose command can't be executed
    (RESTARTING, "again"): RUNNING,  # the monitor, after its pause
    (RESTARTING, "start"): RESTARTING,  # 304: it comes by itself
    (RESTARTING, "kill"): EXITED,  # ends.kill, which calls the restart off when the signal means an end
    (RESTARTING, "stop"): EXITED,  # ends.stop, which calls the restart off
    (RUNNING, "top"): RUNNING,  # processes.top
    (PAUSED, "top"): PAUSED,
    (CREATED, "stop"): CREATED,  # 304
    (EXITED, "stop"): EXITED,  # 304
    (CREATED, "remove"): GONE,  # containers.remove
    (EXITED, "remove"): GONE,  # containers.remove
}

# Why an arrow does not exist, in docker's words, and what to do about it.
_NOT_RUNNING = ("container {id} is not running", "start it with: orlop start {name}")
_UNPAUSE = "let it run on with: orlop unpause {name}"
_REFUSALS = {
    "kill": _NOT_RUNNING,
    "exec": _NOT_RUNNING,
    "pause": _NOT_RUNNING,
    "top": _NOT_RUNNING,
    "unpause": ("Container {id} is not paused", "see its state with: orlop ps -a --filter name={name}"),
    "attach": ("You cannot attach to a stopped container, start it first", "start it with: orlop start {name}"),
    "remove": (
        'cannot remove container "/{name}": container is running: stop the container before removing or force remove',
        "stop it with: orlop stop {name}, or use: orlop rm --force {name}",
    ),
}
_REFUSALS_PAUSED = {
    "start": ("cannot start a paused container, try unpause instead", _UNPAUSE),
    "exec": ("Container {name} is paused, unpause the container before exec", _UNPAUSE),
    "pause": ("Container {id} is already paused", _UNPAUSE),
    "attach": ("You cannot attach to a paused container, unpause it first", _UNPAUSE),
    "remove": (
        'cannot remove container "/{name}": container is paused and must be unpaused first',
        "use: orlop rm --force {name}",
    ),
}
_WAIT = "wait for its restart, or stop it with: orlop stop {name}"
_REFUSALS_RESTARTING = {
    "exec": ("Container {id} is restarting, wait until the container is running", _WAIT),
    "pause": ("Container {id} is restarting, wait until the container is running", _WAIT),
    "attach": ("You cannot attach to a restarting container, wait until it is running", _WAIT),
    "top": ("Container {id} is restarting, wait until the container is running", _WAIT),
    "remove": (
        'cannot remove container "/{name}": container is restarting: stop the container before removing'
        " or force remove",
        "stop it with: orlop stop {name}, or use: orlop rm --force {name}",
    ),
}
_REFUSALS_OF = {PAUSED: _REFUSALS_PAUSED, RESTARTING: _REFUSALS_RESTARTING}
_REFUSAL_CODES = {PAUSED: "E1003", RESTARTING: "E1004"}
_VERBS = {"exec": "execute a command in", "attach": "attach to", "top": "list the processes of"}


class Task:
    """What is known of a container's process now.

    status: of the last run, None before the first. exit: how the last run or start ended, None while it runs.
    """

    __slots__ = ("exit", "state", "status")

    def __init__(self, state: str, status: TaskStatus | None = None, exit: ExitRecord | None = None) -> None:
        self.state = state
        self.status = status
        self.exit = exit

    @property
    def lives(self) -> bool:
        """Whether there is a process now: running, or paused."""
        return self.state in (RUNNING, PAUSED)

    @property
    def is_up(self) -> bool:
        """Whether there is a process now, or its monitor will start one: what docker calls running."""
        return self.lives or self.state == RESTARTING


def observe(directory: str, boot_id: str) -> Task:
    """Return the state of the container whose directory this is. Takes no lock and never waits."""
    status = _read(directory, STATUS_FILE, TaskStatus)
    if status is None:
        return Task(CREATED, None, _read(directory, EXIT_FILE, ExitRecord))
    ended = read_exit(directory, status)
    if ended is None:
        if monitor_lives(status, boot_id):
            return Task(RUNNING, status)
        ended = read_exit(directory, status) or lost(status)  # invariant 2
    if ended.restart_at and monitor_lives(status, boot_id):
        return Task(RESTARTING, status, ended)
    return Task(EXITED, status, ended)


def read_exit(directory: str, status: TaskStatus) -> ExitRecord | None:
    """Return how this run ended, None when nobody has written it."""
    ended = _read(directory, EXIT_FILE, ExitRecord)
    return ended if ended is not None and ended.started_at == status.started_at else None


def step(task: Task, verb: str, record: ContainerRecord) -> str:
    """Return the state after the verb. Raises Conflict when there is no such arrow."""
    after = ARROWS.get((task.state, verb))
    if after is not None:
        return after
    cause, hint = _REFUSALS_OF.get(task.state, {}).get(verb) or _REFUSALS[verb]
    raise Conflict(
        _VERBS.get(verb, verb),
        record.subject,
        cause.format(id=record.id, name=record.name),
        hint=hint.format(id=record.id, name=record.name),
        code=_refusal_code(task, verb),
    )


def _refusal_code(task: Task, verb: str) -> str:
    if task.state in _REFUSAL_CODES and verb in _REFUSALS_OF[task.state]:
        return _REFUSAL_CODES[task.state]
    if verb == "unpause":
        return _REFUSAL_CODES[PAUSED]
    if verb == "attach":
        return "E1005"
    return "E1002" if verb == "remove" else "E1001"


def open_monitor(status: TaskStatus, boot_id: str) -> int | None:
    """Return a pidfd of the monitor, None when it is gone."""
    return _open(status.monitor_pid, status.monitor_start_time, status, boot_id)


def open_init(status: TaskStatus, boot_id: str) -> int | None:
    """Return a pidfd of the container's first process, None when it is gone."""
    return _open(status.pid, status.pid_start_time, status, boot_id)


def monitor_lives(status: TaskStatus, boot_id: str) -> bool:
    """Tell whether the monitor of this run still is: a zombie is not, it has written what it had to write."""
    pidfd = open_monitor(status, boot_id)
    if pidfd is None:
        return False
    try:
        return not wait_for(pidfd, 0)
    finally:
        os.close(pidfd)


def wait_for(pidfd: int, timeout_s: float | None) -> bool:
    """Wait until the process of a pidfd ended, reaped or not; None waits for ever. Tell whether it has."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def lost(status: TaskStatus, finished_at: str = "") -> ExitRecord:
    """Return the record of a run whose end nobody wrote down."""
    return ExitRecord(
        exit_code=EXIT_CODE_LOST,
        started_at=status.started_at,
        finished_at=finished_at or status.started_at,
        error=EXIT_LOST,
    )


def _open(pid: int, start_time: int, status: TaskStatus, boot_id: str) -> int | None:
    # A pid says nothing after a reboot, and after its reuse its start time differs (SEC-36).
    if status.boot_id != boot_id or not pid:
        return None
    try:
        return process.pidfd_of(pid, start_time)
    except ProcessLookupError:
        return None


def _read(directory: str, name: str, shape: "type[R]") -> "R | None":
    """Return a file that a monitor wrote, by rename and so whole; None when it is not there."""
    whole = f"{directory}/{name}"
    try:
        data = path.read_file(whole, _FILE_BYTES_MAX)
        return shape.from_json(jsonio.parse(data, whole, bytes_max=_FILE_BYTES_MAX), whole)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as wrong:
        if wrong.errno not in path.DAMAGED:
            raise
        return None
    except Invalid:
        return None  # damaged: the next source of truth decides
