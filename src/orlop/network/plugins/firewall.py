"""Isolation: with `ingressPolicy: same-bridge` nobody on another bridge begins a connection to a container.

The reference plugin also writes rules that let a container's packets through the machine's own iptables. A rule of ours
can't take back what others drop: where a chain of the machine drops forwarded packets by policy, ADD is an error.
"""

from __future__ import annotations

from ...linux.netlink import nftables as nft
from ..cni.result import addresses
from .request import INVALID, LATER, Call, PluginError, refuse, tables, text
from .rules import Table, of_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.netlink.nftables import Batch
    from ..firewall import Family
    from .request import Json
    from .rules import Change

OPEN, SAME_BRIDGE = "open", "same-bridge"
_R = 8


def add(call: Call) -> Json:
    """Isolate a container; the result of the plugin before is the result."""
    if not call.previous:
        raise PluginError(INVALID, "missing prevResult from earlier plugin")
    changes = _changes(call)
    status(call)
    if changes:
        _ISOLATED.add(changes, call.owner)
    return call.previous


def delete(call: Call) -> None:
    """Let it be."""
    _policy(call)
    _ISOLATED.remove(call.owner)


def check(call: Call) -> None:
    """See that it is isolated."""
    if not _ISOLATED.has(_changes(call)):
        raise PluginError(INVALID, f"{call.container} is not isolated")


def status(call: Call) -> None:
    """See that forwarded packets are not dropped by somebody's policy."""
    _policy(call)
    with nft.Nftables() as socket:
        for chain in socket.chains():
            if chain.hook == nft.FORWARD and chain.policy == nft.DROP:
                cause = f"chain {chain.name} of table {chain.table} drops forwarded packets by policy"
                raise PluginError(LATER, cause, "accept them there, or use the reference plugin with iptables")


def collect(call: Call) -> None:
    """Forget those who were never deleted."""
    _policy(call)
    _ISOLATED.collect(call)


VERBS = {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": status}


def _policy(call: Call) -> str:
    refuse(call.config, "iptablesAdminChainName firewalldZone")
    policy = text(call.config, "ingressPolicy") or OPEN
    if policy not in (OPEN, SAME_BRIDGE):
        raise PluginError(INVALID, f"unsupported ingressPolicy: {policy[:40]!r}", f"use {OPEN} or {SAME_BRIDGE}")
    return policy


def _changes(call: Call) -> list[Change]:
    if _policy(call) == OPEN:
        return []
    bridge = next((text(one, "name") for one in tables(call.previous, "interfaces") if not text(one, "sandbox")), "")
    try:
        own = [one.address for one in addresses(call.previous)]
    except ValueError as wrong:
        raise PluginError(INVALID, str(wrong)) from None
    found: list[Change] = []
    for address in own:
        family, data = of_address(address)
        found.append((family.number, "isolated", nft.Element(data)))
        found.append((family.number, "within", nft.Element(nft.fields(nft.interface(bridge), data))))
    return found


def _write(batch: Batch, family: Family) -> None:
    number, name = family.number, _ISOLATED.name
    batch.add_set(number, name, "isolated", [family.key])
    batch.add_set(number, name, "within", ["ifname", family.key])
    batch.add_chain(number, name, "forward", nft.Hook("filter", nft.FORWARD, -5))
    destination = nft.payload(nft.NETWORK_HEADER, family.destination, family.size, _R)
    begins = [nft.conntrack(nft.CT_STATE, _R), *nft.any_of(_R, nft.CT_NEW)]
    beside = nft.payload(nft.NETWORK_HEADER, family.destination, family.size, _R + 4)
    rule = [
        *begins,
        destination,
        nft.lookup("isolated", _R),
        nft.meta(nft.IIFKIND, _R),
        nft.compare(_R, nft.interface("bridge")),
        nft.meta(nft.IIFNAME, _R),
        beside,
        nft.lookup("within", _R, invert=True),
        nft.verdict(nft.DROP),
    ]
    batch.add_rule(number, name, "forward", rule)


_ISOLATED = Table("orlop-cni-firewall", _write, ("isolated", "within"))
