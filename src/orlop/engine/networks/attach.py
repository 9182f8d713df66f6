"""A container's place in its networks: taken before its start, given back after its end.

The order of each step follows from invariant 2 of the package: what is held is on disk first; devices and rules come
after it, and go before it.
"""

from __future__ import annotations

import errno
import functools
import os
import threading

from ...linux.netlink import namespace
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import links, pools, subnet
from ...network.dns import client
from ...runtime.operations.namespaces import open_namespace
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ...spec.network import Attachment, Endpoint, EndpointRequest, Published
from ..containers import state
from ..containers.names import short_id
from . import cni, egress, interfaces, mtu, names, parents, ports
from .host import OPTION_HOST_IP, OPTION_ICC, as_published, forwards_of, is_on, routed
from .store import new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ...spec.container import ContainerRequest
    from ...spec.network import Network, Pool
    from ..containers.record import ContainerRecord
    from ..engine import Engine
    from .host import Networks

NONE, HOST, CONTAINER, PATH = "none", "host", "container:", "ns:"
JOINED = (CONTAINER, PATH)
HELD_MAX = 4096  # names whose last addresses are known
# What a kernel, or one who has not the privileges, says of links and rules.
_LACKING = frozenset(
    (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOSYS)
)


class Joined:
    """A network namespace for a start. fd: it, the caller's to close, -1 for the spec's own. attachment: or None."""

    __slots__ = ("_engine", "_record", "_sockets", "attachment", "fd")

    def __init__(
        self, engine: Engine, record: ContainerRecord, fd: int = -1, attachment: Attachment | None = None
    ) -> None:
        self._engine = engine
        self._record = record
        self.fd = fd
        self.attachment = attachment
        self._sockets: list[socket] | None = None

    def listen_for_questions(self) -> None:
        """Open the resolver's sockets, before the container's first instruction: what it asks waits there."""
        if self.attachment is not None and names.is_wanted(self._engine, self._record, self.attachment):
            names.restrict(self._engine, self._record, self.attachment, self.fd)
            restricted = self._record.request.egress == egress.DENY
            self._sockets = namespace.inside(self.fd, lambda: client.open_all(restricted))

    def started(self) -> None:
        """The container runs: have its questions answered."""
        if self._sockets is not None and self.attachment is not None:
            try:
                names.register(self._engine, self._record, self._sockets, self.attachment)
            except (OrlopError, OSError) as wrong:
                self._engine.log.write(f"the resolver does not answer container {self._record.id}: {wrong}")

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The start is over, one way or the other. Idempotent."""
        self._engine.networks.starting.discard(self._record.id)
        for one in self._sockets or ():
            one.close()
        self._sockets = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def mode(record: ContainerRecord) -> str:
    """Return where it is: "bridge", "none", "host", "container:NAME", "ns:PATH", or the name of a network."""
    chosen = record.request.network
    return "bridge" if chosen in ("", "default") else chosen


def mode_told(record: ContainerRecord) -> str:
    """Return docker's NetworkMode: what it was made for, wherever it is now; others by their ids."""
    return record.network_mode or record.told(mode(record))


def has_own_networks(record: ContainerRecord) -> bool:
    """Tell whether a container is in networks at all: not in the machine's, another container's, or in none."""
    chosen = mode(record)
    return chosen not in (NONE, HOST) and not chosen.startswith(JOINED)


def wishes(record: ContainerRecord) -> tuple[EndpointRequest, ...]:
    """Return what a container wants of each of its networks, the first one its mode's."""
    if not has_own_networks(record):
        return ()
    return record.request.endpoints or (EndpointRequest(network=mode(record)),)


def prepare(engine: Engine, record: ContainerRecord) -> Joined:
    """Make a container's network namespace and connect it. `release` gives everything back.

    Raises NotFound for a network or a container that is not there, Conflict for an address or a port that is taken,
    Unavailable when the kernel refuses.
    """
    chosen = mode(record)
    if chosen.startswith(CONTAINER):
        return Joined(engine, record, _of_container(engine, record, chosen.removeprefix(CONTAINER)))
    if chosen.startswith(PATH):
        return Joined(engine, record, open_namespace("network", chosen.removeprefix(PATH)))
    if not has_own_networks(record):
        return Joined(engine, record)
    networks = engine.networks
    networks.starting.add(record.id)
    networks.without.pop(record.id, None)
    networks.unheard.pop(record.id, None)
    fd = -1
    try:
        fd, inside = links.new_namespace()
        if record.uid_mappings:
            gid_last = max(each.host_id + each.size - 1 for each in record.gid_mappings)
            namespace.inside(fd, lambda: links.open_to_mapped_root(gid_last))
        with inside:
            attachment = _connect(engine, record, inside, fd)
        if any(cni.is_cni(engine, one) for one in attachment.endpoints):
            networks.namespaces[record.id] = os.dup(fd)
            try:
                attachment = cni.connect(engine, record, attachment, fd)
            except BaseException:
                release(engine, record.id)
                raise
        joined = Joined(engine, record, fd, attachment)
        try:
            _set_sysctls(record, fd)
            joined.listen_for_questions()
        except BaseException:
            release(engine, record.id)
            raise
        return joined
    except OSError as failure:
        networks.starting.discard(record.id)
        told = f"{failure.strerror or failure}" + (f" ({failure.filename})" if failure.filename else "")
        if fd >= 0:
            os.close(fd)
        if failure.errno in _LACKING and may_do_without(record):
            networks.without[record.id] = told
            return Joined(engine, record)
        hint = "is CAP_NET_ADMIN there, and nf_tables in the kernel?" if failure.errno in _LACKING else ""
        raise Unavailable("connect", record.subject, told, hint=hint) from None
    except BaseException:
        networks.starting.discard(record.id)
        if fd >= 0:
            os.close(fd)
        raise


def _set_sysctls(record: ContainerRecord, fd: int) -> None:
    """Write the settings that its process has no rights to. Raises Unavailable."""
    if not record.uid_mappings:
        return
    from ..compile.namespaces import network_sysctls

    for name, value in network_sysctls(record).items():
        place = name.removeprefix("net.").replace(".", "/")
        try:
            namespace.inside(fd, functools.partial(interfaces.write_sysctl, place, value))
        except OSError as failure:
            cause = f"the sysctl {name} can't be set to {value[:100]!r}: {failure.strerror}"
            raise Unavailable("start", record.subject, cause, hint="leave the --sysctl away") from None


def may_do_without(record: ContainerRecord) -> bool:
    """Tell whether a container asked for nothing of a network by name: then it may run without one (I3)."""
    request = record.request
    asked = (request.endpoints, request.ports, request.publish_all, request.links, request.egress, request.dns)
    return request.network in ("", "default") and not any(asked)


def _connect(engine: Engine, record: ContainerRecord, inside: Rtnetlink, fd: int) -> Attachment:
    """Put a new namespace into a container's networks. Raises as `prepare`, and OSError; nothing is left then."""
    networks = engine.networks
    release(engine, record.id)  # what an earlier start has left
    with networks.lock:
        release_ended(engine)
        attachment = _hold(engine, record)
        try:
            mtu.follow(engine)
            networks.make_will()
            for number, endpoint in enumerate(attachment.endpoints):
                _plug(engine, record, endpoint, inside, fd, wishes(record)[number])
            if not any(cni.is_cni(engine, one) for one in attachment.endpoints):  # plugins set routes by themselves
                links.set_gateways(inside, *_ways_out(engine, attachment.endpoints, _asked(engine, record)))
            networks.publish(forwards_of(attachment))
            attachment = _relayed(engine, record, attachment)
        except BaseException:
            _begin_release(engine, record.id)
            raise
    return attachment


def _relayed(engine: Engine, record: ContainerRecord, attachment: Attachment) -> Attachment:
    """Have a relay carry what comes to the ports that rules can't lead."""
    endpoint = _of(attachment, attachment.gateway)
    if endpoint is None or endpoint.capabilities or not _needs_relay(attachment, endpoint):
        return attachment
    from . import relays

    pid, start_time = relays.start(attachment, endpoint, record.subject)
    attachment = attachment.replace(relay=pid, relay_start_time=start_time)
    engine.networks.attachments.hold(record.id, attachment)
    if engine.networks.follower is not None:
        engine.networks.follower.wake()  # which awaits its end
    return attachment


def relay_again(engine: Engine, record: ContainerRecord, held: Attachment) -> None:
    """Have another relay carry a running container's ports: its own was killed. Raises as `prepare`."""
    from . import relays

    relays.end(held)
    _relayed(engine, record, held.replace(relay=0, relay_start_time=0))


def _needs_relay(attachment: Attachment, endpoint: Endpoint) -> bool:
    if namespace.has_left():
        return bool(attachment.ports or attachment.host_access)
    return any(ports.wants_relay(port, endpoint) for port in attachment.ports)


def release(engine: Engine, container_id: str) -> None:
    """Give back what a container holds: rules, links, addresses. It may hold nothing."""
    parting = _begin_release(engine, container_id) or engine.networks.partings.get(container_id)
    if parting is not None:
        parting.join()


def _begin_release(engine: Engine, container_id: str) -> threading.Thread | None:
    """Give back what of it is ours. What plugins have to do goes on by itself: return it, None where there is nothing.

    Whoever starts the container again waits for it (`release`); other containers do not.
    """
    networks = engine.networks
    attachment = _withdraw(engine, container_id)
    if attachment is None:
        return None
    held = cni.members(engine, attachment.endpoints)
    netns = networks.namespaces.pop(container_id, None)

    def part() -> None:
        try:
            cni.disconnect(engine, container_id, held, netns)
        finally:
            if netns is not None:
                os.close(netns)
            with networks.lock:
                networks.partings.pop(container_id, None)
                if networks.attachments.get(container_id) is None:
                    networks.attachments.drop(container_id)

    if not held:
        part()
        return None
    parting = threading.Thread(target=part, name="CNI", daemon=True)
    networks.partings[container_id] = parting
    parting.start()
    return parting


def _withdraw(engine: Engine, container_id: str) -> Attachment | None:
    """Give back what of it is ours; return what it held, None when that was nothing, or stays."""
    networks = engine.networks
    with networks.lock:
        attachment = networks.attachments.get(container_id)
        if attachment is None:
            return None
        networks.attachments.all.pop(container_id)
        networks.give_back_ports(container_id)
        try:
            networks.resolver.remove(container_id)
        except OrlopError as wrong:
            engine.log.write(f"the resolver is not told of the end of container {container_id}: {wrong}")
        try:
            if attachment.relay:
                from . import relays

                relays.end(attachment)
                relays.end_rules(networks.attachments.all.values())
            networks.withdraw(forwards_of(attachment))
            networks.discard(attachment)
        except OSError as failure:
            networks.attachments.all[container_id] = attachment
            engine.log.write(f"the network of container {container_id} is not given back: {failure}")
            return None
    return attachment


def reserve_again(engine: Engine) -> None:
    """Keep the ports of containers that an earlier engine has started from other programs again."""
    networks = engine.networks
    for container_id, held in list(networks.attachments.all.items()):
        if container_id not in networks.reserved:
            try:
                networks.reserved[container_id] = _reserve(held, f"container {container_id}")
            except OrlopError as wrong:
                engine.log.write(f"the ports of container {container_id} are not reserved: {wrong.cause}")


def _reserve(held: Attachment, subject: str) -> list[socket]:
    """Keep the ports that rules lead from other programs; at the others a relay listens. Raises as ports.reserve."""
    endpoint = _of(held, held.gateway)
    if endpoint is None or namespace.has_left():
        return []
    return ports.reserve([port for port in held.ports if not ports.wants_relay(port, endpoint)], subject)


def release_ended(engine: Engine) -> None:
    """Give back what containers hold that do not run any more: their ends may not have been dealt with yet.

    Nobody waits for plugins here.
    """
    for container_id in list(engine.networks.attachments.all):
        if container_id not in engine.networks.starting:
            task = state.observe(engine.records.path(container_id), engine.boot_id)
            if task.state in (state.CREATED, state.EXITED):
                _begin_release(engine, container_id)


def connect_running(engine: Engine, record: ContainerRecord, pid: int, wish: EndpointRequest) -> None:
    """Connect a running container to one more network. Raises as `prepare` does; it is as it was then."""
    networks = engine.networks
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside:
            with networks.lock:
                held = networks.attachments.get(record.id) or Attachment(boot_id=networks.boot_id)
                endpoint, after = _wider(engine, record, held, wish)
                networks.attachments.hold(record.id, after)
                try:
                    _plug(engine, record, endpoint, inside, fd, wish)
                    asked = {**_asked(engine, record), endpoint.network_id: wish}
                    after = _reroute(engine, record, (inside, asked), held, after)
                except BaseException:
                    _narrow(engine, record, (inside, fd), held, endpoint)
                    raise
            try:
                if cni.is_cni(engine, endpoint):
                    if record.id not in networks.namespaces:
                        networks.namespaces[record.id] = os.dup(fd)
                    after = cni.connect(engine, record, after, fd)
                with networks.lock:
                    names.update(engine, record.replace(request=_with(record, wish)), after, fd)
            except BaseException:
                cni.disconnect(engine, record.id, cni.members(engine, (_kept(engine, record.id, endpoint),)), fd)
                with networks.lock:
                    _narrow(engine, record, (inside, fd), held, endpoint)
                    _tell_names(engine, record, held, fd)
                raise
    finally:
        os.close(fd)


def _kept(engine: Engine, container_id: str, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint with what is known of it by now."""
    held = engine.networks.attachments.get(container_id)
    return next((one for one in held.endpoints if one.id == endpoint.id), endpoint) if held else endpoint


def _wider(
    engine: Engine, record: ContainerRecord, held: Attachment, wish: EndpointRequest
) -> tuple[Endpoint, Attachment]:
    """Return an endpoint in one more network, and what a running container is to hold with it."""
    network = engine.networks.store.find(wish.network)
    taken = {endpoint.interface for endpoint in held.endpoints}
    interface = interfaces.name(network, wish, taken, record.subject)
    endpoint = _decide(engine, record, network, wish, interface)
    if network.driver == cni.DRIVER:
        endpoint = cni.intended(endpoint, network, wish, (), record)
    after = held.replace(endpoints=(*held.endpoints, endpoint))
    asked = {**_asked(engine, record), network.id: wish}
    after = after.replace(gateway=_gateway(engine, after.endpoints, asked))
    return endpoint, after.replace(host_access=_reached(engine, record, _of(after, after.gateway)))


def _narrow(
    engine: Engine, record: ContainerRecord, place: tuple[Rtnetlink, int], held: Attachment, endpoint: Endpoint
) -> None:
    """Undo the connection of a running container: what it held before is what it holds again.

    place: a socket in its namespace, and that.
    """
    inside, fd = place
    networks = engine.networks
    after = networks.attachments.get(record.id) or held

    def unplug() -> None:
        links.unplug(inside, endpoint)
        if endpoint.link:
            links.delete_link(networks.route, endpoint.link)

    def reroute() -> None:
        _reroute(engine, record, (inside, _asked(engine, record)), after, held)

    def restrict() -> None:
        names.restrict(engine, record, held, fd)

    for undo in (unplug, functools.partial(networks.attachments.hold, record.id, held), reroute, restrict):
        try:
            undo()
        except (OSError, OrlopError) as wrong:
            engine.log.write(f"what was begun of a connection of container {record.id} is not undone: {wrong}")


def _tell_names(engine: Engine, record: ContainerRecord, held: Attachment, fd: int) -> None:
    try:
        names.update(engine, record, held, fd)
    except (OSError, OrlopError) as wrong:
        engine.log.write(f"the resolver is not told where container {record.id} is: {wrong}")


def disconnect_running(engine: Engine, record: ContainerRecord, pid: int, network: Network) -> None:
    """Take a running container out of a network. When that is refused, it can be asked for again."""
    networks = engine.networks
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside, networks.lock:
            held = networks.attachments.get(record.id)
            endpoint = _of(held, network.id) if held else None
            if held is None or endpoint is None:
                return
            left = tuple(one for one in held.endpoints if one.id != endpoint.id)
            after = held.replace(endpoints=left, gateway=_gateway(engine, left, _asked(engine, record)))
            after = after.replace(host_access=_reached(engine, record, _of(after, after.gateway)))
            if network.driver != cni.DRIVER:
                links.unplug(inside, endpoint)
            if endpoint.link:
                links.delete_link(networks.route, endpoint.link)
            leaving = cni.members(engine, (endpoint,))
            # An endpoint of plugins is on disk until they are through.
            networks.attachments.hold(record.id, after.replace(endpoints=held.endpoints) if leaving else after)
            try:
                after = _reroute(engine, record, (inside, _asked(engine, record)), held, after)
                networks.attachments.hold(record.id, after.replace(endpoints=held.endpoints) if leaving else after)
                names.update(engine, record, after, fd)
            except BaseException:
                networks.attachments.hold(record.id, held)
                raise
        cni.disconnect(engine, record.id, leaving, fd)
        if leaving:
            with networks.lock:
                now = networks.attachments.get(record.id) or after
                networks.attachments.hold(record.id, now.replace(endpoints=left))
    finally:
        os.close(fd)


def settle_running(engine: Engine, record: ContainerRecord, pid: int) -> None:
    """Have the ways and names of a running container be those of what it holds. Raises OSError, OrlopError."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside, engine.networks.lock:
            held = engine.networks.attachments.get(record.id)
            if held is not None:
                _reroute(engine, record, (inside, _asked(engine, record)), held.replace(gateway="-"), held)
                names.update(engine, record, held, fd)
    finally:
        os.close(fd)


def plug_again(engine: Engine, record: ContainerRecord, pid: int, endpoint: Endpoint) -> None:
    """Connect a running container to a network again that it is in, where somebody took its link. Raises OSError."""
    networks = engine.networks
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside, networks.lock:
            held = networks.attachments.get(record.id)
            if held is None or endpoint not in held.endpoints:
                return
            links.unplug(inside, endpoint)
            wish = _asked(engine, record).get(endpoint.network_id, EndpointRequest(network=endpoint.network_id))
            _plug(engine, record, endpoint, inside, fd, wish)
            if not any(cni.is_cni(engine, one) for one in held.endpoints):
                links.set_gateways(inside, *_ways_out(engine, held.endpoints, _asked(engine, record)))
    finally:
        os.close(fd)


def _with(record: ContainerRecord, wish: EndpointRequest) -> ContainerRequest:
    return record.request.replace(endpoints=(*wishes(record), wish))


def _reroute(
    engine: Engine,
    record: ContainerRecord,
    place: tuple[Rtnetlink, dict[str, EndpointRequest]],
    before: Attachment,
    after: Attachment,
) -> Attachment:
    """Have the ways in and out lead through the networks that are the gateways now; return what is held then.

    place: a socket in the container's namespace, and what it asks of each network.
    """
    inside, asked = place
    if not any(cni.is_cni(engine, one) for one in after.endpoints):
        links.set_gateways(inside, *_ways_out(engine, after.endpoints, asked))
    if before.gateway == after.gateway:
        return after
    engine.networks.withdraw(forwards_of(before))
    engine.networks.publish(forwards_of(after))
    for one in (before, after):
        if one.relay:
            from . import relays

            relays.end(one)
    after = after.replace(relay=0, relay_start_time=0)
    engine.networks.attachments.hold(record.id, after)
    return _relayed(engine, record, after)


def _of_container(engine: Engine, record: ContainerRecord, reference: str) -> int:
    other = engine.records.lender(record, reference)
    task = engine.observe(other.id)
    if task.state not in (state.RUNNING, state.PAUSED) or task.status is None:
        cause = f"cannot join network of a non running container: {other.id}"
        raise Conflict("start", record.subject, cause, hint=f"start it first: orlop start {other.name}")
    init = state.open_init(task.status, engine.boot_id)
    if init is None:
        cause = f"cannot join network of a non running container: {other.id}"
        raise Conflict("start", record.subject, cause, hint=f"start it first: orlop start {other.name}")
    try:
        # The pidfd is held meanwhile, so the number is still that process's.
        return os.open(f"/proc/{task.status.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(init)


def _hold(engine: Engine, record: ContainerRecord) -> Attachment:
    try:
        return _held(engine, record)
    except BaseException:
        engine.networks.attachments.drop(record.id)
        raise


def _held(engine: Engine, record: ContainerRecord) -> Attachment:
    networks = engine.networks
    endpoints: list[Endpoint] = []
    asked = {}
    named = {wish.options.get(interfaces.OPTION_NAME, "") for wish in wishes(record)}
    for wish in wishes(record):
        network = networks.store.find(wish.network)
        asked[network.id] = wish
        own = wish.options.get(interfaces.OPTION_NAME, "")
        taken = {one.interface for one in endpoints} | (named - {own, ""})
        interface = interfaces.name(network, wish, taken, record.subject)
        endpoints.append(_decide(engine, record, network, wish, interface))
        attachment = Attachment(boot_id=networks.boot_id, endpoints=tuple(endpoints))
        networks.attachments.all[record.id] = attachment  # for the next one; on disk at the end, before any device
    gateway = _gateway(engine, attachment.endpoints, asked)
    published = _published(engine, record, gateway)
    reached = _reached(engine, record, _of(attachment, gateway))
    attachment = attachment.replace(gateway=gateway, ports=published, host_access=reached)
    networks.reserved[record.id] = _reserve(attachment, record.subject)
    attachment = attachment.replace(
        endpoints=tuple(
            _intended(engine, one, asked[one.network_id], attachment, record) for one in attachment.endpoints
        )
    )
    networks.attachments.hold(record.id, attachment)
    return attachment


def _intended(
    engine: Engine, endpoint: Endpoint, wish: EndpointRequest, attachment: Attachment, record: ContainerRecord
) -> Endpoint:
    network = engine.networks.store.get(endpoint.network_id)
    if network is None or network.driver != cni.DRIVER:
        return endpoint
    ports = attachment.ports if attachment.gateway == network.id else ()
    return cni.intended(endpoint, network, wish, ports, record)


def _reached(engine: Engine, record: ContainerRecord, endpoint: Endpoint | None) -> tuple[Published, ...]:
    """Return what a container reaches of the machine's loopback through an endpoint, whose gateway is this machine."""
    if endpoint is None or not parents.is_machine(engine.networks, endpoint):
        return ()
    return ports.host_access(record.request.host_access, endpoint)


def _published(engine: Engine, record: ContainerRecord, gateway: str) -> tuple[Published, ...]:
    networks = engine.networks
    network = networks.store.get(gateway)
    if network is None or network.driver in parents.DRIVERS:
        return ()  # docker publishes nothing of a container whose way outside is not this machine's
    held = [one for other, had in networks.attachments.all.items() if other != record.id for one in had.ports]
    host_ip = network.options.get(OPTION_HOST_IP, "")
    requests = as_published(network, ports.wanted(record.request, record.config.exposed_ports))
    return ports.allocate(requests, held, host_ip, record.subject)


def _decide(
    engine: Engine, record: ContainerRecord, network: Network, wish: EndpointRequest, interface: str
) -> Endpoint:
    """Return a container's endpoint in a network, whose bridge is there afterwards."""
    networks = engine.networks
    if network.driver in ("host", "null"):
        cause = f"container cannot be disconnected from host network or connected to it: {network.name}"
        raise Invalid("connect", record.subject, cause, hint="use --network host or none, alone")
    egress.check(record.request, network, record.subject)
    if network.driver == "bridge":
        network, _ = networks.raise_bridge(network)
    elif network.driver in parents.DRIVERS:
        parents.raise_(networks, network)
    endpoint_id = new_id()
    endpoint = Endpoint(
        id=endpoint_id,
        network_id=network.id,
        interface=interface,
        link=f"ve{endpoint_id[:12]}" if network.driver == "bridge" else "",
        names=dns_names(record, wish),
        on_link=not (network.internal or parents.has_gateway(network.driver, network.options)),
    )
    if network.driver == cni.DRIVER:
        return endpoint  # its plugins decide the rest
    taken = networks.attachments.addresses(network.id) | _reserved(network) | parents.taken(networks, network)
    for is_six, asked in ((False, wish.ipv4), (True, wish.ipv6)):
        own = [pool for pool in network.pools if (":" in pool.subnet) == is_six]
        if asked and not own:
            cause = f"invalid address {asked}: It does not belong to any of this network's subnets"
            raise Invalid("connect", record.subject, cause, hint=f"see them with: orlop network inspect {network.name}")
        if not own:
            continue
        pool, address = _choose(networks, network, own, (asked, taken), record)
        length = subnet.parse(pool.subnet).length
        gateway = "" if network.internal or endpoint.on_link else pool.gateway
        if (6 if is_six else 4) in routed(network):
            endpoint = endpoint.replace(routed=(*endpoint.routed, address))
        if is_six:
            endpoint = endpoint.replace(ipv6=address, ipv6_length=length, gateway6=gateway)
        else:
            endpoint = endpoint.replace(ipv4=address, ipv4_length=length, gateway=gateway)
    if network.driver == parents.IPVLAN:
        return endpoint  # whose MAC is its parent's
    mac_address = subnet.usual_mac(wish.mac_address) if wish.mac_address else links.mac_of(endpoint.ipv4)
    return endpoint.replace(mac_address=mac_address)


def dns_names(record: ContainerRecord, wish: EndpointRequest) -> tuple[str, ...]:
    """Return what a container is called in a network: its name, its aliases, its short id, its host name."""
    found = (record.name, *wish.aliases, short_id(record.id), record.request.hostname)
    return tuple(dict.fromkeys(name for name in found if name))


def _choose(
    networks: Networks, network: Network, own: list[Pool], wanted: tuple[str, set[int]], record: ContainerRecord
) -> tuple[Pool, str]:
    """Return (subnet, address): the subnet that an address asked for lies in, else the first that has a free one.

    own: those of one family, of which only a macvlan or ipvlan has several. wanted: (the address or "", those taken).
    """
    asked, taken = wanted
    for pool in own[:-1]:
        try:
            if not asked or subnet.parse(pool.subnet).contains(asked):
                return pool, _address(networks, (network, pool), asked, taken, record)
        except Unavailable:
            continue  # the next one may have room
    return own[-1], _address(networks, (network, own[-1]), asked, taken, record)


def _address(
    networks: Networks, place: tuple[Network, Pool], asked: str, taken: set[int], record: ContainerRecord
) -> str:
    network, pool = place
    whole = subnet.parse(pool.subnet)
    if asked:
        if not whole.contains(asked):
            cause = f"no configured subnet contains IP address {asked}"
            raise Invalid("connect", record.subject, cause, hint=f"the subnet of {network.name} is {whole}")
        if subnet.number(asked)[0] in taken or not whole.has_room_at(asked):
            hint = f"see who has it with: orlop network inspect {network.name}"
            raise Conflict("connect", record.subject, "Address already in use", hint=hint, code="E0704")
        return subnet.usual(asked)
    key = f"{network.id} {whole}"
    part = subnet.parse(pool.ip_range) if pool.ip_range else None
    # A name keeps its address as long as nobody else needs it: who restarts, or is replaced, is found where it was.
    held = networks.last_held.pop((key, record.name), "")
    if held and (part or whole).contains(held) and subnet.number(held)[0] not in taken:
        found: str | None = held
    else:
        found = pools.free_address(whole, part, taken, networks.last_given.get(key, 0))
    if found is None:
        cause = f"no available addresses on this network's address pools: {network.name} ({whole})"
        raise Unavailable(
            "connect", record.subject, cause, hint="remove containers, or make a larger network", code="E0704"
        )
    if found != held:
        networks.last_given[key] = subnet.number(found)[0]
    while len(networks.last_held) >= HELD_MAX:
        del networks.last_held[next(iter(networks.last_held))]
    networks.last_held[key, record.name] = found
    return found


def _reserved(network: Network) -> set[int]:
    reserved = [pool.gateway for pool in network.pools if pool.gateway]
    reserved += [address for pool in network.pools for address in pool.auxiliary.values()]
    return {subnet.number(address)[0] for address in reserved}


def _plug(
    engine: Engine, record: ContainerRecord, endpoint: Endpoint, inside: Rtnetlink, fd: int, wish: EndpointRequest
) -> None:
    networks = engine.networks
    network = networks.store.get(endpoint.network_id)
    if network is None:
        raise NotFound(
            "connect", record.subject, f"network {endpoint.network_id} not found", hint="connect it anew", code="E0701"
        )
    if network.driver == cni.DRIVER:
        return  # `cni.connect`, without the lock
    if network.driver in parents.DRIVERS:
        parents.plug(networks, network, endpoint, inside, fd)
        _settle(inside, fd, endpoint, wish)
        return
    bridge = networks.route.link(networks.link_name(network))
    if bridge is None:
        raise Unavailable("connect", record.subject, f"the bridge of network {network.name} is gone", hint="try again")
    port = links.Port(bridge.index, bridge.mtu, isolated=not is_on(network, OPTION_ICC))
    held = networks.attachments.get(record.id)
    if held is not None and record.id not in networks.starting:  # it runs: nothing is open for a moment, either
        port.before_up = lambda: names.restrict(engine, record, held, fd)
    links.plug_bridge(networks.route, inside, fd, endpoint, port)
    _settle(inside, fd, endpoint, wish)


def _settle(inside: Rtnetlink, fd: int, endpoint: Endpoint, wish: EndpointRequest) -> None:
    try:
        interfaces.settle(inside, fd, endpoint, wish)
    except BaseException:
        links.unplug(inside, endpoint)
        raise


def _gateway(engine: Engine, endpoints: tuple[Endpoint, ...], asked: dict[str, EndpointRequest]) -> str:
    """Return the id of the network that leads outside: the highest priority, then the first name."""
    return next((one.network_id for one in _leading(engine, endpoints, asked)), "")


def _ways_out(
    engine: Engine, endpoints: tuple[Endpoint, ...], asked: dict[str, EndpointRequest]
) -> tuple[Endpoint | None, Endpoint | None]:
    """Return the endpoints that lead outside for IPv4 and for IPv6: one for both, if it has both."""
    leading = _leading(engine, endpoints, asked)
    four = next((one for one in leading if one.gateway or (one.on_link and one.ipv4)), None)
    six = next((one for one in leading if one.gateway6 or (one.on_link and one.ipv6)), None)
    return four, six


def _leading(
    engine: Engine, endpoints: tuple[Endpoint, ...], asked: dict[str, EndpointRequest]
) -> tuple[Endpoint, ...]:
    """Return the endpoints with a way outside, the highest priority first, then the first name."""
    found = []
    for endpoint in endpoints:
        network = engine.networks.store.get(endpoint.network_id)
        leads = endpoint.gateway or endpoint.gateway6 or endpoint.on_link
        if network is not None and (leads or network.driver == cni.DRIVER):
            wish = asked.get(network.id)
            found.append((-(wish.gw_priority if wish else 0), network.name, endpoint))
    return tuple(endpoint for _, _, endpoint in sorted(found, key=lambda one: one[:2]))


def _asked(engine: Engine, record: ContainerRecord) -> dict[str, EndpointRequest]:
    found = {}
    for wish in wishes(record):
        try:
            found[engine.networks.store.find(wish.network).id] = wish
        except OrlopError:
            continue
    return found


def _of(attachment: Attachment, network_id: str) -> Endpoint | None:
    return next((one for one in attachment.endpoints if one.network_id == network_id), None)
