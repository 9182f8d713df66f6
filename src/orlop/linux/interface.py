"""Network interfaces through ioctl(2): what needs no netlink. netdevice(7)."""

from __future__ import annotations

import _struct as struct  # the module behind it, which is built in: a file less to import
import fcntl
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket

from . import ffi

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFREQ = "16sh22x"  # struct ifreq: the name, the flags, the rest of the union
_SIOCETHTOOL = 0x8946
_IFREQ_DATA = "16sP16x"
TSO, GRO = 0x1F, 0x2C  # ETHTOOL_STSO, ETHTOOL_SGRO of linux/ethtool.h


def set_up(name: str) -> None:
    """Bring an interface of the own network namespace up. Needs CAP_NET_ADMIN there."""
    sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    try:
        request = struct.pack(_IFREQ, name.encode(), 0)
        _, flags = struct.unpack(_IFREQ, fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request))
        if not flags & _IFF_UP:
            fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, struct.pack(_IFREQ, name.encode(), flags | _IFF_UP))
    finally:
        sock.close()


def set_offload(name: str, offload: int, on: bool) -> None:
    """Switch an offload (TSO, GRO) of an interface of the own network namespace. Needs CAP_NET_ADMIN there."""
    value = ffi.create_string_buffer(struct.pack("=II", offload, on))  # struct ethtool_value
    sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, struct.pack(_IFREQ_DATA, name.encode(), ffi.addressof(value)))
    finally:
        sock.close()
