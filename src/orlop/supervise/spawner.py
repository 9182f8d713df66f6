"""The spawner: a small warm process that does nothing but fork. Its children become monitors.

    engine --SEQPACKET: one Start message + descriptors--> spawner --fork--> monitor

Invariants:
1. One thread, no state: a message is received, a child is forked, its descriptors are closed. What the message says is
   read in the child, so that no message can harm the spawner.
2. Everything that monitors and inits need is imported before the first fork, and shared by all of them.
3. It ends with the engine's end of the socket. Its children do not.

Why a process of its own: the engine has threads, and a fork of a process with threads may hang (orlop.linux.process);
and a fork costs by the size of the parent, which here stays at what was imported.
"""

import gc
import os
import select
import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_TRUNC, SCM_RIGHTS, SOL_SOCKET, socket

from ..linux import process, signals
from ..spec.errors import Unavailable
from ..spec.task import MESSAGE_BYTES_MAX
from . import monitor

FDS_MAX = 2
_INT_BYTES = 4


def main(fd: int) -> None:
    """Serve the engine at the other end of a SEQPACKET socket until it is gone."""
    signals.reset_all()
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # the kernel reaps the monitors (sigaction(2))
    process.close_all_except({fd})
    process.set_title("orlop: spawner")
    process.set_name("orlop-spawner")
    os.chdir("/")
    os.umask(0o022)
    engine = socket(fileno=fd)
    _warm_up()
    while True:
        data, fds, is_cut = _receive(engine)
        if not data and not fds and _is_gone(fd):
            return
        _fork(data, fds, is_cut)


def _warm_up() -> None:
    """Do now what the first child would do alone: a page that is written after the fork is not shared."""
    import encodings.ascii
    import encodings.latin_1
    import encodings.utf_8  # noqa: F401

    gc.collect()
    gc.freeze()


def _receive(engine: socket) -> tuple[bytes, list[int], bool]:
    """Return the next message, its descriptors, and whether a part of either did not fit."""
    space = CMSG_SPACE(FDS_MAX * _INT_BYTES)
    data, ancillary, flags, _ = engine.recvmsg(MESSAGE_BYTES_MAX, space, MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            whole = len(packed) - len(packed) % _INT_BYTES
            fds += [int.from_bytes(packed[at : at + _INT_BYTES], sys.byteorder) for at in range(0, whole, _INT_BYTES)]
    return data, fds, bool(flags & (MSG_TRUNC | MSG_CTRUNC))


def _is_gone(fd: int) -> bool:
    # An empty message looks like the end of the connection; only the end hangs up.
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def _fork(data: bytes, fds: list[int], is_cut: bool) -> None:
    try:
        pid = os.fork()
    except OSError as failure:
        _refuse(fds, failure)
        return
    if pid == 0:
        monitor.main(data, fds, is_cut)
    for fd in fds:
        os.close(fd)


def _refuse(fds: list[int], failure: OSError) -> None:
    error = Unavailable("start", "a monitor", f"fork: {failure.strerror}", hint="end some processes and try again")
    try:
        monitor.Reply(fds.pop(0)).failed(error)
    except (IndexError, OSError):
        pass
    for fd in fds:
        os.close(fd)
