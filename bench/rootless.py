"""What an ordinary user's network carries, beside pasta(1) alone, which is what podman gives a user's container.

podman 5 runs pasta with these options for each container; the podman of Debian 12 can't yet. Ours has a bridge and its
names behind the same pasta, and relays for published ports. iperf3 runs in the namespaces: no image has to have it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from devtools import peers
from devtools.failure import Failure
from support import rootless
from support.rootless import ADDRESS, FAR, User

from . import networks

OURS_PORT, PASTA_PORT = 18080, 18081
WAIT_S = 20.0
PAIRS = (
    31  # outward streams stall with both, so that one of them says nothing: between 0.1 and 10 Gbit/s within a minute
)
OUTWARD, INWARD = "user's container to the outside", "this machine to a user's published port"
PODMANS = "pasta, as podman runs it"
SLEEP = ("sleep", "36000")
# Those that podman 5.4 gives it for a container with one published port (vendor/go.podman.io/common/libnetwork/pasta).
PASTA = (
    *("--config-net", "-t", f"{PASTA_PORT}:{networks.PORT}"),
    *("-u", "none", "-T", "none", "-U", "none", "--no-map-gw", "--quiet"),
)


def tables() -> list[str]:
    """Return the lines of the table. Raises Failure where this machine refuses."""
    program = peers.find("iperf3")
    if program is None or peers.find("pasta") is None or peers.find("newuidmap") is None:
        raise Failure("needs iperf3, passt and uidmap")
    with rootless.user() as user, _orlop(user) as ours, _pasta(user) as theirs:
        machine = ["nsenter", f"--net=/proc/self/fd/{user.net.fd}"]
        fds = [user.net.fd]
        rates: dict[tuple[str, str], list[float]] = {}
        for number in range(PAIRS):
            sites = [("orlop", ours, OURS_PORT), (PODMANS, theirs, PASTA_PORT)]
            for name, pid, port in sites[number % 2 :] + sites[: number % 2]:
                inside = networks.entered(pid)
                rate = networks.iperf(program, machine, inside, FAR, networks.PORT, fds)
                rates.setdefault((OUTWARD, name), []).append(rate)
                if number < networks.TRIES:
                    rate = networks.iperf(program, inside, machine, ADDRESS, port, fds)
                    rates.setdefault((INWARD, name), []).append(rate)
            if number < networks.TRIES:  # what a published port is held against (P10)
                rate = networks.iperf(program, machine, machine, ADDRESS, networks.PORT, fds)
                rates.setdefault(("this machine to itself", "no container"), []).append(rate)
    lines = networks.table(rates)
    for way in (OUTWARD, INWARD):
        lines += ["", networks.compared(way, rates[way, "orlop"], rates[way, PODMANS], "pasta's")]
    return lines


@contextmanager
def _orlop(user: User) -> Iterator[int]:
    """A container of ours with a published port: the pid of its first process."""
    done = user.orlop("run", "-d", "--name", "bench", "-p", f"{OURS_PORT}:{networks.PORT}", "host", "sleep", "3600")
    if done.code:
        raise Failure(done.stderr.strip())
    try:
        yield int(user.orlop("inspect", "-f", "{{.State.Pid}}", "bench").stdout)
    finally:
        user.orlop("rm", "-f", "bench")


@contextmanager
def _pasta(user: User) -> Iterator[int]:
    """A namespace behind pasta with a published port: the pid of a process in it."""
    running = subprocess.Popen(user.argv("pasta", *PASTA, "--", *SLEEP), cwd="/", stderr=subprocess.DEVNULL)
    try:
        yield _wait(user, running)
    finally:
        # The first process of a PID namespace: no other signal reaches it. pasta ends with it.
        for pid in _sleepers(user):
            os.kill(pid, signal.SIGKILL)
        try:
            running.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _sleepers(user: User) -> list[int]:
    return [pid for pid, line in user.processes().items() if line.split() == list(SLEEP)]


def _wait(user: User, running: subprocess.Popen[bytes]) -> int:
    """Return the process behind pasta as soon as it has a way out."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and running.poll() is None:
        for pid in _sleepers(user):
            words = [*networks.entered(pid), "cat", "/proc/self/net/route"]
            if "\t00000000\t" in subprocess.run(words, capture_output=True, text=True, check=False).stdout:
                return pid
        time.sleep(0.05)
    raise Failure("pasta does not start")
