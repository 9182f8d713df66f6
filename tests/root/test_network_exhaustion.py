"""Processes of the network that have no descriptor left: they take nobody, neither spin nor end, and go on after it."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support import processes
from support.boxes import Box, ask, serving
from support.engine import Environment
from support.netns import Netns
from support.tasks import wait_until

Run = Callable[..., Box]
LOOK_S = 1.0
BUSY_S_MAX = 0.4  # of LOOK_S: who spins takes all of it that the machine has to spare


def titled(orlop: Environment, word: str) -> int:
    wait_until(lambda: any(word in processes.title(pid) for pid in orlop.processes()))
    (found,) = [pid for pid in orlop.processes() if word in processes.title(pid)]
    return found


@contextmanager
def exhausted(pid: int) -> Iterator[None]:
    """Let a process open nothing more."""
    _, hard = before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    free = next(fd for fd in range(len(taken) + 1) if fd not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def busy_s(pid: int) -> float:
    """Return the processor time that a process has taken."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waiting(place: Box | Netns, address: str, port: int) -> socket.socket:
    """Return a connection that the kernel has made, and that nobody has taken yet."""
    return place.inside(lambda: socket.create_connection((address, port), timeout=20))


def rests(pid: int) -> None:
    before = busy_s(pid)
    time.sleep(LOOK_S)
    assert busy_s(pid) - before < BUSY_S_MAX


def test_a_relay_rests_until_it_can_take_clients(run: Run, orlop: Environment, host: Netns) -> None:
    box = run("-p", "[::1]:8080:80", "-p", "127.0.0.1:8080:80")
    pid = titled(orlop, "orlop: ports")
    with serving(box, 80):
        assert ask(host, "::1", 8080)
        with exhausted(pid), waiting(host, "::1", 8080) as client:
            rests(pid)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE))
            assert client.recv(100)  # it has waited, and is served


def test_a_resolver_rests_until_it_can_take_clients(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "own")
    box = run("--network", "own", "--name", "box")
    pid = titled(orlop, "orlop: resolver")
    with exhausted(pid), waiting(box, "127.0.0.11", 53) as client:
        with orlop.inside(
            lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ) as engine:  # another engine, so to say
            engine.connect(f"{orlop.run}/dns.sock")
            rests(pid)
        assert titled(orlop, "orlop: resolver") == pid
        client.close()
    assert "box" in orlop("network", "dns", "trace", "box", "box").stdout
