"""Ports of this machine: which of them a socket has, and whose that is. proc(5): /proc/net/tcp and its neighbours.

What counts is the network namespace of the calling thread (/proc/net is that of the process's first one).
"""

from __future__ import annotations

import errno
import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPV6_V6ONLY,
    SO_RCVBUF,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING = "0A"  # TCP_LISTEN
_FILES = (("tcp", "tcp", 32), ("tcp", "tcp6", 128), ("udp", "udp", 32), ("udp", "udp6", 128))
_ANY = {32: "0" * 8, 128: "0" * 32}
LOCAL_RANGE_DEFAULT = (32768, 60999)


class Bound:
    """A socket that has a port. address: as /proc shows it, is_any: whether it is every address."""

    __slots__ = ("address", "bits", "inode", "is_any", "port", "protocol")

    def __init__(self, protocol: str, bits: int, address: str, port: int, inode: str) -> None:
        self.protocol = protocol
        self.bits = bits
        self.address = address
        self.port = port
        self.inode = inode
        self.is_any = address == _ANY[bits]

    def takes(self, host_ip: str) -> bool:
        """Tell whether who wants this port at host_ip ("" for every address) meets this socket."""
        if host_ip and (":" in host_ip) != (self.bits == 128):
            return self.is_any and self.bits == 128  # what listens at [::] has IPv4's port too, unless it said no
        return self.is_any or host_ip in ("", "0.0.0.0", "::") or self.address == _as_proc(host_ip)


def bound() -> dict[tuple[str, int], list[Bound]]:
    """Return every socket that listens (tcp) or has a port (udp), by protocol and port."""
    found: dict[tuple[str, int], list[Bound]] = {}
    for protocol, name, bits in _FILES:
        for one in _read(protocol, f"/proc/thread-self/net/{name}", bits):
            found.setdefault((one.protocol, one.port), []).append(one)
    return found


def reserve(host_ip: str, port: int, protocol: str) -> list[socket]:
    """Return sockets that have a port and do nothing with it: another program that wants it is told EADDRINUSE.

    None of them listens or is ever given a packet: the firewall's gate takes what comes to the port. host_ip "" is
    every address. Raises OSError: EADDRINUSE, EADDRNOTAVAIL for an address that is none of this machine's.
    """
    made: list[socket] = []
    families = (AF_INET, AF_INET6) if not host_ip else (AF_INET6,) if ":" in host_ip else (AF_INET,)
    kinds = {"tcp": (SOCK_STREAM, IPPROTO_TCP), "udp": (SOCK_DGRAM, IPPROTO_UDP), "sctp": (SOCK_STREAM, IPPROTO_SCTP)}
    kind, number = kinds[protocol]
    try:
        for family in families:
            try:
                one = socket(family, kind | SOCK_CLOEXEC, number)
            except OSError as failure:
                if failure.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                    continue  # then nobody has such a port
                raise
            made.append(one)
            _bind(one, family, host_ip, port, optional=not host_ip and family == AF_INET6)
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def _bind(one: socket, family: int, host_ip: str, port: int, optional: bool) -> None:
    if family == AF_INET6:
        one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    one.setsockopt(SOL_SOCKET, SO_RCVBUF, 0)  # the least that there is: what is multicast may come
    where = (host_ip or ("::" if family == AF_INET6 else "0.0.0.0"), port)
    try:
        try:
            one.bind(where)
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE or one.proto != IPPROTO_TCP:
                raise
            # Connections that have just ended keep the port for a minute (TIME_WAIT), and are in nobody's way.
            one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            one.bind(where)
    except OSError as failure:
        if not optional or failure.errno != errno.EADDRNOTAVAIL:
            raise  # without IPv6 there is no address of it


def holder(inode: str) -> str:
    """Return whose socket this is: "nginx (process 123)", "" when nobody is found."""
    wanted = f"socket:[{inode}]"
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == wanted:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        return f"{file.read().strip()} (process {pid})"
        except OSError:
            continue
    return ""


def local_range() -> tuple[int, int]:
    """Return the ports that the kernel itself chooses from."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = file.read().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return LOCAL_RANGE_DEFAULT


def _read(protocol: str, path: str, bits: int) -> Iterator[Bound]:
    try:
        with open(path, encoding="ascii") as file:
            lines = file.readlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) < 10 or (protocol == "tcp" and fields[3] != _LISTENING):
            continue
        address, _, port = fields[1].partition(":")
        yield Bound(protocol, bits, address, int(port, 16), fields[9])


def _as_proc(address: str) -> str:
    """Return an address as /proc/net shows it: words of 32 bits in the machine's byte order."""
    from . import subnet

    value, bits = subnet.number(address)
    data = value.to_bytes(bits // 8, "big")
    words = (data[at : at + 4] for at in range(0, len(data), 4))
    return "".join(f"{int.from_bytes(word, 'little'):08X}" for word in words)
