"""What of a container's request concerns networks: checked before anything is made, in docker's words."""

from __future__ import annotations

from ...network import resolver, subnet
from ...network.dns.egress import ENTRIES_MAX, Allowed
from ...spec.errors import Invalid
from ...spec.network import SOURCES_MAX, EndpointRequest
from . import cni, egress, interfaces, links, parents, ports
from .attach import CONTAINER, HOST, JOINED, NONE
from .store import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ...spec.network import Network
    from ..engine import Engine

LINK_LENGTH_MAX = 255
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def check(engine: Engine, request: ContainerRequest, subject: str) -> tuple[str, ...]:
    """Raise Invalid or NotFound for a request that no network can fulfil; return warnings."""
    networks = engine.networks
    chosen = request.network
    shared = chosen in (NONE, HOST) or chosen.startswith(JOINED)
    is_default = chosen in ("", "default", DEFAULT)
    # A link of any other network is a name, which is looked for when it is asked for.
    links.check(engine, request.links, subject, there=shared or is_default)
    for wish in request.endpoints:
        links.check(engine, wish.links, subject, there=False)
    for text in request.exposed_ports:
        try:
            ports.parse_exposed(text)
        except ValueError as wrong:
            raise Invalid("create", subject, str(wrong), hint="write it as 80, 80/udp or 8000-8010") from None
    for entry in request.extra_hosts:
        _check_host(entry, subject)
    if request.egress not in ("", "allow", *egress.WATCHED) or (request.egress_allow and request.egress != "deny"):
        cause = f"invalid egress: {request.egress[:40]!r}" if request.egress else "--egress-allow needs --egress deny"
        raise Invalid("create", subject, cause, hint="use --egress deny with --egress-allow NAME:PORT or SUBNET:PORT")
    if len(request.egress_allow) > ENTRIES_MAX:
        cause = f"more than {ENTRIES_MAX} entries of --egress-allow"
        raise Invalid("create", subject, cause, hint="allow *.example.org or a subnet in the place of many")
    for text in request.egress_allow:
        try:
            Allowed(text)
        except ValueError as wrong:
            hint = "write it as api.example.org:443, 10.0.0.0/8 or [fd00::/8]:443"
            raise Invalid("create", subject, str(wrong), hint=hint) from None
    _check_host_access(request, subject)
    _check_dns(request, subject)
    if is_default:
        links.check_default(engine, request.links, subject)
    if shared:
        return _check_shared(request, subject)
    for reference in {chosen, *(wish.network for wish in request.endpoints)}:
        cni.adopt(engine, reference)
    for wish in request.endpoints:
        network = networks.store.find(wish.network)
        if network.driver in ("host", "null"):
            cause = "container cannot be connected to multiple networks with one of the networks in private mode"
            raise Invalid("create", subject, cause, hint=f"use --network {network.name} alone")
        check_wish(network, wish, subject)
    if not request.endpoints and chosen not in ("", "default"):
        check_wish(networks.store.find(chosen), EndpointRequest(network=chosen), subject)
    first, *others = [networks.store.find(name) for name in _names(request)]
    for network in (first, *others):
        egress.check(request, network, subject)
    for port in request.ports:
        if port.host_ip:
            _check_address(port.host_ip, "-p", subject)
        if len(port.sources) > SOURCES_MAX:
            raise Invalid("create", subject, f"more than {SOURCES_MAX} sources of a port", hint="give larger subnets")
        for source in port.sources:
            try:
                subnet.parse_source(source)
            except ValueError as wrong:
                raise Invalid("create", subject, str(wrong), hint="write it as from=10.0.0.0/8") from None
    if first.driver in parents.DRIVERS and not others and (request.ports or request.publish_all):
        return (
            f"Published ports are discarded: network {first.name} is one of {first.driver}, whose addresses "
            "others reach themselves",
        )
    return ()


def _names(request: ContainerRequest) -> tuple[str, ...]:
    chosen = DEFAULT if request.network in ("", "default") else request.network
    return tuple(wish.network for wish in request.endpoints) or (chosen,)


def _check_host_access(request: ContainerRequest, subject: str) -> None:
    if not request.host_access:
        return
    try:
        ranges = ports.merged(request.host_access)
    except ValueError as wrong:
        raise Invalid("create", subject, str(wrong), hint="write it as 5432, 53/udp or 8000-8010") from None
    count = len(request.egress_allow) + sum(last - first + 1 for first, last, _ in ranges)
    if request.egress == egress.DENY and count > ENTRIES_MAX:
        cause = f"with --egress deny, more than {ENTRIES_MAX} ports and entries of --host-access and --egress-allow"
        raise Invalid("create", subject, cause, hint="give fewer ports")


def check_wish(network: Network, wish: EndpointRequest, subject: str) -> None:
    """Raise Invalid for what an endpoint of this network can't have."""
    if network.config_only:
        cause = f"configuration network {network.name!r} cannot be used for containers"
        raise Invalid("connect", subject, cause, hint=f"make one from it: network create --config-from {network.name}")
    for address, bits in ((wish.ipv4, 32), (wish.ipv6, 128)):
        if not address:
            continue
        if _check_address(address, "--ip", subject) != bits:
            raise Invalid("connect", subject, f"invalid IPv{4 if bits == 32 else 6} address: {address}")
        if network.driver != cni.DRIVER and all(
            pool.auto for pool in network.pools if (":" in pool.subnet) == (bits == 128)
        ):
            cause = (
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
            raise Invalid("connect", subject, cause, hint="make the network with --subnet")
    if network.name == "bridge" and wish.aliases:
        cause = "network-scoped aliases are only supported for user-defined networks"
        raise Invalid("connect", subject, cause, hint="make one with: orlop network create NAME")
    _check_words(wish.aliases, subject)
    interfaces.check(network, wish, subject)
    if wish.mac_address and network.driver == parents.IPVLAN:
        cause = "ipvlan interfaces do not support custom mac address assignment"
        raise Invalid("connect", subject, cause, hint="leave --mac-address away: all of one parent have its own")
    if wish.mac_address:
        try:
            usual = subnet.usual_mac(wish.mac_address)
        except ValueError as wrong:
            raise Invalid("connect", subject, str(wrong), hint="write it as 02:42:0a:58:00:07") from None
        if usual == "00:00:00:00:00:00":
            raise Invalid("connect", subject, f"{usual} is no address of an interface", hint="choose another one")
        if int(usual[:2], 16) & 1:
            cause = f"{wish.mac_address} is a multicast address"
            raise Invalid("connect", subject, cause, hint="make the first byte even")


def _check_shared(request: ContainerRequest, subject: str) -> tuple[str, ...]:
    chosen = request.network
    joined = chosen.startswith(JOINED)
    if chosen == CONTAINER:
        cause = "invalid container format container:<name|id>"
        raise Invalid("create", subject, cause, hint="name the container: --network container:NAME")
    if chosen.startswith(CONTAINER) and request.hostname:
        cause = "conflicting options: hostname and the network mode"
        raise Invalid("create", subject, cause, hint="a container's network comes with its name", code="E0707")
    if joined and (request.ports or request.publish_all):
        cause = "conflicting options: port publishing and the container type network mode"
        raise Invalid("create", subject, cause, hint="publish ports of the container whose network it is", code="E0707")
    if joined and request.exposed_ports:
        cause = "conflicting options: port exposing and the container type network mode"
        raise Invalid("create", subject, cause, hint="expose ports of the container whose network it is", code="E0707")
    if request.egress in egress.WATCHED and chosen != NONE:
        cause = "conflicting options: --egress and a network that is not the container's own"
        raise Invalid("create", subject, cause, hint="restrict the container whose network it is", code="E0707")
    if chosen in (NONE, HOST) and len(resolver.for_every_name(request.dns)) < len(request.dns):
        cause = "a server for a domain needs the engine's resolver, which answers on networks of its own"
        raise Invalid("create", subject, cause, hint="leave --network out, or give --dns an address alone")
    if request.host_access:
        cause = "conflicting options: --host-access and the network mode"
        raise Invalid("create", subject, cause, hint="leave --network out, or name one with a gateway", code="E0707")
    if joined and request.extra_hosts:
        cause = "conflicting options: custom host-to-IP mapping and the network mode"
        raise Invalid("create", subject, cause, hint="a container's network comes with its /etc/hosts", code="E0707")
    if joined and request.dns:
        cause = "conflicting options: dns and the network mode"
        raise Invalid("create", subject, cause, hint="a container's network comes with its resolv.conf", code="E0707")
    if request.links and chosen != NONE:  # with none docker takes them: docker-compose 1 links a run to its service
        kind = "container type network" if joined else "host type networking"
        cause = f"conflicting options: {kind} can't be used with links"
        raise Invalid("create", subject, cause, hint="use a network of your own and names", code="E0707")
    if (request.ports or request.publish_all) and chosen == HOST:
        return ("Published ports are discarded when using host network mode",)
    return ()


def _check_host(entry: str, subject: str) -> None:
    name, colon, address = entry.partition("=" if "=" in entry else ":")
    bare = address.removeprefix("[").removesuffix("]")
    if not name or not colon or not _NAME.issuperset(name):
        cause = f"bad format for add-host: {entry[:100]!r}"
        raise Invalid("create", subject, cause, hint="write it as NAME:ADDRESS")
    if bare != "host-gateway":
        try:
            subnet.number(bare)
        except ValueError:
            cause = f"invalid IP address in add-host: {bare[:60]!r}"
            raise Invalid("create", subject, cause, hint="write it as NAME:ADDRESS") from None


def _check_address(address: str, flag: str, subject: str) -> int:
    try:
        return subnet.number(address)[1]
    except ValueError as wrong:
        raise Invalid("create", subject, str(wrong), hint=f"give {flag} an address such as 192.0.2.1") from None


def _check_dns(request: ContainerRequest, subject: str) -> None:
    for text in request.dns:
        try:
            resolver.parse_upstream(text)
        except ValueError as wrong:
            hint = "give --dns an address such as 192.0.2.1, or /corp.example/192.0.2.1 for names of a domain"
            raise Invalid("create", subject, str(wrong), hint=hint) from None
    _check_words((*request.dns_search, *request.dns_options), subject)
    for domain in request.dns_search:
        if domain != "." and not all(domain.removesuffix(".").split(".")):
            raise Invalid("create", subject, f"{domain[:100]} is not a valid domain", hint="write it as corp.example")


def _check_words(words: tuple[str, ...], subject: str) -> None:
    """Each becomes a word of a line of /etc/hosts or resolv.conf: nothing that begins another one (CVE-2022-4318)."""
    for word in words:
        if not word or len(word) > LINK_LENGTH_MAX or not word.isprintable() or any(char.isspace() for char in word):
            raise Invalid("create", subject, f"invalid name: {word[:100]!r}", hint="use letters, digits, . and -")
