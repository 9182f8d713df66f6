"""Sockets that speak docker's API with less power: what is asked for, and what is kept."""

from ...spec.record import Record


class SocketRequest(Record):
    """`orlop socket create`. allow: "containers:list,inspect" or "containers:*"; nothing else is allowed.

    labels: what every container, volume and network that it sees has, and that it makes gets. ttl_s: 0 is until it is
    removed. reveal: environments are told as they are. uids: who may connect beside the engine's own user and root.
    """

    strict = True
    name: str
    allow: tuple[str, ...]
    labels: dict[str, str] = {}
    ttl_s: int = 0
    reveal: bool = False
    uids: tuple[int, ...] = ()


class SocketRecord(Record):
    """socket.json. rights: "containers:list", sorted. expires_at_ns: since 1970, 0 is never."""

    name: str
    rights: tuple[str, ...]
    labels: dict[str, str] = {}
    created_at: str
    expires_at_ns: int = 0
    reveal: bool = False
    uids: tuple[int, ...] = ()
