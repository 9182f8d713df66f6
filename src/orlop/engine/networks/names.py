"""What the resolver is told of containers: who they are in which network, and whom they may ask outside.

On the default bridge nobody has a name (docker's rule, which old programs rely on); a container there gets the resolver
only where the machine's own servers are on a loopback address that it can't reach.
"""

from __future__ import annotations

import os

from ...linux.netlink import namespace
from ...network import resolver
from ...network.dns import client
from ...network.dns.zone import Member, Place
from ...spec.errors import Conflict, Invalid, OrlopError, Unavailable
from ...spec.network import INWARD
from ..containers import state
from . import egress, links
from .host import forwards_of
from .store import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ...spec.network import Attachment
    from ..containers.record import ContainerRecord
    from ..engine import Engine

HOST_FILE_BYTES_MAX = 256 * 1024


def is_wanted(engine: Engine, record: ContainerRecord, attachment: Attachment) -> bool:
    """Tell whether a container asks the resolver, or the servers of its resolv.conf itself."""
    if record.request.egress in egress.WATCHED:
        return True
    networks = (engine.networks.store.get(endpoint.network_id) for endpoint in attachment.endpoints)
    if any(network is not None and network.name != DEFAULT for network in networks):
        return True
    everywhere = resolver.for_every_name(record.request.dns)
    if len(everywhere) < len(record.request.dns):
        return True
    servers = everywhere or of_host().servers
    return bool(servers) and all(map(resolver.is_loopback, servers))


def restrict(engine: Engine, record: ContainerRecord, attachment: Attachment, netns: int) -> None:
    """Close everything to a container with --egress deny but what is allowed; learn with learn. Raises Unavailable."""
    if record.request.egress in egress.WATCHED:
        ends = egress.ends(attachment, netns)
        table = engine.networks.footprint.egress_table
        # What --host-access leads to is on the loopback when these rules see it.
        inward = tuple(
            f"{one.address}:{number}/{one.protocol}"
            for one in forwards_of(attachment)
            if one.mode == INWARD
            for number in range(one.host_first, one.host_first + one.count)
        )
        allowed = (*record.request.egress_allow, *inward) if record.request.egress == egress.DENY else None
        resolver_ = engine.networks.resolver
        unheard = resolver_.restrict(record.id, table, ends, allowed, egress.path(engine, record.id))
        if unheard and allowed is None:
            hint = "try: modprobe nfnetlink_log" if "kernel" in unheard else "end that program"
            raise Unavailable("watch", record.subject, f"nobody could learn: {unheard}", hint=hint)
        if unheard:
            engine.networks.unheard[record.id] = unheard


def of_host() -> resolver.ResolvConf:
    """Return what the machine's resolv.conf says now."""
    try:
        with open("/etc/resolv.conf", "rb", buffering=0) as file:
            return resolver.parse(file.read(HOST_FILE_BYTES_MAX))
    except OSError:
        return resolver.parse(b"")


def register(engine: Engine, record: ContainerRecord, sockets: list[socket], attachment: Attachment) -> None:
    """Have a container that has just started answered on its sockets, until its monitor ends."""
    task = state.observe(engine.records.path(record.id), engine.boot_id)
    monitor = state.open_monitor(task.status, engine.boot_id) if task.status is not None else None
    if monitor is None:
        return  # it has ended already
    try:
        fds = [monitor, *(one.fileno() for one in sockets)]
        engine.networks.resolver.add(_member(engine, record, attachment), fds)
    finally:
        os.close(monitor)


def update(engine: Engine, record: ContainerRecord, attachment: Attachment, netns: int) -> None:
    """Tell the resolver of a running container that came into a network, or left one. netns: its namespace."""
    if not is_wanted(engine, record, attachment):
        engine.networks.resolver.remove(record.id)
    elif record.id in engine.networks.resolver.known():
        restrict(engine, record, attachment, netns)
        engine.networks.resolver.add(_member(engine, record, attachment))
    else:
        engine.networks.starting.add(record.id)
        try:
            _open_and_register(engine, record, attachment, netns)
        finally:
            engine.networks.starting.discard(record.id)


def rename(engine: Engine, record: ContainerRecord, old: str) -> None:
    """Have a container that runs found by its new name, and not by its old one."""
    networks = engine.networks
    with networks.lock:
        held = networks.attachments.get(record.id)
        if held is None:
            return
        endpoints = tuple(
            one.replace(names=tuple(record.name if name == old else name for name in one.names))
            for one in held.endpoints
        )
        held = held.replace(endpoints=endpoints)
        networks.attachments.hold(record.id, held)
    try:
        if is_wanted(engine, record, held) and record.id in networks.resolver.known():
            networks.resolver.add(_member(engine, record, held))
    except OrlopError as wrong:
        engine.log.write(f"the resolver does not know the new name of container {record.id}: {wrong}")


def tell_everybody(engine: Engine) -> None:
    """Tell a new resolver of every container that runs: the one before it was killed.

    Not of those that are starting: they are told of by their start, and a container has one pair of sockets.
    """
    for container_id, attachment in list(engine.networks.attachments.all.items()):
        if container_id in engine.networks.starting:
            continue
        try:
            record = engine.records.load(container_id)
            if not is_wanted(engine, record, attachment):
                continue
            task = state.observe(engine.records.path(container_id), engine.boot_id)
            init = state.open_init(task.status, engine.boot_id) if task.status is not None else None
            if init is None or task.status is None:
                continue
            try:
                netns = os.open(f"/proc/{task.status.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(init)
            try:
                _open_and_register(engine, record, attachment, netns)
            finally:
                os.close(netns)
        except (OrlopError, OSError) as wrong:
            engine.log.write(f"the resolver does not answer container {container_id}: {wrong}")
    egress.settle(engine)


def take_up(engine: Engine) -> None:
    """Have a resolver answer those that run, also where it was killed with the engine before this one."""
    for container_id, attachment in list(engine.networks.attachments.all.items()):
        try:
            if is_wanted(engine, engine.records.load(container_id), attachment):
                engine.networks.resolver.known()
                break
        except OrlopError:
            continue
    egress.settle(engine)


def trace(engine: Engine, reference: str, name: str, kind: str) -> dict[str, object]:
    """Have the resolver say how it resolves a name for a container. Raises NotFound, Conflict, Invalid, Unavailable."""
    from ...network.dns import message

    record = engine.records.find(reference)
    try:
        message.question(name, message.A, 0)
    except ValueError:
        hint = "write it as db or www.example.org, and other letters as xn--..."
        raise Invalid("trace a name of", record.subject, f"{name[:100]!r} is no name", hint=hint) from None
    held = engine.networks.attachments.get(record.id)
    if held is None or not is_wanted(engine, record, held):
        cause = "it does not ask the resolver: it runs on the default bridge, or not at all"
        hint = f"see whom it asks: orlop exec {record.name} cat /etc/resolv.conf"
        raise Conflict("trace a name of", record.subject, cause, hint=hint)
    return engine.networks.resolver.trace(record.id, name, kind)


def _open_and_register(engine: Engine, record: ContainerRecord, attachment: Attachment, netns: int) -> None:
    restrict(engine, record, attachment, netns)
    restricted = record.request.egress == egress.DENY
    sockets = namespace.inside(netns, lambda: client.open_all(restricted))
    try:
        register(engine, record, sockets, attachment)
    finally:
        for one in sockets:
            one.close()


def _member(engine: Engine, record: ContainerRecord, attachment: Attachment) -> Member:
    places = []
    external = False
    for endpoint in attachment.endpoints:
        network = engine.networks.store.get(endpoint.network_id)
        if network is None:
            continue
        external = external or not network.internal
        if network.name == DEFAULT:
            continue
        wish = next((one for one in record.request.endpoints if one.network in (network.name, network.id)), None)
        places.append(
            Place(
                network=network.id,
                network_name=network.name,
                addresses=tuple(address for address in (endpoint.ipv4, endpoint.ipv6) if address),
                names=endpoint.names,
                links=links.targets(engine, wish.links if wish else ()),
            )
        )
    return Member(id=record.id, places=tuple(places), external=external, servers=record.request.dns)
