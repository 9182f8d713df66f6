"""What others change on the machine, followed while containers run: the MTU of the way outside, and the rules.

A VPN that comes up makes packets smaller (moby#49398): a thread is told of links and routes by the kernel, and gives
bridges, and both ends of each endpoint on them, the MTU of the way outside; networks with an MTU of the user's are left
alone. Where a table can't have an owner that keeps it (before Linux 6.9), it is told of rules, too, and writes the
table again that somebody has flushed (SEC-94). It runs from the first container on until the engine leaves.
"""

from __future__ import annotations

import os
import threading

from ...linux.netlink import changes, namespace, rtnetlink, wire
from ...linux.netlink.rtnetlink import Rtnetlink
from ...network import firewall, links
from . import host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.network import Endpoint
    from ..engine import Engine

LOOK_S_MAX = 3600.0
SETTLE_S = 0.1  # routes and links change in groups


def follow(engine: Engine) -> None:
    """Follow from now on. Called under the networks' lock; once is enough."""
    if engine.networks.follower is None:
        engine.networks.follower = Follower(engine)


class Follower:
    """The thread. close: it ends."""

    def __init__(self, engine: Engine) -> None:
        """Raises OSError."""
        self._engine = engine
        self._changes = changes.Changes(changes.LINKS, changes.IPV4_ROUTES)
        self._rules = changes.Changes(changes.RULES, protocol=wire.NETFILTER)
        self._followed = 0  # the MTU that everything was given last; bridges of later are made with the one of then
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mtu", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Without the networks' lock: the thread may wait for it."""
        self._stopped.set()
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._changes.close()
        self._rules.close()
        os.close(self._stop)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                networks = self._engine.networks
                if networks.firewall.is_owned:
                    self._changes.wait(LOOK_S_MAX, self._stop)
                else:
                    self._changes.wait(LOOK_S_MAX, self._stop, self._rules.fileno())
                    self._rules.drain()
                    self._restore()
                if not self._stopped.wait(SETTLE_S):
                    self._changes.drain()
                    self._adjust()
        except OSError as wrong:
            self._engine.log.write(f"the MTU of the way outside and the rules are not followed any more: {wrong}")

    def _restore(self) -> None:
        networks = self._engine.networks
        with networks.lock:
            if self._stopped.is_set() or not networks.raised():
                return
            if not firewall.is_there(networks.nft, networks.footprint.table):
                networks.rewrite()
                self._engine.log.write("the rules of networks were gone: somebody flushed them; they are written again")

    def _adjust(self) -> None:
        networks = self._engine.networks
        with networks.lock:
            if self._stopped.is_set() or (wanted := links.uplink_mtu(networks.route)) == self._followed:
                return
            by_name = {link.name: link for link in networks.route.links()}
            for network_id in networks.raised():
                network = networks.store.get(network_id)
                if network is None or network.options.get(host.OPTION_MTU):
                    continue
                bridge = by_name.get(networks.link_name(network))
                if bridge is None or bridge.mtu == wanted:
                    continue
                networks.route.set_link(bridge.index, rtnetlink.mtu(wanted))
                for container_id, endpoint in networks.attachments.on(network_id):
                    self._set(container_id, endpoint, wanted)
            self._followed = wanted

    def _set(self, container_id: str, endpoint: Endpoint, mtu: int) -> None:
        """Give both ends of an endpoint an MTU. A container that ends meanwhile has none any more."""
        route = self._engine.networks.route
        own = route.link(endpoint.link)
        if own is None:
            return
        route.set_link(own.index, rtnetlink.mtu(mtu))
        task = self._engine.observe(container_id)
        if task.status is None or not task.lives:
            return
        try:
            netns = os.open(f"/proc/{task.status.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            with namespace.inside(netns, Rtnetlink) as inside:
                link = inside.link(endpoint.interface)
                if link is not None:
                    inside.set_link(link.index, rtnetlink.mtu(mtu))
        finally:
            os.close(netns)
