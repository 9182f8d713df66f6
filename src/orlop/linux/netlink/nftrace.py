"""Which rules of nftables a packet met: the kernel's own account of packets that are marked to be traced.

linux/netfilter/nf_tables.h, NFT_MSG_TRACE. A rule marks a packet (`mark_traced`), and every chain that it passes from
then on is told, whoever wrote it; chains of iptables-nft too, those of iptables-legacy not.
"""

from __future__ import annotations

import struct

from . import wire
from .nftables import expression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ADD_MEMBERSHIP = 1
_GROUP = 9  # NFNLGRP_NFTRACE
_TRACE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_META_NFTRACE = 12
POLICY, RETURN, RULE = 1, 2, 3  # NFT_TRACETYPE_*


def mark_traced(register: int) -> bytes:
    """Return the expression that marks a packet; the register holds one byte, 1."""
    return expression("meta", wire.be32(2, _META_NFTRACE), wire.be32(3, register))


class Step:
    """A rule that matched, or the end of a chain. verdict: ACCEPT, DROP, JUMP ...; handle: the rule's, 0 for none."""

    __slots__ = ("chain", "family", "handle", "kind", "table", "verdict")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        self.family = payload[0] if payload else 0
        found = wire.attributes(payload[4:])
        self.table = wire.string(found.get(1, b""))
        self.chain = wire.string(found.get(2, b""))
        self.handle = int.from_bytes(found.get(3, b""), "big")
        self.kind = int.from_bytes(found.get(4, b""), "big")
        code = wire.attributes(found[5]).get(1, b"") if 5 in found else found.get(16, b"")
        self.verdict = struct.unpack(">l", code)[0] if len(code) == 4 else 0


class Trace(wire.Socket):
    """A socket that is told of traced packets of the network namespace in which it was made."""

    def __init__(self) -> None:
        """Raises OSError."""
        super().__init__(wire.NETFILTER)
        self._socket.setsockopt(wire.SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)

    def __enter__(self) -> Trace:
        return self

    def steps(self) -> Iterator[Step]:
        """Wait until something is told, and yield it. Raises OSError."""
        for found in self._receive(None, "nftables trace", ""):
            if found.kind == _TRACE:
                yield Step(found.payload)
