"""What the three forms have in common: which fields a request has set, and what they are called for users."""

from __future__ import annotations

from ....spec.container import ContainerRequest
from ..commandline import flag_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

NANO = 10**9
# What asks for nothing in another tool, or is only of the moment: who was attached, what is left of a network.
_SILENT = frozenset({"name", "attach", "stdin_once", "unplugged", "auto_remove", "remove_image"})


def left_out(request: ContainerRequest, said: Collection[str]) -> list[str]:
    """Return the flags of the fields that are set and not said."""
    default = ContainerRequest()
    missing = (name for name in ContainerRequest._fields if name not in said and name not in _SILENT)
    return [flag_of(name) for name in missing if getattr(request, name) != getattr(default, name)]


def seconds(nanos: int) -> str:
    """Return a duration as Go and systemd take it."""
    return f"{nanos // NANO}s" if nanos % NANO == 0 else f"{nanos // 1000}us"


def split(options: tuple[str, ...], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the options of a mount that are known, and the others."""
    return [one for one in options if one in known], [one for one in options if one not in known]
