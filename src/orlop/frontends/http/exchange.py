"""One connection's requests: reading them within bounds, answering them.

Invariants:
1. A request whose end is in doubt (two lengths, an unknown transfer coding, a bad chunk) is answered once and ends the
   connection: what follows could be read as another request (RFC 9112, 6.3, request smuggling).
2. A body is read only within a limit that the one who reads it names; what is left unread of it ends the connection.
"""

from __future__ import annotations

import os
import time
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from ...spec import jsonio
from . import head as heads
from .head import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    import socket
    from collections.abc import Iterable, Iterator

    from .head import Head, Headers
    from .server import Server

READ_BYTES = 1024 * 1024
TIMEOUT_S = 60.0  # a client that says nothing for so long is gone
QUERY_VALUES_MAX = 1000  # docker save names every image
_READ_AHEAD_BYTES = 64 * 1024
_DRAIN_BYTES_MAX = 256 * 1024
_WITHOUT_BODY = (204, 304)  # RFC 9110, 8.6: not even a length
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Exchange:
    """A connection. A door overrides `handle_request`, which answers exactly once with `answer` or `answer_file`.

    command: the method. place: the path, decoded; query: the last value of each name. authority: the host that the
    client believes to ask, "" for none.
    """

    command: str
    headers: Headers
    place: str
    query: dict[str, str]
    authority: str
    requestline = ""

    def __init__(self, connection: socket.socket, address: object, server: Server) -> None:
        self.connection = connection
        self.client_address = address
        self.server = server
        self.rfile: io.BufferedReader = connection.makefile("rb", _READ_AHEAD_BYTES)  # type: ignore[assignment]
        try:
            while self._serve_one():
                pass
        except (ConnectionError, TimeoutError):
            pass  # the client has gone, or says nothing
        finally:
            self.rfile.close()

    def version_string(self) -> str:
        return "Orlop"

    def handle_request(self) -> None:
        raise NotImplementedError

    def refuse(self, wrong: Refused) -> None:
        """Answer a request that can't be understood. A door may have its own words."""
        self.answer_json(wrong.status, {"message": wrong.why})

    def every(self, name: str) -> list[str]:
        """Return all values of a name that the query repeats, without the empty ones."""
        return [value for key, value in self._pairs if key == name and value]

    def log_request(self, code: int) -> None:
        """Note that a request is answered, for a door that has a log of its own."""

    def _serve_one(self) -> bool:
        """Read a request and answer it; tell whether the connection goes on."""
        self._sent = self._expects = self._chunked = self._is_old = False
        self._left = 0
        self.close_connection = True
        try:
            head = heads.read(self.rfile)
        except Refused as wrong:
            self.command = "GET"  # so that the answer has a body
            self.refuse(wrong)
            return False
        if head is None:
            return False
        self.server.work(self.connection)
        try:
            self._begin_request(head)
            self.handle_request()
        except Refused as wrong:
            self._refuse_late(wrong)
        except ValueError as wrong:  # of parse_qsl
            self._refuse_late(Refused(400, str(wrong)))
        except OSError:
            raise  # the connection's, or a disk's in the middle of an answer
        except Exception:
            self._refuse_late(Refused(500, "a defect of the server; its standard error tells more"))
            raise
        finally:
            self.server.rest(self.connection)
        return not self.close_connection

    def _begin_request(self, head: Head) -> None:
        self.requestline = head.line
        self.command = head.method
        self.headers = head.headers
        self.authority = head.authority
        self.close_connection = not head.stays
        self._is_old = head.is_old
        self._chunked = head.length is None
        self._left = head.length or 0
        # Answered when the body is read: a request that is refused need not send its gigabytes.
        self._expects = not head.is_old and head.headers.get("Expect").lower() == "100-continue"
        if "%00" in head.path or "%00" in head.query:
            raise Refused(400, "a path or a query with a NUL character")
        # One slash at the front, however many there are: none of the doors has a place without a name.
        self.place = unquote("/" + head.path.lstrip("/"), errors="surrogateescape")
        self._pairs = parse_qsl(head.query, keep_blank_values=True, max_num_fields=QUERY_VALUES_MAX)
        self.query = dict(reversed(self._pairs))  # of a name that comes twice the first counts, as in Go

    def _refuse_late(self, wrong: Refused) -> None:
        self.close_connection = True
        if not self._sent:
            self.refuse(wrong)

    # -- the request's body -----------------------------------------------------------------------------------------

    @property
    def length(self) -> int | None:
        """The length of the body in bytes, None when it comes in chunks."""
        return None if self._chunked else self._left

    def body(self, bytes_max: int) -> bytes:
        """Return the whole body. Raises Refused (413) for one that is longer."""
        if not self._chunked and self._left > bytes_max:
            raise Refused(413, f"the body has {self._left} bytes, the limit is {bytes_max}")
        parts, size = [], 0
        for data in self.pieces():
            size += len(data)
            if size > bytes_max:
                raise Refused(413, f"the body has more than {bytes_max} bytes")
            parts.append(data)
        return b"".join(parts)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes. Raises Refused for a broken or truncated one."""
        if self._expects and (self._left or self._chunked):
            self._expects = False
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._chunked:
            yield from self._counted()
            return
        while size := heads.chunk_size(self.rfile):
            self._left = size
            yield from self._counted()
            if self.rfile.read(2) != b"\r\n":
                raise Refused(400, "a chunk of the body does not end where it said")
        heads.fields(self.rfile)  # trailers: they may say nothing that counts
        self._chunked = False

    def _counted(self) -> Iterator[bytes]:
        while self._left:
            data = self.rfile.read1(min(self._left, READ_BYTES))
            if not data:
                raise Refused(400, "the body ended too early")
            self._left -= len(data)
            yield data

    def _finish_body(self) -> None:
        """Read what is left of a short body, so that the connection can go on; a longer one ends it."""
        if self._chunked or self._left > _DRAIN_BYTES_MAX or (self._expects and self._left):
            self.close_connection = True
            return
        for _ in self._counted():
            pass

    # -- the answer -------------------------------------------------------------------------------------------------

    def common_headers(self) -> dict[str, str]:
        """Return the headers of every answer but those that end HTTP."""
        return {"Server": self.version_string(), "Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Answer whole. A HEAD request gets the headers only."""
        length = {} if status in _WITHOUT_BODY else {"Content-Length": str(len(body))}
        self._begin(status, length | (headers or {}), b"" if self.command == "HEAD" else body)

    def answer_json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        """Answer with a JSON document."""
        self.answer(status, {"Content-Type": "application/json", **(headers or {})}, jsonio.dump(value))

    def answer_file(self, file: io.FileIO, headers: dict[str, str], extent: tuple[int, int] | None = None) -> None:
        """Answer with a file, or (206) with the bytes from extent[0] to extent[1], the end exclusive."""
        size = os.fstat(file.fileno()).st_size
        start, end = extent or (0, size)
        headers = {"Content-Length": str(end - start), **headers}
        if extent:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._begin(206 if extent else 200, headers)
        if self.command != "HEAD" and end > start:
            file.seek(start)  # over TLS it is read and sent, from where it stands
            self.connection.sendfile(file, start, end - start)

    def send(self, data: bytes) -> None:
        """Send what follows of an answer that has begun with its whole length."""
        self.connection.sendall(data)

    def _begin(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        try:
            self._finish_body()
        except Refused:
            self.close_connection = True
        closes = {"Connection": "close"} if self.close_connection else {}
        head = _written(status, _REASONS.get(status, ""), self.common_headers() | headers | closes)
        self._sent = True
        self._expects = False
        self.log_request(status)
        if len(body) < _READ_AHEAD_BYTES:
            self.connection.sendall(head + body)
        else:
            self.connection.sendall(head)
            self.connection.sendall(body)

    def stream(self, status: int, headers: dict[str, str], pieces: Iterable[bytes]) -> None:
        """Answer with pieces, each of them at once; the headers leave before the first piece is asked for."""
        chunked = not self._is_old
        if not chunked:
            self.close_connection = True
        self._begin(status, headers | ({"Transfer-Encoding": "chunked"} if chunked else {}))
        self.connection.settimeout(None)  # whoever reads a log may stop for a while: a pager does
        wanted = self.command != "HEAD"
        for piece in pieces:
            if piece and wanted:
                self.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and wanted:
            self.connection.sendall(b"0\r\n\r\n")

    def begin_raw(self, status: int, headers: dict[str, str], upgrade: str = "") -> None:
        """Begin an answer after which the connection carries other bytes than HTTP."""
        self._sent = True
        if upgrade:
            headers = {"Connection": "Upgrade", "Upgrade": upgrade} | headers
        self.connection.sendall(_written(status, "UPGRADED" if upgrade else _REASONS[status], headers))

    def taken_ahead(self) -> bytes:
        """Return what the client sent behind the request and the reader has taken already."""
        self.connection.setblocking(False)
        try:
            return self.rfile.read1() or b""
        except (
            OSError
        ):  # nothing is there; TLS says so in its own way, and what is really broken is so at the next read
            return b""
        finally:
            self.connection.settimeout(None)

    @property
    def is_answered(self) -> bool:
        """Whether an answer has begun."""
        return self._sent


def _written(status: int, reason: str, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines):
        raise ValueError("a header of an answer has more than one line")
    return (text + "\r\n\r\n").encode("latin-1")
