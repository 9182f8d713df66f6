"""One more process in a running container. Its record is its monitor's, in a directory of its own:

    containers/<id>/exec/<exec id>/exit.json       written by the exec's monitor
    $ORLOP_RUN/tasks/<id>/exec/<exec id>/          where it listens

Ended execs are forgotten when the next one starts, a while after their end, or with their container.
"""

from __future__ import annotations

import os
import shutil
import time

from ...spec import errors, jsonio
from ...spec.errors import Invalid
from ...spec.runtime import Capabilities, Process, Spec
from ...spec.task import EXIT_FILE, SPEC_FILE, ExitRecord, StartExec
from ...supervise.attach import connect
from ..compile import config
from . import names, state
from .lifecycle import Client
from .record import disk_trouble_told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ExecRequest
    from ..engine import Engine
    from .record import ContainerRecord

SPEC_BYTES_MAX = 8 * 1024 * 1024
KEPT_AFTER_END_S = 300.0  # docker's time
KEPT_ENDED_MAX = 64
_DIRECTORY = "exec"


def start(engine: Engine, reference: str, request: ExecRequest, client: Client, exec_id: str = "") -> tuple[str, int]:
    """Execute a command in a container; return the exec's id, a new one for "", and the process id.

    User, environment and working directory are the container's unless the request says otherwise.
    Raises NotFound, Conflict when the container does not run, Invalid, CommandFailed (126, 127).
    """
    record = engine.records.find(reference)
    if not request.args or not request.args[0]:
        raise Invalid("execute a command in", record.subject, "no exec command specified", hint="name a command")
    task = engine.observe(record.id)
    state.step(task, "exec", record)
    assert task.status is not None
    _forget_ended(engine, record)
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
        console_size=client.size,
    )
    with disk_trouble_told("execute a command in", record.subject):
        started = engine.spawner.request(message, client.stream)
    if started.error is not None:
        raise errors.from_json(started.error)
    return exec_id, started.pid


def running(engine: Engine, record: ContainerRecord) -> list[str]:
    """Return the ids of the execs that have not ended."""
    directory = f"{engine.records.path(record.id)}/{_DIRECTORY}"
    return sorted(exec_id for exec_id in _listed(directory) if _end_time(directory, exec_id) is None)


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
        with open(path, "rb", buffering=0) as file:
            return ExitRecord.from_json(jsonio.parse(file.read(SPEC_BYTES_MAX), path), path)
    except FileNotFoundError:
        return None


def read_spec(engine: Engine, record: ContainerRecord) -> Spec:
    """Return the stored OCI spec of a container. Raises Internal, Invalid for a damaged one."""
    path = f"{engine.records.path(record.id)}/{SPEC_FILE}"
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(SPEC_BYTES_MAX + 1)
    except OSError as wrong:
        raise errors.Internal("read", path, wrong.strerror or str(wrong)) from None
    return Spec.from_json(jsonio.parse(data, path, bytes_max=SPEC_BYTES_MAX), path)


def _process(engine: Engine, record: ContainerRecord, request: ExecRequest) -> Process:
    config.check_environment(request.env, record.subject, "execute a command in")
    if request.working_dir and not request.working_dir.startswith("/"):
        cause = f"the working directory '{request.working_dir[:200]}' is invalid, it needs to be an absolute path"
        raise Invalid(
            "execute a command in", record.subject, cause, hint="write it from the container's root: -w /path"
        )
    base = read_spec(engine, record).process
    capabilities = base.capabilities if base is not None else None
    if request.privileged:
        everything = engine.host.capabilities
        capabilities = Capabilities(bounding=everything, effective=everything, permitted=everything)
    return Process(
        cwd=os.path.normpath(request.working_dir or record.config.working_dir or "/"),
        terminal=request.terminal,
        env=config.environment(record.config, request.terminal, request.env),
        args=request.args,
        capabilities=capabilities,
        no_new_privileges=base.no_new_privileges if base is not None and not request.privileged else False,
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
