"""The engine's table of rules: one in each address family, of its own, beside whatever the machine's firewall has.

A packet for a published port goes the machine's own way first: it is delivered, passes every rule that the machine has
for what comes in, and only what is left of it at the end of the input hook is let through the gate. So a firewall that
closes a port to others has closed it, also when the port is a container's (moby#22054); and no process carries bytes:

    from outside --> prerouting --> routing: it is ours --> INPUT: the machine's firewall --> our chain `gate`
                                                                                                 | a copy (dup), by
    to the container <-- forward <-- routing <-- dstnat: the container's address <-- prerouting <-' the gate's link

The copy leaves by one end of a pair of links and comes in by the other; only what came in there is translated. The
client's address stays. What the connection tracker knows goes straight on, so that this costs one packet each
connection. A client on the machine itself is translated in the output hook.

Invariants:
1. The rules are always the same; networks and ports are elements of sets and maps, added and removed by key.
2. What is not published can't be reached from outside a network, nor from another one: the last rule for a bridge drops
   (SEC-90). The rules of others can forbid more, never allow what is forbidden here.
3. A change is one transaction. When it meets a table that is not as it should be (somebody flushed it), the whole table
   is written again from what the engine knows.
"""

from __future__ import annotations

import errno
import struct
from _socket import IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP

from ..linux.netlink import nftables as nft
from ..linux.netlink.nftables import ACCEPT, DROP, IPV4, IPV6, Batch, Element, Hook
from ..spec.network import INWARD, NAT, ROUTED
from . import subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from ..spec.network import Published

ANY = ("", "0.0.0.0", "::")
NUMBERS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "sctp": IPPROTO_SCTP}
GATEWAYS = {IPV4: "169.254.88.88", IPV6: "fd6f:726c:6f70::88"}  # the far end of the gate: addresses of no machine
GATE_ADDRESS = "169.254.88.89"  # the end where copies come in has one, of its link alone
GATE_PRIORITY = 2**31 - 2  # behind every rule that others have for what comes in; the tracker confirms after it

_R = 8  # the first of the registers of four bytes
_LOOPBACK_6 = bytes(15) + b"\1"


class Family:
    """Where an address family has its fields. key: the nft type of an address; source, destination: offsets."""

    __slots__ = ("bits", "destination", "key", "number", "size", "source")

    def __init__(self, number: int, key: str, bits: int, source: int, destination: int) -> None:
        self.number = number
        self.key = key
        self.bits = bits
        self.size = bits // 8
        self.source = source
        self.destination = destination

    @property
    def words(self) -> int:
        """How many registers of four bytes an address fills."""
        return self.size // 4


FAMILIES = (Family(IPV4, "ipv4_addr", 32, 12, 16), Family(IPV6, "ipv6_addr", 128, 8, 24))
TABLE_FAMILIES = (IPV4, IPV6, nft.NETDEV)  # in which an engine may have tables


class Bridge:
    """What the rules know of a network. subnets: of both families; inside: what they may do to one another (icc).

    routed: the versions of IP whose addresses leave it as they are; sources: by version of IP, the address of this
    machine that leaves in their place, where it is not the link's own.
    """

    __slots__ = ("icc", "internal", "masquerade", "name", "routed", "sources", "subnets")

    def __init__(
        self,
        name: str,
        subnets: Sequence[subnet.Subnet],
        *,
        internal: bool,
        icc: bool,
        masquerade: bool,
        routed: Collection[int] = (),
        sources: Mapping[int, str] | None = None,
    ) -> None:
        self.name = name
        self.subnets = tuple(subnets)
        self.internal = internal
        self.icc = icc
        self.masquerade = masquerade
        self.routed = frozenset(routed)
        self.sources = sources or {}


class Forward:
    """A published range: ports of host_ip (of ANY: every address of the family) to ports of an address."""

    __slots__ = ("address", "count", "first", "host_first", "host_ip", "mode", "protocol", "sources")

    def __init__(self, port: Published, address: str) -> None:
        self.host_ip = port.host_ip
        self.host_first = port.host_first
        self.count = port.count
        self.protocol = port.protocol
        self.address = address
        self.first = port.first
        self.mode = port.mode
        self.sources = port.sources


class Gate:
    """The pair of links that published packets pass. out: index of the end they leave by; name: of the other one."""

    __slots__ = ("name", "out")

    def __init__(self, out: int, name: str) -> None:
        self.out = out
        self.name = name


class Firewall:
    """The table. known: what has to be in it, asked for when it is written again. Needs a lock of the caller's."""

    def __init__(
        self,
        table: str,
        known: Callable[[], tuple[Gate, Iterable[Bridge], Iterable[Forward], Mapping[int, Iterable[str]]]],
    ) -> None:
        self.table = table
        self.is_owned = False  # by the kernel's doing: nobody else can take it away
        self._known = known

    def write(self, socket: nft.Nftables) -> None:
        """Write the whole table in the place of what is there. Raises OSError."""
        gate, bridges, forwards, closed = self._known()
        existed = any(socket.has_table(family.number, self.table) for family in FAMILIES)
        flags = self._own(socket)
        self.is_owned = flags != 0
        batch = Batch()
        for family in FAMILIES:
            if existed:  # a transaction that removes chains waits for every processor: 12 ms
                batch.delete_table(family.number, self.table)
                batch.add_table(family.number, self.table, flags)
            _write_rules(batch, self.table, family, gate, closes_forwarding=family.number in closed)
            strangers = [Element(nft.interface(name)) for name in closed.get(family.number, ())]
            batch.add_elements(family.number, self.table, "closed", strangers)
        for bridge in bridges:
            _each_bridge(batch.add_elements, self.table, bridge)
        _each_forward(batch.add_elements, self.table, forwards)
        socket.commit(batch)

    def _own(self, socket: nft.Nftables) -> int:
        """Make the tables, or take over those of an engine that died; return their flags.

        A table with an owner is changed by nobody else: `nft flush ruleset` and a reload of firewalld pass over it
        (SEC-94). One that persists stays when its owner dies. Kernels before 6.9 can't do both, and get neither.
        """
        for flags in (nft.TABLE_OWNER | nft.TABLE_PERSIST, 0):
            batch = Batch()
            for family in FAMILIES:
                batch.add_table(family.number, self.table, flags)
            try:
                socket.commit(batch)
            except OSError as failure:
                if not flags or failure.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            else:
                return flags
        raise AssertionError("unreachable")

    def add(self, socket: nft.Nftables, bridges: Iterable[Bridge], forwards: Iterable[Forward]) -> None:
        """Let a network, or ports, in. They are in what `known` tells by now. Raises OSError."""
        batch = Batch()
        for bridge in bridges:
            _each_bridge(batch.add_elements, self.table, bridge)
        _each_forward(batch.add_elements, self.table, forwards)
        self._commit(socket, batch)

    def remove(self, socket: nft.Nftables, bridges: Iterable[Bridge], forwards: Iterable[Forward]) -> None:
        """Take a network, or ports, out. They are not in what `known` tells any more. Raises OSError."""
        batch = Batch()
        _each_forward(batch.delete_elements, self.table, forwards)
        for bridge in bridges:
            _each_bridge(batch.delete_elements, self.table, bridge)
        self._commit(socket, batch)

    def _commit(self, socket: nft.Nftables, batch: Batch) -> None:
        try:
            socket.commit(batch)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            self.write(socket)


def hold(socket: nft.Nftables, table: str) -> bool:
    """Own a table that is there until the socket is closed (`Firewall._own`); tell whether nobody can flush it now.

    Kernels before 6.9 know no such thing.
    """
    held = set()
    for family in TABLE_FAMILIES:
        try:
            if socket.has_table(family, table):
                batch = Batch()
                batch.add_table(family, table, nft.TABLE_OWNER | nft.TABLE_PERSIST)
                socket.commit(batch)
                held.add(family)
        except OSError:
            continue
    return held.issuperset(family.number for family in FAMILIES)


def is_there(socket: nft.Nftables, table: str) -> bool:
    """Tell whether a table exists, in each family."""
    return all(socket.has_table(family.number, table) for family in FAMILIES)


def forget(socket: nft.Nftables, table: str) -> None:
    """Remove a table of ours, whose owner may be dead. One of a living owner, or none at all, is left as it is."""
    for family in TABLE_FAMILIES:
        for flags in (nft.TABLE_OWNER | nft.TABLE_PERSIST, 0):
            try:
                if not socket.has_table(family, table):
                    break
                batch = Batch()
                batch.add_table(family, table, flags)
                socket.commit(batch)
                batch = Batch()
                batch.delete_table(family, table)
                socket.commit(batch)
            except OSError:
                continue


def _write_rules(batch: Batch, table: str, family: Family, gate: Gate, *, closes_forwarding: bool) -> None:
    number = family.number
    batch.add_set(number, table, "bridges", ["ifname"])
    batch.add_set(number, table, "internal", ["ifname"])
    batch.add_set(number, table, "closed", ["ifname"])
    batch.add_set(number, table, "within", ["ifname", "ifname"])
    # Both hold pairs of source and destination: from a network to everywhere, and from a network to itself.
    batch.add_set(number, table, "masqueraded", [family.key, family.key], flags=nft.SET_INTERVAL)
    batch.add_set(number, table, "hairpin", [family.key, family.key], flags=nft.SET_INTERVAL)
    batch.add_set(number, table, "sourced", [family.key, family.key], data=[family.key], flags=nft.SET_INTERVAL)
    keys = [family.key, "inet_proto", "inet_service"]
    # Ports that change their number are one element each, in hash tables: ten thousand of them come and go at once.
    batch.add_set(number, table, "ports", keys, data=[family.key, "inet_service"])
    batch.add_set(number, table, "ports-anywhere", keys[1:], data=[family.key, "inet_service"])
    batch.add_set(number, table, "ranges", keys, data=[family.key], flags=nft.SET_INTERVAL)
    # Ports that pass the machine's rules by; ports that only some may reach, and who; ports of containers themselves.
    batch.add_set(number, table, "direct", keys, flags=nft.SET_INTERVAL)
    batch.add_set(number, table, "limited", keys, flags=nft.SET_INTERVAL)
    batch.add_set(number, table, "sources", [family.key, *keys], flags=nft.SET_INTERVAL)
    batch.add_set(number, table, "routed", keys, flags=nft.SET_INTERVAL)
    # What containers reach of the machine's loopback: who, and at which port of the gateway; and where it is.
    batch.add_set(number, table, "inward", [family.key, *keys], data=[family.key], flags=nft.SET_INTERVAL)
    for chain, hook, rules in (
        ("first", Hook("filter", nft.PREROUTING, -300), _first(family)),
        ("dstnat", Hook("nat", nft.PREROUTING, -100), _dstnat(family, gate)),
        ("gate", Hook("filter", nft.INPUT, GATE_PRIORITY), _gate(family, gate)),
        ("local", Hook("nat", nft.OUTPUT, -100), _local(family)),
        ("forward", Hook("filter", nft.FORWARD, 0), _forward(family, gate, closes_forwarding)),
        ("srcnat", Hook("nat", nft.POSTROUTING, 100), _srcnat(family)),
    ):
        batch.add_chain(number, table, chain, hook)
        for rule in rules:
            batch.add_rule(number, table, chain, rule)


def _look_up(family: Family, name: str) -> list[bytes]:
    """Look up destination address, protocol and destination port in one of the maps; its data lies from _R on."""
    whole = _destination(family, _R) if name != "ports-anywhere" else _destination(family, _R - family.words)[1:]
    return [*whole, nft.lookup(name, _R, into=_R)]


_MAPS = ("ranges", "ports", "ports-anywhere")


def _translate(family: Family) -> list[list[bytes]]:
    """Return the rules that translate to what the maps say; a range that keeps its numbers needs no port."""
    port = _R + family.words
    return [
        [*_look_up(family, name), nft.nat(nft.DNAT, family.number, _R, 0 if name == "ranges" else port)]
        for name in _MAPS
    ]


def _first(family: Family) -> list[list[bytes]]:
    if family.number == IPV6:
        return []  # the kernel itself drops ::1 from outside
    from_bridge = [nft.meta(nft.IIFNAME, _R), nft.lookup("bridges", _R)]
    return [
        [
            *from_bridge,
            nft.payload(nft.NETWORK_HEADER, offset, 1, _R),
            nft.compare(_R, b"\x7f"),
            nft.verdict(DROP),
        ]
        for offset in (family.destination, family.source)
    ]


def _dstnat(family: Family, gate: Gate) -> list[list[bytes]]:
    through = [nft.meta(nft.IIFNAME, _R), nft.compare(_R, nft.interface(gate.name))]
    here = nft.local_destination(_R)
    stranger = [
        nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R),
        *_destination(family, _R + family.words),
        nft.lookup("sources", _R, invert=True),
    ]
    return [
        [*here, *_destination(family, _R), nft.lookup("limited", _R), *stranger, nft.verdict(DROP)],
        *([*through, *rule] for rule in _translate(family)),
        *(
            [*_from_elsewhere(family), *_destination(family, _R), nft.lookup("direct", _R), *rule]
            for rule in _translate(family)
        ),
        *_inward(family),
    ]


def _inward(family: Family) -> list[list[bytes]]:
    """Return the rules that lead to the machine's loopback; a published port of this address is what it was."""
    if family.number == IPV6:
        return []
    who = nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R)
    key = [who, *_destination(family, _R + family.words), nft.lookup("inward", _R, into=_R)]
    published = [[*nft.local_destination(_R), *_look_up(family, name), nft.verdict(ACCEPT)] for name in _MAPS]
    return [*published, [*key, nft.nat(nft.DNAT, family.number, _R)]]


def _destination(family: Family, register: int) -> list[bytes]:
    """Load destination address, protocol and destination port."""
    return [
        nft.payload(nft.NETWORK_HEADER, family.destination, family.size, register),
        nft.meta(nft.L4PROTO, register + family.words),
        nft.payload(nft.TRANSPORT_HEADER, 2, 2, register + family.words + 1),
    ]


def _gate(family: Family, gate: Gate) -> list[list[bytes]]:
    new = [nft.conntrack(nft.CT_STATE, _R), *nft.any_of(_R, nft.CT_NEW)]
    own = [nft.meta(nft.IIFNAME, _R), nft.compare(_R, nft.interface("lo"), nft.NEQ)]
    address, _ = subnet.number(GATEWAYS[family.number])
    copy = [
        nft.immediate(_R, address.to_bytes(family.size, "big")),
        nft.immediate(_R + family.words, struct.pack("=L", gate.out)),
        nft.duplicate(_R, _R + family.words),
        nft.verdict(DROP),
    ]
    here = _from_elsewhere(family)
    return [[*new, *own, *here, *_look_up(family, name), *copy] for name in _MAPS]


def _from_elsewhere(family: Family) -> list[bytes]:
    """Match what comes by a cable for this machine: for its loopback nothing does, though it may be let in by who makes
    a router of 127.0.0.0/8 of it (route_localnet, as kube-proxy sets it)."""
    if family.number == IPV6:
        return [*nft.local_destination(_R)]  # the kernel itself drops ::1 from outside
    first = [nft.payload(nft.NETWORK_HEADER, family.destination, 1, _R), nft.compare(_R, b"\x7f", nft.NEQ)]
    return [*first, *nft.local_destination(_R)]


def _local(family: Family) -> list[list[bytes]]:
    # What goes to ::1 stays: translated, it would be dropped by the kernel, and its sender would wait in vain.
    size = family.size
    loopback = [nft.payload(nft.NETWORK_HEADER, family.destination, size, _R), nft.compare(_R, _LOOPBACK_6, nft.NEQ)]
    here = [*nft.local_destination(_R), *(loopback if family.number == IPV6 else ())]
    return [[*here, *rule] for rule in _translate(family)]


def _forward(family: Family, gate: Gate, closes_forwarding: bool) -> list[list[bytes]]:
    incoming = nft.meta(nft.IIFNAME, _R)
    outgoing = nft.meta(nft.OIFNAME, _R)
    known = nft.CT_ESTABLISHED | nft.CT_RELATED
    rules = [
        # Only copies leave by the gate: what is sent to its far end would come in again, and again.
        [nft.meta(nft.OIF, _R), nft.compare(_R, struct.pack("=L", gate.out)), nft.verdict(DROP)],
        [nft.conntrack(nft.CT_STATE, _R), *nft.any_of(_R, known), nft.verdict(ACCEPT)],
        [incoming, nft.meta(nft.OIFNAME, _R + 4), nft.lookup("within", _R), nft.verdict(ACCEPT)],
        [incoming, nft.lookup("internal", _R), nft.verdict(DROP)],
        [outgoing, nft.lookup("internal", _R), nft.verdict(DROP)],
        [
            outgoing,
            nft.lookup("bridges", _R),
            nft.conntrack(nft.CT_STATUS, _R),
            *nft.any_of(_R, nft.CT_DNAT),
            nft.verdict(ACCEPT),
        ],
        [*_destination(family, _R), nft.lookup("routed", _R), nft.verdict(ACCEPT)],
        [outgoing, nft.lookup("bridges", _R), nft.verdict(DROP)],
    ]
    if closes_forwarding:
        # It was us who made a router of this machine: of our own networks, and of what was never routed before nothing.
        # Bridges that came since are others' networks of containers and machines, who found forwarding on.
        for load, kind in ((incoming, nft.IIFKIND), (outgoing, nft.OIFKIND)):
            is_bridge = [nft.meta(kind, _R), nft.compare(_R, nft.interface("bridge"))]
            rules.append([load, nft.lookup("bridges", _R), nft.verdict(ACCEPT)])
            rules.append([load, nft.compare(_R, b"og-"), nft.verdict(ACCEPT)])
            rules.append([*is_bridge, load, nft.lookup("closed", _R, invert=True), nft.verdict(ACCEPT)])
        rules.append([nft.verdict(DROP)])
    return rules


def _srcnat(family: Family) -> list[list[bytes]]:
    pair = [
        nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R),
        nft.payload(nft.NETWORK_HEADER, family.destination, family.size, _R + family.words),
    ]
    translated = [nft.conntrack(nft.CT_STATUS, _R), *nft.any_of(_R, nft.CT_DNAT)]
    rules = [[*translated, *pair, nft.lookup("hairpin", _R), nft.masquerade()]]
    if family.number == IPV4:
        from_loopback = [nft.payload(nft.NETWORK_HEADER, family.source, 1, _R), nft.compare(_R, b"\x7f")]
        to_bridge = [nft.meta(nft.OIFNAME, _R), nft.lookup("bridges", _R)]
        rules.append([*from_loopback, *to_bridge, nft.masquerade()])
    outside = [nft.meta(nft.OIFNAME, _R), nft.lookup("bridges", _R, invert=True)]
    source = nft.nat(nft.SNAT, family.number, _R)
    rules.append([*outside, *pair, nft.lookup("sourced", _R, into=_R), source])
    rules.append([*outside, *pair, nft.lookup("masqueraded", _R), nft.masquerade()])
    return rules


# -- elements -------------------------------------------------------------------------------------------------------


def _each_bridge(change: Callable[[int, str, str, Iterable[Element]], None], table: str, bridge: Bridge) -> None:
    name = nft.interface(bridge.name)
    for family in FAMILIES:
        change(family.number, table, "bridges", [Element(name)])
        if bridge.internal:
            change(family.number, table, "internal", [Element(name)])
        if bridge.icc:
            change(family.number, table, "within", [Element(name + name)])
        own = [found for found in bridge.subnets if found.bits == family.bits]
        if not own:
            continue
        ends = [(_bytes(found.first, family), _bytes(found.last, family)) for found in own]
        change(family.number, table, "hairpin", [Element(low + low, end=high + high) for low, high in ends])
        version = 4 if family.number == IPV4 else 6
        if bridge.masquerade and not bridge.internal and version not in bridge.routed:
            everywhere = bytes(family.size), b"\xff" * family.size
            source = bridge.sources.get(version, "")
            data = nft.fields(_packed(source)) if source else b""
            elements = [Element(low + everywhere[0], end=high + everywhere[1], data=data) for low, high in ends]
            change(family.number, table, "sourced" if source else "masqueraded", elements)


def _each_forward(
    change: Callable[[int, str, str, Iterable[Element]], None], table: str, forwards: Iterable[Forward]
) -> None:
    elements: dict[tuple[int, str], list[Element]] = {}
    for forward in forwards:
        family = FAMILIES[":" in forward.address]
        if forward.host_ip and (":" in forward.host_ip) != (":" in forward.address):
            continue
        if forward.mode == INWARD:
            source = _packed(forward.sources[0])
            low = _port_key(family, forward, forward.host_first)
            high = _port_end(family, forward, forward.host_first + forward.count - 1)
            inward = Element(source + low, end=source + high, data=nft.fields(_packed(forward.address)))
            elements.setdefault((family.number, "inward"), []).append(inward)
            continue
        for name, element in _said_of(family, forward):
            elements.setdefault((family.number, name), []).append(element)
        if forward.mode == ROUTED:
            continue
        if forward.first == forward.host_first:
            key = _port_key(family, forward, forward.host_first)
            end = _port_end(family, forward, forward.host_first + forward.count - 1)
            data = nft.fields(_packed(forward.address))
            elements.setdefault((family.number, "ranges"), []).append(Element(key, end=end, data=data))
            continue
        for offset in range(forward.count):
            host_port = forward.host_first + offset
            data = nft.fields(_packed(forward.address), (forward.first + offset).to_bytes(2, "big"))
            key = _port_key(family, forward, host_port)
            name = "ports-anywhere" if forward.host_ip in ANY else "ports"
            element = Element(key[family.size :] if forward.host_ip in ANY else key, data=data)
            elements.setdefault((family.number, name), []).append(element)
    for (number, name), found in elements.items():
        change(number, table, name, found)


def _said_of(family: Family, forward: Forward) -> Iterator[tuple[str, Element]]:
    """Yield (set, element) of what else is said of a published range than where it leads."""
    key = _port_key(family, forward, forward.host_first)
    end = _port_end(family, forward, forward.host_first + forward.count - 1)
    if forward.mode == ROUTED:
        own = _packed(forward.address)
        yield "routed", Element(own + key[family.size :], end=own + end[family.size :])
    if forward.mode == NAT:
        yield "direct", Element(key, end=end)
    if forward.sources:
        yield "limited", Element(key, end=end)
    for text in forward.sources:
        who = subnet.parse_source(text)
        if who.bits == family.bits:
            yield "sources", Element(_bytes(who.first, family) + key, end=_bytes(who.last, family) + end)


def _port_key(family: Family, forward: Forward, port: int) -> bytes:
    address = bytes(family.size) if forward.host_ip in ANY else _packed(forward.host_ip)
    return nft.fields(address, bytes([NUMBERS[forward.protocol]]), port.to_bytes(2, "big"))


def _port_end(family: Family, forward: Forward, port: int) -> bytes:
    address = b"\xff" * family.size if forward.host_ip in ANY else _packed(forward.host_ip)
    return nft.fields(address, bytes([NUMBERS[forward.protocol]]), port.to_bytes(2, "big"))


def _packed(address: str) -> bytes:
    value, bits = subnet.number(address)
    return value.to_bytes(bits // 8, "big")


def _bytes(value: int, family: Family) -> bytes:
    return value.to_bytes(family.size, "big")
