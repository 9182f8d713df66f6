"""The engine's half of the resolver: starts it, tells it who runs, and starts it again when it was killed."""

from __future__ import annotations

import os
import select
import sys
from _socket import (
    AF_INET,
    AF_UNIX,
    SHUT_RDWR,
    SO_SNDBUF,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from _thread import allocate_lock, start_new_thread

from ...linux.netlink import namespace
from ...linux.netlink import nftables as nft
from ...spec import jsonio
from ...spec.errors import OrlopError, Unavailable
from .. import sweeper
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .zone import Member

    End = tuple[str, tuple[str, ...]]

ADDRESS = "127.0.0.11"
SOCKET_FILE = "dns.sock"
ANSWER_S_MAX = 30.0
_PORT = 53
_FD = 3
_BACKLOG = 16
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[2]); from orlop.network.dns import server; server.main(int(sys.argv[1]))"
)
TABLE = "orlop-dns"


def open_all(restricted: bool) -> list[socket]:
    """Return the sockets of `open_sockets`, and for a container with --egress deny those of `passage.open_sockets`.

    Raises OSError.
    """
    opened = list(open_sockets())
    if restricted:
        from . import passage

        try:
            opened += passage.open_sockets()
        except OSError:
            for one in opened:
                one.close()
            raise
    return opened


def open_sockets() -> tuple[socket, socket]:
    """Return the sockets that answer at 127.0.0.11:53 in the calling thread's network namespace: UDP and TCP.

    They have ports of the kernel's choice, and rules lead to them: a container may be a DNS server itself, and have
    port 53 of every address. Raises OSError.
    """
    datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        datagrams.bind((ADDRESS, 0))
        listener.bind((ADDRESS, 0))
        listener.listen(_BACKLOG)
        ports = datagrams.getsockname()[1], listener.getsockname()[1]
        with nft.Nftables() as netfilter:
            netfilter.commit(_rules(*ports, replaces=netfilter.has_table(nft.IPV4, TABLE)))
    except OSError:
        datagrams.close()
        listener.close()
        raise
    return datagrams, listener


def _rules(udp: int, tcp: int, replaces: bool) -> nft.Batch:
    batch = nft.Batch()
    if replaces:
        batch.delete_table(nft.IPV4, TABLE)
    batch.add_table(nft.IPV4, TABLE)
    batch.add_chain(nft.IPV4, TABLE, "output", nft.Hook("nat", nft.OUTPUT, -100))
    address = bytes(map(int, ADDRESS.split(".")))
    for protocol, port in ((17, udp), (6, tcp)):
        rule = [
            nft.payload(nft.NETWORK_HEADER, 16, 4, 8),
            nft.compare(8, address),
            nft.meta(nft.L4PROTO, 8),
            nft.compare(8, bytes([protocol])),
            nft.payload(nft.TRANSPORT_HEADER, 2, 2, 8),
            nft.compare(8, _PORT.to_bytes(2, "big")),
            nft.immediate(8, address),
            nft.immediate(9, port.to_bytes(2, "big")),
            nft.nat(nft.DNAT, nft.IPV4, 8, 9),
        ]
        batch.add_rule(nft.IPV4, TABLE, "output", rule)
    return batch


class Resolver:
    """A connection to the resolver of this engine's networks."""

    def __init__(self, run: str, lost: Callable[[], None], heard: Callable[[str, object], None]) -> None:
        """run: $ORLOP_RUN. lost: called, with no lock held, when the resolver that knew everybody is gone.

        heard: called, on a thread of its own, with a container's id and what it has tried (JSON of an Attempt).
        """
        self._heard = heard
        self._listens = False
        self._run = run
        self._path = f"{run}/{SOCKET_FILE}"
        self._lost = lost
        self._lock = allocate_lock()
        self._socket: socket | None = None
        self._pid = 0
        self._closed = False

    def add(self, member: Member, fds: Sequence[int] = ()) -> None:
        """Tell who runs, in the place of what was told before. fds: of the monitor, a pidfd, and of `open_all`.

        Raises Unavailable.
        """
        self._ask({"verb": "add", "member": member.to_json()}, fds)

    def restrict(
        self, member_id: str, table: str, ends: Sequence[End], allowed: Sequence[str] | None, file: str
    ) -> str:
        """Close everything to a container but what is allowed (see `egress.Allowed`); None closes nothing, and learns.

        In the calling thread's network namespace, where the bridges are. ends: its links there, each with the addresses
        that it has. file: where what it tries is kept.
        Returns why nobody hears of what it tries, "" if somebody does. Raises Unavailable.
        """
        order: dict[str, object] = {"verb": "restrict", "id": member_id, "table": table, "file": file}
        order |= {"ends": list(ends), "allowed": None if allowed is None else list(allowed)}
        bridges = namespace.current()
        try:
            answer = self._ask(order, [bridges])
        finally:
            os.close(bridges)
        self.listen()
        return str(answer.get("unheard", ""))

    def listen(self) -> None:
        """Hear of attempts from now on, as long as this resolver lives."""
        with self._lock:
            if self._listens or self._closed:
                return
            connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
            try:
                connection.connect(self._path)
                wire.send(connection, jsonio.dump({"verb": "listen"}))
            except OSError:
                connection.close()
                return  # the files have it
            self._listens = True
        start_new_thread(self._hear, (connection,))

    def _hear(self, connection: socket) -> None:
        try:
            while data := wire.receive(connection)[0]:
                found = jsonio.parse_object(data, "what the resolver tells", bytes_max=wire.MESSAGE_BYTES_MAX)
                if "attempt" in found:
                    self._heard(str(found.get("id")), found["attempt"])
        except (OSError, OrlopError):
            pass
        finally:
            self._listens = False
            connection.close()

    def remove(self, member_id: str) -> None:
        """Tell that a container has ended; a resolver that is not there need not know."""
        if self._socket is not None:
            self._ask({"verb": "remove", "id": member_id})

    def settle(self, addresses: Sequence[str]) -> None:
        """Tell of every address that is restricted for somebody who runs: others are not. Raises Unavailable."""
        self._ask({"verb": "settle", "addresses": list(addresses)})

    def known(self) -> list[str]:
        """Return the ids of those that the resolver answers."""
        found = self._ask({"verb": "list"}).get("ids")
        return [str(one) for one in found] if isinstance(found, list) else []

    def trace(self, member_id: str, name: str, kind: str) -> dict[str, object]:
        """Have a name resolved for a container; return {"steps": [...], "code": the answer's}."""
        return self._ask({"verb": "trace", "id": member_id, "name": name, "kind": kind})

    def close(self) -> None:
        """Let go of it. It stays as long as it has somebody to answer."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                self._bequeath([])
            self._disconnect()

    def _ask(self, order: dict[str, object], fds: Sequence[int] = ()) -> dict[str, object]:
        data = jsonio.dump(order)
        for _ in range(3):
            with self._lock:
                fresh = self._connect()
                assert self._socket is not None
                try:
                    if not fresh:
                        return self._exchange(data, fds)
                except OSError:
                    self._disconnect()
                    continue
            if fresh:
                self._lost()
        raise Unavailable("tell", "the resolver", "it does not stay alive", hint="see the engine's log")

    def _exchange(self, data: bytes, fds: Sequence[int] = ()) -> dict[str, object]:
        assert self._socket is not None
        wire.send(self._socket, data, fds)
        answer, _ = wire.receive(self._socket)
        if not answer:
            raise ConnectionResetError
        found = jsonio.parse_object(answer, "the resolver's answer", bytes_max=wire.MESSAGE_BYTES_MAX)
        if found.get("error"):
            raise Unavailable("tell", "the resolver", str(found["error"]))
        return found

    def _connect(self) -> bool:
        """Be connected. Tell whether the resolver was started just now, and knows nobody."""
        if self._socket is not None:
            return False
        if self._closed:
            raise Unavailable("tell", "the resolver", "the engine is leaving")
        connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        connection.setsockopt(SOL_SOCKET, SO_SNDBUF, 2 * wire.MESSAGE_BYTES_MAX)
        connection.settimeout(ANSWER_S_MAX)
        started = False
        try:
            connection.connect(self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            try:
                self._spawn()
                started = True
                connection.connect(self._path)
            except OSError as failure:
                connection.close()
                raise Unavailable("start", "the resolver", failure.strerror or str(failure)) from None
        self._socket = connection
        if not namespace.has_left():  # an ordinary user's rules lie where nobody flushes them
            self._bequeath(sweeper.command(self._run))
        start_new_thread(self._watch, (connection, os.dup(connection.fileno())))
        return started

    def _bequeath(self, argv: list[str]) -> None:
        """Have a command started if this engine goes without a word."""
        try:
            self._exchange(jsonio.dump({"verb": "bequeath", "argv": argv}))
        except (OSError, OrlopError):
            pass  # one of an earlier version does not know how; one that is gone is seen by the next order

    def _watch(self, connection: socket, watched: int) -> None:
        """See the resolver go, and start it again: names are wanted also while nobody asks the engine for anything."""
        poll = select.poll()
        poll.register(watched, select.POLLRDHUP)
        poll.poll()
        os.close(watched)
        with self._lock:
            if self._socket is not connection:
                return
            self._disconnect()
        try:
            self.known()
        except OrlopError:
            pass  # the next container's start tells why

    def _spawn(self) -> None:
        self._reap()
        listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        try:
            listener.bind(self._path)
            listener.listen(_BACKLOG)
            cache = ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()
            argv = [sys.executable, "-I", "-S", "-X", "utf8", *cache, "-c", _BOOTSTRAP, str(_FD), _PACKAGE_PARENT]
            actions = [
                (os.POSIX_SPAWN_DUP2, listener.fileno(), _FD),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
            ]

            def spawn() -> int:
                return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)

            self._pid = namespace.outside(spawn)  # where the machine's own servers are reached
        finally:
            listener.close()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.shutdown(SHUT_RDWR)  # which wakes its watcher
            self._socket.close()
            self._socket = None
        self._reap()

    def _reap(self) -> None:
        if self._pid:
            try:
                os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                pass
