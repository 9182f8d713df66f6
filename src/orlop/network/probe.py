"""A real packet to a port of this machine, from a host of its own, and what the machine's rules did with it.

    scratch namespace, 198.18.0.2 --a pair of links--> this machine, as a neighbour on a cable would come

The addresses are those that RFC 2544 sets aside for tests. The packet is traced by the kernel (`nftrace`), so what is
told is what happened, not what we think of the rules.

Invariant: all of it goes with the descriptors of this process: the links with the namespace, the table with its owner.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import time
from socket import AF_INET, AF_INET6, SO_ERROR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, socket

from ..linux.netlink import namespace, nftrace, rtnetlink
from ..linux.netlink import nftables as nft
from ..linux.netlink.nftrace import Step, Trace
from ..linux.netlink.rtnetlink import IFA_F_NODAD, Hop, Rtnetlink
from . import links, subnet
from .firewall import FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = {4: "198.18.0.2", 6: "2001:2::2"}  # RFC 2544, RFC 5180
ANSWER_S_MAX = 1.5
# TCP tries again after one second and after three: a neighbour that is new may miss the first. UDP need not answer.
LOCAL_S_MAX = {"tcp": 3.5, "udp": 0.5}
QUIET_S = 0.15
CARRIER_S_MAX = 1.0
_PRIORITY = -450  # before everything that could drop it
ANSWERED, REFUSED, SILENT = "answered", "refused", "silent"


class Outcome:
    """answer: ANSWERED, REFUSED or SILENT; source: where the packet came from; steps: the rules that it met."""

    __slots__ = ("answer", "source", "steps")

    def __init__(self, answer: str, source: str, steps: list[Step]) -> None:
        self.answer = answer
        self.source = source
        self.steps = steps


class Knock:
    """A packet that is under way to a port, from the namespace of the thread that makes this. Needs to be closed."""

    def __init__(self, address: str, port: int, protocol: str) -> None:
        """protocol: "tcp" or "udp". Raises OSError: it can't be sent."""
        self._is_stream = protocol == "tcp"
        self._asker = socket(AF_INET6 if ":" in address else AF_INET, SOCK_STREAM if self._is_stream else SOCK_DGRAM)
        self.awaited = select.POLLOUT if self._is_stream else select.POLLIN
        try:
            self._asker.setblocking(False)
            failure = self._asker.connect_ex((address, port))
            if failure not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
                raise OSError(failure, os.strerror(failure))
            if not self._is_stream:
                self._asker.send(b"\0")
        except BaseException:
            self._asker.close()
            raise

    def fileno(self) -> int:
        return self._asker.fileno()

    def answer(self) -> str:
        """Return what the port says, when it is ready for what is awaited. UDP: SILENT unless it answers."""
        if self._is_stream:
            failure = self._asker.getsockopt(SOL_SOCKET, SO_ERROR)
        else:
            try:
                self._asker.recv(1)
                failure = 0
            except OSError as wrong:
                failure = wrong.errno or errno.EIO
        if not failure:
            return ANSWERED
        return REFUSED if failure == errno.ECONNREFUSED else SILENT

    def __enter__(self) -> Knock:
        return self

    def __exit__(self, *_: object) -> None:
        self._asker.close()


def knock(address: str, port: int, protocol: str) -> str:
    """Return what a port says to somebody in the calling thread's namespace within LOCAL_S_MAX."""
    try:
        with Knock(address, port, protocol) as asker:
            poll = select.poll()
            poll.register(asker, asker.awaited)
            return asker.answer() if poll.poll(LOCAL_S_MAX[protocol] * 1000) else SILENT
    except OSError:
        return SILENT


def _follow(asker: Knock, trace: Trace, is_end: Callable[[Step], bool]) -> tuple[str, list[Step]]:
    """Return what the port says, and what the rules did: until it is quiet after an answer or an end of the way."""
    answer, is_over = SILENT, False
    steps: list[Step] = []
    poll = select.poll()
    poll.register(trace, select.POLLIN)
    poll.register(asker, asker.awaited)
    deadline = time.monotonic() + ANSWER_S_MAX
    while (left := deadline - time.monotonic()) > 0:
        ready = dict(poll.poll((min(left, QUIET_S) if is_over else left) * 1000))
        if trace.fileno() in ready:
            found = list(trace.steps())
            steps += found
            is_over = is_over or any(map(is_end, found))
        if asker.fileno() in ready:
            answer, is_over = asker.answer(), True
            poll.unregister(asker)
        if not ready and is_over:
            break
    return answer, steps


def probe(address: str, port: int, protocol: str, is_end: Callable[[Step], bool]) -> Outcome:
    """Send a packet to a port of an address of this machine, as a neighbour would. protocol: "tcp" or "udp".

    is_end: tells whether nothing comes of the packet after a step. One at a time: they all come from the same address.
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
            with namespace.inside(fd, lambda: Knock(address, port, protocol)) as asker:
                answer, steps = _follow(asker, trace, is_end)
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
    # What a link is given before the kernel has seen its carrier is lost, and TCP sends it again after a second.
    deadline = time.monotonic() + CARRIER_S_MAX
    while not (_is_running(route, name) and _is_running(inside, "probe")) and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_running(route: Rtnetlink, name: str) -> bool:
    link = route.link(name)
    return link is not None and link.is_running


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
