"""A monitor: the parent of one process, from the fork to the exit record.

The story, top down, in `_supervise`: make the process, tell the engine, carry bytes until it ends, tell how it ended.

Invariants:
1. The monitor needs nobody: not the engine, not the spawner, no client. Only SIGKILL ends it before its process ends.
2. The engine hears exactly one `Started`, or sees the reply socket close.
3. A run ends with one exit record, a failed start too, and before the monitor's own end; then nothing of the run is
   left: no process, no cgroup, no listening socket. Whoever holds a pidfd of the monitor may wait for that.
4. What the process wrote is in the log before the exit record is written.
5. Nothing is imported after the fork, and nothing wakes up while nothing happens.

It is no subreaper: the process's orphans go to the init of its pid namespace, and where it shares the host's, they are
in its cgroup, which is killed at the end.
"""

import os
import select
import time
from _socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

from ..linux import process, signals
from ..runtime.init import trace_of
from ..spec import attach, jsonio
from ..spec.errors import Internal, Invalid, OrlopError, Unavailable
from ..spec.task import ATTACH_SOCKET, MESSAGE_BYTES_MAX, ExitRecord, Start, Started, StartTask
from .attach import Clients
from .loop import READ, Loop
from .prepare import Job
from .record import Run, unlink
from .stdio import Input, Output, Pipes, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    from ..linux.cgroup import Cgroup
    from ..runtime.launch import Created

    T = TypeVar("T")

DRAIN_S_MAX = 1.0  # for writers that outlive the process: outside of its pid namespace and its cgroup
LINGER_S_MAX = 600.0  # for a client that takes nothing at all of its last output (a pager that nobody reads)
DEFECTS_MAX = 16
OOM_SCORE_ADJ = -998  # as docker's shim: the kernel takes the container, not the one who tells of it


def main(data: bytes, fds: list[int], is_cut: bool) -> "NoReturn":
    """Be the monitor that a message asks for; in a process just forked, which ends here.

    data: a Start message; is_cut: it or its descriptors did not arrive whole. fds: owned from now on.
    """
    try:
        _settle(fds)
        if fds:
            _run(Reply(fds[0]), data, fds[1:], is_cut)
    finally:
        os._exit(0)


class Reply:
    """The engine's ear: takes one message."""

    __slots__ = ("_socket",)

    def __init__(self, fd: int) -> None:
        """Raises OSError when fd is no socket."""
        self._socket = socket(fileno=fd)

    def started(self, pid: int) -> None:
        self._send(Started(pid=pid))

    def failed(self, error: OrlopError) -> None:
        self._send(Started(error=error.to_json()))

    def _send(self, message: Started) -> None:
        data = jsonio.dump(message.to_json())
        try:
            self._socket.send(data, MSG_DONTWAIT | MSG_NOSIGNAL)
        except OSError:
            pass  # the engine died meanwhile: the next one finds status.json
        self._socket.close()


class Monitor:
    """One process that runs: its streams, its clients, its log. What clients do comes in here (attach.Process)."""

    def __init__(self, job: Job, created: "Created", pipes: Pipes | None) -> None:
        """Take over the descriptors of a process that was created. Raises OSError."""
        self._loop = Loop()
        self._pidfd = created.pidfd
        self._log = job.log
        self._input_ends_with_client = job.input_ends_with_client
        self._exited = False
        self._terminal: Terminal | None = None
        if pipes is None:
            assert created.console is not None
            self._terminal = Terminal(created.console)
            stdin = self._terminal.input() if job.message.open_stdin else -1
            ends = [(attach.STDOUT, created.console)]
        else:
            pipes.close_theirs()
            stdin, stdout, stderr = pipes.ours
            ends = [(attach.STDOUT, stdout), (attach.STDERR, stderr)]
        self._input = Input(self._loop, stdin)
        self._outputs = [Output(self._loop, fd, stream, self._emit) for stream, fd in ends]
        self.clients = Clients(self._loop, self, self._resume)
        self.defects: list[str] = []

    def carry(self) -> None:
        """Carry bytes until the process ends."""
        self._loop.watch(self._pidfd, READ, self._note_exit)
        self._resume()
        while not self._exited:
            try:
                self._loop.turn()
            except Exception as defect:
                self._survive(defect)

    def drain(self) -> None:
        """Pass on what the process left in its pipes. Waits a bounded time for writers that outlive it."""
        if self._terminal:
            self._terminal.release()
        self._input.close()
        deadline = time.monotonic() + DRAIN_S_MAX
        while unfinished := [output for output in self._outputs if not output.drain()]:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            poll = select.poll()
            for output in unfinished:
                poll.register(output.fd, select.POLLIN)
            poll.poll(left_s * 1000)
        for output in self._outputs:
            output.close()

    def linger(self) -> None:
        """Give clients their last bytes, as long as they go on taking some."""
        deadline, left = time.monotonic() + LINGER_S_MAX, self.clients.queued()
        while left and time.monotonic() < deadline:
            self._loop.turn(deadline - time.monotonic())
            if self.clients.queued() < left:
                deadline = time.monotonic() + LINGER_S_MAX
            left = self.clients.queued()

    # -- what clients do --------------------------------------------------------------------------------------------

    def write(self, data: bytes, taken: "Callable[[int], None]") -> None:
        self._input.write(data, taken)

    def end_input(self) -> None:
        # A terminal has no end of input: what a user types there is a character (docker keeps it open too).
        if self._input_ends_with_client and not self._terminal:
            self._input.finish()

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal and not self._exited:
            self._terminal.resize(rows, columns)

    def signal(self, number: int) -> None:
        if not self._exited:
            try:
                process.pidfd_send_signal(self._pidfd, number)
            except OSError:
                pass  # ESRCH: it has just ended. EINVAL: a number that this machine does not have.

    # -- what the process does --------------------------------------------------------------------------------------

    def _emit(self, stream: int, data: bytes) -> None:
        if self._log:
            self._log.write(stream, data)
        if not self.clients.broadcast(stream, data):
            for output in self._outputs:
                output.pause()

    def _resume(self) -> None:
        if not self._exited:
            for output in self._outputs:
                output.resume()

    def _note_exit(self, _events: int) -> None:
        self._exited = True
        self._loop.unwatch(self._pidfd)

    def _survive(self, defect: Exception) -> None:
        """A defect of ours is told at the end. The process runs on, without clients; a monitor that spins ends it."""
        self.defects.append(f"{defect!r} {trace_of(defect)}")
        self.clients.close()
        if len(self.defects) > DEFECTS_MAX:
            self.signal(signals.SIGKILL)
            for output in self._outputs:
                output.pause()


def _settle(fds: list[int]) -> None:
    """Leave the spawner: a session of our own, nothing open but what came for us, deaf to signals."""
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)  # ignored in the spawner; here it would reap our child for us
    signals.pthread_sigmask(signals.SIG_SETMASK, signals.valid_signals())
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    process.close_all_except(set(fds))
    os.chdir("/")
    process.set_name("orlop-monitor")


def _run(reply: Reply, data: bytes, fds: list[int], is_cut: bool) -> None:
    try:
        if is_cut:
            raise Invalid("read", "the start message", f"it is larger than {MESSAGE_BYTES_MAX} bytes or has more files")
        message = Start.from_json(jsonio.parse_object(data, "the start message"), "the start message")
        job = Job(message.task or message.exec)  # type: ignore[arg-type]  # Start.check: one of them is there
        if len(fds) != job.message.attached:
            raise Invalid("read", "the start message", f"{len(fds) + 1} files came with it")
        clients = [socket(fileno=fd) for fd in fds]
        run = Run(job.directory)
    except Exception as failure:
        reply.failed(_told("start", "the container", failure))
        return
    process.set_title(job.title)
    _supervise(job, run, reply, clients)


def _supervise(job: Job, run: Run, reply: Reply, clients: list[socket]) -> None:
    try:
        created, monitor = _start(job, run, clients)
    except Exception as failure:
        error = _told(job.verb, job.subject, failure)
        _end_failed_start(job, run, error, clients)
        reply.failed(error)
        return
    reply.started(created.pid)
    _spare_from_oom()
    monitor.carry()
    ended = _finish(job, run, created, monitor)
    monitor.clients.broadcast(attach.EXIT, jsonio.dump(ended.to_json()))
    os.fsync(job.directory)
    # Whoever waits for the monitor waits for the end of the run, not for the slowest reader of its output.
    if monitor.clients.queued() and os.fork() == 0:
        process.set_title(f"{job.title} (last output)")
        os.close(job.directory)
        os.close(job.runtime_directory)
        monitor.linger()


def _start(job: Job, run: Run, clients: list[socket]) -> "tuple[Created, Monitor]":
    created, pipes = job.create()
    try:
        monitor = Monitor(job, created, pipes)
        for client in clients:
            monitor.clients.add(client)
        monitor.clients.listen(job.runtime_directory)
        run.write_status(created.pid, created.cgroup.path if created.cgroup else "")
        created.start()
    except BaseException:
        created.abort()
        raise
    return created, monitor


def _end_failed_start(job: Job, run: Run, error: OrlopError, clients: list[socket]) -> None:
    ended = run.failed(error.exit_code, str(error))
    _attempt([], lambda: unlink(job.runtime_directory, ATTACH_SOCKET))
    _attempt([], lambda: run.write_failed_start(ended))
    frame = attach.frame(attach.EXIT, jsonio.dump(ended.to_json()))
    for client in clients:
        _attempt([], lambda client=client: client.send(frame, MSG_DONTWAIT | MSG_NOSIGNAL))  # type: ignore[misc]


def _finish(job: Job, run: Run, created: "Created", monitor: Monitor) -> ExitRecord:
    """The process has ended: gather what is left of it, leave nothing, say how it ended."""
    wait_status = process.wait_pidfd(created.pidfd)
    cgroup = created.cgroup if isinstance(job.message, StartTask) else None  # an exec lives in the container's
    notes = monitor.defects
    oom_killed = bool(cgroup and _attempt(notes, lambda: _end_members(cgroup)))
    _attempt(notes, monitor.drain)
    _attempt(notes, monitor.clients.stop_listening)
    if job.log:
        _attempt(notes, job.log.finish)
    if cgroup:
        _attempt(notes, cgroup.remove)
    _attempt(notes, job.remove_own_directory)
    ended = run.ended(wait_status, oom_killed, "; ".join(notes))
    _attempt(notes, lambda: run.write_exit(ended))
    return ended


def _attempt(notes: list[str], step: "Callable[[], T]") -> "T | None":
    """Take a step of the end; what goes wrong is noted and does not keep the others from their turn."""
    try:
        return step()
    except Exception as failure:
        notes.append(str(_told("clean up after", "the process", failure)))
        return None


def _end_members(cgroup: "Cgroup") -> bool:
    """Kill what the process left in its cgroup; return whether the OOM killer had been there."""
    events = cgroup.events()
    if events.populated:
        cgroup.kill()
    return events.oom_kills > 0


def _spare_from_oom() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError:
        pass  # lowering it takes CAP_SYS_RESOURCE


def _told(verb: str, subject: str, failure: Exception) -> OrlopError:
    """Return a failure as the error that it is, or makes."""
    if isinstance(failure, OrlopError):
        return failure
    if isinstance(failure, OSError):
        where = f" ({failure.filename})" if failure.filename else ""
        return Unavailable(verb, subject, f"{failure.strerror or failure}{where}")
    return Internal(verb, subject, f"{failure!r} at {trace_of(failure)}", hint="please report this defect")
