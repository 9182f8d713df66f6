"""`orlop ps`: the containers, from the summaries in the shape of docker's /containers/json."""

from __future__ import annotations

from .. import listing
from ..command import Command, Invocation, for_output, write
from ..flags import BOOL, INT, Flag, quote
from ..units import ago, local_time, size
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..template import Row

ID_LENGTH = 12
COMMAND_LENGTH = 20
MOUNT_LENGTH = 15

_HEADERS: dict[str, object] = {
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Label": lambda key: str(key).rpartition(".")[2].replace("-", " ").replace("_", " "),
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
    "Ports": "PORTS",
    "RunningFor": "CREATED",
    "Size": "SIZE",
    "State": "STATE",
    "Status": "STATUS",
}


def _ps(invocation: Invocation) -> int:
    options = invocation.options
    last = 1 if options["latest"] else options["last"]
    filters = listing.filters_of(options["filter"])
    form: str = options["format"]
    sized: bool = options["size"] or ".Size" in form
    args: dict[str, object] = {"all": options["all"] or last > 0, "filters": filters, "size": sized}
    with invocation.connect() as engine:
        found = engine.call("containers.list", args)
    summaries = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    if last > 0:
        summaries = sorted(summaries, key=lambda item: _number(item.get("Created")), reverse=True)[:last]
    whole: bool = options["no-trunc"]
    if options["quiet"] and not form:
        write("".join(f"{for_output(_identifier(item, whole))}\n" for item in summaries))
    elif form in ("", "table"):
        _print_table(summaries, whole, sized, titled=not options["noheading"])
    elif form == "podman-json":
        from ..podman.shapes import containers

        write(containers(summaries))
    else:
        rows = [row_of(item, whole) for item in summaries]
        listing.print_formatted(form, rows, _HEADERS, titled=not options["noheading"])
    return 0


def _print_table(summaries: list[dict[str, Any]], whole: bool, sized: bool, *, titled: bool) -> None:
    header = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", *(["SIZE"] if sized else []))
    listing.print_table(
        header,
        [
            (
                _identifier(item, whole),
                _image(item, whole),
                _command(item, whole),
                ago(_number(item.get("Created"))),
                str(item.get("Status", "")),
                ports_text(item),
                _names(item, whole),
                *([_size(item)] if sized else []),
            )
            for item in summaries
        ],
        titled=titled,
    )


def row_of(item: dict[str, Any], whole: bool) -> Row:
    """Return the fields that docker's templates know."""
    from ..template import Row

    labels = _mapping(item.get("Labels"))
    mounts = [mount for mount in _items(item.get("Mounts")) if isinstance(mount, dict)]
    places = [str(mount.get("Name") or mount.get("Source") or "") for mount in mounts]
    networks = _mapping(_mapping(item.get("NetworkSettings")).get("Networks"))
    created = _number(item.get("Created"))
    fields: dict[str, object] = {
        "Command": _command(item, whole),
        "CreatedAt": local_time(created),
        "ID": _identifier(item, whole),
        "Image": _image(item, whole),
        "Label": lambda key: str(labels.get(key, "")),
        "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in mounts)),
        "Mounts": ",".join(place if whole else listing.ellipsis(place, MOUNT_LENGTH) for place in places),
        "Names": _names(item, whole),
        "Networks": ",".join(networks),
        "Platform": None,  # docker's, of the image's manifest, where its images lie in containerd
        "Ports": ports_text(item),
        "RunningFor": ago(created),
        "Size": _size(item),
        "State": str(item.get("State", "")),
        "Status": str(item.get("Status", "")),
    }
    return Row("*formatter.ContainerContext", fields)


def _identifier(item: dict[str, Any], whole: bool) -> str:
    identifier = str(item.get("Id", ""))
    return identifier if whole else identifier[:ID_LENGTH]


def _image(item: dict[str, Any], whole: bool) -> str:
    image = str(item.get("Image", "")) or "<no image>"
    return image.removeprefix("sha256:")[:ID_LENGTH] if image.startswith("sha256:") and not whole else image


def _command(item: dict[str, Any], whole: bool) -> str:
    command = str(item.get("Command", ""))
    return quote(command if whole else listing.ellipsis(command, COMMAND_LENGTH))


def _names(item: dict[str, Any], whole: bool) -> str:
    """Return the names; the short form leaves out those with a second slash, which links make."""
    names = [str(name).removeprefix("/") for name in _items(item.get("Names"))]
    return ",".join(name for name in names if whole or "/" not in name)


def ports_text(item: dict[str, Any]) -> str:
    """Return docker's words for ports: neighbours that lead to neighbours are one range."""
    groups: dict[tuple[str, str], list[list[int]]] = {}
    for port in sorted(map(_port_of, _items(item.get("Ports")))):
        address, kind, inside, outside = port
        ranges = groups.setdefault((address, kind), [])
        last = ranges[-1] if ranges else None
        if last and last[1] + 1 == inside and last[3] + bool(outside) == outside:
            last[1], last[3] = inside, outside
        else:
            ranges.append([inside, inside, outside, outside])
    shown = []
    for (address, kind), ranges in groups.items():
        for first, last_port, host_first, host_last in ranges:
            host = f"[{address}]" if ":" in address else address
            before = f"{host}:{_span(host_first, host_last)}->" if host_first else ""
            shown.append(f"{before}{_span(first, last_port)}/{kind}")
    return ", ".join(shown)


def _port_of(value: object) -> tuple[str, str, int, int]:
    found = _mapping(value)
    inside, outside = int(_number(found.get("PrivatePort"))), int(_number(found.get("PublicPort")))
    return str(found.get("IP", "")), str(found.get("Type", "")), inside, outside


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _size(item: dict[str, Any]) -> str:
    """Return what the container wrote, and in brackets that and its image together."""
    own, whole = _number(item.get("SizeRw")), _number(item.get("SizeRootFs"))
    return f"{size(own, 3)} (virtual {size(whole, 3)})" if whole > 0 else size(own, 3)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


PS = Command(
    _ps,
    "List containers",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Show all containers (default shows just running)", default=False),
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        listing.FORMAT_FLAG,
        Flag("last", "n", INT, "Show n last created containers (includes all states)", default=-1),
        Flag("latest", "l", BOOL, "Show the latest created container (includes all states)", default=False),
        Flag("no-trunc", "", BOOL, "Don't truncate output", default=False),
        listing.NOHEADING_FLAG,
        Flag("quiet", "q", BOOL, "Only display container IDs", default=False),
        Flag("size", "s", BOOL, "Display total file sizes", default=False),
    ),
    aliases=("container ls", "container list", "container ps", "ps"),
)
