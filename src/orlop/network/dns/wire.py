"""Orders between an engine and its resolver: one JSON object and some descriptors in each message."""

from __future__ import annotations

import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE_BYTES_MAX = 256 * 1024
FDS_MAX = 6
_INT_BYTES = 4


def send(sock: socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError."""
    packed = b"".join(fd.to_bytes(_INT_BYTES, sys.byteorder) for fd in fds)
    sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)] if fds else [], MSG_NOSIGNAL)


def receive(sock: socket) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors, which are the receiver's; b"" at the end. Raises OSError."""
    data, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES_MAX, CMSG_SPACE(FDS_MAX * _INT_BYTES), MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            whole = len(packed) - len(packed) % _INT_BYTES
            fds += [int.from_bytes(packed[at : at + _INT_BYTES], sys.byteorder) for at in range(0, whole, _INT_BYTES)]
    return data, fds
