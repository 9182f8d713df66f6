"""The conversation of a start: one SEQPACKET socket pair, one message a packet.

    caller                                        init
      |  clone3                                     |
      |-------------- PREPARED -------------------->|  its cgroup, id maps and OOM score are set
      |                                             |  namespaces, mounts, devices
      |<------------- CREATED ----------------------|  only with hooks: before pivot_root
      |-------------- HOOKED ---------------------->|  prestart and createRuntime hooks have run
      |                                             |  pivot_root, identity, command found
      |<------------- READY (+ pty master) ---------|
      |  limits                                     |
      |-------------- START ----------------------->|
      |                                             |  seccomp
      |<------------- LISTENER + number ------------|  only with SCMP_ACT_NOTIFY (orlop.runtime.notify)
      |-------------- TAKEN ----------------------->|
      |                                             |  execve
      |<------------- end of file ------------------|  the socket is close-on-exec: execve succeeded
      |
      |<------------- FAILED + JSON ----------------|  instead of any message of init's: OrlopError.to_json
                                                       and "trace" for a defect

End of file before READY, or after START from a process that has died, means that init was killed.
"""

from __future__ import annotations

import os
import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SO_SNDTIMEO,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)

from ..spec import errors, jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .notify import Delivery

PREPARED = b"P"
CREATED = b"C"
HOOKED = b"H"
READY = b"R"
START = b"S"
ENTERED = b"E"  # at a gate only (orlop.runtime.gate)
LISTENER = b"L"
TAKEN = b"T"
FAILED = b"F"

MESSAGE_BYTES_MAX = 64 * 1024
HAND_OVER_S_MAX = 60  # until somebody who listens takes a terminal: longer than any engine needs, and no hang
_SOCK_SEQPACKET = 5
_SOCK_CLOEXEC = 0o2000000
_INT_BYTES = 4


class Channel:
    """One end. Not inherited by an executed program."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def reopen(self, end: socket) -> None:
        """Go on with another peer."""
        self._socket = end

    def send(self, message: bytes, fd: int = -1) -> None:
        """Send one message, with one descriptor if given. Raises OSError (EPIPE) when the other end has gone."""
        ancillary = [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(_INT_BYTES, sys.byteorder))] if fd >= 0 else []
        self._socket.sendmsg([message], ancillary, MSG_NOSIGNAL)

    def receive(self) -> tuple[bytes, int]:
        """Return (message, descriptor or -1); (b"", -1) at the end of file."""
        try:
            data, ancillary, _, _ = self._receive()
        except ConnectionResetError:
            # It died with a message of ours unread. That is told once, ahead of what it said before (unix(7)).
            data, ancillary, _, _ = self._receive()
        for level, kind, payload in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                return data, int.from_bytes(payload[:_INT_BYTES], sys.byteorder)
        return data, -1

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        return self._socket.recvmsg(MESSAGE_BYTES_MAX, CMSG_SPACE(_INT_BYTES), MSG_CMSG_CLOEXEC)

    def expect(self, wanted: bytes) -> None:
        """Wait for this message. Raises BrokenPipeError for the end of file: the caller gave up, or has died."""
        message, _ = self.receive()
        if message != wanted:
            raise BrokenPipeError(f"the message {wanted!r} was expected, {message!r} came")

    def last_message(self, delivery: Delivery | None) -> bytes:
        """Return what init says last, b"" when it executed its command; a listener is passed on in between."""
        message, _ = self.receive()
        if delivery is not None and message.startswith(LISTENER):
            delivery.take(self, message)
            message, _ = self.receive()
        return message

    def send_failure(self, failure: errors.OrlopError, trace: str = "") -> None:
        """Send an error; nobody may be listening any more."""
        value = failure.to_packet()
        if trace:
            value["trace"] = trace[-MESSAGE_BYTES_MAX // 4 :]
        try:
            self.send(FAILED + jsonio.dump(value))
        except OSError:
            pass


def send_descriptor(path: str, fd: int, data: bytes) -> None:
    """Send a descriptor and data, in one message, to the unix stream socket at path. Raises Unavailable."""
    sock = socket(AF_UNIX, SOCK_STREAM | _SOCK_CLOEXEC)
    # struct timeval. It holds for connect(2), too, which waits while the queue of who listens is full (unix(7)).
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, HAND_OVER_S_MAX.to_bytes(8, sys.byteorder) + bytes(8))
    # By descriptor: a socket's path may have 107 bytes (unix(7)), the caller's may be longer.
    directory = -1
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(_INT_BYTES, sys.byteorder))], MSG_NOSIGNAL)
    except BlockingIOError:
        raise errors.Unavailable("send a descriptor to", path, f"nobody took it for {HAND_OVER_S_MAX} s") from None
    except OSError as failure:
        raise errors.Unavailable("send a descriptor to", path, failure.strerror or str(failure)) from None
    finally:
        sock.close()
        if directory >= 0:
            os.close(directory)


def pair() -> tuple[Channel, Channel]:
    """Return both ends."""
    ours, theirs = socketpair(AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC)
    return Channel(ours), Channel(theirs)


def failure_of(message: bytes) -> errors.OrlopError:
    """Return the error that a FAILED message carries; the trace of a defect becomes a note on it."""
    value = jsonio.parse(message[1:], "init's error message")
    failure = errors.from_json(value)
    if isinstance(value, dict) and value.get("trace"):
        failure.add_note(str(value["trace"]))
    return failure
