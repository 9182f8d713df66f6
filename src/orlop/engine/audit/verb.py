"""`audit`: what a container is, with the facts."""

from __future__ import annotations

import os

from ...linux.netlink import namespace
from ..containers import state
from .facts import NAMESPACES, Seen, facts, verdicts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.task import TaskStatus
    from ..engine import Engine

_FILES = {"mount": "mnt", "network": "net"}


def audit(engine: Engine, reference: str) -> dict[str, object]:
    """Return {"container", "properties": {name: passed}, "facts": [fact]}. Raises NotFound, Invalid."""
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    spec = engine.records.spec(record.id)
    seen = Seen(
        has_cgroup=bool(engine.host.runtime.layout.hierarchies()),
        engine_is_root=engine.host.runtime.initial_user_namespace,
        apparmor=engine.host.loads_profiles,
    )
    if task.lives and task.status is not None:
        seen = _look(engine, task.status, seen)
    found = facts(record, spec, seen)
    return {
        "container": record.name,
        "properties": verdicts(found),
        "facts": [fact.to_json() for fact in found],
    }


def _look(engine: Engine, status: TaskStatus, seen: Seen) -> Seen:
    """Return what /proc says of the process; what was known before, if it has just ended."""
    monitor = state.open_monitor(status, engine.boot_id)
    if monitor is not None:
        os.close(monitor)
    try:
        with open(f"/proc/{status.pid}/status", encoding="ascii", errors="replace") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        shared = tuple(kind for kind in NAMESPACES if _is_shared(status.pid, _FILES.get(kind, kind)))
    except (FileNotFoundError, ProcessLookupError):
        return seen
    return seen.replace(
        runs=True,
        shared=shared,
        effective=int(fields.get("CapEff", "0"), 16),
        seccomp=int(fields.get("Seccomp", "0")),
        no_new_privileges=fields.get("NoNewPrivs", "0").strip() == "1",
        uid=int(fields.get("Uid", "0").split()[0]),
        monitor_lives=monitor is not None,
        label=_label(status.pid) if seen.apparmor else "",
    )


def _label(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/attr/apparmor/current", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""  # it has just ended, or the module says nothing of it


def _is_shared(pid: int, name: str) -> bool:
    # The engine's own; of the network, that of whoever starts processes: a user's engine lives in another one.
    own = os.stat(f"/proc/self/ns/{name}") if name != "net" else namespace.outside(_network)
    return os.path.samestat(os.stat(f"/proc/{pid}/ns/{name}"), own)


def _network() -> os.stat_result:
    return os.stat("/proc/thread-self/ns/net")
