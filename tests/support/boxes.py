"""Containers as hosts of a test's network: sockets that the test itself opens inside them, without a program there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from orlop.linux.netlink import namespace

from .engine import Environment
from .netns import Netns

T = TypeVar("T")
ANSWER_S_MAX = 20.0
SILENCE_S = 1.0  # how long nothing must come where nothing may come
REFUSAL_S = 0.5  # how long no connection must stand: kernels make them, however busy the programs are


class Box:
    """A running container: `sleep`, in networks as the arguments of run say."""

    def __init__(self, orlop: Environment, *args: str) -> None:
        self.orlop = orlop
        self.id = orlop("run", "-d", *args, "host", "sleep", "1000").stdout.strip()
        self.fd = -1
        self.open()

    def open(self) -> None:
        """Look for its namespace: after a start."""
        self.close()
        pid = self.inspect("{{.State.Pid}}")
        self.fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def inspect(self, form: str) -> str:
        return self.orlop("inspect", "-f", form, self.id).stdout.strip()

    def address(self, network: str = "bridge", key: str = "IPAddress") -> str:
        return self.inspect(f'{{{{(index .NetworkSettings.Networks "{network}").{key}}}}}')

    def inside(self, work: Callable[[], T]) -> T:
        return namespace.inside(self.fd, work)

    def read(self, path: str) -> str:
        return self.orlop("exec", self.id, "cat", path).stdout

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Server:
    """Answers each TCP client, or each datagram, with the client's address. peers: who came."""

    def __init__(
        self,
        place: Box | Netns,
        port: int,
        *,
        kind: int = socket.SOCK_STREAM,
        family: int = socket.AF_INET,
        address: str = "",
    ):
        self.peers: list[str] = []
        self._socket = place.inside(lambda: socket.socket(family, kind))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        if kind == socket.SOCK_STREAM:
            self._socket.listen(64)
        self._stream = kind == socket.SOCK_STREAM
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                if self._stream:
                    client, peer = self._socket.accept()
                    self.peers.append(peer[0])
                    with client:
                        client.sendall(peer[0].encode())
                else:
                    _, peer = self._socket.recvfrom(100)
                    self.peers.append(peer[0])
                    self._socket.sendto(peer[0].encode(), peer)
        except OSError:
            return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR) if self._stream else None
        self._socket.close()


def ask(
    place: Box | Netns,
    address: str,
    port: int,
    *,
    kind: int = socket.SOCK_STREAM,
    connect_s: float = ANSWER_S_MAX,
    wait_s: float = ANSWER_S_MAX,
) -> str:
    """Return whom the server at that place sees, "" when nobody answers or the connection is refused."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def go() -> str:
        with socket.socket(family, kind) as client:
            client.settimeout(connect_s)
            try:
                client.connect((address, port))
                client.settimeout(wait_s)
                if kind == socket.SOCK_DGRAM:
                    client.send(b"?")
                return client.recv(100).decode()
            except OSError:
                return ""

    return place.inside(go)


def silent(place: Box | Netns, address: str, port: int, *, kind: int = socket.SOCK_STREAM) -> bool:
    """Tell whether nobody answers there."""
    wait_s = ANSWER_S_MAX if kind == socket.SOCK_STREAM else SILENCE_S
    return not ask(place, address, port, kind=kind, connect_s=REFUSAL_S, wait_s=wait_s)


@contextmanager
def serving(place: Box | Netns, port: int, **how: Any) -> Iterator[Server]:
    server = Server(place, port, **how)
    try:
        yield server
    finally:
        server.close()
