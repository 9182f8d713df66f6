"""The flags of run and create that concern networks and ports, with docker's grammar."""

from __future__ import annotations

from ...spec.errors import Invalid
from ...spec.network import MODES, PORT_MAX, PROTOCOLS, ROUTED, EndpointRequest, PortRequest
from .flags import BOOL, LIST, STRING, BadValue, Flag, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .flags import Options

_HINT_PORT = "write [HOST_IP:]HOST_PORT:CONTAINER_PORT[/PROTOCOL], such as 8080:80 or 127.0.0.1:8000-8010:80-90/udp"
_HINT_LINK = "write it as --link CONTAINER:ALIAS"
_HINT_NETWORK = "write a network's name, or name=NET,alias=NAME,ip=ADDRESS"


class Chosen:
    """One --network. name: of the network or mode; fields: what the long form says beside it."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields


def parse_port(text: str) -> PortRequest:
    """[[HOST_IP:]HOST_PORT[-LAST]:]PORT[-LAST][/PROTOCOL]; an IPv6 address stands in brackets.

    Behind it, with commas: mode=host-input, nat or routed, and from=SUBNET, which may come several times. Or docker's
    other form: published=8080,target=80,protocol=tcp.
    """
    text, *said = _plain(text).split(",")
    mode, sources = _manner(said)
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise BadValue(f"invalid proto: {protocol}", _HINT_PORT)
    host_ip = ""
    if rest.startswith("["):
        host_ip, bracket, rest = rest[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise BadValue(f"invalid port specification: {text!r}", _HINT_PORT)
        rest = rest[1:]
    elif rest.count(":") >= 2:
        before, _, inside = rest.rpartition(":")
        host_ip, _, host = before.rpartition(":")
        rest = f"{host}:{inside}"
    host, colon, inside = rest.rpartition(":")
    if not inside:
        raise BadValue(f"no port specified: {text}<empty>", _HINT_PORT)
    first, last = _range(inside, "containerPort")
    host_first, host_last = _range(host, "hostPort") if colon and host else (0, 0)
    if host_ip and not _is_address(host_ip):
        raise BadValue(f"invalid IP address: {host_ip}", _HINT_PORT)
    if host_first and host_last - host_first != last - first and first != last:
        raise BadValue(f"invalid ranges specified for container and host Ports: {inside} and {host}", _HINT_PORT)
    if not first:
        raise BadValue(f"invalid containerPort: {inside}", _HINT_PORT)
    if mode == ROUTED and (host_ip or host_first or sources):
        raise BadValue(f"a routed port has no port of the host: {text}", _HINT_PORT)
    return PortRequest(
        host_ip=host_ip,
        host_first=host_first,
        host_last=host_last,
        first=first,
        last=last,
        protocol=protocol,
        mode=mode,
        sources=sources,
    )


def _plain(text: str) -> str:
    """Return docker's fields of a port as the text that stands for the same."""
    if "=" not in text.partition(",")[0]:
        return text
    fields, more = {"published": "", "target": "", "protocol": "tcp"}, []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            cause = f"invalid publish opts format (should be name=value but got '{part[:60]}')"
            raise BadValue(cause, "write published=8080,target=80")
        if key in fields:
            fields[key] = value
        elif part not in ("mode=ingress", "mode=host"):  # of services: on one machine both are the same
            more.append(part)
    return ",".join((f"{fields['published']}:{fields['target']}/{fields['protocol']}", *more))


def _manner(said: list[str]) -> tuple[str, tuple[str, ...]]:
    """Return (mode, sources) of what stands behind the commas of -p."""
    mode, sources = "", []
    for field in said:
        key, _, value = field.partition("=")
        if key == "mode" and value in MODES[1:]:
            mode = value
        elif key == "from" and value:
            sources.append(value)
        else:
            raise BadValue(f"invalid field of a port: {field[:60]!r}", "write mode=nat, or from=10.0.0.0/8")
    return mode, tuple(sources)


def _range(text: str, what: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    for part in (low, high if dash else low):
        if not (part.isascii() and part.isdecimal()) or len(part) > 5 or int(part) > PORT_MAX:
            raise BadValue(f"invalid {what}: {text}", _HINT_PORT)
    if dash and int(high) < int(low):
        raise BadValue(f"invalid {what}: {text}", _HINT_PORT)
    return int(low), int(high if dash else low)


def _is_address(text: str) -> bool:
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def parse_network(text: str) -> Chosen:
    """A network's name, docker's comma-separated fields, or podman's NAME:field,field."""
    if "=" not in text or text.startswith("ns:/"):
        if not text:
            raise BadValue("invalid network: the name is empty", _HINT_NETWORK)
        return Chosen(text, {})
    name, colon, rest = text.partition(":")
    if colon and "=" in rest and "=" not in name:
        text = _of_podman(rest)
    else:
        name = ""
    fields: dict[str, Any] = {"aliases": (), "options": {}}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        key = key.lower()
        if not equals:
            raise BadValue(f"invalid field {part}", _HINT_NETWORK)
        if key == "name":
            name = value
        elif key == "alias":
            fields["aliases"] = (*fields["aliases"], value)
        elif key == "link-local-ip":
            fields["link_local"] = (*fields.get("link_local", ()), value)
        elif key == "driver-opt":
            option, _, setting = value.partition("=")
            fields["options"][option] = setting
        elif key == "gw-priority":
            if not value.removeprefix("-").isdecimal() or len(value) > 10:
                raise BadValue(f"invalid gw-priority ({value}): value must be an integer", _HINT_NETWORK)
            fields["gw_priority"] = int(value)
        elif key in _FIELDS:
            fields[_FIELDS[key]] = value
        else:
            raise BadValue(f"invalid field key {key}", _HINT_NETWORK)
    if not name:
        raise BadValue("network name/id is not specified", _HINT_NETWORK)
    return Chosen(name, fields)


def _of_podman(text: str) -> str:
    """Return podman's fields of a network in docker's words (podman-run(1), --network)."""
    names = {"mac": "mac-address", "interface_name": "driver-opt=com.docker.network.endpoint.ifname"}
    out = []
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        known = "ip6" if key == "ip" and ":" in value else names.get(key, key)
        out.append(f"{known}{equals}{value}")
    return ",".join(out)


_FIELDS = {"ip": "ipv4", "ip6": "ipv6", "mac-address": "mac_address"}


def parse_link(text: str) -> str:
    """CONTAINER or CONTAINER:ALIAS; which container there is, the engine knows."""
    if not text:
        raise BadValue("empty string specified for links", _HINT_LINK)
    if text.count(":") > 1:
        raise BadValue(f"bad format for links: {text}", _HINT_LINK)
    return text


PORT = Kind("list", parse_port, repeatable=True)
NETWORK = Kind("network", parse_network, repeatable=True)
_LINK = Kind("list", parse_link, repeatable=True)

# fmt: off
NETWORK_FLAGS = (
    Flag("add-host", "", LIST, "Add a custom host-to-IP mapping (host:ip)"),
    Flag("cni", "", LIST, "Connect a container to a CNI network of /etc/cni/net.d"),
    Flag("dns", "", LIST, "Set custom DNS servers"),
    Flag("dns-opt", "", LIST, "Set DNS options", hidden=True),
    Flag("dns-option", "", LIST, "Set DNS options"),
    Flag("dns-search", "", LIST, "Set custom DNS search domains"),
    Flag("egress", "", STRING, 'What it may reach: "allow" all, "deny" but for --egress-allow, "learn"', default=""),
    Flag("egress-allow", "", LIST, "Let it reach NAME[:PORT], *.NAME[:PORT] or SUBNET[:PORT]; NAME/dns: to ask for it"),
    Flag("host-access", "", LIST, "Let it reach PORT[-PORT][/PROTO] of the host's loopback at host.docker.internal"),
    Flag("ip", "", STRING, "IPv4 address (e.g., 172.30.100.104)", default=""),
    Flag("ip6", "", STRING, "IPv6 address (e.g., 2001:db8::33)", default=""),
    Flag("link", "", _LINK, "Add link to another container"),
    Flag("link-local-ip", "", LIST, "Container IPv4/IPv6 link-local addresses"),
    Flag("mac-address", "", STRING, "Container MAC address (e.g., 92:d0:c6:0a:29:33)", default=""),
    Flag("net", "", NETWORK, "Connect a container to a network", hidden=True),
    Flag("net-alias", "", LIST, "Add network-scoped alias for the container", hidden=True),
    Flag("network", "", NETWORK, "Connect a container to a network"),
    Flag("network-alias", "", LIST, "Add network-scoped alias for the container"),
    Flag("publish", "p", PORT, "Publish a container's port(s) to the host"),
    Flag("publish-all", "P", BOOL, "Publish all exposed ports to random ports", default=False),
)
# fmt: on


_OWN_FLAGS = (
    ("aliases", "--network-alias"),
    ("ipv4", "--ip"),
    ("ipv6", "--ip6"),
    ("mac_address", "--mac-address"),
    ("link_local", "--link-local-ip"),
)


def fields(options: Options) -> dict[str, Any]:
    """Return what the flags ask for, as fields of a `ContainerRequest`. Raises Invalid for contradictions."""
    plugins = (Chosen(f"cni:{name}", {}) for name in options["cni"])
    chosen: tuple[Chosen, ...] = (*options["network"], *options["net"], *plugins)
    mode = chosen[0].name if chosen else ""
    is_own = mode not in ("", "default", "bridge", "none", "host") and not mode.startswith(("container:", "ns:"))
    return {
        "network": "" if mode == "default" else mode,
        "endpoints": _endpoints(options, chosen),
        "ports": options["publish"],
        "publish_all": options["publish-all"],
        "dns": options["dns"],
        "dns_search": options["dns-search"],
        "dns_options": (*options["dns-opt"], *options["dns-option"]),
        "extra_hosts": options["add-host"],
        "egress": options["egress"],
        "egress_allow": options["egress-allow"],
        "host_access": options["host-access"],
        "links": () if is_own else options["link"],
    }


def _endpoints(options: Options, chosen: tuple[Chosen, ...]) -> tuple[EndpointRequest, ...]:
    own = {
        "aliases": (*options["network-alias"], *options["net-alias"]),
        "ipv4": options["ip"],
        "ipv6": options["ip6"],
        "mac_address": options["mac-address"],
        "link_local": options["link-local-ip"],
    }
    first = chosen[0] if chosen else Chosen("bridge", {})
    named = first.name if first.name != "default" else "bridge"
    if private := next((one.name for one in chosen if _is_private(one.name)), ""):
        _refuse_private(private, chosen, own)
        return ()
    if not chosen and not any(own.values()):
        return ()
    for key, flag in _OWN_FLAGS:
        if own[key] and first.fields.get(key):
            cause = f"conflicting options: cannot specify both {flag} and the same of --network {first.name}"
            raise Invalid("use", flag, cause, hint="leave one of them away", code="E0707")
    links = options["link"] if named != "bridge" else ()
    merged = {**first.fields, **{key: value for key, value in own.items() if value}}
    found = [EndpointRequest(network=named, links=links, **merged)]
    found += [EndpointRequest(network=one.name, **one.fields) for one in chosen[1:]]
    names = [endpoint.network for endpoint in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid("use", "--network", f"network {twice!r} is specified multiple times", hint="name it once")
    return tuple(found)


def _is_private(mode: str) -> bool:
    return mode in ("none", "host") or mode.startswith(("container:", "ns:"))


def _refuse_private(mode: str, chosen: tuple[Chosen, ...], own: dict[str, Any]) -> None:
    if len(chosen) > 1:
        cause = "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        raise Invalid("use", "--network", cause, hint=f"use --network {mode} alone", code="E0707")
    hint = "they belong to a network of your own"
    if own["aliases"]:
        cause = "network-scoped aliases are only supported for user-defined networks"
        raise Invalid("use", f"--network {mode}", cause, hint=hint, code="E0707")
    if own["ipv4"] or own["ipv6"] or own["link_local"]:
        cause = "user specified IP address is supported on user defined networks only"
        raise Invalid("use", f"--network {mode}", cause, hint=hint, code="E0710")
    if own["mac_address"]:
        cause = "conflicting options: mac-address and the network mode"
        raise Invalid("use", f"--network {mode}", cause, hint="leave --mac-address away", code="E0707")
