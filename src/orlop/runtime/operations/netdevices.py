"""`linux.netDevices`: devices of the host become the container's own, under another name if that is wanted.

The way back is the kernel's: when the network namespace ends, hardware returns to the initial namespace under its last
name, and virtual devices end with it (network_namespaces(7)). Source: config-linux.md 1.3, "Network Devices".
"""

import os

from ...linux import process
from ...linux.netlink import rtnetlink
from ...spec.errors import Conflict, NotFound
from . import Operation
from .namespaces import open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Outside

_IFA_F_PERMANENT = 0x80
_SCOPE_UNIVERSE = 0


class MoveNetworkDevice(Operation):
    """Move a network device into the container's namespace with its addresses, and set it up.

    name: on the host; inside: in the container. namespace: the path of a joined namespace, "" for init's own new one.
    """

    name: str
    inside: str
    namespace: str = ""
    subject = "network"

    def describe(self) -> str:
        return f"move the network device {self.name} into the container" + (
            f" as {self.inside}" if self.inside != self.name else ""
        )

    def call(self) -> str:
        return f"RTM_NEWLINK({self.name}, IFLA_NET_NS_FD, IFLA_IFNAME={self.inside}), RTM_NEWADDR, IFF_UP"

    def assist(self, outside: "Outside", pid: int) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC
        target = open_namespace("network", self.namespace) if self.namespace else os.open(f"/proc/{pid}/ns/net", flags)
        try:
            with _socket_in(target) as there:
                # The kernel renames a device that it has moved already: what can go wrong must be known before.
                if there.link(self.inside):
                    raise Conflict(
                        "move", f"the network device {self.name}", f"the container has another {self.inside} already",
                        hint="give it another name in linux.netDevices",
                    )  # fmt: skip
                addresses = self._move(target)
                link = there.link(self.inside)
                if link is None:
                    raise Conflict("set up", f"the network device {self.inside}", "somebody has taken it away again")
                for address in addresses:
                    there.add_address(link.index, address.address, address.prefix_length)
                there.set_link(link.index, up=True)
        finally:
            os.close(target)

    def _move(self, target: int) -> list[rtnetlink.Address]:
        """Move it; return the addresses that it must keep: those that somebody gave it for good, valid everywhere."""
        with rtnetlink.Rtnetlink() as here:
            link = here.link(self.name)
            if link is None:
                cause = f"there is no network device {self.name}"
                raise NotFound("move", self.name, cause, hint="correct linux.netDevices")
            kept = [address for address in here.addresses() if address.index == link.index and _is_kept(address)]
            here.set_link(link.index, up=False)
            here.set_link(link.index, rtnetlink.in_namespace(target), rtnetlink.named(self.inside))
        return kept


def _is_kept(address: rtnetlink.Address) -> bool:
    return bool(address.flags & _IFA_F_PERMANENT) and address.scope == _SCOPE_UNIVERSE


def _socket_in(namespace: int) -> rtnetlink.Rtnetlink:
    """Return a socket that was made in a network namespace, where it stays; this process has one thread."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process.setns(namespace, process.CLONE_NEWNET)
        try:
            return rtnetlink.Rtnetlink()
        finally:
            process.setns(home, process.CLONE_NEWNET)
    finally:
        os.close(home)
