"""One container's plugins, one verb at a time, also across engines: what a killed one had under way is ended first.

    <run>/cni/<container>    there while a verb is under way; each of its plugins has it open

Whoever asks holds the container's lock, so a file that is there already is a dead engine's: its plugin may still run,
and would go on adding what the next DEL has removed.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager

from ...linux import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ORPHAN_MS_MAX = 10_000


@contextmanager
def taken(run: str, container: str) -> Iterator[int]:
    """Hold a container's turn; yield a descriptor for its plugins. run: the engine's directory. Raises OSError."""
    os.makedirs(f"{run}/cni", 0o700, exist_ok=True)
    path = f"{run}/cni/{container}"
    if os.path.lexists(path):
        _end_orphans(path)
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _end_orphans(path: str) -> None:
    """Kill whoever has a file open but us, and see them end."""
    wanted = os.stat(path, follow_symlinks=False)
    ended = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            pidfd = process.pidfd_open(int(name))
        except OSError:
            continue  # it has ended meanwhile
        if _has_open(name, (wanted.st_dev, wanted.st_ino)):  # asked behind pidfd_open: it is this process's
            try:
                process.pidfd_send_signal(pidfd, signals.SIGKILL)
            except OSError:
                pass
            ended.append(pidfd)
        else:
            os.close(pidfd)
    for pidfd in ended:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(ORPHAN_MS_MAX)
        os.close(pidfd)


def _has_open(pid: str, wanted: tuple[int, int]) -> bool:
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            found = os.stat(f"/proc/{pid}/fd/{name}")
            if (found.st_dev, found.st_ino) == wanted:
                return True
    except OSError:
        pass  # it is not ours, or has ended meanwhile
    return False
