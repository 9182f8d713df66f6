"""HTTP to registries: connections kept and reused, every answer bounded, every address judged before it is asked.

Invariants:
1. An address that the user did not name (a redirect, a token realm, an upload's place) is asked over https unless its
   registry itself is spoken to over http, and never when it lies on this machine or on the link (SEC-46: the metadata
   services of clouds are at 169.254.169.254). The address that counts is the one that the socket is connected to.
2. Nothing is read without a bound: headers by http.client (64 KiB a line, 100 lines), documents by `Response.document`,
   blobs by their descriptors; a peer that sends nearly nothing for STALL_S is left.
3. A connection goes back to the pool only when its answer was read to the end.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import select
import socket
import ssl
import threading
import time
from urllib.parse import urljoin, urlsplit

from orlop.linux.netlink import namespace
from orlop.spec.errors import Denied, Invalid, Unavailable

from .proxy import Proxies
from .tls import DEFAULT_TLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Mapping

    from .proxy import Proxy
    from .tls import Tls

    Body = bytes | Callable[[socket.socket], None] | None

CONNECT_S_MAX = 30.0
STALL_S = 60.0
STALL_BYTES_MIN = 4096
READ_BYTES = 256 * 1024
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
ERROR_BYTES_MAX = 64 * 1024
IDLE_CONNECTIONS_MAX = 8
IDLE_S_MAX = 30.0
DRAIN_BYTES_MAX = 64 * 1024
USER_AGENT = "orlop"
_NOT_HTTP = (ssl.SSLError, ConnectionResetError, http.client.BadStatusLine)


class Broken(Exception):
    """The connection failed, or what came over it is no HTTP: worth another try. args: the cause."""


class Origin:
    """Scheme, host and port: what credentials belong to. Compared by value."""

    __slots__ = ("host", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme, self.host, self.port = scheme, host, port

    @classmethod
    def of_url(cls, url: str) -> Origin:
        """Return the origin of an absolute URL. Raises Invalid for one that is not http(s), or carries a password."""
        shown = url[:200]
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as wrong:
            raise Invalid("ask", f"URL {shown!r}", str(wrong)) from None
        if parts.scheme not in ("http", "https") or not host:
            raise Denied("ask", f"URL {shown!r}", "it is not an http or https address")
        if parts.username is not None or any(ord(c) <= 32 or ord(c) == 127 for c in url):
            raise Denied("ask", f"URL {shown!r}", "it holds a user name or white space")
        return cls(parts.scheme, host.lower(), port or (443 if parts.scheme == "https" else 80))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and (self.scheme, self.host, self.port) == (
            other.scheme,
            other.host,
            other.port,
        )

    def __hash__(self) -> int:
        return hash((self.scheme, self.host, self.port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{host}" if self.port == default else f"{self.scheme}://{host}:{self.port}"


def whole_number(text: str) -> int | None:
    """Return the number that a header says, None where it is none below 10**18: int() alone takes more, and breaks."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


class Response:
    """One answer. Close it, or use it as a context: a body that was read to its end keeps the connection."""

    def __init__(self, raw: http.client.HTTPResponse, url: str, give_back: Callable[[bool], None]) -> None:
        self._raw = raw
        self._give_back = give_back
        self._window_start = time.monotonic()
        self._window_bytes = 0
        self.url = url
        self.status = raw.status
        self.length = raw.length

    def header(self, name: str) -> str:
        return self._raw.getheader(name, "") or ""

    def headers(self, name: str) -> list[str]:
        """Return all headers of that name, each as it came."""
        return self._raw.headers.get_all(name, [])

    def read(self, count: int = READ_BYTES) -> bytes:
        """Return what has arrived, at most count bytes; b"" at the end. Raises Broken."""
        try:
            data = self._raw.read1(count)
        except (OSError, http.client.HTTPException) as wrong:
            raise Broken(cause_of(wrong)) from None
        self._window_bytes += len(data)
        now = time.monotonic()
        if now - self._window_start > STALL_S:
            if self._window_bytes < STALL_BYTES_MIN:
                raise Broken(f"only {self._window_bytes} bytes came in {STALL_S:.0f} s")
            self._window_start, self._window_bytes = now, 0
        return data

    def document(self, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
        """Return the whole body. Raises Invalid when it has more bytes, Broken when it ends early."""
        if self.length is not None and self.length > bytes_max:
            raise Invalid(
                "read",
                f"the answer of {self.url}",
                f"it announces {self.length} bytes, the limit is {bytes_max}",
                code="E0212",
            )
        data = bytearray()
        while piece := self.read():
            data += piece
            if len(data) > bytes_max:
                raise Invalid("read", f"the answer of {self.url}", f"it has more than {bytes_max} bytes", code="E0212")
        if self.length is not None and len(data) != self.length:
            raise Broken(f"it ended after {len(data)} of {self.length} bytes")
        return bytes(data)

    def close(self) -> None:
        """End the answer. A short rest is read, so that the connection can be used again."""
        whole = self._raw.isclosed()
        if not whole and self._raw.length is not None and self._raw.length <= DRAIN_BYTES_MAX:
            try:
                while self.read():
                    pass
                whole = self._raw.isclosed()
            except Broken:
                pass
        self._give_back(whole and not self._raw.will_close)
        self._raw.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """Connections to all registries. Used by any number of threads."""

    def __init__(self, proxies: Proxies | None = None) -> None:
        self._proxies = proxies or Proxies({})
        self._lock = threading.Lock()
        self._idle: dict[tuple[Origin, Tls], list[tuple[float, http.client.HTTPConnection]]] = {}

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        tls: Tls = DEFAULT_TLS,
        guard: Guard | None = None,
    ) -> Response:
        """Ask once and return the answer, whatever its status. Redirects are the caller's to follow.

        body: bytes, or a function that sends what the Content-Length header promises. guard: judges the address.
        Raises Broken, Denied for an address that may not be asked, Unavailable for a certificate that is not trusted.
        """
        origin = Origin.of_url(url)
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxy = self._proxies.of(origin)
        if proxy is not None and origin.scheme == "http":
            target = f"{origin}{target}"
            headers = {**headers, **proxy.headers}
        connection = self._connection(origin, tls, guard, proxy)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            connection.putheader("User-Agent", USER_AGENT)
            for name, value in headers.items():
                connection.putheader(name, value)
            if isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
            else:
                connection.endheaders()
                if body is not None:
                    _send(connection, body)
            raw = connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as wrong:
            connection.close()
            raise Broken(cause_of(wrong)) from None
        except BaseException:
            connection.close()
            raise

        def give_back(reusable: bool) -> None:
            if reusable:
                self._keep(origin, tls, connection)
            else:
                connection.close()

        return Response(raw, url, give_back)

    def close(self) -> None:
        """Close all connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for _, connection in connections:
                connection.close()

    def speaks_tls(self, origin: Origin, tls: Tls) -> bool:
        """Try a handshake: whether a server that may speak either speaks TLS. Raises Broken when nobody is there."""
        try:
            _connect(origin, tls, self._proxies.of(origin)).close()
        except Broken as broken:
            if isinstance(broken.__cause__, _NOT_HTTP):
                return False
            raise
        return True

    def _connection(
        self, origin: Origin, tls: Tls, guard: Guard | None, proxy: Proxy | None
    ) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                idle = self._idle.get((origin, tls))
                since, connection = idle.pop() if idle else (0.0, None)
            if connection is None:
                connection = _connect(origin, tls, proxy)
            elif time.monotonic() - since > IDLE_S_MAX or _is_readable(connection.sock):
                connection.close()  # the server's end is closed, or it speaks without being asked
                continue
            try:
                if guard is not None:
                    guard.check(origin, connection.sock if proxy is None else None)
            except BaseException:
                connection.close()
                raise
            return connection

    def _keep(self, origin: Origin, tls: Tls, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault((origin, tls), [])
            if len(idle) < IDLE_CONNECTIONS_MAX and connection.sock is not None:
                idle.append((time.monotonic(), connection))
                return
        connection.close()


class Guard:
    """Judges addresses that a registry, not the user, has named. registry: the origin that the user named."""

    def __init__(self, registry: Origin) -> None:
        self._registry = registry

    def check(self, origin: Origin, sock: socket.socket | None) -> None:
        """Raise Denied unless the address that this socket is connected to may be asked.

        sock None: a proxy connects, and only what the name itself says can be judged.
        """
        if origin == self._registry:
            return
        if origin.scheme == "http" and self._registry.scheme == "https":
            raise Denied("follow", f"{self._registry} to {origin}", "it would leave https for http")
        try:
            address = ipaddress.ip_address(origin.host if sock is None else sock.getpeername()[0].partition("%")[0])
        except ValueError:
            if is_loopback(origin.host) and not is_loopback(self._registry.host):
                raise Denied("follow", f"{self._registry} to {origin}", "that is the proxy's own machine") from None
            return
        address = getattr(address, "ipv4_mapped", None) or address
        own = address.is_loopback or address.is_unspecified
        if address.is_link_local or address.is_multicast or (own and not is_loopback(self._registry.host)):
            raise Denied("follow", f"{self._registry} to {origin}", f"{address} is no address of a registry")


def is_loopback(host: str) -> bool:
    """Say whether a host's name means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def redirected(response: Response) -> str:
    """Return the absolute URL that an answer leads to. Raises Invalid when it names none."""
    location = response.header("Location")
    if not location:
        raise Invalid("read", f"the answer of {response.url}", f"status {response.status} names no Location")
    return absolute(response, location)


def absolute(response: Response, link: str) -> str:
    """Return the absolute URL that a link of an answer means. Raises Invalid for one that is no URL."""
    try:
        return urljoin(response.url, link)
    except ValueError as wrong:
        raise Invalid("ask", f"URL {link[:200]!r}", str(wrong), hint="the registry is broken") from None


def _connect(origin: Origin, tls: Tls, proxy: Proxy | None = None) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    host, port = (proxy.host, proxy.port) if proxy is not None else (origin.host, origin.port)
    if origin.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, port, timeout=CONNECT_S_MAX, context=tls.context(), blocksize=READ_BYTES
        )
        if proxy is not None:
            connection.set_tunnel(origin.host, origin.port, proxy.headers)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_S_MAX, blocksize=READ_BYTES)
    try:
        namespace.outside(connection.connect)
    except ssl.SSLCertVerificationError as wrong:
        connection.close()
        raise Unavailable(
            "trust",
            str(origin),
            f"its certificate is not valid: {wrong.verify_message or wrong.reason}",
            hint=f"put its CA's certificate into /etc/containers/certs.d/{origin.host}:{origin.port}/ca.crt",
        ) from None
    except (OSError, UnicodeError) as wrong:
        connection.close()
        told = f"the proxy {proxy}: {cause_of(wrong)}" if proxy is not None else cause_of(wrong)
        raise Broken(told) from wrong
    connection.sock.settimeout(STALL_S)
    return connection


def _send(connection: http.client.HTTPConnection, body: Callable[[socket.socket], None]) -> None:
    try:
        body(connection.sock)
    except (BrokenPipeError, ConnectionResetError):
        pass  # a server that refuses a body early has said why: its answer tells


def send_piece(sock: socket.socket, file: io.FileIO, offset: int, count: int) -> int:
    """Send at most count bytes of a file and return how many. Raises OSError; BrokenPipeError when the peer speaks.

    A server that speaks before it has the whole body wants no more of it, and may not even read it: whoever only
    writes would wait for room for ever.
    """
    if isinstance(sock, ssl.SSLSocket):  # readable may mean a session ticket there
        data = os.pread(file.fileno(), min(count, READ_BYTES), offset)
        sock.sendall(data)
        return _some(len(data))
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    events = poll.poll(STALL_S * 1000)
    if not events:
        raise TimeoutError
    if events[0][1] & ~select.POLLOUT:
        raise BrokenPipeError
    try:
        return _some(os.sendfile(sock.fileno(), file.fileno(), offset, count))
    except BlockingIOError:
        return 0


def _some(count: int) -> int:
    if not count:
        raise OSError("the blob's file ended early")
    return count


def _is_readable(sock: socket.socket | None) -> bool:
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def cause_of(wrong: BaseException) -> str:
    """Return in one clause what went wrong on the wire."""
    if isinstance(wrong, TimeoutError):
        return "it does not answer"
    if isinstance(wrong, socket.gaierror):
        return f"no such host ({wrong.strerror})"
    if isinstance(wrong, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(wrong, http.client.HTTPException):
        return f"its answer is no HTTP ({type(wrong).__name__}: {str(wrong)[:80]})"
    if isinstance(wrong, ssl.SSLError):
        return f"TLS: {wrong.reason or wrong}"
    return (getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__).lower()
