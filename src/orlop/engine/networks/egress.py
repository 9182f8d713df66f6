"""What containers try to reach outside: what one with `--egress learn` has reached, what one with `deny` was denied.

The resolver writes it down (network.dns.attempts); here it is read, and told as an event while an engine is there.
"""

from __future__ import annotations

from ...linux.netlink import namespace
from ...linux.netlink.nftables import Nftables
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import firewall
from ...network.dns import attempts as kept
from ...spec.errors import Invalid, OrlopError
from ...spec.network import Attempt
from .. import events
from . import cni, parents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ...spec.network import Attachment, Network
    from ..engine import Engine

DENY, LEARN = "deny", "learn"
WATCHED = (DENY, LEARN)
FILE_BYTES_MAX = 4 << 20
_ROUTED_PLUGINS = frozenset(("bridge", "ptp", "orlop-cni-bridge"))  # whose packets this machine forwards


def check(request: ContainerRequest, network: Network, subject: str) -> None:
    """Raise Invalid for a container that is to be watched in a network whose packets pass no rule of this machine."""
    if request.egress not in WATCHED:
        return
    kind = network.driver
    if kind == cni.DRIVER:
        kind = cni.first_plugin(network)
    if kind in parents.DRIVERS or (network.driver == cni.DRIVER and kind not in _ROUTED_PLUGINS):
        cause = f"--egress {request.egress} can't hold in network {network.name}: what {kind} sends passes no rule here"
        raise Invalid("connect", subject, cause, hint="use a network of the driver bridge")


def path(engine: Engine, container_id: str) -> str:
    """Return where a container's attempts are kept."""
    return f"{engine.records.path(container_id)}/{kept.FILE}"


def attempts(engine: Engine, reference: str) -> dict[str, object]:
    """Return what a container has reached and was denied, each with its --egress-allow. Raises NotFound."""
    record = engine.records.find(reference)
    try:
        with open(path(engine, record.id), "rb", buffering=0) as file:
            found = kept.read(file.read(FILE_BYTES_MAX))
    except FileNotFoundError:
        found = []
    return {
        "Learned": _unique([one for one in found if one.verdict == kept.LEARNED]),
        "Denied": _unique([one for one in found if one.verdict == kept.DENIED]),
    }


def told(engine: Engine, container_id: str, attempt: object) -> None:
    """Tell an attempt that was denied as an event."""
    try:
        one = Attempt.from_json(attempt, "an attempt")
        if one.verdict == kept.DENIED:
            record = engine.records.load(container_id)
            attributes = {"to": allowing(one), "name": one.name, "address": one.address}
            events.publish_container(engine, record, "egress_denied", {k: v for k, v in attributes.items() if v})
    except OrlopError:
        pass  # the container is gone, and with it who would want to know


def ends(attachment: Attachment, netns: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return the machine's ends of a container's links, each with the addresses that the container has there.

    netns: the container's namespace; plugins do not say where they lead to.
    """
    found = []
    with Rtnetlink() as route:
        for one in attachment.endpoints:
            link = one.link
            if not link:
                with namespace.inside(netns, Rtnetlink) as inside:
                    own = inside.link(one.interface)
                link = route.link_at(own.peer).name if own is not None and own.peer else ""
            elif route.link(link) is None:
                link = ""  # not there yet, or any more
            found.append((link, tuple(address for address in (one.ipv4, one.ipv6) if address)))
    return found


def settle(engine: Engine) -> None:
    """Have nobody restricted but who runs: one that was killed has left others, whose addresses are given again."""
    networks = engine.networks
    watched = []
    for container_id, attachment in list(networks.attachments.all.items()):
        try:
            if engine.records.load(container_id).request.egress in WATCHED:
                watched += [address for one in attachment.endpoints for address in (one.ipv4, one.ipv6) if address]
        except OrlopError:
            continue
    try:
        if watched:
            networks.resolver.settle(watched)
        else:
            with Nftables() as nft:
                firewall.forget(nft, networks.footprint.egress_table)
    except (OrlopError, OSError) as wrong:
        engine.log.write(f"what an earlier resolver has closed is not opened: {wrong}")


def listen(engine: Engine) -> None:
    """Hear of what containers try that an earlier engine has started."""
    for container_id in engine.networks.attachments.all:
        try:
            if engine.records.load(container_id).request.egress in WATCHED:
                engine.networks.resolver.listen()
                return
        except OrlopError:
            continue


def allowing(one: Attempt) -> str:
    """Return the --egress-allow that lets an attempt through: by name where one is known."""
    host = one.name or (f"[{one.address}]" if ":" in one.address else one.address)
    if one.port:
        return f"{host}:{one.port}/{one.protocol}"
    if one.verdict == kept.LEARNED and not one.address:
        return f"{host}/dns"
    return f"{host}/icmp" if one.protocol == "icmp" else host


def _unique(found: list[Attempt]) -> list[dict[str, object]]:
    reached = {one.name for one in found if one.address}  # whose entries let it be asked for, too
    by_entry = {allowing(one): one for one in reversed(found) if one.address or one.name not in reached}
    return [
        {"Allow": entry, "Name": one.name, "Address": one.address, "Port": one.port, "Protocol": one.protocol}
        for entry, one in sorted(by_entry.items())
    ]
