"""Containers without an engine: a spawner, start messages, attached clients, and what is left on disk."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orlop.linux.cgroup import Cgroup, detect
from orlop.spec import attach as wire
from orlop.spec.runtime import Mount, Process, Spec
from orlop.spec.task import Started, StartExec, StartTask
from orlop.supervise import Spawner, attach, logread, restart

from . import container, processes
from .pace import SLOW

WAIT_S_MAX = 30.0 * SLOW
CGROUP = f"/orlop-test-{os.getpid()}"


class Client:
    """An attached client. output: what came for each stream; ended: the exit record's JSON."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.output = {wire.STDOUT: b"", wire.STDERR: b""}
        self.taken = 0
        self.ended: dict[str, Any] | None = None
        self.closed = False
        self._decoder = wire.Decoder()

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.sock.sendall(wire.frame(kind, payload))

    def read(self, until: bytes | None = None, stream: int = wire.STDOUT) -> bytes:
        """Read until a stream's output has these bytes, or to the end; return that output."""
        self.sock.settimeout(WAIT_S_MAX)
        while not self.closed and (until is None or until not in self.output[stream]):
            self._receive()
        assert until is None or until in self.output[stream], self.output
        return self.output[stream]

    def wait_for_taken(self, count: int) -> None:
        self.sock.settimeout(WAIT_S_MAX)
        while self.taken < count and not self.closed:
            self._receive()
        assert self.taken == count

    def close(self) -> None:
        self.sock.close()

    def _receive(self) -> None:
        data = self.sock.recv(1 << 16)
        self.closed = not data
        for kind, payload in self._decoder.feed(data):
            assert self.ended is None, "the exit record is the last frame"
            if kind == wire.EXIT:
                self.ended = json.loads(payload)
            elif kind == wire.TAKEN:
                self.taken += int.from_bytes(payload, "big")
            else:
                self.output[kind] += payload


class Task:
    """A container or an exec that was asked for. started: the answer."""

    def __init__(self, message: StartTask | StartExec, started: Started, client: Client | None) -> None:
        self.message = message
        self.started = started
        self.client = client
        self.clients = [client] if client else []
        self.directory, self.runtime = Path(message.directory), Path(message.runtime_directory)
        if isinstance(message, StartExec):
            self.directory /= f"exec/{message.exec_id}"
            self.runtime /= f"exec/{message.exec_id}"

    @property
    def error(self) -> dict[str, Any]:
        assert isinstance(self.started.error, dict), "it was started"
        return self.started.error

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / "status.json").read_text()))

    @property
    def monitor(self) -> int:
        return int(self.status["monitorPid"])

    def exit(self) -> dict[str, Any]:
        """Wait for the monitor's end; return the exit record."""
        wait_for_end(self.monitor, self.status["monitorStartTime"])
        return dict(json.loads((self.directory / "exit.json").read_text()))

    def kill(self) -> None:
        processes.kill(self.started.pid, self.status["pidStartTime"])

    def log(self) -> bytes:
        return b"".join(entry.data for entry in logread.read(str(self.directory)))

    def attach(self) -> Client:
        self.clients.append(Client(socket.socket(fileno=attach.connect(str(self.runtime)).detach())))
        return self.clients[-1]


class Tasks:
    """Starts containers on one root file system; ends them all in `close`."""

    def __init__(self, scratch: Path, root: Path) -> None:
        self.scratch = scratch
        self.root = root
        self.spawner = Spawner()
        self.started: list[Task] = []
        self._ids = 0

    def bundle(self, spec: Spec) -> tuple[str, Path, Path]:
        """Return (id, directory, runtime directory) of a new container."""
        self._ids += 1
        container_id = f"{os.getpid():032x}{self._ids:032x}"[::-1]
        directory = self.scratch / container_id
        runtime = self.scratch / f"run-{self._ids}"
        directory.mkdir()
        runtime.mkdir(mode=0o700)
        self.write_spec(directory, spec)
        return container_id, directory, runtime

    def write_spec(self, directory: Path, spec: Spec) -> None:
        spec = spec.replace(linux=spec.linux.replace(cgroups_path=f"{CGROUP}/{directory.name}"))
        (directory / "config.json").write_text(json.dumps(spec.to_json()))

    def start(self, *args: str, spec: Spec | None = None, attached: bool = False, **changes: Any) -> Task:
        """Start a container; changes are fields of the message."""
        return self.request(
            self.message(*self.bundle(spec or container.make_spec(*args)), attached=attached, **changes)
        )

    def message(self, container_id: str, directory: Path, runtime: Path, **changes: Any) -> StartTask:
        """Return the message that starts a bundle; changes are its fields."""
        return StartTask(
            id=container_id,
            directory=str(directory),
            runtime_directory=str(runtime),
            rootfs=(Mount(type="bind", source=str(self.root)),),
            **changes,
        )

    def exec(
        self, task: Task, *args: str, attached: bool = True, process: Process | None = None, **changes: Any
    ) -> Task:
        """Execute a command in a running container."""
        self._ids += 1
        message = StartExec(
            id=task.message.id,
            exec_id=f"{self._ids:064x}"[::-1],
            directory=task.message.directory,
            runtime_directory=task.message.runtime_directory,
            pid=task.started.pid,
            pid_start_time=task.status["pidStartTime"],
            process=process or Process(cwd="/", args=args, env=container.ENVIRONMENT),
            attached=attached,
            **changes,
        )
        return self.request(message)

    def request(self, message: StartTask | StartExec, network: int | None = None) -> Task:
        ours = theirs = None
        if message.attached:
            ours, theirs = socket.socketpair()
        try:
            started = self.spawner.request(message, theirs.fileno() if theirs else None, network)
        finally:
            if theirs:
                theirs.close()
        task = Task(message, started, Client(ours) if ours else None)
        self.started.append(task)
        return task

    def close(self) -> None:
        for task in self.started:
            for client in task.clients:
                client.close()
            if task.started.error is None and (task.directory / "status.json").exists():
                (task.directory / restart.RESTART_FILE).write_bytes(restart.Order(stopped=True).encode())
                processes.kill(task.monitor, task.status["monitorStartTime"], restart.WAKE)
                if pid := task.status["pid"]:
                    processes.kill(pid, task.status["pidStartTime"])
                wait_for_end(task.monitor, task.status["monitorStartTime"])
        self.spawner.close()
        Cgroup(detect(), CGROUP).prune()


@contextlib.contextmanager
def tasks(scratch: Path, root: Path) -> Iterator[Tasks]:
    made = Tasks(scratch, root)
    try:
        yield made
    finally:
        made.close()


def wait_for_end(pid: int, start: int) -> None:
    """Wait until the process that had this pid and start time has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if processes.start_time(pid) == start:
            ready, _, _ = select.select([pidfd], [], [], WAIT_S_MAX)
            assert ready, f"process {pid} ({processes.title(pid)}) does not end"
    finally:
        os.close(pidfd)


def wait_until(condition: Any) -> None:
    """Wait until a condition holds; fails after WAIT_S_MAX."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
