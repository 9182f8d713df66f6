"""The ends of containers: one thread waits on the pidfds of all monitors, and wakes whoever waits for an end.

Invariants:
1. This thread never waits for anything but its pidfds: what is to be done about an end is done on a thread of its own.
2. An end is told to the waiters after it was dealt with, so whoever was woken sees a settled state.
3. A waiter subscribes before it looks at the state: an end between the two is then not missed.

A pidfd is readable once its process ended, whoever is its parent and whoever reaps it (pidfd_open(2)). The pidfd of the
container's first process is held too: it tells the exit status when the monitor died without writing it.
"""

from __future__ import annotations

import os
import select
import threading

from ...linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.task import TaskStatus
    from ..log import Log

EXITED, REMOVED = "exited", "removed"


class Run:
    """One run that is watched. monitor, init: pidfds, -1 when the process was gone before we looked.

    exec_id: of a run that is an exec's, "" for the container's own.
    """

    __slots__ = ("container_id", "exec_id", "init", "monitor", "status")

    def __init__(self, container_id: str, status: TaskStatus, monitor: int, init: int, exec_id: str = "") -> None:
        self.container_id = container_id
        self.exec_id = exec_id
        self.status = status
        self.monitor = monitor
        self.init = init

    def close(self) -> None:
        for fd in (self.monitor, self.init):
            if fd >= 0:
                os.close(fd)


class Waiter:
    """One who waits for a condition of one container. fd is readable when it came; exit_code is known then."""

    __slots__ = ("condition", "container_id", "exit_code", "fd")

    def __init__(self, container_id: str, condition: str) -> None:
        self.container_id = container_id
        self.condition = condition
        self.exit_code = 0
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


class Watcher:
    """Watches runs until `close`. ended is called with each run that ended, on a thread of its own."""

    def __init__(self, ended: Callable[[Run], None], log: Log) -> None:
        self._ended = ended
        self._log = log
        self._lock = threading.Lock()
        self._runs: dict[int, Run] = {}  # by the monitor's pidfd
        self._ending = 0
        self._known: set[tuple[str, str]] = set()  # (container id, started_at) of runs that are watched or ending
        self._waiters: list[Waiter] = []
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    def watch(self, run: Run) -> None:
        """Watch a run, which may be over already. Its descriptors belong to the watcher from now on."""
        with self._lock:
            key = (run.container_id, run.status.started_at)
            if key in self._known:
                run.close()
                return
            self._known.add(key)
            self._supersede(run)
            if run.monitor < 0:
                self._end(run)
            else:
                self._runs[run.monitor] = run
                self._epoll.register(run.monitor, select.EPOLLIN | select.EPOLLONESHOT)

    def _supersede(self, run: Run) -> None:
        """Forget the run before this one, which its monitor has dealt with: it lives on, for this one."""
        for fd, earlier in list(self._runs.items()):
            if (earlier.container_id, earlier.exec_id) == (run.container_id, run.exec_id):
                del self._runs[fd]
                self._known.discard((earlier.container_id, earlier.status.started_at))
                earlier.close()  # which takes its descriptor out of the epoll set

    def watches(self, container_id: str, status: TaskStatus) -> bool:
        """Tell whether this run is watched, or its end is being dealt with."""
        with self._lock:
            return (container_id, status.started_at) in self._known

    def watching(self) -> list[str]:
        """Return the ids of the containers whose end nobody has seen yet."""
        with self._lock:
            return [run.container_id for run in self._runs.values()]

    def busy(self) -> bool:
        """Tell whether somebody waits here, or an end is being dealt with."""
        with self._lock:
            return bool(self._waiters) or self._ending > 0

    def subscribe(self, container_id: str, condition: str) -> Waiter:
        """Return a waiter for EXITED or REMOVED; `unsubscribe` gives it back."""
        waiter = Waiter(container_id, condition)
        with self._lock:
            self._waiters.append(waiter)
        return waiter

    def unsubscribe(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiters.remove(waiter)
        os.close(waiter.fd)

    def tell(self, container_id: str, condition: str, exit_code: int) -> None:
        """Wake those who wait for this; a removal wakes those who wait for an exit too."""
        with self._lock:
            for waiter in self._waiters:
                if waiter.container_id == container_id and condition in (waiter.condition, REMOVED):
                    waiter.exit_code = exit_code
                    os.eventfd_write(waiter.fd, 1)

    def close(self) -> None:
        """Stop watching. What runs, runs on."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        with self._lock:
            runs = list(self._runs.values())
            self._runs.clear()
        for run in runs:
            run.close()
        self._epoll.close()
        os.close(self._stop)

    def _watch(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._stop:
                    return
                with self._lock:
                    run = self._runs.get(fd)
                    if run is None:
                        continue  # superseded
                    if process.has_ended(fd):
                        self._end(self._runs.pop(fd))
                    else:  # the number was reused since the event
                        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _end(self, run: Run) -> None:
        self._ending += 1
        name = f"end of {run.container_id[:12]}"
        threading.Thread(target=self._settle, args=(run,), name=name, daemon=True).start()

    def _settle(self, run: Run) -> None:
        try:
            self._ended(run)
        except BaseException as wrong:
            self._log.exception(f"dealing with the end of container {run.container_id}", wrong)
        finally:
            with self._lock:
                self._ending -= 1
                self._known.discard((run.container_id, run.status.started_at))
            run.close()  # which takes its descriptor out of the epoll set
