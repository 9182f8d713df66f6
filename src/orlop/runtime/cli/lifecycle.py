"""kill, delete, pause, resume: verbs on a container that exists."""

from __future__ import annotations

import os
import select

from ...linux.pidfd import pidfd_open, pidfd_send_signal
from ...linux.signals import SIGKILL
from ...spec.errors import Conflict, Invalid, NotFound
from .call import Call
from .removal import destroy
from .store import Entry, cgroup_of

_KILL_MS_MAX = 10_000


def kill(call: Call) -> int:
    """Send a signal to the container's first process, or to every process (--all)."""
    if not 1 <= len(call.arguments) <= 2:
        raise Invalid("run", "orlop-runtime kill", f"it requires 1 or 2 arguments, {len(call.arguments)} given")
    entry = call.store.load(call.arguments[0])
    number = _signal("".join(call.arguments[1:]) or "SIGTERM", entry)
    if call.flags.on("all"):
        _kill_all(entry, number)
        return 0
    pidfd = call.store.open_init(entry)
    if pidfd is None:
        raise Conflict("kill", f"container {entry.id}", "container not running")
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Conflict("kill", f"container {entry.id}", "container not running") from None
    finally:
        os.close(pidfd)
    return 0


def delete(call: Call) -> int:
    """Remove a container that has stopped, or with --force any."""
    force = call.flags.on("force")
    try:
        entry = call.store.load(call.container())
    except NotFound:
        if force:
            call.store.forget(call.container())
            return 0
        raise
    status = call.store.status(entry)
    if status != "stopped":
        # A created container's process only stands at the gate: runc deletes it, too.
        if not force and status != "created":
            raise Conflict(
                "delete", f"container {entry.id}", f"cannot delete container {entry.id} that is not stopped: {status}",
                hint=f"stop it first, or: orlop-runtime delete --force {entry.id}",
            )  # fmt: skip
        _end(call, entry)
    destroy(call, entry)
    return 0


def pause(call: Call) -> int:
    """Freeze every process of the container."""
    entry = _alive(call, "pause", ("running", "created"))
    call.store.ask_at_start(entry.id)
    cgroup_of(entry).freeze()
    return 0


def resume(call: Call) -> int:
    """Thaw a paused container."""
    entry = _alive(call, "resume", ("paused",))
    cgroup_of(entry).thaw()
    return 0


def _alive(call: Call, verb: str, statuses: tuple[str, ...]) -> Entry:
    entry = call.store.load(call.container())
    status = call.store.status(entry)
    if status not in statuses:
        raise Conflict(
            verb, f"container {entry.id}", "container not paused" if verb == "resume" else "container not running"
        )
    return entry


def _signal(text: str, entry: Entry) -> int:
    """Return the number of a signal; 0 asks only whether the process is there (kill(2))."""
    if text == "0":
        return 0
    from ...spec import signals  # enum comes with it, for 5 ms

    return signals.parse(text, f"container {entry.id}")


def _kill_all(entry: Entry, number: int) -> None:
    cgroup = cgroup_of(entry)
    if number == SIGKILL:
        cgroup.kill()
        return
    try:
        pids = cgroup.procs()
    except FileNotFoundError:
        return
    for pid in pids:
        try:
            pidfd = pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def _end(call: Call, entry: Entry) -> None:
    pidfd = call.store.open_init(entry)
    if pidfd is None:
        return
    try:
        pidfd_send_signal(pidfd, SIGKILL)
        cgroup_of(entry).kill()
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_KILL_MS_MAX):
            raise Conflict("delete", f"container {entry.id}", f"its process {entry.pid} does not die of SIGKILL")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
