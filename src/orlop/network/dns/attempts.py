"""What restricted and learning containers have tried to reach: told once, kept in a file, by name where one is known.

    rules of the egress table --nflog--> this process --> $ORLOP_ROOT/containers/<id>/egress, a line of JSON each
                                                      `--> the engine, when one listens: an event

Invariants:
1. One line for each (verdict, address, port, protocol) or name of a container, however often it tries.
2. Bounded: so many lines for a container, so many names remembered for it. What is beyond is not kept, and never waits.
3. The file's one writer is this process; an engine reads it, also after the container has ended.
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, inet_ntop

from ...linux.netlink.nflog import Nflog
from ...spec import jsonio
from ...spec.errors import OrlopError
from ...spec.network import Attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FILE = "egress"
LEARNED, DENIED = "learned", "denied"
LINES_MAX = 4096
NAMES_MAX = 4096
COPIED_BYTES = 128
NAMES_OF_ONE_MAX = 8  # of one address
FILE_BYTES_MAX = 4 << 20
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmp"}
_WITH_PORTS = ("tcp", "udp", "sctp")


class _Traveller:
    __slots__ = ("known", "names", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: set[tuple[object, ...]] = set()
        self.names: dict[str, tuple[str, ...]] = {}  # address -> the names that it was found by, the last one first
        try:
            with open(path, "rb", buffering=0) as file:  # of an earlier start, or resolver
                self.known = {_key(one) for one in read(file.read(FILE_BYTES_MAX))}
        except OSError:
            pass  # there is none yet


class Attempts:
    """Of all containers whose ways are watched. Needs `readable` to be called when `fileno` is."""

    def __init__(self, group: int, tell: Callable[[str, Attempt], None]) -> None:
        """group: of nflog, this resolver's own. tell: called with a container's id and what is new. Raises OSError."""
        self._log = Nflog(group, COPIED_BYTES)
        self._tell = tell
        self._travellers: dict[str, _Traveller] = {}
        self._sources: dict[str, str] = {}  # address -> container
        self._links: dict[str, str] = {}  # a link on the machine's side -> container

    def fileno(self) -> int:
        return self._log.fileno()

    def close(self) -> None:
        self._log.close()

    def watch(self, member_id: str, ends: Sequence[tuple[str, tuple[str, ...]]], path: str) -> None:
        """Keep what a container tries. ends: its links and their addresses. path: of its file."""
        self._leave(member_id)
        if member_id not in self._travellers:
            self._travellers[member_id] = _Traveller(path)
        for link, addresses in ends:
            self._sources |= dict.fromkeys(addresses, member_id)
            self._links |= {link: member_id} if link else {}

    def forget(self, member_id: str) -> None:
        """It has ended: its file stays."""
        self.readable()
        if self._travellers.pop(member_id, None) is not None:
            self._leave(member_id)

    def _leave(self, member_id: str) -> None:
        self._sources = {address: owner for address, owner in self._sources.items() if owner != member_id}
        self._links = {link: owner for link, owner in self._links.items() if owner != member_id}

    def answered(self, member_id: str, name: str, addresses: Sequence[str], *, learns: bool) -> None:
        """Remember by which name a container found addresses. learns: asking for it is an attempt, too."""
        traveller = self._travellers.get(member_id)
        if traveller is None:
            return
        for address in addresses:
            before = traveller.names.get(address, ())
            if before or len(traveller.names) < NAMES_MAX:
                traveller.names[address] = tuple(dict.fromkeys((name, *before)))[:NAMES_OF_ONE_MAX]
        if learns:
            self.note(member_id, Attempt(verdict=LEARNED, name=name))

    def refused(self, member_id: str, name: str) -> None:
        """A name was asked for that is not allowed."""
        self.note(member_id, Attempt(verdict=DENIED, name=name))

    def readable(self) -> None:
        """Take what the rules have told of."""
        for prefix, packet in self._log.packets():
            try:
                source, address, protocol, port = parse(packet)
            except (ValueError, IndexError):
                continue
            verdict, _, link = prefix.partition("@")
            member_id = self._links.get(link) if link else self._sources.get(source)
            traveller = self._travellers.get(member_id or "")
            if member_id is None or traveller is None:
                continue
            names = traveller.names.get(address, ("",))
            # By which of them it was meant nobody can tell: what was learned by one may be wanted by another.
            for name in names if verdict == LEARNED else names[:1]:
                one = Attempt(verdict=verdict, name=name, address=address, port=port, protocol=protocol)
                self.note(member_id, one)

    def note(self, member_id: str, attempt: Attempt) -> None:
        """Keep and tell of an attempt that is new."""
        traveller = self._travellers.get(member_id)
        key = _key(attempt)
        if traveller is None or key in traveller.known or len(traveller.known) >= LINES_MAX:
            return
        traveller.known.add(key)
        try:
            fd = os.open(traveller.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, jsonio.dump(attempt.to_json()) + b"\n")
            finally:
                os.close(fd)
        except OSError:
            pass  # removed meanwhile, or a full disk: the event is told nevertheless
        self._tell(member_id, attempt)


def parse(packet: bytes) -> tuple[str, str, str, int]:
    """Return (source, destination, protocol, port) of a packet; port 0 where there is none. Raises ValueError."""
    version = packet[0] >> 4
    if version == 4 and len(packet) >= 20:
        start = (packet[0] & 15) * 4
        source, destination = inet_ntop(AF_INET, packet[12:16]), inet_ntop(AF_INET, packet[16:20])
        number = packet[9]
    elif version == 6 and len(packet) >= 40:
        start = 40
        source, destination = inet_ntop(AF_INET6, packet[8:24]), inet_ntop(AF_INET6, packet[24:40])
        number = packet[6]
    else:
        raise ValueError("no packet of IP")
    protocol = _PROTOCOLS.get(number, str(number))
    ports = packet[start + 2 : start + 4]
    return source, destination, protocol, int.from_bytes(ports, "big") if protocol in _WITH_PORTS else 0


def read(data: bytes) -> list[Attempt]:
    """Return what a file says, each once; lines that are none are passed over."""
    found: dict[tuple[object, ...], Attempt] = {}
    for line in data.splitlines()[: 2 * LINES_MAX]:
        try:
            one = Attempt.from_json(jsonio.parse(line, FILE), FILE)
        except OrlopError:
            continue
        found.setdefault(_key(one), one)
    return list(found.values())


def _key(one: Attempt) -> tuple[object, ...]:
    return one.verdict, one.name, one.address, one.port, one.protocol
