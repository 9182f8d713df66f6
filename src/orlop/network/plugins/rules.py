"""Tables of rules that several calls of a plugin share: the rules never change, attachments are elements of sets.

Each element is marked with its owner, so that DEL needs to know no more than whom, and takes away nobody else's.

A table is made by the first call, with its rules, and stays; without elements it does nothing.
"""

from __future__ import annotations

import errno

from ...linux.netlink.nftables import Batch, Element, Nftables
from .. import subnet
from ..firewall import FAMILIES
from .request import OWN, PluginError, of_network
from .request import owner as owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..firewall import Family
    from .request import Call

    Change = tuple[int, str, Element]  # family, set, element


class Table:
    """A table of each family. write: adds its sets, chains and rules to a batch. Raises OSError, as all it does.

    sets: whose elements belong to attachments, each marked with its owner. What is nobody's own is in others, and
    stays.
    """

    def __init__(self, name: str, write: Callable[[Batch, Family], None], sets: tuple[str, ...]) -> None:
        self.name = name
        self._write = write
        self._sets = sets

    def add(self, changes: Iterable[Change], owner: str) -> None:
        """Put elements into sets. What has been another one's is this one's from now on, but for a port.

        Raises PluginError for a port that somebody has.
        """
        changes = list(changes)
        with Nftables() as socket:
            batch = Batch()
            for family in FAMILIES:
                if not socket.has_table(family.number, self.name):
                    batch.add_table(family.number, self.name)
                    self._write(batch, family)
            for number, name, key, had in list(self._owned(socket)):
                if had != owner and any((number, name, key) == (where, into, one.key) for where, into, one in changes):
                    if any(into == name and one.data for _, into, one in changes):
                        raise PluginError(OWN, f"a port is taken already, by {had or 'somebody'}")
                    batch.delete_elements(number, self.name, name, [Element(key)])
            for number, name, one in changes:
                one.comment = owner if name in self._sets else ""
                batch.add_elements(number, self.name, name, [one])
            socket.commit(batch)

    def remove(self, owner: str) -> None:
        """Take out what is marked with an owner; there may be nothing."""
        self._remove(lambda had: had == owner)

    def collect(self, call: Call) -> None:
        """Take out what belongs to a network, and to nobody who is still valid."""
        valid = {owner_of(call.name, *one) for one in call.valid()}
        self._remove(lambda had: had.startswith(of_network(call.name)) and had not in valid)

    def has(self, changes: Iterable[Change]) -> bool:
        """Tell whether all elements are there."""
        with Nftables() as socket:
            there = {(number, name, key) for number, name, key, _ in self._owned(socket)}
        return all((number, name, one.key) in there for number, name, one in changes if name in self._sets)

    def _owned(self, socket: Nftables) -> Iterator[tuple[int, str, bytes, str]]:
        """Yield (family, set, key, owner)."""
        for family in FAMILIES:
            if socket.has_table(family.number, self.name):
                for name in self._sets:
                    for key, owner in socket.commented(family.number, self.name, name):
                        yield family.number, name, key, owner

    def _remove(self, is_wanted: Callable[[str], bool]) -> None:
        with Nftables() as socket:
            for number, name, key, owner in list(self._owned(socket)):
                if is_wanted(owner):
                    batch = Batch()
                    batch.delete_elements(number, self.name, name, [Element(key)])
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
