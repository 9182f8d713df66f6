"""Bridges and the interfaces of endpoints, over rtnetlink.

A pair of veth devices connects a container's namespace to its bridge. The namespace's end goes with the namespace, and
with it the host's end: a container whose everything was killed leaves no device behind.
"""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, AF_INET6

from ..linux import interface
from ..linux.netlink import namespace, rtnetlink
from ..linux.netlink.rtnetlink import ADDR_GEN_MODE_NONE, IFA_F_NODAD, Hop, Rtnetlink
from . import subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..linux.netlink.rtnetlink import Link
    from ..spec.network import Endpoint

MTU_DEFAULT = 1500
NAME_LENGTH_MAX = 15  # IFNAMSIZ without its NUL
PING_GID_MAX = 2**31 - 1
# What leads a user's networks outside (pasta, slirp4netns) drops what its own socket can't take at once, and TCP inside
# has to send it again: after this time, not after 200 ms. It is less than the 50 ms after which pasta looks by itself
# what the far end has got (ACK_INTERVAL in its tcp.c). What is sent again too early ends in pasta, which has it.
UPLINK_RTO_MIN_MS = 12
# Such a drop says nothing of a path. Who takes it for one sends a trickle for seconds, so these come in its place. How
# pasta itself sends to the outside is the machine's choice.
_MISLED_BY_DROPS, _CONGESTION_CONTROLS = "bbr", ("cubic", "reno")
UPLINK_MTU_LARGE = 32768  # a packet of more than half of what TSO makes at once
_SYSCTL = "/proc/sys/net"
_CONGESTION = "ipv4/tcp_congestion_control"
_EVERYWHERE = {AF_INET: "0.0.0.0", AF_INET6: "::"}


def new_namespace() -> tuple[int, Rtnetlink]:
    """Return a namespace whose lo is up, and a socket in it. Interfaces that come to it have no IPv6 of their own."""
    return namespace.new(_furnish)


def open_to_mapped_root(gid_last: int) -> None:
    """Let whoever is in the calling thread's namespace listen on low ports and send pings without a capability.

    For containers in a user namespace of their own: that namespace does not own this one, so that no capability in
    there counts for it (network_namespaces(7); icmp(7), ping_group_range). gid_last: the highest that it has; the
    kernel takes none beyond PING_GID_MAX for pings (GID_T_MAX, net/ipv4/sysctl_net_ipv4.c).
    """
    write_sysctl("ipv4/ip_unprivileged_port_start", "0")
    write_sysctl("ipv4/ping_group_range", f"0 {min(gid_last, PING_GID_MAX)}")


def _furnish() -> Rtnetlink:
    # Nothing but what was asked for: no link-local address, no router's advertisement (SEC-93).
    write_sysctl("ipv6/conf/default/disable_ipv6", "1")
    write_sysctl("ipv6/conf/default/accept_ra", "0")
    if namespace.has_left() and read_sysctl(_CONGESTION).startswith(_MISLED_BY_DROPS):
        _take_drops_as_such()
    route = Rtnetlink()
    lo = route.link("lo")
    assert lo is not None
    route.set_link(lo.index, up=True)
    return route


def _take_drops_as_such() -> None:
    """Have TCP in the calling thread's namespace send as these do, before a container's own `--sysctl` is written."""
    for name in _CONGESTION_CONTROLS:
        try:
            write_sysctl(_CONGESTION, name)
        except OSError:  # ENOENT: the kernel lacks it. EPERM: net.ipv4.tcp_allowed_congestion_control does
            continue
        return


def write_sysctl(name: str, value: str) -> None:
    """Write a sysctl below net/ of the calling thread's network namespace. Missing ones are as they should be."""
    try:
        fd = os.open(f"{_SYSCTL}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a kernel without IPv6
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_sysctl(name: str) -> str:
    """Return the value of a sysctl below net/, "" for one that is not there."""
    try:
        with open(f"{_SYSCTL}/{name}", "rb", buffering=0) as file:
            return file.read().decode().strip()
    except FileNotFoundError:
        return ""


def live_subnets(route: Rtnetlink) -> Iterator[tuple[subnet.Subnet, str]]:
    """Yield (where a route leads to, the name of its link) for every route and address of this namespace."""
    names = {link.index: link.name for link in route.links()}
    for family, bits in ((AF_INET, 32), (AF_INET6, 128)):
        for found in route.routes(family):
            address, length = found.destination
            if found.table != rtnetlink.TABLE_LOCAL and address:
                value, _ = subnet.number(address)
                yield subnet.Subnet(bits, value, length), names.get(found.oif, "")


def uplink_mtu(route: Rtnetlink) -> int:
    """Return the MTU of the way to the outside, 1500 where there is none."""
    ways = [found for found in route.routes(AF_INET) if found.is_way_out]
    if not ways:
        return MTU_DEFAULT
    best = min(ways, key=lambda found: found.metric)
    mtu = next((link.mtu for link in route.links() if link.index == best.oif), MTU_DEFAULT)
    return min(mtu, best.mtu) if best.mtu else mtu


class BridgePlan:
    """A bridge as it should be. addresses: (address, prefix length) of the host in its subnets; fresh: see `make`."""

    __slots__ = ("addresses", "fresh", "mtu", "name", "note")

    def __init__(self, name: str, addresses: list[tuple[str, int]], mtu: int, note: str, fresh: str) -> None:
        self.name = name
        self.addresses = addresses
        self.mtu = mtu
        self.note = note
        self.fresh = fresh


def make(route: Rtnetlink, name: str, note: str, fresh: str, *kind: bytes) -> Link:
    """Make a link that is known as ours at every moment, and return it. Raises OSError; nothing is left then.

    kind: and its settings. note: its alias, which says whose it is. No link is made with one, so until it has it, it is
    called fresh: what a kill has left is found by that.
    """
    delete_link(route, fresh)
    try:
        route.add_link(fresh, *kind)
        made = route.link(fresh)
        assert made is not None
        # Its alias first: who fails between the two leaves what is called fresh.
        route.set_link(made.index, rtnetlink.alias(note))
        route.set_link(made.index, rtnetlink.named(name))
        made.name, made.alias = name, note
    except BaseException:
        delete_link(route, fresh)
        raise
    return made


def ensure_bridge(route: Rtnetlink, plan: BridgePlan) -> int:
    """Make a bridge, or what is missing of it, and return its index. Raises OSError."""
    found = route.link(plan.name)
    if found is None:
        # Without an address of ours it would have the least one of its ports', and another one when that goes: whoever
        # knows the gateway by the old one would wait for half a minute.
        own = rtnetlink.address(mac_of(next((one for one, _ in plan.addresses if ":" not in one), "")))
        try:
            found = make(route, plan.name, plan.note, plan.fresh, rtnetlink.bridge(), own)
        except FileExistsError:
            found = route.link(plan.name)  # somebody was faster
            if found is None:
                raise
    if found.kind != "bridge":
        raise OSError(errno.EEXIST, f"a link of another kind ({found.kind or 'hardware'}) has this name", plan.name)
    if not found.is_up and found.alias == plan.note:
        has_ipv6 = any(":" in address for address, _ in plan.addresses)
        write_sysctl(f"ipv6/conf/{plan.name}/disable_ipv6", "0" if has_ipv6 else "1")
        write_sysctl(f"ipv6/conf/{plan.name}/accept_ra", "0")
        # Nobody else has its addresses; asking first keeps the first connection waiting for two seconds.
        write_sysctl(f"ipv6/conf/{plan.name}/dad_transmits", "0")
        # The machine's own clients of a published port come from 127.0.0.1; containers that would use it to reach the
        # machine's loopback are stopped by the firewall's first chain (CVE-2020-8558).
        write_sysctl(f"ipv4/conf/{plan.name}/route_localnet", "1")
    if not found.is_up or found.mtu != plan.mtu:
        for address, length in plan.addresses:
            route.add_address(found.index, address, length, IFA_F_NODAD)
        route.set_link(found.index, rtnetlink.mtu(plan.mtu), up=True)
    return found.index


def mac_of(ipv4: str) -> str:
    """Return a locally administered MAC: docker's, made of an IPv4 address; any one where there is none."""
    tail = subnet.number(ipv4)[0].to_bytes(4, "big") if ipv4 else os.urandom(4)
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + tail)


def delete_bridge(route: Rtnetlink, name: str, note: str) -> None:
    """Remove a bridge that `ensure_bridge` made. One that others made stays: a network may have the name of any link.

    note: the alias that says whose it is.
    """
    found = route.link(name)
    if found is not None and found.kind == "bridge" and found.alias == note:
        delete_link(route, name)


def delete_link(route: Rtnetlink, name: str) -> None:
    """Remove a link; one that is gone is as it should be."""
    found = route.link(name)
    if found is None:
        return
    try:
        route.delete_link(found.index)
    except OSError as failure:
        if failure.errno != errno.ENODEV:
            raise


class Port:
    """How an endpoint hangs on its bridge. isolated: it reaches no other isolated port (icc off).

    before_up: what is done when both ends are there, and no packet has passed.
    """

    __slots__ = ("before_up", "bridge", "isolated", "mtu")

    def __init__(self, bridge: int, mtu: int, isolated: bool) -> None:
        self.bridge = bridge
        self.mtu = mtu
        self.isolated = isolated
        self.before_up: Callable[[], None] = lambda: None


def plug_bridge(route: Rtnetlink, inside: Rtnetlink, netns: int, endpoint: Endpoint, port: Port) -> None:
    """Connect a namespace to a bridge. Raises OSError; nothing is left then."""
    settings = [rtnetlink.mtu(port.mtu), rtnetlink.address(endpoint.mac_address), rtnetlink.in_namespace(netns)]
    route.add_link(endpoint.link, rtnetlink.veth(endpoint.interface, *settings), rtnetlink.mtu(port.mtu))
    try:
        host_end = route.link(endpoint.link)
        assert host_end is not None
        port.before_up()
        close_port(endpoint.link)
        quiet = rtnetlink.address_generation(ADDR_GEN_MODE_NONE)
        route.set_link(host_end.index, rtnetlink.master(port.bridge), quiet, up=True)
        # hairpin: what a container sends to its own published port comes back by the port it came from, where
        # br_netfilter translates on the bridge.
        route.set_bridge_port(host_end.index, isolated=port.isolated, hairpin=True)
        configure(inside, netns, endpoint)
        if namespace.has_left() and port.mtu >= UPLINK_MTU_LARGE:
            _keep_order(netns, endpoint)
    except BaseException:
        delete_link(route, endpoint.link)
        raise


def close_port(name: str) -> None:
    """Have the machine believe nothing that a bridge's port hands to it past the bridge. Before the port is up.

    Frames to the groups of 802.1D (01:80:c2:00:00:02 and its neighbours) are taken as what the port itself received
    (br_handle_frame): a router's advertisement in one gave the machine a way out by a container (CVE-2020-13401), and a
    datagram passed by rules for the bridge. No source lies behind the port itself, so that a strict filter drops all.
    """
    write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
    write_sysctl(f"ipv4/conf/{name}/rp_filter", "1")


def _keep_order(netns: int, endpoint: Endpoint) -> None:
    """Have what a container sends come to the bridge in the order in which it was sent, on whatever processor.

    What a veth takes is put into a queue of the sending processor, unless its other end polls (NAPI, with GRO) and no
    packet stands for several (TSO): then all of it passes one ring (veth_skb_is_eligible_for_gro, drivers/net/veth.c).
    pasta(1) drops what comes behind a gap, and the sender waits. With packets this large TSO gains nothing.
    """
    try:
        interface.set_offload(endpoint.link, interface.GRO, True)
        namespace.inside(netns, lambda: interface.set_offload(endpoint.interface, interface.TSO, False))
    except OSError:
        pass  # slower, and as right


class Place:
    """Where an endpoint's link lies: on which of the machine's, its parent, as what kind, with which settings."""

    __slots__ = ("kind", "parent", "settings")

    def __init__(self, parent: str, kind: bytes, settings: Sequence[bytes]) -> None:
        self.parent = parent
        self.kind = kind
        self.settings = settings


def plug_on(route: Rtnetlink, inside: Rtnetlink, netns: int, endpoint: Endpoint, place: Place) -> None:
    """Give a namespace a link of its own on one of the machine's. Raises OSError, FileNotFoundError without it."""
    below = route.link(place.parent)
    if below is None:
        raise FileNotFoundError(errno.ENODEV, "there is no such link on this machine", place.parent)
    settings = [rtnetlink.over(below.index), rtnetlink.in_namespace(netns), *place.settings]
    if endpoint.mac_address:
        settings.append(rtnetlink.address(endpoint.mac_address))
    route.add_link(endpoint.interface, place.kind, *settings)
    try:
        configure(inside, netns, endpoint)
    except BaseException:
        delete_link(inside, endpoint.interface)
        raise


def configure(inside: Rtnetlink, netns: int, endpoint: Endpoint) -> None:
    """Give an endpoint's interface its addresses, and bring it up."""
    own = inside.link(endpoint.interface)
    assert own is not None
    if endpoint.ipv6:
        name = f"ipv6/conf/{endpoint.interface}"

        def enable() -> None:
            write_sysctl(f"{name}/dad_transmits", "0")
            write_sysctl(f"{name}/disable_ipv6", "0")

        namespace.inside(netns, enable)
        inside.add_address(own.index, endpoint.ipv6, endpoint.ipv6_length, IFA_F_NODAD)
    if endpoint.ipv4:
        inside.add_address(own.index, endpoint.ipv4, endpoint.ipv4_length)
    inside.set_link(own.index, up=True)


def set_gateways(inside: Rtnetlink, four: Endpoint | None, six: Endpoint | None) -> None:
    """Have the default route of IPv4 lead through one endpoint's network, IPv6's through the same or another, or
    nowhere. One that leads there already is left as it is."""
    direct = {link.index for link in inside.links() if link.kind == "ipvlan"}
    rto_min_ms = UPLINK_RTO_MIN_MS if namespace.has_left() else 0
    for family, endpoint in ((AF_INET, four), (AF_INET6, six)):
        wanted = None
        if endpoint is not None:
            own = inside.link(endpoint.interface)
            assert own is not None
            wanted = (endpoint.gateway if family == AF_INET else endpoint.gateway6, own.index)
        for found in list(inside.routes(family)):
            ours = found.gateway or found.oif in direct
            if not (found.is_way_out and found.table == rtnetlink.TABLE_MAIN and ours):
                continue
            if (found.gateway, found.oif) == wanted:
                wanted = None
            else:
                inside.delete_route((_EVERYWHERE[family], 0), Hop(found.gateway, found.oif))
        if wanted is not None and wanted[0]:
            inside.add_route(("", 0), Hop(*wanted, rto_min_ms=rto_min_ms))
        elif wanted is not None:
            inside.add_route((_EVERYWHERE[family], 0), Hop(oif=wanted[1]))


def unplug(inside: Rtnetlink, endpoint: Endpoint) -> None:
    """Take an endpoint's interface out of its namespace; the host's end goes with it."""
    delete_link(inside, endpoint.interface)
