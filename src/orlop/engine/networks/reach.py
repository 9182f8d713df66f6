"""From where a published port can be reached: who else has a word in it on this machine."""

from __future__ import annotations

from ...linux.netlink import nftables as nft
from ...network import links, resolver
from . import parents
from .attach import has_own_networks
from .egress import DENY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ...spec.network import Attachment, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

FAMILIES = {nft.INET: "inet", nft.IPV4: "ip", nft.IPV6: "ip6"}
YES, NO, UNKNOWN = "yes", "no", "perhaps"
_LEGACY = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
_NAMES_SHOWN_MAX = 4


def notes(engine: Engine, record: ContainerRecord) -> tuple[str, ...]:
    """Return one sentence for each thing about a container's network that is otherwise than one would think."""
    return (*_powers(record), *_ways(engine, record), *_unheard(engine, record))


def _unheard(engine: Engine, record: ContainerRecord) -> tuple[str, ...]:
    why = engine.networks.unheard.get(record.id)
    return (f"What it is denied is denied, and told nowhere: {why}.",) if why else ()


def _powers(record: ContainerRecord) -> tuple[str, ...]:
    """Say of a capability that it counts for nothing: network_namespaces(7), a namespace has an owner."""
    asked = {name.upper().removeprefix("CAP_") for name in record.request.cap_add}
    if not record.uid_mappings or "NET_ADMIN" not in asked or not has_own_networks(record):
        return ()
    return (
        "CAP_NET_ADMIN has no power over its network, which the engine made outside its user namespace: use --sysctl"
        " for settings, or --userns host.",
    )


def _ways(engine: Engine, record: ContainerRecord) -> tuple[str, ...]:
    """Return one sentence for each thing that stands between a container's ports and those who want to reach them.

    Nothing is said on a machine without a firewall of its own.
    """
    lacking = engine.networks.without.get(record.id)
    if lacking is not None:
        return (
            f"It runs without a network: the default one can't be set up: {lacking}. Name one to make this an error.",
        )
    held = engine.networks.attachments.get(record.id)
    if held is None:
        return ()
    if held.gateway and engine.networks.trouble:
        return (f"It does not reach the outside: {engine.networks.trouble}.",)
    incoming, forwarded = _firewalls(engine)
    explained = f"see orlop net explain {record.name}"
    found = list(_to_ports(held, incoming, forwarded, explained)) if held.ports else []
    if forwarded and is_routed(engine, held):
        found.append(
            f"It reaches the outside only if {', '.join(forwarded)} lets forwarded packets through, of which it drops"
            f" some: {explained}."
        )
    return tuple(found)


def _firewalls(engine: Engine) -> tuple[list[str], list[str]]:
    """Return (what has a word in incoming packets, what drops forwarded ones by policy) beside ours."""
    try:
        chains = list(foreign_chains(engine))
    except OSError as wrong:
        engine.log.write(f"the machine's rules can't be read: {wrong}")
        return [], []
    return (
        [_named(chain) for chain in chains if chain.hook in (nft.PREROUTING, nft.INPUT)] + legacy_tables(),
        [_named(chain) for chain in chains if chain.hook == nft.FORWARD],
    )


def ruling(engine: Engine) -> list[str]:
    """Return what else has a word in what comes to a published port."""
    return [name for names in _firewalls(engine) for name in names]


def bridged(engine: Engine) -> list[str]:
    """Return what may drop packets between containers of one network."""
    names = ("bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables")
    return _firewalls(engine)[1] if "1" in map(links.read_sysctl, names) else []


def leaving(engine: Engine) -> list[str]:
    """Return what may drop packets that this machine itself sends."""
    try:
        return [_named(chain) for chain in foreign_chains(engine, (nft.OUTPUT, nft.POSTROUTING))]
    except OSError:
        return []


def _to_ports(held: Attachment, incoming: list[str], forwarded: list[str], explained: str) -> Iterator[str]:
    shown = ", ".join(_port(port) for port in held.ports[:_NAMES_SHOWN_MAX]) + (
        ", ..." if len(held.ports) > _NAMES_SHOWN_MAX else ""
    )
    if incoming and _is_open(held):
        yield f"{shown} can be reached by those whom this machine's firewall lets in ({', '.join(incoming)})."
    if forwarded:
        yield (
            f"{shown} can be reached only if {', '.join(forwarded)} lets forwarded packets through, of which it drops"
            f" some: {explained}."
        )


def is_routed(engine: Engine, held: Attachment) -> bool:
    """Tell whether what a container sends to the outside is forwarded by this machine."""
    network = engine.networks.store.get(held.gateway) if held.gateway else None
    return network is not None and network.driver not in parents.DRIVERS and not network.internal


def outward(engine: Engine, record: ContainerRecord, held: Attachment) -> tuple[str, str]:
    """Return (yes, no or perhaps, why) of what a container sends to the outside, by the rules that there are."""
    if engine.networks.trouble and held.gateway:
        return NO, engine.networks.trouble
    if not is_routed(engine, held):
        if held.gateway:
            return YES, "by the link that its network lies on, past the rules of this machine"
        return NO, "none of its networks leads there"
    if record.request.egress == DENY:
        return UNKNOWN, "only what --egress-allow names"
    try:
        chains = [chain for chain in foreign_chains(engine) if chain.hook == nft.FORWARD]
    except OSError as wrong:
        return UNKNOWN, f"the machine's rules can't be read: {wrong.strerror}"
    dropping = [chain for chain in chains if chain.policy == nft.DROP]
    for chain in dropping:
        if not chain.rules:
            return NO, f"the policy of {_place(chain)} drops it"
    if dropping:
        return UNKNOWN, f"only what the rules of {_place(dropping[0])} accept: its policy drops the rest"
    if chains:
        return UNKNOWN, f"but for what a rule of {_place(chains[0])} drops"
    return YES, "no rule of this machine is in the way"


def _place(chain: nft.Chain) -> str:
    return f"chain {chain.name} of table {FAMILIES[chain.family]} {chain.table}"


def foreign_chains(
    engine: Engine, hooks: Collection[int] = (nft.PREROUTING, nft.INPUT, nft.FORWARD)
) -> Iterator[nft.Chain]:
    """Yield the chains of others at these hooks that may drop packets: by policy, or by a rule that they lead to.

    Raises OSError.
    """
    own = (engine.networks.footprint.table, engine.networks.footprint.egress_table)
    with nft.Nftables() as socket:
        rules: dict[tuple[int, str], list[nft.Rule]] = {}
        for rule in socket.rules():
            rules.setdefault((rule.family, rule.table), []).append(rule)
        for chain in socket.chains():
            is_others = chain.hook in hooks and chain.family in FAMILIES and chain.table not in own
            said = rules.get((chain.family, chain.table), [])
            if is_others and (chain.policy == nft.DROP or _drops(chain.name, said)):
                yield chain


def _drops(chain: str, rules: Iterable[nft.Rule]) -> bool:
    """Tell whether a chain, or one that it leads to, has a rule that drops or refuses."""
    seen, left = {chain}, [chain]
    while left:
        name = left.pop()
        for rule in rules:
            if rule.chain != name:
                continue
            if rule.drops:
                return True
            left += [one for one in rule.leads_to if one not in seen]
            seen.update(rule.leads_to)
    return False


def _named(chain: nft.Chain) -> str:
    return f"{FAMILIES[chain.family]} {chain.table} {chain.name}"


def legacy_tables() -> list[str]:
    """Return the filter tables of iptables-legacy, whose rules nobody else can see."""
    return [f"{name} of iptables-legacy" for name in _LEGACY if _has_filter(name)]


def _has_filter(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def _is_open(held: Attachment) -> bool:
    return any(not resolver.is_loopback(port.host_ip) for port in held.ports)


def _port(port: Published) -> str:
    last = f"-{port.host_first + port.count - 1}" if port.count > 1 else ""
    return f"{port.host_first}{last}/{port.protocol}"
