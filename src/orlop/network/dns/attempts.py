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
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmp"}
_WITH_PORTS = ("tcp", "udp", "sctp")


class _Traveller:
    __slots__ = ("known", "names", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: set[tuple[object, ...]] = set()
        self.names: dict[str, str] = {}  # address -> the name that it was found by last


class Attempts:
    """Of all containers whose ways are watched. Needs `readable` to be called when `fileno` is."""

    def __init__(self, group: int, tell: Callable[[str, Attempt], None]) -> None:
        """group: of nflog, this resolver's own. tell: called with a container's id and what is new. Raises OSError."""
        self._log = Nflog(group, COPIED_BYTES)
        self._tell = tell
        self._travellers: dict[str, _Traveller] = {}
        self._sources: dict[str, str] = {}  # address -> container

    def fileno(self) -> int:
        return self._log.fileno()

    def close(self) -> None:
        self._log.close()

    def watch(self, member_id: str, addresses: Sequence[str], path: str) -> None:
        """Keep what a container tries. path: of its file."""
        self._travellers[member_id] = _Traveller(path)
        self._sources |= dict.fromkeys(addresses, member_id)

    def forget(self, member_id: str) -> None:
        """It has ended: its file stays."""
        self.readable()
        if self._travellers.pop(member_id, None) is not None:
            self._sources = {address: owner for address, owner in self._sources.items() if owner != member_id}

    def answered(self, member_id: str, name: str, addresses: Sequence[str]) -> None:
        """Remember by which name a container found addresses."""
        traveller = self._travellers.get(member_id)
        if traveller is not None and len(traveller.names) < NAMES_MAX:
            traveller.names |= dict.fromkeys(addresses, name)

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
            member_id = self._sources.get(source)
            traveller = self._travellers.get(member_id or "")
            if member_id is None or traveller is None:
                continue
            name = traveller.names.get(address, "")
            self.note(member_id, Attempt(verdict=prefix, name=name, address=address, port=port, protocol=protocol))

    def note(self, member_id: str, attempt: Attempt) -> None:
        """Keep and tell of an attempt that is new."""
        traveller = self._travellers.get(member_id)
        key = (attempt.verdict, attempt.name, attempt.address, attempt.port, attempt.protocol)
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
        found.setdefault((one.verdict, one.name, one.address, one.port, one.protocol), one)
    return list(found.values())
