"""An engine that asks before each step to the kernel: a test lets it go on, kills it there, or has that call fail.

The engine is the real one, under a seccomp filter whose listener is ours (seccomp_unotify(2)). What its children do is
let through, and not counted.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from orlop.linux import abi, process, seccomp, syscalls
from orlop.linux.netlink import wire

from . import processes
from .engine import Environment
from .seccomp_agent import RECEIVE, REQUEST_BYTES, SEND
from .tasks import wait_until

NETLINK = ("sendto",)
FILES = ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "write")
ANSWERS = ("recvmsg",)
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_LISTENER = seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER | seccomp.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
_SO_DOMAIN = 39

Decide = Callable[[int], int]  # of a step's ordinal, from 1: 0 lets it go on, an errno has it fail, -1 kills the engine


def _program(numbers: Collection[int]) -> bytes:
    """Return a filter that asks about these calls, and allows the others."""
    ask = [struct.pack("=HBBI", 0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    load, allow, notify = (
        struct.pack("=HBBI", code, 0, 0, value) for code, value in ((0x20, 0), (0x06, 0x7FFF0000), (0x06, 0x7FC00000))
    )
    return b"".join((load, *ask, allow, notify))


class Stepped:
    """An engine that is asked about. begin: from the next step on, decide says what becomes of it; end: nobody asks."""

    def __init__(self, orlop: Environment, names: Collection[str]) -> None:
        self.orlop = orlop
        known = syscalls.numbers(abi.MACHINE)
        self._numbers = {known[name]: name for name in names if name in known}
        self._lock = threading.Lock()
        self._decide: Decide | None = None
        self.steps: list[str] = []
        self.failed = ""  # the step that was failed, or before which the engine was killed
        ours, theirs = socket.socketpair()

        def enter() -> None:
            listener = seccomp.load(_program(list(self._numbers)), _LISTENER)
            theirs.sendmsg([b"l"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener or 0]))])

        with theirs:
            self.engine = orlop.popen("serve", preexec_fn=enter, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with ours:
            _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        self._listener = array.array("i", ancillary[0][2])[0]
        self._start = processes.start_time(self.engine.pid)
        self._pidfd = os.pidfd_open(self.engine.pid)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        wait_until(lambda: orlop.engine_pid() == self.engine.pid)

    def begin(self, decide: Decide) -> None:
        with self._lock:
            self.steps, self.failed, self._decide = [], "", decide

    def end(self) -> None:
        with self._lock:
            self._decide = None

    def close(self) -> None:
        """The engine has ended, or is ended; its children go on, unasked as long as we live."""
        self.end()
        processes.kill(self.engine.pid, self._start)
        self.engine.wait()
        os.close(self._pidfd)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        own: dict[int, bool] = {}
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            request = bytearray(REQUEST_BYTES)
            try:
                fcntl.ioctl(self._listener, RECEIVE, request)
            except (FileNotFoundError, InterruptedError):
                continue
            identity, thread, _, number, _, _, fd, _, _, _, where, _ = struct.unpack_from("=QIIiIQ6Q", request)
            if thread not in own:
                own[thread] = os.path.exists(f"/proc/{self.engine.pid}/task/{thread}")
            answer = self._answer(self._numbers[number], fd, where) if own[thread] else 0
            if answer < 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                continue
            reply = struct.pack("=QqiI", identity, 0, -answer, 0 if answer else _CONTINUE)
            with contextlib.suppress(FileNotFoundError):  # it was killed meanwhile
                fcntl.ioctl(self._listener, SEND, reply)
        os.close(self._listener)

    def _answer(self, name: str, fd: int, where: int) -> int:
        with self._lock:
            if self._decide is None or (name == "sendto" and not where):  # of a socket that is connected
                return 0
            if name == "recvmsg" and not self._is_netlink(fd):
                return 0
            self.steps.append(name)
            answer = self._decide(len(self.steps))
            if answer and not self.failed:
                self.failed = name
            return answer

    def _is_netlink(self, fd: int) -> bool:
        try:
            copy = process.pidfd_getfd(self._pidfd, fd)
        except OSError:
            return False
        with socket.socket(fileno=copy) as one:
            return one.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN) == wire.AF_NETLINK


@contextmanager
def stepped(orlop: Environment, names: Collection[str]) -> Iterator[Stepped]:
    engine = Stepped(orlop, names)
    try:
        yield engine
    finally:
        engine.close()


def kills(at: int) -> Decide:
    """Kill the engine before its step of this number."""
    return lambda number: -1 if number == at else 0


def fails(at: int, code: int = errno.ENOBUFS) -> Decide:
    """Have the step of this number fail."""
    return lambda number: code if number == at else 0
