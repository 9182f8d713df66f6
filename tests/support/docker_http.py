"""Raw requests to a socket that speaks docker's Engine API: what no SDK would send, and what every SDK hides."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.workspace import Workspace

from .engine import Environment
from .pace import SLOW

TIMEOUT_S = 90.0 * SLOW


class Answer:
    """An HTTP answer, read whole."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, {name.lower(): value for name, value in headers.items()}, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What the answer of a failed request says."""
        return str(self.json["message"])

    def __repr__(self) -> str:
        return f"{self.status} {self.headers.get('content-type')} {self.body[:2000]!r}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, place: Path) -> None:
        super().__init__("docker", timeout=TIMEOUT_S)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._place))
        self.sock.settimeout(TIMEOUT_S)


class Api:
    """One daemon's API. Every request is a connection of its own. version "" asks without one in the path."""

    def __init__(self, place: Path, version: str = "v1.50") -> None:
        self.place, self.prefix = place, f"/{version}" if version else ""

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request: bytes as they are, anything else but None as JSON. Keywords are headers, _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = _Connection(self.place)
        try:
            try:
                connection.request(method, self.prefix + path, body, sent)
            except BrokenPipeError:
                pass  # it was refused before it was read; the answer is there
            answer = http.client.HTTPResponse(connection.sock, method=method)
            answer.begin()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """Return a connection for what is no HTTP."""
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(str(self.place))  # waits for a place in the listener's queue; with a timeout it would not
        stream.settimeout(TIMEOUT_S)
        return stream


@contextmanager
def box_engine() -> Iterator[Environment]:
    """An engine of its own with busybox as the image box:1, proven empty at the end."""
    with Workspace() as work:
        environment = Environment(work.path("o") / "root")
        try:
            environment("import", str(work.archive()), "box:1")
            yield environment
        finally:
            left = environment.close()
        assert not left, left


def tar_of(name: str, content: bytes) -> bytes:
    """Return an archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def auth_header(user: str, password: str, server: str = "") -> str:
    """Return X-Registry-Auth of a user."""
    fields = {"username": user, "password": password, "serveraddress": server}
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
