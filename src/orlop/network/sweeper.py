"""The sweeper: what an engine that left before its containers has left on the machine goes with the last of them.

An engine that leaves while containers are on its bridges can't take the bridges along, and nobody may come after it. So
it leaves this process behind, which watches the links and removes everything (`footprint`) when nothing is plugged in.

Invariants:
1. It removes under the lock of the engine, so never beside a living one; an engine that came meanwhile does it itself.
2. One for each ORLOP_RUN, whatever the number of engines that came and went: it holds a lock of its own.
3. It keeps nothing and decides nothing: what belongs to the engine is what carries its mark.
4. While it is there it owns the tables of rules, where the kernel can (6.9): a flush by others passes over them, as it
   did while the engine owned them (SEC-94). An engine that comes ends it, and owns them again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from ..linux import process
from ..linux.netlink import changes
from ..linux.netlink.nftables import Nftables
from ..linux.netlink.rtnetlink import Rtnetlink
from ..spec.paths import ENGINE_LOCK
from . import firewall
from .footprint import Footprint

LOCK_FILE = "sweeper.lock"
LOOK_S_MAX = 60.0  # between two looks, whatever is told
LOCK_WAIT_S_MAX = 60.0  # for the engine that is leaving
LOCK_POLL_S = 0.02
END_S_MAX = 5.0
TITLE = "orlop: sweeper"
PID_BYTES_MAX = 20
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from orlop.network import sweeper; sweeper.main(sys.argv[2])"


def start(run: str) -> None:
    """Leave a sweeper behind. run: $ORLOP_RUN. Raises OSError."""
    cache = ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()
    argv = [sys.executable, "-I", "-S", "-X", "utf8", *cache, "-c", _BOOTSTRAP, _PACKAGE_PARENT, run]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)


def main(run: str) -> None:
    """Be the sweeper."""
    process.close_all_except({0, 1, 2})
    process.set_title(TITLE)
    process.set_name("orlop")
    os.chdir("/")
    own = _lock(f"{run}/{LOCK_FILE}", 0.0)
    if own is not None:
        try:
            os.ftruncate(own, 0)
            os.write(own, f"{os.getpid()}\n".encode())
        except OSError:
            pass  # the directory is gone, and with it who would ask
        sweep(run)


def end(run: str) -> None:
    """End the sweeper, if there is one: an engine is there now. run: $ORLOP_RUN. Called under the engine's lock."""
    try:
        fd = os.open(f"{run}/{LOCK_FILE}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        deadline = time.monotonic() + END_S_MAX
        while not _try_lock(fd) and time.monotonic() < deadline:
            text = os.pread(fd, PID_BYTES_MAX, 0).strip()
            if text.isdigit():
                _terminate(int(text))
            time.sleep(LOCK_POLL_S)
    finally:
        os.close(fd)


def _terminate(pid: int) -> None:
    """End a process whose number a file says, if it is a sweeper."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            if TITLE.encode() in file.read(len(TITLE)):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except OSError:
        pass  # it has ended
    finally:
        os.close(pidfd)


def sweep(run: str) -> None:
    """Return once everything is removed, or an engine is there to do it. Raises OSError."""
    footprint = Footprint(run)
    with changes.Changes(changes.LINKS) as told, Rtnetlink() as route, Nftables() as nft:
        lock = _lock(f"{run}/{ENGINE_LOCK}", LOCK_WAIT_S_MAX)
        if lock is None:
            return
        try:
            firewall.hold(nft, footprint.table)
        finally:
            os.close(lock)
        while True:
            while footprint.is_used(route):
                told.wait(LOOK_S_MAX)
            lock = _lock(f"{run}/{ENGINE_LOCK}", LOCK_WAIT_S_MAX)
            if lock is None:
                return
            try:
                if not footprint.is_used(route):
                    footprint.remove(route, nft)
                    return
            finally:
                os.close(lock)


def _lock(path: str, wait_s: float) -> int | None:
    """Return a descriptor that holds the lock, None when somebody else holds it. A run directory that is gone has no
    engine: any descriptor will do then."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + wait_s
    while not _try_lock(fd):
        if time.monotonic() >= deadline:
            os.close(fd)
            return None
        time.sleep(LOCK_POLL_S)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
