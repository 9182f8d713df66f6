"""The routes of BuildKit's API: two connections that become HTTP/2, one for a client's session, one for its builds.

Source: moby's api/server/router/session, api/server/router/grpc; moby/buildkit, session/manager.go.
"""

from __future__ import annotations

from ..docker.door import Door, Status
from .http2 import library

_EXPOSED = "X-Docker-Expose-Session-"
NAME_CHARACTERS_MAX = 200
METHODS_MAX = 100


def session(door: Door) -> None:
    """Carry a client's session: from here on we call, and it answers."""
    name = door.headers.get(f"{_EXPOSED}Uuid", "")
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise Status(400, "no session id in request")
    methods = tuple((door.headers.get_all(f"{_EXPOSED}Grpc-Method") or ())[:METHODS_MAX])
    _check(door)
    client, ahead = door.hijack({})
    door.context.buildkit.carry_session(name, door.headers.get(f"{_EXPOSED}Sharedkey", ""), methods, client, ahead)


def control(door: Door) -> None:
    """Serve BuildKit's control API on the connection."""
    _check(door)
    client, ahead = door.hijack({})
    door.context.buildkit.serve(client, ahead)


def _check(door: Door) -> None:
    if door.headers.get("Upgrade", "") != "h2c":
        raise Status(400, "no upgrade proto in request")
    library()  # while the connection is HTTP still, the answer can be an error


ROUTES = (("POST", "/session", session), ("POST", "/grpc", control))
