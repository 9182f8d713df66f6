"""A machine that our engine has made a router of: of whom, and until when."""

from __future__ import annotations

from collections.abc import Callable

from orlop.linux.netlink import rtnetlink
from orlop.linux.netlink.rtnetlink import Hop
from support.boxes import Box, ask, serving, silent
from support.engine import Environment
from support.netns import A, B, Netns, network

Run = Callable[..., Box]


def test_networks_of_others_that_came_later_go_on(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    """dockerd and libvirt find forwarding on when it was us who switched it on: their bridges are routed, and stay so.

    A bridge that was there before, and never routed, is closed: it was nobody's wish.
    """
    host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    with network() as theirs, network() as closed:

        def bridge(name: str, inside: Netns, subnet: str) -> None:
            host.route.add_link(name, rtnetlink.bridge())
            host.route.add_link(f"{name}v", rtnetlink.veth("eth0", rtnetlink.in_namespace(inside.fd)))
            host.route.set_link(host.index(f"{name}v"), rtnetlink.master(host.index(name)), up=True)
            host.route.add_address(host.index(name), f"{subnet}.1", 24)
            host.route.set_link(host.index(name), up=True)
            inside.route.add_address(inside.index("eth0"), f"{subnet}.2", 24)
            inside.route.set_link(inside.index("eth0"), up=True)
            inside.route.add_route(("", 0), Hop(f"{subnet}.1"))

        bridge("lan0", closed, "10.201.0")
        box = run("--network", "bridge")
        bridge("docker0", theirs, "10.200.0")
        orlop("network", "create", "-o", "com.docker.network.bridge.name=isle", "isle")
        isle = run("--network", "isle")
        with serving(neighbour, 9000):
            assert ask(theirs, B, 9000) == "10.200.0.2"
            assert ask(box, B, 9000) == ask(isle, B, 9000) == A
            assert silent(closed, B, 9000)
            orlop("rm", "-f", box.id, isle.id)
            orlop("engine", "stop")
            assert ask(theirs, B, 9000) == "10.200.0.2"
