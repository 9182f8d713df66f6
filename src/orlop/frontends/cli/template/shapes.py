"""The structs that docker's documents have, which Go prints as {a b}: known by their keys, for JSON does not tell.

Source: moby/moby, api/types: their fields in the order in which they are declared. What Go has pointers to (health
checks, endpoints of networks) it prints as addresses inside of others; here they are maps.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Keys that a document has in any case, and all fields in their order; zeros of those that are no text.
# fmt: off
_WRITTEN: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("HostIp HostPort", "HostIp HostPort", {}),
    ("Name MaximumRetryCount", "Name MaximumRetryCount", {}),
    ("Source Destination RW", "Type Name Source Destination Driver Mode RW Propagation", {}),
    ("PathOnHost PathInContainer", "PathOnHost PathInContainer CgroupPermissions", {}),
    ("Type Config", "Type Config", {}),
    ("Data Name", "Data Name", {}),
    ("Type Layers", "Type Layers", {}),
    ("Driver Options Config", "Driver Options Config", {}),
    ("Subnet", "Subnet IPRange Gateway AuxiliaryAddresses", {"AuxiliaryAddresses": {}}),
    ("Status FailingStreak Log", "Status FailingStreak Log", {}),
    ("Status OOMKilled ExitCode", "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt"
     " FinishedAt Health", {"Health": None}),
)
# fmt: on
_SHAPES = tuple(
    (frozenset(needed.split()), {name: zeros.get(name, "") for name in fields.split()})
    for needed, fields, zeros in _WRITTEN
)
_ULIMIT = {"Name", "Hard", "Soft"}


def show(value: Mapping[str, object], inner: Callable[[object], str], *, named: bool = False) -> str:
    """Return what Go prints of a struct, "" for what is none that is known. named: as %+v, with its fields' names."""
    keys = value.keys()
    if keys == _ULIMIT:
        return f"{value['Name']}={value['Soft']}:{value['Hard']}"
    for needed, zeros in _SHAPES:
        if needed <= keys <= zeros.keys():
            shown = {name: inner(value.get(name, zero)) for name, zero in zeros.items()}
            return "{" + " ".join(f"{name}:{text}" if named else text for name, text in shown.items()) + "}"
    if value and all(isinstance(item, dict) and not item for item in value.values()):  # ports and paths: struct{}
        return f"map[{' '.join(f'{key}:{{}}' for key in sorted(value))}]"
    return ""
