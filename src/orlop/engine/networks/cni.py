"""Networks of driver `cni`: others' plugins make and unmake a container's part in them.

    network create -d cni NAME                    the configuration of that name in /etc/cni/net.d
    network create -d cni -o conflist=FILE NAME   that file's
    run --cni NAME                                makes the network when it is not there yet

The configuration is kept with the network: a file that changes changes no network that exists. An endpoint keeps what
ADD was told and what it returned, so that DEL and CHECK get the same, whatever engine asks; other runtimes find it in
libcni's cache.

Invariants:
1. endpoints.json names an endpoint before its ADD, and what each plugin returned once it has: whoever finds it there
   asks for DEL, which may be asked twice.
2. A plugin runs without the networks' lock: one that hangs delays its own container alone.
3. A container's plugins never run twice at once, whatever engine has started them (network.cni.turns).
"""

from __future__ import annotations

import functools
import os
import threading

from ...network import subnet
from ...network.cni import cache, client, conflist, plugin, result, standin, turns
from ...network.cni.client import Place
from ...spec import jsonio
from ...spec.errors import Conflict, Internal, Invalid, OrlopError
from ...spec.network import NetworkRequest
from ...spec.paths import data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...network.cni.conflist import Conflist
    from ...network.cni.plugin import Plugins
    from ...spec.network import Attachment, Endpoint, EndpointRequest, Network, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

DRIVER, PREFIX = "cni", "cni:"
OPTION_CONFLIST, OPTION_TIMEOUT = "conflist", "timeout"
TIMEOUT_S_MAX = 3600
CAPABILITY = "cni."  # of an endpoint's option: cni.bandwidth={"ingressRate": 1000000, "ingressBurst": 1000000}
CAPABILITY_BYTES_MAX = 1 << 14
_IMPLIED = frozenset(("aliases", "dns", "cgroupPath", "mac", "ips"))  # told to whoever wants to hear it


def first_plugin(network: Network) -> str:
    """Return the type of the plugin that makes the interface. Raises Invalid, Unsupported."""
    return str(conflist.Conflist(network.conflist, network.subject).plugins[0]["type"])


def configured(request: NetworkRequest, subject: str) -> dict[str, object]:
    """Return the configuration that a new network is to have. Raises NotFound, Invalid, Unsupported."""
    if request.pools or request.ipv6 or request.internal or not request.ipv4:
        cause = "a network of plugins has its subnets from its configuration"
        raise Invalid("create", subject, cause, hint="write them into the conflist")
    timeout = request.options.get(OPTION_TIMEOUT, "1")
    if not (timeout.isascii() and timeout.isdecimal() and 0 < int(timeout[:6]) <= TIMEOUT_S_MAX):
        cause = f"invalid timeout: {timeout[:40]!r}"
        raise Invalid("create", subject, cause, hint=f"give seconds, from 1 to {TIMEOUT_S_MAX}")
    path = request.options.get(OPTION_CONFLIST, "")
    if path and not path.startswith("/"):
        raise Invalid("create", subject, f"{path[:100]!r} is no absolute path", hint="begin it with /")
    return (conflist.read(path) if path else conflist.find(request.name, _directories())).document


def adopt(engine: Engine, reference: str) -> None:
    """Make the network that `cni:NAME` means, when it is not there yet. Raises NotFound, Invalid, Conflict."""
    from . import lifecycle

    name = reference.removeprefix(PREFIX)
    with engine.networks.lock:
        if reference.startswith(PREFIX) and not any(
            network.name == name and network.driver == DRIVER for network in engine.networks.store.all().values()
        ):
            lifecycle.create(engine, NetworkRequest(name=name, driver=DRIVER))


def intended(
    endpoint: Endpoint, network: Network, wish: EndpointRequest, ports: tuple[Published, ...], record: ContainerRecord
) -> Endpoint:
    """Return an endpoint with what its plugins are to be told: known before anything is made. Raises Invalid."""
    request = record.request
    asked = {"servers": request.dns, "searches": request.dns_search, "options": request.dns_options}
    addresses = [address for address in (wish.ipv4, wish.ipv6) if address]
    mac = subnet.usual_mac(wish.mac_address) if wish.mac_address else ""
    told: dict[str, object] = {
        "portMappings": [
            {
                "hostPort": port.host_first + offset,
                "containerPort": port.first + offset,
                "protocol": port.protocol,
                **({"hostIP": port.host_ip} if port.host_ip else {}),
            }
            for port in ports
            for offset in range(port.count)
        ],
        "mac": mac,
        "ips": addresses,
        "dns": {key: list(value) for key, value in asked.items() if value},
        "cgroupPath": record.cgroup,
        "aliases": {_name_of(network): list(endpoint.names)},
        **chosen(wish.options, record.subject),
    }
    told = {key: value for key, value in told.items() if value}
    return endpoint.replace(capabilities=told, mac_address=mac)


def chosen(options: Mapping[str, str], subject: str) -> dict[str, object]:
    """Return the capabilities that an endpoint's options name: JSON, or a string. Raises Invalid."""
    found: dict[str, object] = {}
    for key, text in options.items():
        if key.startswith(CAPABILITY):
            is_json = text.lstrip()[:1] in ("{", "[", '"')
            value = jsonio.parse(text, f"the option {key}", bytes_max=CAPABILITY_BYTES_MAX) if is_json else text
            if not value or len(text) > CAPABILITY_BYTES_MAX or not key.removeprefix(CAPABILITY).isalnum():
                hint = """write it as cni.bandwidth={"ingressRate": 1000000, "ingressBurst": 1000000}"""
                raise Invalid("connect", subject, f"invalid option {key[:60]!r}", hint=hint)
            found[key.removeprefix(CAPABILITY)] = value
    return found


def _name_of(network: Network) -> str:
    return str(network.conflist.get("name", network.name))


def connect(engine: Engine, record: ContainerRecord, attachment: Attachment, netns: int) -> Attachment:
    """Have the plugins connect a container wherever they are to; return what it holds then. Raises OrlopError."""
    for endpoint in attachment.endpoints:
        network = engine.networks.store.get(endpoint.network_id)
        if network is None or network.driver != DRIVER or endpoint.result:
            continue

        place = _place(record.id, endpoint, f"/proc/{os.getpid()}/fd/{netns}")
        configuration = _conflist(network)
        keep = functools.partial(_keep_result, engine, record.id, endpoint)
        with turns.taken(engine.paths.run, record.id) as turn:
            made = client.add(_plugins(network, turn), configuration, place, keep)
        attachment = _keep(engine, record.id, _endpoint(endpoint, made, record.subject))
        try:
            cache.add(_cache(engine), configuration, place, made)
        except OSError as failure:
            engine.log.write(f"the CNI network {network.name} has no cached result of {record.id}: {failure}")
    return attachment


def _keep_result(engine: Engine, container_id: str, endpoint: Endpoint, told: dict[str, object]) -> None:
    _keep(engine, container_id, endpoint.replace(result=told))


def _keep(engine: Engine, container_id: str, endpoint: Endpoint) -> Attachment:
    """Have a container hold what is known of an endpoint by now; return all that it holds. Raises OSError."""
    networks = engine.networks
    with networks.lock:
        held = networks.attachments.get(container_id)
        assert held is not None
        held = held.replace(endpoints=tuple(endpoint if one.id == endpoint.id else one for one in held.endpoints))
        networks.attachments.hold(container_id, held)
    return held


def members(engine: Engine, endpoints: tuple[Endpoint, ...]) -> list[tuple[Endpoint, Network]]:
    """Return those endpoints that plugins have made, and their networks."""
    found = ((endpoint, engine.networks.store.get(endpoint.network_id)) for endpoint in endpoints)
    return [(endpoint, network) for endpoint, network in found if network is not None and network.driver == DRIVER]


def disconnect(engine: Engine, container_id: str, held: list[tuple[Endpoint, Network]], netns: int | None) -> None:
    """Have the plugins give back what endpoints have. netns: the namespace, None once it is gone.

    What a plugin refuses is told in the log, and stays in the cache: nobody waits for an end that never comes.
    """
    for endpoint, network in held:
        place = _place(container_id, endpoint, "" if netns is None else f"/proc/{os.getpid()}/fd/{netns}")
        try:
            with turns.taken(engine.paths.run, container_id) as turn:
                standin.delete(_plugins(network, turn), _conflist(network), place, endpoint.result)
            cache.drop(_cache(engine), _name_of(network), place)
        except (OrlopError, OSError) as wrong:
            engine.log.write(f"the CNI network {network.name} does not let container {container_id} go: {wrong}")


def hold_namespaces(engine: Engine) -> None:
    """Hold the namespaces of containers that an earlier engine has connected: plugins want to see them at the end."""
    for container_id, held in list(engine.networks.attachments.all.items()):
        task = engine.observe(container_id)
        if task.lives and task.status is not None and any(is_cni(engine, one) for one in held.endpoints):
            try:
                fd = os.open(f"/proc/{task.status.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has ended meanwhile
            engine.networks.namespaces[container_id] = fd


def is_cni(engine: Engine, endpoint: Endpoint) -> bool:
    """Tell whether plugins made this endpoint."""
    network = engine.networks.store.get(endpoint.network_id)
    return network is not None and network.driver == DRIVER


def forget_stale(engine: Engine) -> None:
    """Give back, in the background, what containers held when the machine went down: leases are on disk."""
    stale = engine.networks.attachments.stale
    engine.networks.attachments.stale = {}
    found = {container_id: members(engine, held.endpoints) for container_id, held in stale.items()}
    wanted = {container_id: held for container_id, held in found.items() if held}

    def work() -> None:
        for container_id, held in wanted.items():
            disconnect(engine, container_id, held, None)

    if wanted:
        threading.Thread(target=work, name="stale CNI", daemon=True).start()


def look_after(engine: Engine, reference: str, verb: str) -> dict[str, object]:
    """Ask the plugins of a network: "status", "check" each container's part, or "gc". Return {} when all is well.

    Raises OrlopError: what a plugin says is wrong.
    """
    network = engine.networks.store.find(reference)
    if network.driver != DRIVER:
        cause = f"it has the driver {network.driver}, which needs no plugins"
        raise Invalid(verb, network.subject, cause, hint="see the drivers with: orlop network ls")
    plugins, configuration = _plugins(network), _conflist(network)
    if verb == "status":
        client.status(plugins, configuration)
    elif verb == "gc":
        _collect(engine, network)
    elif verb == "check":
        for container_id, endpoint in engine.networks.attachments.on(network.id):
            _check(engine, container_id, endpoint, plugins, configuration)
    else:
        raise Invalid("do", network.subject, f"there is no {verb[:40]!r}", hint="use status, check or gc")
    return {}


def collect_all(engine: Engine, network: Network) -> None:
    """Have plugins let go of everything of a network that is removed. What they refuse is told in the log."""
    try:
        _collect(engine, network)
    except OrlopError as wrong:
        engine.log.write(f"the plugins of network {network.name} keep something: {wrong}")


def _collect(engine: Engine, network: Network) -> None:
    """Delete what the cache has of a network and nobody needs, then have plugins let go of the rest. Raises OrlopError.

    An attachment of another runtime's whose namespace is there is needed: a network's name may be in use by both.
    """
    plugins, configuration, wrong = _plugins(network), _conflist(network), None
    if configuration.disable_gc:
        return
    valid = [(container_id, one.interface) for container_id, one in engine.networks.attachments.on(network.id)]
    for cached in cache.of_network(_cache(engine), configuration.name):
        key = (cached.place.container, cached.place.interface)
        if key in valid:
            continue
        if cached.lives:
            valid.append(key)
            continue
        cached.place.netns = ""
        try:
            standin.delete(plugins, configuration, cached.place, cached.result)
            cache.drop(_cache(engine), configuration.name, cached.place)
        except (OrlopError, OSError) as failure:
            wrong = wrong or failure
    client.collect(plugins, configuration, valid)
    if isinstance(wrong, OrlopError):
        raise wrong


def _check(engine: Engine, container_id: str, endpoint: Endpoint, plugins: Plugins, configuration: Conflist) -> None:
    task = engine.observe(container_id)
    if task.status is None or not task.lives:
        return
    netns = os.open(f"/proc/{task.status.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        place = _place(container_id, endpoint, f"/proc/{os.getpid()}/fd/{netns}")
        client.check(plugins, configuration, place, endpoint.result)
    finally:
        os.close(netns)


def _place(container_id: str, endpoint: Endpoint, netns: str) -> Place:
    addresses = endpoint.capabilities.get("ips")
    first = str(addresses[0]) if isinstance(addresses, list) and addresses else ""
    mac = str(endpoint.capabilities.get("mac", ""))
    words = [("IgnoreUnknown", "1"), ("IP", first), ("MAC", mac)]
    args = ";".join(f"{key}={value}" for key, value in words if value)
    needed = frozenset(endpoint.capabilities) - _IMPLIED
    return Place(container_id, endpoint.interface, netns, endpoint.capabilities, args, needed)


def _endpoint(endpoint: Endpoint, made: dict[str, object], subject: str) -> Endpoint:
    """Return an endpoint with what its plugins say it has."""
    try:
        found = result.addresses(made)
    except ValueError as wrong:
        cause = f"its plugins returned a result that can't be understood: {wrong}"
        raise Internal("connect", subject, cause, hint="report it to whoever made them") from None
    told = result.mac_address(made, endpoint.interface)
    _check_asked(endpoint, [one.address for one in found], told, subject)
    mac = told or endpoint.mac_address
    endpoint = endpoint.replace(result=made, mac_address=mac)
    for one in found:
        if ":" in one.address and not endpoint.ipv6:
            endpoint = endpoint.replace(ipv6=one.address, ipv6_length=one.length, gateway6=one.gateway)
        elif ":" not in one.address and not endpoint.ipv4:
            endpoint = endpoint.replace(ipv4=one.address, ipv4_length=one.length, gateway=one.gateway)
    return endpoint


def _check_asked(endpoint: Endpoint, addresses: list[str], mac: str, subject: str) -> None:
    """Raise Conflict where plugins have passed over an address that was asked for."""
    asked = endpoint.capabilities.get("ips")
    for address in asked if isinstance(asked, list) else []:
        if subnet.text(*subnet.number(str(address).partition("/")[0])) not in addresses:
            hint = "leave --ip away, or use an IPAM plugin that takes it (host-local)"
            raise Conflict("connect", subject, f"its network's plugins do not give it the address {address}", hint=hint)
    wanted = str(endpoint.capabilities.get("mac", "")).replace("-", ":").lower()
    if wanted and mac and mac.lower() != wanted:
        hint = 'add the plugin {"type": "tuning", "capabilities": {"mac": true}} to the network'
        raise Conflict("connect", subject, f"its network's plugins do not give it the MAC {wanted}", hint=hint)


def _conflist(network: Network) -> Conflist:
    return conflist.Conflist(network.conflist, network.subject)


def _plugins(network: Network, turn: int = -1) -> Plugins:
    places = tuple(one for one in os.environ.get("CNI_PATH", "").split(":") if one.startswith("/"))
    timeout_s = float(network.options.get(OPTION_TIMEOUT) or plugin.TIMEOUT_S_DEFAULT)
    return plugin.Plugins(places or plugin.DIRECTORIES, timeout_s, turn)


def _cache(engine: Engine) -> str:
    """Return where results are cached: where all of root's runtimes do, or, of an engine elsewhere, among its data."""
    is_the_machines = engine.paths.root == data_directory({}, 0) and os.geteuid() == 0
    return cache.DIRECTORY if is_the_machines else f"{engine.paths.root}/cni"


def _directories() -> tuple[str, ...]:
    place = os.environ.get("NETCONFPATH", "")  # nerdctl's name for it
    return (place, *conflist.DIRECTORIES) if place.startswith("/") else conflist.DIRECTORIES
