"""Proxies on the way to registries: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as Go's programs read them.

Names are looked for in upper case first. This machine itself is never asked through a proxy.
Source: golang.org/x/net/http/httpproxy, which docker, podman and skopeo use.
"""

from __future__ import annotations

import base64
import ipaddress
from urllib.parse import unquote, urlsplit

from orlop.spec.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .transport import Origin

_PORTS = {"http": 80, "https": 443}


class Proxy:
    """One proxy. authorization: what it wants to see in Proxy-Authorization, or ""."""

    __slots__ = ("authorization", "host", "port")

    def __init__(self, host: str, port: int, authorization: str = "") -> None:
        self.host = host
        self.port = port
        self.authorization = authorization

    @property
    def headers(self) -> dict[str, str]:
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Proxies:
    """Which proxy an origin is asked through."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._urls = {scheme: _variable(environ, f"{scheme}_proxy") for scheme in _PORTS}
        if environ.get("REQUEST_METHOD"):
            self._urls["http"] = environ.get("http_proxy", "")  # a CGI program's caller sets HTTP_PROXY (CVE-2016-5386)
        self._exceptions = [one for part in _variable(environ, "no_proxy").split(",") if (one := part.strip().lower())]

    def of(self, origin: Origin) -> Proxy | None:
        """Return the proxy for an origin, None for the straight way. Raises Invalid, Unsupported."""
        url = self._urls[origin.scheme]
        if not url or _is_own(origin.host) or any(_fits(one, origin) for one in self._exceptions):
            return None
        return _parse(url, f"{origin.scheme.upper()}_PROXY")


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.upper()) or environ.get(name, "")


def _parse(url: str, variable: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        # The value may hold a password: it is not shown.
        raise Invalid("use", f"the proxy of {variable}", "it is no address", hint="write it like http://host:3128")
    if parts.scheme != "http":
        hint = "name one that is spoken to over http: what goes through it to https registries is encrypted all the way"
        raise Unsupported("use", f"the proxy of {variable}", f"its scheme is {parts.scheme!r}", hint=hint)
    authorization = ""
    if parts.username is not None:
        raw = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(raw.encode()).decode()
    return Proxy(host, port or _PORTS[parts.scheme], authorization)


def _is_own(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def _fits(exception: str, origin: Origin) -> bool:
    """Tell whether an entry of NO_PROXY means an origin: *, an address, a network, or a domain, with a port or not."""
    if exception == "*":
        return True
    address = _address(origin.host)
    if "/" in exception:
        try:
            return address is not None and address in ipaddress.ip_network(exception, strict=False)
        except ValueError:
            return False
    host, port = _split(exception)
    if port and port != str(origin.port):
        return False
    if address is not None:
        return address == _address(host)
    if host.startswith("*."):
        host = host[1:]
    return origin.host.endswith(host if host.startswith(".") else f".{host}") or origin.host == host


def _split(text: str) -> tuple[str, str]:
    """Return (host, port) of "host", "host:port", "[address]:port" or an address of IPv6."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
