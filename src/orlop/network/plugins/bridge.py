"""A pair of links, one end in the container, the other on a bridge of the machine; addresses by another plugin."""

from __future__ import annotations

import errno
import os
import secrets

from ...linux.netlink import namespace, rtnetlink
from ...linux.netlink import nftables as nft
from ...linux.netlink.rtnetlink import ADDR_GEN_MODE_NONE, IFA_F_NODAD, Hop, Rtnetlink
from ...spec.errors import OrlopError
from .. import links, subnet
from ..cni import versions
from ..cni.plugin import Plugins, Request
from ..cni.result import Address
from .request import INVALID, LATER, OWN, Call, PluginError, check_interface, flag, refuse, table, tables, text, whole
from .rules import Table, of_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.netlink.nftables import Batch
    from ..firewall import Family
    from .request import Json
    from .rules import Change

BRIDGE_DEFAULT = "cni0"
NOTE = "orlop-cni"
_R = 8
_POSTROUTING = 100


def add(call: Call) -> Json:
    """Connect a container. Raises PluginError, OSError; nothing is left then but the bridge."""
    conf = _Conf(call)
    _check_free(call)  # or what is undone below would be an earlier ADD's
    found = _delegate(call, "ADD")
    try:
        ips = tables(found, "ips")
        addresses = _addresses(found)
        told = _connect(call, conf, addresses, [_route(one) for one in tables(found, "routes")])
        if conf.masquerades:
            _MASQUERADED.add(_changes(conf.bridge, addresses), call.owner)
    except BaseException:
        delete(call)
        raise
    # interfaces: the bridge, the machine's end, the container's.
    made = {**found, "interfaces": told, "ips": [{**one, "interface": 2} for one in ips]}
    made.pop("cniVersion", None)
    routes = [*tables(found, "routes"), *_default_routes(conf, addresses, tables(found, "routes"))]
    return {**made, **({"routes": routes} if routes else {}), "dns": table(call.config, "dns") or table(found, "dns")}


def delete(call: Call) -> None:
    """Disconnect it: what is gone is as it should be."""
    _Conf(call)
    _delegate(call, "DEL")
    try:
        fd = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC) if call.netns else -1
    except FileNotFoundError:
        fd = -1
    if fd >= 0:
        try:
            with namespace.inside(fd, Rtnetlink) as inside:
                links.delete_link(inside, call.interface)
        finally:
            os.close(fd)
    _MASQUERADED.remove(call.owner)


def check(call: Call) -> None:
    """See that everything is as ADD has left it."""
    conf = _Conf(call)
    _delegate(call, "CHECK")
    with Rtnetlink() as route:
        below = route.link(conf.bridge)
        if below is None or below.kind != "bridge":
            raise PluginError(OWN, f"bridge {conf.bridge} is not there")
    fd = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside:
            own = inside.link(call.interface)
            if own is None or not own.is_up:
                raise PluginError(OWN, f"interface {call.interface} is not there, or down")
            there = {one.address for one in inside.addresses() if one.index == own.index}
            missing = [one.address for one in _addresses(call.previous) if one.address not in there]
    finally:
        os.close(fd)
    if missing:
        raise PluginError(OWN, f"interface {call.interface} lacks {', '.join(missing)}")


def collect(call: Call) -> None:
    """Links go with their namespaces; addresses are the other plugin's."""
    _MASQUERADED.collect(call)
    _delegate(call, "GC")


def status(call: Call) -> None:
    """See that a container could be connected."""
    _Conf(call)
    _delegate(call, "STATUS")


VERBS = {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": status}


class _Conf:
    """What the configuration says."""

    def __init__(self, call: Call) -> None:
        """Raises PluginError for fields that are wrong or that can't be honoured."""
        config = call.config
        self.bridge = text(config, "bridge") or BRIDGE_DEFAULT
        check_interface(self.bridge)
        self.is_default_gateway = flag(config, "isDefaultGateway")
        self.is_gateway = flag(config, "isGateway") or self.is_default_gateway
        self.masquerades = flag(config, "ipMasq")
        self.mtu = whole(config, "mtu")
        self.hairpin = flag(config, "hairpinMode")
        self.isolated = flag(config, "portIsolation")
        self.mac = str(call.runtime.get("mac") or call.arg("MAC") or "")
        refuse(config, "vlan vlanTrunk promiscMode macspoofchk forceAddress preserveDefaultVlan")


def _delegate(call: Call, command: str) -> Json:
    """Have the plugin for addresses do its part; return its result, {} where none is wanted. Raises PluginError."""
    ipam = table(call.config, "ipam")
    kind = text(ipam, "type")
    if not kind:
        return {}
    if "/" in kind:
        raise PluginError(INVALID, f"invalid type of a plugin: {kind[:40]!r}")
    request = Request(command, call.container, call.netns, call.interface, call.args)
    try:
        found = Plugins(call.path).run(kind, request, call.config)
        return versions.latest(found) if command == "ADD" else {}
    except OrlopError as wrong:
        raise PluginError(LATER if command == "STATUS" else OWN, f"{kind}: {wrong.cause}") from None


def _check_free(call: Call) -> None:
    fd = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside:
            if inside.link(call.interface) is not None:
                raise PluginError(OWN, f"container veth name {call.interface!r} already exists")
    finally:
        os.close(fd)


def _addresses(found: Json) -> list[Address]:
    try:
        return [Address(one) for one in tables(found, "ips")]
    except ValueError as wrong:
        raise PluginError(INVALID, str(wrong)) from None


def _route(found: Json) -> tuple[tuple[str, int], str]:
    """Return ((address, prefix length), gateway) of a route; ("", 0) for the default."""
    try:
        where = subnet.parse(text(found, "dst"))
    except ValueError as wrong:
        raise PluginError(INVALID, str(wrong)) from None
    refuse(found, "table scope priority mtu advmss")
    address = "" if where.length == 0 else subnet.text(where.first, where.bits)
    return (address, where.length), text(found, "gw") or ("::" if where.bits == 128 else "")


def _default_routes(conf: _Conf, addresses: list[Address], routes: list[Json]) -> list[Json]:
    """Return what isDefaultGateway adds to the routes: one of each family, unless there is one by a gateway."""
    had = {text(one, "dst") for one in routes if text(one, "gw")}
    ways = {"::/0" if ":" in one.gateway else "0.0.0.0/0": one.gateway for one in reversed(addresses) if one.gateway}
    wanted = [where for where in ("0.0.0.0/0", "::/0") if where in ways and where not in had]
    return [{"dst": where, "gw": ways[where]} for where in wanted] if conf.is_default_gateway else []


def _connect(
    call: Call, conf: _Conf, addresses: list[Address], routes: list[tuple[tuple[str, int], str]]
) -> list[Json]:
    """Make the links; return what the result says of them."""
    fd = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Rtnetlink() as route, namespace.inside(fd, Rtnetlink) as inside:
            mtu = conf.mtu or links.uplink_mtu(route)
            fresh = f"cni-{secrets.token_hex(4)}"  # others of us may be making it at this moment
            below = links.ensure_bridge(route, links.BridgePlan(conf.bridge, [], mtu, NOTE, fresh))
            name = f"veth{secrets.token_hex(4)}"
            settings = [rtnetlink.mtu(mtu), rtnetlink.in_namespace(fd)]
            settings += [rtnetlink.address(conf.mac)] if conf.mac else []
            route.add_link(name, rtnetlink.veth(call.interface, *settings), rtnetlink.mtu(mtu))
            outer, own = route.link(name), inside.link(call.interface)
            if outer is None or own is None:
                raise OSError(errno.ENODEV, "the links went at once", name)
            links.close_port(name)
            quiet = rtnetlink.address_generation(ADDR_GEN_MODE_NONE)
            route.set_link(outer.index, rtnetlink.master(below), quiet, up=True)
            route.set_bridge_port(outer.index, isolated=conf.isolated, hairpin=conf.hairpin)
            has_ipv6 = any(":" in one.address for one in addresses)
            namespace.inside(fd, lambda: _settle(call.interface, has_ipv6))
            for one in addresses:
                inside.add_address(own.index, one.address, one.length, IFA_F_NODAD if ":" in one.address else 0)
            inside.set_link(own.index, up=True)
            if conf.is_gateway:
                _be_gateway(route, below, conf, addresses)
            _add_routes(inside, own.index, conf, addresses, routes)
            made = (route.link(conf.bridge), route.link(name), inside.link(call.interface))
    finally:
        os.close(fd)
    names = (conf.bridge, name, call.interface)
    told: list[Json] = [
        {"name": one, "mac": link.address if link is not None else ""} for one, link in zip(names, made, strict=True)
    ]
    told[2]["sandbox"] = call.netns
    return told


def _settle(interface: str, has_ipv6: bool) -> None:
    links.write_sysctl(f"ipv6/conf/{interface}/accept_ra", "0")
    links.write_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "0" if has_ipv6 else "1")


def _be_gateway(route: Rtnetlink, bridge: int, conf: _Conf, addresses: list[Address]) -> None:
    there = {one.address for one in route.addresses() if one.index == bridge}
    for one in addresses:
        is_six = ":" in one.gateway
        if is_six:
            links.write_sysctl(f"ipv6/conf/{conf.bridge}/disable_ipv6", "0")
        if one.gateway and one.gateway not in there:
            route.add_address(bridge, one.gateway, one.length, IFA_F_NODAD if is_six else 0)
        links.write_sysctl("ipv6/conf/all/forwarding" if is_six else "ipv4/ip_forward", "1")


def _add_routes(
    inside: Rtnetlink,
    index: int,
    conf: _Conf,
    addresses: list[Address],
    routes: list[tuple[tuple[str, int], str]],
) -> None:
    gateways = {":" in one.gateway: one.gateway for one in reversed(addresses) if one.gateway}
    if conf.is_default_gateway:
        routes = [*routes, *((("", 0), "::" if is_six else "") for is_six in gateways)]
    for destination, by in dict.fromkeys(routes):
        is_six = ":" in destination[0] or ":" in by
        gateway = gateways.get(is_six, "") if by in ("", "::") else by
        if not gateway:
            raise PluginError(INVALID, f"a route to {destination[0] or 'everywhere'} has no gateway")
        inside.add_route(destination, Hop(gateway, index))


def _changes(bridge: str, addresses: list[Address]) -> list[Change]:
    """Return what the sets have of a container, and of the bridge, which others share."""
    found: list[Change] = []
    for one in addresses:
        family, data = of_address(one.address)
        found.append((family.number, "masqueraded", nft.Element(data)))
        found.append((family.number, "bridges", nft.Element(nft.interface(bridge))))
    return found


def _write(batch: Batch, family: Family) -> None:
    name = _MASQUERADED.name
    batch.add_set(family.number, name, "masqueraded", [family.key])
    batch.add_set(family.number, name, "bridges", ["ifname"])
    batch.add_chain(family.number, name, "srcnat", nft.Hook("nat", nft.POSTROUTING, _POSTROUTING))
    rule = [
        nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R),
        nft.lookup("masqueraded", _R),
        nft.meta(nft.OIFNAME, _R),
        nft.lookup("bridges", _R, invert=True),
        nft.masquerade(),
    ]
    batch.add_rule(family.number, name, "srcnat", rule)


_MASQUERADED = Table("orlop-cni-masq", _write, ("masqueraded",))
