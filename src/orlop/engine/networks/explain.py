"""`net explain`: who can reach a container's port, and which rule decides. What can be tried is tried with a packet."""

from __future__ import annotations

import threading
from _thread import allocate_lock

from ...linux.netlink import namespace, nftrace
from ...linux.netlink import nftables as nft
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import firewall, links, probe, resolver
from ...spec.errors import Conflict, Invalid
from ...spec.network import ROUTED
from . import attach, reach
from .host import OPTION_ICC
from .ports import LOOPBACK, wants_relay
from .reach import FAMILIES, NO, UNKNOWN, YES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.netlink.nftrace import Step
    from ...network.probe import Outcome
    from ...spec.network import Attachment, Endpoint, Network, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

    Verdict = dict[str, str]

MACHINE, OTHERS, SAME, ISLANDS = "this machine", "other machines", "same network", "other networks"
OUTSIDE = "the outside"
_probing = allocate_lock()


def explain(engine: Engine, reference: str, port: str) -> dict[str, object]:
    """Say who can reach a container's port: "80", "80/udp", or "" for each that is published.

    Raises NotFound, Invalid for what is no port, Conflict for a container that has no network of its own now.
    """
    record = engine.records.find(reference)
    held = engine.networks.attachments.get(record.id)
    if held is None:
        cause = f"it has no network of its own now: it does not run, or has --network {attach.mode(record)}"
        raise Conflict("explain", record.subject, cause, hint=f"see its state with: orlop ps -a -f name={record.name}")
    places = [place for one in held.endpoints if (place := _place(engine, one)) is not None]
    wanted = _parse(port, record)
    return {
        "Name": record.name,
        "Networks": [_network(*place) for place in places],
        "Outside": _say(OUTSIDE, *reach.outward(engine, record, held)),
        "Ports": [_port(engine, held, places, *one) for one in _asked(held, wanted)],
    }


def _parse(port: str, record: ContainerRecord) -> tuple[int, str] | None:
    number, _, protocol = port.partition("/")
    protocol = protocol or "tcp"
    if not port:
        return None
    if not (number.isascii() and number.isdecimal() and 0 < int(number[:6]) <= 65535) or protocol not in (
        "tcp",
        "udp",
        "sctp",
    ):
        raise Invalid("explain", record.subject, f"{port[:40]!r} is no port", hint="write it as 80 or 53/udp")
    return int(number), protocol


def _asked(held: Attachment, wanted: tuple[int, str] | None) -> list[tuple[int, str, Published | None]]:
    """Return (port of the container, protocol, how it is published) of what is to be explained."""
    if wanted is None:
        return [(port.first, port.protocol, port) for port in held.ports]
    number, protocol = wanted
    found = [port for port in held.ports if port.protocol == protocol and 0 <= number - port.first < port.count]
    return [(number, protocol, port) for port in found] or [(number, protocol, None)]


def _place(engine: Engine, endpoint: Endpoint) -> tuple[Network, Endpoint] | None:
    network = engine.networks.store.get(endpoint.network_id)
    return None if network is None else (network, endpoint)


def _network(network: Network, endpoint: Endpoint) -> dict[str, object]:
    return {
        "Name": network.name,
        "Addresses": [address for address in (endpoint.ipv4, endpoint.ipv6) if address],
        "Internal": network.internal,
    }


def _port(
    engine: Engine,
    held: Attachment,
    places: list[tuple[Network, Endpoint]],
    number: int,
    protocol: str,
    port: Published | None,
) -> dict[str, object]:
    where = next((place for place in places if place[0].id == held.gateway), places[0] if places else None)
    endpoint = where[1] if where is not None else None
    address = (endpoint.ipv4 or endpoint.ipv6) if endpoint is not None else ""
    outside = _from_outside(engine, (number, protocol), port, endpoint)
    verdicts = [*outside, *_from_containers(places, number, port)]
    host_port = port.host_first + number - port.first if port is not None else 0
    return {
        "Port": f"{number}/{protocol}",
        "Published": f"{_shown(port.host_ip, address)}:{host_port}" if port is not None else "",
        "Address": address,
        "From": verdicts,
    }


def _from_outside(
    engine: Engine, wanted: tuple[int, str], port: Published | None, endpoint: Endpoint | None
) -> list[Verdict]:
    number, protocol = wanted
    address = (endpoint.ipv4 or endpoint.ipv6) if endpoint is not None else ""
    if port is None:
        why = f"it is not published; chain forward of table ip {engine.networks.firewall.table} drops what is not"
        return [_say(MACHINE, YES, f"at {_bracketed(address)}:{number}"), _say(OTHERS, NO, why)]
    host_port = port.host_first + number - port.first
    own = address if port.mode == ROUTED else _asked_for(port) or _own_loopback(port, endpoint)
    # Both ways are tried at once: a firewall that drops lets each wait.
    told: list[tuple[str, str]] = []
    local = threading.Thread(target=lambda: told.append(_judge_local(own, host_port, protocol)), name="knock")
    local.start()
    others = _others(engine, (number, protocol), port, address)
    local.join()
    return [_say(MACHINE, *(told or [(UNKNOWN, "it could not be tried")])[0]), others]


def _asked_for(port: Published) -> str:
    """Return the one address where a port is published, "" for every one."""
    return "" if port.host_ip in firewall.ANY else port.host_ip


def _own_loopback(port: Published, endpoint: Endpoint | None) -> str:
    """Return where this machine itself reaches a port that is published at every address."""
    if port.host_ip == "::" and (endpoint is None or not endpoint.ipv6):
        return "::1"  # by a relay
    if port.host_ip != "::" and (endpoint is None or endpoint.ipv4 or wants_relay(port, endpoint)):
        return LOOPBACK
    return namespace.outside(lambda: _own_address(nft.IPV6))  # no packet from ::1 leaves a machine


def _others(engine: Engine, wanted: tuple[int, str], port: Published, address: str) -> Verdict:
    """Say whether other machines reach a published port. wanted: the container's; address: the container's."""
    number, protocol = wanted
    host_port = port.host_first + number - port.first
    if resolver.is_loopback(port.host_ip):
        return _say(OTHERS, NO, f"it is published at {port.host_ip} alone")
    if port.mode == ROUTED:
        return _say(OTHERS, YES, f"at {_bracketed(address)}:{number}, if they have a route to it")
    if port.sources:
        why = f"only from {', '.join(port.sources)}, if this machine's firewall lets them in"
        return _say(OTHERS, UNKNOWN, why)
    is_ipv6 = ":" in (port.host_ip or address)
    target = _asked_for(port) or namespace.outside(lambda: _own_address(nft.IPV6 if is_ipv6 else nft.IPV4))
    if namespace.has_left():
        why = f"at {_bracketed(target)}:{host_port}, if this machine's firewall lets them in: only root can try it"
        return _say(OTHERS, UNKNOWN, why)
    if not target:
        return _say(OTHERS, NO, "this machine has no address that others could reach")
    if protocol == "sctp":
        return _say(OTHERS, UNKNOWN, "a packet of SCTP is not sent to try it")
    try:
        with _probing:
            outcome = probe.probe(target, host_port, protocol, lambda step: _ends(engine, step))
    except OSError as failure:
        return _say(OTHERS, UNKNOWN, f"no packet could be sent to try it: {failure.strerror or failure}")
    can, why = _judge(engine, outcome)
    return _say(OTHERS, can, f"{why} (tried from {outcome.source} to {_bracketed(target)}:{host_port})")


def _judge_local(address: str, port: int, protocol: str) -> tuple[str, str]:
    if protocol != "tcp":
        return YES, f"at {_bracketed(address)}:{port}"
    answer = namespace.outside(lambda: probe.knock(address, port, protocol))
    if answer == probe.SILENT:
        return NO, f"nothing answers at {_bracketed(address)}:{port}"
    return YES, f"at {_bracketed(address)}:{port}" + (
        "" if answer == probe.ANSWERED else ", where nobody listens in the container"
    )


def _judge(engine: Engine, outcome: Outcome) -> tuple[str, str]:
    """Return (YES or NO, why) by what became of a packet from outside."""
    own = engine.networks.firewall.table
    if outcome.answer == probe.ANSWERED:
        return YES, "it answers"
    dropped = next((step for step in outcome.steps if _ends(engine, step)), None)
    if dropped is not None:
        return NO, _named(dropped)
    came_through = any(
        step.table == own and step.chain == "forward" and step.verdict == nft.ACCEPT for step in outcome.steps
    )
    if came_through:
        return YES, "it is let through, and nobody listens in the container"
    if links.read_sysctl("ipv4/conf/all/rp_filter") == "1":
        return NO, "net.ipv4.conf.all.rp_filter is 1; set it to 2 (loose)"
    if legacy := reach.legacy_tables():
        return NO, f"no rule of nftables drops it: see {', '.join(legacy)}"
    return NO, "it does not come through, and no rule says why"


def _ends(engine: Engine, step: Step) -> bool:
    """Tell whether a step drops the packet; the gate drops one whose copy goes on."""
    is_gate = step.table == engine.networks.firewall.table and step.chain == "gate"
    return step.verdict == nft.DROP and step.kind in (nftrace.RULE, nftrace.POLICY) and not is_gate


def _named(step: Step) -> str:
    place = f"chain {step.chain} of table {FAMILIES.get(step.family, 'netdev')} {step.table}"
    return (
        f"the policy of {place} drops it" if step.kind == nftrace.POLICY else f"rule {step.handle} of {place} drops it"
    )


def _from_containers(places: list[tuple[Network, Endpoint]], number: int, port: Published | None) -> list[Verdict]:
    found = []
    for network, endpoint in places:
        who = f"{SAME} {network.name}"
        if network.options.get(OPTION_ICC, "true") != "true":
            found.append(_say(who, NO, f"the network has {OPTION_ICC}=false"))
        else:
            found.append(_say(who, YES, f"at {_bracketed(endpoint.ipv4 or endpoint.ipv6)}:{number}"))
    why = "only at what this machine publishes" if port is not None else "networks are islands, and it is not published"
    found.append(_say(ISLANDS, YES if port is not None and not resolver.is_loopback(port.host_ip) else NO, why))
    return found


def _own_address(family: int) -> str:
    """Return an address of this machine that its neighbours know: the one of the way out, else any that is global."""
    with Rtnetlink() as route:
        ways = [way for way in route.routes(family) if way.is_way_out]
        out = min(ways, key=lambda way: way.metric).oif if ways else 0
        names = {link.index: link for link in route.links()}
        own = [one for one in route.addresses(family) if one.scope == 0 and not one.address.startswith("127.")]
        # Bridges of ours, and of others like us, are no way to anywhere.
        candidates = [one for one in own if one.index in names and names[one.index].kind != "bridge"] or own
        best = sorted(candidates, key=lambda one: one.index != out)
        return best[0].address if best else ""


def _shown(host_ip: str, address: str) -> str:
    """Return where something is published, as a client writes it. address: the container's."""
    everywhere = "::" if ":" in address else "0.0.0.0"
    return _bracketed(host_ip or everywhere)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _say(who: str, can: str, why: str) -> Verdict:
    return {"Who": who, "Can": can, "Why": why}
