"""The connection tracker, through nfnetlink: forget what leads to an address. linux/netfilter/nfnetlink_conntrack.h."""

from __future__ import annotations

import errno
import struct

from . import wire
from .rtnetlink import family_of, packed
from .wire import nested

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP = 1
_SOURCES = (1, 3)  # CTA_IP_V4_SRC, CTA_IP_V6_SRC


class Conntrack(wire.Socket):
    """A socket that speaks ctnetlink."""

    def __init__(self) -> None:
        super().__init__(wire.NETFILTER)

    def __enter__(self) -> Conntrack:
        return self

    def forget(self, address: str) -> int:
        """Remove every connection that somebody has to this address, translated or not; return how many there were.

        A UDP client that goes on sending would otherwise be led to an address that nobody has any more, for as long as
        it sends (moby#8795).
        """
        wanted = packed(address)
        header = struct.pack("=BBH", family_of(address), 0, 0)
        count = 0
        for found in self.dump(_SUBSYSTEM | _GET, header, "ctnetlink dump", address):
            facts = wire.attributes(found.payload[4:])
            answering = wire.attributes(wire.attributes(facts.get(_TUPLE_REPLY, b"")).get(_TUPLE_IP, b""))
            if _TUPLE_ORIG not in facts or not any(answering.get(kind) == wanted for kind in _SOURCES):
                continue
            body = header + nested(_TUPLE_ORIG, facts[_TUPLE_ORIG])
            try:
                self.request(_SUBSYSTEM | _DELETE, 0, body, "ctnetlink delete", address)
                count += 1
            except OSError as failure:
                if failure.errno != errno.ENOENT:  # it ended by itself
                    raise
        return count
