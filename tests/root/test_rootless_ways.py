"""What an ordinary user's containers may reach, and what they are given of the machine's loopback (P07, P60).

The rules lie in the user's own network namespace, which no container's root has power over; the resolver, and what it
leads out by name, is in the machine's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux.netlink.rtnetlink import IFA_F_NODAD, Hop
from orlop.network.dns import message
from support import boxes, processes, rootless
from support.netns import Netns, network, wire
from support.rootless import User

from .test_names import Upstream, ask
from .test_rootless import Inside, lines

HERE, SERVER, OTHER = "203.0.113.1", "203.0.113.2", "203.0.113.3"
HERE_6, SERVER_6 = "2001:db8:5::1", "2001:db8:5::2"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with rootless.user() as somebody:
        yield somebody


@pytest.fixture(scope="module")
def outside(user: User) -> Iterator[Netns]:
    """Another host on a cable to the user's machine."""
    with network() as there:
        wire(user.net, "cable", HERE, there, "cable", SERVER, 24)
        there.route.add_address(there.index("cable"), OTHER, 24)
        for side, address in ((user.net, HERE_6), (there, SERVER_6)):
            side.route.add_address(side.index("cable"), address, 64, IFA_F_NODAD)
        user.net.route.add_route(("::", 0), Hop(SERVER_6, user.net.index("cable")))
        yield there


@pytest.fixture(scope="module")
def names(outside: Netns) -> Iterator[Upstream]:
    """A server of names at SERVER, which gives every name the address OTHER."""
    server = Upstream(outside, SERVER, says=OTHER)
    yield server
    server.close()


def test_only_what_is_allowed_is_reached(user: User, outside: Netns, names: Upstream) -> None:
    """Red: with the rules in the resolver's namespace, the machine's, the start fails; with none, OTHER:81 answers."""
    allowed = ("--egress-allow", "api.test:80", "--egress-allow", f"{SERVER}:82")
    lines(user, "run", "-d", "--name", "caged", "--egress", "deny", *allowed, "--dns", SERVER, "host", "sleep", "1000")
    lines(user, "run", "-d", "--name", "free", "--dns", SERVER, "host", "sleep", "1000")
    caged, free = Inside(user, "caged"), Inside(user, "free")
    with boxes.serving(outside, 80) as web, boxes.serving(outside, 81), boxes.serving(outside, 82):
        assert boxes.ask(free, OTHER, 81) == HERE  # so that what is silent is closed
        assert boxes.silent(caged, OTHER, 80)  # nobody has asked for the name yet
        assert ask(caged, "api.test") == (0, [OTHER])
        assert boxes.ask(caged, OTHER, 80) == HERE
        assert boxes.silent(caged, OTHER, 81)
        assert boxes.ask(caged, SERVER, 82) == HERE
        assert boxes.silent(caged, SERVER, 81)
        assert ask(caged, "tunnel.attacker.test") == (message.NXDOMAIN, [])
        gateway = lines(user, "inspect", "-f", "{{.NetworkSettings.Gateway}}", "caged")[0]
        assert boxes.silent(caged, gateway, 80)
        assert web.peers == [HERE]
    assert names.asked == ["api.test"]
    denied = ["denied: api.test:81/tcp", f"denied: {SERVER}:81/tcp", "denied: tunnel.attacker.test"]
    rootless.wait_for("what was denied", lambda: set(denied) <= set(lines(user, "network", "egress", "caged")))
    lines(user, "rm", "-f", "caged", "free")


@pytest.mark.usefixtures("names")
def test_what_is_learned_is_told(user: User, outside: Netns) -> None:
    lines(user, "run", "-d", "--name", "pupil", "--egress", "learn", "--dns", SERVER, "host", "sleep", "1000")
    pupil = Inside(user, "pupil")
    with boxes.serving(outside, 80), boxes.serving(outside, 81):
        assert ask(pupil, "api.test") == (0, [OTHER])
        assert boxes.ask(pupil, OTHER, 80) == HERE
        assert boxes.ask(pupil, SERVER, 81) == HERE
    expected = [f"--egress-allow {SERVER}:81/tcp", "--egress-allow api.test:80/tcp"]
    rootless.wait_for("what was learned", lambda: lines(user, "network", "egress", "pupil") == expected)
    lines(user, "rm", "-f", "pupil")


def test_a_container_reaches_the_loopback_that_it_was_given(user: User) -> None:
    """P60. Red: without the rules, or with the relay's connections made where it listens, nobody answers at 9000."""
    machine = user.net
    given = ("--host-access", "9000-9001", "--host-access", "53/udp")
    for name, flags in (("one", given), ("two", ("--host-access", "9000", "--egress", "deny")), ("none", ())):
        lines(user, "run", "-d", "--name", name, *flags, "host", "sleep", "1000")
    one, two, none = (Inside(user, name) for name in ("one", "two", "none"))
    gateway = lines(user, "inspect", "-f", "{{.NetworkSettings.Gateway}}", "one")[0]
    assert f"{gateway}\thost.docker.internal" in lines(user, "exec", "one", "cat", "/etc/hosts")
    local = {"address": "127.0.0.1"}
    with (
        boxes.serving(machine, 9000, **local) as first,
        boxes.serving(machine, 9001, **local),
        boxes.serving(machine, 9005, **local),
        boxes.serving(machine, 53, kind=socket.SOCK_DGRAM, **local),
    ):
        assert boxes.ask(one, gateway, 9000) == "127.0.0.1"
        assert boxes.ask(one, gateway, 9001) == "127.0.0.1"
        assert boxes.ask(one, gateway, 53, kind=socket.SOCK_DGRAM) == "127.0.0.1"
        assert boxes.ask(two, gateway, 9000) == "127.0.0.1"
        for place, port in ((one, 9005), (two, 9001), (none, 9000)):
            assert boxes.silent(place, gateway, port)
        # At no other address, and no other container by the address that a rule leads to.
        inner = "127." + lines(user, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "one")[0].partition(".")[2]
        for address in ("127.0.0.1", inner):
            assert boxes.silent(none, address, 9000) and boxes.silent(one, address, 9000)
        lines(user, "rm", "-f", "one")  # whose relay ends, and not the other's
        assert boxes.ask(two, gateway, 9000) == "127.0.0.1"
        assert len(first.peers) == 3
        lines(user, "update", "--publish-add", "18201:80", "two")
        assert boxes.ask(two, gateway, 9000) == "127.0.0.1"
        lines(user, "restart", "-t", "0", "two")
        assert boxes.ask(Inside(user, "two"), gateway, 9000) == "127.0.0.1"
    lines(user, "rm", "-f", "two", "none")


def test_a_relay_without_descriptors_carries_on(user: User) -> None:
    """Red: where `relay._admit` lets the OSError of a socket pass, the relay ends with the first client too many."""
    lines(user, "run", "-d", "--name", "web", "-p", "18301:80", "host", "sleep", "1000")
    (pid,) = (pid for pid, line in user.processes().items() if "network import relay" in line or "orlop: ports" in line)
    target = ("127.0.0.1", 18301)
    with boxes.serving(Inside(user, "web"), 80):
        assert boxes.ask(user.net, *target)  # so that it has all that it needs by itself
        open_now = len(os.listdir(f"/proc/{pid}/fd"))
        done = user.run("prlimit", f"--pid={pid}", f"--nofile={open_now + 5}")
        assert done.code == 0, done
        clients = [user.net.inside(lambda: socket.create_connection(target, timeout=60)) for _ in range(12)]
        for client in clients:
            client.close()
        rootless.wait_for("an answer after too many", lambda: bool(boxes.ask(user.net, *target)))
    lines(user, "rm", "-f", "web")


def _kill(user: User, *words: str) -> None:
    for pid, line in user.processes().items():
        if any(word in line for word in words):
            processes.kill(pid, processes.start_time(pid))


def test_helpers_that_are_killed_are_followed_by_others(user: User, outside: Netns) -> None:
    """Red: nobody waited for the ends of pasta and relays, and a pasta that was a zombie counted as alive."""
    lines(user, "run", "-d", "--name", "web", "-p", "18311:80", "host", "sleep", "1000")
    web = Inside(user, "web")
    with boxes.serving(web, 80), boxes.serving(outside, 9000):
        for next_engine in (False, True):
            if next_engine:
                pid = int(lines(user, "engine", "status")[0].split("pid ")[1].split(",")[0])
                processes.kill(pid, processes.start_time(pid))
            _kill(user, "pasta", "orlop: ports")
            if next_engine:
                lines(user, "ps")
            rootless.wait_for("a way in", lambda: bool(boxes.ask(user.net, "127.0.0.1", 18311, connect_s=0.3)))
            rootless.wait_for("a way out", lambda: bool(boxes.ask(web, SERVER, 9000, connect_s=0.3)))
    lines(user, "rm", "-f", "web")


def test_a_way_out_that_comes_late_is_taken(user: User, outside: Netns) -> None:
    """Red: pasta, which ends where there is no route, was started again by the next container's start alone."""
    lines(user, "run", "-d", "--name", "web", "host", "sleep", "1000")
    link = user.net.index(rootless.LINK)
    user.net.route.set_link(link, up=False)
    _kill(user, "pasta")
    with boxes.serving(outside, 9000):
        user.net.route.set_link(link, up=True)
        user.net.route.add_route(("", 0), Hop(rootless.GATEWAY, link))
        web = Inside(user, "web")
        rootless.wait_for("a way out", lambda: bool(boxes.ask(web, SERVER, 9000, connect_s=0.3)))
    lines(user, "rm", "-f", "web")


def test_ipv6_leads_out_and_in(user: User, outside: Netns) -> None:
    """What comes and goes keeps its family, and a client its address."""
    lines(user, "network", "create", "--ipv4=false", "--ipv6", "six")
    lines(user, "run", "-d", "--name", "six", "--network", "six", "-p", "18066:80", "host", "sleep", "1000")
    six = Inside(user, "six")
    with boxes.serving(six, 80, family=socket.AF_INET6), boxes.serving(outside, 9000, family=socket.AF_INET6):
        assert boxes.ask(six, SERVER_6, 9000) == HERE_6
        assert boxes.ask(outside, HERE_6, 18066) == SERVER_6
        for address in ("::1", "127.0.0.1"):
            assert boxes.ask(user.net, address, 18066).startswith("fd")


def test_a_ping_to_the_outside_is_the_users_own(user: User, outside: Netns, peer: Callable[[str], Path]) -> None:
    """E09, both ways: pasta asks by a ping socket, which net.ipv4.ping_group_range of the machine allows or not."""
    tool = ("-v", f"{peer('busybox')}:/bin/busybox:ro", "host", "/bin/busybox", "ping", "-c", "1", "-W", "5", SERVER)

    def allow(text: str) -> None:
        user.net.inside(lambda: Path("/proc/sys/net/ipv4/ping_group_range").write_text(text))

    allow("0 2147483647")
    done = user.orlop("run", "--rm", *tool)
    assert done.code == 0 and "1 packets received" in done.stdout, done
    allow("1 0")
    done = user.orlop("run", "--rm", *tool)
    assert done.code == 1 and "0 packets received" in done.stdout, done
    allow("0 2147483647")
