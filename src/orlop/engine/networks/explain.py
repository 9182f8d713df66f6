"""`net explain`: who can reach a container's port, and which rule decides. What can be tried is tried with a packet."""

from __future__ import annotations

import threading
from _thread import allocate_lock

from ...linux.netlink import namespace, nftrace
from ...linux.netlink import nftables as nft
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import firewall, probe, resolver, subnet
from ...spec.errors import Conflict, Invalid
from ...spec.network import ROUTED
from . import attach, reach
from .host import OPTION_ICC, as_routed
from .ports import LOOPBACK, wants_relay
from .reach import FAMILIES, NO, UNKNOWN, YES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...linux.netlink.nftrace import Step
    from ...network.probe import Outcome
    from ...spec.network import Attachment, Endpoint, Network, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

    Verdict = dict[str, str]
    Judgement = tuple[str, str]  # YES, NO or UNKNOWN, and why

MACHINE, OTHERS, SAME, ISLANDS = "this machine", "other machines", "same network", "other networks"
OUTSIDE = "the outside"
NO_ADDRESS = "this machine has no address that others could reach"
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
    verdicts = [*outside, *_from_containers(engine, places, (number, protocol), port)]
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
        return [_say(MACHINE, *_judge_local(engine, address, number, protocol)), _say(OTHERS, NO, why)]
    host_port = port.host_first + number - port.first
    # Both ways are tried at once: a firewall that drops lets each wait.
    told: list[Judgement] = []

    def knock() -> None:
        for where in _own_places(port, endpoint):
            own_port = number if where in (address, *(endpoint.routed if endpoint else ())) else host_port
            told.append(_judge_local(engine, where, own_port, protocol))

    local = threading.Thread(target=knock, name="knock")
    local.start()
    others = _others(engine, (number, protocol), port, endpoint)
    local.join()
    return [_say(MACHINE, *_together(told)), others]


def _together(told: Sequence[Judgement]) -> Judgement:
    """Return what of several ways to a port holds for it: who reaches it by one of them, reaches it."""
    for can in (YES, UNKNOWN, NO):
        found = list(dict.fromkeys(why for each, why in told if each == can))
        if found:
            closed = dict.fromkeys(why for each, why in told if each == NO and can != NO)
            return can, "; ".join([*found, *(f"but no by another way: {why}" for why in closed)])
    return UNKNOWN, "it could not be tried"


def _asked_for(port: Published) -> str:
    """Return the one address where a port is published, "" for every one."""
    return "" if port.host_ip in firewall.ANY else port.host_ip


def _own_places(port: Published, endpoint: Endpoint | None) -> list[str]:
    """Return where this machine itself reaches a published port."""
    addresses = _led_to(port, endpoint)
    own = [address for address, mode in addresses if mode == ROUTED]
    if len(own) == len(addresses) and own:
        return own
    if _asked_for(port):
        return [_asked_for(port)]
    found = []
    if port.host_ip == "::" and (endpoint is None or not endpoint.ipv6):
        found.append("::1")  # by a relay
    elif port.host_ip != "::" and (endpoint is None or endpoint.ipv4 or wants_relay(port, endpoint)):
        found.append(LOOPBACK)
    if not found or any(":" in address for address, _ in addresses):
        found.append(namespace.outside(lambda: _own_address(nft.IPV6)))  # no packet from ::1 leaves a machine
    return [one for one in found if one] + [one for one in own if one not in found]


def _led_to(port: Published, endpoint: Endpoint | None) -> list[tuple[str, str]]:
    """Return (address of the container, mode) of where a port leads; of a relay's too."""
    if endpoint is None:
        return []
    every = [one for one in (endpoint.ipv4, endpoint.ipv6) if one]
    fitting = [one for one in every if not port.host_ip or (":" in port.host_ip) == (":" in one)]
    return [(one, as_routed(port).mode if one in endpoint.routed else port.mode) for one in fitting or every]


def _others(engine: Engine, wanted: tuple[int, str], port: Published, endpoint: Endpoint | None) -> Verdict:
    """Say whether other machines reach a published port. wanted: the container's."""
    number, protocol = wanted
    host_port = port.host_first + number - port.first
    if resolver.is_loopback(port.host_ip):
        return _say(OTHERS, NO, f"it is published at {port.host_ip} alone")
    if port.sources:
        why = f"only from {', '.join(port.sources)}, if this machine's firewall lets them in"
        return _say(OTHERS, UNKNOWN, why)
    told = []
    for address, mode in _led_to(port, endpoint):
        family = nft.IPV6 if ":" in (port.host_ip or address) else nft.IPV4
        if mode == ROUTED:
            can, why = _tried(engine, address, number, protocol)
            told.append((can, f"{why}, if they have a route to it"))
            continue
        target = _asked_for(port) or namespace.outside(lambda family=family: _own_address(family))  # type: ignore[misc]
        told.append(_tried(engine, target, host_port, protocol))
    if endpoint is not None and not port.host_ip and not endpoint.ipv4 and wants_relay(port, endpoint):
        target = namespace.outside(lambda: _own_address(nft.IPV4))
        told += [_tried(engine, target, host_port, protocol)] if target else []
    if len(told) > 1:
        told = [one for one in told if one != (NO, NO_ADDRESS)] or told[:1]
    return _say(OTHERS, *_together(told))


def _tried(engine: Engine, target: str, port: int, protocol: str) -> Judgement:
    """Say whether other machines reach a port at an address, by a packet."""
    if namespace.has_left():
        why = f"at {_bracketed(target)}:{port}, if this machine's firewall lets them in: only root can try it"
        return UNKNOWN, why
    if not target:
        return NO, NO_ADDRESS
    if protocol == "sctp":
        return UNKNOWN, "a packet of SCTP is not sent to try it"
    try:
        with _probing:
            outcome = probe.probe(target, port, protocol, lambda step: _ends(engine, step))
    except OSError as failure:
        return UNKNOWN, f"no packet could be sent to try it: {failure.strerror or failure}"
    can, why = _judge(engine, outcome)
    return can, f"{why} (tried from {outcome.source} to {_bracketed(target)}:{port})"


def _judge_local(engine: Engine, address: str, port: int, protocol: str) -> Judgement:
    if protocol == "sctp":
        return UNKNOWN, f"at {_bracketed(address)}:{port}: a packet of SCTP is not sent to try it"
    answer = namespace.outside(lambda: probe.knock(address, port, protocol))
    if answer == probe.SILENT and protocol == "udp":
        rules = reach.leaving(engine)
        why = f"at {_bracketed(address)}:{port}"
        return (UNKNOWN, f"{why}, if {rules[0]} lets it out: nothing answers") if rules else (YES, why)
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


def _from_containers(
    engine: Engine, places: list[tuple[Network, Endpoint]], wanted: tuple[int, str], port: Published | None
) -> list[Verdict]:
    number, _ = wanted
    found = []
    for network, endpoint in places:
        who = f"{SAME} {network.name}"
        if network.options.get(OPTION_ICC, "true") != "true":
            found.append(_say(who, NO, f"the network has {OPTION_ICC}=false"))
            continue
        # With br_netfilter the rules for forwarded packets see what a bridge carries, too.
        rules = reach.bridged(engine)
        condition = (
            f", if {', '.join(rules)} lets it through (net.bridge.bridge-nf-call-iptables is 1)" if rules else ""
        )
        why = f"at {_bracketed(endpoint.ipv4 or endpoint.ipv6)}:{number}{condition}"
        found.append(_say(who, UNKNOWN if rules else YES, why))
    return [*found, _say(ISLANDS, *_from_islands(engine, places, port))]


def _from_islands(engine: Engine, places: list[tuple[Network, Endpoint]], port: Published | None) -> Judgement:
    if port is None:
        return NO, "networks are islands, and it is not published"
    if resolver.is_loopback(port.host_ip):
        return NO, f"it is published at {port.host_ip} alone"
    own = {network.name for network, _ in places}
    others = [found for found, name in engine.networks.network_subnets() if name not in own]
    allowed = [subnet.parse_source(one) for one in port.sources]
    if allowed and not any(one.overlaps(other) for one in allowed for other in others if one.bits == other.bits):
        return NO, f"it is published for {', '.join(port.sources)}, where none of them is"
    ruling = reach.ruling(engine)
    if allowed or ruling:
        return UNKNOWN, f"only at what this machine publishes, if {', '.join([*port.sources, *ruling])} lets them in"
    return YES, "only at what this machine publishes"


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
