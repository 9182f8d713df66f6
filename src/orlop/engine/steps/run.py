"""One command of a build, in a container that no list shows.

It has a directory below containers/ and no container.json: nobody who looks for containers finds it, and the next
engine sweeps it, with its process, like any creation that was cut short. Its monitor keeps no log: the output goes to
whoever runs the step. The isolation is that of `orlop run`: the same compiler makes the same spec.
"""

from __future__ import annotations

import functools
import os
import select
import shutil
import socket
import threading
from contextlib import ExitStack

from ...linux import process, signals
from ...linux.cgroup import Cgroup
from ...spec import attach as frames
from ...spec import errors, jsonio
from ...spec.container import ContainerRequest
from ...spec.errors import Unavailable
from ...spec.task import SPEC_FILE, ExitRecord, LogOptions, StartTask
from .. import compile, host
from ..compile import resources
from ..compile.mounts import DEFAULTS, FILES
from ..containers import files, names, removal, state
from ..containers.record import Config, ContainerRecord, disk_trouble_told, timestamp
from ..networks import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.runtime import Box, Mount, Spec
    from ..containers.lifecycle import Client
    from ..engine import Engine
    from .later import Later
    from .workspace import Workspace

    Output = Callable[[int, bytes], None]

HOSTNAME = "buildkitsandbox"  # a name that is the same in every build, and that Dockerfiles know
MONITOR_S_MAX = 30.0  # from the exit frame to the monitor's end
READ_BYTES = 256 * 1024


class Command:
    """What a step executes. env: "NAME=value". request: limits, network and security, as for `run`.

    mounts: of the OCI spec, beside those that every container has.
    """

    def __init__(self, argv: tuple[str, ...], env: tuple[str, ...] = (), cwd: str = "/", user: str = "") -> None:
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.user = user
        self.request = ContainerRequest()
        self.mounts: tuple[Mount, ...] = ()


def run(
    engine: Engine,
    workspace: Workspace,
    command: Command,
    output: Output,
    cancelled: int,
    later: Later | None = None,
) -> int:
    """Run a command in a workspace and return its exit status, 128 + N for signal N.

    What was asked for by name and only root may give is told in its output, as `run` warns.
    output: called with frames.STDOUT or STDERR and the bytes. cancelled: an eventfd or a pipe; when it is readable the
    command is killed. later: gets what is left to do once every process of the step has ended, and begins with what it
    has of others while this one starts. Raises CommandFailed when it can't be executed, Unavailable.
    """
    for told in resources.rlimit_warnings(command.request, engine.host):
        output(frames.STDERR, f"WARNING: {told}\n".encode())
    ours, theirs = socket.socketpair()
    with ours:
        try:
            record = _start(engine, workspace, command, theirs.fileno(), later=later)
        finally:
            theirs.close()
        try:
            code = _follow(ours, output, cancelled)
        except BaseException:
            _end(engine, record)
            raise
    if later is None or code == state.EXIT_CODE_LOST:
        _end(engine, record)  # where the monitor is lost, its command may run still
    else:
        later.put(functools.partial(_end, engine, record))
    return code


def start_attached(
    engine: Engine, workspace: Workspace, command: Command, client: Client, at_end: Callable[[], None]
) -> None:
    """Start a command whose streams are a client's. When it has ended, at_end is called, on a thread of its own.

    Raises CommandFailed when it can't be executed, Unavailable.
    """
    assert client.stream is not None
    record = _start(engine, workspace, command, client.stream, client.size)

    def wait() -> None:
        try:
            task = state.observe(engine.records.path(record.id), engine.boot_id)
            monitor = state.open_monitor(task.status, engine.boot_id) if task.status is not None else None
            if monitor is not None:
                try:
                    state.wait_for(monitor, None)
                finally:
                    os.close(monitor)
            _end(engine, record)
        finally:
            at_end()

    threading.Thread(target=wait, name="step's end", daemon=True).start()


def targets(command: Command) -> tuple[str, ...]:
    """Return where something is mounted while the command runs: stubs may lie there afterwards."""
    return (*FILES, *(mount.destination for mount in DEFAULTS), *(mount.destination for mount in command.mounts))


def _start(
    engine: Engine,
    workspace: Workspace,
    command: Command,
    stream: int,
    size: Box | None = None,
    later: Later | None = None,
) -> ContainerRecord:
    # Its own id, where the tree is called otherwise: that of a step that failed.
    step_id = workspace.key if names.is_id(workspace.key) else names.new_id()
    hostname, request = command.request.hostname or HOSTNAME, command.request
    if request.network == attach.NONE:  # no address has its name: programs ask who they are
        request = request.replace(extra_hosts=(*request.extra_hosts, f"{hostname}:127.0.0.1"))
    record = ContainerRecord(
        id=step_id,
        name=f"step_{step_id[:12]}",
        created_at=timestamp(),
        request=request,
        config=Config(
            cmd=command.argv,
            env=command.env,
            user=command.user,
            working_dir=command.cwd,
            hostname=hostname,
        ),
    )
    directory, runtime_directory = engine.records.path(record.id), engine.task_directory(record.id)
    with ExitStack() as undo, disk_trouble_told("start", "a step"):
        undo.callback(_remove_directories, engine, record)
        undo.callback(removal.remove_cgroup, engine, record.cgroup)  # a monitor that was killed leaves it
        os.mkdir(directory, 0o700)
        os.mkdir(runtime_directory, 0o700)
        devices = host.devices(record.request, record.subject)
        compiled = compile.container(record, directory, engine.host, devices)
        assert compiled.spec.process is not None
        engine.profiles.ensure(compiled.spec.process.apparmor_profile, record.subject)
        with open(f"{directory}/{SPEC_FILE}", "xb") as file:
            file.write(jsonio.dump(_with_mounts(compiled.spec, command).to_json()))
        with attach.prepare(engine, record) as joined:
            undo.callback(attach.release, engine, record.id)
            files.write(engine, record, joined.attachment)
            message = StartTask(
                id=record.id,
                directory=directory,
                runtime_directory=runtime_directory,
                rootfs=engine.snapshots.mounts(workspace.key),
                user=record.config.user,
                open_stdin=record.request.open_stdin,
                stdin_once=record.request.open_stdin,
                attached=True,
                console_size=size,
                has_network=joined.fd >= 0,
                log=LogOptions(driver="none"),
                removed_at_end=True,
            )
            if later is not None:
                later.begin()
            started = engine.spawner.request(message, stream, joined.fd if joined.fd >= 0 else None)
            if started.error is not None:
                raise errors.from_json(started.error)
            joined.started()
        undo.pop_all()
    return record


def _with_mounts(spec: Spec, command: Command) -> Spec:
    """Return the spec with the step's own mounts, parents first; one at a default one's place replaces it."""
    taken = {mount.destination for mount in command.mounts}
    kept = (mount for mount in spec.mounts if mount.destination not in taken)
    return spec.replace(mounts=(*kept, *sorted(command.mounts, key=lambda mount: mount.destination.count("/"))))


def _follow(stream: socket.socket, output: Output, cancelled: int) -> int:
    decoder = frames.Decoder()
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    poll.register(cancelled, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if cancelled in ready:
            raise Unavailable("run", "a step", "the build was cancelled")
        data = stream.recv(READ_BYTES)
        if not data:
            return state.EXIT_CODE_LOST  # its monitor was killed
        for kind, payload in decoder.feed(data):
            if kind in (frames.STDOUT, frames.STDERR):
                output(kind, payload)
            elif kind == frames.EXIT:
                ended = ExitRecord.from_json(jsonio.parse_object(payload, "the end of a step"))
                if ended.oom_killed:
                    output(frames.STDERR, b"the kernel killed a process of this step: it was out of memory\n")
                return ended.exit_code


def _end(engine: Engine, record: ContainerRecord) -> None:
    """Give back all but the workspace. What still runs is killed."""
    task = state.observe(engine.records.path(record.id), engine.boot_id)
    if task.status is not None and (monitor := state.open_monitor(task.status, engine.boot_id)) is not None:
        try:
            if task.lives and engine.host.runtime.layout.hierarchies():
                Cgroup(engine.host.runtime.layout, record.cgroup).kill()
            elif task.lives and (init := state.open_init(task.status, engine.boot_id)) is not None:
                process.pidfd_send_signal(init, signals.SIGKILL)  # and with it all of its PID namespace
                os.close(init)
            state.wait_for(monitor, MONITOR_S_MAX)
        finally:
            os.close(monitor)
    attach.release(engine, record.id)
    removal.remove_cgroup(engine, record.cgroup)  # there is none, unless the monitor was killed
    _remove_directories(engine, record)


def _remove_directories(engine: Engine, record: ContainerRecord) -> None:
    shutil.rmtree(engine.task_directory(record.id), ignore_errors=True)
    shutil.rmtree(engine.records.path(record.id), ignore_errors=True)
