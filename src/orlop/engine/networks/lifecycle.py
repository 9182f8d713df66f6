"""The verbs of networks: create, remove, prune, connect, disconnect."""

from __future__ import annotations

from ...network import pools, subnet
from ...spec.container import ContainerRequest
from ...spec.errors import Conflict, Denied, Invalid, NotFound, OrlopError, Unavailable, Unsupported
from ...spec.network import EndpointRequest, Network, NetworkRequest, Pool, PoolRequest
from .. import events
from ..containers import files
from ..containers.inspect import unix_time
from ..containers.record import timestamp
from ..labels import has_label
from . import attach, cni, egress, host, interfaces, parents, requests
from .store import PREDEFINED, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...spec.network import Attachment
    from ..containers.record import ContainerRecord
    from ..engine import Engine

DRIVERS = ("bridge", *parents.DRIVERS, cni.DRIVER)
NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and'
    " try again."
)
LINK_NAME_LENGTH_MAX = 15
IPV4_MTU_MIN, IPV6_MTU_MIN, MTU_MAX = 68, 1280, 65535  # with less there is no IPv6 on a link (RFC 8200)
_BOOLEANS = frozenset((host.OPTION_ICC, host.OPTION_MASQUERADE, host.OPTION_INHIBIT))
_OPTIONS = {
    "bridge": frozenset((host.OPTION_NAME, host.OPTION_MTU, host.OPTION_HOST_IP, interfaces.OPTION_PREFIX))
    | _BOOLEANS
    | frozenset(host.OPTION_GATEWAY_MODE.values())
    | frozenset(host.OPTION_SOURCE.values()),
    **{driver: own | {host.OPTION_MTU, interfaces.OPTION_PREFIX} for driver, own in parents.OPTIONS.items()},
    cni.DRIVER: frozenset((cni.OPTION_CONFLIST, cni.OPTION_TIMEOUT)),
}


def create(engine: Engine, request: NetworkRequest) -> Network:
    """Make a network. Raises Invalid, Conflict for a name or a subnet that is taken, Unavailable without a free one."""
    networks = engine.networks
    subject = f"network {request.name}"
    with networks.lock:
        _check_name(engine, request.name)
        request = _from_template(engine, request, subject)
        options = _check_options(request, subject)
        network = Network(
            id=new_id(),
            name=request.name,
            driver=request.driver,
            created_at=timestamp(),
            link="",
            ipv4=request.ipv4,
            ipv6=request.ipv6,
            internal=request.internal,
            attachable=request.attachable,
            labels=request.labels,
            options=options,
            ipam_options=request.ipam_options,
            config_only=request.config_only,
            config_from=request.config_from,
        )
        network = network.replace(link=_link(engine, request, network.id, subject))
        network = network.replace(internal=network.internal or parents.is_alone(network))
        if network.driver == cni.DRIVER:
            network = network.replace(conflist=cni.configured(request, subject))
        else:
            pools_ = parents.without_gateways(request, _pools(engine, request, network.id, subject))
            network = network.replace(pools=tuple(one for one in pools_ if not (request.config_only and one.auto)))
        networks.store.save(network)
    events.publish(engine, events.NETWORK, "create", network.id, {"name": network.name, "type": network.driver})
    return network


def warnings(engine: Engine, network: Network) -> tuple[str, ...]:
    """Say which subnets that were asked for meet what this machine reaches already: as good as any to docker, while
    podman takes none that an interface has."""
    if network.driver != "bridge" or network.config_only:
        return ()
    asked = [subnet.parse(pool.subnet) for pool in network.pools if pool.subnet and not pool.auto]
    with engine.networks.lock:
        ways = engine.networks.foreign_ways() if asked else []
    told = (
        f"subnet {one} meets {found}, the way to {name or 'a gateway'}: it takes what is in both while it is up"
        for one in asked
        for found, name in ways
        if found.length >= pools.ROUTE_LENGTH_MIN and found.overlaps(one)
    )
    return tuple(dict.fromkeys(told))


def remove(engine: Engine, reference: str) -> Network:
    """Remove a network that nobody is in. Raises NotFound, Conflict with docker's texts."""
    networks = engine.networks
    with networks.lock:
        network = networks.store.find(reference)
        if network.name in PREDEFINED:
            cause = f"{network.name} is a pre-defined network and cannot be removed"
            raise Denied("remove", network.subject, cause, hint="it is always there", code="E0708")
        attach.release_ended(engine)
        _refuse_members(engine, network)
        users = [one.name for one in networks.store.all().values() if one.config_from == network.name]
        if network.config_only and users:
            cause = f'configuration network "{network.name}" is in use'
            raise Denied("remove", network.subject, cause, hint=f"remove {', '.join(users)} first")
        _down(engine, network)
        networks.store.remove(network)
    if network.driver == cni.DRIVER:
        cni.collect_all(engine, network)
    events.publish(engine, events.NETWORK, "destroy", network.id, {"name": network.name, "type": network.driver})
    return network


def prune(engine: Engine, until_ns: int | None, labels: Sequence[str], without_labels: Sequence[str]) -> list[str]:
    """Remove every network of the user's that no container is in, but configurations of others; return their names.

    until_ns: only those made before this moment. labels: it has all of them; without_labels: it has not all of them.
    """
    removed = []
    for network in sorted(engine.networks.store.all().values(), key=lambda one: one.name):
        is_kept = network.name in PREDEFINED or network.config_only
        if is_kept or not all(has_label(network.labels, label) for label in labels):
            continue
        if without_labels and all(has_label(network.labels, label) for label in without_labels):
            continue
        if until_ns is not None and unix_time(network.created_at) * 10**9 >= until_ns:
            continue
        if any(network.id in _networks_of(engine, record) for record in engine.records.all()):
            continue
        try:
            remove(engine, network.id)
        except OrlopError as wrong:
            engine.log.write(f"network {network.name} is not removed: {wrong}")
        else:
            removed.append(network.name)
    events.publish(engine, events.NETWORK, "prune", "", {"reclaimed": "0"})
    return removed


def connect(engine: Engine, reference: str, container: str, wish: EndpointRequest) -> None:
    """Put a container into a network; one that runs at once. Raises NotFound, Conflict, Invalid, Unavailable."""
    network = engine.networks.store.find(reference)
    record = engine.records.find(container)
    wish = wish.replace(network=network.name)
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        is_closed = not attach.has_own_networks(record) and not record.request.unplugged
        if is_closed or network.driver in ("host", "null"):
            raise _closed(record, network)
        if network.id in _networks_of(engine, record):
            cause = f"endpoint with name {record.name} already exists in network {network.name}"
            raise Conflict("connect", record.subject, cause, hint=f"disconnect it first from {network.name}")
        requests.check_wish(network, wish, record.subject)
        egress.check(record.request, network, record.subject)
        before = engine.networks.attachments.get(record.id)
        task = engine.observe(record.id)
        if task.lives and task.status is not None:
            _to_the_kernel(record, lambda pid: attach.connect_running(engine, record, pid, wish), task.status.pid)
        endpoints = (*attach.wishes(record), wish)
        changed = record.request.replace(endpoints=endpoints, network=endpoints[0].network, unplugged=False)
        _remember(engine, record, changed, before)
    attributes = {"container": record.id, "name": network.name, "type": network.driver}
    events.publish(engine, events.NETWORK, "connect", network.id, attributes)


def _closed(record: ContainerRecord, network: Network) -> Invalid:
    mode = attach.mode(record)
    shared = mode == attach.HOST or mode.startswith(attach.JOINED)
    if shared and network.driver not in ("host", "null"):
        cause = (
            "container sharing network namespace with another container or host"
            " cannot be connected to any other network"
        )
        return Invalid("connect", record.subject, cause, hint=f"it has --network {mode}")
    cause = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    hint = f"it has --network {mode}"
    if mode == attach.NONE and network.driver not in ("host", "null"):
        hint = f"take it out of that first: orlop network disconnect none {record.name}"
    return Invalid("connect", record.subject, cause, hint=hint)


def disconnect(engine: Engine, reference: str, container: str, force: bool) -> None:
    """Take a container out of a network. Raises NotFound, Conflict, Invalid."""
    network = engine.networks.store.find(reference)
    try:
        record = engine.records.find(container)
    except NotFound:
        if force:
            return  # the container is gone, and with it its endpoint
        raise
    if network.driver == "host":
        cause = f"container cannot be disconnected from {network.name} network"
        raise Invalid("disconnect", record.subject, cause, hint="start another container without it")
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        from_none = network.driver == "null" and attach.mode(record) == attach.NONE and not record.request.unplugged
        if not from_none and network.id not in _networks_of(engine, record):
            cause = f"container {record.id} is not connected to network {network.name}"
            raise Conflict("disconnect", record.subject, cause, hint="see its networks with: orlop inspect")
        before = engine.networks.attachments.get(record.id)
        task = engine.observe(record.id)
        if task.lives and task.status is not None and not from_none:
            _to_the_kernel(record, lambda pid: attach.disconnect_running(engine, record, pid, network), task.status.pid)
        _forget(engine, record, {network.id}, before)
    attributes = {"container": record.id, "name": network.name, "type": network.driver}
    events.publish(engine, events.NETWORK, "disconnect", network.id, attributes)


def finish(engine: Engine) -> None:
    """Finish what a dead engine had begun of connections of what runs: what the container's record says is so.

    A connection is remembered last, so one that is not is taken away. A disconnection has left its endpoint first.
    """
    for container_id, held in list(engine.networks.attachments.all.items()):
        if container_id in engine.networks.starting:
            continue
        try:
            record = engine.records.load(container_id)
            task = engine.observe(container_id)
            said, has = _networks_of(engine, record), {endpoint.network_id for endpoint in held.endpoints}
            if said == has or not task.lives or task.status is None:
                continue
            engine.log.write(f"container {container_id} was being connected or disconnected: that is finished")
            for network in filter(None, map(engine.networks.store.get, has - said)):
                attach.disconnect_running(engine, record, task.status.pid, network)
            if said - has:
                attach.settle_running(engine, record, task.status.pid)
                _forget(engine, record, said - has, held)
        except (OSError, OrlopError) as wrong:
            engine.log.write(f"the networks of container {container_id} are not as it says: {wrong}")


def _forget(engine: Engine, record: ContainerRecord, gone: set[str], before: Attachment | None) -> None:
    """Have a record not want these networks any more."""
    find = engine.networks.store.find
    left = tuple(wish for wish in attach.wishes(record) if find(wish.network).id not in gone)
    first = left[0].network if left else attach.NONE
    _remember(engine, record, record.request.replace(endpoints=left, network=first, unplugged=not left), before)


def _remember(engine: Engine, record: ContainerRecord, request: ContainerRequest, before: Attachment | None) -> None:
    changed = record.replace(request=request, network_mode=attach.mode_told(record))
    engine.records.save(changed)
    held = engine.networks.attachments.get(record.id)
    if held is not None:
        files.update(engine, changed, held, (record, before))


def _to_the_kernel(record: ContainerRecord, change: Callable[[int], None], pid: int) -> None:
    try:
        change(pid)
    except OSError as failure:
        told = f"{failure.strerror or failure}" + (f" ({failure.filename})" if failure.filename else "")
        raise Unavailable("connect", record.subject, told, hint="has it ended meanwhile?") from None


def _networks_of(engine: Engine, record: ContainerRecord) -> set[str]:
    found = set()
    for wish in attach.wishes(record):
        try:
            found.add(engine.networks.store.find(wish.network).id)
        except OrlopError:
            continue
    return found


def _refuse_members(engine: Engine, network: Network) -> None:
    members = []
    for container_id, endpoint in engine.networks.attachments.on(network.id):
        try:
            name = engine.records.load(container_id).name
        except OrlopError:
            name = container_id[:12]
        members.append(f'name:"{name}" id:"{endpoint.id[:12]}"')
    if members:
        cause = f"network {network.name} has active endpoints ({', '.join(members)})"
        raise Conflict("remove", network.subject, cause, hint="disconnect or stop them first", code="E0706")


def _down(engine: Engine, network: Network) -> None:
    try:
        if network.driver == "bridge":
            engine.networks.lower_bridge(network)
        elif network.driver in parents.DRIVERS:
            parents.lower(engine.networks, network)
    except OSError as failure:
        raise Unavailable("remove", network.subject, failure.strerror or str(failure)) from None


# -- what a request may say -----------------------------------------------------------------------------------------


def _check_name(engine: Engine, name: str) -> None:
    if name in ("default", "container") or name.startswith("container:"):
        cause = f"operation is not permitted on predefined {name} network"
        raise Denied("create", f"network {name}", cause, hint="choose another name", code="E0708")
    if name in PREDEFINED:
        cause = f"operation is not permitted on predefined {name} network"
        raise Denied("create", f"network {name}", cause, hint="choose another name", code="E0708")
    engine.networks.store.check_name(name)


def _from_template(engine: Engine, request: NetworkRequest, subject: str) -> NetworkRequest:
    """Return a request with the configuration of the network that --config-from names. Raises as docker refuses."""
    if request.config_only and (request.internal or request.attachable or request.config_from):
        cause = (
            "configuration network can only contain network specific fields. Network operator fields like"
            " [ ingress | internal | attachable | scope ] are not supported"
        )
        raise Denied("create", subject, cause, hint="say those where the network is used")
    if not request.config_from:
        return request
    template = next((one for one in engine.networks.store.all().values() if one.name == request.config_from), None)
    if template is None or not template.config_only:
        cause = f'configuration network "{request.config_from}" does not exist'
        raise NotFound("create", subject, cause, hint="make one with: orlop network create --config-only NAME")
    if request.pools or request.options or request.ipv6 or request.labels:
        cause = "user specified configurations are not supported if the network depends on a configuration network"
        raise Denied("create", subject, cause, hint="leave everything but the driver away")
    given = [pool for pool in template.pools if not pool.auto]
    return request.replace(
        pools=tuple(
            PoolRequest(subnet=pool.subnet, gateway=pool.gateway, ip_range=pool.ip_range, auxiliary=pool.auxiliary)
            for pool in given
        ),
        options=template.options,
        labels=template.labels,
        ipv4=template.ipv4,
        ipv6=template.ipv6,
        config_from=template.name,
    )


def _check_options(request: NetworkRequest, subject: str) -> dict[str, str]:
    if request.driver not in DRIVERS:
        if request.driver in ("host", "null", "none"):
            cause = f'only one instance of "{request.driver}" network is allowed'
            there = "host" if request.driver == "host" else "none"
            raise Denied("create", subject, cause, hint=f"use the one that is there: --network {there}")
        if request.driver == "overlay":
            raise Unavailable("create", subject, NO_SWARM, hint="it joins the machines of a swarm; use -d bridge here")
        cause = f'plugin "{request.driver[:60]}" not found'
        raise NotFound("create", subject, cause, hint=f"known are {', '.join(DRIVERS)}")
    if request.ipam_driver not in ("", "default"):
        cause = f'plugin "{request.ipam_driver[:60]}" not found'
        raise NotFound("create", subject, cause, hint="leave --ipam-driver away, or use -d cni and its plugins")
    if not request.ipv4 and not request.ipv6:
        raise Invalid("create", subject, "IPv4 or IPv6 must be enabled", hint="leave --ipv4=false away, or add --ipv6")
    options = dict(request.options)
    for key, value in options.items():
        if request.config_only:
            continue
        if key.startswith("com.docker.network.") and key not in _OPTIONS[request.driver] and "sysctls" not in key:
            cause = f"the option {key} is not known to the driver {request.driver}"
            known = ", ".join(sorted(_OPTIONS[request.driver]))
            raise Unsupported("create", subject, cause, hint=f"known are {known}")
        if key == interfaces.OPTION_PREFIX:
            interfaces.check_name(value, interfaces.PREFIX_LENGTH_MAX, subject)
        if key in _BOOLEANS and value.lower() not in host.TRUTHS:
            raise Invalid("create", subject, f"invalid value for {key}: {value[:40]!r}", hint="use true or false")
        if key == host.OPTION_MTU:
            _check_mtu(value, request, subject)
        if key == host.OPTION_HOST_IP:
            _number(value, subject)
        for version, option in host.OPTION_SOURCE.items():
            if key == option:
                _check_source(value, version, subject)
        if key in host.OPTION_GATEWAY_MODE.values() and value:
            _check_gateway_mode(value, request, subject)
    if request.driver in parents.DRIVERS and not request.config_only:
        parents.check(request.driver, options, subject)
    return options


def _check_mtu(value: str, request: NetworkRequest, subject: str) -> None:
    number = int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else -1
    least = IPV6_MTU_MIN if request.ipv6 else IPV4_MTU_MIN
    if number and not least <= number <= MTU_MAX:  # 0 is what it would be without
        raise Invalid("create", subject, f"invalid MTU: {value[:40]}", hint=f"give a number from {least} to {MTU_MAX}")


def _check_source(address: str, version: int, subject: str) -> None:
    if (":" in address) != (version == 6):
        cause = f"invalid IPv{version} address: {address[:60]}"
        raise Invalid("create", subject, cause, hint="give an address of this machine's")
    _number(address, subject)


def _check_gateway_mode(mode: str, request: NetworkRequest, subject: str) -> None:
    if mode == host.GATEWAY_ISOLATED:
        if not request.internal:
            cause = "gateway mode 'isolated' can only be used for an internal network"
            raise Invalid("create", subject, cause, hint="add --internal")
    elif mode == "nat-unprotected":
        cause = "gateway mode nat-unprotected would open every port of every container to all who route to it"
        raise Unsupported("create", subject, cause, hint="publish what is to be reached, with mode=routed")
    elif mode not in (host.GATEWAY_NAT, host.GATEWAY_ROUTED):
        cause = f"unknown gateway mode {mode[:40]}"
        raise Invalid("create", subject, cause, hint="known are nat, routed, isolated")


def _link(engine: Engine, request: NetworkRequest, network_id: str, subject: str) -> str:
    if request.driver == cni.DRIVER or request.config_only:
        return ""  # a template: its options are another's, whose driver knows them
    if request.driver in parents.DRIVERS:
        return parents.choose(engine.networks, request, network_id, subject)
    name = request.options.get(host.OPTION_NAME, "")
    # dev_valid_name() of the kernel, which makes a number of "%d": then the link would have another name than we know.
    is_plain = name.isprintable() and not set(" /:%") & set(name) and name not in (".", "..", "lo", "all", "default")
    if name and (len(name.encode()) > LINK_NAME_LENGTH_MAX or not is_plain):
        raise Invalid("create", subject, f"invalid name of a link: {name[:60]!r}", hint="use at most 15 letters")
    for other in engine.networks.store.all().values():
        if name and other.driver == "bridge" and engine.networks.link_name(other) == name:
            cause = f"cannot create network {request.name}: bridge name {name} is in use by network {other.name}"
            raise Conflict("create", subject, cause, hint="choose another name")
    return name


def _pools(engine: Engine, request: NetworkRequest, network_id: str, subject: str) -> tuple[Pool, ...]:
    networks = engine.networks
    known = networks.network_subnets()
    found = []
    for wanted in request.pools:
        if not wanted.subnet:
            if wanted.gateway or wanted.ip_range or wanted.auxiliary:
                cause = "every ip-range or gateway must have a corresponding subnet"
                raise Invalid("create", subject, cause, hint="give it with --subnet")
            continue
        found.append(_pool(wanted, known, subject))
        alike = sum((":" in one.subnet) == (":" in found[-1].subnet) for one in found)
        if alike > 1 and request.driver not in parents.DRIVERS:  # on a cable there may be several, each with its router
            cause = f"{request.driver} driver doesn't support multiple subnets"
            raise Unsupported("create", subject, cause, hint="give one of each family, or make two networks")
        known = [*known, (subnet.parse(found[-1].subnet), "the same network")]
    for pool in found:
        if ":" in pool.subnet and not request.ipv6:
            cause = f"{pool.subnet} is an IPv6 subnet, and the network has no IPv6"
            raise Invalid("create", subject, cause, hint="add --ipv6")
    families = {":" in pool.subnet for pool in found}
    if request.ipv4 and False not in families:
        chosen = pools.free_subnet([*networks.taken_subnets(), *(one for one, _ in known)], "", networks.store.pools())
        found.insert(0, Pool(subnet=str(chosen), gateway=pools.first_address(chosen), auto=True))
    if request.ipv6 and True not in families:
        local = pools.local_ipv6(network_id)
        found.append(Pool(subnet=str(local), gateway=pools.first_address(local), auto=True))
    return tuple(sorted(found, key=lambda pool: ":" in pool.subnet))


def _pool(wanted: PoolRequest, known: list[tuple[subnet.Subnet, str]], subject: str) -> Pool:
    whole = _subnet(wanted.subnet, subject)
    pools.check(whole, known, subject)
    gateway = wanted.gateway or pools.first_address(whole)
    for address in (gateway, *wanted.auxiliary.values()):
        if _number(address, subject) != whole.bits or not whole.contains(address):
            cause = f"no matching subnet for gateway {address}" if address == gateway else f"no subnet for {address}"
            raise Invalid("create", subject, cause, hint=f"choose an address in {whole}")
    if subnet.usual(gateway) in map(subnet.usual, wanted.auxiliary.values()):
        cause = f"failed to allocate secondary ip address ({gateway}): Address already in use"
        raise Conflict("create", subject, cause, hint="it is the gateway: leave out --aux-address", code="E0704")
    if not whole.has_room_at(gateway):
        cause = f"failed to allocate gateway ({gateway}): Address already in use"
        raise Conflict("create", subject, cause, hint=f"leave it out for {pools.first_address(whole)}", code="E0704")
    if wanted.ip_range:
        part = _subnet(wanted.ip_range, subject)
        if part.length < whole.length or not whole.overlaps(part):
            cause = f"no matching subnet for range {wanted.ip_range}"
            if whole.overlaps(part):
                cause = f"invalid ip-range {wanted.ip_range}: CIDR block is bigger than its parent subnet {whole}"
            raise Invalid("create", subject, cause, hint=f"choose a part of {whole}")
    auxiliary = {name: subnet.usual(address) for name, address in wanted.auxiliary.items()}
    return Pool(subnet=str(whole), gateway=subnet.usual(gateway), ip_range=wanted.ip_range, auxiliary=auxiliary)


def _subnet(text: str, subject: str) -> subnet.Subnet:
    try:
        return subnet.parse(text)
    except ValueError as wrong:
        raise Invalid("create", subject, str(wrong), hint="write it as 10.99.0.0/24") from None


def _number(address: str, subject: str) -> int:
    try:
        return subnet.number(address)[1]
    except ValueError as wrong:
        raise Invalid("create", subject, str(wrong), hint="write it as 10.99.0.1") from None
