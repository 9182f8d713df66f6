"""What is fetched by http: files of ADD, and contexts that are URLs.

Nothing leads from a Dockerfile to this machine's own services: the link's addresses are refused always, the loopback's
to whoever was redirected there, and every scheme but http and https (SEC-67). The address that is judged is the one of
the connection that is used.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import ipaddress
import os
import ssl
import urllib.parse

from orlop.spec.errors import Denied, Invalid, NotFound, Unavailable

from . import graph
from .solver.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .journal import StepLog
    from .solver.solve import Solver

FETCH_BYTES_MAX = 64 * 1024**3
SILENCE_S_MAX = 60.0
REDIRECTS_MAX = 10
READ_BYTES = 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_AS_IS = "%/:=&?~#+!$,;'@()*[]"  # of a URL; the rest is percent-encoded, as browsers and Go's clients do


def fetch(solver: Solver, source: graph.HttpSource, log: StepLog) -> Tree:
    """Return a tree with the file of a URL. Raises Denied, Invalid for another checksum, NotFound, Unavailable."""
    directory = solver.scratch()
    path = f"{directory}/{source.filename}"
    digest = download(source.url, path, solver.settings.secret)
    if source.checksum and source.checksum != f"sha256:{digest}":
        cause = f"digest mismatch sha256:{digest}: {source.checksum}"
        raise Invalid(
            "fetch", shown(source.url), cause, hint="the file has changed: look at it, then correct --checksum"
        )
    tree = Tree(directory=directory, key=f"http {digest} {source.filename}")
    tree.fetched = True
    return tree


def download(url: str, path: str, secret: Callable[[str], bytes | None]) -> str:
    """Write what a URL has into a new file (0600, with its Last-Modified time); return its SHA-256.

    secret: the client's: HTTP_AUTH_HEADER_<host> is what the host hears as Authorization, HTTP_AUTH_TOKEN_<host> a
    bearer's token.
    """
    response, connection = _open(url, secret)
    digest = hashlib.sha256()
    size = 0
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            while data := response.read(READ_BYTES):
                size += len(data)
                if size > FETCH_BYTES_MAX:
                    raise Invalid("fetch", shown(url), f"it has more than {FETCH_BYTES_MAX} bytes", code="E0212")
                digest.update(data)
                file.write(data)
        announced = response.getheader("Content-Length", "")
        if announced.isascii() and announced.isdigit() and announced.lstrip("0") != str(size).lstrip("0"):
            raise Unavailable("fetch", shown(url), f"it ended after {size} of {announced} bytes", hint="try again")
        modified = _modified(response)
        if modified is not None:
            os.utime(path, (modified, modified))
    except (OSError, http.client.HTTPException) as wrong:
        raise Unavailable("fetch", shown(url), str(wrong) or type(wrong).__name__, hint="try again") from None
    finally:
        connection.close()
    return digest.hexdigest()


def _modified(response: http.client.HTTPResponse) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(response.getheader("Last-Modified", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def authorization(host: str, prefix: str, separator: str, secret: Callable[[str], bytes | None]) -> tuple[str, str]:
    """Return the kind (HEADER, TOKEN, "" for nothing) and the value of what a client has for a host. Raises Invalid."""
    for kind in ("HEADER", "TOKEN"):
        for name in (f"{prefix}_{kind}{separator}{host}", f"{prefix}_{kind}" if separator == "." else ""):
            data = secret(name) if name else None
            if data is None:
                continue
            value = data.decode("latin-1").strip()
            if not value.isprintable():
                raise Invalid("fetch", f"secret {name}", "it is no value of a header", hint="it has one line")
            return kind, value
    return "", ""


def _headers(url: str, secret: Callable[[str], bytes | None]) -> dict[str, str]:
    parts = urllib.parse.urlsplit(url)
    kind, value = authorization(parts.hostname or "", "HTTP_AUTH", "_", secret)
    if not kind and parts.username is not None:  # of the URL, as Go's client sends it
        word = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
        kind, value = "HEADER", f"Basic {base64.b64encode(word.encode()).decode()}"
    given = {"HEADER": {"Authorization": value}, "TOKEN": {"Authorization": f"Bearer {value}"}}.get(kind, {})
    return {"User-Agent": "orlop", "Accept-Encoding": "identity", **given}


def _open(
    url: str, secret: Callable[[str], bytes | None]
) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    """Return the answer to a GET, redirects followed. Each host hears its own authorization, and no other's."""
    here = url
    for hop in range(REDIRECTS_MAX + 1):
        connection = _connect(here, redirected=hop > 0)
        try:
            parts = _split(here)
            place = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("GET", urllib.parse.quote(place, _AS_IS), headers=_headers(here, secret))
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as wrong:
            connection.close()
            raise _unreachable(url, here, wrong) from None
        if response.status not in _REDIRECTS:
            if response.status == 200:
                return response, connection
            connection.close()
            kind = NotFound if response.status in (404, 410) else Unavailable
            raise kind("fetch", shown(url), f"invalid response status {response.status}", hint="look at the URL")
        location = response.getheader("Location", "")
        connection.close()
        if _split(location).username is not None:  # urljoin takes what has a scheme as it is
            raise Denied(
                "fetch", shown(url), "it is redirected to a URL with a user name", hint="write that URL yourself"
            )
        if here.startswith("https:") and urllib.parse.urljoin(here, location).startswith("http:"):
            raise Denied(
                "fetch", shown(url), "it is redirected from https to http", hint="write the other URL yourself"
            )
        here = urllib.parse.urljoin(here, location)
    raise Unavailable("fetch", shown(url), f"it is redirected more than {REDIRECTS_MAX} times")


def _unreachable(url: str, here: str, wrong: Exception) -> Unavailable:
    """Return the error that a broken connection is; the host in its cause, for that is all that docker's door tells."""
    told = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
    host = urllib.parse.urlsplit(here).netloc.rpartition("@")[2]
    return Unavailable("fetch", shown(url), f"{host}: {told}".lower(), hint="is the server up?")


def shown(url: str) -> str:
    """Return a URL as it may be told: without a password."""
    scheme, found, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    user, at, host = netloc.rpartition("@")
    return f"{scheme}{found}{user.partition(':')[0]}:xxxxx@{host}{slash}{path}" if at and ":" in user else url


def _split(url: str) -> urllib.parse.SplitResult:
    """Return the parts of a URL, a relative one too. Raises Invalid for what no server can be asked for.

    What Python's own reader drops (line ends) or sees late (a port, a name that no host has) is seen here.
    """
    try:
        if any(ord(c) < 32 or ord(c) == 127 for c in url):
            raise ValueError("it has control characters")
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        if parts.port == 0 or "%" in host or " " in host or len(host) > 253:
            raise ValueError("no server has such an address")
        host.encode("idna")
        urllib.parse.quote(url)
        return parts
    except ValueError as wrong:
        cause = "no host has this name" if isinstance(wrong, UnicodeError) else str(wrong)
        raise Invalid("fetch", shown(url)[:200], f"it is no URL: {cause}", hint="look at the URL") from None


def _connect(url: str, *, redirected: bool) -> http.client.HTTPConnection:
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Denied("fetch", shown(url), f"{parts.scheme or 'this'} is not fetched", hint="only http and https are")
    try:
        port = parts.port
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, port, timeout=SILENCE_S_MAX, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, port, timeout=SILENCE_S_MAX)
        connection.connect()
    except (OSError, http.client.HTTPException) as wrong:
        raise _unreachable(url, url, wrong) from None
    address = ipaddress.ip_address(connection.sock.getpeername()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    local = address.is_loopback or address.is_unspecified
    if address.is_link_local or address.is_multicast or (local and redirected):
        connection.close()
        hint = "no build may reach this machine's own services, or its cloud's"
        raise Denied("fetch", shown(url), f"{parts.hostname} is {address}", hint=hint)
    return connection
