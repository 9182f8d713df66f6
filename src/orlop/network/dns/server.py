"""The resolver process. One thread, one epoll loop, a heap of timers.

Invariants:
1. A member's sockets belong to its namespace, and are closed when its monitor ends: the namespace can go, also when no
   engine is there to say so.
2. It ends when no engine is connected and nobody is left to answer.
3. Where the engine goes without a word, and a second later none is there, it starts what the engine has left it: a
   sweeper, which keeps the rules (`network.sweeper`). The spawner and its heir do the same, unless killed too.
4. Nobody can make it hold more than a bounded number of questions and connections.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from _socket import (
    AF_UNIX,
    MSG_NOSIGNAL,
    SO_PEERCRED,
    SO_SNDBUF,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)

from ...linux import process
from ...linux.netlink import namespace
from ...spec import jsonio
from ...spec.errors import OrlopError
from .. import resolver
from . import message, wire
from .forward import Forwarder
from .zone import Member, Zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.network import Attempt
    from .egress import Gatekeeper

HOST_FILE = "/etc/resolv.conf"
HOST_FILE_CHECK_S = 1.0
STREAMS_MAX = 64  # of one member
PIPELINED_MAX = 32  # questions of one stream that are under way
STREAM_BURST = 8  # questions of one stream that are answered in one turn
STREAM_OUT_BYTES_MAX = 128 * 1024  # answers that a stream has not taken yet: then it is read no further
REST_S = 0.1  # of a listener from whom nobody can be taken: descriptors are exhausted
STREAM_S_MAX = 10.0  # without a whole question
TRACED_MAX = 64  # addresses that a trace tells
CANCELLED_MAX = 1024  # timers that are still in the heap
INHERIT_S = 1.0  # the others who are left the same need less
FIRST_S_MAX = 30.0
BURST = 64  # datagrams taken in one turn from one member


class Loop:
    """epoll with one callback for each descriptor, and timers."""

    READ, WRITE = select.EPOLLIN, select.EPOLLOUT

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int]] = []
        self._due: dict[int, Callable[[], None]] = {}
        self._number = 0

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def rest(self, fd: int) -> None:
        """Look at a listener again after REST_S: who waits there can't be taken now, and would be told of for ever."""
        callback = self._callbacks[fd]
        self._epoll.modify(fd, 0)

        def again() -> None:
            if self._callbacks.get(fd) is callback:
                self._epoll.modify(fd, self.READ)

        self.after(REST_S, again)

    def after(self, seconds: float, callback: Callable[[], None]) -> int:
        """Call back later; return what `cancel` takes."""
        self._number += 1
        self._due[self._number] = callback
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._number))
        return self._number

    def cancel(self, timer: int) -> None:
        self._due.pop(timer, None)
        if len(self._timers) > 2 * len(self._due) + CANCELLED_MAX:  # or they would stay until they were due
            self._timers = [one for one in self._timers if one[1] in self._due]
            heapq.heapify(self._timers)

    def turn(self) -> None:
        """Wait for something, and do what is due."""
        wait = None
        while self._timers and self._timers[0][1] not in self._due:
            heapq.heappop(self._timers)
        if self._timers:
            wait = max(0.0, self._timers[0][0] - time.monotonic())
        for fd, events in self._epoll.poll(wait):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, number = heapq.heappop(self._timers)
            due = self._due.pop(number, None)
            if due is not None:
                due()


class Served:
    """A member's sockets. streams: how many TCP connections it has open."""

    __slots__ = ("datagrams", "listener", "monitor", "streams")

    def __init__(self, datagrams: socket, listener: socket, monitor: int) -> None:
        self.datagrams = datagrams
        self.listener = listener
        self.monitor = monitor
        self.streams = 0


class Server:
    """All of it."""

    def __init__(self, listener: socket) -> None:
        """listener: where engines come."""
        self.loop = Loop()
        self.zone = Zone()
        self.forwarder = Forwarder(self.loop)
        self._served: dict[str, Served] = {}
        self._engines = 0
        self._listener = listener
        self._host = resolver.parse(b"")
        self._host_version: tuple[int, int] | None = None
        self._host_checked = float("-inf")
        self.loop.watch(listener.fileno(), Loop.READ, self._accept)
        self._came = False
        self._gatekeeper: Gatekeeper | None = None
        self._listening: list[socket] = []  # engines that want to hear of attempts
        self._will: list[str] = []

    def run(self) -> None:
        """Serve until nobody needs it; an engine that was killed before it connected never comes."""
        self.loop.after(FIRST_S_MAX, self._give_up)
        while not self._came or self._engines or self._served:
            self.loop.turn()
        self._inherit()
        if self._gatekeeper is not None:
            self._gatekeeper.close()

    def _give_up(self) -> None:
        self._came = True

    # -- engines ----------------------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            self.loop.rest(self._listener.fileno())
            return
        connection = socket(fileno=fd)
        connection.setblocking(False)
        if int.from_bytes(connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[4:8], "little") not in (0, os.geteuid()):
            connection.close()
            return
        self._engines += 1
        self._came = True
        self.loop.watch(fd, Loop.READ, lambda _: self._order(connection))

    def _order(self, connection: socket) -> None:
        try:
            data, fds = wire.receive(connection)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            if connection in self._listening:
                self._listening.remove(connection)
            self.loop.unwatch(connection.fileno())
            connection.close()
            self._engines -= 1
            if not self._engines and self._will:
                self.loop.after(INHERIT_S, self._inherit)
            return
        try:
            order = jsonio.parse_object(data, "an order", bytes_max=wire.MESSAGE_BYTES_MAX)
            reply = self._obey(order, fds, connection)
        except (OrlopError, OSError, ValueError) as wrong:
            reply = {"error": str(wrong)}
        for fd in fds:
            os.close(fd)
        if reply is not None:
            _answer(connection, reply)

    def _obey(self, order: dict[str, object], fds: list[int], connection: socket) -> dict[str, object] | None:
        """Do it, and return the reply, None for one that comes later. fds: what is left in there is closed."""
        verb = order.get("verb")
        if verb == "add":
            member = Member.from_json(order.get("member"), "a member")
            if len(fds) >= 3:
                self._close(member.id, goes=False)
                monitor, datagrams, listener, *ways = (fds.pop(0) for _ in range(len(fds)))
                self._serve(member.id, Served(socket(fileno=datagrams), socket(fileno=listener), monitor))
                if ways and self._gatekeeper is not None:
                    self._gatekeeper.open_passage(member.id, self.loop, [socket(fileno=fd) for fd in ways])
            elif member.id not in self._served:
                raise ValueError("the sockets of a new member are missing")
            self.zone.add(member)
            return {}
        if verb == "remove":
            self._close(str(order.get("id")))
            return {}
        if verb == "restrict":
            return self._restrict(order, fds)
        if verb == "settle":
            addresses = order.get("addresses")
            if self._gatekeeper is not None and isinstance(addresses, list):
                self._gatekeeper.settle([str(one) for one in addresses])
            return {}
        if verb == "list":
            return {"ids": list(self._served)}
        if verb == "bequeath":
            argv = order.get("argv")
            self._will = [str(word) for word in argv] if isinstance(argv, list) else []
            return {}
        if verb == "listen":
            self._listening.append(connection)
            return {}
        if verb == "trace":
            return self._trace(order, connection)
        raise ValueError(f"there is no order {verb!r}")

    def _inherit(self) -> None:
        if self._engines or not self._will:
            return
        from .. import sweeper

        argv, self._will = self._will, []
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
        try:
            sweeper.launch(argv)
        except OSError:
            pass

    def _trace(self, order: dict[str, object], connection: socket) -> dict[str, object] | None:
        member = self.zone.members.get(str(order.get("id")))
        if member is None:
            raise ValueError("this resolver does not know the container")
        kind = message.AAAA if order.get("kind") == "AAAA" else message.A
        query = message.Query(message.question(str(order.get("name")), kind, 0))

        def done(data: bytes, steps: list[str]) -> None:
            found = [address for address, _ in message.addresses(data)]
            reply = {"steps": steps, "code": message.code_of(data) if data else -1, "addresses": found[:TRACED_MAX]}
            _answer(connection, reply)

        self._resolve(member, query, False, done, is_tried=False)
        return None

    def _restrict(self, order: dict[str, object], fds: list[int]) -> dict[str, object]:
        """Close everything to a container but what is allowed. Before its start: what fails here, fails the start.

        fds: the network namespace of its bridges, which an ordinary user's resolver is not in.
        """
        if self._gatekeeper is None:
            from ...linux.netlink import changes, wire

            keeper = self._make_gatekeeper(str(order.get("table")), fds)
            if keeper.attempts is not None:
                attempts = keeper.attempts
                self.loop.watch(attempts.fileno(), Loop.READ, lambda _: attempts.readable())
            if not keeper.is_owned:
                rules = namespace.inside(fds[0], lambda: changes.Changes(changes.RULES, protocol=wire.NETFILTER))

                def changed(_: int) -> None:
                    rules.drain()
                    keeper.mend()

                self.loop.watch(rules.fileno(), Loop.READ, changed)
            self._gatekeeper = keeper
        from .egress import Allowed

        ends, allowed = order.get("ends"), order.get("allowed")
        if not isinstance(ends, list) or not (allowed is None or isinstance(allowed, list)):
            raise ValueError("ends and allowed are lists")
        entries = None if allowed is None else [Allowed(str(text)) for text in allowed]
        links = [(str(link), tuple(map(str, addresses))) for link, addresses in ends]
        self._gatekeeper.restrict(str(order.get("id")), links, entries, str(order.get("file")))
        return {"unheard": self._gatekeeper.unheard}

    def _make_gatekeeper(self, table: str, fds: list[int]) -> Gatekeeper:
        from ...linux.netlink.rtnetlink import Rtnetlink
        from .egress import Gatekeeper
        from .passage import is_outside

        if not fds:
            raise ValueError("the network namespace of the bridges is missing")
        routes = [Rtnetlink()]  # in the resolver's own, where a passage's connections begin
        if os.fstat(fds[0]).st_ino != os.stat("/proc/self/ns/net").st_ino:
            routes.append(namespace.inside(fds[0], Rtnetlink))  # an ordinary user's bridges are in another one

        def may_lead(address: str) -> bool:
            return all(is_outside(route, address) for route in routes)

        def make() -> Gatekeeper:
            return Gatekeeper(table, self.loop.after, self.loop.cancel, self._tell, may_lead)

        return namespace.inside(fds[0], make)

    def _tell(self, member_id: str, attempt: Attempt) -> None:
        """Tell the engines that listen. One that does not read misses it: the file has it."""
        for connection in self._listening:
            _answer(connection, {"id": member_id, "attempt": attempt.to_json()})

    def _serve(self, member_id: str, served: Served) -> None:
        self._served[member_id] = served
        served.datagrams.setblocking(False)
        served.listener.setblocking(False)
        self.loop.watch(served.datagrams.fileno(), Loop.READ, lambda _: self._datagrams(member_id, served))
        self.loop.watch(served.listener.fileno(), Loop.READ, lambda _: self._stream(member_id, served))
        self.loop.watch(served.monitor, Loop.READ, lambda _: self._close(member_id))

    def _close(self, member_id: str, *, goes: bool = True) -> None:
        self.zone.remove(member_id)
        if goes and self._gatekeeper is not None:
            self._gatekeeper.release(member_id)
            self._gatekeeper.close_passage(member_id)
        served = self._served.pop(member_id, None)
        if served is None:
            return
        for fd in (served.datagrams.fileno(), served.listener.fileno(), served.monitor):
            self.loop.unwatch(fd)
        served.datagrams.close()
        served.listener.close()
        os.close(served.monitor)

    # -- questions --------------------------------------------------------------------------------------------------

    def _datagrams(self, member_id: str, served: Served) -> None:
        for _ in range(BURST):
            try:
                data, sender = served.datagrams.recvfrom(message.UDP_BYTES_MAX)
            except OSError:
                return

            def reply(answer: bytes, query: message.Query | None, sender: tuple[str, int] = sender) -> None:
                if query is not None and len(answer) > query.udp_size:
                    answer = message.truncated(query)
                try:
                    served.datagrams.sendto(answer, sender)
                except OSError:
                    pass  # its buffer is full, or it is gone

            self._question(member_id, data, False, reply)

    def _stream(self, member_id: str, served: Served) -> None:
        try:
            fd, _ = served.listener._accept()  # type: ignore[attr-defined]
        except OSError:
            self.loop.rest(served.listener.fileno())
            return
        connection = socket(fileno=fd)
        connection.setblocking(False)
        if served.streams >= STREAMS_MAX:
            connection.close()
            return
        served.streams += 1
        _Stream(self, member_id, served, connection)

    def _question(
        self, member_id: str, data: bytes, stream: bool, reply: Callable[[bytes, message.Query | None], None]
    ) -> None:
        try:
            query = message.Query(data)
        except ValueError:
            refused = message.refuse(data)
            if refused:
                reply(refused, None)
            return
        member = self.zone.members.get(member_id)
        if member is None or query.edns_version:
            reply(message.answer(query, message.SERVFAIL if member is None else message.BADVERS), query)
            return
        self._resolve(member, query, stream, lambda answer, _: reply(answer, query))

    def _resolve(
        self,
        member: Member,
        query: message.Query,
        stream: bool,
        done: Callable[[bytes, list[str]], None],
        is_tried: bool = True,
    ) -> None:
        """is_tried: by the container itself; else somebody wants to know, and nothing is opened or told by that."""
        found = self.zone.find(member, query.name)
        if found:
            steps = [f"{query.name} is container {who[:12]} in network {place.network_name}" for who, place in found]
            addresses = [message.address(text) for _, place in found for text in place.addresses]
            if is_tried and self._gatekeeper is not None:
                self._gatekeeper.found_here(member.id, query.name, [text for _, one in found for text in one.addresses])
            if query.klass not in message.CLASSES:
                addresses = []
            records = [record for record in addresses if query.kind in (record[0], message.ANY)]
            done(message.answer(query, message.NOERROR, records), steps)
            return
        if query.kind == message.PTR and query.klass in message.CLASSES:
            name = self.zone.name_of(member, message.reverse_address(query.name))
            if name:
                record = (message.PTR, message.encode_name(name))
                done(message.answer(query, message.NOERROR, [record]), [f"{query.name} is {name}"])
                return
        if not member.external:
            done(message.answer(query, message.NXDOMAIN), ["nobody has this name here, and the network is internal"])
            return
        keeper = self._gatekeeper
        if keeper is not None and not keeper.may_ask(member.id, query.name):
            if is_tried:
                keeper.refused(member.id, query.name)
            done(message.answer(query, message.NXDOMAIN), [f"{query.name} is not among what --egress-allow names"])
            return

        def opened(data: bytes, steps: list[str]) -> None:
            if keeper is not None and is_tried and message.has_answers(data):
                keeper.answered(member.id, query.name, message.addresses(data))
            if keeper is not None and not is_tried:
                steps = [*steps, *keeper.closed(member.id, [address for address, _ in message.addresses(data)])]
            done(data, [*told, *steps])

        domain, servers = resolver.for_name(member.servers, query.name)
        told = [f"names of {domain} have servers of their own"] if domain else []
        servers = servers or resolver.for_every_name(member.servers) or self._host_servers()
        self.forwarder.ask(query, servers, stream, opened, asker=member.id)

    def _host_servers(self) -> tuple[str, ...]:
        """Return the machine's servers as they are now: the file may have changed."""
        now = time.monotonic()
        if now - self._host_checked > HOST_FILE_CHECK_S:
            self._host_checked = now
            try:
                found = os.stat(HOST_FILE)
                version = (found.st_ino, found.st_mtime_ns)
                if version != self._host_version:
                    with open(HOST_FILE, "rb", buffering=0) as file:
                        self._host = resolver.parse(file.read(1 << 18))
                    self._host_version = version
            except OSError:
                self._host = resolver.parse(b"")
                self._host_version = None  # the same file may come back
        return self._host.servers


class _Stream:
    """A TCP connection of a member: questions with their length in front, answered as the answers come (RFC 7766).

    Never waited for: who does not take its answers is not read any further, until its time is over.
    """

    def __init__(self, server: Server, member_id: str, served: Served, connection: socket) -> None:
        self._server = server
        self._member_id = member_id
        self._served = served
        self._connection = connection
        self._buffer = b""
        self._out = b""
        self._under_way = 0
        self._has_ended = False  # says no more, and may still listen
        self._watched = 0
        self._is_settling = False
        self._again = 0
        connection.setsockopt(SOL_SOCKET, SO_SNDBUF, STREAM_OUT_BYTES_MAX)  # or it grows to megabytes
        self._asked = time.monotonic()
        self._timer = server.loop.after(STREAM_S_MAX, self._late)
        self._settle()

    def _event(self, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self.close()
            return
        if events & Loop.READ and self._watched & Loop.READ:
            self._read()
        self._settle()

    def _read(self) -> None:
        try:
            data = self._connection.recv(message.TCP_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._buffer += data
        self._has_ended = not data

    def _settle(self) -> None:
        """Take the questions that are there, say what can be said, and wait for what is wanted next."""
        self._is_settling = True
        for _ in range(STREAM_BURST):
            if self._connection.fileno() < 0 or not self._has_question or not self._may_take:
                break
            length = int.from_bytes(self._buffer[:2], "big")
            if not length:
                self.close()
                return
            query, self._buffer = self._buffer[2 : 2 + length], self._buffer[2 + length :]
            self._asked = time.monotonic()
            self._under_way += 1
            self._server._question(self._member_id, query, True, lambda answer, _: self._keep(answer))
        self._is_settling = False
        self._flush()
        if self._connection.fileno() < 0:
            return
        if self._has_ended and not self._under_way and not self._out and not self._has_question:
            self.close()
            return
        wanted = Loop.READ if self._may_take and not self._has_ended and not self._has_question else 0
        wanted |= Loop.WRITE if self._out else 0
        if wanted != self._watched or not self._watched:
            self._server.loop.watch(self._connection.fileno(), wanted, self._event)
            self._watched = wanted
        if self._has_question and self._may_take and not self._again:
            self._again = self._server.loop.after(0, self._go_on)

    def _go_on(self) -> None:
        self._again = 0
        if self._connection.fileno() >= 0:
            self._settle()

    @property
    def _has_question(self) -> bool:
        """Whether a whole one is there, or what is none."""
        length = int.from_bytes(self._buffer[:2], "big")
        return len(self._buffer) >= 2 + length and len(self._buffer) >= 2

    @property
    def _may_take(self) -> bool:
        return self._under_way < PIPELINED_MAX and len(self._out) < STREAM_OUT_BYTES_MAX

    def _keep(self, answer: bytes) -> None:
        self._under_way -= 1
        self._out += len(answer).to_bytes(2, "big") + answer
        if not self._is_settling and self._connection.fileno() >= 0:
            self._settle()

    def _flush(self) -> None:
        try:
            while self._out:
                self._out = self._out[self._connection.send(self._out, MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _late(self) -> None:
        left = self._asked + STREAM_S_MAX - time.monotonic()
        if left > 0:
            self._timer = self._server.loop.after(left, self._late)
        else:
            self.close()

    def close(self) -> None:
        if self._connection.fileno() >= 0:
            self._server.loop.cancel(self._timer)
            self._server.loop.unwatch(self._connection.fileno())
            self._connection.close()
            self._served.streams -= 1


def _answer(connection: socket, reply: dict[str, object]) -> None:
    try:
        connection.send(jsonio.dump(reply))
    except OSError:
        pass


def main(fd: int) -> None:
    """Be the resolver. fd: a socket that listens for engines."""
    process.close_all_except({fd})
    process.set_title("orlop: resolver")
    process.set_name("orlop")
    os.chdir("/")
    Server(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd)).run()
