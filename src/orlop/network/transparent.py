"""Sockets that speak as somebody else: a relay's connections into containers, with the address of who asked.

    client 203.0.113.9 -> port of the machine -> relay: a socket bound to 203.0.113.9, marked SENT -> the container
    the container -> 203.0.113.9, by its bridge -> RETURNING, as the connection's mark says: a table where all is local

IP_TRANSPARENT of ip(7). Everything lies in the relay's network namespace, whose root it is: an ordinary user's own.
What the container answers is told from what it begins by the mark of the connection, so that a container that
connects to the same address by itself gets outside as ever.
"""

from __future__ import annotations

import errno
import socket
import struct

from ..linux.netlink import nftables as nft
from ..linux.netlink.nftables import Batch, Hook, Nftables
from ..linux.netlink.rtnetlink import RTN_LOCAL, Hop, Rtnetlink
from . import firewall, subnet
from .firewall import FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .subnet import Subnet

TABLE = "orlop-relay"
SENT, RETURNING = 0x6F726C01, 0x6F726C02
ROUTES = 0x6F72  # the number of the table of routes
_PRIORITY = 100  # of the rule that leads there: before the main table's
_MANGLE = -150
_R = 8
_TRANSPARENT: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.SOL_IP, 19),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 75),
}
_IP_BIND_ADDRESS_NO_PORT = 24
_FAMILIES = {nft.IPV4: (socket.AF_INET, "0.0.0.0"), nft.IPV6: (socket.AF_INET6, "::")}
_CONTAINERS = ("bridge",)


def prepare() -> list[int]:
    """Have answers to such sockets come back to them; return the address families where they do.

    What is there already is left as it is: several relays of one namespace share it.
    """
    ready: list[int] = []
    try:
        with Nftables() as rules, Rtnetlink() as route:
            loopback = route.link("lo")
            for family in FAMILIES:
                number, everywhere = _FAMILIES[family.number]
                try:
                    if not rules.has_table(family.number, TABLE):
                        rules.commit(_rules(family.number))
                    _lead_home(route, number, everywhere, loopback.index if loopback is not None else 1)
                except OSError:
                    continue  # no IPv6, or a kernel without one of these
                ready.append(number)
    except OSError:
        return []
    return ready


def forget() -> None:
    """Take away the rules that `prepare` has made: no relay is left here. The way home stays, which nothing is marked
    for. Raises OSError."""
    with Nftables() as rules:
        firewall.forget(rules, TABLE)


def bound_as(client: str, family: int, kind: int) -> socket.socket:
    """Return a socket that connects with a client's address, and any port. family, kind: as in socket(2).

    Raises OSError: EADDRNOTAVAIL, EPERM and others where this can't be.
    """
    one = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        level, option = _TRANSPARENT[family]
        one.setsockopt(level, option, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, SENT)
        one.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        one.bind((client, 0))
    except BaseException:
        one.close()
        raise
    return one


def of_containers(route: Rtnetlink) -> list[Subnet]:
    """Return the subnets of containers: who is in one of them answers there itself."""
    bridges = {link.index for link in route.links() if link.kind in _CONTAINERS}
    return [subnet.parse(f"{one.address}/{one.prefix_length}") for one in route.addresses() if one.index in bridges]


def can_be(client: str, family: int, taken: Sequence[Subnet]) -> bool:
    """Tell whether a container may see this address as its peer: no loopback (CVE-2021-20199), none of containers."""
    try:
        value, bits = subnet.number(client)
    except ValueError:
        return False  # a link-local address has its link behind it
    if (bits == 128) != (family == socket.AF_INET6) or client.startswith("127.") or client == "::1":
        return False
    return not any(one.bits == bits and one.first <= value <= one.last for one in taken)


def _rules(family: int) -> Batch:
    batch = Batch()
    batch.add_table(family, TABLE)
    mark = struct.pack("=L", SENT)
    batch.add_chain(family, TABLE, "sent", Hook("filter", nft.OUTPUT, _MANGLE))
    batch.add_rule(family, TABLE, "sent", [nft.meta(nft.MARK, _R), nft.compare(_R, mark), nft.set_connection_mark(_R)])
    batch.add_chain(family, TABLE, "returning", Hook("filter", nft.PREROUTING, _MANGLE))
    batch.add_rule(
        family,
        TABLE,
        "returning",
        [
            nft.conntrack(nft.CT_MARK, _R),
            nft.compare(_R, mark),
            nft.conntrack(nft.CT_DIRECTION, _R),
            nft.compare(_R, nft.CT_REPLY),
            nft.immediate(_R, struct.pack("=L", RETURNING)),
            nft.set_mark(_R),
        ],
    )
    return batch


def _lead_home(route: Rtnetlink, family: int, everywhere: str, loopback: int) -> None:
    route.add_route((everywhere, 0), Hop(oif=loopback, table=ROUTES, kind=RTN_LOCAL))
    try:
        route.add_rule(family, ROUTES, mark=RETURNING, priority=_PRIORITY)
    except OSError as failure:
        if failure.errno != errno.EEXIST:
            raise
