"""Which ports of the machine a container gets. Decided under the networks' lock, so that no two get the same."""

from __future__ import annotations

import errno

from ...linux.netlink import namespace
from ...network import firewall, hostports
from ...spec.errors import Conflict, Invalid
from ...spec.network import INWARD, NAT, PORT_MAX, ROUTED, PortRequest, Published

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable

    from ...spec.container import ContainerRequest
    from ...spec.network import Endpoint
    from ..containers.record import ContainerRecord

    Taken = dict[tuple[str, int], list[hostports.Bound]]

LOOPBACK = "127.0.0.1"
PORTS_MAX = 65536  # of one container, all ranges together
RESERVED_MAX = 256  # of one container: a socket each, and for IPv6 another


def wanted(request: ContainerRequest, exposed: Iterable[str]) -> list[PortRequest]:
    """Return what is to be published: -p, and with -P every exposed port ("80/tcp", "8000-8010/udp") that -p leaves.

    Raises ValueError for an exposed port that is none.
    """
    asked = list(request.ports)
    if request.publish_all:
        covered = {(port.protocol, number) for port in asked for number in range(port.first, port.last + 1)}
        for text in exposed:
            first, last, protocol = parse_exposed(text)
            for number in range(first, last + 1):
                if (protocol, number) not in covered:
                    covered.add((protocol, number))
                    asked.append(PortRequest(first=number, last=number, protocol=protocol))
    return asked


def parse_exposed(text: str) -> tuple[int, int, str]:
    """Return (first, last, protocol) of "80", "80/udp", "8000-8010/tcp". Raises ValueError."""
    ports, _, protocol = text.partition("/")
    low, dash, high = ports.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()) or len(low) > 5 or len(high) > 5:
        raise ValueError(f"invalid containerPort: {text[:40]}")
    found = PortRequest(first=int(low), last=int(high or low), protocol=protocol or "tcp")
    return found.first, found.last, found.protocol


def exposed(record: ContainerRecord) -> list[str]:
    """Return the ports that a container exposes, "80/tcp": the image's, --expose's, and the published ones."""
    names = []
    for text in record.config.exposed_ports:
        first, last, protocol = parse_exposed(text)
        names += [f"{number}/{protocol}" for number in range(first, last + 1)]
    for port in record.request.ports:
        names += [f"{number}/{port.protocol}" for number in range(port.first, port.last + 1)]
    return list(dict.fromkeys(names))


def merged(texts: Iterable[str]) -> list[tuple[int, int, str]]:
    """Return (first, last, protocol) of entries of --host-access, without overlaps. Raises ValueError."""
    found: list[tuple[int, int, str]] = []
    for protocol, first, last in sorted((protocol, first, last) for first, last, protocol in map(parse_exposed, texts)):
        if protocol not in ("tcp", "udp"):
            raise ValueError(f"invalid proto: {protocol}")
        if found and found[-1][2] == protocol and first <= found[-1][1] + 1:
            first, last = found[-1][0], max(last, found.pop()[1])
        found.append((first, last, protocol))
    return found


def host_access(wanted: Iterable[str], endpoint: Endpoint | None) -> tuple[Published, ...]:
    """Return what a container reaches of the machine's loopback. endpoint: of its gateway; None, or one without IPv4,
    leads nowhere. Raises ValueError."""
    if endpoint is None or not endpoint.ipv4 or not endpoint.gateway:
        return ()
    return tuple(
        Published(
            host_ip=endpoint.gateway,
            host_first=first,
            first=first,
            count=last - first + 1,
            protocol=protocol,
            mode=INWARD,
            sources=(endpoint.ipv4,),
        )
        for first, last, protocol in merged(wanted)
    )


def loopback(endpoint: Endpoint) -> str:
    """Return the loopback address that --host-access leads a container to, in the namespace of its bridge.

    An ordinary user's bridges are not in the machine's: there a relay listens, for each container at an address of its
    own, made of the container's (`relays`).
    """
    return "127." + endpoint.ipv4.partition(".")[2] if namespace.has_left() else LOOPBACK


def allocate(
    requests: Iterable[PortRequest], held: Iterable[Published], host_ip: str, subject: str
) -> tuple[Published, ...]:
    """Return the ports that are published for these requests.

    held: what containers have already; host_ip: the network's, for requests that name none.
    Raises Conflict, naming who has a port, and Invalid for too many.
    """
    requests = list(requests)
    if not requests:
        return ()
    if sum(request.last - request.first + 1 for request in requests) > PORTS_MAX:
        raise Invalid("start", subject, f"it publishes more than {PORTS_MAX} ports", hint="publish smaller ranges")
    taken = namespace.outside(hostports.bound)
    published = list(held)
    before = len(published)
    for request in requests:
        published.append(_choose(request, request.host_ip or host_ip, published, taken, subject))
    return tuple(published[before:])


def needs_relay(port: Published, endpoint: Endpoint) -> bool:
    """Tell whether no rule leads from where a port is published to the container. endpoint: its place in the network.

    The kernel lets no packet of ::1 out of the machine, and translates from one family to the other nowhere.
    """
    if not port.host_ip or port.mode == ROUTED:
        return False
    own = endpoint.ipv6 if ":" in port.host_ip else endpoint.ipv4
    return port.host_ip == "::1" or not own


def wants_relay(port: Published, endpoint: Endpoint) -> bool:
    """Tell whether a relay leads to the container from some address where a port is published: it leads from every one
    to a container without IPv4, where rules lead from IPv6 that is not ::1."""
    if needs_relay(port, endpoint):
        return True
    is_everywhere = not port.host_ip and port.mode not in (ROUTED, NAT)
    return is_everywhere and not endpoint.ipv4 and port.protocol != "sctp" and port.count <= RESERVED_MAX


def reserve(published: Iterable[Published], subject: str) -> list[socket]:
    """Return sockets that keep what is published from other programs, as long as they are open; of large ranges none.

    Raises Conflict for a port that another program has taken meanwhile, Invalid for an address that is not ours.
    """
    made: list[socket] = []
    published = [port for port in published if port.mode != ROUTED]
    if sum(port.count for port in published) > RESERVED_MAX:
        return made
    low, high = hostports.local_range()
    for port in published:
        for number in range(port.host_first, port.host_first + port.count):
            try:
                made += hostports.reserve(port.host_ip, number, port.protocol)
            except OSError as failure:
                if failure.errno == errno.EADDRINUSE and low <= number <= high:
                    continue  # the local end of somebody's connection: nobody listens there (`allocate`)
                for one in made:
                    one.close()
                if failure.errno == errno.EADDRNOTAVAIL:
                    cause = f"failed to bind host port {port.host_ip}:{number}: cannot assign requested address"
                    raise Invalid(
                        "start", subject, cause, hint="publish at an address of this machine", code="E0702"
                    ) from None
                raise _refused(
                    port, f"address already in use: port {number} is held by another program", subject
                ) from None
    return made


def _choose(request: PortRequest, host_ip: str, held: list[Published], taken: Taken, subject: str) -> Published:
    address = "" if host_ip in firewall.ANY and not request.host_ip else host_ip
    count = request.last - request.first + 1

    def at(host_first: int) -> Published:
        return Published(
            host_ip=address,
            host_first=host_first,
            first=request.first,
            count=count,
            protocol=request.protocol,
            mode=request.mode,
            sources=request.sources,
        )

    if request.mode == ROUTED:
        return at(request.first)

    if request.host_first and request.host_last - request.host_first + 1 == count:
        found = at(request.host_first)
        if why := _in_the_way(found, held, taken):
            raise _refused(found, why, subject)
        return found
    low, high = (
        (request.host_first, request.host_last) if request.host_first else namespace.outside(hostports.local_range)
    )
    for host_first in range(low, min(high, PORT_MAX) - count + 2):
        found = at(host_first)
        if not _in_the_way(found, held, taken):
            return found
    hint = "publish to other ports"
    raise Conflict(
        "start", subject, f"all ports of {low}-{high}/{request.protocol} are allocated", hint=hint, code="E0703"
    )


def _in_the_way(wanted: Published, held: Iterable[Published], taken: Taken) -> str:
    """Return who has a port of these, "" when they are free."""
    for other in held:
        if (
            other.protocol == wanted.protocol
            and ROUTED not in (other.mode, wanted.mode)
            and _same_address(other.host_ip, wanted.host_ip)
            and other.host_first < wanted.host_first + wanted.count
            and wanted.host_first < other.host_first + other.count
        ):
            return "port is already allocated"
    for (protocol, port), sockets in taken.items():
        if protocol == wanted.protocol and wanted.host_first <= port < wanted.host_first + wanted.count:
            for one in sockets:
                if one.takes(wanted.host_ip):
                    who = hostports.holder(one.inode)
                    return f"address already in use: port {port} is held by {who or 'another program'}"
    return ""


def _same_address(one: str, other: str) -> bool:
    if not one or not other:
        return True
    return (":" in one) == (":" in other) and (one == other or one in firewall.ANY or other in firewall.ANY)


def _refused(wanted: Published, why: str, subject: str) -> Conflict:
    shown = f"[{wanted.host_ip}]" if ":" in wanted.host_ip else wanted.host_ip or "0.0.0.0"
    last = f"-{wanted.host_first + wanted.count - 1}" if wanted.count > 1 else ""
    where = f"{shown}:{wanted.host_first}{last}"
    if why.startswith("port is already"):
        cause = f"Bind for {where} failed: {why}"
        return Conflict("start", subject, cause, hint="see which container has it with: orlop ps", code="E0702")
    cause = f"failed to bind host port {where}/{wanted.protocol}: {why}"
    return Conflict("start", subject, cause, hint="end that program, or publish to another port", code="E0702")
