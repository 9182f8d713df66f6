"""Where docker's API is served beside the engine's own docker.sock: `orlop serve --host`, and what systemd opened.

TCP is served with mutual TLS or not at all: whoever reaches the API is as mighty as the engine's user (SEC-71).
"""

from __future__ import annotations

import os
import socket

from ...spec.errors import Conflict, Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

BACKLOG = 1024
PORT_DEFAULT = 2376  # the registered port of docker's API over TLS
HOSTS_MAX = 16


class Hosts:
    """names: as docker's -H has them: unix:///path, tcp://address:port. certificates: (authority, own, key) or None.

    offered: listening sockets that came with the start.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        certificates: tuple[str, str, str] | None = None,
        offered: Sequence[socket.socket] = (),
    ) -> None:
        self.names = names
        self.certificates = certificates
        self.offered = offered
        self._served: list[tuple[str, socket.socket]] = []

    def take(self, place: str) -> socket.socket | None:
        """Return and take the offered socket that is bound to this path, None when none is."""
        for listener in self.offered:
            if listener.family == socket.AF_UNIX and _same(listener.getsockname(), place):
                self.offered = [one for one in self.offered if one is not listener]
                return listener
        return None

    def listeners(self) -> list[tuple[str, socket.socket, ssl.SSLContext | None]]:
        """Return all of them, with the TLS that each needs. Raises Invalid, Unavailable, Conflict."""
        if len(self.names) > HOSTS_MAX:
            raise Invalid("serve on", f"{len(self.names)} hosts", f"the limit is {HOSTS_MAX}", hint="give fewer")
        found = [(f"offered {listener.getsockname()!r}", listener) for listener in self.offered]
        try:
            found += [(name, _listen(name)) for name in self.names if name not in ("fd://", "")]
            self._served = found
            return [(name, listener, self._tls(name, listener)) for name, listener in found]
        except BaseException:
            for _, listener in found:
                listener.close()
            raise

    def renewed(self) -> list[tuple[str, ssl.SSLContext]]:
        """Return the TLS of each that has some, from certificates as they are now. Raises Invalid."""
        found = ((name, self._tls(name, listener)) for name, listener in self._served)
        return [(name, tls) for name, tls in found if tls is not None]

    def _tls(self, name: str, listener: socket.socket) -> ssl.SSLContext | None:
        if listener.family == socket.AF_UNIX:
            return None
        if self.certificates is None:
            raise Invalid(
                "serve on",
                name,
                "TCP is served only to clients that show a certificate",
                hint="give --tlscacert, --tlscert and --tlskey",
            )
        from ..http.tls import mutual

        return mutual(*self.certificates)


def _same(name: object, place: str) -> bool:
    return isinstance(name, str) and os.path.realpath(name) == os.path.realpath(place)


def _listen(name: str) -> socket.socket:
    scheme, separator, rest = name.partition("://")
    if not separator or scheme not in ("unix", "tcp"):
        raise Invalid("serve on", name[:200], "it is no unix:///path and no tcp://address:port", hint="write it so")
    try:
        return _unix(rest) if scheme == "unix" else _tcp(name, rest)
    except OSError as wrong:
        raise Unavailable("serve on", name[:200], wrong.strerror or str(wrong), hint="choose another place") from None


def _unix(path: str) -> socket.socket:
    if not path.startswith("/"):
        raise Invalid("serve on", f"unix://{path}", "its path is not absolute", hint="write unix:///path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket that a dead server left. Raises Conflict where one listens, or where something else is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise Conflict("serve on", path, "somebody listens there already", hint="choose another path")


def _tcp(name: str, rest: str) -> socket.socket:
    address, _, port = rest.rpartition(":") if ":" in rest.rpartition("]")[2] else (rest, "", str(PORT_DEFAULT))
    if not (port.isascii() and port.isdecimal() and int(port) < 65536 and len(port) < 6):
        raise Invalid("serve on", name[:200], f"{port[:20]!r} is no port", hint="write tcp://127.0.0.1:2376")
    address = address.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(port)))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
