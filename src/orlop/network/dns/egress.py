"""What containers may reach outside, where they were started with `--egress deny`: by address, and by name.

With `--egress learn` they may reach everything, and what they reach is kept (`attempts`).

The resolver is the one who knows which address a name has just now, so it is the one who opens the way there: an
address is let through before the answer with it is sent. Names that are not allowed are asked of nobody: a question is
a way out too. The rules lie on the machine's side, where no capability inside the container reaches them.

Invariants:
1. A table of its own, whose owner is the resolver: it persists when that is killed, with everything that is closed.
2. Whoever is restricted reaches nothing new but what is allowed, on other machines and on this one; what was opened by
   name closes when the name's time is over. Connections that stand are left alone.
3. By TCP nothing goes straight to an address that was opened by name: it goes by the passage, which asks for the name
   again (`passage`); nor does QUIC, whose names nobody can read, unless /udp was written.
4. A name leads to no address of this machine and of no container, and to none of a link's own (169.254.169.254, where
   clouds keep credentials), whatever its server says: to those leads an entry with their address.
5. Whoever is restricted stays so while its networks change: nothing is taken out before its successor is there.
6. What containers on one bridge send to each other passes these rules only where br_netfilter is loaded (docker does).
   Where they must not reach each other anywhere, each needs a network of its own, or one without ICC.
"""

from __future__ import annotations

import errno
import time
import zlib

from ...linux.netlink import nftables as nft
from ...linux.netlink.nftables import ACCEPT, DROP, IPV6, Batch, Element, Hook
from ...linux.netlink.rtnetlink import Rtnetlink
from ...spec.network import Attempt
from .. import firewall, subnet
from ..firewall import FAMILIES, NUMBERS
from .attempts import DENIED, LEARNED, Attempts
from .passage import Passage
from .senders import Senders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Collection, Sequence

    from ..firewall import Family
    from .server import Loop

    Edges = tuple[int, int]  # first and last
    End = tuple[str, tuple[str, ...]]  # a link's name on the machine's side, "" if it has none, and its addresses
    Key = tuple[int, int, bytes, bytes]  # family, number of the entry, first key, last key
    Ways = tuple[int, list[tuple[Edges, Edges]]]
    Led = tuple[str, int]  # an address and its port, 0 for all

LIFE_S_MIN = 300  # programs keep addresses longer than the name's time to live
LIFE_S_MAX = 7 * 86400  # RFC 8767: nobody means more
ANSWER_ADDRESSES_MAX = 256  # of one answer: each is looked up
OPENED_MAX = 16384  # of one container
ENTRIES_MAX = 256
_TCP, _UDP, _QUIC = 6, 17, 443
_ICMPV6, _NEIGHBOURS = 58, (135, 136)  # RFC 4861: solicitation and advertisement
_PRIORITY = -10
_R = 8
_DNS, _ICMP = "dns", "icmp"  # an entry that lets a name be asked for, and nothing else; ping
_PROTOCOLS = (*NUMBERS, _ICMP, _DNS)


class Allowed:
    """One entry: where to. name: a domain, "*.domain" for all below it, or "" with a subnet. port 0 is every port."""

    __slots__ = ("name", "port", "protocol", "subnet", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no NAME, ADDRESS or SUBNET with an optional :PORT[/PROTOCOL]."""
        rest, _, protocol = text.rpartition("/")
        if protocol not in _PROTOCOLS:
            rest, protocol = text, ""
        self.text = text
        self.protocol = protocol
        self.subnet: subnet.Subnet | None = None
        self.name = ""
        host, port = _split(rest)
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535):
            raise ValueError(f"invalid port in {text[:100]!r}")
        self.port = int(port or 0)
        try:
            self.subnet = subnet.parse(host if "/" in host else f"{host}/{128 if ':' in host else 32}")
        except ValueError:
            self.name = _domain(host, text)
        if protocol in (_DNS, _ICMP) and (self.port or (protocol == _DNS and not self.name)):
            raise ValueError(f"{text[:100]!r}: {protocol} has no port{', and is of a name' * (protocol == _DNS)}")

    @property
    def is_led(self) -> bool:
        """Whether it opens a way by name that goes by the passage: by TCP."""
        return bool(self.name) and self.protocol in ("", "tcp")

    def ways(self, *, is_near: bool = False) -> list[tuple[Edges, Edges]]:
        """Return what it opens straight to an address: (first and last protocol, first and last port).

        is_near: it is of a container that the name is one's own of: nobody else has that address.
        """
        first, last = (self.port, self.port) if self.port else (0, 65535)
        if self.protocol in (_DNS, _ICMP):
            return [((one, one), (first, last)) for one in (1, _ICMPV6) if self.protocol == _ICMP]
        by_address = is_near or not self.name
        if self.protocol:
            number = NUMBERS[self.protocol]
            return [] if self.is_led and not by_address else [((number, number), (first, last))]
        if self.port:  # of those that have ports: what stands in its place elsewhere is anything
            closed = () if by_address else ((_TCP, first), (_UDP, _QUIC))
            return [((one, one), (first, last)) for one in NUMBERS.values() if (one, first) not in closed]
        if by_address:
            return [((0, 255), (first, last))]
        others = ((0, _TCP - 1), (_TCP + 1, _UDP - 1), (_UDP + 1, 255))
        datagrams = ((first, _QUIC - 1), (_QUIC + 1, last))
        return [*((one, (first, last)) for one in others), *(((_UDP, _UDP), one) for one in datagrams)]

    def names(self, name: str) -> bool:
        """Tell whether this entry allows a name."""
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return bool(self.name) and name == self.name


def _split(rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        return host, port.removeprefix(":")
    if rest.count(":") > 1:
        return rest, ""
    host, _, port = rest.partition(":")
    return host, port


def _domain(host: str, text: str) -> str:
    name = host.lower().rstrip(".")
    labels = name.removeprefix("*.").split(".")
    letters = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
    if len(name) > 253 or not all(0 < len(label) < 64 and letters.issuperset(label) for label in labels):
        raise ValueError(f"{text[:100]!r} is no name, address or subnet")
    return name


class Restricted:
    """A container that may reach what is allowed. opened: what was let through for it, by key of the set.

    led: what its passage takes, as long as a name leads there; values of both are timers, 0 for none. found: which
    addresses names had, and until when they count. links: from which addresses each of its links may send.
    """

    __slots__ = ("addresses", "allowed", "found", "learns", "led", "links", "opened")

    def __init__(self, ends: Sequence[End], allowed: Sequence[Allowed], learns: bool) -> None:
        self.addresses = tuple(address for _, addresses in ends for address in addresses)
        self.links = {link: addresses for link, addresses in ends if link and not learns}
        self.learns = learns
        self.allowed = tuple(allowed)
        self.opened: dict[Key, int] = {}
        self.led: dict[Led, int] = {}
        self.found: dict[tuple[str, str], float] = {}

    @property
    def set_name(self) -> str:
        """The set of the table that its addresses are in."""
        return "learning" if self.learns else "restricted"


class Gatekeeper:
    """The table, and who is in it."""

    def __init__(
        self,
        table: str,
        after: Callable[[float, Callable[[], None]], int],
        cancel: Callable[[int], None],
        tell: Callable[[str, Attempt], None],
        is_outside: Callable[[str], bool],
    ) -> None:
        """In the network namespace of the containers' bridges. Raises OSError.

        after, cancel: the loop's timers; tell: what is told of attempts; is_outside: where a passage may lead.
        """
        self._table = table
        self.attempts: Attempts | None = None
        self.unheard = ""  # why nobody hears of attempts: what is closed is closed nevertheless
        try:
            self.attempts = Attempts(group_of(table), tell)
        except OSError as failure:
            taken = f"another program has the group {group_of(table)} of nflog"
            self.unheard = "the kernel has no nfnetlink_log" if failure.errno == errno.EINVAL else taken
        self._after = after
        self._cancel = cancel
        self._is_outside = is_outside
        self._senders = Senders(table, group_of(table) if self.attempts is not None else None)
        self._socket = nft.Nftables()
        self._route = Rtnetlink()
        self._members: dict[str, Restricted] = {}
        self._passages: dict[str, Passage] = {}
        self._ways = 0  # how many sets there are
        self.is_owned = False  # by the kernel's doing: nobody else can take the table away
        self._ensure()

    def restrict(self, member_id: str, ends: Sequence[End], allowed: Sequence[Allowed] | None, path: str) -> None:
        """Close everything to a container but what is allowed; None closes nothing, and learns.

        path: of the file that keeps what it tries. Raises OSError; then it must not start.
        """
        member = Restricted(ends, allowed or (), learns=allowed is None)
        before = self._members.get(member_id)
        batch = Batch()
        if len(member.allowed) > self._ways:
            for family in FAMILIES:
                _write_ways(batch, self._table, family, len(member.allowed))
        self._close_to(batch, member)
        self._socket.commit(batch)
        self._ways = max(self._ways, len(member.allowed))
        if before is not None:
            self._supersede(member_id, before, member)
        self._members[member_id] = member
        batch = Batch()
        for number, entry in enumerate(member.allowed):
            if entry.subnet is not None:
                self._open(batch, member, entry.subnet, (number, entry.ways()), 0)
        for (name, address), until in member.found.items():
            self._open_name(batch, member_id, name, (address, until - time.monotonic()))
        if batch.messages:
            self._socket.commit(batch)
        if self.attempts is not None:
            self.attempts.watch(member_id, ends, path)

    def _close_to(self, batch: Batch, member: Restricted) -> None:
        for address in member.addresses:
            family, data = _of(address)
            batch.add_elements(family.number, self._table, member.set_name, [Element(data)])
        for link, addresses in member.links.items():
            self._senders.add(batch, link, addresses)

    def _supersede(self, member_id: str, before: Restricted, member: Restricted) -> None:
        """Take out what the one before had and this one has not; what names have led to is remembered."""
        now = time.monotonic()
        member.found = {found: until for found, until in before.found.items() if until > now}
        self._shut(member_id, before)
        for address in set(before.addresses) - set(member.addresses if before.learns == member.learns else ()):
            self._reopen(before, address)
        self._senders.remove(self._socket, set(before.links) - set(member.links))

    def mend(self) -> None:
        """Write the table again, with what is closed and open now, if somebody has flushed it. Raises OSError."""
        if all(self._socket.has_table(family, self._table) for family in firewall.TABLE_FAMILIES):
            return
        firewall.forget(self._socket, self._table)
        self._ensure()
        batch = Batch()
        for family in FAMILIES:
            _write_ways(batch, self._table, family, self._ways)
        for member in self._members.values():
            self._close_to(batch, member)
            for number, entry, low, high in member.opened:
                batch.add_elements(number, self._table, _set_name(entry), [Element(low, end=high)])
        self._socket.commit(batch)

    def release(self, member_id: str) -> None:
        """Forget a container that has ended."""
        member = self._members.pop(member_id, None)
        if member is None:
            return
        if self.attempts is not None:
            self.attempts.forget(member_id)
        self._shut(member_id, member)
        self._senders.seal(self._socket, member.links)
        for address in member.addresses:
            self._reopen(member, address)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the chains of links that are gone: kernels from 6.16 on keep them."""
        gone = [link for link in self._senders.strangers(self._socket) if self._route.link(link) is None]
        self._senders.remove(self._socket, gone)

    def _shut(self, member_id: str, member: Restricted) -> None:
        """Close every way that was opened for it."""
        for led in list(member.led):
            self._cancel(member.led[led])
            self._leave(member_id, member, led)
        for key, timer in member.opened.items():
            self._cancel(timer)
            self._try(lambda batch, key=key: _drop(batch, self._table, key))  # type: ignore[misc]
        member.opened = {}

    def _reopen(self, member: Restricted, address: str) -> None:
        """Restrict an address no more."""
        family, data = _of(address)
        name = member.set_name
        self._try(lambda batch: batch.delete_elements(family.number, self._table, name, [Element(data)]))

    def settle(self, addresses: Collection[str]) -> None:
        """Forget whom an earlier resolver has restricted, and who has ended since. addresses: of all who run."""
        kept = {_of(address)[1] for address in addresses}
        for member in self._members.values():
            kept |= {_of(address)[1] for address in member.addresses}
        for family in FAMILIES:
            for name in ("restricted", "learning"):
                for data in list(self._socket.elements(family.number, self._table, name)):
                    if data not in kept:
                        self._drop_element(family.number, name, data)
        self._sweep()

    def _drop_element(self, number: int, name: str, data: bytes) -> None:
        self._try(lambda batch: batch.delete_elements(number, self._table, name, [Element(data)]))

    def open_passage(self, member_id: str, loop: Loop, sockets: Sequence[socket]) -> None:
        """Lead what a container connects to by name. sockets: of `passage.open_sockets`."""
        self.close_passage(member_id)
        self._passages[member_id] = Passage(loop, member_id, sockets, self.may_pass)

    def close_passage(self, member_id: str) -> None:
        """Its container has ended, or gets another one."""
        passage = self._passages.pop(member_id, None)
        if passage is not None:
            passage.close()

    def may_pass(self, member_id: str, address: str, port: int, name: str | None) -> bool:
        """Tell whether a container may speak to a port of an address, and by this name; None: it has said none yet."""
        member = self._members.get(member_id)
        if member is None:
            return False
        if name is None:
            may = (address, port) in member.led or (address, 0) in member.led
        else:
            may = any(one.is_led and one.port in (0, port) and one.names(name) for one in member.allowed)
        if not may and self.attempts is not None:
            attempt = Attempt(verdict=DENIED, name=name or "", address=address, port=port, protocol="tcp")
            self.attempts.note(member_id, attempt)
        return may

    def close(self) -> None:
        """Remove the table if nobody is in it any more; what has a link yet stays closed, until that is removed."""
        self._sweep()
        if not self._members and not self._senders.strangers(self._socket):
            firewall.forget(self._socket, self._table)
        self._socket.close()
        self._route.close()
        if self.attempts is not None:
            self.attempts.close()

    def may_ask(self, member_id: str, name: str) -> bool:
        """Tell whether a container may have a name resolved outside."""
        member = self._members.get(member_id)
        return member is None or member.learns or any(entry.names(name) for entry in member.allowed)

    def closed(self, member_id: str, addresses: Sequence[str]) -> list[str]:
        """Say to which of a name's addresses no name opens a way."""
        member = self._members.get(member_id)
        near = [one for one in addresses[:ANSWER_ADDRESSES_MAX] if not self._is_outside(one)]
        if member is None or member.learns:
            return []
        return [f"{one} is this machine's, a container's or a link's own: no name opens a way there" for one in near]

    def refused(self, member_id: str, name: str) -> None:
        """It has asked for a name that it may not have."""
        if self.attempts is not None:
            self.attempts.refused(member_id, name)

    def answered(self, member_id: str, name: str, found: Sequence[tuple[str, int]]) -> None:
        """Let a container through to the addresses that a name has. found: (address, time to live in seconds)."""
        member = self._members.get(member_id)
        if member is None:
            return
        if self.attempts is not None:
            self.attempts.answered(member_id, name, [address for address, _ in found], learns=member.learns)
        batch = Batch()
        for address, life_s in found[:ANSWER_ADDRESSES_MAX]:
            if self._is_outside(address):
                self._open_name(batch, member_id, name, (address, min(max(life_s, LIFE_S_MIN), LIFE_S_MAX)))
        if batch.messages:
            self._socket.commit(batch)

    def found_here(self, member_id: str, name: str, addresses: Sequence[str]) -> None:
        """Let a container through to others that are called so in a network of its own."""
        member = self._members.get(member_id)
        batch = Batch()
        for number, entry in enumerate(member.allowed if member is not None else ()):
            for address in addresses if entry.names(name) else ():
                value, bits = subnet.number(address)
                ways = number, entry.ways(is_near=True)
                assert member is not None
                self._open(batch, member, subnet.Subnet(bits, value, bits), ways, LIFE_S_MIN)
        if batch.messages:
            self._socket.commit(batch)

    def _open_name(self, batch: Batch, member_id: str, name: str, found: tuple[str, float]) -> None:
        """Let a container through to an address of a name, by the entries that allow it. found: it, and how long."""
        member = self._members[member_id]
        address, life_s = found
        value, bits = subnet.number(address)
        is_allowed = False
        for number, entry in enumerate(member.allowed):
            if not entry.names(name):
                continue
            is_allowed = True
            self._open(batch, member, subnet.Subnet(bits, value, bits), (number, entry.ways()), life_s)
            if entry.is_led:
                self._lead(member_id, member, (address, entry.port), life_s)
        if is_allowed and ((name, address) in member.found or len(member.found) < OPENED_MAX):
            member.found[name, address] = time.monotonic() + life_s

    def _open(self, batch: Batch, member: Restricted, where: subnet.Subnet, by: Ways, life_s: float) -> None:
        """Let a container straight through to a subnet. by: the number of the entry that says so, and what it opens."""
        number, ways = by
        for source in member.addresses:
            family, data = _of(source)
            for protocols, ports in ways if family.bits == where.bits else ():
                low, high = (
                    nft.fields(data, edge.to_bytes(family.size, "big"), bytes([protocol]), port.to_bytes(2, "big"))
                    for edge, protocol, port in zip((where.first, where.last), protocols, ports, strict=True)
                )
                self._open_way(batch, member, (family.number, number, low, high), life_s)

    def _open_way(self, batch: Batch, member: Restricted, key: Key, life_s: float) -> None:
        if key in member.opened:
            self._cancel(member.opened[key])
        elif len(member.opened) >= OPENED_MAX:
            return
        else:
            batch.add_elements(key[0], self._table, _set_name(key[1]), [Element(key[2], end=key[3])])
        member.opened[key] = self._after(life_s, lambda: self._expire(member, key)) if life_s else 0

    def _lead(self, member_id: str, member: Restricted, led: Led, life_s: float) -> None:
        """Have the passage take what goes there, for a time. Raises OSError."""
        passage = self._passages.get(member_id)
        if led in member.led:
            self._cancel(member.led[led])
        elif passage is None or len(member.led) >= OPENED_MAX:
            return
        else:
            passage.lead(*led)
        member.led[led] = self._after(life_s, lambda: self._leave(member_id, member, led))

    def _leave(self, member_id: str, member: Restricted, led: Led) -> None:
        passage = self._passages.get(member_id)
        if member.led.pop(led, None) is not None and passage is not None:
            try:
                passage.forget(*led)
            except OSError as failure:
                if failure.errno != errno.ENOENT:
                    raise

    def _expire(self, member: Restricted, key: Key) -> None:
        if member.opened.pop(key, None) is not None:
            self._try(lambda batch: _drop(batch, self._table, key))

    def _try(self, change: Callable[[Batch], None]) -> None:
        batch = Batch()
        change(batch)
        try:
            self._socket.commit(batch)
        except OSError as failure:
            if failure.errno != errno.ENOENT:
                raise

    def _ensure(self) -> None:
        """Make the table, or take over the one of a resolver that was killed, with everything that is closed in it."""
        existed = self._socket.has_table(FAMILIES[0].number, self._table)
        for flags in (nft.TABLE_OWNER | nft.TABLE_PERSIST, 0):
            batch = Batch()
            batch.add_table(nft.NETDEV, self._table, flags)
            for family in FAMILIES:
                batch.add_table(family.number, self._table, flags)
                if not existed:  # flags and sets of an older one stay as they were
                    _write_rules(batch, self._table, family, is_heard=self.attempts is not None)
            try:
                self._socket.commit(batch)
                self.is_owned = flags != 0
                break
            except OSError as failure:
                if not flags or failure.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        if existed:
            self._close_ways()
            self._sweep()

    def _close_ways(self) -> None:
        """Close what an earlier resolver has let through: nobody would close it in time. Who runs is told of again."""
        for family in FAMILIES:
            for number in range(ENTRIES_MAX):
                batch = Batch()
                batch.replace_elements(family.number, self._table, _set_name(number), [])
                try:
                    self._socket.commit(batch)
                except OSError as failure:
                    if failure.errno != errno.ENOENT:
                        raise
                    break


def group_of(table: str) -> int:
    """Return the nflog group of a table: one that is probably nobody else's."""
    return 1024 + zlib.crc32(table.encode()) % 60000


def _drop(batch: Batch, table: str, key: Key) -> None:
    family, number, low, high = key
    batch.delete_elements(family, table, _set_name(number), [Element(low, end=high)])


def _set_name(number: int) -> str:
    """Return the set of every container's entry with this number: those of one entry never overlap, as an interval of
    a set must not."""
    return f"allowed-{number}"


def _of(address: str) -> tuple[Family, bytes]:
    value, bits = subnet.number(address)
    return FAMILIES[bits == 128], value.to_bytes(bits // 8, "big")


def _write_rules(batch: Batch, table: str, family: Family, *, is_heard: bool) -> None:
    """is_heard: whether rules tell of attempts, which the kernel refuses where it has no nfnetlink_log."""
    number = family.number
    batch.add_set(number, table, "restricted", [family.key])
    batch.add_set(number, table, "learning", [family.key])
    source = nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R)
    batch.add_chain(number, table, "ways")
    known = nft.CT_ESTABLISHED | nft.CT_RELATED
    group = group_of(table)
    refuse = nft.verdict(DROP) if number == IPV6 else nft.reject()
    for chain, hook in (("forward", nft.FORWARD), ("input", nft.INPUT)):
        batch.add_chain(number, table, chain, Hook("filter", hook, _PRIORITY))
        for rule in (
            [nft.conntrack(nft.CT_STATE, _R), *nft.any_of(_R, known), nft.verdict(ACCEPT)],
            *(_neighbours() if number == IPV6 else ()),
            [source, nft.lookup("learning", _R), *([nft.log(LEARNED, group)] if is_heard else []), nft.verdict(ACCEPT)],
            [source, nft.lookup("restricted", _R, invert=True), nft.verdict(ACCEPT)],
            [nft.verdict(nft.JUMP, "ways")],
            *([[nft.log(DENIED, group)]] if is_heard else []),
            [refuse],
        ):
            batch.add_rule(number, table, chain, rule)


def _neighbours() -> list[list[bytes]]:
    """Return the rules that let who is on one link find each other: ICMPv6 is to IPv6 what ARP, which no table sees, is
    to IPv4. Without them a container does not even find its gateway, and is not found."""
    # Its hops: what a router has passed on, and what it would pass on, has less. Else they were a way out.
    is_here = [nft.payload(nft.NETWORK_HEADER, 7, 1, _R), nft.compare(_R, b"\xff")]
    is_icmp = [*is_here, nft.meta(nft.L4PROTO, _R), nft.compare(_R, bytes((_ICMPV6,)))]
    kind = nft.payload(nft.TRANSPORT_HEADER, 0, 1, _R)
    return [[*is_icmp, kind, nft.compare(_R, bytes((one,))), nft.verdict(ACCEPT)] for one in _NEIGHBOURS]


def _write_ways(batch: Batch, table: str, family: Family, count: int) -> None:
    """Have this many sets looked up; those that are there stay as they are."""
    number = family.number
    whole = [
        nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R),
        nft.payload(nft.NETWORK_HEADER, family.destination, family.size, _R + family.words),
        nft.meta(nft.L4PROTO, _R + 2 * family.words),
        nft.payload(nft.TRANSPORT_HEADER, 2, 2, _R + 2 * family.words + 1),
    ]
    batch.flush_chain(number, table, "ways")
    for one in range(count):
        keys = [family.key, family.key, "inet_proto", "inet_service"]
        batch.add_set(number, table, _set_name(one), keys, flags=nft.SET_INTERVAL)
        batch.add_rule(number, table, "ways", [*whole, nft.lookup(_set_name(one), _R), nft.verdict(ACCEPT)])
