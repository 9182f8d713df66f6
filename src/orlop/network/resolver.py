"""resolv.conf(5): what the machine's says, and what a container's is to say. Pure."""

from __future__ import annotations

from . import subnet

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
