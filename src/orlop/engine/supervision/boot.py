"""Containers that start by themselves: after a reboot, and when a monitor was killed that should have restarted them.

A living monitor restarts its container without us. What is left for an engine:

    the machine was booted since the last run       always; unless-stopped, if nobody stopped it
    the monitor died without an exit record,        what the policy says to such an end
    or while it waited for the next run
    an engine died in the middle of a start         always, unless-stopped

What somebody stopped in this boot stays stopped, always too: engines come and go with the commands here, and a
container that returns with the next `ps` would surprise. A start that fails is tried again, with the pauses of
restarts.
"""

from __future__ import annotations

import threading
import time

from ...spec.errors import NotFound, OrlopError
from ...supervise.restart import ALWAYS, UNLESS_STOPPED, Series
from ..containers import lifecycle, state
from . import orders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine

PARALLEL_MAX = 8


class Boot:
    """Starts containers in the background, each after those it depends on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Condition()
        self._due: dict[str, float] = {}  # container id: when to try, monotonic
        self._series: dict[str, Series] = {}
        self._starting = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def consider(self, container_id: str) -> None:
        """Start a container if that is wanted of us."""
        if restarts(self._engine, container_id) is None:
            return
        with self._lock:
            self._due.setdefault(container_id, time.monotonic())
            self._lock.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="boot", daemon=True)
                self._thread.start()

    def busy(self) -> bool:
        """Tell whether something is still to be started."""
        with self._lock:
            return bool(self._due) or self._starting > 0

    def close(self) -> None:
        """Start nothing more."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (container_id := self._next()) is not None:
            name = f"start of {container_id[:12]}"
            threading.Thread(target=self._start, args=(container_id,), name=name, daemon=True).start()

    def _next(self) -> str | None:
        """Wait for the next one whose time has come, and for room; None when the engine closes."""
        with self._lock:
            while not self._closed:
                now = time.monotonic()
                ready = [container_id for container_id, due in self._due.items() if due <= now]
                if ready and self._starting < PARALLEL_MAX:
                    del self._due[ready[0]]
                    self._starting += 1
                    return ready[0]
                later = min(self._due.values(), default=None)
                self._lock.wait(None if later is None or ready else max(later - now, 0.0))
        return None

    def _start(self, container_id: str) -> None:
        engine, again = self._engine, False
        try:
            times = restarts(engine, container_id)
            if times is not None:
                engine.log.write(f"container {container_id} is started: its restart policy wants it")
                lifecycle.start(engine, container_id, lifecycle.Client(), restarts=times)
        except NotFound:
            pass
        except OrlopError as wrong:
            engine.log.write(f"container {container_id} could not be started: {wrong}")
            again = True
        except BaseException as defect:
            engine.log.exception(f"starting container {container_id}", defect)
        with self._lock:
            self._starting -= 1
            if again:
                pause_s = self._series.setdefault(container_id, Series(0)).pause_after(0.0)
                self._due[container_id] = time.monotonic() + pause_s
            else:
                self._series.pop(container_id, None)
            self._lock.notify_all()


def restarts(engine: Engine, container_id: str) -> int | None:
    """Return how often a container will have been restarted when we start it now, None when that is not ours to do."""
    order = orders.read(engine, container_id)
    task = engine.observe(container_id)
    if order is None or task.is_up:
        return None
    for_ever = order.policy in (ALWAYS, UNLESS_STOPPED)
    if task.status is not None and task.status.boot_id != engine.boot_id:
        return 0 if for_ever and not (order.stopped and order.policy == UNLESS_STOPPED) else None
    if order.stopped:
        return None
    if task.status is None or task.exit is None:
        return 0 if for_ever else None
    was_cut_short = bool(task.exit.restart_at) or task.exit.error == state.EXIT_LOST
    wanted = order.wants(task.exit.exit_code, task.status.restarts) if was_cut_short else for_ever
    return task.status.restarts + 1 if wanted else None
