"""Being told of changes: multicast groups of rtnetlink and nfnetlink. linux/rtnetlink.h, linux/netfilter/nfnetlink.h.

What a message says is not read: whoever is told looks again, so a lost message (ENOBUFS) costs nothing but that look.
"""

from __future__ import annotations

import errno
import select
from _socket import MSG_DONTWAIT

from . import wire

LINKS, IPV4_ADDRESSES, IPV4_ROUTES, IPV6_ADDRESSES, IPV6_ROUTES = 1, 5, 7, 9, 11  # enum rtnetlink_groups
RULES = 7  # NFNLGRP_NFTABLES, of the protocol wire.NETFILTER
_ADD_MEMBERSHIP = 1


class Changes(wire.Socket):
    """A socket that becomes readable when something changes in the network namespace in which it was made."""

    def __init__(self, *groups: int, protocol: int = wire.ROUTE) -> None:
        """groups: of one protocol. Raises OSError."""
        super().__init__(protocol)
        for group in groups:
            self._socket.setsockopt(wire.SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def __enter__(self) -> Changes:
        return self

    def wait(self, seconds: float, *others: int) -> bool:
        """Wait for a change, or until one of the other descriptors is readable; tell whether anything came."""
        poll = select.poll()
        for fd in (self.fileno(), *others):
            poll.register(fd, select.POLLIN)
        came = bool(poll.poll(seconds * 1000))
        self.drain()
        return came

    def drain(self) -> None:
        """Forget what was told so far."""
        while True:
            try:
                self._socket.recv(1, MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise
