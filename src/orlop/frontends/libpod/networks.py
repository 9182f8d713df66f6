"""Routes of networks. The default one, which docker's clients know as `bridge`, is `podman` here.

`host` and `none` are no networks in podman's sense: they are modes of a container, and no list has them.
"""

from __future__ import annotations

import ipaddress

from ...engine.networks import lifecycle, listing
from ...spec.errors import Invalid, NotFound, Unsupported
from ...spec.network import EndpointRequest, NetworkRequest, PoolRequest
from ..docker import creation
from ..docker.door import Door
from ..docker.words import prune_filters
from .filters import chosen, is_before, others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...engine.engine import Engine

DEFAULT, OURS = "podman", "bridge"  # one network, in podman's words and in docker's
MODES = ("host", "none")
_FILTERS: dict[str, Callable[[Mapping[str, object], str], bool]] = {
    "until": lambda one, value: is_before(one["Created"], value)
}
_MTU = {"mtu": "com.docker.network.driver.mtu"}
_OPTIONS = {theirs: ours for ours, theirs in _MTU.items()}


def name_here(engine: Engine, name: str) -> str:
    """Return what the engine calls a network of a podman user."""
    if name != DEFAULT:
        return name
    try:
        return engine.networks.store.find(name).id  # somebody has made one of that name
    except NotFound:
        return OURS


def name_there(name: str) -> str:
    """Return what podman's users call a network of the engine."""
    return DEFAULT if name == OURS else name


def list_all(door: Door) -> None:
    filters = door.filters()
    if "name" in filters:
        filters["name"] = tuple(OURS if name == DEFAULT else name for name in filters["name"])
    named = [one for one in listing.summaries(door.engine, others(filters, _FILTERS)) if one["Name"] not in MODES]
    found = [_object(one) for one in chosen(named, filters, _FILTERS)]
    door.answer_json(200, sorted(found, key=lambda one: str(one["name"])))


def inspect(door: Door) -> None:
    door.answer_json(200, _object(_find(door)))


def exists(door: Door) -> None:
    _find(door)
    door.answer(204)


def create(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    subject = f"network {body.text('name')}"
    if body.raw("dns_enabled") is False and body.text("driver") in ("", "bridge"):
        raise Unsupported("create", subject, "its names are always answered", hint="leave --disable-dns away")
    if "network_dns_servers" in body:
        raise Unsupported("create", subject, "network_dns_servers is not there", hint="give containers --dns")
    ipam = body.pairs("ipam_options").get("driver", "")
    if ipam not in ("", "host-local"):
        raise Unsupported("create", subject, f"there is no IPAM driver {ipam[:60]!r}", hint="leave it away")
    options = {_MTU.get(key, key): value for key, value in body.pairs("options").items()}
    driver, interface = body.text("driver") or "bridge", body.text("network_interface")
    if interface:
        options["parent" if driver in ("macvlan", "ipvlan") else "com.docker.network.bridge.name"] = interface
    request = NetworkRequest(
        name=body.text("name"),
        driver=driver,
        pools=tuple(_pool(one, subject) for one in body.parts("subnets")),
        ipv6=body.boolean("ipv6_enabled"),
        internal=body.boolean("internal"),
        labels=body.pairs("labels"),
        options=options,
    )
    network = lifecycle.create(door.engine, door.admit(request))
    door.answer_json(200, _object(listing.details(door.engine, network.id)))


def remove(door: Door) -> None:
    name = door.parts["name"]
    network = _find(door)
    if door.flag("force"):
        from ...engine.containers import lifecycle as containers

        members = network["Containers"]
        for member in members if isinstance(members, dict) else ():  # podman's force takes them with it
            containers.remove(door.engine, str(member), True)
    lifecycle.remove(door.engine, str(network["Id"]))
    door.answer_json(200, [{"Name": name, "Err": None}])


def connect(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    name = name_here(door.engine, door.parts["name"])
    container = body.text("container") or body.text("Container")
    lifecycle.connect(door.engine, name, container, door.admit(endpoint(name, body)))
    door.answer(200, {"Content-Type": "text/plain"}, b"OK")


def disconnect(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    name = name_here(door.engine, door.parts["name"])
    lifecycle.disconnect(door.engine, name, body.text("Container"), body.boolean("Force"))
    door.answer(200, {"Content-Type": "text/plain"}, b"OK")


def prune(door: Door) -> None:
    names = lifecycle.prune(door.engine, *prune_filters(door))
    door.answer_json(200, [{"Name": name, "Error": None} for name in names])


def endpoint(network: str, wish: creation.Reader) -> EndpointRequest:
    """Return what podman's PerNetworkOptions ask for in a network. Raises Invalid, Unsupported."""
    if wish.text("interface_name"):
        cause = "the name of an interface in the container is the engine's to give"
        raise Unsupported("connect to", f"network {network}", cause, hint="leave interface_name away")
    addresses: dict[int, str] = {}
    for text in wish.texts("static_ips"):
        try:
            addresses[ipaddress.ip_address(text).version] = text
        except ValueError:
            raise Invalid("connect to", f"network {network}", f"{text[:60]!r} is no address") from None
    return EndpointRequest(
        network=network,
        aliases=wish.texts("aliases"),
        ipv4=addresses.get(4, ""),
        ipv6=addresses.get(6, ""),
        mac_address=wish.text("static_mac"),
    )


def _find(door: Door) -> dict[str, object]:
    found = listing.details(door.engine, name_here(door.engine, door.parts["name"]))
    if found["Name"] in MODES:
        raise NotFound("find", f"network {door.parts['name']}", "it is no network")
    return found


def _pool(wish: creation.Reader, subject: str) -> PoolRequest:
    lease = wish.part("lease_range")
    first, last = lease.text("start_ip"), lease.text("end_ip")
    ip_range = ""
    if first or last:
        ip_range = _range(wish.text("subnet"), first, last, subject)
    return PoolRequest(subnet=wish.text("subnet"), gateway=wish.text("gateway"), ip_range=ip_range)


def _range(subnet: str, first: str, last: str, subject: str) -> str:
    """Return the one block whose addresses these are, as --ip-range writes it: without those that no host may have."""
    try:
        whole = ipaddress.ip_network(subnet)
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
        for length in range(whole.prefixlen, whole.max_prefixlen + 1):
            block = ipaddress.ip_network((int(low), length), strict=False)
            if low in (block[0], block[min(1, block.num_addresses - 1)]) and high in (block[-1], block[-2]):
                return str(block)
    except (ValueError, IndexError, TypeError):
        pass
    cause = f"the addresses from {first[:60]} to {last[:60]} are no one block of {subnet[:60]}"
    raise Invalid("create", subject, cause, hint="write --ip-range as 10.0.0.128/25")


def _object(found: Mapping[str, object]) -> dict[str, object]:
    """Return podman's Network of docker's object."""
    ipam = found["IPAM"]
    pools = ipam["Config"] if isinstance(ipam, dict) else []
    options = found["Options"]
    assert isinstance(options, dict)
    name, driver = str(found["Name"]), str(found["Driver"])
    interface = options.get("com.docker.network.bridge.name") or options.get("parent") or ""
    return {
        "name": name_there(name),
        "id": found["Id"],
        "driver": driver,
        **({"network_interface": interface} if interface else {}),
        "created": found["Created"],
        "subnets": [
            {"subnet": one["Subnet"], **({"gateway": one["Gateway"]} if "Gateway" in one else {}), **_lease(one)}
            for one in pools
        ],
        "ipv6_enabled": found["EnableIPv6"],
        "internal": found["Internal"],
        "dns_enabled": name != OURS,
        **({"labels": found["Labels"]} if found["Labels"] else {}),
        **({"options": {_OPTIONS.get(key, key): options[key] for key in options}} if options else {}),
        "ipam_options": {"driver": "host-local"},
    }


def _lease(pool: Mapping[str, str]) -> dict[str, object]:
    """Return the addresses that containers get, where these are not all of a subnet."""
    if not pool.get("IPRange") or pool["IPRange"] == pool["Subnet"]:
        return {}
    block = ipaddress.ip_network(pool["IPRange"])
    return {"lease_range": {"start_ip": str(block[min(1, block.num_addresses - 1)]), "end_ip": str(block[-1])}}


ROUTES = (
    ("GET", "/libpod/networks/json", list_all),
    ("POST", "/libpod/networks/create", create),
    ("POST", "/libpod/networks/prune", prune),
    ("GET", "/libpod/networks/{name}/exists", exists),
    ("GET", "/libpod/networks/{name}/json", inspect),
    ("POST", "/libpod/networks/{name}/connect", connect),
    ("POST", "/libpod/networks/{name}/disconnect", disconnect),
    ("DELETE", "/libpod/networks/{name}", remove),
)
