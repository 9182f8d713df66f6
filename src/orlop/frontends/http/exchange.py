"""One connection's requests: reading them within bounds, answering them.

Invariants:
1. A request whose end is in doubt (two lengths, an unknown transfer coding, a bad chunk) is answered once and ends the
   connection: what follows could be read as another request (RFC 9112, 6.3, request smuggling).
2. A body is read only within a limit that the one who reads it names; what is left unread of it ends the connection.
"""

from __future__ import annotations

import http.server
import os
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

from ...spec import jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    import socket
    from collections.abc import Callable, Iterable, Iterator

    from .server import Server

READ_BYTES = 1024 * 1024
TIMEOUT_S = 60.0  # a client that says nothing for so long is gone
_LINE_BYTES_MAX = 1024
_DRAIN_BYTES_MAX = 256 * 1024


class Refused(Exception):
    """A request that can't be understood: (status, why). The connection ends after the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why


class Exchange(http.server.BaseHTTPRequestHandler):
    """A connection. A door overrides `handle_request`, which answers exactly once with `answer` or `answer_file`.

    path: decoded; query: the last value of each name. authority: the Host header, "" for none.
    """

    protocol_version = "HTTP/1.1"
    rbufsize = 64 * 1024

    def __init__(self, connection: socket.socket, address: object, server: Server) -> None:
        super().__init__(connection, address, server)  # type: ignore[arg-type]  # it keeps them for us

    def version_string(self) -> str:
        return "Orlop"

    def handle_request(self) -> None:
        raise NotImplementedError

    def refuse(self, wrong: Refused) -> None:
        """Answer a request that can't be understood. A door may have its own words."""
        self.answer_json(wrong.status, {"message": wrong.why})

    def __getattr__(self, name: str) -> Callable[[], None]:
        # BaseHTTPRequestHandler looks for do_<METHOD>; every method goes one way here.
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        self._left = 0
        self._chunked = False
        self._sent = False
        self._waits = False
        self.server.work(self.connection)  # type: ignore[attr-defined]  # Server's
        try:
            self._frame()
            target = urlsplit(self.path)
            self.place = unquote(target.path, errors="surrogateescape")
            self.query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=100))
            self.authority = self.headers.get("Host", "")
            self.handle_request()
        except Refused as wrong:
            self.close_connection = True
            if not self._sent:
                self.refuse(wrong)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except ValueError as wrong:  # of urlsplit and parse_qsl
            self.close_connection = True
            if not self._sent:
                self.refuse(Refused(400, str(wrong)))
        except OSError:
            raise  # the connection's, or a disk's in the middle of an answer
        except Exception:
            self.close_connection = True
            if not self._sent:
                self.refuse(Refused(500, "a defect of the server; its standard error tells more"))
            raise
        finally:
            self.server.rest(self.connection)  # type: ignore[attr-defined]  # Server's

    def _frame(self) -> None:
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings:
            if lengths or self.request_version == "HTTP/1.0" or [c.strip().lower() for c in codings] != ["chunked"]:
                raise Refused(400, "the transfer coding of the request is not understood")
            self._chunked = True
        elif lengths:
            if len(set(lengths)) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()) or len(lengths[0]) > 18:
                raise Refused(400, "the Content-Length of the request is not one number")
            self._left = int(lengths[0])
        if len(self.headers.get_all("Host", [])) > 1:
            raise Refused(400, "the request names two hosts")

    def handle_expect_100(self) -> bool:
        # Answered when the body is read: a request that is refused need not send its gigabytes.
        self._expects = True
        return True

    _expects = False
    # Before the first request is understood, for `send_error`.
    _left, _chunked, _sent = 0, False, False

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
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
            self.wfile.flush()
        if not self._chunked:
            yield from self._counted()
            return
        while size := self._chunk_size():
            self._left = size
            yield from self._counted()
            if self.rfile.read(2) != b"\r\n":
                raise Refused(400, "a chunk of the body does not end where it said")
        while (line := self.rfile.readline(_LINE_BYTES_MAX)) not in (b"\r\n", b"\n"):  # trailers
            if not line.endswith(b"\n"):
                raise Refused(400, "the body ended too early")
        self._chunked = False

    def _counted(self) -> Iterator[bytes]:
        while self._left:
            data = self.rfile.read1(min(self._left, READ_BYTES))
            if not data:
                raise Refused(400, "the body ended too early")
            self._left -= len(data)
            yield data

    def _chunk_size(self) -> int:
        line = self.rfile.readline(_LINE_BYTES_MAX)
        digits = line.partition(b";")[0].strip()
        if not line.endswith(b"\n") or not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise Refused(400, "a chunk of the body has no length")
        return int(digits, 16)

    def _finish_body(self) -> None:
        """Read what is left of a short body, so that the connection can go on; a longer one ends it."""
        if self._chunked or self._left > _DRAIN_BYTES_MAX or (self._expects and self._left):
            self.close_connection = True
            return
        for _ in self._counted():
            pass

    # -- the answer -------------------------------------------------------------------------------------------------

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Answer whole. A HEAD request gets the headers only."""
        self._begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

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

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        try:
            self._finish_body()
        except Refused:
            self.close_connection = True
        self._sent = True
        self._expects = False
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def stream(self, status: int, headers: dict[str, str], pieces: Iterable[bytes]) -> None:
        """Answer with pieces, each of them at once; the headers leave before the first piece is asked for."""
        chunked = self.request_version != "HTTP/1.0"
        if not chunked:
            self.close_connection = True
        self._begin(status, headers | ({"Transfer-Encoding": "chunked"} if chunked else {}))
        self.wfile.flush()
        self.connection.settimeout(None)  # whoever reads a log may stop for a while: a pager does
        for piece in pieces:
            if piece and self.command != "HEAD":
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def begin_raw(self, status: int, headers: dict[str, str], upgrade: str = "") -> None:
        """Begin an answer after which the connection carries other bytes than HTTP."""
        self._sent = True
        self.send_response_only(status, "UPGRADED" if upgrade else None)
        if upgrade:
            headers = {"Connection": "Upgrade", "Upgrade": upgrade} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

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

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses: a request line or headers that can't be read."""
        self.close_connection = True
        self._left, self._chunked = 0, False
        self.command = self.command or "GET"
        self.request_version = "HTTP/1.1"  # else the base class answers as in 1991, without status and headers
        self.refuse(Refused(int(code), message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a door that has a log writes its own lines."""
