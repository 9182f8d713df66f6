"""What one engine has on the machine, under which names, and how all of it goes.

What belongs to one engine carries its mark, so that several engines share a machine: `orlop0` and the table `orlop` for
the usual one, `orlop0-1a2b3c` for one with another ORLOP_RUN. A bridge may have a name of the user's choice; its alias
says whose it is, so that it is found without any file.
"""

from __future__ import annotations

import hashlib
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ..linux.netlink.nftables import IPV4, IPV6
from ..spec.task import ATTACH_SOCKET
from . import firewall, forwarding, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..linux.netlink.nftables import Nftables
    from ..linux.netlink.rtnetlink import Link, Rtnetlink

OWN = "orlop"  # what the alias of every engine's bridges begins with
RUN_OF_ROOT = "/run/orlop"
PARENTS = frozenset(("vlan", "dummy"))
_FORWARDING = {IPV4: forwarding.SWITCHES[4], IPV6: forwarding.SWITCHES[6]}


class Footprint:
    """The names of what an engine makes."""

    __slots__ = ("mark", "run")

    def __init__(self, run: str) -> None:
        """run: $ORLOP_RUN."""
        self.run = run
        self.mark = "" if run == RUN_OF_ROOT else f"-{hashlib.sha256(run.encode()).hexdigest()[:6]}"

    @property
    def table(self) -> str:
        """The table of rules."""
        return f"orlop{self.mark}"

    @property
    def egress_table(self) -> str:
        """The resolver's table: what restricted containers may reach."""
        return f"orlop-egress{self.mark}"

    @property
    def default_bridge(self) -> str:
        return f"orlop0{self.mark}"

    @property
    def gate(self) -> tuple[str, str]:
        """The two ends of the gate: by which packets leave, by which they come in."""
        return f"og{self.mark}-out", f"og{self.mark}-in"

    @property
    def fresh(self) -> str:
        """The name of a link that is being made, until it has its own (`links.make`)."""
        return f"og{self.mark}-new"

    @property
    def forwarding_file(self) -> str:
        """Exists when it was us who let this machine forward packets; names the sysctls."""
        return f"{self.run}/forwarding"

    def others(self, route: Rtnetlink) -> list[str]:
        """Return the names of the bridges that no engine of ours has made. Raises OSError."""
        return [link.name for link in route.links() if link.kind == "bridge" and not link.alias.startswith(OWN)]

    def closed(self) -> dict[int, list[str]]:
        """Return, by address family in which we made a router of this machine, the bridges of others that never
        forwarded until then.

        Who makes a bridge later (docker0, virbr0) finds forwarding on, and relies on it.
        """
        before, names = forwarding.read(self.forwarding_file)
        return {family: names for family, name in _FORWARDING.items() if name in before}

    def alias(self, network: str) -> str:
        """Return the alias of a network's bridge: whose it is, and for what."""
        return f"{OWN}{self.mark}: {network}"

    def links(self, route: Rtnetlink) -> list[Link]:
        """Return the bridges and the gate's ends that are on the machine now. Raises OSError."""
        return self._own(list(route.links()))

    def is_used(self, route: Rtnetlink) -> bool:
        """Tell whether anything is plugged into one of the bridges, or may lie on a parent of ours. Raises OSError.

        What lies on a parent is in another namespace and not seen from here: any container may be there.
        """
        if self.is_bridged(route):
            return True
        return any(link.kind in PARENTS for link in self._own(route.links())) and self._has_tasks()

    def is_bridged(self, route: Rtnetlink) -> bool:
        """Tell whether anything is plugged into one of the bridges: only then there are rules. Raises OSError."""
        every = list(route.links())
        indices = {link.index for link in self._own(every)}
        return any(link.master in indices for link in every)

    def _has_tasks(self) -> bool:
        try:
            names = os.listdir(f"{self.run}/tasks")
        except OSError:
            return False
        return any(_answers(f"{self.run}/tasks/{name}/{ATTACH_SOCKET}") for name in names)

    def _own(self, every: Iterable[Link]) -> list[Link]:
        ours = self.alias("")
        return [link for link in every if link.alias.startswith(ours) or link.name in (*self.gate, self.fresh)]

    def remove(self, route: Rtnetlink, nft: Nftables | None) -> None:
        """Remove every link, table and sysctl of this engine. One that can't be removed does not keep the others.

        nft: None where the kernel has no tables.

        Raises OSError: the first that was in the way.
        """
        wrong: list[OSError] = []
        for link in self.links(route):
            try:
                links.delete_link(route, link.name)
            except OSError as failure:
                wrong.append(failure)
        if nft is not None:
            for table in (self.table, self.egress_table):
                firewall.forget(nft, table)
        try:
            forwarding.switch_off(self.forwarding_file, [one.name for one in route.links() if one.kind == "bridge"])
        except OSError as failure:
            wrong.append(failure)
        if wrong:
            raise wrong[0]


def _answers(path: str) -> bool:
    """Tell whether a monitor listens there."""
    asking = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        asking.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return True  # nobody can tell: what may be in use stays
    finally:
        asking.close()
    return True
