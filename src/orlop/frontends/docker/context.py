"""What the connections of docker's clients share: the engine, the routes, attaches that came before their start, execs.

An attach before the start, the size of the terminal that is to come and an exec that is not started yet live in memory
only: they are promises between a client and this process, and end with either.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager

from ...spec.errors import Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...engine.engine import Engine
    from ...spec.container import ExecRequest
    from ...spec.runtime import Box
    from ..buildkit import BuildKit
    from .door import Table

EXECS_MAX = 10_000


class Promise:
    """An attach to a container that does not run yet. fd is readable once it was started, or can't be."""

    def __init__(self, container_id: str) -> None:
        self.container_id = container_id
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.stream = -1  # an attach stream, when it came to a start

    def keep(self, stream: int) -> None:
        """Give it its stream, -1 for none."""
        self.stream = stream
        os.eventfd_write(self.fd, 1)


class ExecWishes:
    """What the client of an exec wants to see of it. size: of its terminal, unless the start says another."""

    def __init__(self, *, stdout: bool, stderr: bool, detach_keys: str, size: Box | None) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.detach_keys = detach_keys
        self.size = size


class PlannedExec:
    """An exec that was created. started: when it was, the engine knows the rest. begun: once it runs, or can't."""

    def __init__(self, container_id: str, request: ExecRequest, wishes: ExecWishes) -> None:
        self.container_id = container_id
        self.request = request
        self.wishes = wishes
        self.started = False
        self.begun = threading.Event()
        self.pid = 0
        self.failed_code: int | None = None  # of a start that failed


class Context:
    """One for each engine."""

    def __init__(self, engine: Engine, table: Table) -> None:
        self.engine = engine
        self.table = table
        self._guard = threading.Lock()
        self._promises: list[Promise] = []
        self._execs: dict[str, PlannedExec] = {}
        self._sizes: dict[str, Box] = {}
        self._builds: dict[str, socket.socket] = {}  # by the names that their clients gave them
        self._buildkit: BuildKit | None = None

    @property
    def buildkit(self) -> BuildKit:
        """What clients of BuildKit's API share; made for the first of them."""
        from ..buildkit import BuildKit

        with self._guard:
            if self._buildkit is None:
                self._buildkit = BuildKit(self.engine)
            return self._buildkit

    def promise(self, container_id: str) -> Promise:
        """Return a new promise, to be ended with `forget`."""
        promise = Promise(container_id)
        with self._guard:
            self._promises.append(promise)
        return promise

    def promised(self, container_id: str) -> list[Promise]:
        """Return and take the promises of a container that is about to be started, the first first."""
        with self._guard:
            taken = [one for one in self._promises if one.container_id == container_id]
            self._promises = [one for one in self._promises if one.container_id != container_id]
        return taken

    def forget(self, promise: Promise) -> None:
        """End a promise: its client has gone, or it was kept."""
        with self._guard:
            if promise in self._promises:
                self._promises.remove(promise)
        os.close(promise.fd)

    @contextmanager
    def building(self, identifier: str, connection: socket.socket) -> Iterator[None]:
        """Know a build by the name that its client gave it, "" for none. Raises Conflict while there is one of it."""
        if not identifier:
            yield
            return
        with self._guard:
            if identifier in self._builds:
                raise Conflict("build", f"build {identifier[:64]}", f"a build of the id {identifier[:64]} goes on")
            self._builds[identifier] = connection
        try:
            yield
        finally:
            with self._guard:
                del self._builds[identifier]

    def cancel_build(self, identifier: str) -> None:
        """End a build: it sees that its client has gone."""
        with self._guard:
            if (connection := self._builds.get(identifier)) is not None:
                connection.shutdown(socket.SHUT_RD)

    def plan_size(self, container_id: str, size: Box) -> None:
        """Remember how large the terminal is at which a container is to start; the oldest of too many are forgotten."""
        with self._guard:
            while len(self._sizes) >= EXECS_MAX:
                del self._sizes[next(iter(self._sizes))]
            self._sizes[container_id] = size

    def planned_size(self, container_id: str) -> Box | None:
        """Return and take that size: who starts it again has another terminal."""
        with self._guard:
            return self._sizes.pop(container_id, None)

    def plan_exec(self, exec_id: str, planned: PlannedExec) -> None:
        """Remember an exec; the oldest of too many are forgotten."""
        with self._guard:
            while len(self._execs) >= EXECS_MAX:
                del self._execs[next(iter(self._execs))]
            self._execs[exec_id] = planned

    def planned_exec(self, exec_id: str) -> PlannedExec:
        """Return the exec of that id. Raises NotFound."""
        with self._guard:
            planned = self._execs.get(exec_id)
        if planned is None:
            raise NotFound("find", f"exec {exec_id[:64]}", f"No such exec instance: {exec_id[:64]}")
        return planned
