"""`orlop network`: create, ls, rm, prune, connect, disconnect. What inspect prints lies in `inspect`."""

from __future__ import annotations

from ....spec.errors import NotFound, OrlopError
from .. import listing
from ..command import Command, Invocation, for_output, write, write_line
from ..containers.lifecycle import confirmed, prune_filters
from ..flags import BOOL, EXIT_USAGE, INT, LIST, MAP, STRING, STRINGS, Flag, UsageError
from ..main import explain
from ..values import FILTER, LABEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..template import Row

_ID_LENGTH = 12
_WARNING = "WARNING! This will remove all custom networks not used by at least one container."
_HEADERS: dict[str, object] = {
    "CreatedAt": "CREATED AT",
    "Driver": "DRIVER",
    "ID": "NETWORK ID",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Label": lambda key: str(key).rpartition(".")[2],
    "Labels": "LABELS",
    "Name": "NAME",
    "Scope": "SCOPE",
}


def _create(invocation: Invocation) -> int:
    options = invocation.options
    if options["scope"] not in ("", "local"):
        raise UsageError(f"there is no scope {options['scope'][:40]!r} on one machine", "use --scope local", EXIT_USAGE)
    request = {
        "name": invocation.arguments[0],
        "driver": options["driver"],
        "pools": _pools(invocation),
        "ipv4": options["ipv4"],
        "ipv6": options["ipv6"],
        "internal": options["internal"],
        "attachable": options["attachable"],
        "labels": dict(options["label"]),
        "ipamDriver": options["ipam-driver"],
        "configOnly": options["config-only"],
        "configFrom": options["config-from"],
        "options": {key: value for key, _, value in (text.partition("=") for text in options["opt"])},
        "ipamOptions": {key: value for key, _, value in (text.partition("=") for text in options["ipam-opt"])},
    }
    from ..containers.run import warn_of

    with invocation.connect() as engine:
        result = engine.call("networks.create", {"request": request})
    result = result if isinstance(result, dict) else {}
    warn_of(result)
    write_line(str(result.get("id", "")))
    return 0


def _pools(invocation: Invocation) -> list[dict[str, object]]:
    """Bring --gateway, --ip-range and --aux-address to the --subnet that they lie in, as docker's client does."""
    from ....network import subnet

    options = invocation.options
    pools: list[dict[str, object]] = [{"subnet": text} for text in options["subnet"]]
    try:
        known = [(subnet.parse(text), pool) for text, pool in zip(options["subnet"], pools, strict=True)]
    except ValueError as wrong:
        raise UsageError(str(wrong), "write --subnet 10.1.0.0/16", EXIT_USAGE, shows_usage=False) from None
    try:
        for key, flag, texts in (
            ("gateway", "gateway", options["gateway"]),
            ("ipRange", "ip-range", options["ip-range"]),
        ):
            for text in texts:
                pool = _pool_of(known, text.partition("/")[0], f"no matching subnet for {flag} {text}")
                if key in pool:
                    raise _contradiction(f"cannot configure multiple {flag}s on the same subnet ({text}, {pool[key]})")
                pool[key] = text
        for entry in options["aux-address"]:
            name, _, address = entry.partition("=")
            pool = _pool_of(known, address, f"no matching subnet for aux-address {address}")
            auxiliary = pool.setdefault("auxiliary", {})
            assert isinstance(auxiliary, dict)
            auxiliary[name] = address
    except ValueError as wrong:
        raise _contradiction(str(wrong)) from None
    return pools


def _pool_of(known: list[tuple[Any, dict[str, object]]], address: str, otherwise: str) -> dict[str, object]:
    for subnet, pool in known:
        if subnet.contains(address):
            return pool
    raise ValueError(otherwise if known else f"every ip-range or gateway must have a corresponding subnet: {otherwise}")


def _contradiction(words: str) -> UsageError:
    return UsageError(words, "give the --subnet that it lies in", EXIT_USAGE, shows_usage=False)


def _ls(invocation: Invocation) -> int:
    options = invocation.options
    filters = listing.filters_of(options["filter"])
    with invocation.connect() as engine:
        found = engine.call("networks.list", {"filters": filters})
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    whole: bool = options["no-trunc"]
    form: str = options["format"]
    if options["quiet"] and not form:
        write("".join(f"{for_output(_identifier(item, whole))}\n" for item in items))
    elif form in ("", "table"):
        rows = [
            (
                _identifier(item, whole),
                str(item.get("Name", "")),
                str(item.get("Driver", "")),
                str(item.get("Scope", "")),
            )
            for item in items
        ]
        listing.print_table(("NETWORK ID", "NAME", "DRIVER", "SCOPE"), rows, titled=not options["noheading"])
    else:
        rows_shown = [_row(item, whole) for item in items]
        listing.print_formatted(form, rows_shown, _HEADERS, titled=not options["noheading"])
    return 0


def _identifier(item: dict[str, Any], whole: bool) -> str:
    identifier = str(item.get("Id", ""))
    return identifier if whole else identifier[:_ID_LENGTH]


def _row(item: dict[str, Any], whole: bool) -> Row:
    from ..template import Row

    found = item.get("Labels")
    labels: dict[str, object] = found if isinstance(found, dict) else {}
    fields: dict[str, object] = {
        "CreatedAt": str(item.get("Created", "")),
        "Driver": str(item.get("Driver", "")),
        "ID": _identifier(item, whole),
        "IPv4": str(bool(item.get("EnableIPv4"))).lower(),
        "IPv6": str(bool(item.get("EnableIPv6"))).lower(),
        "Internal": str(bool(item.get("Internal"))).lower(),
        "Label": lambda key: str(labels.get(key, "")),
        "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
        "Name": str(item.get("Name", "")),
        "Scope": str(item.get("Scope", "")),
    }
    return Row("*network.networkContext", fields)


def _rm(invocation: Invocation) -> int:
    status = 0
    with invocation.connect() as engine:
        for name in invocation.arguments:
            try:
                engine.call("networks.remove", {"network": name})
            except NotFound as error:
                if not invocation.options["force"]:
                    explain(error)
                    status = EXIT_USAGE
            except OrlopError as error:
                explain(error)
                status = EXIT_USAGE
            else:
                write_line(for_output(name))
    return status


def _prune(invocation: Invocation) -> int:
    options = invocation.options
    args = prune_filters(options["filter"])
    if not options["force"] and not confirmed(_WARNING):
        return 0
    with invocation.connect() as engine:
        found = engine.call("networks.prune", args)
    removed = [str(name) for name in found.get("removed", [])] if isinstance(found, dict) else []
    if removed:
        write_line("Deleted Networks:\n" + "\n".join(removed) + "\n")
    return 0


def _connect(invocation: Invocation) -> int:
    network, container = invocation.arguments
    options = invocation.options
    request = {
        "network": network,
        "aliases": list(options["alias"]),
        "links": list(options["link"]),
        "ipv4": options["ip"],
        "ipv6": options["ip6"],
        "gwPriority": options["gw-priority"],
        "linkLocal": list(options["link-local-ip"]),
        "options": {key: value for key, _, value in (text.partition("=") for text in options["driver-opt"])},
    }
    with invocation.connect() as engine:
        engine.call("networks.connect", {"network": network, "container": container, "request": request})
    return 0


def _disconnect(invocation: Invocation) -> int:
    network, container = invocation.arguments
    args = {"network": network, "container": container, "force": invocation.options["force"]}
    with invocation.connect() as engine:
        engine.call("networks.disconnect", args)
    return 0


def _dns(invocation: Invocation) -> int:
    word, container, name = invocation.arguments
    if word != "trace":
        raise UsageError(f"there is no command network dns {word}", "write network dns trace", EXIT_USAGE)
    kind = invocation.options["type"].upper()
    with invocation.connect() as engine:
        found = engine.call("networks.trace", {"container": container, "name": name, "kind": kind})
    result = found if isinstance(found, dict) else {}
    for step in result.get("steps", []):
        write_line(for_output(str(step)))
    code = result.get("code")
    said = [str(_CODES.get(code if isinstance(code, int) else -1, code))]
    said += map(str, result.get("addresses") or ([] if code else [f"no address of type {kind}"]))
    write_line(for_output(f"answer: {', '.join(said)}"))
    return 0 if code == 0 else 1


def _cni(invocation: Invocation) -> int:
    word, network = invocation.arguments
    with invocation.connect() as engine:
        engine.call("networks.look_after", {"network": network, "verb": word})
    write_line(for_output(f"{network}: {word} found nothing wrong"))
    return 0


def _egress(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("networks.egress", {"container": invocation.arguments[0]})
    result: dict[str, Any] = found if isinstance(found, dict) else {}
    if invocation.options["format"] == "json":
        import json

        write_line(json.dumps(result))
        return 0
    for one in result.get("Learned", []):
        write_line(for_output(f"--egress-allow {one['Allow']}"))
    for one in result.get("Denied", []):
        write_line(for_output(f"denied: {one['Allow']}"))
    return 0


def _explain(invocation: Invocation) -> int:
    container, *port = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("networks.explain", {"container": container, "port": port[0] if port else ""})
    result: dict[str, Any] = found if isinstance(found, dict) else {}
    if invocation.options["format"] == "json":
        import json

        write_line(json.dumps(result))
        return 0
    for network in result.get("Networks", []):
        kind = " (internal)" if network["Internal"] else ""
        write_line(for_output(f"{result['Name']} is in {network['Name']}{kind}: {', '.join(network['Addresses'])}"))
    if outside := result.get("Outside"):
        write_line(for_output(f"it reaches {outside['Who']}: {outside['Can']}, {outside['Why']}"))
    for port in result.get("Ports", []):
        published = f", published at {port['Published']}" if port["Published"] else ", not published"
        write_line(for_output(f"{port['Port']} of {port['Address']}{published}"))
        width = max(len(one["Who"]) for one in port["From"])
        for one in port["From"]:
            write_line(for_output(f"  {one['Who']:<{width}}  {one['Can']}: {one['Why']}"))
    if not result.get("Ports"):
        write_line("it publishes no port; name one of its own to see who reaches that")
    return 0


_CODES = {-1: "none", 0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}

# fmt: off
DNS = Command(
    _dns,
    "Say how the resolver of a container resolves a name: who has it here, or which server said what",
    "trace [OPTIONS] CONTAINER NAME",
    flags=(Flag("type", "", STRING, "Type of the record: A or AAAA", default="A"),),
    arguments=(3, 3),
)
CNI = Command(
    _cni,
    "Ask the plugins of a CNI network whether they are ready, to check what they made, or to let go of the rest",
    "status|check|gc NETWORK",
    flags=(),
    arguments=(2, 2),
)
EGRESS = Command(
    _egress,
    "Show what a container with --egress learn has reached, or one with --egress deny was denied",
    "[OPTIONS] CONTAINER",
    flags=(Flag("format", "f", STRING, "How to print it: text or json", default="text"),),
    arguments=(1, 1),
)
EXPLAIN = Command(
    _explain,
    "Say who can reach a container's port, and which rule decides",
    "[OPTIONS] CONTAINER [PORT[/PROTOCOL]]",
    flags=(Flag("format", "f", STRING, "How to print it: text or json", default="text"),),
    arguments=(1, 2),
)
CREATE = Command(
    _create,
    "Create a network",
    "[OPTIONS] NETWORK",
    flags=(
        Flag("attachable", "", BOOL, "Enable manual container attachment", default=False),
        Flag("aux-address", "", MAP, "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
        Flag("config-from", "", STRING, "The network from which to copy the configuration", default=""),
        Flag("config-only", "", BOOL, "Create a configuration only network", default=False),
        Flag("driver", "d", STRING, "Driver to manage the Network", default="bridge"),
        Flag("gateway", "", STRINGS, "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("internal", "", BOOL, "Restrict external access to the network", default=False),
        Flag("ip-range", "", STRINGS, "Allocate container ip from a sub-range"),
        Flag("ipam-driver", "", STRING, "IP Address Management Driver", default="default"),
        Flag("ipam-opt", "", MAP, "Set IPAM driver specific options"),
        Flag("ipv4", "", BOOL, "Enable or disable IPv4 address assignment", default=True),
        Flag("ipv6", "", BOOL, "Enable or disable IPv6 address assignment", default=False),
        Flag("label", "", LABEL, "Set metadata on a network"),
        Flag("opt", "o", MAP, "Set driver specific options"),
        Flag("scope", "", STRING, "Control the network's scope", default=""),
        Flag("subnet", "", STRINGS, "Subnet in CIDR format that represents a network segment"),
    ),
    arguments=(1, 1),
    refused=frozenset(("ingress",)),  # a cluster's
)
LS = Command(
    _ls,
    "List networks",
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", FILTER, 'Provide filter values (e.g. "driver=bridge")'),
        listing.FORMAT_FLAG,
        listing.NOHEADING_FLAG,
        Flag("no-trunc", "", BOOL, "Do not truncate the output", default=False),
        Flag("quiet", "q", BOOL, "Only display network IDs", default=False),
    ),
    aliases=("network ls", "network list"),
)
RM = Command(
    _rm,
    "Remove one or more networks",
    "NETWORK [NETWORK...]",
    flags=(Flag("force", "f", BOOL, "Do not error if the network does not exist", default=False),),
    arguments=(1, None),
    aliases=("network rm", "network remove"),
)
PRUNE = Command(
    _prune,
    "Remove all unused networks",
    "[OPTIONS]",
    flags=(
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", BOOL, "Do not prompt for confirmation", default=False),
    ),
)
CONNECT = Command(
    _connect,
    "Connect a container to a network",
    "[OPTIONS] NETWORK CONTAINER",
    flags=(
        Flag("alias", "", STRINGS, "Add network-scoped alias for the container"),
        Flag("driver-opt", "", STRINGS, "driver options for the network"),
        Flag("gw-priority", "", INT, "Highest gw-priority provides the default gateway", default=0),
        Flag("ip", "", STRING, 'IPv4 address (e.g., "172.30.100.104")', default=""),
        Flag("ip6", "", STRING, 'IPv6 address (e.g., "2001:db8::33")', default=""),
        Flag("link", "", LIST, "Add link to another container"),
        Flag("link-local-ip", "", STRINGS, "Add a link-local address for the container"),
    ),
    arguments=(2, 2),
)
DISCONNECT = Command(
    _disconnect,
    "Disconnect a container from a network",
    "[OPTIONS] NETWORK CONTAINER",
    flags=(Flag("force", "f", BOOL, "Force the container to disconnect from a network", default=False),),
    arguments=(2, 2),
)
# fmt: on
