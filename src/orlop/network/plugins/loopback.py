"""`lo`, brought up."""

from __future__ import annotations

import os

from ...linux.netlink import namespace
from ...linux.netlink.rtnetlink import Rtnetlink
from .request import OWN, Call, PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .request import Json

_LINK = "lo"


def add(call: Call) -> Json:
    """Bring it up, and tell of its addresses; a result from before stays what it is."""
    found = _each(call, True)
    if call.previous:
        return call.previous
    return {
        "interfaces": [{"name": _LINK, "mac": "00:00:00:00:00:00", "sandbox": call.netns}],
        "ips": [{"address": address, "interface": 0} for address in found],
    }


def delete(call: Call) -> None:
    """Bring it down, if its namespace is still there."""
    try:
        _each(call, False)
    except FileNotFoundError:
        pass


def check(call: Call) -> None:
    """See that it is up."""
    fd = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside:
            own = inside.link(_LINK)
    finally:
        os.close(fd)
    if own is None or not own.is_up:
        raise PluginError(OWN, "loopback interface is down")


def nothing(call: Call) -> None:
    """There is nothing to collect, and nothing that could be missing."""


VERBS = {"ADD": add, "DEL": delete, "CHECK": check, "GC": nothing, "STATUS": nothing}


def _each(call: Call, up: bool) -> list[str]:
    """Set the link; return its addresses."""
    if not call.netns:
        return []
    fd = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(fd, Rtnetlink) as inside:
            own = inside.link(_LINK)
            if own is None:
                return []
            inside.set_link(own.index, up=up)
            found = [one for one in inside.addresses() if one.index == own.index]
            return [f"{one.address}/{one.prefix_length}" for one in found]
    finally:
        os.close(fd)
