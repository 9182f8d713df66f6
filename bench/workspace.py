"""A private place for one benchmark run, and the proof that nothing outlives it.

All daemons of peers run on sockets and data below `directory`, with cgroups below CGROUP. At the end every process that
was started here is ended by its pid, every mount below the directory is undone, every cgroup below CGROUP removed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from devtools import peers
from devtools.failure import Failure
from orlop.linux import mount, process
from support import host

from .measure import CommandFailed, Subject, once

CGROUP = f"orlop-bench-{os.getpid()}"  # test workers set up platforms side by side
STOP_S_MAX = 30.0
READY_S_MAX = 60.0
APPLETS = ("sh", "true", "sleep", "cat", "echo")


NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")


class Dockerd(NamedTuple):
    """A running dockerd. home: its state and its clients' configuration; env: of a client of it."""

    pid: int
    home: Path
    socket: Path
    env: dict[str, str]


class Workspace:
    """A context manager. directory is short: daemons make unix sockets below it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="orlop-bench-", dir="/tmp"))
        # Where podman, buildah and skopeo look first; the machine's own /etc/containers may not exist.
        policy = self.directory / ".config/containers/policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        # Opening its store makes buildah's directory of networks, and for root that is the machine's.
        self._configuration = policy.with_name("containers.conf")
        self._configuration.write_text(f'[network]\nnetwork_config_dir = "{self.directory}/networks"\n')
        self._undo = ExitStack()
        # The last comes first, and each comes even when one before it failed.
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._undo.callback(_remove_cgroups)
        self._undo.callback(self._unmount)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def path(self, name: str) -> Path:
        """Return a new directory below the workspace."""
        place = self.directory / name
        place.mkdir(parents=True)
        return place

    def environment(self, **more: str) -> dict[str, str]:
        """Return a small environment in which peers find their programs, and no user's configuration."""
        return {
            "PATH": peers.path(),
            host.SESSION: os.environ[host.SESSION],
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "CONTAINERS_CONF": str(self._configuration),
            **more,
        }

    def run(self, argv: Sequence[str | Path], env: Mapping[str, str]) -> str:
        """Run a command to its end; return its output. Raises Failure with what the command said."""
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failure(" ".join(done.stderr.split())[:300] or f"status {done.returncode}")
        return done.stdout.strip()

    def daemon(self, argv: Sequence[str | Path], env: Mapping[str, str], socket: Path) -> int:
        """Start a daemon, wait until its socket is there, stop it at the end. Returns its pid. Raises Failure."""
        log = self.directory / f"{Path(argv[0]).name}.log"
        with log.open("wb") as output:
            started = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._undo.callback(_stop, started)
        deadline = time.monotonic() + READY_S_MAX
        while not socket.exists():
            if started.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"{Path(argv[0]).name} did not come up: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.02)
        return started.pid

    def dockerd(self, name: str, *options: str, networks: bool = False, program: Path | None = None) -> Dockerd:
        """Start a dockerd with a socket, state and cgroups of its own, below the workspace. Raises Failure.

        networks: with its bridge and firewall rules; else containers have none.
        """
        home = self.path(name)
        socket = home / "s"
        program = program or peers.find("dockerd")
        if program is None:
            raise Failure("needs docker.io")
        env = self.environment(DOCKER_HOST=f"unix://{socket}", DOCKER_CONFIG=str(home))
        state = [f"--data-root={home / 'data'}", f"--exec-root={home / 'exec'}", f"--pidfile={home / 'pid'}"]
        limits = [f"--cgroup-parent=/{CGROUP}", "--log-level=error"]
        network = () if networks else NO_NETWORK
        argv = [program, f"--host=unix://{socket}", *state, *network, *limits, *options]
        return Dockerd(self.daemon(argv, env, socket), home, socket, env)

    def server(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process that serves on its standard input until the workspace closes."""
        pipe = subprocess.PIPE
        started = subprocess.Popen(argv, env=self.environment(), stdin=pipe, stdout=pipe)
        self._undo.callback(started.wait)
        assert started.stdin and started.stdout
        self._undo.callback(started.stdout.close)
        self._undo.callback(started.stdin.close)
        return started

    def thread_without_unified(self) -> Executor:
        """Return a thread whose mount namespace lacks /sys/fs/cgroup/unified: for it, a hybrid machine is a v1 machine.

        What the thread starts sees the same; the machine's own mounts stay as they are.
        """
        return self._undo.enter_context(ThreadPoolExecutor(1, initializer=_leave_unified))

    def at_end(self, argv: Sequence[str], env: Mapping[str, str], thread: Executor | None = None) -> None:
        """Run a command when the workspace closes; its status does not matter."""
        self._undo.callback(_run_anyway, Subject("", argv, env, thread=thread))

    def rootfs(self) -> Path:
        """Return a directory with busybox and nothing else, made once."""
        place = self.directory / "rootfs"
        if not place.exists():
            busybox = peers.find("busybox")
            if busybox is None:
                raise Failure("busybox is missing: apt-get install busybox-static")
            for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
                (place / name).mkdir(parents=True)
            shutil.copy(busybox, place / "bin/busybox")
            for applet in APPLETS:
                (place / "bin" / applet).symlink_to("busybox")
        return place

    def archive(self) -> Path:
        """Return the rootfs as a tar file, made once."""
        path = self.directory / "rootfs.tar"
        if not path.exists():
            with path.open("wb") as file, tarfile.open(fileobj=io.BufferedWriter(file), mode="w") as tar:
                tar.add(self.rootfs(), arcname=".")
        return path

    def _unmount(self) -> None:
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", point], check=False)


def cgroups() -> list[str]:
    """Return the cgroups below CGROUP in every hierarchy, the deepest first."""
    found = [where for where, _, _ in os.walk("/sys/fs/cgroup") if CGROUP in where.split("/")]
    return sorted(found, key=len, reverse=True)


def _remove_cgroups() -> None:
    """End what still runs in them (a peer's container whose command timed out) and remove them.

    Raises OSError when one stays busy: the next workspace of this process has the same CGROUP.
    """
    deadline = time.monotonic() + STOP_S_MAX
    while left := cgroups():
        for cgroup in left:
            _kill_members(cgroup)
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.rmdir(cgroup)
                except OSError as error:  # killed members leave when the kernel has buried them
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise
        time.sleep(0.05)


def _kill_members(cgroup: str) -> None:
    try:
        pids = Path(cgroup, "cgroup.procs").read_text().split()
    except OSError:  # removed meanwhile, or threaded
        return
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _run_anyway(subject: Subject) -> None:
    with contextlib.suppress(CommandFailed):
        once(subject)


def _leave_unified() -> None:
    process.unshare(process.CLONE_NEWNS)
    mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
    mount.umount2("/sys/fs/cgroup/unified", mount.MNT_DETACH)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        print(f"bench: {daemon.args!r} did not stop in {STOP_S_MAX:.0f} s and was killed", file=sys.stderr)
        daemon.kill()
        daemon.wait()
