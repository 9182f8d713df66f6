"""Packets that a rule tells of (`nftables.log`), through nfnetlink_log. linux/netfilter/nfnetlink_log.h."""

from __future__ import annotations

import struct

from . import wire
from .wire import attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1  # NFNL_SUBSYS_ULOG
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
RECEIVED_MAX = 64  # in one turn


class Nflog(wire.Socket):
    """A socket that gets the first bytes of the packets of one group, in the network namespace in which it was made."""

    def __init__(self, group: int, copied_bytes: int) -> None:
        """Raises OSError: EPERM when somebody else has the group, EINVAL without nfnetlink_log."""
        super().__init__(wire.NETFILTER)
        header = struct.pack(">BBH", 0, 0, group)
        try:
            self.request(_CONFIG, 0, header + attribute(1, bytes([_BIND])), "nflog bind", f"group {group}")
            mode = attribute(2, struct.pack(">LBB", copied_bytes, _COPY_PACKET, 0))
            # Told at once: by itself the kernel gathers packets for a second.
            self.request(_CONFIG, 0, header + mode + wire.be32(5, 1), "nflog mode", f"group {group}")
        except OSError:
            self.close()
            raise

    def packets(self) -> Iterator[tuple[str, bytes]]:
        """Yield (the rule's prefix, the packet from its network header on) of what is there now. Lost ones are lost."""
        for _ in range(RECEIVED_MAX):
            try:
                found = list(self._receive(None, "nflog", "", wire.DONTWAIT))
            except OSError:
                return  # nothing more, or more than there was room for
            for one in found:
                if one.kind == _PACKET:
                    facts = wire.attributes(one.payload[4:])
                    yield wire.string(facts.get(_PREFIX, b"")), facts.get(_PAYLOAD, b"")
