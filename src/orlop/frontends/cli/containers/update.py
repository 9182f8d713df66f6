"""`orlop update`: other limits and another restart policy, for containers as they run."""

from __future__ import annotations

from ....spec.container import UpdateRequest
from ..command import Command, Invocation, write_line
from ..flags import EXIT_USAGE, INT, LIST, Flag, UsageError
from ..limits import RESOURCE_FIELDS, RESOURCE_FLAGS
from ..networking import PORT
from ..values import BYTES, CPUS, MEMORY_SWAP, MOUNT, RESTART
from .lifecycle import each

_FIELDS = {
    **RESOURCE_FIELDS,
    "memory_bytes": "memory",
    "memory_swap_bytes": "memory-swap",
    "cpu_nanos": "cpus",
    "pids_max": "pids-limit",
}
_MOUNTS = frozenset(("mount-add", "mount-rm"))
_PORTS = frozenset(("publish-add", "publish-rm"))


def _update(invocation: Invocation) -> int:
    options = invocation.options
    if not options.given:
        text = "you must provide one or more flags when using this command"
        raise UsageError(text, "orlop update --help lists them", EXIT_USAGE, shows_usage=False)
    for verb, flags in (("containers.mounts", _MOUNTS), ("containers.ports", _PORTS)):
        if options.given & flags:
            return _change(invocation, verb, flags)
    values = {field: options[flag] for field, flag in _FIELDS.items() if flag in options.given}
    if "restart" in options.given:
        values["restart_policy"], values["restart_retries_max"] = options["restart"]
    warnings: dict[str, None] = {}

    def show(name: str, result: object) -> str:
        found = result.get("warnings") if isinstance(result, dict) else None
        warnings.update(dict.fromkeys(map(str, found or [])))
        return name

    status = each(invocation, "containers.update", {"request": UpdateRequest().replace(**values).to_json()}, show=show)
    for text in warnings:
        write_line(text)
    return status


def _change(invocation: Invocation, verb: str, flags: frozenset[str]) -> int:
    options = invocation.options
    if not options.given <= flags:
        text = "conflicting options: mounts, ports and limits are changed one after the other"
        raise UsageError(text, "give a command for each", EXIT_USAGE, shows_usage=False)
    more, fewer = sorted(flags)
    change: dict[str, object] = {
        "add": [one.to_json() for one in options[more]],
        "remove": list(options[fewer]),
    }
    return each(invocation, verb, change)


UPDATE = Command(
    _update,
    "Update configuration of one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        *RESOURCE_FLAGS,
        Flag("cpus", "", CPUS, "Number of CPUs", default=0),
        Flag("memory", "m", BYTES, "Memory limit", default=0),
        Flag(
            "memory-swap",
            "",
            MEMORY_SWAP,
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
            default=0,
        ),
        Flag("mount-add", "", MOUNT, "Mount something more, as --mount does, also while the container runs"),
        Flag("mount-rm", "", LIST, "Unmount what is mounted at this place of the container"),
        Flag("pids-limit", "", INT, "Tune container pids limit (set -1 for unlimited)"),
        Flag("publish-add", "", PORT, "Publish one port more, as -p does, also while the container runs"),
        Flag("publish-rm", "", LIST, "Publish a port of the container no longer (80, 53/udp)"),
        Flag("restart", "", RESTART, "Restart policy to apply when a container exits", default=("", 0)),
    ),
    arguments=(1, None),
    aliases=("container update", "update"),
)
