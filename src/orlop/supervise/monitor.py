"""A monitor: the parent of one process, from the fork to the exit record.

The story, top down, in `_run`: have the process made, take it over, carry bytes until it ends, say how it ended.

Invariants:
1. The monitor needs nobody: not the engine, not the spawner, no client. Only SIGKILL ends it before its process ends.
2. A run ends with one exit record, a failed start too, and before the monitor's own end or the next run; then nothing
   of the run is left: no process, no cgroup, no listening socket. The record says whether another run follows: if not,
   the monitor ends, and whoever holds a pidfd of it may wait for that.
3. What the process wrote is in the log before the exit record is written.
4. Nothing is imported after the fork, and nothing wakes up while nothing happens.
5. It stays small: what only a start needs is done by its launcher.
6. With a restart policy it lives through all runs of its container, one after the other (restart.py). It keeps the
   start message and the network namespace that came with it for the next one.

After its launcher's end it is no subreaper: the process's orphans go to the init of its pid namespace, and where it
shares the host's, they are in its cgroup, which is killed at the end.
"""

import os
import select
import time
from _socket import socket

from ..linux import process, signals
from ..linux.cgroup import Cgroup
from ..spec import attach, jsonio
from ..spec.task import FDS_MAX, HEALTH_CHECK, MESSAGE_BYTES_MAX, TIMEOUT, ExitRecord
from . import follow, health, launcher, packet, record, restart
from .attach import Clients
from .failure import told
from .launcher import EXECUTED, HANDOVER_BYTES_MAX, HANDOVER_FDS_MAX, READY, Failure, Handover, Inherited
from .log import Log
from .loop import READ, Loop
from .stdio import Input, Output, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    T = TypeVar("T")

DRAIN_S_MAX = 1.0  # for writers that outlive the process: outside of its pid namespace and its cgroup
LINGER_S_MAX = 600.0  # for a client that takes nothing at all of its last output (a pager that nobody reads)
LEAF_WAIT_S = 2.0  # for what is left in an exec's cgroup
DEFECTS_MAX = 16
EXIT_CODE_LATE = 255  # conmon's, for `podman run --timeout`
SHIPPER_STEADY_S = 10.0
SHIPPER_PAUSE_S_MAX = 60.0
OOM_SCORE_ADJ = b"-998"  # as docker's shim: the kernel takes the container, not the one who tells of it


def main(message: packet.Message, inherited: Inherited) -> "NoReturn":
    """Be the monitor that a message asks for; in a process just forked, which ends here.

    message: a Start, with the engine's reply socket and the first client; its descriptors are owned from now on.
    """
    try:
        _begin()
        if message.fds:
            _run(message, inherited)
    finally:
        os._exit(0)


def spare(spawner: socket, inherited: Inherited) -> "NoReturn":
    """Be a monitor that waits for its message, with a launcher that waits for it too; in a process just forked.

    spawner: what the message comes on; its end is the end of both.
    """
    try:
        _begin()
        process.set_title("orlop: spare monitor", inherited.title_area)
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        ours, theirs = packet.pair()
        child = os.fork()
        if child == 0:
            launcher.spare(inherited, theirs)
        theirs.close()
        message = packet.receive(spawner, MESSAGE_BYTES_MAX, FDS_MAX)
        spawner.close()
        if message.fds:
            _run(message, inherited, Waiting(child, ours))
    finally:
        os._exit(0)


def _begin() -> None:
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)  # ignored in the spawner; it would reap our child for us
    os.setsid()
    os.dup2(1, 2)  # /dev/null: a monitor does not hold its engine's terminal


class Waiting:
    """A launcher that waits for its message: its pid, and our end of the socket between us."""

    __slots__ = ("pid", "socket")

    def __init__(self, pid: int, ours: socket) -> None:
        self.pid = pid
        self.socket = ours


class Monitor:
    """One process that runs: its streams, its clients, its log. What clients do comes in here (attach.Process)."""

    def __init__(self, handover: Handover, fds: tuple[int, ...], clients: list[socket]) -> None:
        """Take over a process and its descriptors. Raises OSError."""
        self.pidfd, listener, self.directory, self.runtime_directory, self.exit_fd, *streams = fds
        self.handover = handover
        self.began = time.monotonic()
        self.checks: health.Checks | None = None
        self.files: follow.Files | None = None
        self.shipping: Shipping | None = None
        self.defects: list[str] = []
        self.is_late = False  # its time was up
        self.log = Log(self.directory, *handover.log) if handover.log else None
        self._loop = Loop()
        self._exited = False
        self._launcher: tuple[int, int] | None = None  # its pid and pidfd, until it is reaped
        self.leaf: Cgroup | None = None  # of an exec
        self._terminal: Terminal | None = None
        stdin = streams.pop() if handover.open_stdin and not handover.terminal else -1
        if handover.terminal:
            self._terminal = Terminal(streams[0])
            stdin = self._terminal.input() if handover.open_stdin else -1
        self._input = Input(self._loop, stdin)
        self._outputs = [
            Output(self._loop, fd, stream, self._emit)
            for stream, fd in zip((attach.STDOUT, attach.STDERR), streams, strict=False)
        ]
        self.clients = Clients(self._loop, self, self._resume)
        for client in clients:
            self.clients.add(client)
        self.clients.accept_on(socket(fileno=listener), self.runtime_directory)

    def await_launcher(self, pid: int) -> None:
        """Have the launcher reaped when it has ended: that may take longer than the process that it made."""
        pidfd = os.pidfd_open(pid)
        self._launcher = pid, pidfd
        self._loop.watch(pidfd, READ, lambda _: self.reap_launcher())

    def reap_launcher(self) -> None:
        """Wait for the launcher's end: from then on the process is our child. Idempotent."""
        if self._launcher is not None:
            (pid, pidfd), self._launcher = self._launcher, None
            _reap(pid)
            self._loop.unwatch(pidfd)
            os.close(pidfd)

    def carry(self) -> None:
        """Carry bytes until the process ends.

        A defect of ours costs the clients their connections and is told in the exit record; a monitor that does
        nothing but fail ends its process too.
        """
        self._loop.watch(self.pidfd, READ, self._note_exit)
        self._resume()
        while not self._exited and len(self.defects) < DEFECTS_MAX:
            try:
                self._loop.turn(self._pause_s())
                if self.checks:
                    self.checks.tick()
            except Exception as defect:
                self.defects.append(str(told("carry", "the container's output", defect)))
                self.clients.close()
        self.signal(signals.SIGKILL)

    def _pause_s(self) -> float | None:
        """Return how long nothing is to be done, None for as long as nothing happens. Ends a process that is late."""
        pause_s = self.checks.timeout_s() if self.checks else None
        if self.handover.timeout_s and not self.is_late:
            left_s = self.began + self.handover.timeout_s - time.monotonic()
            if left_s > 0:
                return left_s if pause_s is None else min(left_s, pause_s)
            self.is_late = True
            self.signal(signals.SIGKILL)
        return pause_s

    def check_health(self, message: bytes, inherited: Inherited) -> None:
        """Have the process's health checked, as the start message says, if it says so."""
        if self.handover.health:
            known = self.handover
            target = health.Target(message, self.pidfd, self.directory, known.cgroup, known.started_at)
            self.checks = health.Checks(health.Rules.decode(known.health), self._loop, target, inherited)

    def follow_files(self, inherited: Inherited) -> None:
        """Follow the files that are mounted by themselves, now or from when a client says so."""
        self.files = follow.Files(self._loop, self.pidfd, self.directory, inherited)
        if self.handover.followed:
            self.files.follow(self.handover.followed)

    def ship(self, shipping: "Shipping", before: "Monitor | None") -> None:
        """Have the log sent on, if the start message says so. before: of this container's run before this one."""
        if self.handover.ships and self.log:
            self.log.number(before.log if before else None)
            self.shipping = shipping
            self._start_shipper()

    def _start_shipper(self) -> None:
        """See to it that a shipper lives, now and when this one is killed."""
        if self.shipping and (pidfd := self.shipping.living()) >= 0:
            self._loop.watch(pidfd, READ, lambda _: self._follow_shipper(pidfd))

    def _follow_shipper(self, ended: int) -> None:
        self._loop.unwatch(ended)
        self._start_shipper()

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

    def close(self) -> None:
        """Let go of what is left after the end: of the clients too, who have heard of it."""
        self._loop.close()  # first: its epoll set is shared with a process that lingers for the same clients
        self.clients.close()
        for fd in (self.pidfd, self.directory, self.runtime_directory):
            os.close(fd)

    # -- what clients do --------------------------------------------------------------------------------------------

    def write(self, data: bytes, taken: "Callable[[int], None]") -> None:
        self._input.write(data, taken)

    def end_input(self) -> None:
        # A terminal has no end of input: what a user types there is a character (docker keeps it open too).
        if self.handover.input_ends_with_client and not self._terminal:
            self._input.finish()

    def end_with_client(self) -> None:
        # Of an exec: nobody would ever see it again (moby 9098). A container's process is everybody's.
        if self.handover.ends_with_client and not self._exited:
            self.signal(signals.SIGKILL)
            if self.leaf is not None and self.leaf.layout.hierarchies():
                self.leaf.kill()

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal and not self._exited:
            self._terminal.resize(rows, columns)

    def signal(self, number: int) -> None:
        if not self._exited:
            try:
                process.pidfd_send_signal(self.pidfd, number)
            except OSError:
                pass  # ESRCH: it has just ended. EINVAL: a number that this machine does not have.

    def follow(self, encoded: str) -> None:
        if self.files and not self._exited:
            self.files.follow(encoded)

    # -- what the process does --------------------------------------------------------------------------------------

    def _emit(self, stream: int, data: bytes) -> None:
        if self.log:
            self.log.write(stream, data)
        if not self.clients.broadcast(stream, data):
            for output in self._outputs:
                output.pause()

    def _resume(self) -> None:
        if not self._exited:
            for output in self._outputs:
                output.resume()

    def _note_exit(self, _events: int) -> None:
        self._exited = True
        self._loop.unwatch(self.pidfd)


class Shipping:
    """The log shipper of a monitor, through all runs of its container: started, and again when somebody kills it."""

    __slots__ = ("_begun", "_directory", "_inherited", "_message", "_pause_s", "_pid", "_pidfd", "_started_at")

    def __init__(self, message: bytes, directory: int, started_at: str, inherited: Inherited) -> None:
        """As for launcher.start_shipper. directory: borrowed."""
        self._message = message
        self._directory = directory
        self._started_at = started_at
        self._inherited = inherited
        self._pid, self._pidfd = 0, -1
        self._begun = self._pause_s = 0.0

    def living(self) -> int:
        """Return a pidfd of the shipper, a new one where there is none; -1 when none can be had."""
        if self._pid:
            if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                return self._pidfd
            os.close(self._pidfd)
            # One that dies at once, for a defect of ours, must not keep the machine busy.
            steady = time.monotonic() - self._begun > SHIPPER_STEADY_S
            self._pause_s = 0.0 if steady else min(2 * self._pause_s + 0.1, SHIPPER_PAUSE_S_MAX)
        self._begun = time.monotonic()
        try:
            self._pid = launcher.start_shipper(
                self._message, self._directory, self._started_at, self._pause_s, self._inherited
            )
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:
            self._pid, self._pidfd = 0, -1
        return self._pidfd


def _run(message: packet.Message, inherited: Inherited, waiting: Waiting | None = None) -> None:
    monitor, _ = _launch(message, inherited, 0, waiting)
    if monitor is None:
        return
    _spare_from_oom()
    kept = packet.Message(message.data, message.fds[1 + monitor.handover.attached :])
    series = restart.Series(monitor.handover.restarts, os.dup(monitor.directory))
    shipping = Shipping(message.data, series.directory, monitor.handover.started_at, inherited)
    before = None
    while monitor is not None:
        monitor.check_health(message.data, inherited)
        monitor.follow_files(inherited)
        monitor.ship(shipping, before)
        monitor.carry()
        before, monitor = monitor, _next_run(monitor, kept, series, inherited)
    record.release(series.directory)


def _next_run(monitor: Monitor, kept: packet.Message, series: restart.Series, inherited: Inherited) -> Monitor | None:
    """End a run; wait for the next one and return it, None when there is none."""
    pause_s = series.pause_after(time.monotonic() - monitor.began)
    if monitor.handover.is_leaf:
        ended = _finish_exec(monitor)
    else:
        ended = _finish(monitor, _cgroup(monitor, inherited), series, pause_s)
        monitor.clients.broadcast(attach.EXIT, jsonio.dump(ended.to_json()))
        if not monitor.handover.removed_at_end:
            _attempt(monitor.defects, lambda: os.fsync(monitor.directory))
    _leave_to_readers(monitor, kept, series, inherited)
    monitor.close()
    following = None
    forced = monitor.checks is not None and monitor.checks.acted == health.RESTART
    while ended.restart_at and series.wait(pause_s, ended.exit_code, forced):
        following, failure = _launch(kept, inherited, series.restarts)
        if following is not None:
            break
        pause_s = series.pause_after(0.0)
        ended = _record_failed_restart(failure, series, pause_s, forced)
    return following


def _launch(
    message: packet.Message, inherited: Inherited, restarts: int, waiting: Waiting | None = None
) -> tuple[Monitor | None, Failure]:
    """Have a process made, and take it over; else return why there is none. The first time, the engine hears of it.

    message: for a restart the kept one; its descriptors stay the caller's. waiting: a launcher for it, if there is one.
    """
    try:
        if waiting is None or not _pass(message, waiting):
            waiting = _fork_launcher(message, inherited, restarts)
    except OSError as refused:
        error = told("start", "a launcher", refused)
        if not restarts:
            launcher.Reply(message.fds[0]).failed(error)
        return None, Failure(error.exit_code, str(error))
    child, ours = waiting.pid, waiting.socket
    if not restarts:
        os.close(message.fds[0])  # only the launcher answers: when it dies, the engine sees the end of this socket
    cgroup, monitor, last = _take_over(ours, () if restarts else message.fds[1:], inherited)
    ours.close()
    if monitor is not None and last == EXECUTED:
        monitor.await_launcher(child)
        return monitor, Failure(0, "")
    _reap(child)
    if not last and cgroup:
        _bury(monitor, cgroup, inherited)
    if monitor is not None:
        monitor.clients.stop_listening()
        if not last and not restarts:
            failed = record.failed(monitor.handover.started_at, launcher.EXIT_CODE_FAILED, "its launcher was killed")
            record.write_exit(monitor.directory, monitor.exit_fd, failed)
        monitor.close()
    return None, Failure.decode(last)


def _pass(message: packet.Message, waiting: Waiting) -> bool:
    """Give a message to a launcher that waits; tell whether it was taken."""
    try:
        packet.send(waiting.socket, message.data, message.fds)
    except OSError:  # it was killed
        waiting.socket.close()
        os.waitpid(waiting.pid, 0)
        return False
    return True


def _fork_launcher(message: packet.Message, inherited: Inherited, restarts: int) -> Waiting:
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    ours, theirs = packet.pair()
    child = os.fork()
    if child == 0:
        launcher.main(message, inherited, theirs, restarts)
    theirs.close()
    return Waiting(child, ours)


def _reap(child: int) -> None:
    """Wait for the end of a launcher: from then on what it started is our child, and nothing else shall be."""
    os.waitpid(child, 0)
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)


def _take_over(launching: socket, clients: tuple[int, ...], inherited: Inherited) -> tuple[str, Monitor | None, bytes]:
    """Return the cgroup's path, the monitor of the process that the launcher made, None for none, and its last word."""
    handed = packet.receive(launching, HANDOVER_BYTES_MAX, HANDOVER_FDS_MAX)
    if cgroup := launcher.cgroup_of(handed.data):
        handed = packet.receive(launching, HANDOVER_BYTES_MAX, HANDOVER_FDS_MAX)
    if not handed.fds:
        return cgroup, None, handed.data
    try:
        handover = Handover.decode(handed.data)
        process.set_title(handover.title, inherited.title_area)
        attached = clients[: handover.attached]
        monitor = Monitor(handover, handed.fds, [socket(fileno=fd) for fd in attached])
        monitor.leaf = _cgroup(monitor, inherited) if handover.is_leaf else None
    except Exception as failure:
        packet.send(launching, str(told("start", "the monitor", failure)).encode())
        return cgroup, None, packet.receive(launching, HANDOVER_BYTES_MAX, 0).data
    packet.send(launching, READY)
    return cgroup, monitor, packet.receive(launching, HANDOVER_BYTES_MAX, 0).data


def _bury(monitor: Monitor | None, cgroup: str, inherited: Inherited) -> None:
    """End what a launcher left that was killed itself; before the handover, an init ends by itself."""
    notes: list[str] = []
    if monitor is not None:
        monitor.signal(signals.SIGKILL)
        process.wait_pidfd(monitor.pidfd)
    _attempt(notes, Cgroup(inherited.facts.layout, cgroup).remove)


def _leave_to_readers(monitor: Monitor, kept: packet.Message, series: restart.Series, inherited: Inherited) -> None:
    """Leave clients that still have output to read to a process of their own.

    Whoever waits for the monitor waits for the end of the container, not for the slowest reader of its output.
    """
    if monitor.clients.queued() and os.fork() == 0:
        process.set_title(f"{monitor.handover.title} (last output)", inherited.title_area)
        for fd in (monitor.directory, monitor.runtime_directory, series.directory, *kept.fds):
            os.close(fd)
        monitor.linger()
        os._exit(0)


def _record_failed_restart(failure: Failure, series: restart.Series, pause_s: float, forced: bool) -> ExitRecord:
    """Write down a run whose command was never executed; return its record."""
    directory, started_at = series.directory, record.now()
    again = restart.read(directory).wants(failure.exit_code, series.restarts, forced)
    ended = record.failed(started_at, failure.exit_code, failure.cause)
    if again:
        ended = ended.replace(restart_at=record.now(pause_s))
    notes: list[str] = []
    _attempt(notes, lambda: record.write_status(directory, 0, os.getpid(), started_at, "", series.restarts))
    _attempt(notes, lambda: record.write_exit(directory, record.reserve_exit(directory), ended))
    return ended


def _cgroup(monitor: Monitor, inherited: Inherited) -> Cgroup | None:
    path = monitor.handover.cgroup
    if path and monitor.handover.is_leaf:
        above, _, name = path.rpartition("/")
        return Cgroup(inherited.facts.layout, above).leaf(name)
    return Cgroup(inherited.facts.layout, path) if path else None


def _finish(monitor: Monitor, cgroup: Cgroup | None, series: restart.Series, pause_s: float) -> ExitRecord:
    """The process has ended: gather what is left of it, leave nothing, say how it ended and what comes next."""
    acted = health.NONE
    if monitor.checks:
        monitor.checks.stop()
        acted = monitor.checks.acted
    if monitor.files:
        monitor.files.stop()
    monitor.reap_launcher()
    signal, uid, pid = record.sender(monitor.pidfd)
    wait_status = process.wait_pidfd(monitor.pidfd)
    notes = monitor.defects
    oom_peak = _attempt(notes, lambda: _end_members(cgroup)) if cgroup else None
    _attempt(notes, monitor.drain)
    _attempt(notes, monitor.clients.stop_listening)
    if monitor.log:
        _attempt(notes, monitor.log.finish)
    if cgroup:
        _attempt(notes, cgroup.remove)
    ended = record.ended(monitor.handover.started_at, wait_status, oom_peak is not None, "; ".join(notes))
    ended = ended.replace(memory_peak_bytes=oom_peak or 0, sent_signal=signal, sent_by_uid=uid, sent_by_pid=pid)
    if acted != health.NONE:
        ended = ended.replace(ended_by=HEALTH_CHECK)
    elif monitor.is_late:
        ended = ended.replace(ended_by=TIMEOUT, exit_code=EXIT_CODE_LATE)
    order = restart.read(monitor.directory)
    if acted != health.STOP and order.wants(ended.exit_code, series.restarts, acted == health.RESTART):
        ended = ended.replace(restart_at=record.now(pause_s))
    else:
        _attempt(notes, lambda: record.release(series.directory))
    durable = not monitor.handover.removed_at_end
    _attempt(notes, lambda: record.write_exit(monitor.directory, monitor.exit_fd, ended, durable))
    return ended


def _finish_exec(monitor: Monitor) -> ExitRecord:
    """The process of an exec has ended: say how, and then gather what is left of it. Its client is not kept waiting.

    What it leaves in the background stays (a daemon that was started so), and its cgroup with it. What was killed with
    it, or ends soon, may end a moment later: a cgroup that it held would stay as long as the container.
    """
    monitor.reap_launcher()
    wait_status = process.wait_pidfd(monitor.pidfd)
    notes = monitor.defects
    _attempt(notes, monitor.drain)
    _attempt(notes, monitor.clients.stop_listening)
    ended = record.ended(monitor.handover.started_at, wait_status, False, "; ".join(notes))
    _attempt(notes, lambda: record.write_exit(monitor.directory, monitor.exit_fd, ended, False))
    monitor.clients.broadcast(attach.EXIT, jsonio.dump(ended.to_json()))
    if monitor.leaf is not None:
        _attempt(notes, lambda: monitor.leaf.prune(LEAF_WAIT_S) if monitor.leaf else None)
    _attempt(notes, lambda: os.rmdir(monitor.handover.own_directory))
    return ended


def _attempt(notes: list[str], step: "Callable[[], T]") -> "T | None":
    """Take a step of the end; what goes wrong is noted and does not keep the others from their turn."""
    try:
        return step()
    except Exception as failure:
        notes.append(str(told("clean up after", "the process", failure)))
        return None


def _end_members(cgroup: Cgroup) -> int | None:
    """Kill what the process left in its cgroup; return how much memory it had at most (0: not known) if the OOM killer
    had been there, else None.
    """
    events = cgroup.events()
    if events.populated:
        cgroup.kill()
    return (cgroup.stats().memory_peak_bytes or 0) if events.oom_kills else None


def _spare_from_oom() -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, OOM_SCORE_ADJ)
        finally:
            os.close(fd)
    except OSError:
        pass  # lowering it takes CAP_SYS_RESOURCE
