"""Containers that are made while their command waits: `podman init`, until somebody starts them.

    init -> a thread of its own walks through the start, with the container's lock, until the process is made and waits
    start -> lets it go on, and waits for what comes of it
    whoever else wants the lock, or the engine's end -> it is undone: on disk it never was anything else than created

Its network has its addresses, its volumes are mounted, and it has a process, which is seen by `cp` and `mount`.
"""

from __future__ import annotations

import threading

from ...linux import process
from ...spec.errors import Conflict, OrlopError, Unavailable
from ..containers import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..containers.record import ContainerRecord
    from ..engine import Engine

MADE_S_MAX = 120.0


class Undone(Exception):
    """What waited is not to go on; no failure of its start."""


class Wait:
    """One container whose command waits. pid: of the process that will execute it, 0 until it is made."""

    def __init__(self) -> None:
        self.pid = self.start_time = 0
        self.failure: OrlopError | None = None
        self._made, self._decided, self._over = threading.Event(), threading.Event(), threading.Event()
        self.goes = False
        self._guard = threading.Lock()

    def here(self, pid: int) -> bool:
        """Wait for a decision, in the thread of the start; tell whether it goes on."""
        self.start_time = process.start_time(pid)
        self.pid = pid
        self._made.set()
        self._decided.wait()
        return self.goes

    def decide(self, *, goes: bool) -> bool:
        """Let it go on, or have it undone; wait until that is done, and tell whether it went on.

        Raises what the start raised.
        """
        with self._guard:
            if not self._decided.is_set():
                self.goes = goes
                self._decided.set()
        self._over.wait()
        if goes and self.goes and self.failure is not None:
            raise self.failure
        return self.goes

    def run(self, work: Callable[[], None], at_end: Callable[[], None]) -> None:
        """Do the start."""
        try:
            work()
        except Undone:
            pass
        except OrlopError as wrong:
            self.failure = wrong
        except BaseException as defect:
            self.failure = Unavailable("start", "a container", repr(defect))
        finally:
            at_end()
            self._over.set()
            self._made.set()

    def until_made(self) -> None:
        """Raises what the start raised, or Unavailable."""
        if not self._made.wait(MADE_S_MAX):
            raise Unavailable("initialize", "a container", "its start does not come to an end", hint="try again")
        if self.failure is not None:
            raise self.failure

    def open(self) -> int | None:
        """Return a pidfd of the process, None when it is gone."""
        try:
            return process.pidfd_of(self.pid, self.start_time) if self.pid else None
        except ProcessLookupError:
            return None


def gate(engine: Engine, container_id: str, wait: Wait) -> Callable[[int], bool]:
    """Return what a start calls with the process that it has made."""

    def here(pid: int) -> bool:
        engine.locks.giving_way[container_id] = lambda: wait.decide(goes=False)
        return wait.here(pid)

    return here


def init(engine: Engine, reference: str, start: Callable[[ContainerRecord, Wait], None]) -> None:
    """Make a container's process, and have its command wait. start: does all of a start, in a thread.

    Raises NotFound, Conflict where it is made already, and what a start raises.
    """
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    wait = Wait()
    if task.state not in (state.CREATED, state.EXITED) or engine.waits.setdefault(record.id, wait) is not wait:
        cause = f"container {record.id} has already been created in runtime"
        raise Conflict("initialize", record.subject, cause, hint=f"start it with: orlop start {record.name}")

    def forget() -> None:
        engine.locks.giving_way.pop(record.id, None)
        engine.waits.pop(record.id, None)

    work = threading.Thread(target=lambda: wait.run(lambda: start(record, wait), forget), name="init", daemon=True)
    work.start()
    wait.until_made()
