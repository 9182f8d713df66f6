"""The engine is killed before any step of any verb of networks, or the kernel refuses that step, and nothing is left.

After it: the next command works, what is said of networks is so in the kernel, nobody has another one's address, and
when all is removed links, addresses, routes, rules, sysctls and files are what they were.

ORLOP_TEST_NETWORK_STEPS: what is done before every step of every verb, of kill,files,refuse,answer; without it a few
that were found to leave something. ORLOP_TEST_NETWORK_LOG: a file where what is found is written at once.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux.netlink import namespace
from orlop.linux.netlink.rtnetlink import Hop, Rtnetlink
from support import processes, stepped
from support.engine import Environment
from support.netns import A, B, Netns, network, wire
from support.tasks import wait_until

LONG = os.environ.get("ORLOP_TEST_NETWORK_STEPS", "")
SLEEP = ("host", "sleep", "1000")
KEPT = {"seccomp", "sweeper.lock", "dns.sock"}  # a cache, a lock that nobody holds, a socket of nobody
CONF = ("accept_local accept_ra accept_redirects disable_ipv6 forwarding route_localnet rp_filter send_redirects "
        "proxy_arp arp_ignore mtu").split()  # fmt: skip


class Machine:
    """A, and what there is of ours on it and in its directories."""

    def __init__(self, orlop: Environment, host: Netns) -> None:
        self.orlop, self.host = orlop, host

    def look(self) -> dict[str, object]:
        route = self.host.route
        return {
            "links": sorted((link.name, link.kind, link.alias, link.mtu, link.is_up) for link in route.links()),
            "addresses": sorted((one.index, one.address) for one in route.addresses()),
            "routes": sorted(
                (one.destination, one.gateway, one.oif, one.table) for family in (2, 10) for one in route.routes(family)
            ),
            "policy": sorted((one.priority, one.table, one.iif) for family in (2, 10) for one in route.rules(family)),
            "tables": sorted(map(str, self.host.nft.tables())),
            "sysctls": self.host.inside(_sysctls),
            "run": sorted(set(os.listdir(self.orlop.run)) - KEPT),
            "tasks": sorted(os.listdir(self.orlop.run / "tasks")),
            "networks": sorted(len(os.listdir(one)) for one in (self.orlop.root / "networks").iterdir()),
            "containers": self.orlop.container_ids(),
            "processes": [processes.title(pid) for pid in self.orlop.processes()],
        }


def _sysctls() -> dict[str, str]:
    found = {"ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text()}
    for family in ("ipv4", "ipv6"):
        for link in ("all", "default", "lo", "up0"):
            for name in CONF:
                path = Path(f"/proc/sys/net/{family}/conf/{link}/{name}")
                if path.exists():
                    found[str(path)] = path.read_text()
    return found


class Verb:
    """What is done before, with an engine that nobody stops, and the command during which it is stopped."""

    def __init__(self, *command: str, before: tuple[str, ...] = ()) -> None:
        self.command = command
        self.before = [line.split() for line in before]


RUN = "run -d --name c host sleep 1000"
VERBS = {
    "create": Verb("network", "create", "--ipv6", "n"),
    "rm": Verb("network", "rm", "n", before=("network create n", "run --rm --network n host true")),
    "prune": Verb("network", "prune", "-f", before=("network create n", "run --rm --network n host true")),
    "connect": Verb("network", "connect", "--ip", "10.99.0.9", "n", "c",
                    before=("network create --subnet 10.99.0.0/24 n", RUN)),
    "connect6": Verb("network", "connect", "--alias", "x", "n", "c", before=("network create --ipv6 n", RUN)),
    "disconnect": Verb("network", "disconnect", "n", "c",
                       before=("network create n", "run -d --name c --network n -p 8080:80 host sleep 1000",
                               "network connect bridge c")),
    "run": Verb("run", "-d", "--name", "c", "-p", "8080:80", "-p", "9000-9002:80-82/udp", *SLEEP),
    "run6": Verb("run", "-d", "--name", "c", "--network", "n", "-p", "[::1]:8080:80", *SLEEP,
                 before=("network create --ipv6 n",)),
    "two": Verb("run", "-d", "--name", "c", "--network", "n", "--network", "m", *SLEEP,
                before=("network create n", "network create --internal m")),
    "restart": Verb("restart", "-t", "0", "c", before=("network create n",
                    "run -d --name c --network n -p 8080:80 host sleep 1000")),
    "stop": Verb("stop", "-t", "0", "c", before=("network create n",
                 "run -d --name c --network n -p 8080:80/udp host sleep 1000")),
    "rename": Verb("rename", "c", "d", before=("network create n", "run -d --name c --network n host sleep 1000")),
    "remove": Verb("rm", "-f", "c", before=("run -d --name c -p 8080:80 host sleep 1000",)),
    "publish": Verb("update", "--publish-add", "8081:81", "--publish-rm", "80", "c",
                    before=("run -d --name c -p 8080:80 host sleep 1000",)),
    "macvlan": Verb("run", "-d", "--name", "c", "--network", "v", *SLEEP,
                    before=("network create -d macvlan -o parent=up0 --subnet 10.98.0.0/24 v",)),
    "macvlan-rm": Verb("network", "rm", "v",
                    before=("network create -d macvlan -o parent=up0 --subnet 10.98.0.0/24 v",
                            "run --rm --network v host true")),
    "egress": Verb("run", "-d", "--name", "c", "--egress", "deny", "--egress-allow", "192.0.2.2:80", *SLEEP),
    "leave": Verb("engine", "stop", before=("network create n", "run --rm --network n -p 8080:80 host true")),
}  # fmt: skip


@pytest.fixture
def machine(orlop: Environment, host: Netns) -> Iterator[Machine]:
    with network() as other:
        wire(host, "up0", A, other, "up0", B, 24)
        host.route.add_route(("", 0), Hop(B))
        for name, value in (
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv6/conf/up0/disable_ipv6", "1"),  # its own address comes and is tried at its own time
        ):
            host.inside(lambda name=name, value=value: Path(f"/proc/sys/net/{name}").write_text(value))
        yield Machine(orlop, host)


def agree(orlop: Environment) -> None:
    """What is said of what runs is so in the kernel, and no address is anybody else's."""
    taken: list[str] = []
    for container in orlop("ps", "-q", "--no-trunc").stdout.split():
        found = json.loads(orlop("inspect", container).stdout)[0]
        ends = found["NetworkSettings"]["Networks"].values()
        said = sorted(one[key] for one in ends for key in ("IPAddress", "GlobalIPv6Address") if one[key])
        fd = os.open(f"/proc/{found['State']['Pid']}/ns/net", os.O_RDONLY)
        try:
            with namespace.inside(fd, Rtnetlink) as inside:
                lo = inside.link("lo")
                assert lo is not None
                there = sorted(
                    one.address for one in inside.addresses() if one.index != lo.index and one.address[:4] != "fe80"
                )
                ways = [one for one in inside.routes(2) if one.is_way_out]
        finally:
            os.close(fd)
        assert said == there
        assert bool(ways) == any(one["Gateway"] for one in ends), (ways, ends)
        taken += there
    assert len(set(taken)) == len(taken)


def clean(orlop: Environment) -> None:
    """Remove all that the user made, as a user does."""
    ids = orlop("ps", "-aq").stdout.split()
    if ids:
        orlop("rm", "-f", *ids)
    for name in orlop("network", "ls", "--format", "{{.Name}}", "-f", "type=custom").stdout.split():
        orlop("network", "rm", name)
    orlop("engine", "stop")
    wait_until(lambda: not orlop.processes())


def step(machine: Machine, verb: Verb, decide: stepped.Decide, names: tuple[str, ...]) -> tuple[str, int, str]:
    """Do it once. Return the step that was failed, "" for none, and the command's status and words."""
    orlop = machine.orlop
    with stepped.stepped(orlop, names) as engine:
        for words in verb.before:
            orlop(*words)
        engine.begin(decide)
        done = orlop(*verb.command, check=False)
        engine.end()
        if engine.failed and engine.engine.poll() is None and verb.command[0] != "engine":
            agree(orlop)  # it lives: a step was refused
        orlop("network", "ls"), orlop("ps", "-a")
        agree(orlop)
        clean(orlop)
        return engine.failed, done.code, done.stderr


def settled(machine: Machine, before: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return what is not as it was; the kernel takes its time."""
    deadline = time.monotonic() + 5
    while (now := machine.look()) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    return {key: (before[key], now[key]) for key in now if before[key] != now[key]}


def through(
    machine: Machine, name: str, names: tuple[str, ...], decide: Callable[[int], stepped.Decide], count: int
) -> list[str]:
    """Go through the steps of a verb, the first ones or all that there are; return what was found."""
    found = []
    before = machine.look()
    for number in range(1, count + 1):
        try:
            failed, code, said = step(machine, VERBS[name], decide(number), names)
            left: object = settled(machine, before)
        except AssertionError as wrong:
            failed, code, said, left = "?", -1, "", str(wrong)[:1500]
            reset(machine)
        if left:
            found.append(f"{name} {number} {failed}: {code} {said.strip()}: {left}")
            with open("/tmp/orlop-h5/found.txt", "a") as log:
                log.write(found[-1] + chr(10))
            before = machine.look()
        if not failed:
            break
    return found


def reset(machine: Machine) -> None:
    while own := machine.orlop.processes():
        for pid in own:
            processes.kill(pid, processes.start_time(pid))
    for directory in ("containers", "networks"):
        shutil.rmtree(machine.orlop.root / directory)
    machine.orlop("network", "ls")
    machine.orlop("engine", "stop")


def once(machine: Machine, kind: str, answer: int) -> stepped.Decide:
    """Decide so of the first step after one more link of a kind is there."""
    counts: list[int] = []

    def decide(_: int) -> int:
        counts.append(len([link for link in machine.host.route.links() if link.kind == kind]))
        return answer if counts[-1] > counts[0] and counts.count(counts[-1]) == 1 else 0

    return decide


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [("run", "bridge", -1), ("connect", "veth", -1), ("connect", "veth", errno.ENOBUFS)],
)
def test_nothing_is_left_of_what_was_just_made(machine: Machine, name: str, kind: str, answer: int) -> None:
    machine.orlop("network", "ls")
    clean(machine.orlop)
    before = machine.look()
    failed, code, _ = step(machine, VERBS[name], once(machine, kind, answer), stepped.NETLINK)
    assert failed and code
    assert not settled(machine, before)


@pytest.mark.timeout(36000)
@pytest.mark.parametrize("name", list(VERBS) if LONG else ["stop"])
@pytest.mark.parametrize("how", LONG.split(","))
def test_every_step(machine: Machine, name: str, how: str) -> None:
    machine.orlop("network", "ls")
    clean(machine.orlop)
    names, decide = HOW[how or "kill"]
    assert not through(machine, name, names, decide, 2000 if LONG else 1)


HOW: dict[str, tuple[tuple[str, ...], Callable[[int], stepped.Decide]]] = {
    "kill": (stepped.NETLINK, stepped.kills),
    "files": (stepped.FILES, stepped.kills),
    "refuse": (stepped.NETLINK, stepped.fails),
    "answer": (stepped.ANSWERS, stepped.fails),
}
