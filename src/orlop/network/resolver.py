"""resolv.conf(5): what the machine's says, and what a container's is to say. Pure."""

from __future__ import annotations

from . import subnet
from .dns.message import encode_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SERVERS_MAX = 32  # glibc reads three; our own resolver asks them all
WORDS_MAX = 64
FALLBACK = ("8.8.8.8", "8.8.4.4")  # docker's, where the machine has none but its own


class ResolvConf:
    """servers: addresses, an IPv6 one may have a zone; search: domains; options: as they stand there."""

    __slots__ = ("options", "search", "servers")

    def __init__(self, servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> None:
        self.servers = tuple(servers)
        self.search = tuple(search)
        self.options = tuple(options)

    def overridden(self, servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> ResolvConf:
        """Return it with what the user gives in the place of the machine's; a search of "." is none."""
        wanted = () if tuple(search) == (".",) else search or self.search
        return ResolvConf(servers or self.servers, wanted, options or self.options)

    def without_loopback(self) -> ResolvConf:
        """Return it without servers on 127.0.0.0/8 and ::1, which in a container are its own."""
        return ResolvConf([one for one in self.servers if not is_loopback(one)] or FALLBACK, self.search, self.options)

    def render(self) -> bytes:
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return ("\n".join(lines) + "\n").encode() if lines else b""


def parse(data: bytes) -> ResolvConf:
    """Return what a resolv.conf says. Lines that say nothing that is known are passed over; the last search counts."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in data.decode(errors="replace").splitlines():
        word, *rest = line.split("#", 1)[0].split(";", 1)[0].split() or [""]
        if word == "nameserver" and rest and len(servers) < SERVERS_MAX and _is_address(rest[0]):
            servers.append(rest[0])
        elif word in ("search", "domain"):
            search = rest[:WORDS_MAX]
        elif word == "options":
            options += rest[:WORDS_MAX]
    return ResolvConf(servers, search, options)


def parse_upstream(text: str) -> tuple[tuple[str, ...], str]:
    """Return (domains, address) of an upstream server: "192.0.2.1", or "/corp.example/lan/192.0.2.1" for these domains
    and what is below them, as dnsmasq(8) writes it. Raises ValueError."""
    if not text.startswith("/"):
        subnet.number(text)
        return (), text
    *domains, address = text[1:].split("/")
    for domain in domains:
        encode_name(domain)
    if not domains or not all(domain.strip(".") for domain in domains):
        raise ValueError(f"invalid server for a domain: {text[:100]!r}")
    subnet.number(address)
    return tuple(domain.strip(".").lower() for domain in domains), address


def for_every_name(upstreams: Sequence[str]) -> tuple[str, ...]:
    """Return the servers that are asked for any name, of what `parse_upstream` takes."""
    return tuple(one for one in upstreams if not one.startswith("/"))


def for_name(upstreams: Sequence[str], name: str) -> tuple[str, tuple[str, ...]]:
    """Return (domain, servers) of the longest domain that a name is in, ("", ()) if it is in none of them."""
    found: dict[str, list[str]] = {}
    for text in upstreams:
        domains, address = parse_upstream(text)
        for domain in domains:
            if name == domain or name.endswith(f".{domain}"):
                found.setdefault(domain, []).append(address)
    longest = max(found, key=len, default="")
    return longest, tuple(found.get(longest, ()))


def is_loopback(address: str) -> bool:
    """Tell whether an address is the machine's own loopback."""
    bare = address.partition("%")[0]
    return bare.startswith("127.") or bare == "::1"


def _is_address(address: str) -> bool:
    try:
        subnet.number(address.partition("%")[0])
    except ValueError:
        return False
    return True
