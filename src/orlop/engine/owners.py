"""Processes that own what they make: when one of them has ended, its containers, volumes and networks are removed.

An owner is "<pid>.<start time>" as this engine sees the process, in the label LABEL of what it made. Nothing else is
kept: an engine that opens finds owners by looking at the labels, so neither's death leaves anything behind for long.
"""

from __future__ import annotations

import os
import select
import threading
from functools import partial

from ..linux import pidfd
from ..spec.errors import NotFound, OrlopError
from .containers import lifecycle
from .networks import lifecycle as networks
from .volumes import verbs as volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .engine import Engine

LABEL = "io.orlop.owner"


class Owners:
    """Watches owners on their pidfds, on a thread that runs once there is one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._watched: dict[int, str] = {}  # pidfd: owner
        self._poll = select.poll()
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether an owner lives: somebody has to be there when it ends."""
        return bool(self._watched)

    def claim(self, pid: int) -> str:
        """Return the owner that a process is, and watch it. Raises NotFound when it has ended."""
        try:
            owner = f"{pid}.{pidfd.start_time(pid)}"
        except OSError:
            owner = ""
        if not owner or not self._watch(owner):
            raise NotFound("watch", f"process {pid}", f"No such process: {pid}")
        return owner

    def look(self) -> None:
        """Find owners in the labels of what there is: watch those that live, clean up after the others."""
        for owner in self._labels():
            if not self._watch(owner):
                self._remove(owner)

    def close(self) -> None:
        with self._guard:
            self._closing = True
            thread = self._thread
            if thread is not None:
                os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
            os.close(self._wake)
        for fd in self._watched:
            os.close(fd)
        self._watched.clear()

    def _labels(self) -> set[str]:
        engine = self._engine
        found = [record.request.labels for record in engine.records.all()]
        found += [volume.labels for volume in engine.volumes.all()]
        found += [network.labels for network in engine.networks.store.all().values()]
        return {labels[LABEL] for labels in found if LABEL in labels}

    def _watch(self, owner: str) -> bool:
        """Watch an owner; tell whether it lives."""
        pid, _, started = owner.partition(".")
        try:
            fd = pidfd.pidfd_of(int(pid), int(started))
        except (OSError, ValueError, OverflowError):
            return False
        with self._guard:
            if self._closing or owner in self._watched.values():
                os.close(fd)
                return True
            self._watched[fd] = owner
            self._poll.register(fd, select.POLLIN)
            if self._thread is None:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC)
                self._poll.register(self._wake, select.POLLIN)
                self._thread = threading.Thread(target=self._run, name="owners", daemon=True)
                self._thread.start()
            else:
                os.eventfd_write(self._wake, 1)  # a poll that has begun does not know the new one
        return True

    def _run(self) -> None:
        while not self._closing:
            for fd, _ in self._poll.poll():
                if fd == self._wake:
                    os.eventfd_read(fd)
                    continue
                with self._guard:
                    self._poll.unregister(fd)
                    owner = self._watched[fd]
                try:
                    self._remove(owner)
                finally:
                    with self._guard:
                        del self._watched[fd]
                        os.close(fd)

    def _remove(self, owner: str) -> None:
        """Remove everything of an owner that has ended. What resists is told in the log, for the next engine."""
        engine = self._engine
        for record in list(engine.records.all()):
            if record.request.labels.get(LABEL) == owner:
                self._try(f"container {record.name}", partial(lifecycle.remove, engine, record.id, True, volumes=True))
        for volume in list(engine.volumes.all()):
            if volume.labels.get(LABEL) == owner:
                self._try(f"volume {volume.name}", partial(volumes.remove, engine, volume.name, True))
        for network in list(engine.networks.store.all().values()):
            if network.labels.get(LABEL) == owner:
                self._try(f"network {network.name}", partial(networks.remove, engine, network.id))

    def _try(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except NotFound:
            pass
        except OrlopError as wrong:
            self._engine.log.write(f"{what} of a process that has ended is not removed: {wrong}")
