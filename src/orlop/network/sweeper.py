"""The sweeper: what an engine that left before its containers has left on the machine goes with the last of them.

An engine that leaves while containers are on its bridges can't take the bridges along, and nobody may come after it. So
it leaves this process behind, which watches the links and removes everything (`footprint`) when nothing is plugged in.
Of an engine that was killed the spawner leaves it behind, the spawner's heir (`Networks.make_will`), or the resolver.

Invariants:
1. It removes under the lock of the engine, so never beside a living one; an engine that came meanwhile does it itself.
2. One for each ORLOP_RUN, whatever the number of engines that came and went: it holds a lock of its own.
3. It keeps nothing and decides nothing: what belongs to the engine is what carries its mark.
4. While it is there it owns the tables of rules, where the kernel can (6.9): a flush by others passes over them, as it
   did while the engine owned them (SEC-94). An engine that comes ends it, and owns them again. Where the rules are
   gone nevertheless (an older kernel; a flush while nobody owned them), it has an engine come, which writes them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

from ..linux import inotify, process
from ..linux.netlink import changes, wire
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
# Any command has an engine come; this one asks it for nothing.
_COMMAND = (
    "import sys; sys.path.append(sys.argv.pop(1)); from orlop.frontends.cli.main import entry; entry()",
    "ps",
    "-q",
)


def start(run: str) -> None:
    """Leave a sweeper behind. run: $ORLOP_RUN. Raises OSError."""
    launch(command(run))


def command(run: str) -> list[str]:
    """Return the argv of a sweeper. run: $ORLOP_RUN."""
    return [*_interpreter(_BOOTSTRAP), run]


def _interpreter(code: str) -> list[str]:
    cache = ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()
    return [sys.executable, "-I", "-S", "-X", "utf8", *cache, "-c", code, _PACKAGE_PARENT]


def launch(argv: list[str]) -> None:
    """Start a program that outlives its parent. Raises OSError."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)


def main(run: str) -> None:
    """Be the sweeper."""
    process.close_all_except({0, 1, 2})
    process.set_title(TITLE)
    process.set_name("orlop")
    os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
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
    with _Told(run) as told, Rtnetlink() as route, Nftables() as nft:
        lock = _lock(f"{run}/{ENGINE_LOCK}", LOCK_WAIT_S_MAX)
        if lock is None:
            return
        try:
            told.is_owner = firewall.hold(nft, footprint.table)
            firewall.hold(nft, footprint.egress_table)  # if its resolver was killed, too
        finally:
            os.close(lock)
        while True:
            while footprint.is_used(route):
                # What lies on a parent (macvlan, ipvlan) has no rules that could be gone.
                if not told.is_owner and footprint.is_bridged(route) and not firewall.is_there(nft, footprint.table):
                    _have_an_engine()
                told.wait()
            lock = _lock(f"{run}/{ENGINE_LOCK}", LOCK_WAIT_S_MAX)
            if lock is None:
                return
            try:
                if not footprint.is_used(route):
                    footprint.remove(route, nft)
                    return
            finally:
                os.close(lock)


class _Told:
    """Becomes ready when links, monitors or, where anybody can flush them, rules have changed."""

    def __init__(self, run: str) -> None:
        self.is_owner = False
        self._links = changes.Changes(changes.LINKS)
        self._rules = changes.Changes(changes.RULES, protocol=wire.NETFILTER)
        self._ends = _watch_monitors(f"{run}/tasks")

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._links.close()
        self._rules.close()
        if self._ends >= 0:
            os.close(self._ends)

    def wait(self) -> None:
        others = [] if self.is_owner else [self._rules.fileno()]
        if self._ends >= 0:
            others.append(self._ends)
        self._links.wait(LOOK_S_MAX, *others)
        self._rules.drain()
        if self._ends >= 0:
            inotify.discard_events(self._ends)


def _watch_monitors(tasks: str) -> int:
    """Return what is ready when a monitor has ended, -1 where that can't be.

    What lies on a parent (macvlan) is in other namespaces: no link that changes here tells of its end.
    """
    try:
        names, fd = os.listdir(tasks), inotify.init()
    except OSError:
        return -1
    for name in names:
        try:
            inotify.add_watch(fd, f"{tasks}/{name}", inotify.IN_DELETE)
        except OSError:
            pass  # it has ended, or has to wait for LOOK_S_MAX
    return fd


def _have_an_engine() -> None:
    """Have an engine come, which ends us."""
    code, *words = _COMMAND
    try:
        launch([*_interpreter(code), *words])
    except OSError:
        pass  # tried again at the next look


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
