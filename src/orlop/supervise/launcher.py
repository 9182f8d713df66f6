"""The launcher: a short-lived child of the monitor that does everything only a start needs.

    monitor, a subreaper meanwhile --fork--> launcher --clone3--> init

    launcher -> monitor   the path of the cgroup that it makes next: should it be killed, the monitor removes it
    launcher -> monitor   Handover + descriptors: the process is made, and sets itself up meanwhile
    monitor  -> launcher  READY, or in words why it can't be
    launcher -> monitor   EXECUTED
    launcher -> engine    Started
    launcher exits: the kernel gives its child to the monitor (prctl(2), PR_SET_CHILD_SUBREAPER)

A start that fails ends here: everything is undone, the failure is on disk and told to the engine and to the client, the
launcher exits, and with the end of its socket the monitor does. The end of the monitor fails the start.

A monitor that restarts its container forks another launcher with the same message. Nobody waits for that one, so it
tells a failure to the monitor (Failure), whose record it is.

Why: a monitor stays as long as its container. To read a spec and to compile a plan leaves 2.5 MiB of used pages behind
in a Python process; here they go with the launcher, which costs a start 2 ms.
"""

import os
from _socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

from ..linux import process
from ..spec import attach as frames
from ..spec import jsonio
from ..spec.errors import Conflict, Invalid, OrlopError, Unavailable
from ..spec.task import (
    ATTACH_SOCKET,
    FDS_MAX,
    GO,
    MESSAGE_BYTES_MAX,
    STATUS_FILE,
    ExitRecord,
    Start,
    Started,
    StartExec,
    StartTask,
)
from . import attach, health, packet, record
from .failure import told
from .prepare import Job, rehearse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..runtime.host import HostFacts
    from ..runtime.launch import Created
    from ..spec.task import LogOptions
    from .stdio import Pipes

HANDOVER_BYTES_MAX = 28 * 1024
HANDOVER_FDS_MAX = 8
READY = b"ready"
EXECUTED = b"executed"
EXIT_CODE_FAILED = 125
_CGROUP = b"cgroup\0"
_FAILED = "failed"
_SEPARATOR = "\0"
_TERMINAL, _OPEN_STDIN, _INPUT_ENDS, _ATTACHED, _LEAF, _ENDS, _SHIPS, _REMOVED = "t", "i", "e", "a", "l", "x", "s", "r"


class Inherited:
    """What the spawner looked up once for all its children. title_area: see `process.set_title`."""

    __slots__ = ("facts", "title_area")

    def __init__(self, facts: "HostFacts", title_area: "process.TitleArea | None") -> None:
        self.facts = facts
        self.title_area = title_area


class Handover:
    """What a monitor gets with a process. Not JSON, which would cost every monitor 200 KiB of touched pages.

    Descriptors, in this order: the process's pidfd, the listening socket, the container's or exec's directory, its
    runtime directory, what will be exit.json; then the master of its terminal, or our ends of its standard output,
    standard error and, with `open_stdin`, standard input.
    cgroup: its own, "" for none; is_leaf: of an exec, and what else is in it at the end stays.
    ends_with_client: see StartExec. ships: its log is sent on, by a log shipper.
    own_directory: removed at the end, "" for none. log: None without one.
    attached: the start message's second descriptor is a client. restarts: see TaskStatus.
    removed_at_end, timeout_s: see StartTask. followed: files that are mounted by themselves, encoded (follow.encode).
    """

    __slots__ = (
        "attached",
        "cgroup",
        "ends_with_client",
        "followed",
        "health",
        "input_ends_with_client",
        "is_leaf",
        "log",
        "open_stdin",
        "own_directory",
        "removed_at_end",
        "restarts",
        "ships",
        "started_at",
        "terminal",
        "timeout_s",
        "title",
    )

    def __init__(self, title: str, started_at: str, cgroup: str, own_directory: str) -> None:
        self.title = title
        self.started_at = started_at
        self.cgroup = cgroup
        self.own_directory = own_directory
        self.attached = False
        self.is_leaf = False
        self.ships = False
        self.removed_at_end = False
        self.ends_with_client = False
        self.terminal = False
        self.open_stdin = False
        self.input_ends_with_client = False
        self.restarts = 0
        self.timeout_s = 0
        self.followed = ""
        self.health = ""  # health.Rules, encoded
        self.log: tuple[int, int] | tuple[int, int, int, int, str] | None = None  # what `Log` takes

    def encode(self) -> bytes:
        flags = _TERMINAL * self.terminal + _OPEN_STDIN * self.open_stdin + _INPUT_ENDS * self.input_ends_with_client
        flags += _ATTACHED * self.attached + _LEAF * self.is_leaf + _ENDS * self.ends_with_client
        flags += _SHIPS * self.ships + _REMOVED * self.removed_at_end
        log = "" if self.log is None else " ".join(map(str, self.log))
        own = (self.title, self.started_at, self.cgroup, self.own_directory)
        words = (*own, flags, str(self.restarts), str(self.timeout_s), self.health, log, self.followed)
        return os.fsencode(_SEPARATOR.join(words))

    @classmethod
    def decode(cls, data: bytes) -> "Handover":
        words = os.fsdecode(data).split(_SEPARATOR, 9)
        title, started_at, cgroup, own_directory, flags, restarts, timeout_s, health, log, followed = words
        handover = cls(title, started_at, cgroup, own_directory)
        handover.followed = followed
        handover.attached = _ATTACHED in flags
        handover.is_leaf = _LEAF in flags
        handover.ends_with_client = _ENDS in flags
        handover.ships = _SHIPS in flags
        handover.removed_at_end = _REMOVED in flags
        handover.restarts = int(restarts)
        handover.timeout_s = int(timeout_s)
        handover.health = health
        handover.terminal = _TERMINAL in flags
        handover.open_stdin = _OPEN_STDIN in flags
        handover.input_ends_with_client = _INPUT_ENDS in flags
        if log:
            size, files, compress, budget, attrs = (*log.split(" ", 4), "0", "0", "")[:5]
            handover.log = int(size), int(files), int(compress), int(budget), attrs
        return handover


def cgroup_of(data: bytes) -> str:
    """Return the path in a launcher's first message, "" when it is another one."""
    return data[len(_CGROUP) :].decode() if data.startswith(_CGROUP) else ""


class Failure:
    """What a monitor gets of a restart that failed: docker's exit code and why."""

    __slots__ = ("cause", "exit_code")

    def __init__(self, exit_code: int, cause: str) -> None:
        self.exit_code = exit_code
        self.cause = cause

    def encode(self) -> bytes:
        cause = self.cause[: record.ERROR_CHARACTERS_MAX]
        return _SEPARATOR.join((_FAILED, str(self.exit_code), cause)).encode(errors="replace")

    @classmethod
    def decode(cls, data: bytes) -> "Failure":
        """Return what a launcher said last, or that it said nothing."""
        kind, _, rest = data.decode(errors="replace").partition(_SEPARATOR)
        if kind != _FAILED:
            return cls(EXIT_CODE_FAILED, "its launcher was killed")
        code, _, cause = rest.partition(_SEPARATOR)
        return cls(int(code), cause)


class LetGo(Exception):
    """What was made is not wanted any more."""


class Reply:
    """The engine's ear: takes one message, and one before it where the engine is to say when to go on."""

    __slots__ = ("_socket",)

    def __init__(self, fd: int) -> None:
        """Raises OSError when fd is no socket."""
        self._socket = socket(fileno=fd)

    def wait(self, pid: int) -> None:
        """Say that a process is made, and wait until the engine lets it go on. Raises LetGo."""
        try:
            packet.send(self._socket, jsonio.dump(Started(pid=pid, waits=True).to_json()))
            answer = packet.receive(self._socket, len(GO), 0).data
        except OSError:
            answer = b""
        if answer != GO:
            raise LetGo

    def started(self, pid: int) -> None:
        self._send(Started(pid=pid))

    def failed(self, error: OrlopError) -> None:
        self._send(Started(error=error.to_packet()))

    def _send(self, message: Started) -> None:
        try:
            packet.send(self._socket, jsonio.dump(message.to_json()), flags=MSG_DONTWAIT)
        except OSError:
            pass  # the engine died meanwhile: the next one finds status.json
        self._socket.close()


def main(message: packet.Message, inherited: Inherited, monitor: socket, restarts: int = 0) -> "NoReturn":
    """Be the launcher, in a process just forked by a monitor, which ends here.

    message: a Start, with the reply socket and the other descriptors that belong to it. restarts: how often the monitor
    and those before it started the container again, this time counted; then it comes with the network alone.
    """
    try:
        process.close_all_except({*message.fds, monitor.fileno()})
        if restarts:
            _restart(message, inherited, monitor, restarts)
        else:
            _start(message, inherited, monitor)
    finally:
        os._exit(0)


def spare(inherited: Inherited, monitor: socket) -> "NoReturn":
    """Be a launcher that waits for its message, in a process just forked by a monitor that waits too.

    Until then it goes over what it will do: pages that are written after a fork are copied, one by one.
    """
    try:
        process.close_all_except({monitor.fileno()})
        rehearse(inherited.facts)
        message = packet.receive(monitor, MESSAGE_BYTES_MAX, FDS_MAX)
        if message.fds:
            _start(message, inherited, monitor)
    finally:
        os._exit(0)


def _start(message: packet.Message, inherited: Inherited, monitor: socket) -> None:
    reply = Reply(message.fds[0])
    try:
        wanted = _read(message)
        count = 1 + wanted.attached
        job = _job(wanted, message.fds, count)
        if isinstance(wanted, StartTask) and wanted.waits:
            job.wait = reply.wait
        pid = _launch(job, [socket(fileno=fd) for fd in message.fds[1:count]], inherited, monitor)
    except Exception as failure:
        error = told("start", "a container", failure)
        _ignoring_errors(lambda: packet.send(monitor, Failure(error.exit_code, str(error)).encode()))
        reply.failed(error)
    else:
        reply.started(pid)


def _restart(message: packet.Message, inherited: Inherited, monitor: socket, restarts: int) -> None:
    try:
        job = _job(_read(message), message.fds, 0)
        job.restarts = restarts
        _launch(job, [], inherited, monitor)
    except Exception as failure:
        error = told("start", "a container", failure)
        _ignoring_errors(lambda: packet.send(monitor, Failure(error.exit_code, str(error)).encode()))


def _read(message: packet.Message) -> StartTask | StartExec:
    if message.is_cut:
        raise Invalid(
            "read", "the start message", f"it has more than {MESSAGE_BYTES_MAX} bytes, or too many files", code="E0212"
        )
    start = Start.from_json(jsonio.parse_object(message.data, "the start message"), "the start message")
    wanted = start.task or start.exec
    assert wanted  # Start.check
    return wanted


def _job(wanted: StartTask | StartExec, fds: tuple[int, ...], before: int) -> Job:
    """Return the job of a message. before: how many descriptors stand before those that the monitor keeps."""
    has_network, trees = (wanted.has_network, wanted.trees) if isinstance(wanted, StartTask) else (False, ())
    if len(fds) != before + has_network + len(trees):
        cause = f"{len(fds)} files came with it, {before + has_network + len(trees)} are wanted"
        raise Invalid("read", "the start message", cause)
    lent = dict(zip(trees, fds[before + has_network :], strict=True))
    return Job(wanted, fds[before] if has_network else -1, lent)


def _launch(job: Job, clients: list[socket], inherited: Inherited, monitor: socket) -> int:
    """Start the process and leave it to the monitor; return its pid. Raises OrlopError after undoing everything."""
    process.set_title(f"orlop: launcher {job.name}", inherited.title_area)
    if job.is_first and not record.take(job.directory):
        hint = "see: orlop ps -a"
        raise Conflict(
            job.verb, job.subject, "another start of it is under way, or its monitor lives", hint=hint, code="E1002"
        )
    started_at, exit_fd = record.now(), record.reserve_exit(job.directory)
    created = None
    try:
        created, pipes = job.create(inherited.facts, lambda path: packet.send(monitor, _CGROUP + path.encode()))
        if pipes is None or job.wait:
            created.attend()  # the console comes with that; all else is done meanwhile
        if job.wait:
            job.wait(created.pid)
            started_at = record.now()
        listener = attach.listen(job.runtime_directory)
        own_cgroup = created.cgroup if job.owns_cgroup else created.leaf
        cgroup = own_cgroup.path if own_cgroup else ""
        handover = Handover(f"orlop: monitor {job.name}", started_at, cgroup, job.own_directory)
        handover.attached = job.message.attached
        if isinstance(job.message, StartExec):
            handover.is_leaf, handover.ends_with_client = True, job.message.ends_with_client
        else:
            handover.removed_at_end = job.message.removed_at_end
            handover.timeout_s = job.message.timeout_s
        handover.restarts = job.restarts
        if isinstance(job.message, StartTask) and job.message.health is not None:
            handover.health = health.Rules(job.message.health).encode()
            health.begin(job.directory, started_at)
        handover.terminal = pipes is None
        handover.open_stdin = job.message.open_stdin
        handover.input_ends_with_client = job.input_ends_with_client
        handover.log = _log(job.log) if job.log else None
        handover.followed = job.followed
        handover.ships = job.log is not None and bool(job.log.remote)
        places = [listener.fileno(), job.directory, job.runtime_directory, exit_fd]
        _hand_over(monitor, handover, [created.pidfd, *places, *_ends(created, pipes)])
        # Until then it has the host's files before its eyes: whoever finds a status may enter it.
        created.attend()
        record.write_status(job.directory, created.pid, os.getppid(), started_at, cgroup, job.restarts)
        created.start()
    except BaseException as failure:
        if created:
            created.abort()
        error = told(job.verb, job.subject, failure)
        _leave_nothing(job)
        # A later run of a series has its record from the monitor.
        if job.restarts == job.restarts_before and not isinstance(failure, LetGo):
            _record_failure(job, record.failed(started_at, error.exit_code, str(error)), exit_fd, clients)
        raise error from None
    try:
        packet.send(monitor, EXECUTED)
    except OSError:
        pass  # killed: as if it had been a moment later, the next engine finds a process without a monitor
    return created.pid


def start_shipper(message: bytes, directory: int, started_at: str, pause_s: float, inherited: Inherited) -> int:
    """Fork a process that sends the log on for as long as the caller, the monitor, lives; return its pid.

    message: the start message, as bytes. directory: of the container. started_at: when the monitor began. pause_s:
    before it begins. Raises OSError.
    """
    monitor = os.pidfd_open(os.getpid())
    try:
        pid = os.fork()
    except OSError:
        os.close(monitor)
        raise
    if pid:
        os.close(monitor)
        return pid
    try:
        from . import logship  # in a process of its own, so that monitors do not pay for it

        task = Start.from_json(jsonio.parse_object(message, "the start message"), "the start message").task
        assert task
        process.set_title(f"orlop: log shipper {task.id[:12]}", inherited.title_area)
        logship.main(directory, monitor, started_at, task.log.remote, pause_s)
    finally:
        os._exit(0)


def _log(options: "LogOptions") -> tuple[int, int, int, int, str]:
    attrs = jsonio.dump(options.attrs).decode() if options.attrs else ""
    return options.max_size_bytes, options.max_files, int(options.compress), options.budget_bytes, attrs


def _ends(created: "Created", pipes: "Pipes | None") -> list[int]:
    if pipes is None:
        assert created.console is not None
        return [created.console]
    stdin, stdout, stderr = pipes.ours
    return [stdout, stderr, *([stdin] if stdin >= 0 else [])]


def _hand_over(monitor: socket, handover: Handover, fds: list[int]) -> None:
    """Give the process to the monitor and wait until that is ready for it. Raises OSError, Unavailable."""
    packet.send(monitor, handover.encode(), fds)
    answer = packet.receive(monitor, HANDOVER_BYTES_MAX, 0).data
    if answer != READY:
        cause = answer.decode(errors="replace") or "its monitor was killed"
        raise Unavailable("start", "a process", cause, hint="is the machine out of memory or descriptors?")


def _leave_nothing(job: Job) -> None:
    _ignoring_errors(lambda: record.unlink(job.runtime_directory, ATTACH_SOCKET))
    _ignoring_errors(job.remove_own_directory)


def _record_failure(job: Job, ended: ExitRecord, exit_fd: int, clients: list[socket]) -> None:
    """Say on disk and to the client that the command was never executed. Raises nothing."""
    # The status of an earlier run would make this record one of that run's past.
    _ignoring_errors(lambda: record.unlink(job.directory, STATUS_FILE))
    _ignoring_errors(lambda: record.write_exit(job.directory, exit_fd, ended))
    frame = frames.frame(frames.EXIT, jsonio.dump(ended.to_json()))
    for client in clients:
        _ignoring_errors(lambda client=client: client.send(frame, MSG_DONTWAIT | MSG_NOSIGNAL))  # type: ignore[misc]


def _ignoring_errors(step: "Callable[[], object]") -> None:
    try:
        step()
    except OSError:
        pass
