"""Maps of sparse files in tar archives: GNU's old format (type S) and its PAX formats 0.0, 0.1 and 1.0.

A map is the list of (offset, length) of what is not a hole. Its length is bounded before anything is stored
(SEC-42, CVE-2025-58183: a map of unbounded length).
Source: GNU tar's manual, "Storing Sparse Files".
"""

from . import BLOCK_BYTES, decimal, numeric

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import OrlopError

    Broken = Callable[[str], OrlopError]
    Take = Callable[[int], bytes]
    Extents = tuple[tuple[int, int], ...]

_NUMBER_BYTES_MAX = 20


def read_gnu(block: bytes, take: "Take", extents_max: int, broken: "Broken") -> "tuple[int, Extents]":
    """Return (size, extents) from a header of type S and the extension blocks behind it."""
    extents: list[tuple[int, int]] = []
    part, entries, more_at = block[386:482], 4, 482
    try:
        size = numeric(block[483:495])
        more = block[more_at] != 0
        while True:
            for index in range(entries):
                entry = part[24 * index : 24 * index + 24]
                if not entry.strip(b"\0"):
                    break
                extents.append((numeric(entry[:12]), numeric(entry[12:])))
            if not more:
                return size, tuple(extents)
            if len(extents) > extents_max:
                raise broken(f"a sparse file has more than {extents_max} pieces")
            part, entries = take(BLOCK_BYTES), 21
            more = part[504] != 0
            if more and not part[:504].strip(b"\0"):
                raise broken("a sparse file's map goes on without saying anything")
    except ValueError as wrong:
        raise broken(f"a sparse file's map: {wrong}") from None


def read_pax(
    records: dict[bytes, bytes], take: "Take", extents_max: int, broken: "Broken"
) -> "tuple[int, Extents, int]":
    """Return (size, extents, bytes of the member's data that held the map)."""
    used = 0
    try:
        if records.get(b"GNU.sparse.major") == b"1":
            size = decimal(records.get(b"GNU.sparse.realsize", b""))
            numbers, used = _read_map(take, extents_max, broken)
        elif b"GNU.sparse.map" in records:
            size = decimal(records.get(b"GNU.sparse.size", b""))
            numbers = _decimals(records[b"GNU.sparse.map"].split(b","), extents_max, broken)
        else:
            size = decimal(records.get(b"GNU.sparse.size", b""))
            offsets = _decimals(_values(records, b"GNU.sparse.offset"), extents_max, broken)
            lengths = _decimals(_values(records, b"GNU.sparse.numbytes"), extents_max, broken)
            if len(offsets) != len(lengths):
                raise broken("a sparse file's map has offsets without lengths")
            numbers = [number for pair in zip(offsets, lengths, strict=True) for number in pair]
    except ValueError as wrong:
        raise broken(f"a sparse file's map: {wrong}") from None
    if len(numbers) % 2:
        raise broken("a sparse file's map has an offset without a length")
    return size, tuple(zip(numbers[0::2], numbers[1::2], strict=True)), used


def check(size: int, extents: "Extents", stored: int, broken: "Broken") -> None:
    """Raise unless the pieces lie inside the file, in order, without overlap, and are all that is stored."""
    position = 0
    for offset, length in extents:
        if offset < position or length < 0 or offset + length > size:
            raise broken("a sparse file's pieces overlap or lie outside of it")
        position = offset + length
    if sum(length for _, length in extents) != stored:
        raise broken("a sparse file's map and its data differ in length")


def _values(records: dict[bytes, bytes], key: bytes) -> list[bytes]:
    return records[key].split(b"\0") if key in records else []


def _decimals(texts: list[bytes], extents_max: int, broken: "Broken") -> list[int]:
    if len(texts) > 2 * extents_max:
        raise broken(f"a sparse file has more than {extents_max} pieces")
    return [decimal(text) for text in texts if text]


def _read_map(take: "Take", extents_max: int, broken: "Broken") -> tuple[list[int], int]:
    """Read the map of format 1.0 from the data's first blocks: decimal numbers, a newline behind each."""
    buffer = b""
    used = 0
    wanted = 1
    numbers: list[int] = []
    while len(numbers) < wanted:
        line, newline, rest = buffer.partition(b"\n")
        if not newline:
            if len(buffer) > _NUMBER_BYTES_MAX:
                raise broken("a sparse file's map holds no number where one must stand")
            buffer += take(BLOCK_BYTES)
            used += BLOCK_BYTES
            continue
        buffer = rest
        numbers.append(decimal(line))
        if len(numbers) == 1:
            if numbers[0] > extents_max:
                raise broken(f"a sparse file has more than {extents_max} pieces")
            wanted += 2 * numbers[0]
    return numbers[1:], used
