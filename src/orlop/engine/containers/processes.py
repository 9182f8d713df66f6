"""`top`: the processes of a container, as ps(1) of this machine lists them.

The default columns (`ps -ef`) are read from /proc, so that no ps is needed. Other options are ps's own: it is executed
without a shell, and the lines of the container's processes are kept (docker does the same).
"""

from __future__ import annotations

import os
import time

from ...spec.errors import Invalid, Unavailable, Unsupported
from .. import events
from . import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.task import TaskStatus
    from ..engine import Engine
    from .record import ContainerRecord

OPTIONS_DEFAULT = ("-ef",)
TITLES_DEFAULT = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
COMMAND_BYTES_MAX = 32 * 1024
PS_OUTPUT_BYTES_MAX = 16 * 1024 * 1024
PS_S_MAX = 10.0
_USER_LENGTH_MAX = 8  # ps cuts a longer name to seven characters and a plus
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def top(engine: Engine, reference: str, options: Sequence[str]) -> dict[str, object]:
    """Return docker's object: Titles, and a row of cells for each process.

    Raises NotFound, Conflict when the container does not run, Invalid for options that ps does not take or whose output
    names no PID, Unsupported where this machine has no ps and the options ask for one.
    """
    record, pids = of_container(engine, reference)
    if tuple(options) in ((), OPTIONS_DEFAULT):
        titles, rows = list(TITLES_DEFAULT), _from_proc(pids)
    else:
        titles, rows = _from_ps(options, pids, record.subject)
    told(engine, record)
    return {"Titles": titles, "Processes": rows}


def of_container(engine: Engine, reference: str) -> tuple[ContainerRecord, set[int]]:
    """Return a container that runs, and whose processes are its own. Raises NotFound, Conflict."""
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    state.step(task, "top", record)
    assert task.status is not None
    return record, _pids(engine, record.id, task.status)


def told(engine: Engine, record: ContainerRecord) -> None:
    """Have it known that somebody looked."""
    events.publish_container(engine, record, "top")


def _pids(engine: Engine, container_id: str, status: TaskStatus) -> set[int]:
    """Return whose processes these are: by its cgroup, and where there is none, by its PID namespace."""
    cgroup = engine.cgroup(container_id, status)
    try:
        if cgroup.layout.hierarchies():
            return set(cgroup.procs())
        own = os.stat(f"/proc/{status.pid}/ns/pid")
        everybody = (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return {pid for pid in everybody if _is_in(pid, own)}
    except FileNotFoundError:
        return set()


def _is_in(pid: int, namespace: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/ns/pid"), namespace)
    except OSError:
        return False  # it has ended, or it is somebody else's


def _from_proc(pids: set[int]) -> list[list[str]]:
    names = _user_names()
    booted = _booted_at()
    found = (_row(pid, names, booted) for pid in sorted(pids))
    return [row for row in found if row is not None]


def _row(pid: int, names: dict[int, str], booted: float) -> list[str] | None:
    """Return the cells of one process as `ps -ef` shows them, None when it has ended (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(COMMAND_BYTES_MAX)
        uid = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            uid = next((int(line.split()[2]) for line in file if line.startswith("Uid:")), uid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = tail.split()
    ticks = os.sysconf("SC_CLK_TCK")
    ppid, tty = int(fields[1]), int(fields[4])
    cpu_s = (int(fields[11]) + int(fields[12])) / ticks
    started = booted + int(fields[19]) / ticks
    command = words.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    user = names.get(uid, str(uid))
    share = int(100 * cpu_s / max(time.time() - started, 1.0))
    return [
        user if len(user) <= _USER_LENGTH_MAX else f"{user[: _USER_LENGTH_MAX - 1]}+",
        str(pid),
        str(ppid),
        str(min(share, 99)),
        _start_text(started),
        terminal(tty),
        _time_text(int(cpu_s)),
        command or f"[{name}]",
    ]


def _user_names() -> dict[int, str]:
    import pwd

    return {entry.pw_uid: entry.pw_name for entry in reversed(pwd.getpwall())}


def _booted_at() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        return float(next(line.split()[1] for line in file if line.startswith("btime ")))


def _start_text(started: float) -> str:
    """Return when a process began: the time today, the day in this year, the year before that."""
    then, now = time.localtime(started), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return f"{_MONTHS[then.tm_mon - 1]}{then.tm_mday:02d}" if then.tm_year == now.tm_year else str(then.tm_year)


def _time_text(seconds: int) -> str:
    days, rest = divmod(seconds, 24 * 60 * 60)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def terminal(number: int) -> str:
    """Return the name of a controlling terminal (Documentation/admin-guide/devices.txt of the kernel)."""
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"


def _from_ps(options: Sequence[str], pids: set[int], subject: str) -> tuple[list[str], list[list[str]]]:
    try:
        chosen = f"-q{','.join(map(str, sorted(pids)))}"  # options that choose no process mean the container's
        lines = _run_ps((*options, chosen), subject).splitlines()
    except Invalid:
        lines = _run_ps(options, subject).splitlines()  # some, such as f, can't be used together with -q
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        cause = "Couldn't find PID field in ps output"
        raise Invalid("list the processes of", subject, cause, hint="add the pid column: -o pid,comm")
    at = titles.index("PID")
    rows = []
    for line in lines[1:]:
        cells = line.split(None, len(titles) - 1)
        if len(cells) > at and cells[at].isascii() and cells[at].isdigit() and int(cells[at]) in pids:
            rows.append(cells)
    return titles, rows


def _run_ps(options: Sequence[str], subject: str) -> str:
    """Execute the machine's ps. The engine never forks: posix_spawn, which in glibc is a vfork."""
    for option in options:
        if "pid=" in option.replace(" ", "").lower():
            # The column by which the container's processes are told from others would have another name.
            raise Invalid("list the processes of", subject, f'specifying "{option[:60]}" is not allowed')
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with open(read_end, "rb") as output:
        try:
            pid = os.posix_spawnp(
                "ps",
                ["ps", *options],
                {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "COLUMNS": "4096"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_DUP2, write_end, 2),
                ],
            )
        except FileNotFoundError:
            hint = "install procps, or leave the options away"
            raise Unsupported("list the processes of", subject, "this machine has no ps", hint=hint) from None
        finally:
            os.close(write_end)
        data = _read_until_end(output.fileno(), pid, subject)
    _, status = os.waitpid(pid, 0)
    text = data.decode("utf-8", "replace")
    if status:
        lines = [line for line in text.splitlines() if line.strip()]
        cause = f"ps: {lines[0][:200] if lines else 'it failed'}"
        raise Invalid("list the processes of", subject, cause, hint="the options are those of ps(1)")
    return text


def _read_until_end(fd: int, pid: int, subject: str) -> bytes:
    import select
    import signal

    deadline = time.monotonic() + PS_S_MAX
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    data = b""
    while len(data) <= PS_OUTPUT_BYTES_MAX and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        piece = os.read(fd, 1 << 16)
        if not piece:
            return data
        data += piece
    os.kill(pid, signal.SIGKILL)  # our own child, not reaped yet: the number is still its own
    os.waitpid(pid, 0)
    raise Unavailable("list the processes of", subject, "ps does not come to an end", hint="try again")
