"""Networks and endpoints: what a client asks for, and what the engine keeps of them.

Addresses are text without a prefix length ("10.88.0.2", "fd00::2"), subnets text with one ("10.88.0.0/16").
"""

from .record import Record

PROTOCOLS = ("tcp", "udp", "sctp")
PORT_MAX = 65535
# How a port is published: what comes passes the machine's rules for incoming packets (the default); it passes them by,
# as docker's does; the container's own address is reached, and nothing translated.
HOST_INPUT, NAT, ROUTED = "host-input", "nat", "routed"
INWARD = "inward"  # not published: the machine's loopback, as one container sees it at its gateway
MODES = ("", HOST_INPUT, NAT, ROUTED)
SOURCES_MAX = 64


class PortRequest(Record):
    """`-p`: ports of the host that lead to ports of the container. Ranges go from first to last, both counted.

    host_ip: "" for every address. host_first 0: a free port that the engine chooses. A range of host ports for one
    container port means any free one of them. mode: of MODES; sources: subnets that may come, none are all.
    """

    strict = True
    host_ip: str = ""
    host_first: int = 0
    host_last: int = 0
    first: int
    last: int
    protocol: str = "tcp"
    mode: str = ""
    sources: tuple[str, ...] = ()

    def check(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"invalid mode: {self.mode[:20]}")
        if self.mode == ROUTED and (self.sources or self.host_first or self.host_ip):
            raise ValueError("a routed port has no port of the host, and no sources")
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"invalid proto: {self.protocol[:20]}")
        for low, high in ((self.host_first, self.host_last), (self.first, self.last)):
            if not 0 <= low <= high <= PORT_MAX:
                raise ValueError(f"invalid range of ports: {low}-{high}")
        if not self.first:
            raise ValueError("invalid containerPort: 0")


class EndpointRequest(Record):
    """A container's wish for its place in one network. network: a name or an id; links: "container:alias".

    link_local: addresses of the link that its interface has beside the network's.
    """

    strict = True
    network: str
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    mac_address: str = ""
    gw_priority: int = 0
    options: dict[str, str] = {}
    link_local: tuple[str, ...] = ()


class PoolRequest(Record):
    """One of a network's subnets. ip_range: the part that addresses are given from; auxiliary: names -> addresses that
    are taken by somebody else."""

    strict = True
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRequest(Record):
    """`network create`. config_only: a template that others are made from, with config_from its name."""

    strict = True
    name: str
    driver: str = "bridge"
    pools: tuple[PoolRequest, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    config_only: bool = False
    config_from: str = ""


class Pool(Record):
    """A subnet as it was decided. auto: chosen by the engine, which may choose another one while nobody uses it."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}
    auto: bool = False


class Network(Record):
    """network.json. link: the bridge's name on the host, or the parent of a macvlan or ipvlan; conflist: of the driver
    cni."""

    id: str
    name: str
    driver: str
    created_at: str
    pools: tuple[Pool, ...] = ()
    link: str = ""
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None
    conflist: dict[str, object] = {}
    config_only: bool = False
    config_from: str = ""

    @property
    def subject(self) -> str:
        """What errors call it."""
        return f"network {self.name}"


class Endpoint(Record):
    """A container's place in one network while it runs. link: its interface's other end on the host, "" without one.

    names: what the network's DNS knows it by. on_link: its way out is its interface itself, without a gateway.
    routed: those of its addresses that others reach as they are: its ports are no ports of the machine.
    capabilities, result: what CNI plugins were told, and what they returned.
    """

    id: str
    network_id: str
    interface: str
    link: str = ""
    mac_address: str = ""
    ipv4: str = ""
    ipv4_length: int = 0
    gateway: str = ""
    ipv6: str = ""
    ipv6_length: int = 0
    gateway6: str = ""
    on_link: bool = False
    names: tuple[str, ...] = ()
    routed: tuple[str, ...] = ()
    capabilities: dict[str, object] = {}
    result: dict[str, object] = {}


class Published(Record):
    """Ports as they are published: host_first leads to first, and so on for `count` ports. host_ip "" is every one,
    "0.0.0.0" and "::" are every one of a family.

    mode, sources: as in the request.
    """

    host_ip: str = ""
    host_first: int
    first: int
    count: int = 1
    protocol: str = "tcp"
    mode: str = ""
    sources: tuple[str, ...] = ()


class RelayPort(Record):
    """fd: a bound socket, which listens if the protocol is "tcp". address, port: where it leads. sources: who may come,
    as addresses and subnets; everybody if there is none. outward: it leads to a place of the machine's namespace."""

    fd: int
    protocol: str
    address: str
    port: int
    sources: tuple[str, ...] = ()
    outward: bool = False


class RelayOrders(Record):
    """What a relay is told. link: it lives as long as this one is there.

    keeps_clients: whether containers are to see who comes, not the relay; then its namespace is one of the user's own.
    netns: the namespace of the containers, which it goes to, of one that begins in the machine's; -1 where it begins.
    """

    link: str
    ports: tuple[RelayPort, ...]
    keeps_clients: bool = False
    netns: int = -1


class Attachment(Record):
    """endpoints.json: what a running container holds of the network, valid for one boot of the machine.

    gateway: the id of the network that the default route leads through.
    relay, relay_start_time: the process that carries what comes to the ports, 0 where the firewall does.
    host_access: ports of the machine's loopback that it reaches, of mode INWARD; host_ip is its gateway, sources it.
    """

    boot_id: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Published, ...] = ()
    gateway: str = ""
    relay: int = 0
    relay_start_time: int = 0
    host_access: tuple[Published, ...] = ()


class Attempt(Record):
    """What a container tried to reach outside, a line of its file `egress`. verdict: "learned" or "denied".

    name: what it asked for, or what it found the address by; address "" for a name alone; port 0 where there is none.
    """

    verdict: str
    name: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
