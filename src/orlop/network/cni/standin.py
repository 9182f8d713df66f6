"""DEL of a container whose namespace is gone, for plugins that read in there what they have to take back.

The reference plugins bridge and ptp masquerade by a chain for each address, and find the addresses on the container's
interface only: without a namespace they leave the chain behind. They get one in which such an interface is.
"""

from __future__ import annotations

import os

from ...linux.netlink import rtnetlink
from ...spec.errors import Internal
from .. import links
from . import client
from .result import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .client import Place
    from .conflist import Conflist
    from .plugin import Plugins

_READERS = frozenset(("bridge", "ptp"))
_PEER = "stand-in"


def delete(plugins: Plugins, network: Conflist, place: Place, result: Mapping[str, object]) -> None:
    """Disconnect a container, whether its namespace is there or not. Raises as `client.delete`."""
    client.delete(plugins, network, place, result)
    readers = [one for one in network.plugins if one["type"] in _READERS and one.get("ipMasq") is True]
    if place.netns or not readers:
        return
    try:
        found = addresses(result)
        fd, inside = links.new_namespace()
    except (ValueError, OSError) as wrong:
        raise Internal("disconnect", f"CNI network {network.name}", f"no namespace for its plugins: {wrong}") from None
    try:
        with inside:
            inside.add_link(place.interface, rtnetlink.veth(_PEER))
            own = inside.link(place.interface)
            assert own is not None
            for one in found:
                inside.add_address(own.index, one.address, one.length)
        again = client.Place(
            place.container, place.interface, f"/proc/{os.getpid()}/fd/{fd}", place.capabilities, place.args
        )
        for plugin in reversed(readers):
            client.delete_of(plugins, network, plugin, (again, result))
    except OSError as wrong:
        raise Internal("disconnect", f"CNI network {network.name}", f"no stand-in for its plugins: {wrong}") from None
    finally:
        os.close(fd)
