"""The journal of events: a bounded file that outlives the engine, and those who listen now.

    $ORLOP_ROOT/events.jsonl      one JSON object a line, the newest last      (writer: engine)
    $ORLOP_ROOT/events.jsonl.1    the part before it

Invariants:
1. One writer: the engine's lock sees to it. A line is one write(2) with O_APPEND, so a killed engine leaves whole lines
   and at most one torn one, which readers pass over and the next line does not touch.
2. A publisher never waits for a reader: a subscription's queue is bounded, and one that is full is ended.
3. Events are hints (the truth lies in the containers' own files), so a line is not synced to disk, and a full disk
   stops no verb. A listener still hears what could not be written.
4. A run of a container is told to have ended once: the line of its end names it, and it is the line that decides,
   also for the next engine (`append_end`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import ExitStack
from errno import EISDIR

from ..linux.path import DAMAGED, open_file
from ..spec import jsonio
from ..spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .log import Log

    Event = dict[str, Any]

SIZE_BYTES_MAX = 1024 * 1024  # of each of the two files: about 3,000 events
LINE_BYTES_MAX = 64 * 1024
GONE_MAX = 1024  # containers and execs that are gone, whose last end is still known: somebody may be about to tell it
QUEUED_MAX = 4096  # events that a subscriber may be behind
READ_BYTES = 64 * 1024
BY = "by"  # of what ends a container, in the journal only: who asked for it
RUN = "run"  # of an end, in the journal only: whose run it was and which


class Subscription:
    """What happened before (`replay`) and, without a gap, from now on (`take`). fd is readable when there is more.

    overtaken: the queue was full once, and nothing comes any more.
    """

    __slots__ = ("_files", "_queue", "fd", "overtaken")

    def __init__(self, files: list[tuple[int, int]]) -> None:
        """files: (descriptor, size) of what is written so far, the oldest first."""
        self._files = files
        self._queue: deque[Event] = deque()
        self.overtaken = False
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def replay(self) -> Iterator[Event]:
        """Yield what was written before the subscription."""
        for fd, size in self._files:
            yield from _events(fd, size)

    def take(self) -> list[Event]:
        """Return what came since, without waiting."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        taken = [self._queue.popleft() for _ in range(len(self._queue))]
        if self.overtaken:
            os.eventfd_write(self.fd, 1)  # no event will do it any more
        return taken

    def offer(self, event: Event) -> None:
        """Queue an event; called by the journal, one thread at a time."""
        if self.overtaken:
            return
        if len(self._queue) < QUEUED_MAX:
            self._queue.append(event)
        else:
            self.overtaken = True
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        for fd, _ in self._files:
            os.close(fd)
        self._files = []
        os.close(self.fd)


class Journal:
    """Appends events and hands them to subscribers. `append` never raises and never waits for one of them."""

    def __init__(self, path: str, log: Log) -> None:
        self._path = path
        self._log = log
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription] = []
        self._ended: dict[str, str] = {}  # id of a container or exec -> its run whose end was told last
        self._gone: deque[str] = deque()
        self._oldest_ns: int | None = None
        self._look()
        try:
            self._fd = _open(path)
        except OSError as wrong:
            if wrong.errno not in (EISDIR, *DAMAGED):
                raise
            os.rename(path, f"{path}.odd-{os.urandom(4).hex()}")
            log.write(f"{path} is no file of ours: it has another name now, and a new one begins")
            self._fd = _open(path)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"

    def append(self, event: Event) -> None:
        """Write an event and tell it to everybody who listens."""
        with self._lock:
            self._write(event)

    def append_end(self, event: Event, owner: str, run: str, finished_ns: int, *, before: Event | None = None) -> bool:
        """Write the end of a run, unless it was told before, by this engine or an earlier one; tell whether it was.

        owner: the id of the container or exec whose run it was. run: its started_at. before: told ahead of the end, if
        that is told. An end that is older than all that the journal still has was told before the rest was
        cut off: nothing is ever cut off while an end that is known is untold.
        """
        with self._lock:
            if self._ended.get(owner) == run or self._oldest_ns is None or finished_ns < self._oldest_ns:
                return False
            if before is not None:
                self._write(before)
            self._write(event, [owner, run])
            self._ended[owner] = run
            return True

    def forget(self, owner: str) -> None:
        """Forget, after a while, the end of a container or exec that is gone."""
        with self._lock:
            self._gone.append(owner)
            if len(self._gone) > GONE_MAX:
                self._ended.pop(self._gone.popleft(), None)

    def subscribe(self) -> Subscription:
        """Return a subscription; `unsubscribe` gives it back. Raises OSError."""
        with self._lock, ExitStack() as undo:
            files = []
            for path in (f"{self._path}.1", self._path):
                if (fd := _opened(path)) < 0:
                    continue
                undo.callback(os.close, fd)
                files.append((fd, os.fstat(fd).st_size))
            subscription = Subscription(files)
            self._subscriptions.append(subscription)
            undo.pop_all()
            return subscription

    def listeners(self) -> int:
        """Return how many listen now."""
        return len(self._subscriptions)

    def unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.remove(subscription)
        subscription.close()

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, event: Event, run: list[str] | None = None) -> None:
        line = jsonio.dump({**event, RUN: run} if run else event) + b"\n"
        if len(line) > LINE_BYTES_MAX:
            self._log.write(f"an event of {len(line)} bytes is not kept: {event.get('Type')} {event.get('Action')}")
        else:
            self._append(line)
            if self._oldest_ns is None:
                self._oldest_ns = _time_ns(event)
        for subscription in self._subscriptions:
            subscription.offer(event)

    def _append(self, line: bytes) -> None:
        data = b"\n" + line if self._torn else line
        try:
            if self._size >= SIZE_BYTES_MAX:
                self._rotate()
            written = os.write(self._fd, data)
        except OSError as wrong:
            self._log.write(f"an event can't be kept in {self._path}: {wrong.strerror}")
            return
        self._size += written
        self._torn = written < len(data)

    def _rotate(self) -> None:
        os.rename(self._path, f"{self._path}.1")
        fd = _open(self._path)
        os.close(self._fd)
        self._fd, self._size = fd, 0
        self._oldest_ns = next((_time_ns(event) for event in _of_file(f"{self._path}.1")), self._oldest_ns)

    def _look(self) -> None:
        """Find the oldest event, and the last end of each container that was told."""
        for path in (f"{self._path}.1", self._path):
            for event in _of_file(path):
                if self._oldest_ns is None:
                    self._oldest_ns = _time_ns(event)
                match event.get(RUN):
                    case [str(owner), str(run)]:
                        self._ended[owner] = run
                if event.get("Action") == "destroy":
                    self._ended.pop(event["Actor"]["ID"], None)


def _open(path: str) -> int:
    return open_file(path, flags=os.O_RDWR | os.O_CREAT | os.O_APPEND)


def _opened(path: str) -> int:
    """Return a descriptor of what is kept, -1 where no file of ours is. Raises OSError."""
    try:
        return open_file(path)
    except FileNotFoundError:
        return -1
    except OSError as wrong:
        if wrong.errno in DAMAGED:
            return -1
        raise


def _of_file(path: str) -> Iterator[Event]:
    if (fd := _opened(path)) < 0:
        return
    try:
        yield from _events(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _events(fd: int, size: int) -> Iterator[Event]:
    """Yield the events of the first size bytes of a file; a line that is none is passed over.

    Of a file that is larger than one of ours can get, the end.
    """
    rest = b""
    at = max(0, size - SIZE_BYTES_MAX - LINE_BYTES_MAX)
    while at < size and (data := os.pread(fd, min(READ_BYTES, size - at), at)):
        at += len(data)
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            rest = b""
        for line in lines:
            event = _parse(line)
            if event is not None:
                yield event


def _parse(line: bytes) -> Event | None:
    try:
        event = jsonio.parse_object(line, "an event", bytes_max=LINE_BYTES_MAX)
    except Invalid:
        return None
    actor = event.get("Actor")
    whole = isinstance(actor, dict) and isinstance(actor.get("ID"), str) and isinstance(actor.get("Attributes"), dict)
    return event if whole and isinstance(event.get("timeNano"), int) else None


def _time_ns(event: Event) -> int:
    return int(event["timeNano"])
