"""status.json and exit.json: what a run leaves on disk.

Invariants:
1. Each appears whole, by rename. Both are written by the monitor of the run or, before its process is executed, by the
   launcher that belongs to it; never by both.
2. Both name their run by `started_at`. The status of a run replaces the record of the run before it: a reader that
   finds both of one run knows that it ended, and one that finds the monitor gone and no record that nobody saw the end.
3. The space of exit.json is taken when the run begins: a full disk does not lose how it ended.
"""

import fcntl
import os
import time

from ..linux import path, process
from ..runtime import reaper
from ..spec import jsonio
from ..spec.errors import Invalid
from ..spec.runtime import Spec
from ..spec.task import EXIT_FILE, SPEC_FILE, STATUS_FILE, ExitRecord, TaskStatus

ERROR_CHARACTERS_MAX = 600  # six bytes each at worst: the record fits into what is reserved
SPEC_BYTES_MAX = 8 * 1024 * 1024
TAKE_S_MAX = 5.0
_TAKE_POLL_S = 0.01
_RESERVED_BYTES = 4096
_SIGNAL_BASE = 128
_NAME_BYTES_MAX = 64
_EXIT_TEMPORARY = f".{EXIT_FILE}"


def read_spec(directory: str) -> Spec:
    """Return what a container's config.json says. Raises Invalid, OSError."""
    return Spec.from_json(parse_spec(directory), f"{directory}/{SPEC_FILE}")


def parse_spec(directory: str) -> object:
    """Return a container's config.json as it stands there. Raises Invalid, OSError."""
    name = f"{directory}/{SPEC_FILE}"
    return jsonio.parse(path.read_file(name, SPEC_BYTES_MAX), name, bytes_max=SPEC_BYTES_MAX)


def now(later_s: float = 0.0) -> str:
    """Return this moment, or one some seconds later, in RFC 3339 with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns() + int(later_s * 1e9), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def take(directory_fd: int, timeout_s: float = TAKE_S_MAX) -> bool:
    """Take a container's directory for a monitor: for as long as it has one, no other start of the container succeeds.

    Two engines may each have begun one, the first just before it was killed. Waits for a monitor that is ending. The
    lock is that of the open file (flock(2)): it goes with the last copy of the descriptor, or by `release`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(_TAKE_POLL_S)


def release(directory_fd: int) -> None:
    """Give a container's directory back: what its monitor still does is no concern of the next."""
    fcntl.flock(directory_fd, fcntl.LOCK_UN)


def reserve_exit(directory_fd: int) -> int:
    """Return a descriptor of what will be exit.json. Raises OSError when the directory takes no file."""
    fd = _create(directory_fd, _EXIT_TEMPORARY)
    try:
        os.posix_fallocate(fd, 0, _RESERVED_BYTES)
    except OSError:
        pass  # a file system that can't reserve (EOPNOTSUPP), or is full already: then it is tried at the end
    return fd


def write_exit(directory_fd: int, exit_fd: int, ended: ExitRecord, durable: bool = True) -> None:
    """Say how the run ended. Called once. Raises OSError.

    durable: written to the disk when this returns, but for the name itself. What is left to the kernel is lost with the
    machine, as is what the record of an exec, or of a container that is removed at its end, is about.
    """
    data = jsonio.dump(ended.to_json())
    try:
        os.pwrite(exit_fd, data, 0)
        os.ftruncate(exit_fd, len(data))
        if durable:
            os.fsync(exit_fd)
    finally:
        os.close(exit_fd)
    _rename(directory_fd, _EXIT_TEMPORARY, EXIT_FILE)


def write_status(
    directory_fd: int, pid: int, monitor_pid: int, started_at: str, cgroup: str, restarts: int = 0
) -> None:
    """Say that the process exists; pid 0: that a restart failed before it did. Raises OSError."""
    status = TaskStatus(
        pid=pid,
        pid_start_time=process.start_time(pid) if pid else 0,
        monitor_pid=monitor_pid,
        monitor_start_time=process.start_time(monitor_pid),
        boot_id=process.boot_id(),
        started_at=started_at,
        cgroup=cgroup,
        restarts=restarts,
        finished_before=_last_end(directory_fd),
    )
    replace(directory_fd, STATUS_FILE, jsonio.dump(status.to_json()))
    unlink(directory_fd, EXIT_FILE)


def replace(directory_fd: int, name: str, data: bytes) -> None:
    """Put a file in the place of one that readers may have open. Raises OSError."""
    temporary = f".{name}"
    fd = _create(directory_fd, temporary)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    _rename(directory_fd, temporary, name)


def ended(started_at: str, wait_status: int, oom_killed: bool, error: str) -> ExitRecord:
    """Return the record of a process that ended with this wait status. error: what went wrong beside it, or ""."""
    code = os.waitstatus_to_exitcode(wait_status)
    return ExitRecord(
        exit_code=code if code >= 0 else _SIGNAL_BASE - code,
        signal=max(-code, 0),
        oom_killed=oom_killed,
        started_at=started_at,
        finished_at=now(),
        error=error[:ERROR_CHARACTERS_MAX],
    )


def sender(pidfd: int) -> tuple[int, int, int]:
    """Return what the name of a child that has ended tells of the last signal: see ExitRecord; zeros for nothing.

    pidfd: of a child that has ended and was not waited for.
    """
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        with open(f"/proc/{found.si_pid}/comm", "rb", buffering=0) as file:  # type: ignore[union-attr]
            name = file.read(_NAME_BYTES_MAX).decode("ascii", "replace").rstrip("\n")
    except OSError:
        return 0, 0, 0
    return reaper.sender(name) or (0, 0, 0)


def failed(started_at: str, exit_code: int, error: str) -> ExitRecord:
    """Return the record of a run whose command was never executed."""
    return ExitRecord(exit_code=exit_code, started_at=started_at, finished_at=now(), error=error[:ERROR_CHARACTERS_MAX])


def unlink(directory_fd: int, name: str) -> None:
    """Remove a file that may be gone."""
    try:
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        pass


def _last_end(directory_fd: int) -> str:
    """Return when the last run ended whose record lies here, "" when there is none that can be read."""
    try:
        data = path.read_file(EXIT_FILE, _RESERVED_BYTES, directory_fd)
        return ExitRecord.from_json(jsonio.parse(data, EXIT_FILE), EXIT_FILE).finished_at
    except (OSError, Invalid):
        return ""


def _create(directory_fd: int, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=directory_fd)


def _rename(directory_fd: int, source: str, target: str) -> None:
    os.rename(source, target, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
