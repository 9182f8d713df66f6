"""Networks in numbers. The long form takes its numbers from ORLOP_TEST_NETWORKS and ORLOP_TEST_ENDPOINTS (500)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orlop.frontends.native import client
from orlop.spec.paths import Paths
from support import processes
from support.boxes import Box, ask, serving
from support.engine import Environment
from support.netns import Netns
from support.tasks import wait_until

NETWORKS = int(os.environ.get("ORLOP_TEST_NETWORKS", "20"))
ENDPOINTS = int(os.environ.get("ORLOP_TEST_ENDPOINTS", "10"))
MEMORY_KIB_MAX = 5 * 1024


@contextmanager
def connected(orlop: Environment) -> Iterator[Callable[..., Any]]:
    """Ask the engine without a process for each question."""
    orlop("network", "ls")  # which starts one
    with client.connect(Paths(str(orlop.root), str(orlop.run)), start=False) as engine:
        yield engine.call


def memory_kib(pid: int) -> int:
    """Return the PSS of a process."""
    rollup = processes.read(pid, "smaps_rollup").decode()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


@pytest.mark.timeout(1800)
def test_many_networks_of_one_container(orlop: Environment, host: Netns) -> None:
    before = {link.name for link in host.route.links()}
    box = Box(orlop)
    with connected(orlop) as call:
        names = [f"n{number}" for number in range(NETWORKS)]
        for name in names:
            call("networks.create", {"request": {"name": name}})
        found = call("networks.list", {"filters": {"type": ["custom"]}})
        subnets = {one["IPAM"]["Config"][0]["Subnet"] for one in found}
        assert len(subnets) == NETWORKS
        for name in names:
            call("networks.connect", {"network": name, "container": box.id, "request": {"network": name}})
        bridges = [link for link in host.route.links() if link.kind == "bridge"]
        assert len(bridges) == NETWORKS + 1
        for name in names[::2]:
            call("networks.disconnect", {"network": name, "container": box.id})
            call("networks.remove", {"network": name})
        assert len([link for link in host.route.links() if link.kind == "bridge"]) == NETWORKS + 1 - len(names[::2])
    box.close()
    while left := orlop.processes():  # everything of ours, and who takes over meanwhile: a sweeper
        for pid in left:
            processes.kill(pid, processes.start_time(pid))
    orlop("rm", box.id)
    orlop("network", "prune", "-f")
    orlop("engine", "stop")
    wait_until(lambda: {link.name for link in host.route.links()} == before and not list(host.nft.tables()))


@pytest.mark.timeout(1800)
def test_many_containers_of_one_network(orlop: Environment) -> None:
    orlop("network", "create", "--subnet", "10.99.0.0/16", "crowd")
    ids = [
        orlop("run", "-d", "--network", "crowd", "--name", f"c{number}", "host", "sleep", "3600").stdout.strip()
        for number in range(ENDPOINTS)
    ]
    with connected(orlop) as call:
        members = call("networks.inspect", {"network": "crowd"})["Containers"]
        assert len({one["IPv4Address"] for one in members.values()}) == ENDPOINTS == len(members)
        assert len({one["MacAddress"] for one in members.values()}) == ENDPOINTS
        last = members[ids[-1]]["IPv4Address"].partition("/")[0]
    first, other = _open(orlop, ids[0]), _open(orlop, ids[-1])
    with serving(other, 80):
        assert ask(first, last, 80)
    told = orlop("network", "dns", "trace", "c0", f"c{ENDPOINTS - 1}").stdout
    assert "answer: NOERROR" in told
    first.close(), other.close()
    orlop("rm", "-f", *ids)
    orlop("network", "rm", "crowd")


def _open(orlop: Environment, container_id: str) -> Box:
    box = Box.__new__(Box)
    box.orlop, box.id, box.fd = orlop, container_id, -1
    box.open()
    return box


def test_ten_thousand_ports_take_little_memory(orlop: Environment) -> None:
    keep = Box(orlop)
    pid = orlop.engine_pid()
    assert pid is not None
    orlop("run", "--rm", "-p", "8080:80", "host", "true")
    before = memory_kib(pid)
    same = orlop("run", "-d", "-p", "20000-29999:20000-29999/udp", "host", "sleep", "1000").stdout.strip()
    assert memory_kib(pid) - before < MEMORY_KIB_MAX
    orlop("rm", "-f", same)
    moved = orlop("run", "-d", "-p", "30000-39999:10000-19999/tcp", "host", "sleep", "1000").stdout.strip()
    assert len([one for one in orlop.processes() if "orlop" in processes.title(one)]) < 8  # and no process for a port
    orlop("rm", "-f", moved)
    keep.close()


def test_networks_come_and_go_under_load(orlop: Environment) -> None:
    one, other = Box(orlop), Box(orlop)
    listener = other.inside(lambda: socket.create_server(("", 9000)))
    sent, received = [0], [0]
    stop = threading.Event()

    def receive() -> None:
        peer, _ = listener.accept()
        with peer:
            while data := peer.recv(65536):
                received[0] += len(data)

    def send() -> None:
        stream = one.inside(lambda: socket.create_connection((other.address(), 9000), timeout=60))
        with stream:
            while not stop.is_set():
                sent[0] += stream.send(b"x" * 65536)

    workers = [threading.Thread(target=work) for work in (receive, send)]
    for worker in workers:
        worker.start()
    try:
        wait_until(lambda: received[0] > 0)
        with connected(orlop) as call:
            for number in range(10):
                request: dict[str, Any] = {"network": f"n{number}", "container": one.id}
                call("networks.create", {"request": {"name": f"n{number}"}})
                call("networks.connect", {**request, "request": {"network": f"n{number}"}})
                before = received[0]
                wait_until(lambda before=before: received[0] > before)  # type: ignore[misc]
                call("networks.disconnect", request)
                call("networks.remove", {"network": f"n{number}"})
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
        listener.close()
    assert sent[0] == received[0]
    one.close(), other.close()
