"""Subnets and addresses as numbers. Pure, and without the `ipaddress` module, which costs more than all of this."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

_MAC_DIGITS = 12
_HEX = frozenset("0123456789abcdef")


class Subnet:
    """Addresses with a common prefix. first, last: the whole range as integers; bits: 32 or 128."""

    __slots__ = ("bits", "first", "length")

    def __init__(self, bits: int, first: int, length: int) -> None:
        self.bits = bits
        self.length = length
        self.first = first

    @property
    def last(self) -> int:
        return self.first | (1 << self.bits - self.length) - 1

    @property
    def size(self) -> int:
        return 1 << self.bits - self.length

    def __str__(self) -> str:
        return f"{text(self.first, self.bits)}/{self.length}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subnet) and (self.bits, self.first, self.length) == (
            other.bits,
            other.first,
            other.length,
        )

    def __hash__(self) -> int:
        return hash((self.bits, self.first, self.length))

    def overlaps(self, other: Subnet) -> bool:
        """Tell whether an address is in both."""
        return self.bits == other.bits and self.first <= other.last and other.first <= self.last

    def contains(self, address: str) -> bool:
        """Tell whether an address is in here. Raises ValueError for what is none."""
        value, bits = number(address)
        return bits == self.bits and self.first <= value <= self.last

    def has_room_at(self, address: str) -> bool:
        """Tell whether a machine may have an address in here: it is neither the subnet's own nor IPv4's for all."""
        value, bits = number(address)
        return value != self.first and (bits == 128 or value != self.last)


def parse(value: str) -> Subnet:
    """Return the subnet that "10.0.0.0/8" names; bits behind the prefix are dropped. Raises ValueError."""
    address, slash, length = value.partition("/")
    found, bits = number(address)
    if not slash or not length.isascii() or not length.isdecimal() or int(length) > bits or len(length) > 3:
        raise ValueError(f"invalid CIDR address: {value[:60]}")
    host_bits = bits - int(length)
    return Subnet(bits, found >> host_bits << host_bits, int(length))


def parse_source(value: str) -> Subnet:
    """Return the subnet that "10.0.0.0/8" names, or the one of the address "10.0.0.1" alone. Raises ValueError."""
    return parse(value if "/" in value else f"{value}/{128 if ':' in value else 32}")


def number(address: str) -> tuple[int, int]:
    """Return (the address as an integer, 32 or 128). Raises ValueError for what is no address."""
    family = AF_INET6 if ":" in address else AF_INET
    try:
        data = inet_pton(family, address)
    except (OSError, ValueError):
        raise ValueError(f"invalid IP address: {address[:60]}") from None
    return int.from_bytes(data, "big"), len(data) * 8


def text(value: int, bits: int) -> str:
    """Return an address in its usual form."""
    return inet_ntop(AF_INET if bits == 32 else AF_INET6, value.to_bytes(bits // 8, "big"))


def usual(address: str) -> str:
    """Return an address as the kernel shows it. Raises ValueError."""
    return text(*number(address))


def usual_mac(text: str) -> str:
    """Return a MAC as the kernel shows it, of the forms that docker takes (Go's net.ParseMAC). Raises ValueError.

    Its parts are of two digits between colons or hyphens, or of four between dots.
    """
    size, mark = (4, ".") if "." in text else (2, "-" if "-" in text else ":")
    parts = text.lower().split(mark)
    if len(parts) * size != _MAC_DIGITS or any(len(part) != size or not set(part) <= _HEX for part in parts):
        raise ValueError(f"invalid MAC address: {text[:60]}")
    return bytes.fromhex("".join(parts)).hex(":")
