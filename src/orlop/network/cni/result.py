"""What ADD returned, as much as a runtime looks at: untrusted, like any reply. CNI specification 1.1.0, part 5."""

from __future__ import annotations

from .. import subnet
from . import versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESSES_MAX = 64


class Address:
    """An address of the container. length: of its prefix; gateway: "" for none."""

    __slots__ = ("address", "gateway", "length")

    def __init__(self, found: Mapping[str, object]) -> None:
        """Raises ValueError for what is none."""
        text = found.get("address")
        if not isinstance(text, str):
            raise ValueError("an address is missing")
        self.length = subnet.parse(text).length
        value, bits = subnet.number(text.partition("/")[0])
        self.address = subnet.text(value, bits)
        gateway = found.get("gateway") or ""
        self.gateway = subnet.text(*subnet.number(gateway)) if isinstance(gateway, str) and gateway else ""


def addresses(result: Mapping[str, object]) -> list[Address]:
    """Return the container's addresses. Raises ValueError."""
    listed = versions.latest(result).get("ips") or []
    if not isinstance(listed, list) or len(listed) > ADDRESSES_MAX or not all(isinstance(one, dict) for one in listed):
        raise ValueError("`ips` is no list of addresses")
    return [Address(one) for one in listed]


def mac_address(result: Mapping[str, object], interface: str) -> str:
    """Return the MAC of the container's interface, "" when it is not told."""
    listed = result.get("interfaces") or []
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and one.get("name") == interface and one.get("sandbox"):
            return str(one.get("mac", ""))[:64]
    return ""
