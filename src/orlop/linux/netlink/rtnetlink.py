"""rtnetlink(7): links, addresses, routes, neighbours, rules. Each verb is one message; names are the kernel's.

Addresses are text ("10.88.0.1", "fd00::1"); a prefix is ("10.88.0.0", 16). Every verb raises OSError with the call and
the object. A link is named by its index: names may be given away while one looks.
"""

from __future__ import annotations

import errno
import struct
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from . import wire
from .wire import CREATE, EXCL, REPLACE, attribute, nested, number, string, text, u8, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

_IFINFO = struct.Struct("=BxHlLL")  # struct ifinfomsg: family, type, index, flags, change
_NO_LINK = _IFINFO.pack(0, 0, 0, 0, 0)
_IFADDR = struct.Struct("=BBBBl")  # struct ifaddrmsg: family, prefixlen, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBL")  # struct rtmsg, and struct fib_rule_hdr, which has its shape
_NDMSG = struct.Struct("=BxxxlHBB")  # struct ndmsg: family, index, state, flags, type

IFF_UP, IFF_RUNNING, IFF_NOARP = 0x1, 0x40, 0x80
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
NUD_PERMANENT = 0x80
TABLE_MAIN, TABLE_LOCAL = 254, 255
RTN_UNICAST, RTN_LOCAL, RTN_BLACKHOLE = 1, 2, 6
_PROTO_BOOT, _SCOPE_UNIVERSE, SCOPE_LINK = 3, 0, 253
_SCOPES = {RTN_UNICAST: SCOPE_LINK, RTN_LOCAL: 254}  # RT_SCOPE_HOST
_FR_ACT_TO_TBL = 1
_RTA_METRICS, _RTAX_LOCK, _RTAX_RTO_MIN = 8, 1, 13

# IFLA_*: linux/if_link.h
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _NET_NS_FD, _AF_SPEC = 1, 3, 4, 5, 10, 18, 28, 26
_IFALIAS = 20
_PREFIX_WITHOUT_BROADCAST = 31  # RFC 3021
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_DATA = 1, 2, 5
_VETH_INFO_PEER = 1
_MACVLAN_MODE, _VLAN_ID = 1, 1
_IPVLAN_MODE, _IPVLAN_FLAGS = 1, 2
_VXLAN_ID, _VXLAN_GROUP, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_GROUP6 = 1, 2, 3, 4, 7, 15, 16
_INET6_ADDR_GEN_MODE = 8
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33
_EXT_MASK, _FILTER_SKIP_STATS = 29, 8

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
ADDR_GEN_MODE_NONE = 1  # no link-local address (SEC-93)


class Link:
    """A network device. kind: "bridge", "veth" ... or "" for hardware; address: its MAC; peer: the index it names."""

    __slots__ = ("address", "alias", "flags", "index", "kind", "master", "mtu", "name", "peer")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        _, _, self.index, self.flags, _ = _unpacked(_IFINFO, payload)
        found = wire.attributes(payload[_IFINFO.size :])
        self.name = string(found.get(_IFNAME, b""))
        self.alias = string(found.get(_IFALIAS, b""))
        self.mtu = number(found.get(_MTU, b""))
        self.master = number(found.get(_MASTER, b""))
        self.peer = number(found.get(_LINK, b""))
        self.address = ":".join(f"{byte:02x}" for byte in found.get(_ADDRESS, b""))
        info = wire.attributes(found.get(_LINKINFO, b""))
        self.kind = string(info.get(_INFO_KIND, b""))

    @property
    def is_up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def is_running(self) -> bool:
        """Whether it is up, and packets leave by it."""
        return bool(self.flags & IFF_RUNNING)


class Address:
    """An address of a link; index: the link's. flags: IFA_F_*; scope: RT_SCOPE_*."""

    __slots__ = ("address", "flags", "index", "prefix_length", "scope")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        _, self.prefix_length, low, self.scope, self.index = _unpacked(_IFADDR, payload)
        found = wire.attributes(payload[_IFADDR.size :])
        self.flags = number(found[8]) if 8 in found else low  # IFA_FLAGS: the header has room for eight alone
        # IFA_LOCAL (2) is the own end of a point-to-point link; IPv6 has IFA_ADDRESS (1) only.
        self.address = _presented(found.get(2) or found.get(1, b""))


class Route:
    """A route. destination: (address, prefix length), ("", 0) for the default; gateway "" for none; oif 0 for none."""

    __slots__ = ("destination", "gateway", "kind", "metric", "mtu", "oif", "table")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        header = _unpacked(_RTMSG, payload)
        found = wire.attributes(payload[_RTMSG.size :])
        self.destination = (_presented(found.get(1, b"")), int(header[1]))
        self.kind = int(header[7])
        self.table = number(found[15]) if 15 in found else int(header[4])
        self.oif = number(found.get(4, b""))
        self.gateway = _presented(found.get(5, b""))
        self.metric = number(found.get(6, b""))
        self.mtu = number(wire.attributes(found.get(8, b"")).get(2, b""))

    @property
    def is_way_out(self) -> bool:
        """Whether it is a default route, of any table, that leads to a link; to `lo` what is taken as local does."""
        return self.destination == ("", 0) and self.kind == RTN_UNICAST and self.oif != 0


class Hop:
    """Where a route leads: through a gateway, or to a link. metric 0 is the kernel's choice.

    kind: RTN_UNICAST, or RTN_LOCAL for what is to be taken as the machine's own. rto_min_ms: the least time after
    which TCP sends again what nobody has acknowledged; 0 is the kernel's own, 200.
    """

    __slots__ = ("gateway", "kind", "metric", "oif", "rto_min_ms", "table")

    def __init__(
        self,
        gateway: str = "",
        oif: int = 0,
        metric: int = 0,
        table: int = TABLE_MAIN,
        kind: int = RTN_UNICAST,
        rto_min_ms: int = 0,
    ) -> None:
        self.kind = kind
        self.rto_min_ms = rto_min_ms
        self.gateway = gateway
        self.oif = oif
        self.metric = metric
        self.table = table


class Neighbour:
    """An entry of the neighbour table. state: NUD_* bits; address: the link layer's."""

    __slots__ = ("address", "destination", "index", "state")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        _, self.index, self.state, _, _ = _unpacked(_NDMSG, payload)
        found = wire.attributes(payload[_NDMSG.size :])
        self.destination = _presented(found.get(1, b""))
        self.address = ":".join(f"{byte:02x}" for byte in found.get(2, b""))


class Rule:
    """A rule of the routing policy. iif "" and mark 0 for any."""

    __slots__ = ("family", "iif", "mark", "priority", "table")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        header = _unpacked(_RTMSG, payload)
        found = wire.attributes(payload[_RTMSG.size :])
        self.family = int(header[0])
        self.table = number(found[15]) if 15 in found else int(header[4])
        self.priority = number(found.get(6, b""))
        self.iif = string(found.get(3, b""))
        self.mark = number(found.get(10, b""))


def mtu(octets: int) -> bytes:
    return u32(_MTU, octets)


def address(lladdr: str) -> bytes:
    """Return the setting of a MAC."""
    return attribute(_ADDRESS, mac(lladdr))


def named(name: str) -> bytes:
    return text(_IFNAME, name)


def alias(words: str) -> bytes:
    """Return the setting of what the link is for, as `ip link` shows it."""
    return text(_IFALIAS, words)


def master(index: int) -> bytes:
    """Return the setting of the bridge that the link is a port of; 0 for none."""
    return u32(_MASTER, index)


def over(index: int) -> bytes:
    """Return the setting of the link that a macvlan, an ipvlan or a vlan lies on."""
    return u32(_LINK, index)


def in_namespace(fd: int) -> bytes:
    """Return the setting of the network namespace that the link is made in, or moves to."""
    return u32(_NET_NS_FD, fd)


def address_generation(mode: int) -> bytes:
    """Return the setting of how IPv6 makes the link-local address; ADDR_GEN_MODE_NONE makes none."""
    return nested(_AF_SPEC, nested(AF_INET6, u8(_INET6_ADDR_GEN_MODE, mode)))


def bridge() -> bytes:
    """Return the kind of a bridge."""
    return _kind("bridge")


def veth(peer: str, *settings: bytes) -> bytes:
    """Return the kind of a pair of virtual Ethernet devices: the peer's name and its settings."""
    return _kind("veth", attribute(_VETH_INFO_PEER, b"".join((_NO_LINK, text(_IFNAME, peer), *settings))))


def macvlan(mode: str = "bridge") -> bytes:
    """Return the kind of a macvlan. Raises KeyError for a mode that is none."""
    return _kind("macvlan", u32(_MACVLAN_MODE, MACVLAN_MODES[mode]))


def ipvlan(mode: str = "l2", flag: str = "bridge") -> bytes:
    """Return the kind of an ipvlan. All of one parent have one mode. Raises KeyError for what is none."""
    return _kind("ipvlan", u16(_IPVLAN_MODE, IPVLAN_MODES[mode]), u16(_IPVLAN_FLAGS, IPVLAN_FLAGS[flag]))


def dummy() -> bytes:
    """Return the kind of a link that leads nowhere."""
    return _kind("dummy")


def vlan(vlan_id: int) -> bytes:
    return _kind("vlan", u16(_VLAN_ID, vlan_id))


def vxlan(vni: int, *, local: str = "", group: str = "", port: int = 4789, learning: bool = True) -> bytes:
    """Return the kind of a VXLAN tunnel. port: UDP, the same at every end."""
    data = [u32(_VXLAN_ID, vni), wire.be16(_VXLAN_PORT, port), u8(_VXLAN_LEARNING, int(learning))]
    if local:
        data.append(attribute(_VXLAN_LOCAL, packed(local)))
    if group:
        data.append(attribute(_VXLAN_GROUP6 if ":" in group else _VXLAN_GROUP, packed(group)))
    return _kind("vxlan", *data)


class Rtnetlink(wire.Socket):
    """A socket that speaks rtnetlink."""

    def __init__(self) -> None:
        super().__init__(wire.ROUTE)

    def __enter__(self) -> Rtnetlink:
        return self

    # -- links ------------------------------------------------------------------------------------------------------

    def add_link(self, name: str, kind: bytes, *settings: bytes) -> None:
        """Make a link. kind: of `bridge`, `veth` ...; settings: of `mtu`, `address`, `over`, `in_namespace`.

        Raises FileExistsError for a name that is taken.
        """
        body = _NO_LINK + text(_IFNAME, name) + kind + b"".join(settings)
        self.request(NEWLINK, CREATE | EXCL, body, "RTM_NEWLINK", name)

    def set_link(self, index: int, *settings: bytes, up: bool | None = None) -> None:
        """Change a link. settings: of `mtu`, `address`, `master`, `named`, `in_namespace`."""
        header = _IFINFO.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
        self.request(NEWLINK, 0, header + b"".join(settings), "RTM_NEWLINK", f"link {index}")

    def set_bridge_port(self, index: int, *, isolated: bool | None = None, hairpin: bool | None = None) -> None:
        """Change a bridge's port. isolated (4.18): it reaches no other isolated port of the bridge."""
        data = b""
        if isolated is not None:
            data += u8(_BRPORT_ISOLATED, int(isolated))
        if hairpin is not None:
            data += u8(_BRPORT_MODE, int(hairpin))
        body = nested(_LINKINFO, text(4, "bridge"), nested(_INFO_SLAVE_DATA, data))
        self.request(NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + body, "RTM_NEWLINK", f"link {index}")

    def delete_link(self, index: int) -> None:
        """Remove a link, of a veth both ends. Raises OSError (ENODEV) when it is gone."""
        self.request(DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0), "RTM_DELLINK", f"link {index}")

    def link(self, name: str) -> Link | None:
        """Return the link with this name, or None."""
        body = _NO_LINK + text(_IFNAME, name) + u32(_EXT_MASK, _FILTER_SKIP_STATS)
        try:
            found = self.request(GETLINK, 0, body, "RTM_GETLINK", name)
        except OSError as failure:
            if failure.errno == errno.ENODEV:
                return None
            raise
        return Link(found[0].payload) if found else None

    def link_at(self, index: int) -> Link:
        """Return the link with this index. Raises OSError (ENODEV)."""
        body = _IFINFO.pack(0, 0, index, 0, 0) + u32(_EXT_MASK, _FILTER_SKIP_STATS)
        return Link(_only(self.request(GETLINK, 0, body, "RTM_GETLINK", f"link {index}")))

    def links(self) -> Iterator[Link]:
        """Yield every link."""
        body = _NO_LINK + u32(_EXT_MASK, _FILTER_SKIP_STATS)
        for found in self.dump(GETLINK, body, "RTM_GETLINK"):
            yield Link(found.payload)

    # -- addresses --------------------------------------------------------------------------------------------------

    def add_address(self, index: int, address: str, prefix_length: int, flags: int = 0, scope: int = 0) -> None:
        """Give a link an address; one that it has is kept. flags: IFA_F_*; scope: RT_SCOPE_*.

        An IPv4 address comes with the one for all of its subnet, as ip(8) `brd +` gives it: programs ask for it.
        """
        body = _local_address(index, address, prefix_length, scope) + u32(8, flags)
        if family_of(address) == AF_INET and prefix_length < _PREFIX_WITHOUT_BROADCAST:
            mask = (1 << 32 - prefix_length) - 1
            body += attribute(4, (int.from_bytes(packed(address), "big") | mask).to_bytes(4, "big"))
        self.request(NEWADDR, CREATE | REPLACE, body, "RTM_NEWADDR", f"{address}/{prefix_length}")

    def delete_address(self, index: int, address: str, prefix_length: int) -> None:
        body = _local_address(index, address, prefix_length)
        self.request(DELADDR, 0, body, "RTM_DELADDR", f"{address}/{prefix_length}")

    def addresses(self, family: int = 0) -> Iterator[Address]:
        """Yield every address of a family, or of both."""
        for found in self.dump(GETADDR, _IFADDR.pack(family, 0, 0, 0, 0), "RTM_GETADDR"):
            yield Address(found.payload)

    # -- routes, neighbours, rules ----------------------------------------------------------------------------------

    def add_route(self, destination: tuple[str, int], hop: Hop) -> None:
        """Add a route, or put it in the place of the same one."""
        self._route(NEWROUTE, CREATE | REPLACE, destination, hop)

    def delete_route(self, destination: tuple[str, int], hop: Hop) -> None:
        """Remove a route; what the hop does not say, any has. Raises OSError (ESRCH) when there is none."""
        self._route(DELROUTE, 0, destination, hop)

    def routes(self, family: int) -> Iterator[Route]:
        """Yield every route of a family, of all tables."""
        for found in self.dump(GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "RTM_GETROUTE"):
            yield Route(found.payload)

    def way_to(self, address: str) -> Route:
        """Return the route that a packet of this namespace takes to an address. Raises OSError: ENETUNREACH, ..."""
        data = packed(address)
        body = _RTMSG.pack(family_of(address), 8 * len(data), 0, 0, 0, 0, 0, 0, 0) + attribute(1, data)
        return Route(_only(self.request(GETROUTE, 0, body, "RTM_GETROUTE", address)))

    def _route(self, verb: int, flags: int, destination: tuple[str, int], hop: Hop) -> None:
        address, length = destination
        body = attribute(1, packed(address)) if length else b""
        if hop.gateway:
            body += attribute(5, packed(hop.gateway))
        for kind, value in ((4, hop.oif), (6, hop.metric), (15, hop.table)):
            if value:
                body += u32(kind, value)
        if hop.rto_min_ms:
            locked = u32(_RTAX_LOCK, 1 << _RTAX_RTO_MIN)  # TCP goes by no other
            body += nested(_RTA_METRICS, locked + u32(_RTAX_RTO_MIN, hop.rto_min_ms))
        deleted = verb == DELROUTE
        scope = _SCOPE_UNIVERSE if hop.gateway or deleted else _SCOPES[hop.kind]
        family = family_of(hop.gateway or address)
        header = _RTMSG.pack(family, length, 0, 0, 0, 0 if deleted else _PROTO_BOOT, scope, hop.kind, 0)
        call = "RTM_DELROUTE" if deleted else "RTM_NEWROUTE"
        self.request(verb, flags, header + body, call, f"{address or 'default'}/{length}")

    def add_neighbour(self, index: int, address: str, lladdr: str, state: int = NUD_PERMANENT) -> None:
        """Say which MAC an address has, in the place of what was known."""
        header = _NDMSG.pack(family_of(address), index, state, 0, 0)
        body = attribute(1, packed(address)) + attribute(2, mac(lladdr))
        self.request(NEWNEIGH, CREATE | REPLACE, header + body, "RTM_NEWNEIGH", address)

    def neighbours(self, family: int) -> Iterator[Neighbour]:
        """Yield the neighbours that the kernel knows."""
        for found in self.dump(GETNEIGH, _NDMSG.pack(family, 0, 0, 0, 0), "RTM_GETNEIGH"):
            yield Neighbour(found.payload)

    def add_rule(self, family: int, table: int, *, iif: str = "", mark: int = 0, priority: int = 0) -> None:
        """Have a table looked up for what comes in by a link, or carries a mark. Raises FileExistsError."""
        body = _rule(family, table, iif, mark, priority)
        self.request(NEWRULE, CREATE | EXCL, body, "RTM_NEWRULE", f"rule to table {table}")

    def rules(self, family: int) -> Iterator[Rule]:
        """Yield every rule of a family."""
        for found in self.dump(GETRULE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "RTM_GETRULE"):
            yield Rule(found.payload)


def _only(answer: list[wire.Message]) -> bytes:
    if not answer:
        raise OSError(errno.EBADMSG, "netlink: the kernel answered nothing")
    return answer[0].payload


def _local_address(index: int, address: str, prefix_length: int, scope: int = 0) -> bytes:
    header = _IFADDR.pack(family_of(address), prefix_length, 0, scope, index)
    return header + attribute(1, packed(address)) + attribute(2, packed(address))


def _rule(family: int, table: int, iif: str, mark: int, priority: int) -> bytes:
    body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0) + u32(15, table)
    if priority:
        body += u32(6, priority)
    if iif:
        body += text(3, iif)
    return body + u32(10, mark) if mark else body


def family_of(address: str) -> int:
    """Return AF_INET or AF_INET6 by the address's form."""
    return AF_INET6 if ":" in address else AF_INET


def packed(address: str) -> bytes:
    """Return an address's bytes. Raises OSError for what is none."""
    return inet_pton(family_of(address), address)


def mac(lladdr: str) -> bytes:
    """Return a MAC's bytes. Raises ValueError."""
    return bytes(int(part, 16) for part in lladdr.split(":"))


def _presented(data: bytes) -> str:
    if len(data) == 4:
        return inet_ntop(AF_INET, data)
    return inet_ntop(AF_INET6, data) if len(data) == 16 else ""


def _kind(name: str, *data: bytes) -> bytes:
    return nested(_LINKINFO, text(_INFO_KIND, name), *([nested(_INFO_DATA, *data)] if data else []))


def _unpacked(header: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) < header.size:
        raise OSError(errno.EBADMSG, f"netlink: a message of {len(payload)} bytes, its header alone has {header.size}")
    return header.unpack_from(payload)
