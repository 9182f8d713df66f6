"""Health checks: made by the monitor, so they go on without the engine.

    monitor --fork--> prober: makes one check, writes health.json, tells the monitor the outcome, ends

A check is a command in the container, or an HTTP request or a TCP connection from outside it, in its network namespace:
that asks nothing of the image. The rules are docker's (moby daemon/health.go): a check begins an interval after the one
before it ended; in the start period failures do not count; so many failures one after the other are "unhealthy", one
success is "healthy". Where the action on failure is a command, a prober runs that like a check, once for each time that
the container becomes unhealthy.

Invariants:
1. One check at a time, and none outlives its run.
2. health.json appears whole, by rename. The launcher writes it when the run begins, then one prober after the other:
   the results are kept there, and not in the monitor.
3. A prober ends with its monitor.
"""

import os
import select
import time
from _socket import AF_INET, AF_INET6, SO_ERROR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, socket

from ..linux import path, process, signals
from ..linux.cgroup import Cgroup
from ..spec import jsonio
from ..spec.errors import CommandFailed, Invalid, OrlopError
from ..spec.task import HEALTH_FILE, Health, HealthCheck, HealthResult, Start, StartExec, StartTask
from . import packet, prepare, record
from .failure import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .launcher import Inherited
    from .loop import Loop

OUTPUT_BYTES_MAX = 4096
RESULTS_MAX = 5
EXIT_CODE_NONE = -1  # docker's, for a check that took too long or could not be made
INTERVAL_S_DEFAULT = TIMEOUT_S_DEFAULT = 30.0
START_INTERVAL_S_DEFAULT = 5.0
RETRIES_DEFAULT = 3
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
NONE, KILL, RESTART, STOP, EXEC = "none", "kill", "restart", "stop", "exec"
ACTIONS = (NONE, KILL, RESTART, STOP)
_LOOPBACK = ((AF_INET, "127.0.0.1"), (AF_INET6, "::1"))
_FILE_BYTES_MAX = 256 * 1024
_PACKET_BYTES_MAX = 256
_FROZEN = b"frozen"


class Rules:
    """When a check is made, and what comes of it: what a monitor keeps of a HealthCheck. Times in seconds."""

    __slots__ = ("interval_s", "on_failure", "retries", "start_interval_s", "start_s", "stop_s", "stop_signal")

    def __init__(self, check: HealthCheck) -> None:
        self.stop_s: float = check.stop_timeout_s
        self.interval_s = check.interval_ns / 1e9 or INTERVAL_S_DEFAULT
        self.start_interval_s = check.start_interval_ns / 1e9 or START_INTERVAL_S_DEFAULT
        self.start_s = check.start_period_ns / 1e9
        self.retries = check.retries or RETRIES_DEFAULT
        self.on_failure = check.on_failure
        self.stop_signal = check.stop_signal

    def encode(self) -> str:
        return " ".join(str(getattr(self, name)) for name in self.__slots__)

    @classmethod
    def decode(cls, text: str) -> "Rules":
        rules = cls.__new__(cls)
        interval_s, rules.on_failure, retries, start_interval_s, start_s, stop_s, stop_signal = text.split()
        rules.interval_s, rules.start_interval_s = float(interval_s), float(start_interval_s)
        rules.start_s, rules.stop_s = float(start_s), float(stop_s)
        rules.retries, rules.stop_signal = int(retries), int(stop_signal)
        return rules


class Target:
    """What a prober works on: the start message, and what belongs to the run of now. Descriptors are borrowed."""

    __slots__ = ("cgroup", "directory", "message", "pidfd", "run")

    def __init__(self, message: bytes, pidfd: int, directory: int, cgroup: str, run: str) -> None:
        self.message = message
        self.pidfd = pidfd
        self.directory = directory
        self.cgroup = cgroup
        self.run = run


class Checks:
    """The checks of one run, in its monitor."""

    __slots__ = ("_began", "_due", "_inherited", "_kill_at", "_loop", "_prober", "_sock", "_target", "acted", "rules",
                 "status", "streak")  # fmt: skip

    def __init__(self, rules: Rules, loop: "Loop", target: Target, inherited: "Inherited") -> None:
        self.rules = rules
        self.status = STARTING
        self.streak = 0
        self.acted = NONE
        self._loop = loop
        self._target = target
        self._inherited = inherited
        self._began = time.monotonic()
        self._prober = 0
        self._sock: socket | None = None
        self._kill_at = 0.0
        self._due = self._began + self._interval_s()

    def timeout_s(self) -> float | None:
        """Return how long nothing is to be done, None for as long as nothing happens."""
        due = self._kill_at or (0.0 if self._sock else self._due)
        return max(due - time.monotonic(), 0.0) if due else None

    def tick(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._kill_at:
            if now >= self._kill_at:
                self._signal(signals.SIGKILL)
                self._kill_at = now + 1.0
        elif self._sock is None and now >= self._due:
            self._begin()

    def stop(self) -> None:
        """The run has ended: no check outlives it."""
        if self._sock is not None:
            os.kill(self._prober, signals.SIGKILL)
            self._reap()

    def _interval_s(self) -> float:
        """Return the time to the next check; a start period has its own."""
        if self.status == STARTING and time.monotonic() - self._began < self.rules.start_s:
            return self.rules.start_interval_s
        return self.rules.interval_s

    def _begin(self, acting: bool = False) -> None:
        counts = self.status != STARTING or time.monotonic() - self._began >= self.rules.start_s
        try:
            self._sock, theirs = packet.pair()
            self._prober = os.fork()
        except OSError:
            self._sock = None
            self._due = time.monotonic() + self._interval_s()
            return
        if self._prober == 0:
            before = self.status, self.streak if counts or acting else -1, self.rules.retries
            _probe(self._target, before, theirs, self._inherited, acting)
        theirs.close()
        self._loop.watch(self._sock.fileno(), select.EPOLLIN, self._finish)

    def _finish(self, _events: int) -> None:
        assert self._sock is not None
        said = packet.receive(self._sock, _PACKET_BYTES_MAX, 0).data
        self._reap()
        self._due = time.monotonic() + self._interval_s()
        if said == _FROZEN:
            return
        was = self.status
        if said:
            self.status, streak = said.decode().split()
            self.streak = int(streak)
        else:
            self.status, self.streak = judged(self.status, self.streak, self.rules.retries, False)
        if self.status == UNHEALTHY != was and self.rules.on_failure != NONE:
            self._act()

    def _act(self) -> None:
        if self.rules.on_failure == EXEC:
            self._begin(acting=True)
            return
        self.acted = self.rules.on_failure
        if self.acted == KILL or not signals.reaches(_pid_of(self._target.pidfd), self.rules.stop_signal):
            self._signal(signals.SIGKILL)
        else:
            self._signal(self.rules.stop_signal)
            self._kill_at = time.monotonic() + self.rules.stop_s

    def _signal(self, number: int) -> None:
        try:
            process.pidfd_send_signal(self._target.pidfd, number)
        except OSError:
            pass  # it has just ended

    def _reap(self) -> None:
        assert self._sock is not None
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._sock = None
        os.waitpid(self._prober, 0)


def judged(status: str, streak: int, retries: int, is_well: bool) -> tuple[str, int]:
    """Return status and failing streak after one more check. streak -1: a failure does not count yet."""
    if is_well:
        return HEALTHY, 0
    if streak < 0:
        return status, 0
    return (UNHEALTHY if streak + 1 >= retries else status), streak + 1


def begin(directory_fd: int, run: str) -> None:
    """Say that a run begins, whose checks have said nothing yet. Raises OSError."""
    _write(directory_fd, Health(run=run, status=STARTING))


# -- the prober -------------------------------------------------------------------------------------------------------


def _probe(
    target: Target, before: tuple[str, int, int], monitor: socket, inherited: "Inherited", acting: bool
) -> "NoReturn":
    """Make one check in a process of its own, which ends here. before: status, streak or -1, retries.

    acting: not a check, but the command for when one has failed too often.
    """
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
        process.close_all_except({target.pidfd, target.directory, monitor.fileno()})
        process.set_title("orlop: health check", inherited.title_area)
        if target.cgroup and Cgroup(inherited.facts.layout, target.cgroup).is_frozen():
            packet.send(monitor, _FROZEN)
        else:
            _check(target, before, monitor, inherited, acting)
    finally:
        os._exit(0)


def _check(target: Target, before: tuple[str, int, int], monitor: socket, inherited: "Inherited", acting: bool) -> None:
    started_at = record.now()
    try:
        task = Start.from_json(jsonio.parse_object(target.message, "the start message")).task
        assert task and task.health
        check = task.health.replace(process=task.health.action) if acting else task.health
        code, output = _made(task, check, target, inherited)
    except OrlopError as wrong:
        code, output = wrong.exit_code if isinstance(wrong, CommandFailed) else EXIT_CODE_NONE, str(wrong).encode()
    except Exception as wrong:
        code, output = EXIT_CODE_NONE, str(told("check", "the container's health", wrong)).encode()
    text = output[:OUTPUT_BYTES_MAX].decode(errors="replace").replace("\0", "\ufffd")
    text += "..." if len(output) > OUTPUT_BYTES_MAX else ""  # as docker's
    result = HealthResult(started_at=started_at, ended_at=record.now(), exit_code=code, output=text)
    status, streak, retries = before
    if not acting:
        status, streak = judged(status, streak, retries, code == 0)
    log = (*_log(target), result)[-RESULTS_MAX:]
    _write(target.directory, Health(run=target.run, status=status, failing_streak=streak, log=log))
    packet.send(monitor, f"{status} {streak}".encode())


def _made(task: StartTask, check: HealthCheck, target: Target, inherited: "Inherited") -> tuple[int, bytes]:
    timeout_s = check.timeout_ns / 1e9 or TIMEOUT_S_DEFAULT
    deadline = time.monotonic() + timeout_s
    if check.process is not None:
        return _run(task, check, target, inherited, deadline, timeout_s)
    process.setns(target.pidfd, process.CLONE_NEWNET)
    try:
        sock = _connected(check, deadline)
        return _asked(sock, check, deadline) if check.path else (0, b"")
    except TimeoutError:
        return EXIT_CODE_NONE, f"Health check exceeded timeout ({timeout_s:g}s)".encode()
    except OSError as refused:
        return 1, f"{check.host or 'localhost'}:{check.port}: {refused.strerror or refused}".encode()


def _run(
    task: StartTask, check: HealthCheck, target: Target, inherited: "Inherited", deadline: float, timeout_s: float
) -> tuple[int, bytes]:
    pid = _pid_of(target.pidfd)
    assert check.process is not None
    message = StartExec(
        id=task.id, exec_id="0", directory=task.directory, runtime_directory=task.runtime_directory,
        pid=pid, pid_start_time=process.start_time(pid), process=check.process, user=task.user, groups=task.groups,
    )  # fmt: skip
    created, pipes = prepare.begin_exec(message, inherited.facts)
    assert pipes
    pipes.close_theirs()
    created.start()
    output, ended = _output(pipes.ours[1:], created.pidfd, deadline)
    if not ended:
        _kill_group(created.pid, created.pidfd)
    status = process.wait_pidfd(created.pidfd)
    if not ended:
        return EXIT_CODE_NONE, f"Health check exceeded timeout ({timeout_s:g}s)".encode() + (output and b": " + output)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code, output


def _output(streams: tuple[int, ...], pidfd: int, deadline: float) -> tuple[bytes, bool]:
    """Return the beginning of what a command writes until it ends, and whether it did in time."""
    poll = select.poll()
    for fd in (*streams, pidfd):
        poll.register(fd, select.POLLIN)
    output, ended = b"", False
    while not ended and (left_s := deadline - time.monotonic()) > 0:
        ready = {fd for fd, _ in poll.poll(left_s * 1000)}
        ended = pidfd in ready
        for fd in streams:
            while fd in ready and (data := _read(fd)):
                output += data[: OUTPUT_BYTES_MAX + 1 - len(output)]
            if fd in ready and data is not None and not data:
                poll.unregister(fd)
                streams = tuple(other for other in streams if other != fd)
    return output, ended


def _read(fd: int) -> bytes | None:
    """Return what is there, b"" at the end, None for nothing yet."""
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return None


def _kill_group(pid: int, pidfd: int) -> None:
    """Kill a command that takes too long, with what it started: it leads a session of its own."""
    try:
        if os.getpgid(pid) == pid:  # not reaped yet, so the number is still its own
            os.killpg(pid, signals.SIGKILL)
        process.pidfd_send_signal(pidfd, signals.SIGKILL)
    except ProcessLookupError:
        pass


def _connected(check: HealthCheck, deadline: float) -> socket:
    """Return a connection into the container's network namespace. Raises OSError, TimeoutError."""
    family = AF_INET6 if ":" in check.host else AF_INET
    refused: OSError | None = None
    for kind, address in ((family, check.host),) if check.host else _LOOPBACK:
        sock = socket(kind, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
        try:
            sock.connect((address, check.port))
            return sock
        except BlockingIOError:
            _wait(sock, select.POLLOUT, deadline)
            number = sock.getsockopt(SOL_SOCKET, SO_ERROR)
            if not number:
                return sock
            refused = OSError(number, os.strerror(number))
        except OSError as wrong:
            refused = wrong
        sock.close()
    assert refused
    raise refused


def _asked(sock: socket, check: HealthCheck, deadline: float) -> tuple[int, bytes]:
    """Return 0 and the beginning of the answer when it is a success or a redirection, else 1."""
    host = f"{check.host or 'localhost'}:{check.port}"
    sock.send(
        f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: orlop-health\r\nConnection: close\r\n\r\n".encode()
    )
    answer = b""
    while len(answer) < OUTPUT_BYTES_MAX:
        _wait(sock, select.POLLIN, deadline)
        data = sock.recv(OUTPUT_BYTES_MAX)
        if not data:
            break
        answer += data
    words = answer.split(b"\r\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 1, b"the answer is not HTTP: " + answer
    return (0 if 200 <= int(words[1]) < 400 else 1), answer


def _wait(sock: socket, events: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(sock.fileno(), events)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def _log(target: Target) -> tuple[HealthResult, ...]:
    try:
        data = path.read_file(HEALTH_FILE, _FILE_BYTES_MAX, target.directory)
        said = Health.from_json(jsonio.parse_object(data, HEALTH_FILE))
    except (OSError, Invalid):
        return ()
    return said.log if said.run == target.run else ()


def _write(directory_fd: int, health: Health) -> None:
    record.replace(directory_fd, HEALTH_FILE, jsonio.dump(health.to_json()))
