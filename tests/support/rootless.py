"""An ordinary user of a machine of our own making: /etc/passwd, /etc/subuid, /dev/net/tun, a network as a test wants.

Nothing of the real machine changes: the user exists in a mount namespace, whose network has one link and a default
route that leads nowhere. What the user leaves running is ended, and that it was something is an error.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devtools import peers
from orlop.linux import process
from orlop.linux.netlink import rtnetlink

from . import netns, processes
from .engine import COMMAND, GONE_S_MAX, TIMEOUT_S_DEFAULT, Finished

NAME = "orloptester"
# Ids of this process's own: what another run, or another worker, has running as such a user is not ended with this one.
_NUMBER = os.getpid() % 10_000
UID = 40_000 + _NUMBER
RANGE = f"{1_200_000_000 + _NUMBER * 65536}:65536"
PLAIN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LINK, ADDRESS, GATEWAY = "up0", "192.0.2.2", "192.0.2.1"
FAR = "198.51.100.7"  # an address that a container reaches through the uplink alone


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + GONE_S_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def program_path() -> str:
    """Return a PATH with newuidmap and pasta, wherever they lie. Skips without them."""
    found = []
    for name in ("newuidmap", "newgidmap", "pasta"):
        place = peers.find(name)
        if place is None:
            import pytest  # which benchmarks run without

            pytest.skip(f"needs: {name}")
        found.append(str(place.parent))
    return ":".join(dict.fromkeys([*found, PLAIN_PATH]))


class User:
    """The user. home and runtime are the user's; `orlop` runs our command line, `run` any other program."""

    def __init__(self, directory: Path, *, ids: bool = True, setup: str = "") -> None:
        """ids: whether there are subordinate ids. setup: more lines of shell for the machine, as its root."""
        self.directory = directory
        self.path = program_path()
        self.home, self.runtime = directory / "home", directory / "run"
        for path in (self.home, self.runtime):
            path.mkdir(mode=0o700)
            os.chown(path, UID, UID)
        etc = directory / "etc"
        etc.mkdir()
        for name, line in (("passwd", f"{NAME}:x:{UID}:{UID}::{self.home}:/bin/sh"), ("group", f"{NAME}:x:{UID}:")):
            (etc / name).write_text(Path(f"/etc/{name}").read_text() + line + "\n")
        for name in ("subuid", "subgid"):
            (etc / name).write_text(f"{NAME}:{RANGE}\n" if ids else "")
        os.mknod(etc / "tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))
        os.chmod(etc / "tun", 0o666)
        mounts = [f"mount --bind {etc}/{name} /etc/{name}" for name in ("passwd", "group", "subuid", "subgid")]
        mounts.append(f"mount --bind {etc}/tun /dev/net/tun")
        self.net = netns.Netns()
        script = "\n".join(["set -e", *mounts, setup, "echo ready", "exec sleep 100000"])
        self._machine = subprocess.Popen(
            self.net.argv("unshare", "--mount", "--propagation", "private", "sh", "-c", script),
            pass_fds=[self.net.fd],
            stdout=subprocess.PIPE,
        )
        assert self._machine.stdout is not None
        assert self._machine.stdout.readline() == b"ready\n"
        lo = self.net.route.link("lo")
        assert lo is not None
        self.net.route.add_address(lo.index, FAR, 32)
        self.net.route.add_link(LINK, rtnetlink.veth(f"{LINK}far"))
        for name in (LINK, f"{LINK}far"):
            link = self.net.route.link(name)
            assert link is not None
            self.net.route.set_link(link.index, up=True)
            if name == LINK:
                self.net.route.add_address(link.index, ADDRESS, 24)
                self.net.route.add_route(("", 0), rtnetlink.Hop(GATEWAY, link.index))

    def argv(self, *words: str | Path, path: str = "") -> list[str]:
        """Return the command that runs another one as the user. path: another PATH."""
        environment = {
            "PATH": path or self.path,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "USER": NAME,
        }
        return [
            *("nsenter", "-t", str(self._machine.pid), "-m", "-n"),
            *("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"),
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *map(str, words),
        ]

    def run(self, *words: str | Path, path: str = "", timeout_s: float = TIMEOUT_S_DEFAULT) -> Finished:
        """Run a program as the user, to its end."""
        argv = self.argv(*words, path=path)
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, cwd="/")
        return Finished([str(word) for word in words], done.returncode, done.stdout, done.stderr)

    def orlop(self, *words: str | Path, path: str = "", timeout_s: float = TIMEOUT_S_DEFAULT) -> Finished:
        """Run our command line as the user."""
        return self.run(COMMAND, *words, path=path, timeout_s=timeout_s)

    def root_argv(self, *words: str | Path) -> list[str]:
        """Return the command that runs another one on the user's machine as its root."""
        return [*("nsenter", "-t", str(self._machine.pid), "-m", "-n"), *map(str, words)]

    def as_root(self, *words: str | Path, path: str) -> Finished:
        """Run a program on the user's machine as its root."""
        argv = self.root_argv("env", "-i", f"PATH={path}", *words)
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S_DEFAULT, cwd="/")
        return Finished([str(word) for word in words], done.returncode, done.stdout, done.stderr)

    def processes(self) -> dict[int, str]:
        """Return pid -> command line of what runs in the name of the user, or of its subordinate ids."""
        first, count = map(int, RANGE.split(":"))
        found = {}
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
            try:
                uid = os.stat(f"/proc/{pid}").st_uid
                line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("Uid:"))
                uid = int(line.split()[1])
                if (uid == UID or first <= uid < first + count) and processes.is_alive(pid):
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except (OSError, StopIteration):
                continue
        return found

    def close(self) -> None:
        """End everything; raises AssertionError for what the user left running."""
        if (self.runtime / "orlop").exists():
            for line in self.orlop("ps", "-aq").stdout.split():
                self.orlop("rm", "-f", line)
            self.orlop("engine", "stop")
        deadline = time.monotonic() + GONE_S_MAX
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            try:
                pidfd = process.pidfd_open(pid)
                process.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            except ProcessLookupError:
                continue
        self._machine.kill()
        self._machine.wait()
        assert self._machine.stdout is not None
        self._machine.stdout.close()
        self.net.close()
        assert not left, left


@contextmanager
def user(*, ids: bool = True, setup: str = "") -> Iterator[User]:
    """Yield a user of a machine of their own."""
    directory = Path(tempfile.mkdtemp(prefix="orlop-u", dir="/tmp"))
    directory.chmod(0o755)
    try:
        somebody = User(directory, ids=ids, setup=setup)
        try:
            yield somebody
        finally:
            somebody.close()
    finally:  # also where this machine can have no such user, which skips the test
        shutil.rmtree(directory, ignore_errors=True)
