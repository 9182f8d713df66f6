"""Tables of rules that several calls of a plugin share: the rules never change, containers are elements of sets.

A table is made by the first call, with its rules, and stays; without elements it does nothing.
"""

from __future__ import annotations

import errno

from ...linux.netlink.nftables import Batch, Element, Nftables
from .. import subnet
from ..firewall import FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..firewall import Family

    Change = tuple[int, str, Element]  # family, set, element


class Table:
    """A table of each family. write: adds its sets, chains and rules to a batch. Raises OSError, as all it does."""

    def __init__(self, name: str, write: Callable[[Batch, Family], None]) -> None:
        self.name = name
        self._write = write

    def add(self, changes: Iterable[Change]) -> None:
        """Put elements into sets; those that are there stay."""
        with Nftables() as socket:
            batch = Batch()
            for family in FAMILIES:
                if not socket.has_table(family.number, self.name):
                    batch.add_table(family.number, self.name)
                    self._write(batch, family)
            for number, name, element in changes:
                batch.add_elements(number, self.name, name, [element])
            socket.commit(batch)

    def remove(self, changes: Iterable[Change]) -> None:
        """Take elements out of sets; those that are not there need not."""
        with Nftables() as socket:
            for number, name, element in changes:
                batch = Batch()
                batch.delete_elements(number, self.name, name, [element])
                try:
                    socket.commit(batch)
                except OSError as failure:
                    if failure.errno != errno.ENOENT:
                        raise


def of_address(address: str) -> tuple[Family, bytes]:
    """Return the family of an address, and it as sets have it. Raises ValueError."""
    value, bits = subnet.number(address.partition("/")[0])
    family = FAMILIES[bits == 128]
    return family, value.to_bytes(family.size, "big")
