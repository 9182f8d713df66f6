"""A real packet to a port of this machine, from a host of its own, and what the machine's rules did with it.

    scratch namespace, 198.18.0.2 --a pair of links--> this machine, as a neighbour on a cable would come

The addresses are those that RFC 2544 sets aside for tests. The packet is traced by the kernel (`nftrace`), so what is
told is what happened, not what we think of the rules.

Invariant: all of it goes with the descriptors of this process: the links with the namespace, the table with its owner.
"""

from __future__ import annotations

import os
import secrets
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, socket

from ..linux.netlink import namespace, nftrace, rtnetlink
from ..linux.netlink import nftables as nft
from ..linux.netlink.nftrace import Step, Trace
from ..linux.netlink.rtnetlink import IFA_F_NODAD, Hop, Rtnetlink
from . import links, subnet
from .firewall import FAMILIES

SOURCES = {4: "198.18.0.2", 6: "2001:2::2"}  # RFC 2544, RFC 5180
ANSWER_S_MAX = 1.5
LOCAL_S_MAX = 3.5  # TCP tries again after one second and after three: a neighbour that is new may miss the first
QUIET_S = 0.15
_PRIORITY = -450  # before everything that could drop it
ANSWERED, REFUSED, SILENT = "answered", "refused", "silent"


class Outcome:
    """answer: ANSWERED, REFUSED or SILENT; source: where the packet came from; steps: the rules that it met."""

    __slots__ = ("answer", "source", "steps")

    def __init__(self, answer: str, source: str, steps: list[Step]) -> None:
        self.answer = answer
        self.source = source
        self.steps = steps


def knock(address: str, port: int, protocol: str, wait_s: float = ANSWER_S_MAX) -> str:
    """Return what a port says to somebody in the calling thread's namespace. UDP: SILENT unless it answers."""
    family = AF_INET6 if ":" in address else AF_INET
    with socket(family, SOCK_STREAM if protocol == "tcp" else SOCK_DGRAM) as asker:
        asker.settimeout(wait_s)
        try:
            asker.connect((address, port))
            if protocol != "tcp":
                asker.send(b"\0")
                asker.recv(1)
        except ConnectionRefusedError:
            return REFUSED
        except OSError:
            return SILENT
    return ANSWERED


def probe(address: str, port: int, protocol: str) -> Outcome:
    """Send a packet to a port of an address of this machine, as a neighbour would. protocol: "tcp" or "udp".

    Raises OSError.
    """
    is_six = ":" in address
    source = SOURCES[6 if is_six else 4]
    name = f"op-{secrets.token_hex(4)}"
    fd, inside = namespace.new(_furnish)
    try:
        with inside, Rtnetlink() as route, nft.Nftables() as rules, Trace() as trace:
            _wire(route, inside, fd, name, (address, source))
            _trace(rules, name)
            answer = namespace.inside(fd, lambda: knock(address, port, protocol))
            steps = list(trace.steps(QUIET_S, ANSWER_S_MAX))
            links.delete_link(route, name)
    finally:
        os.close(fd)
    return Outcome(answer, source, steps)


def _furnish() -> Rtnetlink:
    links.write_sysctl("ipv6/conf/default/accept_ra", "0")
    return Rtnetlink()


def _wire(route: Rtnetlink, inside: Rtnetlink, fd: int, name: str, ends: tuple[str, str]) -> None:
    """Lay a cable between this machine, which has ends[0] already, and the scratch namespace, which gets ends[1]."""
    address, source = ends
    length = 128 if ":" in address else 32
    route.add_link(name, rtnetlink.veth("probe", rtnetlink.in_namespace(fd)))
    here, there = route.link(name), inside.link("probe")
    assert here is not None
    assert there is not None
    links.write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
    for side, link, other, lladdr in ((route, here, source, there.address), (inside, there, address, here.address)):
        side.set_link(link.index, up=True)
        if side is inside:
            side.add_address(link.index, source, length, IFA_F_NODAD)
        side.add_route((other, length), Hop(oif=link.index))
        side.add_neighbour(link.index, other, lladdr)


def _trace(rules: nft.Nftables, name: str) -> None:
    """Have what comes by the link traced, and what of it comes again by the gate. The table goes with its owner."""
    batch = nft.Batch()
    table = f"orlop-{name}"
    for family in FAMILIES:
        value, _ = subnet.number(SOURCES[6 if family.bits == 128 else 4])
        batch.add_table(family.number, table, nft.TABLE_OWNER)
        batch.add_chain(family.number, table, "prerouting", nft.Hook("filter", nft.PREROUTING, _PRIORITY))
        rule = [
            nft.payload(nft.NETWORK_HEADER, family.source, family.size, 8),
            nft.compare(8, value.to_bytes(family.size, "big")),
            nft.immediate(8, b"\1"),
            nftrace.mark_traced(8),
        ]
        batch.add_rule(family.number, table, "prerouting", rule)
    rules.commit(batch)
