"""Ports of the machine that lead to a container, as the runtime's portMappings say. Chained behind another plugin."""

from __future__ import annotations

from ...linux.netlink import nftables as nft
from ...linux.netlink.nftables import Element
from ...linux.netlink.rtnetlink import Rtnetlink
from ...spec.network import PORT_MAX
from .. import links, subnet
from ..cni.result import addresses
from ..firewall import NUMBERS
from .request import INVALID, Call, PluginError, refuse, tables, text, whole
from .rules import Table, of_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.netlink.nftables import Batch
    from ..firewall import Family
    from .request import Json
    from .rules import Change

_R = 8
_LOOPBACK = b"\x7f"


def add(call: Call) -> Json:
    """Lead ports to the addresses that the plugin before has given; its result is the result."""
    _conf(call)
    if not call.previous:
        raise PluginError(INVALID, "must be called as chained plugin")
    changes = _changes(call)
    if changes:
        _PORTS.add(changes, call.owner)
        _open_loopback(call)
    return call.previous


def delete(call: Call) -> None:
    """Lead them there no more."""
    _PORTS.remove(call.owner)


def check(call: Call) -> None:
    """See that every port leads there."""
    if not _PORTS.has(_changes(call)):
        raise PluginError(INVALID, f"a port of {call.container} is not led to it")


def collect(call: Call) -> None:
    """Take away the ports of those who were never deleted."""
    _conf(call)
    _PORTS.collect(call)


def status(call: Call) -> None:
    """See that the configuration can be kept."""
    _conf(call)


VERBS = {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": status}


def _conf(call: Call) -> None:
    refuse(call.config, "conditionsV4 conditionsV6 masqAll markMasqBit externalSetMarkChain")


def _changes(call: Call) -> list[Change]:
    """Return the elements of a container's ports."""
    try:
        own = [one.address for one in addresses(call.previous)]
    except ValueError as wrong:
        raise PluginError(INVALID, str(wrong)) from None
    found: list[Change] = []
    for mapping in tables(call.runtime, "portMappings"):
        host_ip, protocol = text(mapping, "hostIP"), (text(mapping, "protocol") or "tcp").lower()
        host_port, port = whole(mapping, "hostPort"), whole(mapping, "containerPort")
        if protocol not in NUMBERS or not 0 < host_port <= PORT_MAX or not 0 < port <= PORT_MAX:
            raise PluginError(INVALID, f"invalid port mapping: {host_port}:{port}/{protocol[:10]}")
        for address in own:
            family, data = of_address(address)
            try:
                _, bits = subnet.number(host_ip) if host_ip else (0, family.bits)
            except ValueError as wrong:
                raise PluginError(INVALID, str(wrong)) from None
            if bits != family.bits:
                continue
            at = b"" if host_ip in ("", "0.0.0.0", "::") else of_address(host_ip)[1]
            key = nft.fields(*([at] if at else []), bytes([NUMBERS[protocol]]), host_port.to_bytes(2, "big"))
            target = nft.fields(data, port.to_bytes(2, "big"))
            found.append((family.number, "ports" if at else "ports-anywhere", Element(key, data=target)))
            found.append((family.number, "hairpin", Element(nft.fields(data, data))))
    unique = {(number, name, one.key): (number, name, one) for number, name, one in found}
    return list(unique.values())


def _open_loopback(call: Call) -> None:
    """Let clients at 127.0.0.1 be led to the container's bridge; what would come from there is dropped."""
    with Rtnetlink() as route:
        for one in tables(call.previous, "interfaces"):
            link = route.link(text(one, "name")) if not text(one, "sandbox") and text(one, "name") else None
            if link is not None and link.kind == "bridge":
                links.write_sysctl(f"ipv4/conf/{link.name}/route_localnet", "1")


def _write(batch: Batch, family: Family) -> None:
    number, name = family.number, _PORTS.name
    keys = ["inet_proto", "inet_service"]
    data = [family.key, "inet_service"]
    batch.add_set(number, name, "ports", [family.key, *keys], data=data)
    batch.add_set(number, name, "ports-anywhere", keys, data=data)
    batch.add_set(number, name, "hairpin", [family.key, family.key])
    destination = nft.payload(nft.NETWORK_HEADER, family.destination, family.size, _R)
    port = [nft.meta(nft.L4PROTO, _R), nft.payload(nft.TRANSPORT_HEADER, 2, 2, _R + 1)]
    whole_key = [
        destination,
        nft.meta(nft.L4PROTO, _R + family.words),
        nft.payload(nft.TRANSPORT_HEADER, 2, 2, _R + family.words + 1),
    ]
    here = nft.local_destination(_R)
    translate = nft.nat(nft.DNAT, number, _R, _R + family.words)
    for chain, hook in (("dstnat", nft.PREROUTING), ("local", nft.OUTPUT)):
        batch.add_chain(number, name, chain, nft.Hook("nat", hook, -100))
        batch.add_rule(number, name, chain, [*here, *whole_key, nft.lookup("ports", _R, into=_R), translate])
        batch.add_rule(number, name, chain, [*here, *port, nft.lookup("ports-anywhere", _R, into=_R), translate])
    batch.add_chain(number, name, "srcnat", nft.Hook("nat", nft.POSTROUTING, 100))
    translated = [nft.conntrack(nft.CT_STATUS, _R), *nft.any_of(_R, nft.CT_DNAT)]
    pair = [
        nft.payload(nft.NETWORK_HEADER, family.source, family.size, _R),
        nft.payload(nft.NETWORK_HEADER, family.destination, family.size, _R + family.words),
    ]
    batch.add_rule(number, name, "srcnat", [*translated, *pair, nft.lookup("hairpin", _R), nft.masquerade()])
    if number == nft.IPV4:
        own = [nft.payload(nft.NETWORK_HEADER, family.source, 1, _R), nft.compare(_R, _LOOPBACK)]
        batch.add_rule(number, name, "srcnat", [*translated, *own, nft.masquerade()])
        # Nothing that comes by a link says it is 127.0.0.0/8, or wants to go there (CVE-2020-8558).
        batch.add_chain(number, name, "first", nft.Hook("filter", nft.PREROUTING, -300))
        stranger = [nft.meta(nft.IIFNAME, _R), nft.compare(_R, nft.interface("lo"), nft.NEQ)]
        for offset in (family.source, family.destination):
            martian = [nft.payload(nft.NETWORK_HEADER, offset, 1, _R), nft.compare(_R, _LOOPBACK)]
            batch.add_rule(number, name, "first", [*stranger, *martian, nft.verdict(nft.DROP)])


_PORTS = Table("orlop-cni-ports", _write, ("ports", "ports-anywhere", "hairpin"))
