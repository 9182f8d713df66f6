"""One message with descriptors on a SEQPACKET socket: what engine, spawner, monitor and launcher say to one another."""

import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INT_BYTES = 4


class Message:
    """What arrived. fds: close-on-exec, and the receiver's. is_cut: a part of the data or of the descriptors did not
    fit and is gone. Without data and descriptors it is the end of the connection, or an empty message.
    """

    __slots__ = ("data", "fds", "is_cut")

    def __init__(self, data: bytes = b"", fds: "Sequence[int]" = (), is_cut: bool = False) -> None:
        self.data = data
        self.fds = tuple(fds)
        self.is_cut = is_cut


def pair() -> tuple[socket, socket]:
    """Return two connected ends."""
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)


def send(sock: socket, data: bytes, fds: "Sequence[int]" = (), flags: int = 0) -> None:
    """Send one message. Raises OSError, BrokenPipeError when the other end is gone."""
    packed = b"".join(fd.to_bytes(_INT_BYTES, sys.byteorder) for fd in fds)
    sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)] if fds else [], flags | MSG_NOSIGNAL)


def receive(sock: socket, bytes_max: int, fds_max: int) -> Message:
    """Wait for one message. Raises OSError."""
    try:
        data, ancillary, flags, _ = sock.recvmsg(bytes_max, CMSG_SPACE(fds_max * _INT_BYTES), MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return Message()  # the other end died with a message of ours unread
    fds = []
    for level, kind, packed in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            whole = len(packed) - len(packed) % _INT_BYTES
            fds += [int.from_bytes(packed[at : at + _INT_BYTES], sys.byteorder) for at in range(0, whole, _INT_BYTES)]
    return Message(data, fds, bool(flags & (MSG_TRUNC | MSG_CTRUNC)))
