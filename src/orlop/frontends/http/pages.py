"""Requests of pages that a browser shows: what gives them away. No door serves them, and none sends a header of CORS.

A page can't leave Origin and Sec-Fetch-Site away. One of a name that was made to lead to this machine (DNS rebinding)
sends neither to its own host: the host that it names is what it can't choose.
"""

from __future__ import annotations

import re
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .head import Headers

_ADDRESS = re.compile(r"[0-9.]+|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile(r":[0-9]*\Z")
_LOCAL = ("localhost", "host.docker.internal", "host.containers.internal")


def are_asking(headers: Headers, authority: str) -> bool:
    """Tell whether a page asks. Libraries of WebSockets send an Origin too, our own: no page comes from here."""
    here = (f"http://{authority}", f"https://{authority}")
    is_own = headers.get("Origin") in here and "Sec-WebSocket-Key" in headers
    return ("Origin" in headers and not is_own) or headers.get("Sec-Fetch-Site", "none") != "none"


def is_this_machine(authority: str, more: Collection[str]) -> bool:
    """Tell whether a host that was asked for is an address or a name of this machine, which no page comes from.

    more: names that its user gave it.
    """
    name = _PORT.sub("", authority).lower().rstrip(".")
    if _ADDRESS.fullmatch(name) or name in _LOCAL or name.endswith(".localhost"):
        return True
    return name in (*map(str.lower, more), socket.gethostname().lower())


def is_loopback(address: str) -> bool:
    """Tell whether host:port is reached from this machine only."""
    host = _PORT.sub("", address).strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")
