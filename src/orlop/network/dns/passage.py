"""The way out by name: what a restricted container connects to by TCP because a name leads there.

An address says little: thousands of names share one. So a rule in the container's own namespace leads what goes to
such an address here, to a socket of the resolver's; the resolver connects to where it was meant to go, and carries
everything, once the client's first bytes have said a name that is allowed (`hello`). Whoever takes that rule away
reaches nothing: the machine's side lets nothing of it out (`egress`).

    container: connect(198.51.100.7:443) -> DNAT to 127.0.0.11:PORT -> resolver -> 198.51.100.7:443, if SNI is allowed

Protocols that say no name (neither TLS nor HTTP) pass by the address alone. Of HTTP the first request counts.
"""

from __future__ import annotations

import struct
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    inet_ntop,
    socket,
)

from ...linux.netlink import nftables as nft
from ...linux.netlink.nftables import Batch, Element
from ...linux.netlink.rtnetlink import RTN_UNICAST
from .. import footprint, subnet
from ..streams import Streams
from . import hello

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...linux.netlink.rtnetlink import Link, Rtnetlink
    from .server import Loop

    # Told of (member id, address, port, the name that was said or None): may it pass?
    MayPass = Callable[[str, str, int, "str | None"], bool]

TABLE = "orlop-names"
_PORTS, _EVERY_PORT = "named-ports", "named"  # sets: of addresses with a port, of addresses
ADDRESSES = {nft.IPV4: "127.0.0.11", nft.IPV6: "::1"}
GUESTS_MAX = 1024  # of one container
_BACKLOG = 256
_R = 8
_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; the same number for IPv6
_DESTINATION = {nft.IPV4: (16, 4, 1), nft.IPV6: (24, 16, 4)}  # offset, bytes, registers
_KEYS = {nft.IPV4: "ipv4_addr", nft.IPV6: "ipv6_addr"}
_TCP = 6
_NEAR_4 = tuple(map(subnet.parse, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
_NEAR_6 = tuple(map(subnet.parse, ("::/96", "fe80::/10", "fec0::/10", "ff00::/8")))
_MAPPED = bytes(10) + b"\xff\xff"
_WITH_IPV4 = ((bytes.fromhex("0064ff9b") + bytes(8), 12), (b"\x20\x02", 2))  # NAT64 and 6to4, and where it lies


def open_sockets() -> list[socket]:
    """Return what leads names out of the calling thread's network namespace: a socket that speaks of its rules, and
    those that listen, for IPv4 and, where there is any, IPv6. Raises OSError.
    """
    opened: list[socket] = []
    try:
        rules = nft.Nftables()
        opened.append(rules.raw)
        for family, address in ADDRESSES.items():
            listener = socket(AF_INET if family == nft.IPV4 else AF_INET6, SOCK_STREAM | SOCK_CLOEXEC)
            try:
                listener.bind((address, 0))
            except OSError:
                listener.close()
                if family == nft.IPV4:
                    raise
                continue  # no IPv6 in there
            opened.append(listener)
            listener.listen(_BACKLOG)
            rules.commit(_rules(family, listener.getsockname()[1], rules.has_table(family, TABLE)))
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def _rules(family: int, port: int, replaces: bool) -> Batch:
    batch = Batch()
    if replaces:
        batch.delete_table(family, TABLE)
    batch.add_table(family, TABLE)
    batch.add_set(family, TABLE, _PORTS, [_KEYS[family], "inet_service"])
    batch.add_set(family, TABLE, _EVERY_PORT, [_KEYS[family]])
    batch.add_chain(family, TABLE, "output", nft.Hook("nat", nft.OUTPUT, -90))
    offset, size, registers = _DESTINATION[family]
    value, _ = subnet.number(ADDRESSES[family])
    for name in (_PORTS, _EVERY_PORT):
        rule = [
            nft.meta(nft.L4PROTO, _R),
            nft.compare(_R, bytes([_TCP])),
            nft.payload(nft.NETWORK_HEADER, offset, size, _R),
            nft.payload(nft.TRANSPORT_HEADER, 2, 2, _R + registers),
            nft.lookup(name, _R),
            nft.immediate(_R, value.to_bytes(size, "big")),
            nft.immediate(_R + registers, port.to_bytes(2, "big")),
            nft.nat(nft.DNAT, family, _R, _R + registers),
        ]
        batch.add_rule(family, TABLE, "output", rule)
    return batch


def is_outside(route: Rtnetlink, address: str) -> bool:
    """Tell whether what is sent to an address from this namespace leaves the machine: is neither its own, nor in a
    network of containers, nor one that means something on a link alone. Whoever answers for a name says what address it
    has: any."""
    if is_near(address):
        return False
    try:
        way = route.way_to(address)
        return subnet.number(address)[0] != 0 and way.kind == RTN_UNICAST and not _is_ours(route.link_at(way.oif))
    except OSError:
        return False  # no way leads there


def is_near(address: str) -> bool:
    """Tell whether an address is a loopback's, a link's own, several machines', or no machine's: where clouds tell
    credentials (169.254.169.254), and what an IPv6 address says that has such an IPv4 one in it."""
    value, bits = subnet.number(address)
    if bits == 32:
        return any(one.contains(address) for one in _NEAR_4)
    data = value.to_bytes(16, "big")
    for prefix, at in _WITH_IPV4:
        if data.startswith(prefix):
            return is_near(inet_ntop(AF_INET, data[at : at + 4]))
    return data.startswith(_MAPPED) or any(one.contains(address) for one in _NEAR_6)


def _is_ours(link: Link) -> bool:
    return link.kind == "bridge" and link.alias.startswith(footprint.OWN)


class Passage:
    """What one container connects to by name. may_pass: asked before anything goes out."""

    def __init__(self, loop: Loop, member_id: str, sockets: Sequence[socket], may_pass: MayPass) -> None:
        """sockets: of `open_sockets`; they are this object's from here on."""
        self._loop = loop
        self._member_id = member_id
        self._may_pass = may_pass
        self._rules = nft.Nftables(sockets[0])
        self._listeners = list(sockets[1:])
        self._families = {nft.IPV4 if one.family == AF_INET else nft.IPV6 for one in self._listeners}
        self._streams = Streams(_Watcher(loop, self._handle))
        for listener in self._listeners:
            listener.setblocking(False)
            loop.watch(listener.fileno(), loop.READ, lambda _, one=listener: self._accept(one))  # type: ignore[misc]

    def lead(self, address: str, port: int) -> None:
        """Have what goes to a port of an address come here, to every port with 0. Raises OSError."""
        self._change(Batch.add_elements, address, port)

    def forget(self, address: str, port: int) -> None:
        """Leave it to the machine's side, which closes it. Connections that stand are left alone. Raises OSError."""
        self._change(Batch.delete_elements, address, port)

    def close(self) -> None:
        """End it, and every connection."""
        for listener in self._listeners:
            self._loop.unwatch(listener.fileno())
            listener.close()
        self._streams.close()
        self._rules.close()

    def _change(self, change: Callable[..., None], address: str, port: int) -> None:
        value, bits = subnet.number(address)
        family = nft.IPV4 if bits == 32 else nft.IPV6
        if family in self._families:
            data = value.to_bytes(bits // 8, "big")
            key = nft.fields(data, port.to_bytes(2, "big")) if port else data
            batch = Batch()
            change(batch, family, TABLE, _PORTS if port else _EVERY_PORT, [Element(key)])
            self._rules.commit(batch)

    def _handle(self, fd: int, events: int) -> None:
        self._streams.handle(fd, events)

    def _accept(self, listener: socket) -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]
        except OSError:
            self._loop.rest(listener.fileno())
            return
        guest = socket(fileno=fd)
        try:
            address, port = original_destination(guest)
            if self._streams.count >= GUESTS_MAX or not self._may_pass(self._member_id, address, port, None):
                raise PermissionError
            inner = socket(guest.family, SOCK_STREAM | SOCK_CLOEXEC)
            if guest.family == AF_INET6:
                inner.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)  # ::ffff:127.0.0.1 is no address of IPv6
        except OSError:
            guest.close()
            return
        inner.setblocking(False)
        self._streams.join(guest, inner, (address, port), _Judge(self._member_id, address, port, self._may_pass))


class _Judge:
    """Holds what a client says until it has said a name, or that it says none."""

    __slots__ = ("_address", "_buffer", "_may_pass", "_member_id", "_passed", "_port")

    def __init__(self, member_id: str, address: str, port: int, may_pass: MayPass) -> None:
        self._member_id = member_id
        self._address = address
        self._port = port
        self._may_pass = may_pass
        self._buffer = b""
        self._passed = False

    def __call__(self, data: bytes) -> bytes:
        if self._passed:
            return data
        self._buffer += data
        try:
            told = hello.read(self._buffer)
        except ValueError as wrong:
            raise PermissionError(str(wrong)) from None
        if told is None:
            return b""
        if told.protocol and not self._may_pass(self._member_id, self._address, self._port, told.name):
            raise PermissionError(told.name)
        self._passed = True
        held, self._buffer = self._buffer, b""
        return held


class _Watcher:
    """The resolver's loop, for streams."""

    def __init__(self, loop: Loop, handle: Callable[[int, int], None]) -> None:
        self._loop = loop
        self._handle = handle

    def register(self, fd: int, events: int) -> None:
        self._loop.watch(fd, events, lambda told: self._handle(fd, told))

    modify = register

    def unregister(self, fd: int) -> None:
        self._loop.unwatch(fd)


def original_destination(guest: socket) -> tuple[str, int]:
    """Return (address, port) of where a connection was to go before a rule led it elsewhere. Raises OSError."""
    if guest.family == AF_INET:
        data = guest.getsockopt(IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        port, address = struct.unpack_from(">2xH4s", data)
        return inet_ntop(AF_INET, address), port
    data = guest.getsockopt(IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
    port, address = struct.unpack_from(">2xH4x16s", data)
    return inet_ntop(AF_INET6, address), port
