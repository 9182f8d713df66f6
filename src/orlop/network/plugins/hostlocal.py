"""Addresses from ranges of this machine's own: a file for each that is given away.

    <dataDir>/<network>/<address>            "<container>\\r\\n<interface>"
                        last_reserved_ip.<n> of the n-th range set: the next one is looked for behind it
                        lock                 flock(2)

The files are those of the reference plugin, so that either can go on where the other has been.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from .. import resolver, subnet
from .request import INVALID, OWN, Call, PluginError, table, tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .request import Json

DATA_DIR = "/var/lib/cni/networks"
_LAST = "last_reserved_ip."
_FILE_BYTES_MAX = 4096
RANGES_MAX = 64


class Range:
    """Addresses from first to last, as numbers. gateway: is nobody's to get."""

    __slots__ = ("bits", "first", "gateway", "last", "length")

    def __init__(self, found: Json) -> None:
        """Raises PluginError."""
        try:
            whole = subnet.parse(text(found, "subnet"))
            low, high = text(found, "rangeStart"), text(found, "rangeEnd")
            self.bits, self.length = whole.bits, whole.length
            if whole.bits - whole.length < 2:
                raise ValueError(f"network {whole} too small to allocate from")
            self.first = subnet.number(low)[0] if low else whole.first + 1
            # The last address of an IPv4 subnet is its broadcast address.
            self.last = subnet.number(high)[0] if high else whole.last - (whole.bits == 32)
            gateway = text(found, "gateway")
            self.gateway = subnet.number(gateway)[0] if gateway else whole.first + 1
        except ValueError as wrong:
            raise PluginError(INVALID, str(wrong)) from None
        if not whole.first <= self.first <= self.last <= whole.last:
            raise PluginError(INVALID, f"the range does not lie in {whole}")

    def __contains__(self, value: int) -> bool:
        return self.first <= value <= self.last and value != self.gateway


def add(call: Call) -> Json:
    """Give an address of each range set."""
    ipam = _ipam(call)
    wanted = _wanted(call)
    given: list[tuple[int, Range]] = []
    with _Store(call, ipam) as store:
        try:
            for number, ranges in enumerate(_sets(ipam, call)):
                given.append(store.give(number, ranges, wanted))
            if wanted:
                left = ", ".join(subnet.text(*one) for one in wanted)
                raise PluginError(INVALID, f"requested address is in no range: {left}")
        except PluginError:
            for value, one in given:  # what an earlier ADD was given stays
                store.drop(subnet.text(value, one.bits))
            raise
    ips = [
        {
            "address": f"{subnet.text(value, one.bits)}/{one.length}",
            "gateway": subnet.text(one.gateway, one.bits),
        }
        for value, one in given
    ]
    return {"ips": ips, "routes": tables(ipam, "routes"), "dns": _dns(ipam)}


def delete(call: Call) -> None:
    """Take back whatever the container has; it may have nothing."""
    with _Store(call, _ipam(call)) as store:
        store.take_back()


def check(call: Call) -> None:
    """See that the container has an address."""
    with _Store(call, _ipam(call)) as store:
        if not list(store.owned()):
            raise PluginError(OWN, f"host-local: Failed to find address added by container {call.container}")


def collect(call: Call) -> None:
    """Take back what nobody has who is still valid."""
    valid = call.valid()
    with _Store(call, _ipam(call)) as store:
        for name, owner in list(store.all()):
            if owner not in valid:
                store.drop(name)


def status(call: Call) -> None:
    """See that there is anything to give."""
    for ranges in _sets(_ipam(call), call):
        if not ranges:
            raise PluginError(INVALID, "a range set without ranges")


VERBS = {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": status}


def _ipam(call: Call) -> Json:
    found = table(call.config, "ipam")
    if not found:
        raise PluginError(INVALID, "IPAM config missing 'ipam' key")
    return found


def _sets(ipam: Json, call: Call) -> list[list[Range]]:
    listed = ipam.get("ranges") or []
    more = call.runtime.get("ipRanges") or []
    if not isinstance(listed, list) or not isinstance(more, list):
        raise PluginError(INVALID, "`ranges` is no list")
    listed = [*more, *listed]
    if text(ipam, "subnet"):
        listed = [[ipam], *listed]
    if not 0 < len(listed) <= RANGES_MAX:
        raise PluginError(INVALID, "no IP ranges specified")
    found = []
    for one in listed:
        if (
            not isinstance(one, list)
            or not 0 < len(one) <= RANGES_MAX
            or not all(isinstance(each, dict) for each in one)
        ):
            raise PluginError(INVALID, "a range set is no list of ranges")
        found.append([Range(each) for each in one])
    return found


def _wanted(call: Call) -> list[tuple[int, int]]:
    """Return (number, bits) of the addresses that were asked for by whatever way."""
    listed: list[object] = [call.arg("IP")] if call.arg("IP") else []
    for found in (call.runtime.get("ips"), table(table(call.config, "args"), "cni").get("ips")):
        if found is not None and not isinstance(found, list):
            raise PluginError(INVALID, "`ips` is no list")
        listed += found or []
    try:
        return [subnet.number(str(one).partition("/")[0]) for one in listed]
    except ValueError as wrong:
        raise PluginError(INVALID, str(wrong)) from None


def _dns(ipam: Json) -> Json:
    path = text(ipam, "resolvConf")
    if not path:
        return {}
    with open(path, "rb", buffering=0) as file:
        found = resolver.parse(file.read(1 << 18))
    told = {"nameservers": list(found.servers), "search": list(found.search), "options": list(found.options)}
    return {key: value for key, value in told.items() if value}


class _Store:
    """The directory of a network, locked."""

    def __init__(self, call: Call, ipam: Mapping[str, object]) -> None:
        """Raises OSError."""
        self._owner = (call.container, call.interface)
        self._directory = f"{text(ipam, 'dataDir') or DATA_DIR}/{call.name}"
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        self._lock = os.open(f"{self._directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def __enter__(self) -> _Store:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def all(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield (file, (container, interface)) of every address that is given away."""
        for name in os.listdir(self._directory):
            if name == "lock" or name.startswith(_LAST):
                continue
            container, _, interface = self._read(name).replace("\r\n", "\n").strip().partition("\n")
            yield name, (container, interface)

    def owned(self) -> Iterator[str]:
        """Yield the files of this container and interface; older plugins wrote no interface."""
        for name, (container, interface) in list(self.all()):
            if container == self._owner[0] and interface in ("", self._owner[1]):
                yield name

    def drop(self, name: str) -> None:
        try:
            os.unlink(f"{self._directory}/{name}")
        except FileNotFoundError:
            pass

    def take_back(self) -> None:
        """Take back what this container and interface have."""
        for name in list(self.owned()):
            self.drop(name)

    def give(self, number: int, ranges: list[Range], wanted: list[tuple[int, int]]) -> tuple[int, Range]:
        """Give away one address of these ranges: one that is wanted, which is then off the list, or any free one."""
        had = [name for name in self.owned() if any(_of(name, one) is not None for one in ranges)]
        if had:
            cause = f"{had[0]} has been allocated to {self._owner[0]}, duplicate allocation is not allowed"
            raise PluginError(OWN, cause)
        for asked in wanted:
            for one in ranges:
                if asked[1] == one.bits and asked[0] in one:
                    if not self._reserve(number, asked[0], one.bits):
                        shown = subnet.text(*asked)
                        raise PluginError(OWN, f"requested IP address {shown} is not available in range set")
                    wanted.remove(asked)
                    return asked[0], one
        for value, one in self._candidates(number, ranges):
            if self._reserve(number, value, one.bits):
                return value, one
        raise PluginError(OWN, f"no IP addresses available in range set: {_shown(ranges)}")

    def _candidates(self, number: int, ranges: list[Range]) -> Iterator[tuple[int, Range]]:
        """Yield every address once, beginning behind the last one that was given away."""
        last = self._read(f"{_LAST}{number}").strip()
        start, after = 0, -1
        for at, one in enumerate(ranges):
            value = _of(last, one)
            if value is not None:
                start, after = at, value
        turns = [*range(start, len(ranges)), *range(start)]
        for at in turns:
            one = ranges[at]
            begin = max(one.first, after + 1) if at == start else one.first
            yield from ((value, one) for value in range(begin, one.last + 1) if value in one)
        if after >= 0:
            one = ranges[start]
            yield from ((value, one) for value in range(one.first, min(after, one.last) + 1) if value in one)

    def _reserve(self, number: int, value: int, bits: int) -> bool:
        name = subnet.text(value, bits)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(f"{self._directory}/{name}", flags, 0o644)
        except FileExistsError:
            return False
        with open(fd, "wb", buffering=0) as file:
            file.write("\r\n".join(self._owner).encode())
        with self._replacing(f"{_LAST}{number}") as path, open(path, "wb", buffering=0) as file:
            file.write(name.encode())
        return True

    @contextmanager
    def _replacing(self, name: str) -> Iterator[str]:
        yield f"{self._directory}/{name}.tmp"
        os.rename(f"{self._directory}/{name}.tmp", f"{self._directory}/{name}")

    def _read(self, name: str) -> str:
        try:
            with open(f"{self._directory}/{name}", "rb", buffering=0) as file:
                return file.read(_FILE_BYTES_MAX).decode(errors="replace")
        except FileNotFoundError:
            return ""


def _of(address: str, one: Range) -> int | None:
    """Return an address as a number if it lies in a range."""
    try:
        value, bits = subnet.number(address)
    except ValueError:
        return None
    return value if bits == one.bits and one.first <= value <= one.last else None


def _shown(ranges: list[Range]) -> str:
    return ", ".join(f"{subnet.text(one.first, one.bits)}-{subnet.text(one.last, one.bits)}" for one in ranges)
