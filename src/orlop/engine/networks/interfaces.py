"""What a client asks of the interface that leads to a network: its name, sysctls of its own, addresses of the link."""

from __future__ import annotations

import os

from ...linux.netlink import namespace
from ...linux.netlink.rtnetlink import IFA_F_NODAD
from ...network import links, subnet
from ...spec.errors import Invalid, Unsupported
from . import cni

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ...linux.netlink.rtnetlink import Rtnetlink
    from ...spec.network import Endpoint, EndpointRequest, Network

OPTION_NAME = "com.docker.network.endpoint.ifname"
OPTION_SYSCTLS = "com.docker.network.endpoint.sysctls"
OPTION_PREFIX = "com.docker.network.container_iface_prefix"  # of a network
PREFIX_DEFAULT = "eth"
PREFIX_LENGTH_MAX = 11  # and a number
LINK_LOCAL = {32: subnet.parse("169.254.0.0/16"), 128: subnet.parse("fe80::/64")}
_OWN = "com.docker.network.endpoint."
_STACKS = frozenset(("ipv4", "ipv6", "mpls"))
_HINT_SYSCTL = "write it as net.ipv4.conf.IFNAME.log_martians=1"


def check(network: Network, wish: EndpointRequest, subject: str) -> None:
    """Raise Invalid or Unsupported for what no interface in this network can be."""
    for key in wish.options:
        if key.startswith(_OWN) and key not in (OPTION_NAME, OPTION_SYSCTLS):
            cause = f"the option {key[:80]} is not known"
            raise Unsupported("connect", subject, cause, hint=f"known are {OPTION_NAME} and {OPTION_SYSCTLS}")
    if OPTION_NAME in wish.options:
        check_name(wish.options[OPTION_NAME], links.NAME_LENGTH_MAX, subject)
    for _ in _sysctls(wish, subject):
        pass
    for address in wish.link_local:
        try:
            value, bits = subnet.number(address)
        except ValueError as wrong:
            hint = "give --link-local-ip an address such as 169.254.7.7"
            raise Invalid("connect", subject, str(wrong), hint=hint) from None
        if not LINK_LOCAL[bits].first <= value <= LINK_LOCAL[bits].last:
            cause = f"{address} is no link-local address"
            raise Invalid("connect", subject, cause, hint=f"choose one in {LINK_LOCAL[bits]}")
    if network.driver == cni.DRIVER and (wish.link_local or OPTION_SYSCTLS in wish.options):
        cause = "plugins make its interface: it can't have link-local addresses or sysctls of ours"
        raise Unsupported("connect", subject, cause, hint="write them into the network's configuration")


def check_name(name: str, length_max: int, subject: str) -> None:
    """Raise Invalid for what no interface of a container can be called, dev_valid_name() of the kernel."""
    plain = name.isprintable() and not set(" /:%") & set(name) and name not in (".", "..", "lo", "all", "default")
    if not name or len(name.encode()) > length_max or not plain:
        cause = f"invalid name of an interface: {name[:60]!r}"
        raise Invalid("connect", subject, cause, hint=f"use at most {length_max} letters and digits")


def name(network: Network, wish: EndpointRequest, taken: Collection[str], subject: str) -> str:
    """Return how an interface is called: as was asked, else the first name that is free. Raises Invalid."""
    asked = wish.options.get(OPTION_NAME, "")
    if asked:
        if asked in taken:
            cause = f"two interfaces can't be called {asked}"
            raise Invalid("connect", subject, cause, hint="choose another name, or none")
        return asked
    prefix = network.options.get(OPTION_PREFIX, "") or PREFIX_DEFAULT
    return next(found for found in (f"{prefix}{number}" for number in range(len(taken) + 1)) if found not in taken)


def settle(inside: Rtnetlink, netns: int, endpoint: Endpoint, wish: EndpointRequest) -> None:
    """Give an interface that is there its link-local addresses and its sysctls. Raises OSError."""
    if not wish.link_local and OPTION_SYSCTLS not in wish.options:
        return
    own = inside.link(endpoint.interface)
    assert own is not None
    settings = [(f"{stack}/{part}/{endpoint.interface}/{key}", value) for stack, part, key, value in _sysctls(wish, "")]
    if any(":" in address for address in wish.link_local):
        settings.insert(0, (f"ipv6/conf/{endpoint.interface}/disable_ipv6", "0"))
    if settings:
        namespace.inside(netns, lambda: _write(settings))
    for address in wish.link_local:
        _, bits = subnet.number(address)
        inside.add_address(own.index, address, LINK_LOCAL[bits].length, IFA_F_NODAD)


def _write(settings: list[tuple[str, str]]) -> None:
    for place, value in settings:
        write_sysctl(place, value)


def write_sysctl(place: str, value: str) -> None:
    """Write a setting below net/ of the calling thread's network namespace. Raises OSError."""
    fd = os.open(f"/proc/sys/net/{place}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _sysctls(wish: EndpointRequest, subject: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (stack, part, key, value) of "net.STACK.PART.IFNAME.KEY=VALUE,...". Raises Invalid."""
    text = wish.options.get(OPTION_SYSCTLS, "")
    for one in text.split(",") if text else ():
        key, equals, value = one.strip().partition("=")
        parts = key.split(".")
        if (
            len(parts) != 5
            or parts[0] != "net"
            or parts[1] not in _STACKS
            or parts[3].upper() != "IFNAME"  # docker's client makes small letters of it
            or not all(part.replace("_", "a").isalnum() and part.isascii() for part in (parts[2], parts[4]))
            or not equals
            or not value.isprintable()
        ):
            raise Invalid("connect", subject, f"invalid sysctl of an interface: {one[:80]!r}", hint=_HINT_SYSCTL)
        yield parts[1], parts[2], parts[4], value
