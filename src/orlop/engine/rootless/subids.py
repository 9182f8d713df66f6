"""Which ids a user may give to others: subuid(5) and subgid(5), and the maps of a user namespace made of them. Pure.

newuidmap(1) reads the same files and decides; this only asks for what it will grant.
"""

from __future__ import annotations

from ...spec.runtime import IdMapping

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
LINES_MAX = 100_000
FILE_BYTES_MAX = 4 * 1024 * 1024
ID_MAX = 2**32 - 2
RANGES_MAX = 339  # a map has at most 340 lines (user_namespaces(7)), and the first is the user


class Range:
    """count ids from first on."""

    __slots__ = ("count", "first")

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Range) and (self.first, self.count) == (other.first, other.count)

    def __hash__(self) -> int:
        return hash((self.first, self.count))

    def __repr__(self) -> str:
        return f"Range({self.first}, {self.count})"


def parse(text: str, user: str, uid: int) -> tuple[Range, ...]:
    """Return the ranges of a user, named by its name or its number, in the order of the file.

    As shadow's own reader does it, a line that is none is passed over. Overlaps of one user are cut away: the kernel
    refuses a map that has an id twice.
    """
    found: list[Range] = []
    for line in text.splitlines()[:LINES_MAX]:
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (user, str(uid)) or not fields[0]:
            continue
        if not all(field.isascii() and field.isdecimal() and len(field) <= 10 for field in fields[1:]):
            continue
        first, count = int(fields[1]), int(fields[2])
        if count and first and first + count - 1 <= ID_MAX and not first <= uid < first + count:
            found += _without(Range(first, count), found)
    return tuple(found[:RANGES_MAX])


def read(path: str, user: str, uid: int) -> tuple[Range, ...]:
    """Return a user's ranges in a file; none when it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read(FILE_BYTES_MAX), user, uid)
    except OSError:
        return ()


def mappings(own: int, ranges: tuple[Range, ...]) -> tuple[IdMapping, ...]:
    """Return the map of a user namespace: 0 is the user, from 1 on come the ranges, one after the other."""
    found = [IdMapping(container_id=0, host_id=own, size=1)]
    for each in ranges:
        following = found[-1].container_id + found[-1].size
        found.append(IdMapping(container_id=following, host_id=each.first, size=each.count))
    return tuple(found)


def _without(wanted: Range, taken: list[Range]) -> list[Range]:
    """Return what is left of a range without those that are there already."""
    pieces = [wanted]
    for other in taken:
        end = other.first + other.count
        cut: list[Range] = []
        for piece in pieces:
            before = min(piece.first + piece.count, other.first) - piece.first
            after = piece.first + piece.count - max(piece.first, end)
            if before >= piece.count or after >= piece.count:
                cut.append(piece)
                continue
            if before > 0:
                cut.append(Range(piece.first, before))
            if after > 0:
                cut.append(Range(max(piece.first, end), after))
        pieces = cut
    return pieces
