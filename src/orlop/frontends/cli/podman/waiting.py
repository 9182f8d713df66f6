"""podman's `wait --condition`: until a container is in a state, or its health check says so.

Source: podman-wait(1).
"""

from __future__ import annotations

import time

from ....spec.errors import Invalid, NotFound
from ..command import Invocation, write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STATES = {
    "configured": ("created",),
    "created": ("created",),
    "exited": ("exited",),
    "stopped": ("exited",),
    "paused": ("paused",),
    "running": ("running",),
}
HEALTH = ("healthy", "unhealthy")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
NO_CODE = -1  # of a container that has not ended


def wait(invocation: Invocation) -> int:
    """Wait for each of the containers in turn and print its exit code, -1 of one that has none."""
    options = invocation.options
    conditions: tuple[str, ...] = options["condition"]
    for condition in conditions:
        if condition not in STATES and condition not in HEALTH:
            hint = f"known are {', '.join(sorted({*STATES, *HEALTH}))}"
            raise Invalid("wait", f"--condition {condition[:60]}", "there is no such state here", hint=hint)
    pause_s = seconds(options["interval"])
    for container in invocation.arguments:
        try:
            write_line(str(_one(invocation, container, conditions, pause_s)))
        except NotFound:
            if not options["ignore"]:
                raise
            write_line(str(NO_CODE))
    return 0


def is_met(state: dict[str, Any], conditions: Sequence[str]) -> bool:
    """Tell whether one of the conditions holds. state: docker's of a container."""
    said = str((state.get("Health") or {}).get("Status", ""))
    return any(said == one if one in HEALTH else state["Status"] in STATES.get(one, ()) for one in conditions)


def _one(invocation: Invocation, container: str, conditions: tuple[str, ...], pause_s: float) -> int:
    while True:
        with invocation.connect() as engine:
            found = engine.call("containers.inspect", {"container": container, "size": False})
        state: dict[str, Any] = found["State"] if isinstance(found, dict) else {}
        if is_met(state, conditions):
            return int(state["ExitCode"]) if state["Status"] == "exited" else NO_CODE
        container = str(found["Id"]) if isinstance(found, dict) else container  # another one may get the name
        time.sleep(pause_s)


def seconds(text: str) -> float:
    """Return a time: a number of milliseconds, or a number with a unit. Raises Invalid."""
    number = text.rstrip("msh")
    unit = text[len(number) :] or "ms"
    try:
        seconds = float(number) * _UNITS_S[unit]
        if not 0 < seconds <= 3600:
            raise ValueError
    except (KeyError, ValueError):
        hint = "write 250ms, or 2s"
        raise Invalid("wait", f"--interval {text[:60]}", "it is not a length of time", hint=hint) from None
    return seconds
