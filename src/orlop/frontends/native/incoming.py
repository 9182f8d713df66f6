"""A request on its way: gathered piece by piece from a socket, without ever waiting for the peer.

For a server with many peers: one that sends one byte a second costs one small buffer.
"""

from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_RIGHTS, SOL_SOCKET
from posix import close

from ...spec import jsonio
from ...spec.errors import Invalid
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

_LENGTH_BYTES = 4
_FD_BYTES = 4
_PIECE_BYTES_MAX = 256 * 1024
_SUBJECT = "the request"


class Incoming:
    """One request. Its descriptors are closed with it until `parse` has handed them over."""

    __slots__ = ("_data", "_fds", "_missing")

    def __init__(self) -> None:
        self._data = bytearray()
        self._fds: list[int] = []
        self._missing = _LENGTH_BYTES

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return len(self._data)

    @property
    def whole(self) -> bool:
        return self._missing == 0

    def take(self, sock: "socket") -> bool:
        """Take what has arrived, but nothing beyond this request. Return False at the end of the stream.

        sock does not block: MSG_DONTWAIT alone does not keep a Python socket that has a timeout from waiting.
        Raises Invalid for what can't become a request, OSError from the socket.
        """
        while self._missing:
            try:
                piece, ancillary, flags, _ = sock.recvmsg(
                    min(self._missing, _PIECE_BYTES_MAX),
                    CMSG_SPACE(wire.FDS_MAX * _FD_BYTES),
                    MSG_CMSG_CLOEXEC,
                )
            except BlockingIOError:
                return True
            for level, kind, data in ancillary:
                if level == SOL_SOCKET and kind == SCM_RIGHTS:
                    self._fds += wire.unpack_fds(data)
            if flags & MSG_CTRUNC or len(self._fds) > wire.FDS_MAX:
                raise Invalid("read", _SUBJECT, f"more than {wire.FDS_MAX} file descriptors came with it")
            if not piece:
                return False
            self._append(piece)
        return True

    def parse(self) -> wire.Request:
        """Return the request, whose descriptors are now its receiver's to close. Raises Invalid."""
        value = jsonio.parse(bytes(self._data[_LENGTH_BYTES:]), _SUBJECT, bytes_max=wire.REQUEST_BYTES_MAX)
        verb = value.get("verb") if isinstance(value, dict) else None
        args = value.get("args", {}) if isinstance(value, dict) else None
        if not isinstance(verb, str) or not isinstance(args, dict):
            raise Invalid("read", _SUBJECT, 'it is not an object with "verb" and "args"')
        fds, self._fds = self._fds, []
        return wire.Request(verb, args, fds)

    def close(self) -> None:
        """Close the descriptors that nobody took. Idempotent."""
        fds, self._fds = self._fds, []
        for fd in fds:
            close(fd)

    def _append(self, piece: bytes) -> None:
        self._data += piece
        self._missing -= len(piece)
        if len(self._data) == _LENGTH_BYTES:
            length = int.from_bytes(self._data, "big")
            if length > wire.REQUEST_BYTES_MAX:
                raise Invalid(
                    "read",
                    _SUBJECT,
                    f"it announces {length} bytes, the limit is {wire.REQUEST_BYTES_MAX}",
                    code="E0212",
                )
            self._missing = length
