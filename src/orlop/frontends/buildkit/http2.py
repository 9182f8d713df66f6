"""HTTP/2 on a connected socket, as client or as server, for threads: one reads, any number write.

Invariants: h2's state is touched under one lock; nobody sleeps holding it. What has come for a stream and was not read
yet is bounded by the window that is only opened again by reading. Plain DATA frames pass h2 by (`frames`): their part
of the windows is kept here, that of the others in h2, and the peer adds both up.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import socket
import threading

from .. import libraries
from .frames import Frames, window_update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

READ_BYTES = 256 * 1024
WINDOW_BYTES = 4 << 20
OWED_BYTES_MAX = WINDOW_BYTES // 4  # read, and not yet given back to the window
UNREAD_BYTES_MAX = WINDOW_BYTES + 65535  # what the windows let come at most, before and after the peer has read of them
STREAMS_MAX = 1000
Headers = dict[str, list[str]]


class Broken(Exception):
    """The connection or the stream has ended before what was awaited came."""


class Stream:
    """One exchange. headers: what the peer began with; trailers: what it ended with, once `read` has returned None.

    over: nothing more comes. closed: set when it was reset, or its connection has ended.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.headers: Headers = {}
        self.trailers: Headers = {}
        self._connection = connection
        self._number = number
        # Data and whether it was plain, None for its regular end, an error for another one.
        self._incoming: queue.SimpleQueue[tuple[bytes, bool] | Broken | None] = queue.SimpleQueue()
        self.unread = self.owed = 0  # of plain data, the connection's lock is held
        self._begun = False
        self.over = False
        self.closed = threading.Event()
        self._at_end: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def at_end(self, tell: Callable[[], None]) -> Iterator[None]:
        """Have this called, once or twice and by any thread, when the stream is closed, now if it is already."""
        self._at_end.append(tell)
        try:
            if self.closed.is_set():
                tell()
            yield
        finally:
            self._at_end.remove(tell)

    def read(self) -> bytes | None:
        """Return the next data, None at the end. Raises Broken."""
        found = self._incoming.get()
        if isinstance(found, tuple):
            data, is_plain = found
            if is_plain:
                self._connection.taken_plain(self, self._number, len(data))
            else:
                self._connection.taken(self._number, len(data))
            return data
        self._incoming.put(found)  # whoever asks again hears it again
        if isinstance(found, Broken):
            raise found
        return None

    def send_headers(self, headers: Sequence[tuple[str, str]], *, end: bool = False) -> None:
        self._connection.send_headers(self._number, headers, end)

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Send data, waiting for room in the peer's window. Raises Broken."""
        self._connection.send_data(self, self._number, data, end)

    def reset(self) -> None:
        """End the stream without having said everything."""
        self._connection.reset(self._number)

    # -- by the connection's reader ------------------------------------------------------------------------------------

    def begin(self, headers: Headers) -> None:
        if self.headers:
            self.trailers = headers
        else:
            self.headers = headers
            self._begun = True

    @property
    def takes_plain(self) -> bool:
        """Whether the library has said that data may come, and need not count it."""
        return self._begun and not self.over and "content-length" not in self.headers

    def put(self, data: bytes, *, is_plain: bool = False) -> None:
        if is_plain:
            self.unread += len(data)
        self._incoming.put((data, is_plain))

    def end(self, wrong: Broken | None = None) -> None:
        if not self.over:
            self.over = True
            self._incoming.put(wrong)
        if wrong is not None:
            self.closed.set()
            for tell in list(self._at_end):
                tell()


class Connection:
    """handle: called in a thread of its own for each stream that the peer begins; None refuses them."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        is_client: bool,
        handle: Callable[[Stream], None] | None = None,
        ahead: bytes = b"",
    ) -> None:
        h2 = library()
        self._events = h2.events
        self._errors = h2.exceptions
        settings = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(settings)
        self._sock = sock
        self._handle = handle
        self._ahead = ahead
        self._changed = threading.Condition()
        self._streams: dict[int, Stream] = {}
        self._over = False
        self._owed = 0
        self._frames = Frames(self._is_plain, preface=not is_client)
        with self._changed:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(WINDOW_BYTES)
            codes = h2.settings.SettingCodes
            self._h2.update_settings(
                {codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES, codes.MAX_CONCURRENT_STREAMS: STREAMS_MAX}
            )
            self._flush()

    @property
    def is_over(self) -> bool:
        return self._over

    def run(self) -> None:
        """Read until the peer or the connection ends; every stream ends then."""
        try:
            while not self._over:
                data = self._ahead or self._sock.recv(READ_BYTES)
                self._ahead = b""
                if not data:
                    break
                with self._changed:
                    for number, piece in self._frames.cut(data):
                        if number:
                            self._put_plain(number, piece)
                        else:
                            for event in self._h2.receive_data(piece):
                                self._take(event)
                    self._flush()
                    self._changed.notify_all()
        except (OSError, UnicodeDecodeError, self._errors.ProtocolError):
            pass  # h2 decodes names and values of headers, and lets what is no UTF-8 through
        finally:
            self.close()

    def open(self, headers: Sequence[tuple[str, str]]) -> Stream:
        """Begin a stream. Raises Broken."""
        with self._changed:
            self._check()
            number = self._h2.get_next_available_stream_id()
            stream = self._streams[number] = Stream(self, number)
            self._h2.send_headers(number, headers)
            self._flush()
        return stream

    def close(self) -> None:
        """End the connection and every stream."""
        with self._changed:
            if self._over:
                return
            self._over = True
            for stream in self._streams.values():
                stream.end(Broken("the connection has ended"))
            self._streams.clear()
            self._changed.notify_all()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # -- by streams ----------------------------------------------------------------------------------------------------

    def send_headers(self, number: int, headers: Sequence[tuple[str, str]], end: bool) -> None:
        with self._changed:
            self._check()
            self._guarded(lambda: self._h2.send_headers(number, headers, end_stream=end))
            if end:
                self._finish(number)

    def send_data(self, stream: Stream, number: int, data: bytes, end: bool) -> None:
        view = memoryview(data)
        while True:
            with self._changed:
                while not self._room(stream, number) and view:
                    self._changed.wait()
                size = min(len(view), self._room(stream, number), self._h2.max_outbound_frame_size)
                piece, view = bytes(view[:size]), view[size:]
                is_last = end and not view
                self._guarded(functools.partial(self._h2.send_data, number, piece, end_stream=is_last))
                if is_last:
                    self._finish(number)
                if not view:
                    return

    def taken(self, number: int, size: int) -> None:
        with self._changed:
            if not self._over and size:
                try:
                    self._h2.acknowledge_received_data(size, number)
                except (self._errors.ProtocolError, KeyError):
                    return  # the stream is over
                self._flush()

    def taken_plain(self, stream: Stream, number: int, size: int) -> None:
        with self._changed:
            size = min(size, stream.unread)  # 0 once it was reset
            stream.unread -= size
            stream.owed += size
            self._owed += size
            opened = b""
            if stream.owed >= OWED_BYTES_MAX and not stream.over:
                opened = window_update(number, stream.owed)
                stream.owed = 0
            if self._owed >= OWED_BYTES_MAX:
                opened += window_update(0, self._owed)
                self._owed = 0
            if opened and not self._over:
                try:
                    self._sock.sendall(opened)
                except OSError:
                    return  # the connection is over, and whoever reads hears of it

    def reset(self, number: int) -> None:
        with self._changed:
            stream = self._streams.pop(number, None)
            if stream is not None:
                self._owed += stream.unread  # nobody reads it any more
                stream.unread = 0
            if stream is not None and not self._over:
                stream.end(Broken("the stream was reset"))
                try:
                    self._h2.reset_stream(number)
                    self._flush()
                except (self._errors.ProtocolError, OSError):
                    return

    def _room(self, stream: Stream, number: int) -> int:
        self._check()
        if stream.closed.is_set():
            raise Broken("the stream was reset")
        try:
            return int(self._h2.local_flow_control_window(number))
        except self._errors.ProtocolError:
            raise Broken("the stream is over") from None

    def _check(self) -> None:
        if self._over:
            raise Broken("the connection has ended")

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
            self._flush()
        except (self._errors.ProtocolError, OSError) as error:
            raise Broken(str(error)) from None

    def _finish(self, number: int) -> None:
        """Our half is said; the peer's ends by itself."""
        stream = self._streams.get(number)
        if stream is not None and stream.over:
            del self._streams[number]

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._sock.sendall(data)

    # -- what comes ----------------------------------------------------------------------------------------------------

    def _is_plain(self, number: int) -> bool:
        stream = self._streams.get(number)
        return stream is not None and stream.takes_plain

    def _put_plain(self, number: int, data: bytes) -> None:
        stream = self._streams[number]
        stream.put(data, is_plain=True)
        if stream.unread > UNREAD_BYTES_MAX:
            raise OSError("the peer sends more than the window has room for")

    def _take(self, event: Any) -> None:
        events = self._events
        if isinstance(event, events.RequestReceived):
            self._begin(event)
            return
        stream = self._streams.get(getattr(event, "stream_id", 0))
        if isinstance(event, events.ConnectionTerminated):
            self._over = False  # a farewell: what has begun may end (RFC 9113, 6.8)
        elif stream is None:
            if isinstance(event, events.DataReceived) and event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (events.ResponseReceived, events.TrailersReceived)):
            stream.begin(_headers(event.headers))
        elif isinstance(event, events.DataReceived):
            stream.put(event.data)
            padding = event.flow_controlled_length - len(event.data)
            if padding:
                self._h2.acknowledge_received_data(padding, event.stream_id)
        elif isinstance(event, events.StreamEnded):
            stream.end()
        elif isinstance(event, events.StreamReset):
            self._streams.pop(event.stream_id, None)
            stream.end(Broken("the stream was reset"))

    def _begin(self, event: Any) -> None:
        if self._handle is None or len(self._streams) >= STREAMS_MAX:
            self._h2.reset_stream(event.stream_id)
            return
        stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
        stream.begin(_headers(event.headers))
        threading.Thread(target=self._handle, args=(stream,), daemon=True).start()


def library() -> Any:
    """Return the package h2. Raises Unavailable."""

    def take() -> Any:
        import h2.config
        import h2.connection
        import h2.events
        import h2.exceptions
        import h2.settings

        return h2

    return libraries.load(take, "BuildKit's protocol", "install it: apt-get install python3-h2, or pip install h2")


def _headers(pairs: Sequence[tuple[str, str]]) -> Headers:
    found: Headers = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
