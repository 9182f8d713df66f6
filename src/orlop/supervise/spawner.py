"""The spawner: a small warm process that does nothing but fork. Its children become monitors.

    engine --SEQPACKET: one Start message + descriptors--> spawner --fork, or the spare one--> monitor

While nobody wants anything, a spare monitor and its launcher wait, forked and rehearsed: whoever wants the next process
does not wait for that (docs/adr/0015-a-spare-monitor.md). In a burst of starts, and when somebody killed the spare one,
a monitor is forked as it is wanted.

Invariants:
1. One thread, no state: a message is received, passed to a child, and its descriptors are closed. What it says is read
   in the child, so that no message can harm the spawner.
2. Everything that monitors and inits need is imported before the first fork, and shared by all of them.
3. It ends with the engine's end of the socket. Its children do not.
4. A message without descriptors is the engine's will: the command that is started in the spawner's place when the
   engine is gone. It is kept, not read; a later one takes its place. An heir keeps it too, for whoever kills the
   engine and the spawner.

Why a process of its own: the engine has threads, and a fork of a process with threads may hang (orlop.linux.process);
and a fork costs by the size of the parent, which here stays at what was imported.
"""

import gc
import os
import resource
import select
import time
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_STREAM, socket

from .. import frozen
from ..linux import process, signals
from ..runtime import host
from ..spec.attach import STDOUT
from ..spec.errors import Unavailable
from ..spec.record import prepare
from ..spec.task import FDS_MAX, MESSAGE_BYTES_MAX
from . import monitor, packet
from .launcher import HANDOVER_BYTES_MAX, HANDOVER_FDS_MAX, Handover, Inherited, Reply
from .log import Framer, timestamp
from .loop import Loop
from .stdio import Input, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

REHEARSALS = 10
SPARE_AFTER_MS = 10  # without a message: in a burst, a spare one would only take its turn of the processor
LATE_S = 0.004
POOL_BYTES, POOL_HEADER_BYTES = 16 * 1024, 48  # of CPython 3.10 and newer; where they differ, less is gained
FLOAT_BYTES = 32  # in the pools, as much as that takes; an object() takes 16
FILLED_MAX = 4096  # objects of a size
_KEPT: list[object] = []
PAUSE_MS_MAX = 640


def main(fd: int, nofile: int = 0) -> None:
    """Serve the engine at the other end of a SEQPACKET socket until it is gone.

    nofile: the soft limit of descriptors that containers begin with, 0 for ours: the engine has raised its own.
    """
    if nofile:
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    signals.reset_all()
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # the kernel reaps the monitors (sigaction(2))
    # Nothing but SIGKILL ends a monitor, and all that they have in common is done here, once.
    signals.pthread_sigmask(signals.SIG_SETMASK, signals.valid_signals())
    process.close_all_except({fd})
    area = process.title_area()
    process.set_title("orlop: spawner", area)
    process.set_name("orlop")
    os.chdir("/")
    os.umask(0o022)
    engine = socket(fileno=fd)
    inherited = Inherited(host.facts(), area)
    _warm_up()
    served = _Served(engine)
    _serve(served, fd, inherited)
    _execute(served.will)
    served.dismiss()


class _Served:
    """The engine, its will, and who keeps that too: a pidfd, -1 without one."""

    __slots__ = ("heir", "socket", "will")

    def __init__(self, engine: socket) -> None:
        self.socket = engine
        self.will = b""
        self.heir = -1

    def close(self) -> None:
        """Let go of them: in a child that is to know neither."""
        self.socket.close()
        if self.heir >= 0:
            os.close(self.heir)

    def dismiss(self) -> None:
        """End the heir, if there is one."""
        if self.heir >= 0:
            try:
                signals.pidfd_send_signal(self.heir, signals.SIGKILL)
            except ProcessLookupError:
                pass  # it was killed
            os.close(self.heir)
            self.heir = -1


def _serve(engine: _Served, fd: int, inherited: Inherited) -> None:
    """Fork what is asked for until the engine is gone."""
    spare: socket | None = None
    while True:
        if spare is None and _is_quiet(fd):
            spare = _fork_spare(engine, inherited)
        message = packet.receive(engine.socket, MESSAGE_BYTES_MAX, FDS_MAX)
        if not message.fds:
            if message.data:
                engine.will = message.data
                _fork_heir(engine, fd, inherited)
            elif _wakes(fd, select.POLLRDHUP, 0):
                return  # an empty message looks like the end of the connection; only the end hangs up
            continue
        if spare is None or not _pass(message, spare):
            _fork(message, engine, inherited)
        for one in message.fds:
            os.close(one)
        if spare is not None:
            spare.close()
            spare = None


def _fork_heir(engine: _Served, fd: int, inherited: Inherited) -> None:
    """Have a process that does nothing but execute the will when the engine and the spawner have both ended."""
    engine.dismiss()
    if not engine.will.strip(b"\0"):
        return
    watched: list[int] = []
    try:
        watched += os.pidfd_open(os.getppid()), os.pidfd_open(os.getpid())
        # The parent of who has lost its own is another one; but that one had not hung up.
        pid = os.fork() if not _wakes(fd, select.POLLRDHUP, 0) else -1
        if pid == 0:
            _inherit(engine.will, watched, inherited)
        if pid > 0:
            engine.heir = os.pidfd_open(pid)
    except OSError:
        pass  # of the few that are left to execute it, one is enough
    for one in watched:
        os.close(one)


def _inherit(will: bytes, watched: list[int], inherited: Inherited) -> "NoReturn":
    """Be the heir."""
    try:
        process.close_all_except(set(watched))
        os.setsid()
        os.dup2(1, 2)  # /dev/null, as a monitor's
        process.set_title("orlop: heir", inherited.title_area)
        for one in watched:
            _wakes(one, select.POLLIN, -1)
        _execute(will)
    finally:
        os._exit(0)


def _execute(will: bytes) -> None:
    """Start what an engine wants started that was killed. will: its words, each with a NUL behind it."""
    argv = [os.fsdecode(word) for word in will.split(b"\0") if word]
    if argv:
        nowhere = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
        try:
            os.posix_spawn(
                argv[0],
                argv,
                os.environ,
                file_actions=nowhere,
                setsid=True,
                setsigmask=(),
                setsigdef=(signals.SIGCHLD,),
            )
        except OSError:
            pass  # nobody is left to be told


def _warm_up() -> None:
    """Do now what every child would do again for itself: a page that is written after the fork is not shared."""
    import _blake2  # noqa: F401
    import encodings.ascii
    import encodings.latin_1
    import encodings.utf_8  # noqa: F401

    # What a plan imports where it needs it: the launchers share it. But for the seccomp compiler, whose programs are
    # kept.
    from ..runtime import resources, seccomp_flags  # noqa: F401
    from ..runtime.operations import seccomp  # noqa: F401
    from ..runtime.planning import mounts  # noqa: F401

    prepare()
    for _ in range(REHEARSALS):
        _rehearse()
    frozen.freeze()
    gc.collect()
    gc.freeze()
    _KEPT.extend(_fill_pools())


def _fill_pools() -> list[object]:
    """Return what takes the free blocks of the interpreter's pools, one size after the other.

    What a monitor allocates then lies side by side in pools of its own (Objects/obmalloc.c), not in the gaps between
    what all share: 75 KiB less of copied pages for each.
    """
    kept: list[object] = []
    empty = b"".__sizeof__()
    for size in range(16, 513, 16):
        for _ in range(FILLED_MAX):
            one = bytes(size - empty) if size > empty else float(len(kept)) if size == FLOAT_BYTES else object()
            if id(one) % POOL_BYTES == POOL_HEADER_BYTES:
                break  # the first of a new pool, which is given back
            kept.append(one)
    return kept


def _rehearse() -> None:
    """Run what a monitor will run, on a pipe and without a process.

    The interpreter rewrites a function when it has run a few times (PEP 659); done here, once, that saves each monitor
    100 KiB of pages of its own.
    """
    ours, theirs = packet.pair()
    packet.send(theirs, Handover("", "", "", "").encode(), [0])
    message = packet.receive(ours, HANDOVER_BYTES_MAX, HANDOVER_FDS_MAX)
    Handover.decode(message.data)
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.write(write, b"a line\n")
    framer, loop = Framer(STDOUT), Loop()
    output = Output(loop, read, STDOUT, lambda _, data: framer.feed(data, timestamp(0)))
    output.resume()
    loop.turn()
    output.close()
    Input(loop, write).close()
    loop.close()
    for fd in message.fds:
        os.close(fd)
    _rehearse_taking_over(ours)
    theirs.close()


def _rehearse_taking_over(client: socket) -> None:
    """Make a monitor of nothing, and let go of it. client: owned."""
    root, (exit_fd, stdout), (stderr, other) = os.open("/", os.O_PATH | os.O_CLOEXEC), os.pipe(), os.pipe()
    directories = os.dup(root), root
    listener = socket(AF_UNIX, SOCK_STREAM)
    places = (os.pidfd_open(os.getpid()), listener.detach(), *directories, exit_fd)
    made = monitor.Monitor(Handover("", "", "", ""), (*places, stdout, stderr), [client])
    made.close()
    for fd in (exit_fd, stdout, stderr, other):
        os.close(fd)


def _wakes(fd: int, events: int, timeout_ms: int) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout_ms))


def _is_quiet(fd: int) -> bool:
    """Wait for a moment without a message, on a machine that is not so busy that the moment lasts longer.

    False when a message comes first.
    """
    pause_ms = SPARE_AFTER_MS
    while True:
        begun = time.monotonic()
        if _wakes(fd, select.POLLIN, pause_ms):
            return False
        if time.monotonic() - begun < pause_ms / 1000 + LATE_S:
            return True
        pause_ms = min(2 * pause_ms, PAUSE_MS_MAX)


def _fork_spare(engine: _Served, inherited: Inherited) -> socket | None:
    """Return the way to a monitor that waits for its message, None when there is none to be had."""
    ours, theirs = packet.pair()
    try:
        pid = os.fork()
    except OSError:
        theirs.close()
        ours.close()
        return None
    if pid == 0:
        engine.close()
        ours.close()
        monitor.spare(theirs, inherited)
    theirs.close()
    return ours


def _pass(message: packet.Message, spare: socket) -> bool:
    """Give a message to the spare monitor; tell whether it was taken."""
    if message.is_cut:
        return False
    try:
        packet.send(spare, message.data, message.fds, MSG_DONTWAIT)
    except OSError:
        return False  # it was killed, or the message does not fit
    return True


def _fork(message: packet.Message, engine: _Served, inherited: Inherited) -> None:
    try:
        pid = os.fork()
    except OSError as failure:
        _refuse(message, failure)
        pid = -1
    if pid == 0:
        engine.close()
        monitor.main(message, inherited)


def _refuse(message: packet.Message, failure: OSError) -> None:
    error = Unavailable(
        "start", "a monitor", f"fork: {failure.strerror}", hint="end some processes and try again", code="E1205"
    )
    try:
        Reply(os.dup(message.fds[0])).failed(error)
    except (IndexError, OSError):
        pass
