"""`orlop volume`: create, ls, rm, prune. What inspect prints lies in `inspect`."""

from __future__ import annotations

from .. import listing
from ..command import Command, Invocation, for_output, write, write_line
from ..containers.lifecycle import confirmed
from ..flags import BOOL, EXIT_USAGE, MAP, STRING, Flag, UsageError
from ..units import size
from ..values import FILTER, LABEL
from . import several

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..template import Row

_HEADERS: dict[str, object] = {
    "Availability": "AVAILABILITY",
    "Driver": "DRIVER",
    "Group": "GROUP",
    "Label": lambda key: str(key).rpartition(".")[2],
    "Labels": "LABELS",
    "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Size": "SIZE",
    "Status": "STATUS",
}
_ABSENT = "N/A"
_WARNING = "WARNING! This will remove {} local volumes not used by at least one container."


def _create(invocation: Invocation) -> int:
    options = invocation.options
    name = options["name"]
    if invocation.arguments:
        if name:
            message = "conflicting options: cannot specify a volume name through both --name and as a positional arg"
            raise UsageError(message, "leave --name away", EXIT_USAGE, shows_usage=False)
        name = invocation.arguments[0]
    pairs = (text.partition("=") for text in options["opt"])
    request = {
        "name": name,
        "driver": options["driver"],
        "driverOptions": {key: value for key, _, value in pairs},
        "labels": dict(options["label"]),
    }
    with invocation.connect() as engine:
        result = engine.call("volumes.create", {"request": request})
    write_line(str(result.get("name", "")) if isinstance(result, dict) else "")
    return 0


def _ls(invocation: Invocation) -> int:
    options = invocation.options
    with invocation.connect() as engine:
        found = engine.call("volumes.list", {"filters": _filters(invocation)})
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    items.sort(key=lambda item: _natural(str(item.get("Name", ""))))
    form: str = options["format"]
    if options["quiet"] and not form:
        write("".join(f"{for_output(str(item.get('Name', '')))}\n" for item in items))
    elif form in ("", "table"):
        rows = [(str(item.get("Driver", "")), str(item.get("Name", ""))) for item in items]
        listing.print_table(("DRIVER", "VOLUME NAME"), rows, titled=not options["noheading"])
    else:
        listing.print_formatted(form, [row_of(item) for item in items], _HEADERS, titled=not options["noheading"])
    return 0


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers inside names by value: vol2 before vol10."""
    parts: list[str] = []
    for character in name:
        if parts and parts[-1][-1].isdecimal() == character.isdecimal():
            parts[-1] += character
        else:
            parts.append(character)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def row_of(item: dict[str, Any]) -> Row:
    from ..template import Row

    found = item.get("Labels")
    labels: dict[str, object] = found if isinstance(found, dict) else {}
    fields: dict[str, object] = {
        "Availability": _ABSENT,
        "Driver": str(item.get("Driver", "")),
        "Group": _ABSENT,
        "Label": lambda key: str(labels.get(key, "")),
        "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
        "Links": _ABSENT,
        "Mountpoint": str(item.get("Mountpoint", "")),
        "Name": str(item.get("Name", "")),
        "Scope": str(item.get("Scope", "")),
        "Size": _ABSENT,
        "Status": _ABSENT,
    }
    return Row("*formatter.volumeContext", fields)


def _rm(invocation: Invocation) -> int:
    return several.remove(invocation, "volumes.remove", "volume", force=invocation.options["force"])


def _prune(invocation: Invocation) -> int:
    options = invocation.options
    filters = _filters(invocation)
    if options["all"]:
        if "all" in filters:
            message = "conflicting options: cannot specify both --all and --filter all=1"
            raise UsageError(message, "leave one of them away", EXIT_USAGE, shows_usage=False)
        filters["all"] = ["true"]
    if not options["force"] and not confirmed(_WARNING.format("all" if options["all"] else "anonymous")):
        return 0
    with invocation.connect() as engine:
        found = engine.call("volumes.prune", {"filters": filters})
    result = found if isinstance(found, dict) else {}
    removed = [str(name) for name in result.get("removed", [])]
    if removed:
        write_line("Deleted Volumes:\n" + "\n".join(removed) + "\n")
    write_line(f"Total reclaimed space: {size(result.get('reclaimed_bytes', 0))}")
    return 0


def _filters(invocation: Invocation) -> dict[str, list[str]]:
    return listing.filters_of(invocation.options["filter"])


_CLUSTER = frozenset(
    "availability group limit-bytes required-bytes scope secret sharing topology-preferred topology-required"
    " type".split()
)

CREATE = Command(
    _create,
    "Create a volume",
    "[OPTIONS] [VOLUME]",
    flags=(
        Flag("driver", "d", STRING, "Specify volume driver name", default="local"),
        Flag("label", "", LABEL, "Set metadata for a volume"),
        Flag("name", "", STRING, "Specify volume name", default="", hidden=True),
        Flag("opt", "o", MAP, "Set driver specific options"),
    ),
    arguments=(0, 1),
    refused=_CLUSTER,
)
LS = Command(
    _ls,
    "List volumes",
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", FILTER, 'Provide filter values (e.g. "dangling=true")'),
        listing.FORMAT_FLAG,
        listing.NOHEADING_FLAG,
        Flag("quiet", "q", BOOL, "Only display volume names", default=False),
    ),
    aliases=("volume ls", "volume list"),
    refused=frozenset(("cluster",)),
)
RM = Command(
    _rm,
    "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    "[OPTIONS] VOLUME [VOLUME...]",
    flags=(Flag("force", "f", BOOL, "Force the removal of one or more volumes", default=False),),
    arguments=(1, None),
    aliases=("volume rm", "volume remove"),
)
PRUNE = Command(
    _prune,
    "Remove unused local volumes",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all unused volumes, not just anonymous ones", default=False),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "label=<label>")'),
        Flag("force", "f", BOOL, "Do not prompt for confirmation", default=False),
    ),
)
