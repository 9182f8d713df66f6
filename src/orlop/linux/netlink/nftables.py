"""nftables through nfnetlink: tables, chains, rules, sets and maps, in atomic batches. linux/netfilter/nf_tables.h.

A rule is a list of expressions that work on registers; each function below that returns bytes makes one expression.
Registers 1 to 4 hold 16 bytes each; 8 to 23 are the same room in pieces of four, which is what concatenations lie in.

    batch = Batch()
    batch.add_table(IPV4, "orlop")
    batch.add_chain(IPV4, "orlop", "forward", hook=Hook("filter", FORWARD, 0))
    batch.add_rule(IPV4, "orlop", "forward", [meta(IIFNAME, 8), lookup("bridges", 8), verdict(DROP)])
    with Nftables() as nft: nft.commit(batch)
"""

from __future__ import annotations

import errno
import struct

from . import wire
from .wire import CREATE, attribute, be32, nested, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable, Iterator, Sequence

INET, IPV4, NETDEV, IPV6 = 1, 2, 5, 10  # NFPROTO_*
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
INGRESS = 0  # of a link, in the family NETDEV
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5

_SUBSYSTEM = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = 3, 4, 5
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET = 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
_BATCH_BEGIN, _BATCH_END = 16, 17

SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_CONCAT = 0x4, 0x8, 0x10, 0x80
TABLE_OWNER, TABLE_PERSIST = 0x2, 0x4  # 5.12, 6.9: nobody else changes or flushes it; it outlives its owner
_ELEMENT_BYTES_MAX = 48 * 1024  # a list of elements is one attribute

# What nft(8) calls the types of keys and data, and how long they are; six bits each in a concatenation.
TYPES = {
    "ipv4_addr": (7, 4),
    "ipv6_addr": (8, 16),
    "inet_proto": (12, 1),
    "inet_service": (13, 2),
    "mark": (19, 4),
    "ifname": (41, 16),
}
_HOST_ORDER = frozenset(("ifname", "mark"))
_TYPE_BITS = 6

IIFNAME, OIFNAME, OIF, MARK, L4PROTO, NFPROTO, OIFTYPE = 6, 7, 5, 3, 16, 15, 9  # NFT_META_*
IIFKIND, OIFKIND, PROTOCOL = 26, 27, 1
EQ, NEQ = 0, 1
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
CT_STATE, CT_DIRECTION, CT_STATUS, CT_MARK = 0, 1, 2, 3
CT_REPLY = b"\1"  # a direction
CT_INVALID, CT_ESTABLISHED, CT_RELATED, CT_NEW, CT_UNTRACKED = 1, 2, 4, 8, 64
CT_DNAT = 1 << 5  # IPS_DST_NAT
SNAT, DNAT = 0, 1
_RTN_LOCAL = 2

# -- expressions ----------------------------------------------------------------------------------------------------


def expression(name: str, *attributes: bytes) -> bytes:
    """Return one expression as an element of a rule's list."""
    return nested(1, text(1, name), nested(2, *attributes))


def meta(key: int, register: int) -> bytes:
    """Load a fact about the packet: IIFNAME, MARK ..."""
    return expression("meta", be32(2, key), be32(1, register))


def set_mark(register: int) -> bytes:
    """Write the packet's mark from a register."""
    return expression("meta", be32(2, MARK), be32(3, register))


def payload(base: int, offset: int, length: int, register: int) -> bytes:
    """Load bytes of the packet, from the beginning of its NETWORK_HEADER or TRANSPORT_HEADER on."""
    return expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def conntrack(key: int, register: int) -> bytes:
    """Load a fact about the connection: CT_STATE, CT_STATUS."""
    return expression("ct", be32(2, key), be32(1, register))


def set_connection_mark(register: int) -> bytes:
    """Write the connection's mark from a register."""
    return expression("ct", be32(2, CT_MARK), be32(4, register))


def compare(register: int, data: bytes, operation: int = EQ) -> bytes:
    """Go on only if the register holds this."""
    return expression("cmp", be32(1, register), be32(2, operation), nested(3, attribute(1, data)))


def mask(register: int, bits: bytes) -> bytes:
    """Leave only these bits in the register."""
    zero = bytes(len(bits))
    return expression(
        "bitwise",
        be32(1, register),
        be32(2, register),
        be32(3, len(bits)),
        nested(4, attribute(1, bits)),
        nested(5, attribute(1, zero)),
    )


def any_of(register: int, bits: int) -> tuple[bytes, bytes]:
    """Go on only if one of these bits of a 32-bit register (in the host's byte order) is set."""
    return mask(register, struct.pack("=L", bits)), compare(register, bytes(4), NEQ)


def lookup(name: str, register: int, *, into: int = 0, invert: bool = False) -> bytes:
    """Go on only if the set has what lies from the register on. into: where a map's data goes."""
    more = [be32(3, into)] if into else []
    return expression("lookup", text(1, name), be32(2, register), *more, be32(5, int(invert)))


def immediate(register: int, data: bytes) -> bytes:
    """Load a constant."""
    return expression("immediate", be32(1, register), nested(2, attribute(1, data)))


def verdict(code: int, chain: str = "") -> bytes:
    """End with DROP or ACCEPT, or JUMP to a chain."""
    words = [be32(1, code & 0xFFFFFFFF), *([text(2, chain)] if chain else [])]
    return expression("immediate", be32(1, 0), nested(2, nested(2, *words)))


def nat(kind: int, family: int, address: int, port: int = 0) -> bytes:
    """Translate to the address in a register and, if given, the port in another. kind: SNAT or DNAT."""
    more = [be32(5, port)] if port else []
    return expression("nat", be32(1, kind), be32(2, family), be32(3, address), *more)


def masquerade() -> bytes:
    """Translate the source to the address of the link that the packet leaves by."""
    return expression("masq")


def local_destination(register: int) -> tuple[bytes, bytes]:
    """Go on only if the destination is an address of this machine."""
    load = expression("fib", be32(1, register), be32(2, 3), be32(3, 1 << 1))  # FIB_RESULT_ADDRTYPE, of daddr
    return load, compare(register, struct.pack("=L", _RTN_LOCAL))


def duplicate(gateway: int, device: int) -> bytes:
    """Send a copy to the gateway in a register, by the link whose index is in another."""
    return expression("dup", be32(1, gateway), be32(2, device))


def counter() -> bytes:
    return expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def log(prefix: str, group: int) -> bytes:
    """Tell a listener of nfnetlink_log."""
    return expression("log", wire.be16(1, group), text(2, prefix))


def reject() -> bytes:
    """Answer that the port is unreachable."""
    return expression("reject", be32(1, 0), attribute(2, b"\x03"))


def interface(name: str) -> bytes:
    """Return a link's name as registers and sets hold it."""
    return name.encode().ljust(16, b"\0")


def fields(*parts: bytes) -> bytes:
    """Return a concatenation: each part padded to whole registers."""
    return b"".join(part + b"\0" * (-len(part) % 4) for part in parts)


# -- batches --------------------------------------------------------------------------------------------------------


class Hook:
    """Where a base chain hangs. kind: "filter" or "nat"; priority: smaller comes first; policy: ACCEPT or DROP.

    device: the link of one in the family NETDEV.
    """

    __slots__ = ("device", "hook", "kind", "policy", "priority")

    def __init__(self, kind: str, hook: int, priority: int, policy: int = ACCEPT, *, device: str = "") -> None:
        self.device = device
        self.kind = kind
        self.hook = hook
        self.priority = priority
        self.policy = policy


_UDATA_COMMENT = 0  # NFTNL_UDATA_SET_ELEM_COMMENT, as libnftnl has it


class Element:
    """An element of a set or map. end: the last key of an interval in a concatenation; timeout in milliseconds.

    comment: what nft(8) shows beside it, at most 128 bytes.
    """

    __slots__ = ("comment", "data", "end", "key", "timeout_ms")

    def __init__(
        self, key: bytes, *, end: bytes = b"", data: bytes = b"", timeout_ms: int = 0, comment: str = ""
    ) -> None:
        self.key = key
        self.comment = comment
        self.end = end
        self.data = data
        self.timeout_ms = timeout_ms

    def encode(self) -> bytes:
        parts = [nested(1, attribute(1, self.key))]
        if self.end:
            parts.append(nested(10, attribute(1, self.end)))
        if self.data:
            parts.append(nested(2, attribute(1, self.data)))
        if self.timeout_ms:
            parts.append(attribute(4, self.timeout_ms.to_bytes(8, "big")))
        if self.comment:
            said = self.comment.encode() + b"\0"
            parts.append(attribute(6, bytes([_UDATA_COMMENT, len(said)]) + said))
        return nested(1, *parts)


class Batch:
    """Changes that are made together or not at all. Nothing happens before `Nftables.commit`."""

    def __init__(self) -> None:
        self.messages: list[wire.Request] = []
        self._set_ids = 0

    def add_table(self, family: int, table: str, flags: int = 0) -> None:
        """Make a table, or leave it as it is."""
        self._append(_NEWTABLE, CREATE, family, text(1, table) + be32(2, flags), table)

    def delete_table(self, family: int, table: str) -> None:
        """Remove a table and all that is in it. Refused (ENOENT) when there is none."""
        self._append(_DELTABLE, 0, family, text(1, table), table)

    def add_chain(self, family: int, table: str, chain: str, hook: Hook | None = None) -> None:
        """Make a chain, or leave it as it is. With a hook packets pass it, without one it is jumped to."""
        body = text(1, table) + text(3, chain)
        if hook is not None:
            place = [text(3, hook.device)] if hook.device else []
            body += nested(4, be32(1, hook.hook), be32(2, hook.priority & 0xFFFFFFFF), *place) + be32(5, hook.policy)
            body += text(7, hook.kind)
        self._append(_NEWCHAIN, CREATE, family, body, f"{table} {chain}")

    def delete_chain(self, family: int, table: str, chain: str) -> None:
        """Remove a chain that has no rules. Refused (ENOENT) when there is none."""
        self._append(_DELCHAIN, 0, family, text(1, table) + text(3, chain), f"{table} {chain}")

    def flush_chain(self, family: int, table: str, chain: str) -> None:
        """Remove every rule of a chain."""
        self._append(_DELRULE, 0, family, text(1, table) + text(2, chain), f"{table} {chain}")

    def add_rule(self, family: int, table: str, chain: str, expressions: Sequence[bytes]) -> None:
        """Append a rule to a chain."""
        body = text(1, table) + text(2, chain) + nested(4, *expressions)
        self._append(_NEWRULE, CREATE | wire.APPEND, family, body, f"{table} {chain}")

    def add_set(
        self, family: int, table: str, name: str, key: Sequence[str], *, data: Sequence[str] = (), flags: int = 0
    ) -> None:
        """Make a set, or with data a map. key, data: names of TYPES; several are a concatenation, and then
        SET_INTERVAL makes an interval of each field."""
        self._set_ids += 1
        key_type, key_length = _type_of(key)
        description = b""
        if flags & SET_INTERVAL and len(key) > 1:
            flags |= SET_CONCAT
            lengths = [nested(1, be32(1, TYPES[part][1])) for part in key]
            description = nested(9, nested(2, *lengths))
        body = text(1, table) + text(2, name) + be32(4, key_type) + be32(5, key_length) + be32(10, self._set_ids)
        if data:
            data_type, data_length = _type_of(data)
            flags |= SET_MAP
            body += be32(6, data_type) + be32(7, data_length)
        if key[0] in _HOST_ORDER:
            # How nft(8) is to show the keys (libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER); nothing to the kernel.
            body += attribute(13, b"\0\4" + struct.pack("=L", 1))
        body += be32(3, flags) + description
        self._append(_NEWSET, CREATE, family, body, f"{table} {name}")

    def add_elements(self, family: int, table: str, name: str, elements: Iterable[Element]) -> None:
        """Put elements into a set. Refused (EEXIST) for a key that a map has with other data."""
        self._elements(_NEWSETELEM, CREATE, family, table, name, elements)

    def replace_elements(self, family: int, table: str, name: str, elements: Iterable[Element]) -> None:
        """Make these the set's only elements."""
        self._append(_DELSETELEM, 0, family, text(1, table) + text(2, name), f"{table} {name}")
        self.add_elements(family, table, name, elements)

    def delete_elements(self, family: int, table: str, name: str, elements: Iterable[Element]) -> None:
        """Take elements out of a set. Refused (ENOENT) when one is not there."""
        self._elements(_DELSETELEM, 0, family, table, name, elements)

    def _elements(self, verb: int, flags: int, family: int, table: str, name: str, elements: Iterable[Element]) -> None:
        head = text(1, table) + text(2, name)
        chunk: list[bytes] = []
        size = 0
        for encoded in (element.encode() for element in elements):
            if size + len(encoded) > _ELEMENT_BYTES_MAX:
                self._append(verb, flags, family, head + nested(3, *chunk), f"{table} {name}")
                chunk, size = [], 0
            chunk.append(encoded)
            size += len(encoded)
        if chunk:
            self._append(verb, flags, family, head + nested(3, *chunk), f"{table} {name}")

    def _append(self, verb: int, flags: int, family: int, body: bytes, subject: str) -> None:
        self.messages.append((_SUBSYSTEM | verb, flags, _header(family) + body, f"nftables {_CALLS[verb]}", subject))


_CALLS = {
    _NEWTABLE: "add table",
    _DELTABLE: "delete table",
    _NEWCHAIN: "add chain",
    _DELCHAIN: "delete chain",
    _NEWRULE: "add rule",
    _DELRULE: "flush chain",
    _NEWSET: "add set",
    _NEWSETELEM: "add element",
    _DELSETELEM: "delete element",
}


class Chain:
    """A chain that exists. hook, priority, policy: of a base chain; hook is None for another."""

    __slots__ = ("family", "hook", "kind", "name", "policy", "priority", "rules", "table")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        self.family = payload[0] if payload else 0
        found = wire.attributes(payload[4:])
        self.table = wire.string(found.get(1, b""))
        self.name = wire.string(found.get(3, b""))
        self.kind = wire.string(found.get(7, b""))
        self.policy = int.from_bytes(found.get(5, b"\0\0\0\1"), "big")
        self.rules = int.from_bytes(found.get(6, b""), "big")  # users: rules, and jumps to it
        hooked = wire.attributes(found[4]) if 4 in found else {}
        self.hook = int.from_bytes(hooked[1], "big") if 1 in hooked else None
        self.priority = int.from_bytes(hooked.get(2, b""), "big", signed=True)


class Rule:
    """A rule that exists. drops: whether it ends a packet; leads_to: the chains that it jumps or goes to."""

    __slots__ = ("chain", "drops", "family", "leads_to", "table")

    def __init__(self, payload: bytes) -> None:
        """Raises OSError (EBADMSG)."""
        self.family = payload[0] if payload else 0
        found = wire.attributes(payload[4:])
        self.table = wire.string(found.get(1, b""))
        self.chain = wire.string(found.get(2, b""))
        self.drops = False
        self.leads_to: list[str] = []
        for _, listed in wire.each(found.get(4, b"")):
            self._read(wire.attributes(listed))

    def _read(self, one: dict[int, bytes]) -> None:
        name = wire.string(one.get(1, b""))
        if name in ("reject", "lookup", "target", "queue", "tproxy"):
            # A map may hold verdicts, and a target is one of iptables' own.
            self.drops = self.drops or name in ("reject", "target", "queue") or 3 in wire.attributes(one.get(2, b""))
        elif name == "immediate" and 2 in one:
            data = wire.attributes(wire.attributes(one[2]).get(2, b""))
            said = wire.attributes(data[2]) if 2 in data else {}
            if 1 in said:
                code = struct.unpack(">l", said[1])[0]
                self.drops = self.drops or code == DROP
                self.leads_to += [wire.string(said[2])] if code in (JUMP, GOTO) and 2 in said else []


class Nftables(wire.Socket):
    """A socket that speaks nf_tables."""

    def __init__(self, made: socket | None = None) -> None:
        """made: as in `wire.Socket`. Raises OSError."""
        super().__init__(wire.NETFILTER, made)

    def __enter__(self) -> Nftables:
        return self

    def commit(self, batch: Batch) -> None:
        """Make all changes of a batch, or none. Raises OSError for the first that is refused."""
        frame = struct.pack("=BBH", 0, 0, 10 << 8 if _LITTLE else 10)
        begin = wire.message(_BATCH_BEGIN, wire.REQUEST, 0, frame)
        end = wire.message(_BATCH_END, wire.REQUEST, 0, frame)
        self.transact(begin, batch.messages, end)

    def tables(self, family: int = 0) -> Iterator[tuple[int, str]]:
        """Yield (family, name) of every table, or of those of one family."""
        for found in self.dump(_SUBSYSTEM | _GETTABLE, _header(family), "nftables list tables"):
            yield found.payload[0], wire.string(wire.attributes(found.payload[4:]).get(1, b""))

    def chains(self, family: int = 0) -> Iterator[Chain]:
        """Yield every chain of a family, or of all."""
        for found in self.dump(_SUBSYSTEM | _GETCHAIN, _header(family), "nftables list chains"):
            yield Chain(found.payload)

    def rules(self, family: int = 0) -> Iterator[Rule]:
        """Yield every rule of a family, or of all."""
        for found in self.dump(_SUBSYSTEM | _GETRULE, _header(family), "nftables list rules"):
            yield Rule(found.payload)

    def elements(self, family: int, table: str, name: str) -> Iterator[bytes]:
        """Yield the keys of a set."""
        for key, _ in self.commented(family, table, name):
            yield key

    def commented(self, family: int, table: str, name: str) -> Iterator[tuple[bytes, str]]:
        """Yield the keys of a set, and the comments of its elements."""
        body = _header(family) + text(1, table) + text(2, name)
        for found in self.dump(_SUBSYSTEM | _GETSETELEM, body, "nftables list set", name):
            for kind, listed in wire.each(wire.attributes(found.payload[4:]).get(3, b"")):
                if kind == 1:
                    said = wire.attributes(listed)
                    comment = said.get(6, b"")
                    is_comment = len(comment) > 2 and comment[0] == _UDATA_COMMENT
                    yield (
                        wire.attributes(said.get(1, b"")).get(1, b""),
                        wire.string(comment[2 : 2 + comment[1]]) if is_comment else "",
                    )

    def has_table(self, family: int, table: str) -> bool:
        """Tell whether a table exists."""
        try:
            self.request(_SUBSYSTEM | _GETTABLE, 0, _header(family) + text(1, table), "nftables get table", table)
        except OSError as failure:
            if failure.errno == errno.ENOENT:
                return False
            raise
        return True


def _type_of(parts: Sequence[str]) -> tuple[int, int]:
    """Return the type and the length of a key or of data; every field of a concatenation fills whole registers."""
    if len(parts) == 1:
        return TYPES[parts[0]]
    kind = length = 0
    for part in parts:
        number, size = TYPES[part]
        kind = kind << _TYPE_BITS | number
        length += size + -size % 4
    return kind, length


def _header(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)  # struct nfgenmsg


_LITTLE = struct.pack("=H", 1)[0] == 1
