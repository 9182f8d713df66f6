"""The dashboard's door: on an address of this machine's own, for one browser, until its time is up.

1. Who comes first with the token of the printed address gets the cookie, once; without the cookie there is nothing.
2. The host that is asked for is the address that was printed: a name that was made to lead here (DNS rebinding) is 403.
3. Pages of others get nothing: an Origin that is not ours, or a request that another site made, is 403.
4. Nothing is changed: GET and HEAD alone. No page may hold anything from elsewhere, nor be held by one (CSP).
The address is one of 127.0.0.0/8 chosen by chance: browsers send a cookie to every port of a host.
"""

from __future__ import annotations

import hmac
import secrets
import signal
import socket
import threading

from ...spec.errors import NotFound, OrlopError, Unavailable
from ..http import Exchange, Server
from . import pages
from .look import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.paths import Paths

COOKIE = "orlop-dashboard"
CONNECTIONS_MAX = 32
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HTML = {"Content-Type": "text/html; charset=utf-8"}
REFRESH_S = 10


class Access:
    """Who may look. token: in the address that is printed, good for one time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.token = secrets.token_urlsafe(32)
        self.authority = ""
        self._cookie = secrets.token_urlsafe(32)
        self._guard = threading.Lock()
        self._is_used = False

    def redeem(self, token: str) -> str | None:
        """Return the cookie's value for the token, the first time it is shown."""
        with self._guard:
            if self._is_used or not _same(token, self.token):
                return None
            self._is_used = True
            return self._cookie

    def is_known(self, cookies: str) -> bool:
        """Tell whether the header Cookie holds ours."""
        pairs = (part.strip().partition("=") for part in cookies.split(";"))
        return any(name == COOKIE and _same(value, self._cookie) for name, _, value in pairs)


class Door(Exchange):
    """One browser's connection."""

    def handle_request(self) -> None:
        """Answer one request."""
        access = self.server.context
        assert isinstance(access, Access)
        refusal = self._refusal(access)
        if refusal is not None:
            self._page(*refusal)
        elif not access.is_known(self.headers.get("Cookie")):
            self._let_in(access)
        elif self.place == "/style.css":
            self.answer(200, {**_HEADERS, "Content-Type": "text/css; charset=utf-8"}, pages.STYLE.encode())
        else:
            self._show(access.engine)

    def _refusal(self, access: Access) -> tuple[int, str] | None:
        if self.authority != access.authority:
            return 403, "this is not the address that was printed"
        if self.headers.get("Origin", f"http://{access.authority}") != f"http://{access.authority}":
            return 403, "a page of another site asked"
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return 403, "a page of another site asked"
        if self.command not in ("GET", "HEAD"):
            return 405, "nothing can be changed here"
        return None

    def _let_in(self, access: Access) -> None:
        cookie = access.redeem(self.query.get("token", "")) if self.command == "GET" and self.place == "/" else None
        if cookie is None:
            self._page(403, "the printed address works once, in one browser; start orlop dashboard again for another")
            return
        given = f"{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict"
        self.answer(303, {**_HEADERS, "Location": "/", "Set-Cookie": given})

    def _show(self, engine: Engine) -> None:
        refresh = {"Refresh": str(REFRESH_S)}
        try:
            if self.place == "/":
                self._html(200, pages.overview(engine.overview()), refresh)
            elif self.place.startswith("/container/"):
                facts = engine.container(self.place.removeprefix("/container/"))
                self._html(200, pages.container(facts), refresh)
            else:
                self._page(404, "there is no such page")
        except NotFound as wrong:
            self._page(404, wrong.cause)
        except OrlopError as wrong:
            self._page(503, str(wrong))

    def _page(self, status: int, cause: str) -> None:
        self._html(status, pages.wrong("Orlop", cause))

    def _html(self, status: int, page: str, more: dict[str, str] | None = None) -> None:
        self.answer(status, {**_HEADERS, **_HTML, **(more or {})}, page.encode())


def serve(paths: Paths, port: int, ends_s: float | None, told: Callable[[str], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, or until the time is up. told: called with the address to open.

    Raises Unavailable when the port is taken.
    """
    access = Access(Engine(paths))
    host = ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])
    try:
        listener = socket.create_server((host, port))
    except OSError as wrong:
        raise Unavailable(
            "listen", f"port {port}", wrong.strerror or str(wrong), hint="choose another --port"
        ) from None
    server = Server(listener, Door, access, connections_max=CONNECTIONS_MAX)
    access.authority = f"{host}:{server.port}" if server.port != 80 else host
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the thread, which inherits it
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        told(f"http://{access.authority}/?token={access.token}")
        if ends_s is None:
            signal.sigwait(signals)
        else:
            signal.sigtimedwait(signals, ends_s)
    finally:
        server.stop()
        thread.join()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
