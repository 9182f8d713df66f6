"""What connects an ordinary user's network namespace with the machine's: pasta(1), else slirp4netns(1).

Both are ordinary programs of the user's: they open sockets in the machine's namespace for whatever connections the
containers make. They run on when the engine ends; keeper.json says which process it is (writer: the engine).
"""

from __future__ import annotations

import functools
import os
import select
import shutil
import signal
import time
from _socket import AF_INET
from _thread import allocate_lock

from ...linux import process
from ...linux.netlink import namespace
from ...linux.netlink.rtnetlink import Rtnetlink
from . import keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

READY_S_MAX = 20.0
MTU = 65520  # the largest that both take; there is no wire
_POLL_S = 0.01
TUN = "/dev/net/tun"
PASTA, SLIRP = "pasta", "slirp4netns"


class Uplink:
    """The uplink of one run directory. For root there is nothing to do: the machine's own namespace is outside."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._lock = allocate_lock()

    def ensure(self) -> str:
        """Start what connects, unless it runs, or this is root's engine; return what is wrong, "" for nothing."""
        with self._lock:
            found = keeper.find(self._run)
            if found is None:
                return ""
            held, pidfd = found
            try:
                return "" if _lives(held) else self._start(held)
            finally:
                os.close(pidfd)

    def process(self) -> tuple[int, int]:
        """Return (pid, start time) of what connects, (0, 0) while nothing does."""
        found = keeper.find(self._run)
        if found is None:
            return 0, 0
        os.close(found[1])
        return found[0].uplink, found[0].uplink_start_time

    def _start(self, held: keeper.Keeper) -> str:
        program = next((name for name in (PASTA, SLIRP) if shutil.which(name)), "")
        if not program:
            return "neither pasta (package passt) nor slirp4netns is installed"
        if not os.access(TUN, os.R_OK | os.W_OK):
            return f"{program} needs {TUN}, which you may not open"
        path = shutil.which(program) or program
        said = _notes()
        netns = f"{self._run}/{keeper.NETWORK_FILE}"
        argv = _pasta(netns) if program == PASTA else _slirp(netns)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, said, 2),
        ]
        try:
            pid = namespace.outside(functools.partial(_spawn, path, argv, actions))
            pidfd = process.pidfd_open(pid)
            try:
                trouble = _wait_for_link(pidfd, said)
            finally:
                os.close(pidfd)
        except OSError as failure:
            return f"{path}: {failure.strerror}"
        finally:
            os.close(said)
        if not trouble:
            uplink = held.replace(uplink=pid, uplink_start_time=process.start_time(pid))
            keeper.save(self._run, uplink)
        return f"{program}: {trouble}" if trouble else ""


def _notes() -> int:
    """Return a memory file for standard error. Not a pipe: slirp4netns talks after its link is up, and who writes to a
    pipe that nobody reads any more is killed. What does not fit is lost, so it takes no memory however long it runs."""
    import fcntl

    notes = os.memfd_create("uplink", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(notes, keeper.SAID_BYTES_MAX)
    fcntl.fcntl(notes, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return notes


def _spawn(path: str, argv: list[str], actions: Sequence[tuple[object, ...]]) -> int:
    # Python ignores SIGPIPE, and pasta takes a signal that was ignored before for a failure (passt 2023).
    return os.posix_spawn(path, argv, os.environ, file_actions=actions, setsid=True, setsigdef=(signal.SIGPIPE,))


def _lives(held: keeper.Keeper) -> bool:
    if not held.uplink:
        return False
    try:
        pidfd = process.pidfd_of(held.uplink, held.uplink_start_time)
    except OSError:
        return False
    try:
        if not process.has_ended(pidfd):
            return True
        os.waitpid(held.uplink, os.WNOHANG)  # or it would stay as a zombie of ours
    except ChildProcessError:
        pass  # an earlier engine's
    finally:
        os.close(pidfd)
    return False


def _pasta(netns: str) -> list[str]:
    # Nothing listens on its own: published ports are the relays'. Addresses and routes are the machine's.
    quiet = ["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw", "--quiet"]
    return [PASTA, "--config-net", "--foreground", *quiet, "--netns", netns]


def _slirp(netns: str) -> list[str]:
    own = ["--netns-type=path", netns, "tap0"]
    return [SLIRP, "--configure", f"--mtu={MTU}", "--disable-host-loopback", *own]


def _wait_for_link(pidfd: int, said: int) -> str:
    """Wait until this namespace has a way to the outside; return what is wrong, "" for nothing."""
    deadline = time.monotonic() + READY_S_MAX
    told = b""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while time.monotonic() < deadline:
        if _has_route():
            return ""
        if poll.poll(_POLL_S * 1000):
            told = os.pread(said, keeper.SAID_BYTES_MAX, 0).partition(b"\0")[0]
            lines = told.decode(errors="replace").strip().splitlines()
            return lines[-1][:200] if lines else "it died"
    return f"there was no way to the outside after {READY_S_MAX:.0f} s"


def _has_route() -> bool:
    with Rtnetlink() as route:
        return any(found.is_way_out for found in route.routes(AF_INET))
