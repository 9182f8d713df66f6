"""BuildKit's control API, for `docker buildx build` and Compose: gRPC on connections that docker's API has hijacked.

    http2      streams of HTTP/2 on a socket, either side of it (by the library h2)
    grpc       calls on them: frames, statuses, metadata
    session    the client's side of a build: its folders (filesync), secrets and credentials
    status     what a build tells, as BuildKit's vertices and logs
    control    the services Control and LLBBridge, on the verb `build`
    outputs    what goes back to the client: archives and folders

A build is the engine's own (orlop.build); this door only translates. Source: moby/buildkit's control.proto,
gateway.proto, filesync.proto and fsutil's wire.proto, as buildx 0.13 to 0.29 speak them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from ...engine.engine import Engine


class BuildKit:
    """The sessions and builds of one engine's clients."""

    def __init__(self, engine: Engine) -> None:
        from .control import Control
        from .session import Sessions

        self._sessions = Sessions()
        self._control = Control(engine, self._sessions)

    def serve(self, sock: socket.socket, ahead: bytes) -> None:
        """Serve the control API on a connection until it ends. Raises Unavailable without the library h2."""
        from .http2 import Connection

        Connection(sock, is_client=False, handle=self._control.serve, ahead=ahead).run()

    def carry_session(
        self, name: str, shared_key: str, methods: tuple[str, ...], sock: socket.socket, ahead: bytes
    ) -> None:
        """Carry a client's session on a connection until it ends. Raises Unavailable."""
        self._sessions.carry(name, shared_key, methods, sock, ahead)
