"""Who is called what in which network. Pure: a table in memory.

A container sees the names of the networks that it is in, and those of its own links; `name.network` too. A name that
several containers of a network have leads to all of them.
"""

from ...spec.record import Record
from .. import subnet


class Place(Record):
    """A container in one network. names: what it is called there; links: alias -> container or name, for it alone."""

    network: str
    network_name: str
    addresses: tuple[str, ...]
    names: tuple[str, ...]
    links: dict[str, str] = {}


class Member(Record):
    """A container. external: whether names that nobody has here are asked for outside.

    servers: the user's own upstream servers (`resolver.parse_upstream`); none are the machine's.
    """

    id: str
    places: tuple[Place, ...]
    external: bool = True
    servers: tuple[str, ...] = ()


class Zone:
    """All members, by id."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._names: dict[tuple[str, str], dict[str, Place]] = {}  # (network, name) -> member id -> place
        # (network, address) -> (name, network's name, member id)
        self._addresses: dict[tuple[str, bytes], tuple[str, str, str]] = {}

    def add(self, member: Member) -> None:
        """Take a member in, in the place of what was known of it."""
        self.remove(member.id)
        self.members[member.id] = member
        for place in member.places:
            for name in place.names:
                self._names.setdefault((place.network, name.lower()), {})[member.id] = place
            for address in place.addresses:
                if place.names:
                    self._addresses[place.network, _key(address)] = (place.names[0], place.network_name, member.id)

    def remove(self, member_id: str) -> None:
        """Forget a member. Nothing is wrong when it is not there."""
        member = self.members.pop(member_id, None)
        for place in member.places if member else ():
            for name in place.names:
                having = self._names.get((place.network, name.lower()))
                if having is not None:
                    having.pop(member_id, None)
                    if not having:
                        del self._names[place.network, name.lower()]
            for address in place.addresses:
                key = place.network, _key(address)
                if self._addresses.get(key, ("", "", ""))[2] == member_id:  # else somebody has it by now
                    del self._addresses[key]

    def find(self, member: Member, name: str) -> list[tuple[str, Place]]:
        """Return (member id, place) of everybody whom a member calls so; none when it is no name of ours."""
        for place in member.places:
            target = place.links.get(name)
            if target is not None and target in self.members:
                return [(target, one) for one in self.members[target].places if one.network == place.network]
            if target is not None and (place.network, target) in self._names:
                return list(self._names[place.network, target].items())
        for place in member.places:
            found = self._names.get((place.network, name))
            if found is None and name.endswith(f".{place.network_name.lower()}"):
                found = self._names.get((place.network, name[: -len(place.network_name) - 1]))
            if found:
                return list(found.items())
        return []

    def name_of(self, member: Member, address: str) -> str:
        """Return what has this address in a network of the member's: "name.network", "" for nobody."""
        try:
            key = _key(address)
        except ValueError:
            return ""
        for place in member.places:
            found = self._addresses.get((place.network, key))
            if found is not None:
                return ".".join(found[:2])
        return ""


def _key(address: str) -> bytes:
    value, bits = subnet.number(address)
    return value.to_bytes(bits // 8, "big")
