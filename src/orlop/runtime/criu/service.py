"""One request to CRIU: the worker process, the conversation with it, and what it says when it fails.

    caller                                   criu swrk FD
      |------------- request ------------------>|
      |<------------ NOTIFY (script, pid) ------|  at points of its work, as "network-lock" or "post-restore"
      |------------- NOTIFY, success ---------->|
      |<------------ response ------------------|  and it ends

Source: rpc.proto and cr-service.c of CRIU; criu(8), "swrk".
"""

from __future__ import annotations

import fcntl
import os
import sys
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET, socketpair

from ...linux import process
from ...spec import protobuf
from ...spec.errors import Internal, OrlopError, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...spec.protobuf import Message

    # Called with the script's name, the pid that came with it (0: none) and a descriptor (-1: none), which it closes.
    Notified = Callable[[str, int, int], None]

DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10  # enum criu_req_type
MEM_TRACK, LAZY_PAGES = 1, 2  # fields of criu_features
_TYPE, _OPTS, _NOTIFY_SUCCESS, _FEATURES = 1, 2, 3, 5  # fields of criu_req
_SUCCESS, _NOTIFIED, _FEATURES_FOUND, _ERRMSG, _VERSION = 2, 5, 8, 9, 10  # fields of criu_resp

_MESSAGE_BYTES_MAX = 64 * 1024
_LOG_BYTES_READ = 64 * 1024
_ERRORS_SHOWN = 3
_SOCK_SEQPACKET = 5
_SOCK_CLOEXEC = 0o2000000
_INT_BYTES = 4
SOCKET_FD = 3  # in the worker; what else it gets follows
FIRST_EXTRA_FD = SOCKET_FD + 1
_FIRST_FREE_FD = 64  # above everything that the worker gets


class Criu:
    """The CRIU at `program`, found on PATH. Raises Unavailable when there is none."""

    def __init__(self, program: str = "") -> None:
        import shutil

        found = shutil.which(program or "criu")
        if found is None:
            raise Unavailable(
                "find", program or "criu", f'there is no program "{program or "criu"}" on PATH',
                hint="install CRIU (Debian, Fedora: the package criu), or name it with --criu",
            )  # fmt: skip
        self.program = found

    def request(
        self,
        kind: int,
        options: Message = (),
        *,
        features: Message = (),
        notified: Notified | None = None,
        descriptors: Sequence[int] = (),
        started: Callable[[int], Message] | None = None,
    ) -> dict[int, list[int | bytes]]:
        """Make one request and return the fields of CRIU's response.

        descriptors: the worker gets them from FIRST_EXTRA_FD on. started: called with the worker's pid before the
        request is sent; what it returns is added to the options.
        Raises Refused when CRIU says no or dies; an OrlopError of `notified` or `started` as it is.
        """
        worker = _Worker(self.program, descriptors)
        try:
            if started:
                options = (*options, *started(worker.pid))
            message: list[tuple[int, int | str | Message]] = [(_TYPE, kind)]
            message += [(_OPTS, options)] if options else []
            message += [(_FEATURES, features)] if features else []
            worker.send(tuple(message))
            while True:
                response, fd = worker.receive()
                if protobuf.number(response, _TYPE) != NOTIFY:
                    break
                worker.send(((_TYPE, NOTIFY), (_NOTIFY_SUCCESS, _notify(notified, response, fd))))
        finally:
            worker.close()
        if not protobuf.number(response, _SUCCESS):
            raise Refused(protobuf.text(response, _ERRMSG))
        return response

    def version(self) -> str:
        """Return the version, "4.1" or "4.1.1"."""
        fields = protobuf.decode(protobuf.inner(self.request(VERSION), _VERSION))
        numbers = [
            protobuf.number(fields, 1),
            protobuf.number(fields, 2),
            *([protobuf.number(fields, 4)] if 4 in fields else []),
        ]
        return ".".join(map(str, numbers))

    def require(self, feature: int, name: str) -> None:
        """Raises Unsupported when CRIU, with this kernel, lacks a feature: MEM_TRACK or LAZY_PAGES."""
        answer = self.request(FEATURE_CHECK, features=((feature, True),))
        found = protobuf.decode(protobuf.inner(answer, _FEATURES_FOUND))
        if not protobuf.number(found, feature):
            raise Unsupported(
                "checkpoint with", name, f"CRIU {self.version()} does not have it with the kernel {os.uname().release}",
                hint=f"leave it out; see: {self.program} check --all",
            )  # fmt: skip

    def explain(self, verb: str, container: str, refused: Refused, log: str) -> OrlopError:
        """Return the error of a refused request: CRIU's last words, or why it can't work with this kernel at all."""
        if problem := self._problem_with_the_kernel():
            return Unavailable(
                verb, f"container {container}",
                f"CRIU {self.version()} does not work with the kernel {os.uname().release}: {problem}",
                hint="install a newer CRIU",
            )  # fmt: skip
        said = "; ".join(errors_of(_tail(log))) or str(refused) or "it gave no reason"
        return Unavailable(verb, f"container {container}", f"CRIU: {said}", hint=f"its whole log is {log}")

    def _problem_with_the_kernel(self) -> str:
        """Return what `criu check` complains of, "" when it is content."""
        printed = os.memfd_create("criu")
        try:
            streams = [(os.POSIX_SPAWN_DUP2, printed, 1), (os.POSIX_SPAWN_DUP2, printed, 2)]
            pid = os.posix_spawn(self.program, [self.program, "check"], os.environ, file_actions=streams)
            if os.waitpid(pid, 0)[1] == 0:
                return ""
            os.lseek(printed, 0, os.SEEK_SET)
            return "; ".join(errors_of(os.read(printed, _LOG_BYTES_READ))) or "criu check fails"
        finally:
            os.close(printed)


class Refused(Exception):
    """CRIU did not do what it was asked for. str() is its own word for it, mostly empty: the log has more."""


class _Worker:
    """A `criu swrk` process and the socket to it. `close` reaps it."""

    __slots__ = ("_socket", "pid")

    def __init__(self, program: str, descriptors: Sequence[int]) -> None:
        ours, theirs = socketpair(AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC)
        # Copies above every number that the worker shall see: no dup2 hits one that is still needed.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in (theirs.fileno(), *descriptors)]
        try:
            places = [(os.POSIX_SPAWN_DUP2, fd, SOCKET_FD + place) for place, fd in enumerate(copies)]
            argv = [program, "swrk", str(SOCKET_FD)]
            self.pid = os.posix_spawn(program, argv, os.environ, file_actions=places)
        except OSError as failure:
            ours.close()
            raise Unavailable("start", program, failure.strerror or str(failure)) from None
        finally:
            theirs.close()
            for fd in copies:
                os.close(fd)
        self._socket = ours

    def send(self, message: Message) -> None:
        try:
            self._socket.sendmsg([protobuf.encode(message)], [], MSG_NOSIGNAL)
        except OSError:
            pass  # it has died; what it said before, or the end of file, is read next

    def receive(self) -> tuple[dict[int, list[int | bytes]], int]:
        """Return (message, descriptor that came with it or -1)."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_MESSAGE_BYTES_MAX, CMSG_SPACE(_INT_BYTES), MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            data, ancillary = b"", []
        if not data:
            raise Refused("it died")
        fds = [payload for level, kind, payload in ancillary if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)]
        try:
            return protobuf.decode(data), int.from_bytes(fds[0][:_INT_BYTES], sys.byteorder) if fds else -1
        except ValueError as wrong:
            raise Internal("read", "CRIU's answer", str(wrong)) from None

    def close(self) -> None:
        self._socket.close()
        pidfd = process.pidfd_open(self.pid)
        try:
            process.wait_pidfd(pidfd)
        finally:
            os.close(pidfd)


def _notify(notified: Notified | None, response: dict[int, list[int | bytes]], fd: int) -> bool:
    script = protobuf.decode(protobuf.inner(response, _NOTIFIED))
    if notified:
        notified(protobuf.text(script, 1), protobuf.number(script, 2), fd)
    return True


def errors_of(log: bytes) -> list[str]:
    """Return the last lines of a log that are errors, without their place in CRIU's source."""
    lines = [line for line in log.decode(errors="replace").splitlines() if "Error" in line]
    return [line.partition("): ")[2].strip() or line.strip() for line in lines[-_ERRORS_SHOWN:]]


def _tail(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES_READ))
            return file.read()
    except OSError:
        return b""
