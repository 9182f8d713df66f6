"""`orlop top` and `orlop port`: what runs in a container, and where it is reached."""

from __future__ import annotations

from ....spec.errors import NotFound
from ..command import Command, Invocation, for_output, write
from ..table import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CELL_WIDTH_MIN = 20


def _top(invocation: Invocation) -> int:
    container, *options = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("containers.top", {"container": container, "options": options})
    table = found if isinstance(found, dict) else {}
    rows = [table.get("Titles", []), *table.get("Processes", [])]
    cells = [[for_output(" ".join(str(cell).split("\n"))) for cell in row] for row in rows]
    write(render(cells, CELL_WIDTH_MIN))
    return 0


def _port(invocation: Invocation) -> int:
    container, *wanted = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("containers.inspect", {"container": container})
    settings = found.get("NetworkSettings") if isinstance(found, dict) else None
    ports = settings.get("Ports") if isinstance(settings, dict) else None
    published = {name: bindings for name, bindings in (ports or {}).items() if bindings}
    if not wanted:
        lines = [f"{name} -> {address_of(binding)}" for name, bindings in published.items() for binding in bindings]
        write("".join(f"{for_output(line)}\n" for line in sorted(lines, key=_natural)))
        return 0
    number, _, protocol = wanted[0].partition("/")
    name = f"{number}/{protocol or 'tcp'}"
    if name not in published:
        cause = f"no public port '{wanted[0]}' published for {container}"
        raise NotFound("find", f"port {wanted[0]}", cause, hint=f"list its ports with: orlop port {container}")
    write("".join(f"{for_output(address_of(binding))}\n" for binding in published[name]))
    return 0


def address_of(binding: Any) -> str:
    facts = binding if isinstance(binding, dict) else {}
    host = str(facts.get("HostIp", ""))
    return f"[{host}]:{facts.get('HostPort', '')}" if ":" in host else f"{host}:{facts.get('HostPort', '')}"


def _natural(line: str) -> list[tuple[int, str]]:
    """Sort numbers by value: 80/tcp before 443/tcp."""
    number, slash, rest = line.partition("/")
    return [(int(number) if number.isdecimal() else 0, slash + rest)]


TOP = Command(
    _top,
    "Display the running processes of a container",
    "CONTAINER [ps OPTIONS]",
    arguments=(1, None),
    interspersed=False,
    aliases=("container top", "top"),
)
PORT = Command(
    _port,
    "List port mappings or a specific mapping for the container",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    arguments=(1, 2),
    aliases=("container port", "port"),
)
