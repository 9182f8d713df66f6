"""Being told when a monitor has written something: inotify(7) on the directories of containers that change alone.

A container with a restart policy or a health check changes without an end of its monitor. What is noticed here is a
hint: whoever gets it looks at the files, and misses nothing that is still true. Without inotify (its limits are for all
programs of a user) the same is found at the next look at the container.
"""

from __future__ import annotations

import os
import select
import threading

from ...linux import inotify
from ...spec.task import EXIT_FILE, HEALTH_FILE, STATUS_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..log import Log

_FILES = frozenset(name.encode() for name in (STATUS_FILE, EXIT_FILE, HEALTH_FILE))


class Notices:
    """Calls back with the id of a container whose monitor wrote, on one thread, one container after the other."""

    def __init__(self, noticed: Callable[[str], None], log: Log) -> None:
        self._noticed = noticed
        self._log = log
        self._lock = threading.Lock()
        self._watches: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._told_refusal = False
        self._notes = -1
        self._noted: Callable[[], None] | None = None
        self._fd = -1
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def watch(self, container_id: str, directory: str) -> None:
        """Be told of a container until `forget`. Idempotent."""
        with self._lock:
            if container_id in self._numbers:
                return
            try:
                if self._fd < 0:
                    self._fd = inotify.init()
                number = inotify.add_watch(self._fd, directory, inotify.IN_MOVED_TO)
            except OSError as refused:
                if not self._told_refusal:
                    self._log.write(f"restarts and health are seen late: {refused}")
                self._told_refusal = True
                return
            self._watches[number] = container_id
            self._numbers[container_id] = number
            self._begin()

    def attend(self, directory: str, noted: Callable[[], None]) -> None:
        """Call back when a monitor has left a note in a directory, until the end."""
        with self._lock:
            try:
                if self._fd < 0:
                    self._fd = inotify.init()
                self._notes = inotify.add_watch(self._fd, directory, inotify.IN_CREATE)
            except OSError as refused:
                self._log.write(f"what is removed of logs is told late: {refused}")
                return
            self._noted = noted
            self._begin()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name="notices", daemon=True)
            self._thread.start()

    def forget(self, container_id: str) -> None:
        """Be told no more. Idempotent."""
        with self._lock:
            number = self._numbers.pop(container_id, None)
            if number is not None:
                self._watches.pop(number, None)
                inotify.remove_watch(self._fd, number)

    def close(self) -> None:
        """Stop."""
        os.eventfd_write(self._stop, 1)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            os.close(self._stop)

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            if any(fd == self._stop for fd, _ in poll.poll()):
                return
            for container_id in self._changed():
                try:
                    self._noticed(container_id)
                except Exception as wrong:
                    self._log.exception(f"looking at container {container_id}", wrong)

    def _changed(self) -> list[str]:
        """Return the containers of all events that wait, each once; all when the kernel dropped some."""
        events = inotify.read_events(self._fd)
        if self._noted and any(number == self._notes for number, _, _ in events):
            self._noted()
        with self._lock:
            if any(mask & inotify.IN_Q_OVERFLOW for _, mask, _ in events):
                return list(self._numbers)
            for number, mask, _ in events:
                if mask & inotify.IN_IGNORED:  # its directory is gone
                    self._numbers.pop(self._watches.pop(number, ""), None)
            found = (self._watches.get(number) for number, _, name in events if name in _FILES)
            return list(dict.fromkeys(container_id for container_id in found if container_id is not None))
