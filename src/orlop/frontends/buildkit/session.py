"""A client's session: what a build may ask of it while it goes on. The connection is the client's, we call on it.

Source: moby/buildkit, session/ (the headers of POST /session), auth.proto, secrets.proto, ssh.proto.
"""

from __future__ import annotations

import socket
import threading

from ...build.garbage import using
from ...spec import protobuf
from ...spec.errors import NotFound, Unavailable
from ...spec.registry import Credentials
from . import grpc
from .http2 import Broken, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ID_CHARACTERS_MAX = 200
WAIT_S_MAX = 20.0  # the client begins its session beside its build
SESSIONS_MAX = 200
READ_BYTES = 32 * 1024
_AUTH = "/moby.filesync.v1.Auth/Credentials"
_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
_AGENT_HEADER = "buildkit.ssh.id"
FILE_SYNC = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"


class Session:
    """shared_key: the same for every build of one folder by one client. methods: what the client offers."""

    def __init__(self, name: str, shared_key: str, methods: tuple[str, ...], connection: Connection) -> None:
        self.name = name
        self.shared_key = shared_key
        self.connection = connection
        self._methods = {method.lower() for method in methods}
        self._folders: dict[str, AbstractContextManager[None]] = {}

    def hold(self, directory: str) -> None:
        """Keep a folder of the client's from pruning as long as the session goes on."""
        if directory not in self._folders:
            self._folders[directory] = held = using(directory)
            held.__enter__()

    def close(self) -> None:
        """Let go of what is held."""
        while self._folders:
            self._folders.popitem()[1].__exit__(None, None, None)

    def offers(self, method: str) -> bool:
        return method.lower() in self._methods

    def credentials(self, host: str) -> Credentials | None:
        """Return what the client knows for a registry, None when it knows nothing."""
        if not self.offers(_AUTH):
            return None
        fields = protobuf.decode(self._call(_AUTH, ((1, host),)))
        user, password = protobuf.text(fields, 1), protobuf.text(fields, 2)
        return Credentials(username=user, password=password) if user or password else None

    def secret(self, name: str) -> bytes | None:
        """Return a secret, None when the client has none of that name."""
        if not self.offers(_SECRET):
            return None
        try:
            return protobuf.inner(protobuf.decode(self._call(_SECRET, ((1, name),))), 1)
        except NotFound:
            return None

    def has_agent(self, name: str) -> bool:
        """Tell whether the client has an SSH agent of that name."""
        if not self.offers(_CHECK_AGENT):
            return False
        try:
            self._call(_CHECK_AGENT, ((1, name),))
        except (NotFound, Unavailable):  # it says UNKNOWN of names that it does not know
            return False
        return True

    def agent(self, name: str) -> socket.socket:
        """Return a connection to an SSH agent of the client's. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            call = grpc.begin(self.connection, _FORWARD_AGENT, [(_AGENT_HEADER, name)])
        except Broken as error:
            ours.close()
            theirs.close()
            raise ConnectionRefusedError(str(error)) from None
        threading.Thread(target=_said, args=(call, theirs), name="ssh agent", daemon=True).start()
        threading.Thread(target=_answered, args=(call, theirs), name="ssh agent", daemon=True).start()
        return ours

    def _call(self, method: str, message: protobuf.Message) -> bytes:
        try:
            return grpc.call(self.connection, method, protobuf.encode(message))
        except grpc.Failed as error:
            kind = NotFound if error.code == grpc.NOT_FOUND else Unavailable
            raise kind("ask", "the client of the build", error.text) from None
        except (Broken, ValueError) as error:
            raise Unavailable("ask", "the client of the build", str(error)) from None


def _said(call: grpc.Outgoing, sock: socket.socket) -> None:
    """Carry what a step says to the client's agent."""
    try:
        while data := sock.recv(READ_BYTES):
            call.send(protobuf.encode(((1, data),)))
        call.end()
    except (OSError, Broken, grpc.Failed):
        call.stream.reset()


def _answered(call: grpc.Outgoing, sock: socket.socket) -> None:
    """Carry what the client's agent answers; the connection ends with it."""
    try:
        for message in call.messages():
            sock.sendall(protobuf.inner(protobuf.decode(message), 1))
    except (OSError, Broken, grpc.Failed, ValueError):
        call.stream.reset()
    finally:
        try:
            sock.shutdown(socket.SHUT_RDWR)  # wakes recv(2)
        except OSError:
            pass
        sock.close()


class Sessions:
    """Those that are open, by their names."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[str, Session] = {}

    def carry(self, name: str, shared_key: str, methods: tuple[str, ...], sock: socket.socket, ahead: bytes) -> None:
        """Carry a session until its connection ends. Raises Unavailable when there are too many."""
        connection = Connection(sock, is_client=True, ahead=ahead)
        with self._changed:
            if len(self._open) >= SESSIONS_MAX:
                raise Unavailable("open", "a session", f"there are {SESSIONS_MAX} already", hint="end some builds")
            session = self._open[name] = Session(name, shared_key, methods, connection)
            self._changed.notify_all()
        try:
            connection.run()
        finally:
            with self._changed:
                self._open.pop(name, None)
            session.close()

    def find(self, name: str) -> Session:
        """Return a session, waiting for it a while. Raises NotFound."""
        with self._changed:
            self._changed.wait_for(lambda: name in self._open, WAIT_S_MAX)
            found = self._open.get(name)
        if found is None:
            raise NotFound("find", f"session {name[:60]}", f"no active session for {name[:60]}")
        return found
