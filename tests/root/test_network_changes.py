"""A machine that changes below running containers: links go, others' links come, its own router speaks, helpers die."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from orlop.linux.netlink import rtnetlink
from support import processes
from support.boxes import Box, ask, serving
from support.engine import Environment
from support.netns import A, B, Netns
from support.tasks import wait_until

Run = Callable[..., Box]


def bridge_of(host: Netns) -> rtnetlink.Link:
    (found,) = [link for link in host.route.links() if link.kind == "bridge"]
    return found


def kill(orlop: Environment, pid: int | None = None) -> None:
    pid = pid or orlop.engine_pid()
    assert pid is not None
    processes.kill(pid, processes.start_time(pid))


def test_a_gateway_has_one_mac_whoever_comes_and_goes(run: Run, host: Netns) -> None:
    # A bridge without one has the least of its ports': who knows the gateway by it waits when that port goes.
    run()
    before = bridge_of(host).address
    host.route.add_link("low0", rtnetlink.veth("low1"), rtnetlink.address("00:00:5e:00:00:01"))
    host.route.set_link(host.index("low0"), rtnetlink.master(bridge_of(host).index), up=True)
    assert bridge_of(host).address == before
    host.route.delete_link(host.index("low0"))


def test_links_that_somebody_removes_come_back(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    box, other = run("-p", "8080:80"), run()
    with serving(box, 80), serving(neighbour, 9000):
        for name in (bridge_of(host).name, next(x.name for x in host.route.links() if x.name.startswith("og-"))):
            host.route.delete_link(host.index(name))
            wait_until(lambda: ask(neighbour, A, 8080, connect_s=0.3) == B)
            wait_until(lambda: ask(other, box.address(), 80, connect_s=0.3) == other.address())
        for link in [link for link in host.route.links() if link.name.startswith("ve")]:
            host.route.delete_link(link.index)
        wait_until(lambda: ask(box, B, 9000, connect_s=0.3) == A)
        kill(orlop)
        host.route.delete_link(bridge_of(host).index)
        orlop("ps")  # the next engine
        wait_until(lambda: ask(box, B, 9000, connect_s=0.3) == A)
        assert ask(neighbour, A, 8080) == B


def test_a_relay_that_is_killed_is_followed_by_another(run: Run, orlop: Environment, host: Netns) -> None:
    box = run("-p", "[::1]:8080:80")

    def relay() -> list[int]:
        return [pid for pid in orlop.processes() if "orlop: ports" in processes.title(pid)]

    with serving(box, 80):
        for next_engine in (False, True):
            wait_until(lambda: ask(host, "::1", 8080, connect_s=0.3))
            if next_engine:
                kill(orlop)
            kill(orlop, *relay())
            orlop("ps")
        wait_until(lambda: ask(host, "::1", 8080, connect_s=0.3))


SYSCTLS = [
    "ipv4/ip_forward",
    *(f"ipv4/conf/{link}/{name}" for link in ("all", "default", "up0") for name in ("forwarding", "accept_redirects")),
    *(f"ipv6/conf/{link}/{name}" for link in ("all", "default", "up0") for name in ("forwarding", "accept_ra")),
]


def sysctls(host: Netns) -> dict[str, str]:
    return host.inside(lambda: {name: Path(f"/proc/sys/net/{name}").read_text().strip() for name in SYSCTLS})


def write(host: Netns, name: str, value: int) -> None:
    host.inside(lambda: Path(f"/proc/sys/net/{name}").write_text(str(value)))


def test_a_machine_is_the_router_that_it_was(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    write(host, "ipv4/ip_forward", 0)
    write(host, "ipv6/conf/all/forwarding", 0)
    write(host, "ipv4/conf/all/accept_redirects", 0)
    write(host, "ipv4/conf/up0/forwarding", 1)
    before = sysctls(host)
    orlop("network", "create", "--ipv6", "six")
    box = run("--network", "six")
    assert {**before, **sysctls(host)}["ipv4/ip_forward"] == "1"
    kill(orlop)
    orlop("rm", "-f", box.id)
    box.close()
    orlop("network", "rm", "six")
    orlop("engine", "stop")
    wait_until(lambda: sysctls(host) == before)


def advertise(router: Netns, link: str, to: str = "ff02::1") -> None:
    """Be a router of half an hour (RFC 4861, section 4.2)."""

    def speak() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.sendto(struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), (to, 0, 0, socket.if_nametoindex(link)))

    router.inside(speak)


def test_ipv6_networks_do_not_take_the_machines_own_way_out(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    # A machine that forwards hears no router, unless it is told to: docker's --ipv6 cuts such machines off.
    def ways() -> list[str]:
        return [one.gateway for one in host.route.routes(socket.AF_INET6) if one.is_way_out]

    def heard() -> bool:
        with contextlib.suppress(OSError):  # while its own address is tried
            advertise(neighbour, "up0")
        return bool(ways())

    wait_until(heard)
    orlop("network", "create", "--ipv6", "six")
    run("--network", "six")
    assert ways()
    host.route.delete_route(("", 0), rtnetlink.Hop(ways()[0], host.index("up0")))
    wait_until(heard)  # and goes on to hear it


def test_what_was_begun_of_a_connection_is_undone(run: Run, orlop: Environment) -> None:
    orlop("network", "create", "n")
    box = run()
    held = orlop.root / "containers" / box.id / "endpoints.json"
    before = held.read_text()
    orlop("network", "connect", "n", box.id)
    after = held.read_text()
    # As an engine leaves it that is killed before the container's record is written, and one after it.
    orlop("network", "disconnect", "n", box.id)
    kill(orlop)
    held.write_text(after)
    orlop("network", "ls")
    assert json.loads(held.read_text())["endpoints"] == json.loads(before)["endpoints"]
    orlop("network", "connect", "n", box.id)
    kill(orlop)
    held.write_text(before)
    orlop("network", "rm", "n")
    assert orlop("inspect", "-f", "{{len .NetworkSettings.Networks}}", box.id).stdout == "1\n"
    assert os.listdir(orlop.root / "networks") and box.address()
