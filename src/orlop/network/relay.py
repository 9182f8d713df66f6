"""The relay: carries what comes to published ports of the machine into a network namespace that has no way in.

An ordinary user's containers lie behind a namespace of the user's own, which the machine's packets do not reach. The
relay listens with sockets of the machine's namespace and connects from its own, the containers': one process for each
container that publishes ports. A user's containers see the client's address (`transparent`); where that can't be they
see the bridge's, and never their own loopback (CVE-2021-20199). In root's engine both are one namespace, and only what
no rule can lead comes this way. A relay that leads to places of the machine's namespace, too, begins in there, and one
thread of it stays.

Invariant: it ends with the container's link, whoever else has died by then.
"""

from __future__ import annotations

import functools
import os
import select
import socket
import sys
import time

from ..linux import process
from ..linux.netlink import changes, namespace
from ..linux.netlink.rtnetlink import Rtnetlink
from ..spec import jsonio
from ..spec.network import INWARD, RelayOrders, RelayPort
from . import subnet, transparent
from .streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .firewall import Forward
    from .subnet import Subnet

    Client = tuple[object, ...]
    Opened = tuple[socket.socket, Forward, int]

DATAGRAM_BYTES_MAX = 65536
STREAMS_MAX = 4096
FLOWS_MAX = 1024
FLOW_S_MAX = 60.0  # without a datagram in either direction
LOOK_S_MAX = 30.0
REST_S = 0.1  # of listeners, when no client can be taken
_BACKLOG = 1024
_FIRST_FD = 4
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from orlop.network import relay; relay.main(*sys.argv[2:])"


def start(link: str, ports: Sequence[Opened], *, keeps_clients: bool) -> int:
    """Start a relay in the calling thread's namespace and return its pid, the caller's to reap.

    ports: (bound socket, what it is for, the port that it leads to); streams listen already. keeps_clients: as in the
    orders. Raises OSError.
    """
    begins_outside = any(forward.mode == INWARD for _, forward, _ in ports)
    orders = RelayOrders(
        link=link,
        keeps_clients=keeps_clients,
        netns=_FIRST_FD + len(ports) if begins_outside else -1,
        ports=tuple(
            RelayPort(
                fd=_FIRST_FD + number,
                protocol=forward.protocol,
                address=forward.address,
                port=port,
                sources=forward.sources,
                outward=forward.mode == INWARD,
            )
            for number, (_, forward, port) in enumerate(ports)
        ),
    )
    netns = namespace.current()
    try:
        fds = [*(one.fileno() for one, *_ in ports), *([netns] if begins_outside else [])]
        spawn = functools.partial(_spawn, jsonio.dump(orders.to_json()).decode(), fds)
        return namespace.outside(spawn) if begins_outside else spawn()
    finally:
        os.close(netns)


def _spawn(orders: str, fds: Sequence[int]) -> int:
    # Two steps, for a descriptor may be where another one is to go.
    high = max([_FIRST_FD + len(fds), *fds]) + 1
    moves = [(os.POSIX_SPAWN_DUP2, fd, high + number) for number, fd in enumerate(fds)]
    moves += [(os.POSIX_SPAWN_DUP2, high + number, _FIRST_FD + number) for number in range(len(fds))]
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    cache = ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()
    argv = [sys.executable, "-I", "-S", "-X", "utf8", *cache, "-c", _BOOTSTRAP, _PACKAGE_PARENT]
    argv.append(orders)
    return os.posix_spawn(sys.executable, argv, os.environ, file_actions=[*streams, *moves], setsid=True)


def listen(address: str, port: int, protocol: str) -> socket.socket:
    """Return a socket bound to a port of the calling thread's namespace. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    one = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        if kind == socket.SOCK_STREAM:
            one.listen(_BACKLOG)
    except BaseException:
        one.close()
        raise
    return one


def main(text: str) -> None:
    """Be the relay."""
    orders = RelayOrders.from_json(jsonio.parse(text.encode(), "the orders"), "the orders")
    process.close_all_except({port.fd for port in orders.ports} | {orders.netns})
    process.set_title("orlop: ports")
    process.set_name("orlop")
    os.chdir("/")
    if orders.netns >= 0:
        namespace.leave(orders.netns)
        os.close(orders.netns)
    carry(orders)


class Faces:
    """Whom a relay can speak as to containers: families, and subnets that are the containers' own."""

    def __init__(self, keeps_clients: bool) -> None:
        self._families = transparent.prepare() if keeps_clients else []
        self._taken: list[Subnet] = []

    def look(self, route: Rtnetlink) -> None:
        """See which networks of containers there are now."""
        self._taken = transparent.of_containers(route) if self._families else []

    def socket_for(self, client: Client, port: RelayPort, kind: int) -> socket.socket:
        """Return what connects to where a port leads for a client: with the client's address where that can be.

        Raises OSError.
        """
        family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
        if port.outward:
            return namespace.outside(lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK))
        who = str(client[0])
        if family in self._families and transparent.can_be(who, family, self._taken):
            try:
                return transparent.bound_as(who, family, kind)
            except OSError:
                pass
        return socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


def _admit(streams: Streams, faces: Faces, public: socket.socket, port: RelayPort, sources: Sequence[Subnet]) -> bool:
    """Take one client, and connect it. Return whether there was one to take: not when descriptors are exhausted."""
    try:
        sock, who = public.accept()
    except OSError:
        return False
    if streams.count >= STREAMS_MAX or not _may_come(who, sources):
        sock.close()
        return True
    try:
        inner = faces.socket_for(who, port, socket.SOCK_STREAM)
    except OSError:  # we are out of descriptors: others are carried on
        sock.close()
        return True
    streams.join(sock, inner, (port.address, port.port))
    return True


class Doors:
    """The sockets where clients come. Needs `open` to be called before each wait.

    A listener from whom nobody can be taken is not looked at for REST_S: epoll would tell of it without end.
    """

    def __init__(self, epoll: select.epoll, ports: Mapping[int, RelayPort]) -> None:
        self._epoll = epoll
        self._all = {
            fd: (port, socket.socket(fileno=fd), [subnet.parse_source(text) for text in port.sources])
            for fd, port in ports.items()
        }
        self._resting: dict[int, float] = {}  # until when
        for _, public, _ in self._all.values():
            public.setblocking(False)
            epoll.register(public, select.EPOLLIN)

    def __contains__(self, fd: int) -> bool:
        return fd in self._all

    def open(self, left: float) -> float:
        """Look again at those that have rested. Return how long one may wait, at most `left` seconds."""
        now = time.monotonic()
        for fd, until in list(self._resting.items()):
            if until <= now:
                del self._resting[fd]
                self._epoll.modify(fd, select.EPOLLIN)
        return min([left, *(until - now for until in self._resting.values())])

    def take(self, fd: int, streams: Streams, datagrams: Datagrams, faces: Faces) -> None:
        """Take whoever has come."""
        port, public, sources = self._all[fd]
        if port.protocol == "udp":
            datagrams.receive(public, port, sources)
        elif not _admit(streams, faces, public, port, sources):
            self._epoll.modify(fd, 0)
            self._resting[fd] = time.monotonic() + REST_S


class _Flow:
    """The datagrams of one client."""

    __slots__ = ("client", "inner", "public", "used_at")

    def __init__(self, inner: socket.socket, public: socket.socket, client: Client) -> None:
        self.inner = inner
        self.public = public
        self.client = client
        self.used_at = time.monotonic()


class Datagrams:
    """The UDP flows of a relay: a client that was heard of within FLOW_S_MAX gets its answers."""

    def __init__(self, epoll: select.epoll, faces: Faces) -> None:
        self._epoll = epoll
        self._faces = faces
        self._by_client: dict[tuple[int, Client], _Flow] = {}
        self._by_fd: dict[int, _Flow] = {}

    def receive(self, public: socket.socket, port: RelayPort, sources: Sequence[Subnet]) -> None:
        """Take one datagram of a client, and send it on."""
        try:
            data, client = public.recvfrom(DATAGRAM_BYTES_MAX)
            if not _may_come(client, sources):
                return
            flow = self._by_client.get((public.fileno(), client)) or self._open(public, client, port)
            if flow is not None:
                flow.used_at = time.monotonic()
                flow.inner.send(data)
        except OSError:
            pass  # lost, as datagrams may be

    def answer(self, fd: int) -> None:
        """Take one datagram for a client. fd: of a flow."""
        flow = self._by_fd.get(fd)
        if flow is None:
            return
        try:
            data = flow.inner.recv(DATAGRAM_BYTES_MAX)
            flow.used_at = time.monotonic()
            flow.public.sendto(data, flow.client)
        except OSError:
            pass  # a refusal of the container's; the client hears nothing, as behind any relay

    def expire(self, now: float) -> None:
        """Forget who has been silent for too long."""
        for key, flow in list(self._by_client.items()):
            if now - flow.used_at > FLOW_S_MAX:
                del self._by_client[key]
                del self._by_fd[flow.inner.fileno()]
                flow.inner.close()

    def _open(self, public: socket.socket, client: Client, port: RelayPort) -> _Flow | None:
        if len(self._by_fd) >= FLOWS_MAX:
            return None
        inner = self._faces.socket_for(client, port, socket.SOCK_DGRAM)
        try:
            inner.connect((port.address, port.port))
        except OSError:
            inner.close()
            raise
        flow = _Flow(inner, public, client)
        self._by_client[public.fileno(), client] = self._by_fd[inner.fileno()] = flow
        self._epoll.register(inner, select.EPOLLIN)
        return flow


def _may_come(client: Client, sources: Sequence[Subnet]) -> bool:
    """Tell whether a client is of one of these subnets, or of this machine; of none, everybody may come."""
    address = str(client[0]).partition("%")[0]
    return (
        not sources or address == "::1" or address.startswith("127.") or any(one.contains(address) for one in sources)
    )


def carry(orders: RelayOrders) -> None:
    """Carry until the container's link is gone."""
    epoll = select.epoll()
    faces = Faces(orders.keeps_clients)
    streams, datagrams = Streams(epoll), Datagrams(epoll, faces)
    doors = Doors(epoll, {port.fd: port for port in orders.ports})
    with changes.Changes(changes.LINKS) as told, Rtnetlink() as route:
        epoll.register(told, select.EPOLLIN)
        while route.link(orders.link) is not None:
            datagrams.expire(time.monotonic())
            faces.look(route)
            _serve(epoll, told, doors, (streams, datagrams, faces))


def _serve(
    epoll: select.epoll,
    told: changes.Changes,
    doors: Doors,
    carriers: tuple[Streams, Datagrams, Faces],
) -> None:
    """Carry until a link has changed, or LOOK_S_MAX has passed."""
    streams, datagrams, faces = carriers
    until = time.monotonic() + LOOK_S_MAX
    while (left := until - time.monotonic()) > 0:
        for fd, events in epoll.poll(doors.open(left)):
            if fd == told.fileno():
                told.drain()
                until = 0.0
            elif fd in doors:
                doors.take(fd, streams, datagrams, faces)
            else:
                streams.handle(fd, events)
                datagrams.answer(fd)
