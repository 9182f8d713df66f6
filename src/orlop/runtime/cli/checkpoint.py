"""checkpoint and restore: refused by name, because CRIU is what they are made of."""

from __future__ import annotations

from ...spec.errors import Unsupported
from .call import Call


def checkpoint(call: Call) -> int:
    """Raises NotFound for a container that is not there, and Unsupported."""
    entry = call.store.load(call.container())
    raise _unsupported("checkpoint", entry.id)


def restore(call: Call) -> int:
    """Raises Unsupported."""
    raise _unsupported("restore", call.container())


def _unsupported(verb: str, container: str) -> Unsupported:
    return Unsupported(
        verb,
        f"container {container[:64]}",
        "it takes CRIU, which this version does not drive",
        hint="stop the container and start it anew",
    )
