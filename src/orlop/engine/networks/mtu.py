"""What others change on the machine, followed while containers run: links, the MTU of the way outside, the rules.

A VPN that comes up makes packets smaller (moby#49398): a thread is told of links and routes by the kernel, and gives
bridges, and both ends of each endpoint on them, the MTU of the way outside; networks with an MTU of the user's are left
alone. Where a table can't have an owner that keeps it (before Linux 6.9), it is told of rules, too, and writes the
table again that somebody has flushed (SEC-94). A link of ours that somebody removed is made again, and whoever was on
it is plugged in. A relay, or what leads a user's networks outside, is started again when it was killed.

It runs from the first container on until the engine leaves. Invariant: a look that fails ends nothing; what it found
is looked at again after the next change, or after TROUBLE_S.
"""

from __future__ import annotations

import os
import threading

from ...linux.netlink import changes, namespace, rtnetlink, wire
from ...linux.netlink.rtnetlink import Rtnetlink
from ...linux.process import has_ended, pidfd_of
from ...network import firewall, links
from ...spec.errors import OrlopError
from . import attach, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.netlink.rtnetlink import Link
    from ...spec.network import Attachment, Endpoint
    from ..engine import Engine

LOOK_S_MAX = 3600.0
TROUBLE_S = 5.0
SETTLE_S = 0.1  # routes and links change in groups


def follow(engine: Engine) -> None:
    """Follow from now on. Called under the networks' lock; once is enough."""
    if engine.networks.follower is None:
        engine.networks.follower = Follower(engine)


class Follower:
    """The thread. wake: it looks at once; close: it ends."""

    def __init__(self, engine: Engine) -> None:
        """Raises OSError."""
        self._engine = engine
        self._changes = changes.Changes(changes.LINKS, changes.IPV4_ROUTES)
        self._rules = changes.Changes(changes.RULES, protocol=wire.NETFILTER)
        self._outside = namespace.outside(_outer_changes) if namespace.has_left() else None
        self._followed = 0  # the MTU that everything was given last; bridges of later are made with the one of then
        self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ends: dict[int, int] = {}  # pidfds, by process, of what is started again at its end
        self._told = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mtu", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        os.eventfd_write(self._woken, 1)

    def close(self) -> None:
        """End the thread. Without the networks' lock: the thread may wait for it."""
        self._stopped.set()
        self.wake()
        self._thread.join()
        for sock in (self._changes, self._rules, self._outside):
            if sock is not None:
                sock.close()
        for fd in (self._woken, *self._ends.values()):
            os.close(fd)

    def _run(self) -> None:
        wait_s = LOOK_S_MAX
        while not self._stopped.is_set():
            try:
                self._wait(wait_s)
                wait_s = LOOK_S_MAX
                if not self._stopped.is_set():
                    self._look()
                    self._told = ""
            except (OSError, OrlopError) as wrong:
                wait_s = TROUBLE_S
                if str(wrong) != self._told:
                    self._told = str(wrong)
                    self._engine.log.write(f"what others change of networks can't be followed now: {wrong}")

    def _wait(self, seconds: float) -> None:
        others = [self._woken, *self._ends.values()]
        others += [self._outside.fileno()] if self._outside is not None else []
        if self._engine.networks.firewall.is_owned:
            self._changes.wait(seconds, *others)
        else:
            self._changes.wait(seconds, *others, self._rules.fileno())
            self._rules.drain()
            self._restore()
        self._stopped.wait(SETTLE_S)
        for sock in (self._changes, self._outside):
            if sock is not None:
                sock.drain()
        try:
            os.eventfd_read(self._woken)
        except BlockingIOError:
            pass

    def _look(self) -> None:
        networks = self._engine.networks
        if networks.attachments.all:
            trouble = networks.uplink()
            if trouble != networks.trouble:
                networks.trouble = trouble
                self._engine.log.write(f"the way outside: {trouble or 'it is there'}")
        with networks.lock:
            if self._stopped.is_set():
                return
            links_ = {link.name: link for link in networks.route.links()}
            if mend(self._engine, links_):
                links_ = {link.name: link for link in networks.route.links()}
            self._adjust(links_)
            self._attend()

    def _attend(self) -> None:
        """Await the ends of what is to be started again."""
        networks = self._engine.networks
        wanted = {held.relay: held.relay_start_time for held in networks.attachments.all.values() if held.relay}
        pid, start_time = networks.uplink_process()
        if pid:
            wanted[pid] = start_time
        for gone in [pid for pid, fd in self._ends.items() if pid not in wanted or has_ended(fd)]:
            os.close(self._ends.pop(gone))
        for pid, start_time in wanted.items():
            if pid not in self._ends:
                try:
                    self._ends[pid] = pidfd_of(pid, start_time)
                except OSError:
                    self.wake()  # it has ended meanwhile

    def _restore(self) -> None:
        networks = self._engine.networks
        with networks.lock:
            if self._stopped.is_set() or not networks.raised():
                return
            if not firewall.is_there(networks.nft, networks.footprint.table):
                networks.rewrite()
                self._engine.log.write("the rules of networks were gone: somebody flushed them; they are written again")

    def _adjust(self, by_name: dict[str, Link]) -> None:
        networks = self._engine.networks
        if (wanted := links.uplink_mtu(networks.route)) == self._followed:
            return
        for network_id in networks.raised():
            network = networks.store.get(network_id)
            if network is None or network.options.get(host.OPTION_MTU):
                continue
            bridge = by_name.get(networks.link_name(network))
            if bridge is None or bridge.mtu == wanted:
                continue
            networks.route.set_link(bridge.index, rtnetlink.mtu(wanted))
            for container_id, endpoint in networks.attachments.on(network_id):
                try:
                    self._set(container_id, endpoint, wanted)
                except OSError as wrong:
                    self._engine.log.write(f"the MTU of {container_id} stays as it is: {wrong}")  # it ends, perhaps
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


def _outer_changes() -> changes.Changes:
    return changes.Changes(changes.LINKS, changes.IPV4_ADDRESSES, changes.IPV4_ROUTES)


def mend(engine: Engine, by_name: dict[str, Link]) -> bool:
    """Make again what somebody took of what running containers need; tell whether anything was missing.

    by_name: the links that there are. Called under the networks' lock. Raises OSError, OrlopError.
    """
    networks = engine.networks
    missing = networks.mend_gate(by_name)
    for network_id in networks.raised():
        network = networks.store.get(network_id)
        members = list(networks.attachments.on(network_id))
        if network is None or not members:
            continue
        bridge = by_name.get(networks.link_name(network))
        if bridge is None or not bridge.is_up:
            engine.log.write(f"the bridge of network {network.name} was gone, or down: it is made again")
            networks.raise_bridge(network)
            missing, bridge = True, networks.route.link(networks.link_name(network))
        for container_id, endpoint in members:
            own = by_name.get(endpoint.link)
            if bridge is None or (own is not None and own.master == bridge.index):
                continue
            missing = _plug_again(engine, container_id, endpoint) or missing
    for container_id, held in list(networks.attachments.all.items()):
        missing = _relay_again(engine, container_id, held) or missing
    return missing


def _plug_again(engine: Engine, container_id: str, endpoint: Endpoint) -> bool:
    task = engine.observe(container_id)
    if container_id in engine.networks.starting or not task.lives or task.status is None:
        return False
    try:
        attach.plug_again(engine, engine.records.load(container_id), task.status.pid, endpoint)
    except (OSError, OrlopError) as wrong:
        engine.log.write(f"container {container_id} lost its link, and does not get it again: {wrong}")
    else:
        engine.log.write(f"container {container_id} lost its link {endpoint.interface}: it is plugged in again")
    return True


def _relay_again(engine: Engine, container_id: str, held: Attachment) -> bool:
    if not held.relay or container_id in engine.networks.starting:
        return False
    try:
        pidfd = pidfd_of(held.relay, held.relay_start_time)
    except OSError:
        pidfd = -1
    try:
        if pidfd >= 0 and not has_ended(pidfd):
            return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    if not engine.observe(container_id).lives:
        return False
    try:
        attach.relay_again(engine, engine.records.load(container_id), held)
    except (OSError, OrlopError) as wrong:
        engine.log.write(f"the ports of container {container_id} have lost their relay, and get no other: {wrong}")
        return False
    engine.log.write(f"the ports of container {container_id} had lost their relay: they have another")
    return True
