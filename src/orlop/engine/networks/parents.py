"""Networks on a link of the machine's own, their parent: macvlan and ipvlan.

Their containers are on the cable itself. What they send passes no rule of this machine: they publish no ports, reach
no loopback of the machine's, and can't be restricted in what they reach.

A parent that is not there is made with the network's first container: "eth0.10" as a sub-interface for VLAN 10 of
eth0; for a network without one a dummy, whose containers reach one another alone. Invariant: what was made here has the
engine's alias (`network.footprint`), and nothing else is ever removed.
"""

from __future__ import annotations

import os

from ...linux.netlink import namespace, rtnetlink
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import links, subnet
from ...spec.errors import Conflict, Invalid, Unavailable
from .host import is_inhibited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...spec.network import Endpoint, Network, NetworkRequest, Pool
    from .host import Networks

MACVLAN, IPVLAN = "macvlan", "ipvlan"
DRIVERS = (MACVLAN, IPVLAN)
OPTION = "parent"
OPTION_MODE = {MACVLAN: "macvlan_mode", IPVLAN: "ipvlan_mode"}
OPTION_FLAG = "ipvlan_flag"
MODES = {MACVLAN: ("bridge", "private", "vepa", "passthru"), IPVLAN: tuple(rtnetlink.IPVLAN_MODES)}
OPTIONS = {driver: frozenset((OPTION, OPTION_MODE[driver], OPTION_FLAG)) for driver in DRIVERS}
VLAN_MAX = 4094
_DUMMY = {MACVLAN: "dm-", IPVLAN: "di-"}
_PASSTHRU = "passthru"


def check(driver: str, options: Mapping[str, str], subject: str) -> None:
    """Raise Invalid, in docker's words, for options that no network of this driver has."""
    chosen, default = options.get(OPTION_MODE[driver], MODES[driver][0]), MODES[driver][0]
    if chosen not in MODES[driver]:
        cause = f"requested {driver} mode '{chosen[:40]}' is not valid, '{default}' mode is the {driver} driver default"
        raise Invalid("create", subject, cause, hint=f"known are {', '.join(MODES[driver])}")
    flag = options.get(OPTION_FLAG, "bridge")
    if driver == IPVLAN and flag not in rtnetlink.IPVLAN_FLAGS:
        cause = f"requested ipvlan flag '{flag[:40]}' is not valid, 'bridge' is the ipvlan driver default"
        raise Invalid("create", subject, cause, hint=f"known are {', '.join(rtnetlink.IPVLAN_FLAGS)}")
    if options.get(OPTION) == "lo":
        cause = f"loopback interface is not a valid {driver} parent link"
        raise Invalid("create", subject, cause, hint="name a link that leads outside, such as -o parent=eth0")


def choose(networks: Networks, request: NetworkRequest, network_id: str, subject: str) -> str:
    """Return the name of a new network's parent. Raises Invalid, Conflict, Unavailable where there can't be one."""
    options, driver = request.options, request.driver
    name = options.get(OPTION, "")
    _refuse_shared(networks, request, name, subject)
    if name and networks.route.link(name) is None:
        _below(networks, name, subject)
    _try(driver, _kind(driver, options), subject)
    if not name:
        _try("dummy", rtnetlink.dummy(), subject)
    return name or _DUMMY[driver] + network_id[:12]


def is_alone(network: Network) -> bool:
    """Tell whether a network has no parent of the machine's: nothing leads out of it."""
    return network.driver in DRIVERS and not network.options.get(OPTION)


def is_machine(networks: Networks, endpoint: Endpoint) -> bool:
    """Tell whether an endpoint's gateway is this machine: not another router on the cable, or on the bridge."""
    network = networks.store.get(endpoint.network_id)
    if network is None or network.driver in DRIVERS:
        return False
    return not is_inhibited(network, endpoint.gateway or endpoint.gateway6)


def has_gateway(driver: str, options: Mapping[str, str]) -> bool:
    """Tell whether the way out of a network of this driver leads through a gateway: not by the link itself (l3)."""
    return driver != IPVLAN or options.get(OPTION_MODE[IPVLAN], "l2") == "l2"


def without_gateways(request: NetworkRequest, found: tuple[Pool, ...]) -> tuple[Pool, ...]:
    """Return subnets without the gateways that nobody has named, where none is needed."""
    if request.driver not in DRIVERS or has_gateway(request.driver, request.options):
        return found
    named = {pool.gateway for pool in request.pools}
    return tuple(pool if pool.gateway in named else pool.replace(gateway="") for pool in found)


def raise_(networks: Networks, network: Network) -> None:
    """Make a network's parent if it is not there. Raises OSError when the kernel refuses."""
    found = networks.route.link(network.link)
    if found is None:
        kind = [rtnetlink.dummy()]
        if not is_alone(network):
            below, vlan_id = _below(networks, network.link, network.subject)
            kind = [rtnetlink.vlan(vlan_id), rtnetlink.over(below)]
        note = networks.footprint.alias(network.name)
        found = links.make(networks.route, network.link, note, networks.footprint.fresh, *kind)
    elif found.is_up or not found.alias.startswith(networks.footprint.alias("")):
        return
    try:
        links.write_sysctl(f"ipv6/conf/{network.link}/accept_ra", "0")
        if not network.ipv6:
            links.write_sysctl(f"ipv6/conf/{network.link}/disable_ipv6", "1")
        networks.route.set_link(found.index, up=True)
    except BaseException:
        links.delete_link(networks.route, network.link)
        raise


def lower(networks: Networks, network: Network) -> None:
    """Remove the parent of a network that goes, if it was made here and no other network lies on it."""
    found = networks.route.link(network.link)
    shared = any(one.id != network.id for one in _on(networks, network.link))
    if found is not None and not shared and found.alias.startswith(networks.footprint.alias("")):
        links.delete_link(networks.route, network.link)


def taken(networks: Networks, network: Network) -> set[int]:
    """Return the addresses that the machine itself has on a network's parent: no container can have them."""
    found = networks.route.link(network.link) if network.driver in DRIVERS else None
    if found is None:
        return set()
    return {subnet.number(one.address)[0] for one in networks.route.addresses() if one.index == found.index}


def plug(networks: Networks, network: Network, endpoint: Endpoint, inside: Rtnetlink, netns: int) -> None:
    """Give a namespace a link of its own on a network's parent. Raises OSError."""
    wanted = network.options.get("com.docker.network.driver.mtu", "")
    settings = [rtnetlink.mtu(int(wanted))] if wanted.isdecimal() and int(wanted) else []
    kind = _kind(network.driver, network.options)
    links.plug_on(networks.route, inside, netns, endpoint, links.Place(network.link, kind, settings))


def _kind(driver: str, options: Mapping[str, str]) -> bytes:
    chosen = options.get(OPTION_MODE[driver], MODES[driver][0])
    if driver == MACVLAN:
        return rtnetlink.macvlan(chosen)
    return rtnetlink.ipvlan(chosen, options.get(OPTION_FLAG, "bridge"))


def _on(networks: Networks, parent: str) -> list[Network]:
    return [one for one in networks.store.all().values() if one.driver in DRIVERS and one.link == parent]


def _refuse_shared(networks: Networks, request: NetworkRequest, name: str, subject: str) -> None:
    """A link has one mode of ipvlan, for all that lies on it; of macvlan, passthru suffers nobody beside it."""
    chosen = request.options.get(OPTION_MODE[request.driver])
    for other in _on(networks, name) if name else ():
        alike = other.driver == request.driver
        passes = alike and _PASSTHRU in (chosen, other.options.get(OPTION_MODE[MACVLAN]))
        if passes or (alike and request.driver == IPVLAN):
            cause = f"network {other.name} is already using parent interface {name[:40]}"
            raise Conflict("create", subject, cause, hint="use that network, or another parent, such as a VLAN of it")


def _below(networks: Networks, name: str, subject: str) -> tuple[int, int]:
    """Return (the index of the link below a sub-interface, the VLAN), of "eth0.10". Raises Invalid, Unavailable."""
    link, dot, tail = name.partition(".")
    hint = "see the links of this machine with: ip link"
    if not dot or len(name) > links.NAME_LENGTH_MAX:
        cause = f"there is no link {name[:40]} on this machine"
        raise Unavailable("create", subject, cause, hint=f"{hint}; eth0.10 is made for VLAN 10 of eth0")
    if not (tail.isascii() and tail.isdecimal()):
        cause = f"unable to parse a valid vlan id from: {tail[:40]} (ex. eth0.10 for vlan 10)"
        raise Invalid("create", subject, cause, hint=f"use 1 to {VLAN_MAX}")
    if not 1 <= int(tail[:9]) <= VLAN_MAX:
        cause = f"vlan id must be between 1-{VLAN_MAX}, received: {tail[:40]}"
        raise Invalid("create", subject, cause, hint="name it as eth0.10")
    below = networks.route.link(link)
    if below is None:
        raise Unavailable("create", subject, f"-o parent interface was not found on the host: {link[:40]}", hint=hint)
    _try("8021q", rtnetlink.vlan(int(tail)), subject)
    return below.index, int(tail)


def _try(module: str, kind: bytes, subject: str) -> None:
    """Have the kernel make a link of a kind where nobody is. module: who brings it. Raises Unavailable."""

    def make() -> None:
        with Rtnetlink() as route:
            route.add_link("under", rtnetlink.bridge())
            under = route.link("under")
            assert under is not None
            needs = () if kind == rtnetlink.dummy() else (rtnetlink.over(under.index),)
            route.add_link("tried", kind, *needs)

    try:
        netns, _ = namespace.new(make)
    except OSError as failure:
        cause = f"the kernel can't make its links ({module}): {failure.strerror or failure}"
        raise Unavailable("create", subject, cause, hint=f"try: modprobe {module}") from None
    os.close(netns)
