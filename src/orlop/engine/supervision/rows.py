"""What a list of containers is made of, kept while nothing has changed: record, task, and docker's JSON of them.

A list that programs ask for many times a second (a proxy, a page that refreshes) costs one read(2) when nothing
happened. What has changed is told by inotify(7), whose events are there before the rename(2) that made them returns,
and by the engine itself (`touched`), which tells after the fact and before its verb ends.

Invariants:
1. A row is looked at only after its watch was set, so a change during the look makes it stale.
2. A watch fires once (IN_ONESHOT) and is set again by the next look: what waits in the kernel is bounded by the rows.
3. What neither tells - a cgroup that somebody else froze, a monitor that was killed - is seen by looking again at what
   runs, after RECHECK_S.
4. Without a watch (inotify's limits are for all programs of a user) a row is looked at every time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from ...linux import inotify
from ...spec.errors import OrlopError
from ..containers.names import is_id
from . import health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.network import Attachment, Network
    from ..containers.record import ContainerRecord
    from ..containers.state import Task
    from ..engine import Engine

RECHECK_S = 0.25
_MOVES = inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM | inotify.IN_DELETE
_OF_ALL = _MOVES | inotify.IN_CREATE | inotify.IN_ONESHOT
_OF_ONE = _MOVES | inotify.IN_MOVE_SELF | inotify.IN_DELETE_SELF | inotify.IN_ONESHOT
_NO_WATCH = -1
_ALL = ""  # the watch of the directory that all containers are in


class Row:
    """A container as it was seen. text: docker's JSON but for what tells the time, b"" until somebody needs it."""

    __slots__ = ("health", "held", "record", "seen_s", "task", "text", "watch")

    def __init__(self, record: ContainerRecord, task: Task, health: str, held: Attachment | None) -> None:
        self.record = record
        self.task = task
        self.health = health
        self.held = held
        self.watch = _NO_WATCH
        self.seen_s = 0.0
        self.text = b""

    def unwritten(self) -> Row:
        """Return it without text; one that is being written now, of what was, stays with the row that was."""
        row = Row(self.record, self.task, self.health, self.held)
        row.watch, row.seen_s = self.watch, self.seen_s
        return row

    def says_the_same(self, other: Row) -> bool:
        """Whether nothing that a list shows differs."""
        ours = (self.record, self.task.state, self.task.status, self.task.exit, self.health)
        return self.held is other.held and ours == (
            other.record,
            other.task.state,
            other.task.status,
            other.task.exit,
            other.health,
        )


class Rows:
    """The rows of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._there: frozenset[str] = frozenset()  # the directories that are ids
        self._rows: dict[str, Row] = {}
        self._absent: dict[str, int] = {}  # those without a record that can be read, and their watches
        self._watches: dict[int, str] = {}
        self._touched: deque[str] = deque()
        self._networks: dict[str, Network] | None = None
        self._all_watched = False
        self._fd = -1
        self._version = self._shown_version = 0
        self._shown: list[Row] = []
        self._kept: dict[bool, tuple[tuple[int, int], bytes]] = {}

    def touched(self, container_id: str) -> None:
        """Note that something about a container has changed. Never waits."""
        self._touched.append(container_id)

    def now(self) -> list[Row]:
        """Return the containers as they are, the newest first. The list belongs to all, and is never changed."""
        with self._lock:
            self._refresh()
            return self._shown

    def kept(self, everything: bool) -> tuple[list[Row], tuple[int, int], bytes | None]:
        """Return the rows, what a whole list of them is good for (this version, this second), and that list if kept."""
        with self._lock:
            self._refresh()
            good_for = (self._version, int(time.time()))
            before = self._kept.get(everything)
            return self._shown, good_for, before[1] if before is not None and before[0] == good_for else None

    def keep(self, everything: bool, good_for: tuple[int, int], whole: bytes) -> None:
        """Keep a whole list, in place of the one before."""
        self._kept[everything] = (good_for, whole)

    def close(self) -> None:
        """Let go of the watches. Nobody asks any more."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _refresh(self) -> None:
        stale = self._told()
        if not self._all_watched:
            stale |= self._find()
        networks = self._engine.networks.store.all()  # another dict when one has come or gone
        if networks is not self._networks:
            self._networks = networks
            self._version += 1
            self._rows = {container_id: row.unwritten() for container_id, row in self._rows.items()}
        moment = time.monotonic()
        attachments = self._engine.networks.attachments
        for container_id, row in self._rows.items():
            if (
                row.watch == _NO_WATCH
                or (moment - row.seen_s > RECHECK_S and row.task.is_up)
                or attachments.get(container_id) is not row.held
            ):
                stale.add(container_id)
        stale.update(container_id for container_id, watch in self._absent.items() if watch == _NO_WATCH)
        for container_id in stale & self._there:
            self._look(container_id, moment)
        if self._version != self._shown_version:
            self._shown = sorted(self._rows.values(), key=lambda row: row.record.created_at, reverse=True)
            self._shown_version = self._version

    def _told(self) -> set[str]:
        """Return the containers that something was told of since the last time."""
        stale = set()
        while self._touched:
            stale.add(self._touched.popleft())
        events = inotify.read_events(self._fd) if self._fd >= 0 else []
        told = {self._watches.pop(number, None) for number, _, _ in events}
        if _ALL in told or any(mask & inotify.IN_Q_OVERFLOW for _, mask, _ in events):
            self._all_watched = False
        if any(mask & inotify.IN_Q_OVERFLOW for _, mask, _ in events):
            stale |= self._there
        stale.update(container_id for container_id in told if container_id)
        return stale

    def _find(self) -> set[str]:
        """See which containers there are; return those that are new."""
        directory = self._engine.records.directory
        self._all_watched = self._watch(directory, _OF_ALL, _ALL) != _NO_WATCH
        there = frozenset(name for name in os.listdir(directory) if is_id(name))
        new = there - self._there
        for container_id in self._there - there:
            self._absent.pop(container_id, None)
            if self._rows.pop(container_id, None) is not None:
                self._version += 1
        self._there = there
        return set(new)

    def _look(self, container_id: str, moment: float) -> None:
        watch = self._watch(self._engine.records.path(container_id), _OF_ONE, container_id)
        before = self._rows.get(container_id)
        held = self._engine.networks.attachments.get(container_id)
        try:
            record = self._engine.records.load(container_id)
            task = self._engine.observe(container_id)
        except OrlopError:
            self._absent[container_id] = watch
            if self._rows.pop(container_id, None) is not None:
                self._version += 1
            return
        self._absent.pop(container_id, None)
        row = Row(record, task, health.status(self._engine, record, task), held)
        if before is not None and before.says_the_same(row):
            row = before
        else:
            self._rows[container_id] = row
            self._version += 1
        row.watch, row.seen_s = watch, moment

    def _watch(self, path: str, mask: int, container_id: str) -> int:
        try:
            if self._fd < 0:
                self._fd = inotify.init()
            number = inotify.add_watch(self._fd, path, mask)
        except OSError:
            return _NO_WATCH
        self._watches[number] = container_id
        return number
