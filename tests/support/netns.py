"""Network namespaces for tests, and somebody else's programs in them. The machine's own network is never touched."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from devtools import peers
from orlop.linux import interface, process
from orlop.linux.netlink import namespace
from orlop.linux.netlink.nftables import Nftables
from orlop.linux.netlink.rtnetlink import Rtnetlink

T = TypeVar("T")
A, B = "192.0.2.1", "192.0.2.2"  # the two ends of a cable: a machine, and its neighbour


# Where the machine's network is found: in the first of our processes. Workers begin in that one's own.
MACHINE = "ORLOP_TEST_NETWORK"
_machines: list[int] = []


def isolate() -> None:
    """Give this thread, and all that it starts, a network of its own: no bridge, rule or forwarding of a test is the
    machine's. Idempotent."""
    if not _machines:
        place = os.environ.get(MACHINE)
        _machines.append(os.open(place, os.O_RDONLY | os.O_CLOEXEC) if place else namespace.current())
        os.environ.setdefault(MACHINE, f"/proc/{os.getpid()}/fd/{_machines[0]}")
        process.unshare(process.CLONE_NEWNET)
        interface.set_up("lo")


def on_the_machine(work: Callable[[], T]) -> T:
    """Return what work returns in the machine's own network."""
    return namespace.inside(_machines[0], work) if _machines else work()


class Netns:
    """A network namespace: our sockets in it (route, nft), and the field's own tools. Its lo is up."""

    def __init__(self) -> None:
        self.fd, (self.route, self.nft) = namespace.new(lambda: (Rtnetlink(), Nftables()))
        lo = self.route.link("lo")
        assert lo is not None
        self.route.set_link(lo.index, up=True)

    def run(self, *argv: str | Path, input: str | None = None, check: bool = True) -> str:
        """Run a program in here; return its standard output. Fails when it does, unless check is False."""
        done = subprocess.run(self.argv(*argv), input=input, pass_fds=[self.fd], capture_output=True, text=True)
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr}"
        return done.stdout

    def argv(self, *argv: str | Path) -> list[str]:
        """Return the command that runs another one in here; whoever starts it passes `fd` on."""
        return ["nsenter", f"--net=/proc/self/fd/{self.fd}", *map(str, argv)]

    def popen(self, *argv: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv(*argv), pass_fds=[self.fd], **options)

    def json(self, program: str, *argv: str) -> Any:
        """Return what `ip -j`, `bridge -j` or `nft -j` says."""
        tool = peers.find(program)
        assert tool is not None, f"{program} is not there"
        return json.loads(self.run(tool, "-j", *argv) or "[]")

    def index(self, name: str) -> int:
        found = self.route.link(name)
        assert found is not None, name
        return found.index

    def inside(self, work: Callable[[], T]) -> T:
        """Return what work returns on a thread in here."""
        return namespace.inside(self.fd, work)

    def close(self) -> None:
        self.route.close()
        self.nft.close()
        os.close(self.fd)


@contextmanager
def network() -> Iterator[Netns]:
    """A namespace for one test."""
    made = Netns()
    try:
        yield made
    finally:
        made.close()


def wire(one: Netns, name: str, address: str, other: Netns, other_name: str, other_address: str, length: int) -> None:
    """Connect two namespaces by a cable with an address at each end."""
    from orlop.linux.netlink.rtnetlink import IFA_F_NODAD, in_namespace, veth

    one.route.add_link(name, veth(other_name, in_namespace(other.fd)))
    for side, link, own in ((one, name, address), (other, other_name, other_address)):
        side.route.add_address(side.index(link), own, length, IFA_F_NODAD)
        side.route.set_link(side.index(link), up=True)
