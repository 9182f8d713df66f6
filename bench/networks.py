"""What a network costs: at the start of a container, in bytes per second, and in names per second; beside docker's.
What a user's network carries is taken beside pasta (`rootless`).

Everything happens in a network namespace of this figure's own, with a neighbour on a cable: a second dockerd with its
usual bridge and rules, and a second engine. iperf3 runs in the containers' namespaces, so that no image has to have it.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devtools import peers
from devtools.environment import ROOT
from devtools.failure import Failure
from orlop.linux import interface, process
from orlop.linux.netlink import namespace
from orlop.network.dns import client, message
from support.netns import Netns, wire

from .measure import Series, Subject, in_turn
from .workspace import Workspace

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
PORT, OUTSIDE_PORT = 5201, 5301
SECONDS, TRIES = 1, 15
STALLED_S = 10.0  # beyond SECONDS
QUESTIONS, WINDOW = 20_000, 50


class Site:
    """One platform with networks. start: the words before those of `run`; pid: of a container's first process."""

    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], image: str) -> None:
        self.name, self.command, self.env, self.image = name, list(command), env, image

    def subject(self, name: str, *flags: str, thread: ThreadPoolExecutor) -> Subject:
        argv = [*self.command, "run", "--rm", *flags, self.image, "/bin/true"]
        return Subject(f"{self.name} run, {name}", argv, self.env, thread=thread)

    def run(self, work: Workspace, *flags: str) -> str:
        return work.run([*self.command, "run", "-d", *flags, self.image, "/bin/sleep", "3600"], self.env)

    def pid(self, work: Workspace, container: str) -> int:
        return int(work.run([*self.command, "inspect", "-f", "{{.State.Pid}}", container], self.env))

    def gateway(self, work: Workspace, container: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"
        return work.run([*self.command, "inspect", "-f", form, container], self.env)


def tables(work: Workspace, rounds: int) -> list[str]:
    """Return the lines of all four tables. Raises Failure where this machine refuses."""
    with ExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1, initializer=_isolate))
        neighbour = stack.enter_context(_neighbour(thread))
        sites = [thread.submit(make, work).result() for make in (_orlop, _docker)]
        lines = _starts(sites, thread, rounds)
        lines += ["", *thread.submit(_throughput, work, sites, neighbour).result()]
        lines += ["", *_of_users()]
        return [*lines, "", *thread.submit(_names, work, sites[0]).result()]


def _of_users() -> list[str]:
    from . import rootless

    try:
        return rootless.tables()
    except Failure as failure:
        return [f"Users' networks are not taken: {failure}"]


def _isolate() -> None:
    process.unshare(process.CLONE_NEWNET)
    interface.set_up("lo")


@contextmanager
def _neighbour(thread: ThreadPoolExecutor) -> Iterator[Netns]:
    """Another host on a cable to this one."""
    here = Netns.__new__(Netns)
    here.fd = thread.submit(namespace.current).result()
    from orlop.linux.netlink.nftables import Nftables
    from orlop.linux.netlink.rtnetlink import Rtnetlink

    here.route, here.nft = thread.submit(lambda: (Rtnetlink(), Nftables())).result()
    there = Netns()
    try:
        wire(here, "up0", HOST, there, "up0", NEIGHBOUR, 24)
        yield there
    finally:
        there.close()
        here.close()


def _orlop(work: Workspace) -> Site:
    home = work.path("orlop-net")
    env = work.environment(ORLOP_ROOT=str(home / "root"), ORLOP_RUN=str(home / "run"))
    site = Site("orlop", [str(ROOT / "orlop")], env, "host")
    work.at_end([*site.command, "engine", "stop"], env)
    return site


def _docker(work: Workspace) -> Site:
    docker = peers.find("docker")
    if docker is None or peers.find("iptables") is None:
        raise Failure("needs docker.io and iptables")
    env = work.dockerd("docker-net", networks=True).env
    work.run([docker, "import", work.archive(), "bench:latest"], env)
    return Site("docker", [str(docker)], env, "bench")


def _starts(sites: Sequence[Site], thread: ThreadPoolExecutor, rounds: int) -> list[str]:
    pairs = []
    for site in sites:
        none, bridge = ("--network", "none"), ("--network", "bridge")
        pairs.append([site.subject("no network", *none, thread=thread), site.subject("bridge", *bridge, thread=thread)])
    series = in_turn([subject for pair in pairs for subject in pair], rounds)
    lines = [
        "| command | min ms | median ms | a network adds ms | to the least |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for plain, networked in zip(series[::2], series[1::2], strict=True):
        for one in (plain, networked):
            if one.failure:
                lines.append(f"| {one.subject.name} | refused | {one.failure} | | |")
        if not plain.failure and not networked.failure:
            least, own = min(plain.times_ms), min(networked.times_ms)
            lines.append(f"| {plain.subject.name} | {least:.1f} | {plain.median:.1f} | | |")
            added = f"{_added(plain, networked):.1f} | {own - least:.1f}"
            lines.append(f"| {networked.subject.name} | {own:.1f} | {networked.median:.1f} | {added} |")
    return lines


def _added(plain: Series, networked: Series) -> float:
    """Return the median of the rounds' differences."""
    return statistics.median(b - a for a, b in zip(plain.times_ms, networked.times_ms, strict=True))


def _throughput(work: Workspace, sites: Sequence[Site], neighbour: Netns) -> list[str]:
    """iperf3 in turn: from a container to this machine, and from the neighbour to a published port."""
    program = peers.find("iperf3")
    if program is None:
        raise Failure("needs iperf3")
    rates: dict[tuple[str, str], list[float]] = {}
    containers = [(site, site.run(work, "-p", f"{OUTSIDE_PORT + at}:{PORT}")) for at, site in enumerate(sites)]
    try:
        places = [(site, entered(site.pid(work, one)), site.gateway(work, one)) for site, one in containers]
        for number in range(TRIES):
            for at in ((number + shift) % len(places) for shift in range(len(places))):
                site, inside, gateway = places[at]
                rate = iperf(program, [], [*inside], gateway, PORT)
                rates.setdefault(("container to host", site.name), []).append(rate)
                outside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{neighbour.fd}"]
                rate = iperf(program, [*inside], outside, HOST, OUTSIDE_PORT + at)
                rates.setdefault(("neighbour to published port", site.name), []).append(rate)
    finally:
        for site, one in containers:
            work.run([*site.command, "rm", "-f", one], site.env)
    lines = table(rates)
    for way in dict.fromkeys(way for way, _ in rates):
        lines += ["", compared(way, rates[way, "orlop"], rates[way, "docker"], "docker's")]
    return lines


def compared(way: str, ours: Sequence[float], theirs: Sequence[float], whose: str) -> str:
    """Tell what the pairs of a way say, which its medians do not: each stream stands beside one of the same moment."""
    more = sum(one > other for one, other in zip(ours, theirs, strict=True))
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True) if other)
    quarters = [", ".join(f"{rate:.1f}" for rate in statistics.quantiles(each)) for each in (ours, theirs)]
    return (
        f"Of {way}, ours carried more than {whose} in {more} of {len(ours)} pairs, {ratio:.2f} of it in their median; "
        f"quartiles in Gbit/s: {quarters[0]} ours, {quarters[1]} {whose}."
    )


def table(rates: Mapping[tuple[str, str], Sequence[float]]) -> list[str]:
    """Return the lines of what was found of each (way, platform)."""
    lines = ["| way | platform | median Gbit/s | most |", "| --- | --- | ---: | ---: |"]
    for (way, name), found in rates.items():
        lines.append(f"| {way} | {name} | {statistics.median(found):.1f} | {max(found):.1f} |")
    return lines


def entered(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def iperf(
    program: Path, server: Sequence[str], asker: Sequence[str], address: str, port: int, fds: Sequence[int] = ()
) -> float:
    """Return Gbit/s of one stream, 0 of one that stalls.

    server, asker: words that lead to where the two run; fds: what those words name.
    """
    argv = [*server, str(program), "-s", "-1", "-p", str(PORT)]
    listening = subprocess.Popen(argv, stdout=subprocess.DEVNULL, pass_fds=fds)
    try:
        argv = [*asker, str(program), "-J", "-t", str(SECONDS), "-c", address, "-p", str(port)]
        deadline = time.monotonic() + 20
        while True:
            try:
                done = subprocess.run(
                    argv, capture_output=True, text=True, check=False, pass_fds=fds, timeout=SECONDS + STALLED_S
                )
            except subprocess.TimeoutExpired:
                return 0.0
            told = json.loads(done.stdout or "{}")
            if "error" not in told and told:
                return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9
            if time.monotonic() > deadline:
                raise Failure(f"iperf3 to {address}:{port}: {told.get('error', done.stderr)}")
            time.sleep(0.1)
    finally:
        listening.kill()
        listening.wait()


def _names(work: Workspace, site: Site) -> list[str]:
    """Questions for the name of another container, fifty under way at any time."""
    work.run([*site.command, "network", "create", "names"], site.env)
    ids = [site.run(work, "--network", "names", "--name", name) for name in ("web", "asker")]
    try:
        fd = os.open(f"/proc/{site.pid(work, ids[1])}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            rate, lost = namespace.inside(fd, _flood)
        finally:
            os.close(fd)
    finally:
        work.run([*site.command, "rm", "-f", *ids], site.env)
        work.run([*site.command, "network", "rm", "names"], site.env)
    return [
        "| names of containers | questions a second | lost |",
        "| --- | ---: | ---: |",
        f"| {QUESTIONS} questions, {WINDOW} under way | {rate:.0f} | {lost} |",
    ]


def _flood() -> tuple[float, int]:
    """Return (questions a second, those without an answer)."""
    lost = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(2.0)
        asker.connect((client.ADDRESS, 53))
        begin = time.monotonic()
        for start in range(0, QUESTIONS, WINDOW):
            for number in range(start, start + WINDOW):
                asker.send(message.question("web", message.A, number & 0xFFFF))
            for number in range(WINDOW):
                try:
                    asker.recv(512)
                except TimeoutError:
                    lost += WINDOW - number
                    break
        return QUESTIONS / (time.monotonic() - begin), lost
