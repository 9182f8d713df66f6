"""`orlop system df`, `system fsck`, `system prune`: the disk."""

from __future__ import annotations

import time

from ....spec.errors import Invalid
from .. import listing
from ..command import Command, Invocation, for_output, write, write_line
from ..containers.lifecycle import confirmed, prune_filters
from ..flags import BOOL, EXIT_USAGE, Flag
from ..images.names import print_images_deleted
from ..listing import filters_of
from ..table import render
from ..units import ago, epoch_ns, size
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..template import Row

ID_LENGTH = 12
_IMAGE_FIELDS = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
_HEADERS: dict[str, object] = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


class _Line:
    """One kind of object: how many there are, how many are used, what they occupy and what could be freed."""

    def __init__(self, kind: str, sizes: list[tuple[int, bool]], *, whole: int | None = None) -> None:
        self.kind = kind
        self.total = len(sizes)
        self.active = sum(used for _, used in sizes)
        self.bytes = sum(number for number, _ in sizes) if whole is None else whole
        kept = sum(number for number, used in sizes if used)
        self.free = max(self.bytes - kept, 0)

    @property
    def reclaimable(self) -> str:
        share = f" ({100 * self.free // self.bytes}%)" if self.bytes else ""
        return f"{size(self.free)}{share}"

    def cells(self) -> tuple[str, ...]:
        return self.kind, str(self.total), str(self.active), size(self.bytes), self.reclaimable

    def row(self) -> Row:
        from ..template import Row

        fields: dict[str, object] = {
            "Type": self.kind,
            "TotalCount": str(self.total),
            "Active": str(self.active),
            "Size": size(self.bytes),
            "Reclaimable": self.reclaimable,
        }
        return Row("*formatter.diskUsageContext", fields)


def _df(invocation: Invocation) -> int:
    options = invocation.options
    with invocation.connect() as engine:
        found = engine.call("system.df", {"verify": options["verify"]})
    usage: dict[str, Any] = found if isinstance(found, dict) else {}
    form: str = options["format"]
    if options["verbose"] and form not in ("", "table"):
        listing.print_formatted(form, [_details(usage)], {})
    elif options["verbose"]:
        _print_verbose(usage)
    else:
        lines = _lines(usage)
        if form in ("", "table"):
            header = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
            listing.print_table(header, [line.cells() for line in lines])
        else:
            listing.print_formatted(form, [line.row() for line in lines], _HEADERS)
    if options["verify"]:
        _print_attributed(usage.get("Attributed") or [])
    return 0


def _lines(usage: dict[str, Any]) -> list[_Line]:
    images, containers, volumes = usage.get("Images") or [], usage.get("Containers") or [], usage.get("Volumes") or []
    unique = [(int(image["Size"]) - int(image["SharedSize"]), image["Containers"] > 0) for image in images]
    return [
        _Line("Images", unique, whole=int(usage.get("LayersSize") or 0)),
        _Line("Containers", [(int(one.get("SizeRw") or 0), one.get("State") == "running") for one in containers]),
        _Line("Local Volumes", [(int(one["UsageData"]["Size"]), one["UsageData"]["RefCount"] > 0) for one in volumes]),
        _Line("Build Cache", [(_own_bytes(one), bool(one["InUse"])) for one in usage.get("BuildCache") or []]),
    ]


def _own_bytes(record: dict[str, Any]) -> int:
    """Return what a record of the build cache occupies alone; a shared one is counted with its image, as in docker."""
    return 0 if record["Shared"] else int(record["Size"])


def _details(usage: dict[str, Any]) -> Row:
    """Return what a template of `-v` is executed with: docker's lists of rows."""
    from ..containers.ps import row_of as container_row
    from ..template import Row
    from .volume import row_of as volume_row

    volumes = []
    for one in usage.get("Volumes") or []:
        data = one["UsageData"]
        volumes.append(volume_row(one).plain() | {"Links": str(data["RefCount"]), "Size": size(int(data["Size"]))})
    cached = []
    for one in usage.get("BuildCache") or []:
        identifier, kind, bytes_, since, shared = _cache_cells(one)
        row = {"CacheType": kind, "ID": identifier, "InUse": str(bool(one["InUse"])).lower(), "LastUsedSince": since}
        cached.append({**row, "Description": str(one.get("Description", "")), "Shared": shared, "Size": bytes_})
    fields: dict[str, object] = {
        "BuildCache": cached,
        "Containers": [container_row(one, whole=False).plain() for one in usage.get("Containers") or []],
        "Images": [
            dict(zip(_IMAGE_FIELDS, cells, strict=True)) for one in usage.get("Images") or [] for cells in _names(one)
        ],
        "Volumes": volumes,
    }
    return Row("*formatter.diskUsageContext", fields)


def _names(image: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each name of an image, in the order of _IMAGE_FIELDS."""
    whole, shared = int(image["Size"]), int(image["SharedSize"])
    numbers = (size(whole), size(shared), size(whole - shared), str(image["Containers"]))
    created = epoch_ns(str(image["Created"]))
    since = ago(created / 1e9) if created is not None else "N/A"
    identifier = str(image["Id"]).removeprefix("sha256:")[:ID_LENGTH]
    for name in image["RepoTags"] or ["<none>:<none>"]:
        repository, _, tag = for_output(name).rpartition(":")
        yield (repository, tag, identifier, since, *numbers)


def _print_verbose(usage: dict[str, Any]) -> None:
    write("Images space usage:\n\n")
    rows: list[tuple[str, ...]] = [
        ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS")
    ]
    for image in usage.get("Images") or []:
        rows += _names(image)
    write(render(rows))
    write("\nContainers space usage:\n\n")
    table: list[tuple[str, ...]] = [("CONTAINER ID", "IMAGE", "COMMAND", "SIZE", "STATUS", "NAMES")]
    for one in usage.get("Containers") or []:
        names = ",".join(name.lstrip("/") for name in one.get("Names") or [])
        command = listing.ellipsis(str(one.get("Command", "")), 20)
        written = size(int(one.get("SizeRw") or 0))
        cells = (str(one["Id"])[:ID_LENGTH], str(one.get("Image", "")), f'"{command}"', written)
        table.append((*map(for_output, cells), str(one.get("Status", "")), for_output(names)))
    write(render(table))
    write("\nLocal Volumes space usage:\n\n")
    volumes = [("VOLUME NAME", "LINKS", "SIZE")]
    for one in usage.get("Volumes") or []:
        data = one["UsageData"]
        volumes.append((for_output(str(one["Name"])), str(data["RefCount"]), size(int(data["Size"]))))
    write(render(volumes))
    cached = usage.get("BuildCache") or []
    write(f"\nBuild cache usage: {size(sum(map(_own_bytes, cached)))}\n")
    if cached:
        write("\n")
        write(render([("CACHE ID", "CACHE TYPE", "SIZE", "LAST USED", "SHARED"), *map(_cache_cells, cached)]))


def _cache_cells(record: dict[str, Any]) -> tuple[str, ...]:
    used = epoch_ns(str(record["LastUsedAt"]))
    since = ago(used / 1e9) if used is not None else "N/A"
    shared = "true" if record["Shared"] else "false"
    return str(record["ID"])[:ID_LENGTH], str(record["Type"]), size(int(record["Size"])), since, shared


def _print_attributed(lines: list[dict[str, Any]]) -> None:
    total = sum(int(line["bytes"]) for line in lines)
    rows = [(str(line["what"]), str(line["bytes"]), size(int(line["bytes"])), str(line["path"])) for line in lines]
    write("\n")
    write(render([("WHAT", "BYTES", "SIZE", "WHERE"), *rows, ("all of it", str(total), size(total), ".")]))


def _fsck(invocation: Invocation) -> int:
    repair = invocation.options["repair"]
    with invocation.connect() as engine:
        found = engine.call("system.fsck", {"repair": repair})
    problems = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    for one in problems:
        done = " (repaired)" if one.get("repaired") else ""
        write_line(for_output(f"{one.get('kind')}: {one.get('subject')}: {one.get('cause')}{done}"))
    left = [one for one in problems if not one.get("repaired")]
    if not problems:
        write_line("Everything is in order.")
    elif not left:
        write_line(f"{len(problems)} found, all of them repaired.")
    else:
        write_line(f"{len(problems)} found, {len(left)} of them not repaired.")
        if not repair:
            write_line("Next: orlop system fsck --repair")
    return EXIT_USAGE if left else 0


def _prune(invocation: Invocation) -> int:
    options = invocation.options
    given = options["filter"]
    args = prune_filters(given)
    if options["volumes"] and args["until_ns"] is not None:
        cause = 'the "until" filter is not supported with "--volumes"'
        raise Invalid("prune", "everything unused", cause, hint="prune the volumes on their own: orlop volume prune")
    if not options["force"] and not confirmed(_warning(options["all"], options["volumes"])):
        return 0
    freed = 0
    with invocation.connect() as engine:
        result = _result(engine.call("containers.prune", args))
        freed += _print_removed("Deleted Containers", result.get("deleted"), result.get("reclaimed"))
        result = _result(engine.call("networks.prune", args))
        _print_removed("Deleted Networks", result.get("removed"), 0)
        if options["volumes"]:
            result = _result(engine.call("volumes.prune", {"filters": filters_of(given)}))
            freed += _print_removed("Deleted Volumes", result.get("removed"), result.get("reclaimed_bytes"))
        result = _result(engine.call("images.prune", {"all": options["all"], "filters": filters_of(given)}))
        print_images_deleted(result)
        freed += int(result.get("SpaceReclaimed") or 0)
        if all(key == "until" for key, _ in given):  # records of builds have no labels
            wanted: dict[str, object] = {"all": options["all"], "unused_s": _unused_s(args)}
            result = _result(engine.call("build.prune", wanted))
            freed += _print_removed(
                "Deleted build cache objects", result.get("CachesDeleted"), result.get("SpaceReclaimed")
            )
    write_line(f"Total reclaimed space: {size(freed)}")
    return 0


def _unused_s(args: dict[str, object]) -> int:
    until_ns = args.get("until_ns")
    return max(0, int(time.time() - until_ns / 1e9)) if isinstance(until_ns, int) else 0


def _warning(everything: bool, volumes: bool) -> str:
    lines = ["all stopped containers", "all networks not used by at least one container"]
    if volumes:
        lines.append("all anonymous volumes not used by at least one container")
    lines.append(
        "all images without at least one container associated to them" if everything else "all dangling images"
    )
    lines.append("all build cache" if everything else "unused build cache")
    return "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)


def _result(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _print_removed(title: str, names: object, freed: object) -> int:
    if isinstance(names, list) and names:
        write_line(f"{title}:\n" + "\n".join(map(str, names)) + "\n")
    return int(freed) if isinstance(freed, int) else 0


DF = Command(
    _df,
    "Show disk usage",
    "[OPTIONS]",
    flags=(
        listing.FORMAT_FLAG,
        Flag("verbose", "v", BOOL, "Show detailed information on space usage", default=False),
        Flag("verify", "", BOOL, "Name what every byte of the data directory belongs to", default=False),
    ),
    aliases=("system df",),
)
FSCK = Command(
    _fsck,
    "Look for damage and leftovers in the data directory",
    "[OPTIONS]",
    flags=(Flag("repair", "", BOOL, "Put right what can be put right", default=False),),
    aliases=("system fsck",),
)
PRUNE = Command(
    _prune,
    "Remove unused data",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all unused images not just dangling ones", default=False),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "label=<key>=<value>")'),
        Flag("force", "f", BOOL, "Do not prompt for confirmation", default=False),
        Flag("volumes", "", BOOL, "Prune anonymous volumes", default=False),
    ),
    aliases=("system prune",),
)
