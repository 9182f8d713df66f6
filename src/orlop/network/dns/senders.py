"""What a restricted container sends comes from its own addresses, or goes nowhere.

Rules that look at a source believe whoever writes another one into its packets: CAP_NET_RAW is enough for that, and
docker gives it to everybody; a link-local address of IPv6 needs nothing at all. So each link of such a container has a
chain of its own, where its packets come in on the machine's side, before a bridge sees them:

    container's end of the pair --> the machine's end: `ingress`, of the family netdev --> bridge --> rules by address

Invariants:
1. What is neither IP from an address of this link, nor ARP for it, nor finds neighbours (RFC 4861, RFC 3810), drops.
2. A chain is there before its link is up. It drops everything from its container's end on, and goes with the link.
"""

from __future__ import annotations

import errno

from ...linux.netlink import nftables as nft
from ...linux.netlink.nftables import ACCEPT, DROP, IPV6, NETDEV, Batch, Hook
from .. import subnet
from ..firewall import FAMILIES
from .attempts import DENIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_R = 8
_PRIORITY = -10
_ARP, _ICMPV6 = 0x0806, 58
_ETHERTYPES = {nft.IPV4: 0x0800, IPV6: 0x86DD}
_ARP_SENDER = 14  # where ARP has the address of who asks
_LINK_LOCAL = b"\xfe\x80", b"\xff\xc0"  # fe80::/10
# Reports of MLD, the question for a router, for a neighbour, and the answer to that.
_NEIGHBOURS = (131, 132, 133, 135, 136, 143)


class Senders:
    """The chains of one table, told of in batches of the caller's."""

    def __init__(self, table: str, group: int | None) -> None:
        """group: of nflog, where what drops is told; None where nobody hears."""
        self._table = table
        self._group = group
        self.links: dict[str, tuple[str, ...]] = {}

    def add(self, batch: Batch, link: str, addresses: Sequence[str]) -> None:
        """Have a link send from these addresses alone."""
        self.links[link] = tuple(addresses)
        hook = Hook("filter", nft.INGRESS, _PRIORITY, device=link)
        batch.add_chain(NETDEV, self._table, link, hook)
        batch.flush_chain(NETDEV, self._table, link)
        for rule in self._rules(link, addresses):
            batch.add_rule(NETDEV, self._table, link, rule)

    def seal(self, socket: nft.Nftables, links: Collection[str]) -> None:
        """Have links send nothing any more: whoever they were for has ended, and others may still be where they lead to
        (`--network container:NAME`, or an init that outlived its monitor). Raises OSError."""
        for link in links:
            self.links.pop(link, None)
            batch = Batch()
            batch.flush_chain(NETDEV, self._table, link)
            batch.add_rule(NETDEV, self._table, link, [nft.verdict(DROP)])
            try:
                socket.commit(batch)
            except OSError as failure:
                if failure.errno != errno.ENOENT:  # it went with its link
                    raise

    def remove(self, socket: nft.Nftables, links: Collection[str]) -> None:
        """Forget links, which may be gone already, and their chains with them. Raises OSError."""
        for link in links:
            self.links.pop(link, None)
            batch = Batch()
            batch.flush_chain(NETDEV, self._table, link)
            batch.delete_chain(NETDEV, self._table, link)
            try:
                socket.commit(batch)
            except OSError as failure:
                if failure.errno != errno.ENOENT:
                    raise

    def strangers(self, socket: nft.Nftables) -> list[str]:
        """Return the chains that are there for links nobody has told of."""
        found = [one.name for one in socket.chains(NETDEV) if one.table == self._table]
        return [name for name in found if name not in self.links]

    def _rules(self, link: str, addresses: Sequence[str]) -> Iterator[list[bytes]]:
        for address in addresses:
            value, bits = subnet.number(address)
            family = FAMILIES[bits == 128]
            data = value.to_bytes(family.size, "big")
            source = nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R)
            yield [*_is(_ETHERTYPES[family.number]), source, nft.compare(_R, data), nft.verdict(ACCEPT)]
            if family.number == IPV6:
                yield from _neighbours()
            else:
                sender = nft.payload(nft.NETWORK_HEADER, _ARP_SENDER, family.size, _R)
                for own in (data, bytes(family.size)):  # who asks whether anybody has an address says none
                    yield [*_is(_ARP), sender, nft.compare(_R, own), nft.verdict(ACCEPT)]
        if self._group is not None:
            for ethertype in _ETHERTYPES.values():
                yield [*_is(ethertype), nft.log(f"{DENIED}@{link}", self._group), nft.verdict(DROP)]
        yield [nft.verdict(DROP)]


def _is(ethertype: int) -> list[bytes]:
    return [nft.meta(nft.PROTOCOL, _R), nft.compare(_R, ethertype.to_bytes(2, "big"))]


def _neighbours() -> Iterator[list[bytes]]:
    """Yield the rules that let who is on one link find each other, from addresses that no router forwards."""
    prefix, bits = _LINK_LOCAL
    local = [nft.payload(nft.NETWORK_HEADER, 8, 2, _R), nft.mask(_R, bits), nft.compare(_R, prefix)]
    nobody = [nft.payload(nft.NETWORK_HEADER, 8, 16, _R), nft.compare(_R, bytes(16))]
    icmp = [nft.meta(nft.L4PROTO, _R), nft.compare(_R, bytes((_ICMPV6,)))]
    kind = nft.payload(nft.TRANSPORT_HEADER, 0, 1, _R)
    for source in (local, nobody):
        for one in _NEIGHBOURS:
            told = [kind, nft.compare(_R, bytes((one,)))]
            yield [*_is(_ETHERTYPES[IPV6]), *source, *icmp, *told, nft.verdict(ACCEPT)]
