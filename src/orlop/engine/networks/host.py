"""This machine's side of the networks: one object with the sockets, the lock, and what has to be on the machine.

How everything of one engine is called is `network.footprint`.
"""

from __future__ import annotations

import functools
import os
import threading

from ...linux.netlink import namespace, rtnetlink
from ...linux.netlink.conntrack import Conntrack
from ...linux.netlink.nftables import IPV4, IPV6, Nftables
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import firewall, forwarding, links, pools, subnet, sweeper
from ...network.dns import client
from ...network.firewall import Bridge, Firewall, Forward, Gate
from ...network.footprint import Footprint
from ...spec.errors import Unavailable
from ...spec.network import ROUTED, Pool
from .attachments import Attachments
from .ports import loopback, needs_relay
from .store import DEFAULT, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable, Mapping

    from ...linux.netlink.rtnetlink import Link
    from ...spec.network import Attachment, Network, PortRequest, Published
    from .mtu import Follower

REMOVAL_S_MAX = 10.0
_GATE_ADDRESS = "02:42:6f:72:6c:70"  # a locally administered one; the links are a pair, nobody else sees it
OPTION_NAME = "com.docker.network.bridge.name"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_GATEWAY_MODE = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
OPTION_INHIBIT = "com.docker.network.bridge.inhibit_ipv4"  # its gateway is another router, which the user connects
OPTION_SOURCE = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}
GATEWAY_NAT, GATEWAY_ROUTED, GATEWAY_ISOLATED = "nat", "routed", "isolated"
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_HOST_IP = "com.docker.network.bridge.host_binding_ipv4"
TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}  # in lower case


class Networks:
    """What the engine has of networks. lock: held by whoever changes an attachment, a bridge or the rules."""

    def __init__(self, root: str, run: str, boot_id: str) -> None:
        os.makedirs(f"{root}/networks", 0o700, exist_ok=True)
        self.run = run
        self.boot_id = boot_id
        self.footprint = Footprint(run)
        self.store = Store(f"{root}/networks")
        self.attachments = Attachments(f"{root}/containers", boot_id)
        self.lock = threading.RLock()
        self.firewall = Firewall(self.footprint.table, self._known)
        self._route: Rtnetlink | None = None
        self._nft: Nftables | None = None
        self._bridges: dict[str, Bridge] = {}  # by network id: those whose rules are written
        self._gate: Gate | None = None
        self.resolver = client.Resolver(run, self._resolver_lost, self._attempted)
        self.attempted: Callable[[str, object], None] = lambda container_id, attempt: None
        self.resolver_lost: Callable[[], None] = lambda: None
        self.bequeath: Callable[[list[str]], None] = lambda argv: None  # has a command started if we are killed
        self._left = False
        self.uplink: Callable[[], str] = str  # connects this namespace with the outside; returns what is wrong, or ""
        self.uplink_process: Callable[[], tuple[int, int]] = lambda: (0, 0)  # (pid, start time) of what connects
        self.trouble = ""  # what the uplink said last
        self.reserved: dict[str, list[socket]] = {}  # of containers: what keeps their ports from other programs
        self.namespaces: dict[str, int] = {}  # of containers whose plugins want to see it at the end: descriptors
        self.partings: dict[str, threading.Thread] = {}  # of containers whose plugins are giving back what they had
        self.follower: Follower | None = None  # of the MTU, from the first container on
        self.starting: set[str] = set()  # containers between their endpoints and their process
        self._removals: list[threading.Thread] = []
        self.without: dict[str, str] = {}  # containers that run without a network that nobody named, and why
        self.unheard: dict[str, str] = {}  # containers of whose denied attempts nobody hears, and why
        self.last_given: dict[str, int] = {}  # by network id: the address that was given last
        self.last_held: dict[tuple[str, str], str] = {}  # by network id and a container's name: what it had last

    def _resolver_lost(self) -> None:
        self.resolver_lost()

    def _attempted(self, container_id: str, attempt: object) -> None:
        self.attempted(container_id, attempt)

    @property
    def route(self) -> Rtnetlink:
        """A socket in the machine's own namespace; used under the lock."""
        if self._route is None:
            self._route = Rtnetlink()
        return self._route

    @property
    def nft(self) -> Nftables:
        if self._nft is None:
            self._nft = Nftables()
        return self._nft

    def make_will(self) -> None:
        """Have a sweeper take over if this engine is killed: nobody else would close what others open. Idempotent.

        An ordinary user's rules lie in a namespace of the user's, where nobody flushes them.
        """
        if not namespace.has_left():
            self.bequeath(sweeper.command(self.run))

    # -- what is there ----------------------------------------------------------------------------------------------

    def link_name(self, network: Network) -> str:
        """Return the name of a network's bridge."""
        if network.link:
            return network.link
        return self.footprint.default_bridge if network.name == DEFAULT else f"br-{network.id[:12]}"

    def raised(self) -> list[str]:
        """Return the ids of the networks whose bridges are there."""
        return list(self._bridges)

    def mtu(self, network: Network) -> int:
        """Return the MTU of a network: the user's, else that of the way to the outside."""
        wanted = network.options.get(OPTION_MTU, "")
        return int(wanted) if wanted.isdecimal() and int(wanted) else links.uplink_mtu(self.route)

    def raise_bridge(self, network: Network) -> tuple[Network, int]:
        """Make a network's bridge and its rules if they are not there; return the network and the bridge's index.

        A subnet that the engine itself had chosen, and that a route leads to since, is changed while nobody is there.
        Raises OSError when the kernel refuses, Unavailable while the engine is stopping, as `Store.check`.
        """
        self.store.check()
        if self._left:
            raise Unavailable("set up", network.subject, "the engine is stopping", hint="try again")
        self.trouble = self.uplink()
        network = self._with_subnets(network)
        note = self.footprint.alias(network.name)
        plan = links.BridgePlan(
            self.link_name(network), _gateways(network), self.mtu(network), note, self.footprint.fresh
        )
        try:
            index = links.ensure_bridge(self.route, plan)
            self._enable_forwarding(network)
            known = network.id in self._bridges
            self._bridges[network.id] = bridge = self._bridge(network)
            if self._gate is None or not firewall.is_there(self.nft, self.footprint.table):
                self.rewrite()
            elif not known:
                self.firewall.add(self.nft, [bridge], [])
        except OSError:
            self._bridges.pop(network.id, None)
            raise
        return network, index

    def machine_address(self) -> str:
        """Return the machine's address on the default bridge, which need not be there yet."""
        with self.lock:
            return next((pool.gateway for pool in self._with_subnets(self.store.find(DEFAULT)).pools), "")

    def lower_bridge(self, network: Network) -> None:
        """Remove a network's bridge and its rules. The caller knows that nobody is on it."""
        bridge = self._bridges.pop(network.id, None)
        links.delete_bridge(self.route, self.link_name(network), self.footprint.alias(network.name))
        if bridge is not None and self._gate is not None:
            self.firewall.remove(self.nft, [bridge], [])

    def mend_gate(self, by_name: dict[str, Link]) -> bool:
        """Make the gate again, and the rules that name it, if it is not among these links; tell whether it was not."""
        if self._gate is None:
            return False
        leaving = by_name.get(self.footprint.gate[0])
        if leaving is not None and leaving.index == self._gate.out and leaving.is_up:
            return False
        self._gate = None
        self.rewrite()
        return True

    def rewrite(self) -> None:
        """Write the whole table of rules, from what is known. Raises OSError."""
        self.firewall.write(self.nft)

    def publish(self, forwards: list[Forward]) -> None:
        """Let ports in. They are in the attachments by now."""
        if forwards:
            self.firewall.add(self.nft, [], forwards)

    def withdraw(self, forwards: list[Forward]) -> None:
        """Close ports. They are in no attachment any more."""
        if forwards and self._gate is not None:
            self.firewall.remove(self.nft, [], forwards)

    def give_back_ports(self, container_id: str) -> None:
        """Let other programs have the ports of a container."""
        for one in self.reserved.pop(container_id, ()):
            one.close()

    def discard(self, attachment: Attachment) -> None:
        """Remove the links of a container in the background: the kernel takes 20 ms for each, and no end need wait.

        Most are gone by then: the host's end of a pair goes with the container's namespace. So do connections of UDP
        clients, which have no end by themselves.
        """
        names = [endpoint.link for endpoint in attachment.endpoints if endpoint.link]
        is_open = any(port.protocol == "udp" for port in attachment.ports)
        addresses = [one for end in attachment.endpoints for one in (end.ipv4, end.ipv6) if one and is_open]
        if names:
            work = functools.partial(_remove, names, addresses, namespace.current())
            thread = threading.Thread(target=work, name="links", daemon=True)
            self._removals = [one for one in self._removals if one.is_alive()]
            self._removals.append(thread)
            thread.start()

    def leave(self) -> None:
        """Take everything from the machine if no container needs it, and close the sockets.

        What containers that run on need, goes with the last of them: a sweeper is left behind. Raises OSError.
        """
        self.resolver.close()
        with self.lock:  # under which each of them is started
            self._left = True
            removals = [*self._removals, *self.partings.values()]
        if self.follower is not None:
            self.follower.close()
        for removal in removals:
            removal.join(REMOVAL_S_MAX)
        with self.lock:
            try:
                if self.attachments.all and self.footprint.is_used(self.route):
                    sweeper.start(self.run)
                elif self.attachments.all:
                    self.footprint.remove(self.route, self._tables())
                else:
                    self._clear()
            finally:
                for sock in (self._route, self._nft):
                    if sock is not None:
                        sock.close()
                self._route = self._nft = None

    def _clear(self) -> None:
        """Remove every link and rule of this engine. Raises OSError when something stays."""
        if (
            self._bridges
            or self._gate is not None
            or os.path.exists(self.footprint.forwarding_file)
            or (self.footprint.links(self.route))
        ):
            self._bridges.clear()
            self._gate = None
            self.footprint.remove(self.route, self._tables())

    def _tables(self) -> Nftables | None:
        """Return the socket that speaks of rules, None where the kernel has none."""
        try:
            return self.nft
        except OSError:
            return None

    def adopt(self) -> None:
        """Take up what containers of an earlier engine are on, after their attachments were read.

        Raises OSError; Internal, and leaves the rules that there are, while a network's record can't be read.
        """
        sweeper.end(self.run)
        if self.attachments.all:
            self.make_will()
        with self.lock:
            used = {one.network_id for held in self.attachments.all.values() for one in held.endpoints}
            for network in self.store.all().values():
                if network.driver == "bridge" and network.id in used:
                    self._bridges[network.id] = self._bridge(network)
            self.store.check()
            if self._bridges:
                self.rewrite()

    # -- subnets ----------------------------------------------------------------------------------------------------

    def taken_subnets(self, but: str = "") -> list[subnet.Subnet]:
        """Return every subnet that a route of the machine, or another network than `but`, has."""
        live = [found for found, _ in self.foreign_ways()]
        return live + [found for found, owner in self.network_subnets() if owner != but]

    def foreign_ways(self) -> list[tuple[subnet.Subnet, str]]:
        """Return (where it leads, the name of its link) of every route that is not a network's."""
        own = {self.link_name(network) for network in self.store.all().values() if network.driver == "bridge"}
        return [(found, name) for found, name in links.live_subnets(self.route) if name not in own]

    def network_subnets(self) -> list[tuple[subnet.Subnet, str]]:
        """Return (subnet, name) of every network."""
        return [
            (subnet.parse(pool.subnet), network.name)
            for network in self.store.all().values()
            for pool in network.pools
            if pool.subnet and not network.config_only
        ]

    def _with_subnets(self, network: Network) -> Network:
        pools_ = network.pools
        if not any(pool.auto and ":" not in pool.subnet for pool in pools_):
            return network
        if any(True for _ in self.attachments.on(network.id)) or self.route.link(self.link_name(network)):
            return network
        decided = []
        taken = self.taken_subnets(network.name)
        for pool in pools_:
            free = not pool.subnet or any(
                other.length >= pools.ROUTE_LENGTH_MIN and other.overlaps(subnet.parse(pool.subnet)) for other in taken
            )
            if pool.auto and free and ":" not in pool.subnet:
                first = pools.DEFAULT_BRIDGE if network.name == DEFAULT else ""
                found = pools.free_subnet(taken, first, self.store.pools())
                pool = Pool(subnet=str(found), gateway=pools.first_address(found), auto=True)
            decided.append(pool)
        changed = network.replace(pools=tuple(decided))
        if changed != network:
            self.store.save(changed)
        return changed

    # -- rules ------------------------------------------------------------------------------------------------------

    def _bridge(self, network: Network) -> Bridge:
        return Bridge(
            self.link_name(network),
            [subnet.parse(pool.subnet) for pool in network.pools if pool.subnet],
            internal=network.internal,
            icc=is_on(network, OPTION_ICC),
            masquerade=is_on(network, OPTION_MASQUERADE),
            routed=routed(network),
            sources={version: network.options.get(option, "") for version, option in OPTION_SOURCE.items()},
        )

    def _known(self) -> tuple[Gate, Iterable[Bridge], Iterable[Forward], Mapping[int, Iterable[str]]]:
        forwards = [one for held in self.attachments.all.values() for one in forwards_of(held)]
        if self._gate is None:
            self._gate = self._make_gate()
        return self._gate, self._bridges.values(), forwards, self.footprint.closed()

    def _make_gate(self) -> Gate:
        out, inner = self.footprint.gate
        if self.route.link(out) is None:
            self.route.add_link(out, rtnetlink.veth(inner, rtnetlink.address(_GATE_ADDRESS)))
        leaving, coming = self.route.link(out), self.route.link(inner)
        assert leaving is not None
        assert coming is not None
        # What comes through was routed before; its source may be anything, an address of this machine too. Of the two
        # values of rp_filter, all links' and the link's own, the higher one counts: loose, and not what Red Hat sets.
        links.write_sysctl(f"ipv4/conf/{inner}/rp_filter", "2")
        links.write_sysctl(f"ipv4/conf/{inner}/accept_local", "1")
        for name in (out, inner):
            links.write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
            links.write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
        quiet = rtnetlink.address_generation(rtnetlink.ADDR_GEN_MODE_NONE)
        for link in (coming, leaving):
            self.route.set_link(link.index, quiet, rtnetlink.mtu(65535), up=True)
        # A link without an address takes nothing at all where rp_filter is on (no_addr, net/ipv4/fib_frontend.c).
        self.route.add_address(coming.index, firewall.GATE_ADDRESS, 32, scope=rtnetlink.SCOPE_LINK)
        for family in (IPV4, IPV6):
            far = firewall.GATEWAYS[family]
            try:
                self.route.add_neighbour(leaving.index, far, _GATE_ADDRESS)
                if family == IPV6:
                    self.route.add_route((far, 128), rtnetlink.Hop(oif=leaving.index))
            except OSError:
                if family == IPV4:
                    raise  # without IPv6 there is no neighbour there, and nothing that would come to it
        return Gate(leaving.index, inner)

    def _enable_forwarding(self, network: Network) -> None:
        wanted = forwarding.missing([version for version, there in ((4, network.ipv4), (6, network.ipv6)) if there])
        if wanted:
            # With the rules that keep the rest of this machine from being a router.
            others = self.footprint.others(self.route)
            forwarding.switch_on(self.footprint.forwarding_file, wanted, others, self.rewrite)


def _remove(names: list[str], addresses: list[str], netns: int) -> None:
    try:
        if addresses:
            with namespace.inside(netns, Conntrack) as tracker:
                for address in addresses:
                    tracker.forget(address)
        with namespace.inside(netns, Rtnetlink) as route:
            for name in names:
                links.delete_link(route, name)
    except OSError:
        pass  # what is left goes with its namespace, or with the engine
    finally:
        os.close(netns)


def is_on(network: Network, option: str, default: str = "true") -> bool:
    """Tell what one of docker's options says that is true, or the default, where nobody says anything."""
    return TRUTHS.get(network.options.get(option, default).lower(), False)


def is_inhibited(network: Network, address: str) -> bool:
    """Tell whether a gateway is not to be an address of this machine's."""
    return ":" not in address and is_on(network, OPTION_INHIBIT, "false")


def gateway_mode(network: Network, version: int) -> str:
    """Return docker's gateway mode of IPv4 or IPv6 in a network."""
    return network.options.get(OPTION_GATEWAY_MODE[version], "") or GATEWAY_NAT


def routed(network: Network) -> frozenset[int]:
    """Return the versions of IP whose packets leave a network as they are, and whose ports are the containers' own."""
    return frozenset(version for version in OPTION_GATEWAY_MODE if gateway_mode(network, version) == GATEWAY_ROUTED)


def as_published(network: Network, wanted: Iterable[PortRequest]) -> list[PortRequest]:
    """Return what is to be published in a network: where all that it has is routed, no port of the machine is used.

    What says itself how it is published, or to whom, is published as it says.
    """
    own = {version for version, there in ((4, network.ipv4), (6, network.ipv6)) if there}
    if not own <= routed(network):
        return list(wanted)
    plain = {"mode": ROUTED, "host_ip": "", "host_first": 0, "host_last": 0}
    return [port if port.mode or port.sources else port.replace(**plain) for port in wanted]


def forwards_of(held: Attachment) -> list[Forward]:
    """Return the forwards of what a container publishes by rules, for each family that its network has."""
    endpoint = next((one for one in held.endpoints if one.network_id == held.gateway), None)
    if endpoint is None or endpoint.capabilities:
        return []  # plugins publish by themselves
    return [
        Forward(as_routed(port) if address in endpoint.routed else port, address)
        for port in held.ports
        for address in (endpoint.ipv4, endpoint.ipv6)
        if address
        and not needs_relay(port, endpoint)
        and (not port.host_ip or (":" in port.host_ip) == (":" in address))
    ] + [Forward(port, loopback(endpoint)) for port in held.host_access]


def as_routed(port: Published) -> Published:
    """Return a port as it is published of an address that is routed."""
    return port if port.mode or port.sources else port.replace(mode=ROUTED, host_first=port.first)


def _gateways(network: Network) -> list[tuple[str, int]]:
    found = []
    for pool in network.pools:
        is_isolated = gateway_mode(network, 6 if ":" in pool.subnet else 4) == GATEWAY_ISOLATED
        if pool.gateway and not is_isolated and not is_inhibited(network, pool.gateway):
            found.append((pool.gateway, subnet.parse(pool.subnet).length))
    return found
