"""Networks in docker's JSON (API 1.50): the objects of /networks, and a container's part in them."""

from __future__ import annotations

from ...spec.errors import Invalid, OrlopError
from ...spec.network import ROUTED
from ..containers.state import CREATED
from ..labels import has_label
from . import attach, parents, ports
from .host import TRUTHS
from .store import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ...spec.network import Attachment, Endpoint, EndpointRequest, Network, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

    Test = Callable[[Engine, Network, str], bool]

# What only a container's whole object tells of its places in networks (moby, daemon/container/view.go).
_NOT_LISTED: dict[str, object] = dict.fromkeys(("Links", "Aliases", "DriverOpts", "DNSNames"))


# -- networks -------------------------------------------------------------------------------------------------------


def summaries(engine: Engine, filters: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return docker's objects of the networks that fit. Raises Invalid for a filter that does not exist."""
    tests = [_test(key, values) for key, values in filters.items() if values]
    found = [
        network for network in engine.networks.store.all().values() if all(test(engine, network) for test in tests)
    ]
    return [described(engine, network, with_containers=False) for network in sorted(found, key=lambda one: one.name)]


def details(engine: Engine, reference: str) -> dict[str, object]:
    """Return docker's object of one network. Raises NotFound, Invalid."""
    return described(engine, engine.networks.store.find(reference), with_containers=True)


def described(engine: Engine, network: Network, *, with_containers: bool) -> dict[str, object]:
    """Return docker's object of a network."""
    options = dict(network.options)
    if network.driver in parents.DRIVERS and network.link:
        options.setdefault("parent", network.link)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created_at,
        "Scope": "local",
        "Driver": "null" if network.config_only else network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": [_pool(pool) for pool in network.pools if pool.subnet],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": dict(_members(engine, network)) if with_containers else {},
        "Options": options,
        "Labels": dict(network.labels),
    }


def _pool(pool: object) -> dict[str, object]:
    found = {
        "Subnet": getattr(pool, "subnet", ""),
        "IPRange": getattr(pool, "ip_range", ""),
        "Gateway": getattr(pool, "gateway", ""),
        "AuxiliaryAddresses": dict(getattr(pool, "auxiliary", {})),
    }
    return {key: value for key, value in found.items() if value}


def _members(engine: Engine, network: Network) -> Iterator[tuple[str, dict[str, str]]]:
    for container_id, endpoint in engine.networks.attachments.on(network.id):
        try:
            name = engine.records.load(container_id).name
        except OrlopError:
            continue
        yield (
            container_id,
            {
                "Name": name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": f"{endpoint.ipv4}/{endpoint.ipv4_length}" if endpoint.ipv4 else "",
                "IPv6Address": f"{endpoint.ipv6}/{endpoint.ipv6_length}" if endpoint.ipv6 else "",
            },
        )


def test_of(key: str) -> Test:
    """Return what a filter asks. Raises Invalid with docker's text."""
    test = _FILTERS.get(key)
    if test is None:
        hint = f"known are {', '.join(sorted(_FILTERS))}"
        raise Invalid("list", "networks", f"invalid filter '{key[:60]}'", hint=hint, code="E0210")
    return test


def _test(key: str, values: Sequence[str]) -> Callable[[Engine, Network], bool]:
    test = test_of(key)
    for value in values:
        if key == "type" and value not in ("builtin", "custom"):
            raise Invalid(
                "list", "networks", f"invalid filter: 'type'='{value[:60]}'", hint="use builtin or custom", code="E0210"
            )
        if key == "dangling" and value.lower() not in TRUTHS:
            cause = f"invalid filter 'dangling={value[:60]}'"
            raise Invalid("list", "networks", cause, hint="use true or false", code="E0210")
    if key in ("id", "name"):
        from ..containers.filters import expression

        fits = [expression(key, value) for value in values]
        return lambda engine, network: any(one(network.id if key == "id" else network.name) for one in fits)
    combine = all if key == "label" else any
    return lambda engine, network: combine(test(engine, network, value) for value in values)


def _is_dangling(engine: Engine, network: Network, value: str) -> bool:
    used = is_predefined(network) or any(True for _ in engine.networks.attachments.on(network.id))
    return used != TRUTHS[value.lower()]


def is_predefined(network: Network) -> bool:
    """Tell whether a network is one of those that are always there."""
    from .store import PREDEFINED

    return network.name in PREDEFINED


_FILTERS: dict[str, Test] = {
    "dangling": _is_dangling,
    "driver": lambda engine, network, value: network.driver == value,
    "id": lambda engine, network, value: value in network.id,
    "label": lambda engine, network, value: has_label(network.labels, value),
    "name": lambda engine, network, value: value in network.name,
    "scope": lambda engine, network, value: value == "local",
    "type": lambda engine, network, value: is_predefined(network) == (value == "builtin"),
}


# -- a container's part ---------------------------------------------------------------------------------------------


def summary_of(engine: Engine, record: ContainerRecord) -> dict[str, object]:
    """Return what the list of containers says of networks: to be merged into a container's summary."""
    held = engine.networks.attachments.get(record.id)
    return {
        "Ports": list(_port_list(record, held)),
        "HostConfig": {"NetworkMode": attach.mode_told(record)},
        "NetworkSettings": {"Networks": {name: one | _NOT_LISTED for name, one in settings(engine, record).items()}},
    }


def details_of(engine: Engine, record: ContainerRecord, found: dict[str, object]) -> dict[str, object]:
    """Return docker's object of a container with everything that it says of networks."""
    held = engine.networks.attachments.get(record.id)
    networks = settings(engine, record, started=engine.observe(record.id).state != CREATED)
    before = found.get("NetworkSettings")
    bridge = networks.get("bridge", {})
    legacy = {
        key: bridge.get(key, 0 if key.endswith("Len") else "")
        for key in (
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "MacAddress",
        )
    }
    host_config = found.get("HostConfig")
    config = found.get("Config")
    return {
        **found,
        "HostConfig": {**(host_config if isinstance(host_config, dict) else {}), **_host_config(record)},
        "Config": {**(config if isinstance(config, dict) else {}), **_exposed(record)},
        "NetworkSettings": {
            "Bridge": "",
            **(before if isinstance(before, dict) else {}),
            **legacy,
            "SandboxID": held.endpoints[0].id if held and held.endpoints else "",
            "Ports": _port_map(record, held),
            "Networks": networks,
        },
    }


def settings(engine: Engine, record: ContainerRecord, *, started: bool = False) -> dict[str, dict[str, object]]:
    """Return docker's EndpointSettings by the networks' names: of those it is in, or will be.

    started: it was once. Then it has names, which docker's daemon finds at the first start and keeps.
    """
    held = engine.networks.attachments.get(record.id)
    if not attach.has_own_networks(record):
        name = attach.mode(record)
        is_bare = name.startswith(attach.JOINED) or record.request.unplugged
        return {} if is_bare else {name: _endpoint(None, None, id_of(engine, name))}
    found = {}
    for wish in attach.wishes(record):
        try:
            network = engine.networks.store.find(wish.network)
        except OrlopError:
            found[wish.network] = _endpoint(wish, None, "")
            found[wish.network]["DNSNames"] = list(attach.dns_names(record, wish)) if started else None
            continue
        endpoint = next((one for one in held.endpoints if one.network_id == network.id), None) if held else None
        found[network.name] = _endpoint(wish, endpoint, network.id)
        if network.name != DEFAULT:  # where nobody has a name
            called = endpoint.names if endpoint else attach.dns_names(record, wish) if started else ()
            found[network.name]["DNSNames"] = list(called) or None
    return found


def names_of(record: ContainerRecord) -> set[str]:
    """Return what a filter of containers may call the networks of one."""
    return {attach.mode(record), *(wish.network for wish in attach.wishes(record))}


def id_of(engine: Engine, name: str) -> str:
    """Return the id of a network, "" of one that is not there."""
    try:
        return engine.networks.store.find(name).id
    except OrlopError:
        return ""


def _endpoint(wish: EndpointRequest | None, endpoint: Endpoint | None, network_id: str) -> dict[str, object]:
    ipam: dict[str, object] = {}
    if wish is not None:
        asked = (("IPv4Address", wish.ipv4), ("IPv6Address", wish.ipv6), ("LinkLocalIPs", list(wish.link_local)))
        ipam = {key: value for key, value in asked if value}
    return {
        "IPAMConfig": ipam or None,
        "Links": list(wish.links) or None if wish else None,
        "Aliases": list(wish.aliases) or None if wish else None,
        "MacAddress": endpoint.mac_address if endpoint else wish.mac_address if wish else "",
        "DriverOpts": dict(wish.options) or None if wish else None,
        "GwPriority": wish.gw_priority if wish else 0,
        "NetworkID": network_id,
        "EndpointID": endpoint.id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "IPPrefixLen": endpoint.ipv4_length if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.ipv6_length if endpoint else 0,
        "DNSNames": None,
    }


def _host_config(record: ContainerRecord) -> dict[str, object]:
    request = record.request
    # On a network of the user's own they are that place's, and told there.
    told = request.links if attach.mode_told(record) in ("bridge", attach.NONE) else ()
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in request.ports:
        for offset in range(port.last - port.first + 1):
            same = port.host_last - port.host_first == port.last - port.first
            host = str(port.host_first + offset) if port.host_first and same else ""
            if port.host_first and not same:
                host = f"{port.host_first}-{port.host_last}"
            place = {"HostIp": port.host_ip, "HostPort": host}
            bindings.setdefault(f"{port.first + offset}/{port.protocol}", []).append(place)
    return {
        "NetworkMode": attach.mode_told(record),
        "PortBindings": bindings,
        "PublishAllPorts": request.publish_all,
        "Dns": list(request.dns),
        "DnsOptions": list(request.dns_options),
        "DnsSearch": list(request.dns_search),
        "ExtraHosts": list(request.extra_hosts) or None,
        "Links": [f"/{link.partition(':')[0]}:/{record.name}/{link.rpartition(':')[2]}" for link in told] or None,
    }


def _exposed(record: ContainerRecord) -> dict[str, object]:
    names = ports.exposed(record)
    return {"ExposedPorts": {name: {} for name in sorted(names)}} if names else {}  # in the order of Go's maps


def _places(held: Attachment | None) -> Iterator[tuple[Published, str]]:
    """Yield (what is published, an address of the machine it is published at)."""
    if held is None:
        return
    endpoint = next((one for one in held.endpoints if one.network_id == held.gateway), None)
    for port in held.ports:
        if port.mode == ROUTED:
            continue  # of the container's own address, which no field of docker's has
        if port.host_ip:
            yield port, port.host_ip
            continue
        if endpoint is not None and endpoint.ipv4:
            yield port, "0.0.0.0"
        if endpoint is not None and endpoint.ipv6:
            yield port, "::"


def _port_map(record: ContainerRecord, held: Attachment | None) -> dict[str, list[dict[str, str]] | None]:
    if held is None or not held.endpoints:
        return {}
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(ports.exposed(record))
    for port, address in _places(held):
        for offset in range(port.count):
            name = f"{port.first + offset}/{port.protocol}"
            place = {"HostIp": address, "HostPort": str(port.host_first + offset)}
            found[name] = [*(found.get(name) or []), place]
    return found


def _port_list(record: ContainerRecord, held: Attachment | None) -> Iterator[dict[str, object]]:
    published = set()
    for port, address in _places(held):
        for offset in range(port.count):
            published.add(f"{port.first + offset}/{port.protocol}")
            yield {
                "IP": address,
                "PrivatePort": port.first + offset,
                "PublicPort": port.host_first + offset,
                "Type": port.protocol,
            }
    for name in ports.exposed(record) if held is not None else ():
        number, _, protocol = name.partition("/")
        if name not in published:
            yield {"PrivatePort": int(number), "Type": protocol}
