"""update: other limits for a running container, from flags or from a JSON document (`-r FILE`, `-r -`)."""

from __future__ import annotations

import sys

from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, Unavailable, Unsupported
from ...spec.runtime import BlockIo, Cpu, Memory, Pids, Resources, Spec
from .. import resources
from .call import Call
from .store import cgroup_of, read_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .flags import Flags

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_SIZE = r"(\d{1,20}(?:\.\d{1,20})?) ?([kmgtp]?)i?b?"  # as docker's: 64m, 64MB, 64mib, 1.5g
_CPU = {
    "cpu-period": "period", "cpu-quota": "quota", "cpu-burst": "burst", "cpu-share": "shares",
    "cpu-rt-period": "realtime_period", "cpu-rt-runtime": "realtime_runtime", "cpu-idle": "idle",
}  # fmt: skip
_MEMORY = {"memory": "limit", "memory-reservation": "reservation", "memory-swap": "swap", "kernel-memory": "kernel"}


def update(call: Call) -> int:
    """Write the new limits, and remember them."""
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if call.flags.given(name):
            raise Unsupported(
                "update", "the container", f"--{name} is not supported: there is no Intel RDT here", code="E1301"
            )
    entry = call.store.load(call.container())
    if call.store.status(entry) == "stopped":
        raise Conflict("update", f"container {entry.id}", "container not running")
    wanted = _from_document(call.flags.text("resources")) if call.flags.text("resources") else _from_flags(call.flags)
    cgroup = cgroup_of(entry)
    steps = resources.settings(wanted, cgroup.layout, devices=bool(wanted.devices))
    try:
        if entry.unit:
            from ..systemd import scope

            scope.change(entry.unit, wanted, cgroup.layout)
        cgroup.apply(steps)
    except OSError as failure:
        cause = f"{failure.strerror} ({failure.filename})"
        raise Unavailable("update", f"container {entry.id}", cause, hint="the other limits may have been set") from None
    call.store.save(entry, _merged(call.store.spec(entry.id), wanted))
    return 0


def _from_document(path: str) -> Resources:
    if path == "-":
        data = sys.stdin.buffer.read(jsonio.DOCUMENT_BYTES_MAX + 1)
        return Resources.from_json(jsonio.parse(data, "standard input"), "the resources")
    return Resources.from_json(jsonio.parse(read_document(path, jsonio.DOCUMENT_BYTES_MAX, pipe=True), path), path)


def _from_flags(flags: Flags) -> Resources:
    cpu = {field: _integer(flags, name) for name, field in _CPU.items() if flags.given(name)}
    sets = {"cpus": flags.text("cpuset-cpus"), "mems": flags.text("cpuset-mems")}
    sets = {name: value for name, value in sets.items() if value}
    memory = {field: _bytes(flags, name) for name, field in _MEMORY.items() if flags.given(name)}
    return Resources(
        cpu=Cpu().replace(**cpu, **sets) if cpu or sets else None,
        memory=Memory().replace(**memory) if memory else None,
        pids=Pids(limit=_integer(flags, "pids-limit")) if flags.given("pids-limit") else None,
        block_io=BlockIo(weight=_integer(flags, "blkio-weight")) if flags.given("blkio-weight") else None,
    )


def _integer(flags: Flags, name: str) -> int:
    text = flags.text(name)
    try:
        return int(text, 10)
    except ValueError:
        raise Invalid("update", "the container", f"invalid value for {name}: {text!r} is not an integer") from None


def _bytes(flags: Flags, name: str) -> int:
    text = flags.text(name).lower()
    if text == "-1":
        return -1
    import re  # 3 ms, for who changes memory

    found = re.fullmatch(_SIZE, text, re.ASCII)
    if not found:
        raise Invalid(
            "update", "the container", f"invalid value for {name}: {text[:40]!r} is not a size", hint="give 64m or -1"
        )
    return int(float(found[1]) * _UNITS[found[2]]) if "." in found[1] else int(found[1]) * _UNITS[found[2]]


def _merged(spec: Spec, wanted: Resources) -> Spec:
    """Return the spec with what was given on top of what it had."""
    old = spec.linux.resources or Resources()
    new = {
        name: _on_top(getattr(old, name), getattr(wanted, name))
        for name in ("memory", "cpu", "pids", "block_io")
        if getattr(wanted, name) is not None
    }
    return spec.replace(linux=spec.linux.replace(resources=old.replace(**new)))


def _on_top(old: Memory | Cpu | Pids | BlockIo | None, new: Memory | Cpu | Pids | BlockIo) -> object:
    if old is None:
        return new
    return old.replace(**{name: value for name, value in vars(new).items() if value not in (None, "", ())})
