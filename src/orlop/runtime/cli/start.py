"""start: a created container is let go. Apart from create, of which it needs almost nothing."""

from __future__ import annotations

import os

from ...spec.errors import Conflict
from .. import gate, starter
from .call import Call
from .store import Entry, has_hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..notify import Delivery

_REFUSED = {
    "running": "cannot start an already running container",
    "stopped": "cannot start a container that has stopped",
    "paused": "cannot start a container in the paused state",
}


def start(call: Call) -> int:
    """Let a created container go."""
    entry = call.store.load(call.container())
    connection = starter.connection()  # with one it has passed the gate, and may have ended
    status = "created" if connection >= 0 else call.store.status(entry)
    if status != "created":
        raise Conflict("start", f"container {entry.id}", _REFUSED[status])
    directory = call.store.directory(entry.id)
    name = call.store.gate(entry.id)
    document = call.store.document(entry.id)
    delivery, pidfd = _delivery(call, entry) if b"SCMP_ACT_NOTIFY" in document else (None, -1)
    try:
        if connection >= 0:
            gate.resume(connection, delivery)
        else:
            gate.enter(directory, name, delivery)
    finally:
        if pidfd >= 0:
            os.close(pidfd)
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            pass
    starter.PROGRAM.keep()
    if has_hooks(document, "poststart"):
        from .. import hooks

        spec = call.store.spec(entry.id)
        assert spec.hooks
        hooks.run(spec.hooks.poststart, "poststart", call.store.state(entry, spec))
    return 0


def _delivery(call: Call, entry: Entry) -> tuple[Delivery | None, int]:
    """Return the way of the container's seccomp listener, and the pidfd that it uses; (None, -1) without one."""
    from .. import notify
    from ..planning import process

    spec = call.store.spec(entry.id)
    listener = process.listener(spec.linux.seccomp)
    pidfd = call.store.open_init(entry) if listener else None
    if listener is None or pidfd is None:
        return None, -1
    return notify.Delivery(listener, entry.pid, pidfd, call.store.state(entry, spec)), pidfd
