"""Networks of driver `cni`: others' plugins make and unmake a container's part in them.

    network create -d cni NAME                    the configuration of that name in /etc/cni/net.d
    network create -d cni -o conflist=FILE NAME   that file's
    run --cni NAME                                makes the network when it is not there yet

The configuration is kept with the network: a file that changes changes no network that exists. An endpoint keeps what
ADD was told and what it returned, so that DEL and CHECK get the same, whatever engine asks (libcni's cache).

Invariants:
1. endpoints.json names an endpoint before its ADD: whoever finds it there asks for DEL, which may be asked twice.
2. A plugin runs without the networks' lock: one that hangs delays its own container alone.
"""

from __future__ import annotations

import os
import threading

from ...network import subnet
from ...network.cni import client, conflist, plugin, result
from ...network.cni.client import Place
from ...spec.errors import Internal, Invalid, OrlopError
from ...spec.network import NetworkRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...network.cni.conflist import Conflist
    from ...network.cni.plugin import Plugins
    from ...spec.network import Attachment, Endpoint, EndpointRequest, Network, Published
    from ..containers.record import ContainerRecord
    from ..engine import Engine

DRIVER, PREFIX = "cni", "cni:"
OPTION_CONFLIST, OPTION_TIMEOUT = "conflist", "timeout"
TIMEOUT_S_MAX = 3600


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


def intended(endpoint: Endpoint, network: Network, wish: EndpointRequest, ports: tuple[Published, ...]) -> Endpoint:
    """Return an endpoint with what its plugins are to be told: known before anything is made."""
    told: dict[str, object] = {}
    if ports:
        told["portMappings"] = [
            {
                "hostPort": port.host_first + offset,
                "containerPort": port.first + offset,
                "protocol": port.protocol,
                **({"hostIP": port.host_ip} if port.host_ip else {}),
            }
            for port in ports
            for offset in range(port.count)
        ]
    mac = subnet.usual_mac(wish.mac_address) if wish.mac_address else ""
    if mac:
        told["mac"] = mac
    addresses = [address for address in (wish.ipv4, wish.ipv6) if address]
    if addresses:
        told["ips"] = addresses
    told["aliases"] = {_name_of(network): list(endpoint.names)}
    return endpoint.replace(capabilities=told, mac_address=mac)


def _name_of(network: Network) -> str:
    return str(network.conflist.get("name", network.name))


def connect(engine: Engine, record: ContainerRecord, attachment: Attachment, netns: int) -> Attachment:
    """Have the plugins connect a container wherever they are to; return what it holds then. Raises OrlopError."""
    for endpoint in attachment.endpoints:
        network = engine.networks.store.get(endpoint.network_id)
        if network is None or network.driver != DRIVER or endpoint.result:
            continue
        place = _place(record.id, endpoint, f"/proc/{os.getpid()}/fd/{netns}")
        made = client.add(_plugins(network), _conflist(network), place)
        made_endpoint = _endpoint(endpoint, made, record.subject)
        attachment = attachment.replace(
            endpoints=tuple(made_endpoint if one.id == endpoint.id else one for one in attachment.endpoints)
        )
        with engine.networks.lock:
            engine.networks.attachments.hold(record.id, attachment)
    return attachment


def disconnect(engine: Engine, container_id: str, endpoints: tuple[Endpoint, ...], netns: int | None) -> None:
    """Have the plugins give back what endpoints have. netns: the namespace, None once it is gone.

    What a plugin refuses is told in the log: nobody waits for an end that never comes.
    """
    for endpoint in endpoints:
        network = engine.networks.store.get(endpoint.network_id)
        if network is None or network.driver != DRIVER:
            continue
        place = _place(container_id, endpoint, "" if netns is None else f"/proc/{os.getpid()}/fd/{netns}")
        try:
            client.delete(_plugins(network), _conflist(network), place, endpoint.result)
        except OrlopError as wrong:
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
    wanted = {key: held for key, held in stale.items() if any(is_cni(engine, one) for one in held.endpoints)}

    def work() -> None:
        for container_id, held in wanted.items():
            disconnect(engine, container_id, held.endpoints, None)

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
        client.collect(plugins, configuration, _valid(engine, network))
    elif verb == "check":
        for container_id, endpoint in engine.networks.attachments.on(network.id):
            _check(engine, container_id, endpoint, plugins, configuration)
    else:
        raise Invalid("do", network.subject, f"there is no {verb[:40]!r}", hint="use status, check or gc")
    return {}


def collect_all(engine: Engine, network: Network) -> None:
    """Have plugins let go of everything of a network that is removed. What they refuse is told in the log."""
    try:
        client.collect(_plugins(network), _conflist(network), ())
    except OrlopError as wrong:
        engine.log.write(f"the plugins of network {network.name} keep something: {wrong}")


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


def _valid(engine: Engine, network: Network) -> list[tuple[str, str]]:
    return [(container_id, endpoint.interface) for container_id, endpoint in engine.networks.attachments.on(network.id)]


def _place(container_id: str, endpoint: Endpoint, netns: str) -> Place:
    addresses = endpoint.capabilities.get("ips")
    first = str(addresses[0]) if isinstance(addresses, list) and addresses else ""
    mac = str(endpoint.capabilities.get("mac", ""))
    words = [("IgnoreUnknown", "1"), ("IP", first), ("MAC", mac)]
    args = ";".join(f"{key}={value}" for key, value in words if value)
    return Place(container_id, endpoint.interface, netns, endpoint.capabilities, args)


def _endpoint(endpoint: Endpoint, made: dict[str, object], subject: str) -> Endpoint:
    """Return an endpoint with what its plugins say it has."""
    try:
        found = result.addresses(made)
    except ValueError as wrong:
        cause = f"its plugins returned a result that can't be understood: {wrong}"
        raise Internal("connect", subject, cause, hint="report it to whoever made them") from None
    mac = result.mac_address(made, endpoint.interface) or endpoint.mac_address
    endpoint = endpoint.replace(result=made, mac_address=mac)
    for one in found:
        if ":" in one.address and not endpoint.ipv6:
            endpoint = endpoint.replace(ipv6=one.address, ipv6_length=one.length, gateway6=one.gateway)
        elif ":" not in one.address and not endpoint.ipv4:
            endpoint = endpoint.replace(ipv4=one.address, ipv4_length=one.length, gateway=one.gateway)
    return endpoint


def _conflist(network: Network) -> Conflist:
    return conflist.Conflist(network.conflist, network.subject)


def _plugins(network: Network) -> Plugins:
    places = tuple(one for one in os.environ.get("CNI_PATH", "").split(":") if one.startswith("/"))
    timeout_s = float(network.options.get(OPTION_TIMEOUT) or plugin.TIMEOUT_S_DEFAULT)
    return plugin.Plugins(places or plugin.DIRECTORIES, timeout_s)


def _directories() -> tuple[str, ...]:
    place = os.environ.get("NETCONFPATH", "")  # nerdctl's name for it
    return (place, *conflist.DIRECTORIES) if place.startswith("/") else conflist.DIRECTORIES
