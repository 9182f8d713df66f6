"""This machine as a router: switched on for the networks, and off again with them, so that all is as it was.

To forward is more than one switch. For IPv4 the kernel takes redirects of nobody then, and of everybody afterwards,
whatever was said before (inet_forward_change, net/ipv4/devinet.c). For IPv6 a router hears no other routers: the
machine's own way outside, where one of those had told it, would be gone at once (rt6_purge_dflt_routers), unless its
link is to hear them nevertheless (accept_ra 2).

The file says what there was, a line "NAME VALUE" each. It is written before anything is changed, and goes last.
"""

from __future__ import annotations

import os

from . import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

SWITCHES = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
_CONF = "/proc/sys/net"
_BYTES_MAX = 1 << 20
_BRIDGE = "bridge"  # how the line of a bridge begins that another one has, and that never forwarded


def missing(versions: Collection[int]) -> list[int]:
    """Return the versions of IP, of these, that this machine does not forward."""
    return [version for version in versions if links.read_sysctl(SWITCHES[version]) == "0"]


def read(path: str) -> tuple[dict[str, str], list[str]]:
    """Return (what was changed, as it was; the bridges of others that there were then). path: the file."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(_BYTES_MAX).splitlines()
    except FileNotFoundError:
        return {}, []
    before: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(" ")
        if name != _BRIDGE:
            before.setdefault(name, value or "0")  # what was first: the second time it may have been ours
    return before, [line.removeprefix(f"{_BRIDGE} ") for line in lines if line.startswith(f"{_BRIDGE} ")]


def switch_on(path: str, versions: Collection[int], bridges: Collection[str], noted: Callable[[], None]) -> None:
    """Have this machine forward. bridges: of others; noted: called when the file is written, before any change."""
    lines = [] if os.path.exists(path) else [f"{_BRIDGE} {name}" for name in bridges]
    lines += [f"{name} {value}" for version in versions for name, value in _before(version)]
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
    noted()
    for version in versions:
        for name, value in _hearing() if version == 6 else ():
            links.write_sysctl(name, value)
        links.write_sysctl(SWITCHES[version], "1")


def switch_off(path: str, bridges: Collection[str]) -> None:
    """Put everything back, if it was us, unless others rely on it since: another engine, or dockerd, which finds
    forwarding on and does not switch it on again. bridges: those that there are now. Raises OSError."""
    before, closed = read(path)
    if not before:
        return
    if set(bridges) <= set(closed):
        for name in sorted(before, key=lambda name: name not in SWITCHES.values()):
            links.write_sysctl(name, before[name])
    os.unlink(path)


def _before(version: int) -> Iterator[tuple[str, str]]:
    """Yield what switching on changes, and how it is now."""
    yield SWITCHES[version], "0"
    place = f"ipv{version}/conf"
    if version == 4:
        name = f"{place}/all/accept_redirects"
        yield name, links.read_sysctl(name)
    for link in _links(place):
        name = f"{place}/{link}/forwarding"
        if link != "all" and links.read_sysctl(name) == "1":
            yield name, "1"
    if version == 6:
        yield from ((name, "1") for name, _ in _hearing())


def _hearing() -> Iterator[tuple[str, str]]:
    """Yield the settings of links that hear routers, and what they are to be for a router that hears them."""
    for link in _links("ipv6/conf"):
        name = f"ipv6/conf/{link}/accept_ra"
        if (
            link != "all"
            and links.read_sysctl(name) == "1"
            and links.read_sysctl(f"ipv6/conf/{link}/forwarding") == "0"
        ):
            yield name, "2"


def _links(place: str) -> list[str]:
    try:
        return os.listdir(f"{_CONF}/{place}")
    except FileNotFoundError:
        return []
