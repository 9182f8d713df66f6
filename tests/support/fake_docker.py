"""A Docker API that answers from a table, for driving the real docker CLI: what it sends is recorded.

Only what the CLI asks for in `create`, `ps`, `images` and `inspect` is here.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

API_VERSION = "1.50"


class FakeDocker:
    """A context manager. answers: path below /vN.NN -> JSON; created: (query, body) of each container that was made."""

    def __init__(self, program: Path, answers: Mapping[str, object] | None = None) -> None:
        self.program = program
        self.answers = dict(answers or {})
        self.created: list[tuple[dict[str, list[str]], dict[str, Any]]] = []

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="fake-docker-", dir="/tmp")
        self._socket = f"{self._directory.name}/docker.sock"
        outer = self

        class Handler(_Handler):
            docker = outer  # type: ignore[assignment]

        self._server = socketserver.ThreadingUnixStreamServer(self._socket, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._directory.cleanup()

    def __call__(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `docker args` against this API, with an empty configuration and no standard input."""
        variables = {
            "PATH": os.defpath,
            "HOME": self._directory.name,
            "DOCKER_CONFIG": self._directory.name,
            "DOCKER_HOST": f"unix://{self._socket}",
        }
        return subprocess.run(
            [self.program, *args],
            env=variables | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def create_body(
        self, args: Sequence[str], env: Mapping[str, str] | None = None
    ) -> tuple[dict[str, list[str]], dict[str, Any]] | None:
        """Return the (query, body) that `docker create args` sends; None when it refuses before it sends anything."""
        self.created.clear()
        self("create", *args, env=env)
        return self.created[-1] if self.created else None


class _Handler(BaseHTTPRequestHandler):
    docker: FakeDocker
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(200, None)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        name = "/" + path.lstrip("/").partition("/")[2] if path.startswith("/v1.") else path
        if name == "/_ping":
            self._answer(200, None)
        elif name in self.docker.answers:
            self._answer(200, self.docker.answers[name])
        else:
            self._answer(404, {"message": f"No such object: {name}"})

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if url.path.endswith("/containers/create"):
            self.docker.created.append((parse_qs(url.query), body))
            self._answer(201, {"Id": "c" * 64, "Warnings": []})
        else:
            self._answer(404, {"message": "page not found"})

    def _answer(self, status: int, value: object) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def address_string(self) -> str:
        return "cli"

    def log_message(self, *_: object) -> None:
        pass
