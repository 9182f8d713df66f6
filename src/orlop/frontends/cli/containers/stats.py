"""`orlop stats`: what containers use, once or every second; the arithmetic is docker's client's."""

from __future__ import annotations

import sys

from ....spec import jsonio
from ....spec.errors import Unavailable
from .. import listing
from ..command import Command, Invocation, write
from ..flags import BOOL, Flag
from ..units import binary_size, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ..template import Row

RECEIVE_BYTES = 256 * 1024
LINE_BYTES_MAX = 64 << 20
ID_LENGTH = 12
_CLEAR = "\x1b[H\x1b[J"
_NONE = "--"
_COLUMNS = {
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_HEADERS: dict[str, object] = {**_COLUMNS, "Container": "CONTAINER"}


def _stats(invocation: Invocation) -> int:
    options = invocation.options
    stream = not options["no-stream"]
    whole: bool = options["no-trunc"]
    form: str = options["format"]
    is_screen = stream and sys.stdout.isatty()
    args: dict[str, object] = {"containers": invocation.arguments, "all": options["all"], "stream": stream}
    with invocation.connect() as engine:
        engine.call("containers.stats", args)
        for samples in _received(engine.stream):
            rows = [_fields(sample, whole, invocation.arguments) for sample in samples]
            if is_screen:
                write(_CLEAR)
            _print(form, rows)
            sys.stdout.flush()
    if stream:
        raise Unavailable("read", "the statistics", "the engine ended", hint="ask again")
    return 0


def _print(form: str, rows: list[dict[str, str]]) -> None:
    if form in ("", "table"):
        listing.print_table(list(_COLUMNS.values()), [[row[name] for name in _COLUMNS] for row in rows])
    else:
        listing.print_formatted(form, [_row(row) for row in rows], _HEADERS)


def _row(fields: dict[str, str]) -> Row:
    from ..template import Row

    return Row("*container.statsContext", dict(fields))


def _received(stream: socket) -> Iterator[list[dict[str, Any]]]:
    rest = b""
    while data := stream.recv(RECEIVE_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            found = jsonio.parse(line, "the statistics", bytes_max=LINE_BYTES_MAX)
            yield found if isinstance(found, list) else []


def _fields(sample: dict[str, Any], whole: bool, asked: Sequence[str] = ()) -> dict[str, str]:
    container, name = str(sample.get("id", "")), str(sample.get("name", "")).removeprefix("/")
    short = container if whole else container[:ID_LENGTH]
    fields = dict.fromkeys(_HEADERS, _NONE)
    fields |= {"ID": short, "Name": name}
    # As it was asked for.
    fields["Container"] = next((word for word in asked if word == name or container.startswith(word)), short)
    if not sample.get("cpu_stats"):
        return {
            **fields, "CPUPerc": "0.00%", "MemPerc": "0.00%", "MemUsage": "0B / 0B", "NetIO": "0B / 0B",
            "BlockIO": "0B / 0B", "PIDs": "0",
        }  # fmt: skip
    used, limit = memory(sample["memory_stats"])
    received, sent = _network(sample.get("networks") or {})
    read, written = _block_io(sample.get("blkio_stats") or {})
    return {
        **fields,
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{size(received, 3)} / {size(sent, 3)}",
        "BlockIO": f"{size(read, 3)} / {size(written, 3)}",
        "PIDs": str(sample.get("pids_stats", {}).get("current", 0)),
    }


def cpu_percent(sample: dict[str, Any]) -> float:
    """Return the share of one processor since the sample before: 200 is two of them."""
    now, before = sample["cpu_stats"], sample.get("precpu_stats") or {}
    used = now["cpu_usage"]["total_usage"] - before.get("cpu_usage", {}).get("total_usage", 0)
    passed = now["system_cpu_usage"] - before.get("system_cpu_usage", 0)
    return used / passed * now["online_cpus"] * 100 if used > 0 and passed > 0 else 0.0


def memory(stats: dict[str, Any]) -> tuple[int, int]:
    """Return (used, limit) in bytes; files that nobody used for a while are not counted, as they can be dropped."""
    details = stats.get("stats", {})
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    usage = stats.get("usage", 0)
    return usage - inactive if inactive < usage else usage, stats.get("limit", 0)


def _network(interfaces: dict[str, Any]) -> tuple[int, int]:
    values = interfaces.values()
    return sum(each["rx_bytes"] for each in values), sum(each["tx_bytes"] for each in values)


def _block_io(stats: dict[str, Any]) -> tuple[int, int]:
    entries = stats.get("io_service_bytes_recursive") or []
    read = sum(entry["value"] for entry in entries if entry["op"] == "read")
    return read, sum(entry["value"] for entry in entries if entry["op"] == "write")


STATS = Command(
    _stats,
    "Display a live stream of container(s) resource usage statistics",
    "[OPTIONS] [CONTAINER...]",
    flags=(
        Flag("all", "a", BOOL, "Show all containers (default shows just running)", default=False),
        listing.FORMAT_FLAG,
        Flag("no-stream", "", BOOL, "Disable streaming stats and only pull the first result", default=False),
        Flag("no-trunc", "", BOOL, "Do not truncate output", default=False),
    ),
    arguments=(0, None),
    aliases=("container stats", "stats"),
)
