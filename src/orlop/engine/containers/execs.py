"""One more process in a running container: a directory, a monitor and a cgroup of its own.

    containers/<id>/exec/<exec id>/exec.json       what was asked           (writer: this module)
                                   status.json exit.json                    (writer: the exec's monitor)
    $ORLOP_RUN/tasks/<id>/exec/<exec id>/          where it listens
    the cgroup exec-<exec id> below the container's: who is in it, and how all of it is killed

Its state is computed as a container's is (state.py). Ended execs are forgotten when the next one starts, a while after
their end, or with their container.
"""

from __future__ import annotations

import os
import shutil
import time

from ...linux import process
from ...linux.cgroup import Cgroup
from ...linux.path import read_file
from ...spec import errors, jsonio, signals
from ...spec.container import ExecRequest
from ...spec.errors import Conflict, Invalid, NotFound, Unavailable
from ...spec.runtime import Capabilities, Process, User
from ...spec.task import EXIT_FILE, ExitRecord, StartExec
from ...supervise.attach import connect
from .. import events
from ..compile import config
from ..networks import links
from . import names, state
from .lifecycle import Client
from .record import disk_trouble_told
from .watch import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine
    from .record import ContainerRecord

_EXIT_BYTES_MAX = 64 * 1024
KEPT_AFTER_END_S = 300.0  # docker's time
KEPT_ENDED_MAX = 64
_DIRECTORY = "exec"
_REQUEST_FILE = "exec.json"
_EXIT_OF_OURS = 125
_REQUEST_BYTES_MAX = 8 * 1024 * 1024


def start(engine: Engine, reference: str, request: ExecRequest, client: Client, exec_id: str = "") -> tuple[str, int]:
    """Execute a command in a container; return the exec's id, a new one for "", and the process id.

    User, environment and working directory are the container's unless the request says otherwise.
    Raises NotFound, Conflict when the container does not run, Invalid, CommandFailed (126, 127).
    """
    record = engine.records.find(reference)
    if not request.args:
        raise Invalid(
            "execute a command in", record.subject, "no exec command specified", hint="name a command", code="E0313"
        )
    task = engine.observe(record.id)
    state.step(task, "exec", record)
    assert task.status is not None
    is_new = not exec_id
    exec_id = exec_id or names.new_id()
    message = StartExec(
        id=record.id,
        exec_id=exec_id,
        directory=engine.records.path(record.id),
        runtime_directory=engine.task_directory(record.id),
        pid=task.status.pid,
        pid_start_time=task.status.pid_start_time,
        process=_process(engine, record, request),
        user=request.user or record.config.user,
        groups=record.request.group_add,
        open_stdin=request.open_stdin,
        attached=client.stream is not None,
        ends_with_client=request.ends_with_client,
        console_size=client.size,
    )
    with disk_trouble_told("execute a command in", record.subject):
        directory = _directory(engine, record, exec_id)
        os.makedirs(directory, 0o700, exist_ok=True)
        with open(f"{directory}/{_REQUEST_FILE}", "wb", buffering=0) as file:
            file.write(jsonio.dump(request.to_json()))
        started = engine.spawner.request(message, client.stream)
    actions = ("exec_create", "exec_start") if is_new else ("exec_start",)  # whoever plans one has told of it
    events.exec_told(engine, record, exec_id, request.args, *actions)
    if started.error is not None:
        raise _failed(errors.from_json(started.error))
    watch(engine, record, exec_id)
    _forget_ended(engine, record)
    return exec_id, started.pid


def _failed(wrong: errors.OrlopError) -> errors.OrlopError:
    """Return why an exec was not begun, with docker's status of all that is not a command that is not there: 126."""
    code = wrong.exit_code if wrong.exit_code != _EXIT_OF_OURS else errors.CommandFailed.exit_code
    return errors.CommandFailed(
        wrong.verb, wrong.subject, wrong.cause, hint=wrong.hint, code=wrong.code, exit_code=code
    )


def watch(engine: Engine, record: ContainerRecord, exec_id: str) -> None:
    """Have the end of an exec told, whether it lies ahead or was missed."""
    task = _task(engine, record, exec_id)
    if task.status is None:
        return
    if task.lives and not engine.watcher.watches(record.id, task.status):
        monitor = state.open_monitor(task.status, engine.boot_id)
        engine.watcher.watch(Run(record.id, task.status, -1 if monitor is None else monitor, -1, exec_id))
    elif task.exit is not None:
        events.exec_died(engine, record, exec_id, task.exit)


def settle(engine: Engine, run: Run) -> None:
    """Deal with the end of an exec: tell it."""
    try:
        record = engine.records.load(run.container_id)
    except NotFound:
        return
    task = _task(engine, record, run.exec_id)
    if task.exit is not None:
        events.exec_died(engine, record, run.exec_id, task.exit)


def take_up(engine: Engine, record: ContainerRecord) -> None:
    """Watch the execs that an earlier engine started, and tell the ends that it did not."""
    for exec_id in _listed(f"{engine.records.path(record.id)}/{_DIRECTORY}"):
        watch(engine, record, exec_id)


def running(engine: Engine, record: ContainerRecord) -> list[str]:
    """Return the ids of the execs that have not ended."""
    found = _listed(f"{engine.records.path(record.id)}/{_DIRECTORY}")
    return sorted(exec_id for exec_id in found if _task(engine, record, exec_id).lives)


def listed(engine: Engine, reference: str) -> list[dict[str, object]]:
    """Return docker's object of every exec of a container that runs or ended a while ago, the oldest first.

    Raises NotFound for the container.
    """
    record = engine.records.find(reference)
    found = (_described(engine, record, name) for name in _listed(f"{engine.records.path(record.id)}/{_DIRECTORY}"))
    return sorted((one for one in found if one is not None), key=lambda one: str(one["StartedAt"]))


def inspect(engine: Engine, reference: str) -> dict[str, object]:
    """Return docker's object of one exec. Raises NotFound, Invalid for a beginning of several ids."""
    record, exec_id = find(engine, reference)
    described = _described(engine, record, exec_id)
    if described is None:
        raise _no_such_exec(reference)
    return described


def kill(engine: Engine, reference: str, signal: str) -> None:
    """Send a signal to an exec's process; SIGKILL reaches all that it has started and that still is in its cgroup.

    Raises NotFound, Invalid, Conflict when it has ended, Unavailable.
    """
    number = signals.parse(signal or "KILL", f"exec {reference[:100]}")
    record, exec_id = find(engine, reference)
    task = _task(engine, record, exec_id)
    if not task.lives or task.status is None:
        hint = f"see what runs: orlop exec ls {record.name}"
        raise Conflict("kill", f"exec {reference}", "it is not running", hint=hint, code="E1001")
    pidfd = state.open_init(task.status, engine.boot_id)
    try:
        if pidfd is not None:
            process.pidfd_send_signal(pidfd, number)
        if number == signals.parse("KILL", "") and task.status.cgroup and engine.host.runtime.layout.hierarchies():
            above, _, name = task.status.cgroup.rpartition("/")
            Cgroup(engine.host.runtime.layout, above).leaf(name).kill()
    except ProcessLookupError:
        pass  # it has just ended
    except OSError as wrong:
        raise Unavailable("kill", f"exec {reference}", wrong.strerror or str(wrong)) from None
    finally:
        if pidfd is not None:
            os.close(pidfd)


def find(engine: Engine, reference: str) -> tuple[ContainerRecord, str]:
    """Return the container and the id of an exec that a user means by its id or the beginning of it.

    Raises NotFound, Invalid for a beginning of several ids.
    """
    matches = [
        (record, exec_id)
        for record in engine.records.all()
        for exec_id in _listed(f"{engine.records.path(record.id)}/{_DIRECTORY}")
        if names.is_id_prefix(reference) and exec_id.startswith(reference)
    ]
    if len(matches) > 1:
        cause = f"multiple IDs found with provided prefix: {reference}"
        raise Invalid("find", f"exec {reference}", cause, hint="give more digits of the id", code="E0104")
    if not matches:
        raise _no_such_exec(reference)
    return matches[0]


def attach(engine: Engine, container_id: str, exec_id: str) -> int:
    """Return a connected attach stream of an exec that runs: the caller's to close. Raises NotFound."""
    try:
        return connect(f"{engine.task_directory(container_id)}/{_DIRECTORY}/{exec_id}").detach()
    except OSError:
        cause = f"No such exec instance: {exec_id}"
        raise errors.NotFound("attach to", f"exec {exec_id}", cause, hint="it may have ended just now") from None


def ended(engine: Engine, record: ContainerRecord, exec_id: str) -> ExitRecord | None:
    """Return how an exec ended, None while it runs, and for one that nobody remembers."""
    path = f"{engine.records.path(record.id)}/{_DIRECTORY}/{exec_id}/{EXIT_FILE}"
    try:
        return ExitRecord.from_json(jsonio.parse(read_file(path, _EXIT_BYTES_MAX), path), path)
    except FileNotFoundError:
        return None


def _process(engine: Engine, record: ContainerRecord, request: ExecRequest) -> Process:
    config.check_environment(request.env, record.subject, "execute a command in")
    if request.working_dir and not request.working_dir.startswith("/"):
        cause = f"the working directory '{request.working_dir[:200]}' is invalid, it needs to be an absolute path"
        raise Invalid(
            "execute a command in",
            record.subject,
            cause,
            hint="write it from the container's root: -w /path",
            code="E0204",
        )
    base = engine.records.process(record.id)
    capabilities = base.capabilities if base is not None else None
    if request.privileged:
        everything = engine.host.capabilities
        capabilities = Capabilities(bounding=everything, effective=everything, permitted=everything)
    return Process(
        cwd=os.path.normpath(request.working_dir or record.config.working_dir or "/"),
        terminal=request.terminal,
        env=config.environment(record.config, request.terminal, request.env, links.environment(engine, record)),
        args=request.args,
        user=User(umask=base.user.umask if base is not None else None),
        capabilities=capabilities,
        rlimits=base.rlimits if base is not None else (),
        no_new_privileges=base.no_new_privileges if base is not None and not request.privileged else False,
        apparmor_profile=base.apparmor_profile if base is not None and not request.privileged else "",
    )


def _forget_ended(engine: Engine, record: ContainerRecord) -> None:
    """Remove what is left of execs that ended long ago, and of the oldest when there are many."""
    directory = f"{engine.records.path(record.id)}/{_DIRECTORY}"
    found = ((_end_time(directory, exec_id), exec_id) for exec_id in _listed(directory))
    ended = sorted((end, exec_id) for end, exec_id in found if end is not None)
    for position, (end, exec_id) in enumerate(ended):
        if len(ended) - position <= KEPT_ENDED_MAX and time.time() - end < KEPT_AFTER_END_S:
            break
        shutil.rmtree(f"{engine.task_directory(record.id)}/{_DIRECTORY}/{exec_id}", ignore_errors=True)
        shutil.rmtree(f"{directory}/{exec_id}", ignore_errors=True)


def _directory(engine: Engine, record: ContainerRecord, exec_id: str) -> str:
    return f"{engine.records.path(record.id)}/{_DIRECTORY}/{exec_id}"


def _task(engine: Engine, record: ContainerRecord, exec_id: str) -> state.Task:
    return state.observe(_directory(engine, record, exec_id), engine.boot_id)


def _described(engine: Engine, record: ContainerRecord, exec_id: str) -> dict[str, object] | None:
    """Return docker's object of an exec, None when it has just been forgotten."""
    path = f"{_directory(engine, record, exec_id)}/{_REQUEST_FILE}"
    try:
        data = read_file(path, _REQUEST_BYTES_MAX)
        request = ExecRequest.from_json(jsonio.parse(data, path, bytes_max=_REQUEST_BYTES_MAX), path)
    except (OSError, Invalid):
        return None
    task = _task(engine, record, exec_id)
    return {
        "ID": exec_id,
        "ContainerID": record.id,
        "Running": task.lives,
        "ExitCode": task.exit.exit_code if task.exit is not None else None,
        "Pid": task.status.pid if task.lives and task.status is not None else 0,
        "ProcessConfig": {
            "entrypoint": request.args[0],
            "arguments": list(request.args[1:]),
            "privileged": request.privileged,
            "tty": request.terminal,
            "user": request.user or record.config.user,
        },
        "OpenStdin": request.open_stdin,
        "OpenStdout": True,
        "OpenStderr": True,
        "CanRemove": False,
        "DetachKeys": "",
        "StartedAt": task.status.started_at if task.status is not None else "",
    }


def _no_such_exec(reference: str) -> NotFound:
    shown = reference[:100]
    return NotFound(
        "find", f"exec {shown}", f"No such exec instance: {shown}", hint="list them: orlop exec ls CONTAINER"
    )


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _end_time(directory: str, exec_id: str) -> float | None:
    try:
        return os.stat(f"{directory}/{exec_id}/{EXIT_FILE}").st_mtime
    except OSError:
        return None
