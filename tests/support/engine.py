"""A private engine for one test: its own data, its own sockets, and the proof that nothing of it is left.

The command line under test is the real `./orlop` of this checkout, started as a user starts it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from . import netns, processes
from .pace import SLOW

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = CHECKOUT / "orlop"
# Names a root that has `host` already: to make it takes an emulated machine ten times as long as what tests look at.
SEED = "ORLOP_TEST_HOST_IMAGE"
GONE_S_MAX = 60.0 * SLOW
TIMEOUT_S_DEFAULT = 120.0 * SLOW


class Finished:
    """A command that ended. stdout and stderr are text; the bytes lie in raw_stdout and raw_stderr."""

    def __init__(self, argv: list[str], code: int, stdout: bytes, stderr: bytes) -> None:
        self.argv, self.code, self.raw_stdout, self.raw_stderr = argv, code, stdout, stderr

    @property
    def stdout(self) -> str:
        return self.raw_stdout.decode(errors="surrogateescape")

    @property
    def stderr(self) -> str:
        return self.raw_stderr.decode(errors="surrogateescape")

    def __repr__(self) -> str:
        return f"{self.argv} -> {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


class Environment:
    """ORLOP_ROOT and ORLOP_RUN of one test.

    root lies in the test's tmp_path; run is short, because a unix socket's path has at most 107 bytes and a task's
    is ORLOP_RUN and 83 more.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if seed := os.environ.get(SEED):
            # By hard links: what is kept for good is replaced by its name, and never written to.
            subprocess.run(["cp", "-al", seed, str(root)], check=True)
        self.run = Path(tempfile.mkdtemp(prefix="orlop-", dir="/tmp"))
        # Its bridges, rules and forwarding are nobody else's. What is started from a thread in here is in here.
        self.net: netns.Netns | None = netns.Netns() if os.geteuid() == 0 else None

    @property
    def variables(self) -> dict[str, str]:
        """The environment that the command runs with."""
        return os.environ | {"ORLOP_ROOT": str(self.root), "ORLOP_RUN": str(self.run)}

    @property
    def socket(self) -> Path:
        """The engine's native socket."""
        return self.run / "engine.sock"

    def __call__(
        self,
        *args: str | os.PathLike[str],
        input: bytes | str | None = None,
        check: bool = True,
        timeout: float = TIMEOUT_S_DEFAULT,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run `./orlop args`. Standard input is empty, or input. Fails the test on a status other than 0 when check."""
        argv = [str(COMMAND), *(os.fspath(word) for word in args)]
        data = input.encode() if isinstance(input, str) else input or b""
        done = self.inside(
            lambda: subprocess.run(
                argv,
                input=data,
                capture_output=True,
                check=False,
                timeout=timeout,
                env=self.variables | dict(env or {}),
            )
        )
        result = Finished(argv[1:], done.returncode, done.stdout, done.stderr)
        assert not check or result.code == 0, f"orlop failed: {result!r}"
        return result

    def popen(self, *args: str | os.PathLike[str], **options: object) -> subprocess.Popen[bytes]:
        """Start `./orlop args` and return at once; options as for Popen. The caller waits for it."""
        argv = [str(COMMAND), *(os.fspath(word) for word in args)]
        return self.inside(lambda: subprocess.Popen(argv, env=self.variables, **options))  # type: ignore[call-overload]

    def inside(self, work: Callable[[], T]) -> T:
        """Return what work returns in the engine's network namespace: what it starts is in there too."""
        return self.net.inside(work) if self.net else work()

    def engine_pid(self) -> int | None:
        """Return the pid of the engine that listens now, None when none does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            pid, _, _ = struct.unpack("iii", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return int(pid)

    def processes(self) -> list[int]:
        """Return the living processes that run with this ORLOP_RUN, those below them too (a container's own)."""
        own = set(processes.with_environment("ORLOP_RUN", str(self.run)))
        return sorted(pid for pid in processes.pids() if pid in own or own & set(processes.ancestors(pid)))

    def container_ids(self) -> list[str]:
        """Return the ids of all containers on disk."""
        directory = self.root / "containers"
        return sorted(os.listdir(directory)) if directory.is_dir() else []

    def close(self) -> list[str]:
        """End every container and the engine, remove everything; return one line for each thing that stayed."""
        ids = self.container_ids()
        self._kill_tasks()
        pid = self.engine_pid()
        if pid is not None:
            if self.net is not None:
                self._wait_for_exits()
            processes.kill(pid, processes.start_time(pid), signal.SIGTERM)
        left = self._wait_until_gone(ids)
        for straggler in self.processes():
            processes.kill(straggler, processes.start_time(straggler))
        shutil.rmtree(self.run, ignore_errors=True)
        if self.net is not None:
            left += self._links_left() if pid is not None else []
            self.net.close()
        return left

    def _kill_tasks(self) -> None:
        for path in self.root.glob("containers/*/status.json"):
            try:
                status = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if path.with_name("restart").exists():  # its monitor would start it again
                path.with_name("restart").write_text("no 0 stopped\n")
                processes.kill(status["monitorPid"], status["monitorStartTime"], signal.SIGUSR1)
            if not path.with_name("exit.json").exists():
                processes.kill(status["pid"], status["pidStartTime"])

    def _links_left(self) -> list[str]:
        """Return the engine's links that are still there after it has left; the kernel takes its time."""
        assert self.net is not None
        deadline = time.monotonic() + GONE_S_MAX
        while True:
            left = [f"link {link.name}" for link in self.net.route.links() if _is_ours(link.name)]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def _wait_for_exits(self) -> None:
        """An engine that leaves takes the links and rules with it when nothing runs any more."""
        deadline = time.monotonic() + GONE_S_MAX
        while time.monotonic() < deadline and any(
            path.exists() and not path.with_name("exit.json").exists()
            for path in self.root.glob("containers/*/status.json")
        ):
            time.sleep(0.01)

    def _wait_until_gone(self, ids: list[str]) -> list[str]:
        deadline = time.monotonic() + GONE_S_MAX
        # Twice: a process that starts another one and ends at once is seen by the second look.
        while (left := self._left(ids) or self._left(ids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _left(self, ids: list[str]) -> list[str]:
        places = (str(self.root), str(self.run))
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [
            *(f"process {pid}: {processes.title(pid)}" for pid in self.processes()),
            *(f"mount {point}" for point in mounts if point.startswith(places)),
            *(f"cgroup {path}" for path in _cgroups_of(ids)),
        ]


def _is_ours(name: str) -> bool:
    return name.startswith(("orlop", "br-", "og-", "ve"))


def _cgroups_of(ids: list[str]) -> list[str]:
    if not ids:
        return []
    return [where for where, _, _ in os.walk("/sys/fs/cgroup") if any(name in where for name in ids)]
