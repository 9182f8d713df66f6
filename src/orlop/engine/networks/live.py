"""Published ports of a container that was made already: added and taken away, at once where it runs.

    with the container's lock: decide -> with the networks' lock: endpoints.json -> relay, rules -> container.json

Invariant 2 of the package holds here too: what is held is on disk before a rule leads to it, and until none does.
A connection that is there stays when its port is taken away, as with a firewall; flows of UDP, which have no end by
themselves, are forgotten.
"""

from __future__ import annotations

from contextlib import ExitStack

from ...linux.netlink import namespace
from ...linux.netlink.conntrack import Conntrack
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable, Unsupported
from .. import events
from ..containers.record import disk_trouble_told
from . import attach, ports, relays
from .cni import DRIVER as CNI
from .host import OPTION_HOST_IP, as_published, forwards_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.network import Attachment, Endpoint, PortRequest, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

_VERB = "change the ports of"


def change(engine: Engine, reference: str, add: tuple[PortRequest, ...], remove: tuple[str, ...]) -> None:
    """Publish more ports of a container and others no longer, all of it or nothing.

    remove: ports of the container as they were published ("80", "53/udp", "8000-8010"). Raises NotFound, Conflict for a
    port of the host that is taken, Invalid, Unsupported for a network of plugins, Unavailable when the kernel refuses.
    """
    record = engine.records.find(reference)
    with engine.locks.hold(record.id), ExitStack() as undo:
        record = engine.records.load(record.id)
        if not attach.has_own_networks(record):
            cause = f"it has no network of its own (--network {attach.mode(record)})"
            raise Invalid(_VERB, record.subject, cause, hint="make it anew in a network: orlop show-run tells how")
        gone = _found(record, remove)
        kept = tuple(one for one in record.request.ports if one not in gone)
        changed = record.replace(request=record.request.replace(ports=(*kept, *add)))
        held = engine.networks.attachments.get(record.id)
        with disk_trouble_told(_VERB, record.subject):
            if held is not None and engine.observe(record.id).lives:
                after = _applied(engine, record, held, add, gone)
                undo.callback(_undo, engine, record, after, held)
            engine.records.save(changed)
            undo.pop_all()
    events.publish_container(engine, changed, "update")


def _undo(engine: Engine, record: ContainerRecord, after: Attachment, held: Attachment) -> None:
    endpoint = next(one for one in held.endpoints if one.network_id == held.gateway)
    _swap(engine, record, endpoint, (after, held.replace(relay=after.relay, relay_start_time=after.relay_start_time)))


def _found(record: ContainerRecord, remove: tuple[str, ...]) -> list[PortRequest]:
    gone = []
    for text in remove:
        try:
            wanted = ports.parse_exposed(text)
        except ValueError as wrong:
            hint = "name the container's port: 80, 53/udp or 8000-8010"
            raise Invalid(_VERB, record.subject, str(wrong), hint=hint) from None
        matching = [one for one in record.request.ports if (one.first, one.last, one.protocol) == wanted]
        if not matching:
            shown = ", ".join(dict.fromkeys(_shown(one) for one in record.request.ports)) or "none"
            cause = f"port {text} of container {record.name} is not published by -p"
            raise NotFound(_VERB, record.subject, cause, hint=f"published so are: {shown}")
        gone += matching
    return gone


def _shown(port: PortRequest) -> str:
    return f"{port.first}{f'-{port.last}' if port.last > port.first else ''}/{port.protocol}"


def _applied(
    engine: Engine, record: ContainerRecord, held: Attachment, add: tuple[PortRequest, ...], gone: list[PortRequest]
) -> Attachment:
    """Change what a running container publishes; return what it publishes then."""
    networks = engine.networks
    with networks.lock:
        network = networks.store.get(held.gateway)
        endpoint = next((one for one in held.endpoints if one.network_id == held.gateway), None)
        if network is None or endpoint is None:
            cause = "none of its networks leads to the outside"
            raise Conflict(_VERB, record.subject, cause, hint="connect it to one: orlop network connect")
        if network.driver == CNI:
            hint = f"change them while it is stopped: orlop stop {record.name}"
            raise Unsupported(_VERB, record.subject, f"the plugins of {network.name} publish at a start", hint=hint)
        ended = {(one.first, one.last - one.first + 1, one.protocol) for one in gone}
        kept = tuple(port for port in held.ports if (port.first, port.count, port.protocol) not in ended)
        others = [one for other, had in networks.attachments.all.items() if other != record.id for one in had.ports]
        # Or its own sockets would be in the way: of what stays, and of a port that leads elsewhere now.
        networks.give_back_ports(record.id)
        if relays.carried(held.replace(ports=tuple(port for port in held.ports if port not in kept)), endpoint):
            relays.end(held)
            held = held.replace(relay=0, relay_start_time=0)
        try:
            try:
                new = ports.allocate(
                    as_published(network, add),
                    [*others, *kept],
                    network.options.get(OPTION_HOST_IP, ""),
                    record.subject,
                )
            except OrlopError:
                _put_back(engine, record, endpoint, (held, held, held.replace(ports=(), host_access=())))
                raise
            after = _swap(engine, record, endpoint, (held, held.replace(ports=(*kept, *new))))
        except OrlopError as wrong:
            wrong.verb = _VERB
            raise
        finally:
            attach.reserve_again(engine)
    _forget_flows(endpoint, [port for port in held.ports if port not in kept])
    return after


def _swap(
    engine: Engine, record: ContainerRecord, endpoint: Endpoint, change_: tuple[Attachment, Attachment]
) -> Attachment:
    """Have the second take the place of the first; return it as it is held. As it was when that is refused."""
    before, after = change_
    networks = engine.networks
    new = before.replace(ports=tuple(port for port in after.ports if port not in before.ports), host_access=())
    old = before.replace(ports=tuple(port for port in before.ports if port not in after.ports), host_access=())
    with networks.lock:
        try:
            # While both are held, a table that somebody flushed is written with both.
            networks.attachments.hold(record.id, after.replace(ports=(*before.ports, *new.ports)))
            networks.publish(forwards_of(new))
            ended = not before.relay and relays.carried(after, endpoint)
            if ended or relays.carried(old, endpoint) or relays.carried(new, endpoint):
                relays.end(before)
                pid, start_time = relays.start(after, endpoint, record.subject)
                after = after.replace(relay=pid, relay_start_time=start_time)
            networks.attachments.hold(record.id, after)
            networks.withdraw(forwards_of(old))
        except (OSError, OrlopError) as wrong:
            _put_back(engine, record, endpoint, (before, after, new))
            if isinstance(wrong, OrlopError):
                raise
            raise Unavailable(_VERB, record.subject, wrong.strerror or str(wrong)) from None
    return after


def _put_back(
    engine: Engine, record: ContainerRecord, endpoint: Endpoint, held: tuple[Attachment, Attachment, Attachment]
) -> None:
    before, after, new = held
    networks = engine.networks
    try:
        networks.attachments.hold(record.id, before)
        networks.withdraw(forwards_of(new))
        if relays.carried(before, endpoint):
            relays.end(before)
            relays.end(after)
            pid, start_time = relays.start(before, endpoint, record.subject)
            networks.attachments.hold(record.id, before.replace(relay=pid, relay_start_time=start_time))
    except (OSError, OrlopError) as wrong:
        engine.log.write(f"the ports of container {record.id} are not as they were: {wrong}")


def _forget_flows(endpoint: Endpoint, gone: list[Published]) -> None:
    if any(port.protocol == "udp" for port in gone):
        try:
            with namespace.inside(namespace.current(), Conntrack) as tracker:
                for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
                    tracker.forget(address)
        except OSError:
            pass  # without the kernel's tracking there is no flow to forget
