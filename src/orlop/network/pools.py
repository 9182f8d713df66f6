"""Which subnet a network gets, and which address an endpoint. Pure.

A subnet is chosen that no route of the machine leads to: a VPN's, a cable's or another network's. Routes for less than
a /8 (a default route, or the halves of one that OpenVPN sets) lead to everywhere, and are no reason.
"""

from __future__ import annotations

import hashlib

from ..spec.errors import Conflict, Invalid, Unavailable
from . import subnet
from .subnet import Subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

# (where subnets are cut from, how long the prefix of each is). podman's place first, docker's later ones behind it.
POOLS = (("10.89.0.0/16", 24), ("10.90.0.0/15", 24), ("172.16.0.0/12", 24), ("192.168.0.0/16", 24), ("10.0.0.0/8", 24))
DEFAULT_BRIDGE = "10.88.0.0/16"
POOLS_MAX = 64
LENGTH_MAX = 29  # a gateway and some containers
ROUTE_LENGTH_MIN = 8
_MULTICAST = subnet.parse("224.0.0.0/3")
_LOOPBACK = subnet.parse("127.0.0.0/8")
# Of no network: multicast, the loopback and IPv4's addresses in IPv6, links' own, which need a link beside them.
_RESERVED = (_MULTICAST, _LOOPBACK, *map(subnet.parse, ("ff00::/8", "::/8", "fe80::/10")))


def read(document: object, path: str) -> tuple[tuple[str, int], ...]:
    """Return the pools that a file names, as dockerd's default-address-pools: [{"base": "172.30.0.0/16", "size": 24}].

    Raises Invalid.
    """
    if not isinstance(document, list) or not 0 < len(document) <= POOLS_MAX:
        raise _no_pools(path, f"it is no list of one to {POOLS_MAX} pools")
    found = []
    for one in document:
        base, size = (one.get("base"), one.get("size")) if isinstance(one, dict) and len(one) == 2 else (None, None)
        if not isinstance(base, str) or type(size) is not int:
            raise _no_pools(path, f"an entry has no base, or no size: {str(one)[:60]}")
        try:
            whole = subnet.parse(base)
        except ValueError as wrong:
            raise _no_pools(path, str(wrong)) from None
        if whole.bits != 32 or whole.overlaps(_MULTICAST) or whole.overlaps(_LOOPBACK):
            raise _no_pools(path, f"{whole} is no place for IPv4 networks")
        if not max(whole.length, ROUTE_LENGTH_MIN) <= size <= LENGTH_MAX:
            raise _no_pools(path, f"{whole} can't be cut into subnets of length {size}")
        found.append((str(whole), size))
    return tuple(found)


def _no_pools(path: str, cause: str) -> Invalid:
    return Invalid("read", path, cause, hint='write it as [{"base": "172.30.0.0/16", "size": 24}], or remove it')


def free_subnet(taken: Collection[Subnet], first: str = "", places: Sequence[tuple[str, int]] = POOLS) -> Subnet:
    """Return a subnet that overlaps none of those taken. first: one to try before the pools; places: those.

    Raises Unavailable, naming what is in the way.
    """
    if first:
        wanted = subnet.parse(first)
        if not _in_the_way(wanted, taken):
            return wanted
    for pool, length in places:
        whole = subnet.parse(pool)
        near = [other for other in taken if other.length >= ROUTE_LENGTH_MIN and other.overlaps(whole)]
        step = 1 << whole.bits - length
        start = whole.first
        while start <= whole.last:
            found = Subnet(whole.bits, start, length)
            blocking = next((other for other in near if other.overlaps(found)), None)
            if blocking is None:
                return found
            start = max(start + step, (blocking.last + step) // step * step)
    shown = ", ".join(str(other) for other in list(taken)[:8])
    cause = f"all predefined address pools have been fully subnetted; in the way are {shown}"
    raise Unavailable("create", "a network", cause, hint="name a free one with --subnet", code="E0705")


def local_ipv6(seed: str) -> Subnet:
    """Return a unique local /64 (RFC 4193) that follows from a network's id."""
    digest = hashlib.sha256(seed.encode()).digest()
    return Subnet(128, (0xFD << 120) | (int.from_bytes(digest[:7], "big") << 64), 64)


def check(wanted: Subnet, taken: Iterable[tuple[Subnet, str]], subject: str) -> None:
    """Raise Invalid for a subnet that no network can have, Conflict for one that another network has."""
    if wanted.size < 4 or any(map(wanted.overlaps, _RESERVED)):
        cause = f"{wanted} can't be a network's subnet"
        example = "10.99.0.0/24" if wanted.bits == 32 else "fd00:99::/64"
        raise Invalid("create", subject, cause, hint=f"choose a private one of at least four addresses: {example}")
    for other, owner in taken:
        if wanted.overlaps(other):
            cause = f"Pool overlaps with other one on this address space: {wanted} with {other} of {owner}"
            raise Conflict(
                "create", subject, cause, hint="choose another --subnet, or remove that network", code="E0705"
            )


def first_address(of: Subnet) -> str:
    """Return the first address that a machine may have."""
    return subnet.text(of.first + 1, of.bits)


def free_address(of: Subnet, within: Subnet | None, taken: Collection[int], after: int = 0) -> str | None:
    """Return an address that is not taken, None when there is none. within: the part to look in.

    after: the one that was given last: those behind it come first, so that an address is not reused at once.
    """
    part = within or of
    low = max(part.first, of.first + 1)
    high = min(part.last, of.last - 1 if of.bits == 32 else of.last)
    if low > high:
        return None
    start = after + 1 if low <= after < high else low
    for begin, end in ((start, high), (low, start - 1)):
        value = begin
        while value <= end:
            if value not in taken:
                return subnet.text(value, of.bits)
            value += 1
    return None


def _in_the_way(wanted: Subnet, taken: Iterable[Subnet]) -> bool:
    return any(other.length >= ROUTE_LENGTH_MIN and other.overlaps(wanted) for other in taken)
