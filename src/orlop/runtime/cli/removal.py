"""What is done at the end of a container: its cgroup removed, its record forgotten, its poststop hooks run."""

from __future__ import annotations

from ...spec.errors import OrlopError
from .call import Call
from .store import Entry, cgroup_of, has_hooks


def destroy(call: Call, entry: Entry) -> None:
    """Remove what is left of a container that has stopped, and run its poststop hooks."""
    if entry.cgroup:
        cgroup = cgroup_of(entry)
        cgroup.kill()
        if entry.unit:
            from ..systemd import scope

            scope.stop(entry.unit)
        cgroup.remove()
    try:
        document = call.store.document(entry.id)
    except FileNotFoundError:
        return  # a foreground run sees the end of what a checkpoint or a delete ends, too, and was faster
    if not has_hooks(document, "poststop"):
        call.store.forget(entry.id)
        return
    from .. import hooks

    spec = call.store.spec(entry.id)
    state = call.store.state(entry, spec)
    call.store.forget(entry.id)
    assert spec.hooks
    try:
        hooks.run(spec.hooks.poststop, "poststop", state)
    except OrlopError as failure:  # the container is gone: a failing poststop hook is only told (runtime.md)
        call.log.write("warning", str(failure))
