"""What an ordinary user's network carries, beside pasta(1) alone, which is what podman gives a user's container.

podman 5 runs pasta with these options for each container; the podman of Debian 12 can't yet. Ours has a bridge and its
names behind the same pasta, and relays for published ports. iperf3 runs in the namespaces: no image has to have it.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devtools import peers
from devtools.failure import Failure
from support import netns, rootless
from support.rootless import ADDRESS, FAR, User

from .networks import PORT, TRIES, iperf

OURS_PORT, PASTA_PORT = 18080, 18081
WAIT_S = 20.0
# Those that podman 5.4 gives it for a container with one published port.
PASTA = (
    "--config-net",
    "-t",
    f"{PASTA_PORT}:{PORT}",
    "-u",
    "none",
    "-T",
    "none",
    "-U",
    "none",
    "--no-map-gw",
    "--quiet",
)


def tables() -> list[str]:
    """Return the lines of the table. Raises Failure where this machine refuses."""
    program = peers.find("iperf3")
    if program is None or peers.find("pasta") is None:
        raise Failure("needs iperf3 and pasta")
    netns.isolate()
    with rootless.user() as user, _orlop(user) as ours, _pasta(user) as theirs:
        machine = ["nsenter", f"--net=/proc/self/fd/{user.net.fd}"]
        rates: dict[tuple[str, str], list[float]] = {}
        for number in range(TRIES):
            sites = [("orlop", ours, OURS_PORT), ("pasta, as podman runs it", theirs, PASTA_PORT)]
            for name, pid, port in sites[number % 2 :] + sites[: number % 2]:
                inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
                rate = iperf(program, machine, inside, FAR, PORT, fds=(user.net.fd,))
                rates.setdefault(("container to the outside", name), []).append(rate)
                rate = iperf(program, inside, machine, ADDRESS, port, fds=(user.net.fd,))
                rates.setdefault(("outside to published port", name), []).append(rate)
    lines = ["| way | platform | median Gbit/s |", "| --- | --- | ---: |"]
    return lines + [f"| {way} | {name} | {statistics.median(found):.1f} |" for (way, name), found in rates.items()]


@contextmanager
def _orlop(user: User) -> Iterator[int]:
    """A container of ours with a published port: the pid of its first process."""
    done = user.orlop("run", "-d", "--name", "bench", "-p", f"{OURS_PORT}:{PORT}", "host", "sleep", "3600")
    if done.code:
        raise Failure(done.stderr.strip())
    try:
        yield int(user.orlop("inspect", "-f", "{{.State.Pid}}", "bench").stdout)
    finally:
        user.orlop("rm", "-f", "bench")


@contextmanager
def _pasta(user: User) -> Iterator[int]:
    """A namespace behind pasta with a published port: the pid of a process in it."""
    running = subprocess.Popen(user.argv("pasta", *PASTA, "--", "sleep", "36000"), cwd="/")
    try:
        yield _wait(lambda: [pid for pid, line in user.processes().items() if line.startswith("sleep 36000")])
    finally:
        for pid in [pid for pid, line in user.processes().items() if line.startswith("sleep 36000")]:
            subprocess.run(["kill", str(pid)], check=False)
        running.wait()


def _wait(look: Callable[[], list[int]]) -> int:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for pid in look():
            if Path(f"/proc/{pid}/ns/net").exists():
                return pid
        time.sleep(0.05)
    raise Failure("pasta does not start")
