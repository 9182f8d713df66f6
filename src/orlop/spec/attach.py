"""The attach protocol: frames on a stream socket between a client and a monitor.

A frame is 8 bytes of header and its payload: kind (1 byte), three zero bytes, payload length (4 bytes, big endian).
The kinds 0 to 2 are docker's multiplexed stream, so a monitor's output reaches a docker client unchanged.

    kind     direction            payload
    STDIN    client -> monitor    bytes for standard input; empty: end of file
    STDOUT   monitor -> client    bytes (a terminal's whole output too)
    STDERR   monitor -> client    bytes
    RESIZE   client -> monitor    rows, columns: two unsigned 16-bit integers, big endian
    SIGNAL   client -> monitor    one byte: the signal number, sent to the process
    EXIT     monitor -> client    an ExitRecord as JSON; the last frame of a connection
    DETACH   client -> monitor    empty: what follows is no death, the process goes on without this client
    FOLLOW   engine -> monitor    which files that are mounted by themselves to follow from now on (supervise.follow)
    TAKEN    monitor -> client    4 bytes, big endian: so many more STDIN bytes went to the process, or were dropped
    PLACE    engine -> client     of a followed log: two 64-bit integers, file and offset, up to where it was sent;
                                  empty: the log has ended, and nothing follows

A client that never has more than WINDOW_BYTES of STDIN payload on the way (sent, and not yet TAKEN) is always read:
its signals and sizes pass a process that does not read its input. One that has twice as much is left waiting.
Closing the connection detaches the client. An exec may end with the client
that started it (StartExec.ends_with_client), unless that has sent DETACH.
"""

from __future__ import annotations

STDIN, STDOUT, STDERR = 0, 1, 2
RESIZE, SIGNAL, EXIT, TAKEN, DETACH, PLACE, FOLLOW = 16, 17, 18, 19, 20, 21, 22
HEADER_BYTES = 8
PAYLOAD_BYTES_MAX = 64 * 1024
WINDOW_BYTES = 256 * 1024


def header(kind: int, length: int) -> bytes:
    """Return the 8 bytes in front of a payload of this length."""
    return bytes((kind, 0, 0, 0)) + length.to_bytes(4, "big")


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Return one whole frame."""
    return header(kind, len(payload)) + payload


def size(rows: int, columns: int) -> bytes:
    """Return the payload of a RESIZE."""
    return rows.to_bytes(2, "big") + columns.to_bytes(2, "big")


def place(inode: int, offset: int) -> bytes:
    """Return the payload of a PLACE."""
    return inode.to_bytes(8, "big") + offset.to_bytes(8, "big")


class Decoder:
    """Cuts a byte stream into frames. Feed what was received; complete frames come back in order.

    Raises ValueError for a header that no peer of ours writes: the connection is then of no further use.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the (kind, payload) pairs that are complete now."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            length = int.from_bytes(self._buffer[start + 4 : start + 8], "big")
            if self._buffer[start + 1 : start + 4] != b"\0\0\0" or length > PAYLOAD_BYTES_MAX:
                raise ValueError("not a frame of the attach protocol")
            end = start + HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append((self._buffer[start], bytes(self._buffer[start + HEADER_BYTES : end])))
            start = end
        del self._buffer[:start]
        return frames
