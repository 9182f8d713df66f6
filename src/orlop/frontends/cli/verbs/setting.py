"""`orlop config security=strict` (and `config set`, `config get`): the engine's settings."""

from __future__ import annotations

from ....spec.errors import Invalid
from ..command import Command, Invocation, write_line

SECURITY = "security"


def _set(invocation: Invocation) -> int:
    name, equals, value = invocation.arguments[0].partition("=")
    if not (name and equals and value):
        raise Invalid("read", f"setting {invocation.arguments[0][:60]!r}", "it has no value", hint="write NAME=VALUE")
    with invocation.connect() as engine:
        engine.call("engine.setting", {"name": name, "value": value})
    return 0


def _get(invocation: Invocation) -> int:
    name = (*invocation.arguments, SECURITY)[0]
    with invocation.connect() as engine:
        found = engine.call("engine.setting", {"name": name})
    for key, value in found.items() if isinstance(found, dict) else ():
        write_line(str(value) if invocation.arguments else f"{key}={value}")
    return 0


SET = Command(
    _set, "Change one of the engine's settings: security=strict or security=default", "NAME=VALUE", arguments=(1, 1)
)
GET = Command(_get, "Print the engine's settings, or the value of one", "[NAME]", arguments=(0, 1))
