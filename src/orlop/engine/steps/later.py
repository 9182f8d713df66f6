"""What is left to do of steps that have ended: nobody waits for it, and in the end all of it is done."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Later:
    """Work of one build. Any thread may call it.

    It is begun while the next step's container starts, when the interpreter has nothing else to do: beside the making
    of a layer it would take that its turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []

    def put(self, work: Callable[[], None]) -> None:
        """Have something done."""
        with self._lock:
            self._waiting.append(work)

    def begin(self) -> None:
        """Begin with what waits, on a thread of its own."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                thread = threading.Thread(target=_do, args=(waiting,), name="build's tidying", daemon=True)
                thread.start()
                self._threads.append(thread)

    def finish(self) -> None:
        """Wait until all of it is done."""
        self.begin()
        for thread in self._threads:
            thread.join()


def _do(waiting: list[Callable[[], None]]) -> None:
    """Do all of it, also what stands behind a defect, which is told in the end."""
    try:
        while waiting:
            waiting.pop(0)()
    finally:
        if waiting:
            _do(waiting)
