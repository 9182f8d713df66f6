"""Processes as /proc shows them. A process that went while we looked is absent, never an error."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SPARE_TITLE, HEIR_TITLE = "orlop: spare monitor", "orlop: heir"
DEAD_S_MAX = 60.0


def pids() -> list[int]:
    """Return all process ids of this PID namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def read(pid: int, name: str) -> bytes:
    """Return /proc/PID/name, b"" when the process is gone or the file is not ours to read."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was executed with."""
    pairs = (item.partition(b"=") for item in read(pid, "environ").split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on; [] when the process is gone."""
    # The second field is the name in parentheses, which may itself hold blanks and parentheses.
    return read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def start_time(pid: int) -> int:
    """Return field 22, the start in clock ticks after boot; 0 when the process is gone. pid and this make it unique."""
    fields = stat(pid)
    return int(fields[19]) if fields else 0


def parent(pid: int) -> int:
    """Return the parent's id; 0 when the process is gone."""
    fields = stat(pid)
    return int(fields[1]) if fields else 0


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def handles(pid: int, signum: int) -> bool:
    """Return whether the process has a handler of its own for a signal: process 1 of a container gets no other."""
    caught = [line.split()[1] for line in read(pid, "status").splitlines() if line.startswith(b"SigCgt:")]
    return bool(caught) and bool(int(caught[0], 16) >> (signum - 1) & 1)


def monitors(spawner: int) -> list[int]:
    """Return the monitors that a spawner has forked and that live, without the spare one that waits."""
    children = [pid for pid in pids() if parent(pid) == spawner]
    return [pid for pid in children if title(pid) not in (SPARE_TITLE, HEIR_TITLE)]


def spare(spawner: int) -> int:
    """Return the spare monitor of a spawner, 0 while there is none."""
    return next((pid for pid in pids() if parent(pid) == spawner and title(pid) == SPARE_TITLE), 0)


def ancestors(pid: int) -> Iterator[int]:
    """Yield the parent, its parent and so on, without 0."""
    while (pid := parent(pid)) > 0:
        yield pid


def title(pid: int) -> str:
    """Return what `ps` would show."""
    words = read(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return words or f"[{read(pid, 'comm').decode(errors='replace').strip()}]"


def namespace(pid: int, kind: str) -> str:
    """Return the namespace's name such as "pid:[4026531836]"; "" when the process is gone or not ours."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def with_environment(name: str, value: str) -> list[int]:
    """Return the living processes that were executed with NAME=value."""
    wanted = os.fsencode(f"{name}={value}")
    return [pid for pid in pids() if wanted in read(pid, "environ").split(b"\0") and is_alive(pid)]


def kill(pid: int, start: int, signum: int = signal.SIGKILL) -> None:
    """Signal the process that had this pid and start time, and no later one with the same pid.

    SIGKILL: returns when it is dead. Its sockets listen, and its files are locked, until then.
    """
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if start_time(pid) == start:
                signal.pidfd_send_signal(pidfd, signum)
                if signum == signal.SIGKILL:
                    select.select([pidfd], [], [], DEAD_S_MAX)
        finally:
            os.close(pidfd)


@contextlib.contextmanager
def unshared(*flags: str, script: str = "") -> Iterator[int]:
    """A process in namespaces of its own, the first of its PID namespace: its id. flags: more of unshare(1)'s.

    script: what a shell does there before it rests.
    """
    argv = ["unshare", "--fork", "--pid", "--kill-child", *flags, "sh", "-c", f"{script}\nexec sleep 1000"]
    made = subprocess.Popen(argv)
    children = Path(f"/proc/{made.pid}/task/{made.pid}/children")
    deadline = time.monotonic() + DEAD_S_MAX
    try:
        while not (found := children.read_text().split()) or title(int(found[0])) != "sleep 1000":
            assert time.monotonic() < deadline and made.poll() is None, argv
            time.sleep(0.005)
        yield int(found[0])
    finally:
        made.kill()
        made.wait()
