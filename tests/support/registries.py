"""Registries for tests: one that answers as a table says, however false, and Debian's own."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orlop.spec.image import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST

READY_S_MAX = 30.0
T = TypeVar("T")


class Near(Protocol):
    """Whoever has a network that something may be started in."""

    def inside(self, work: Callable[[], T], /) -> T: ...


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Content:
    """An image as a registry holds it: blobs by digest, manifests by digest and tag."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}

    def blob(self, data: bytes) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    def manifest(self, document: dict[str, Any] | bytes, *tags: str, media_type: str = OCI_MANIFEST) -> dict[str, Any]:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        for name in (digest(data), *tags):
            self.manifests[name] = (media_type, data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def image(
        self, tar: bytes, packed: bytes, *tags: str, platform: str = "linux/amd64", media_type: str = OCI_MANIFEST
    ) -> dict[str, Any]:
        """Add an image of one layer; return its manifest's descriptor."""
        os_name, architecture, *variant = platform.split("/")
        config = {
            "os": os_name,
            "architecture": architecture,
            **({"variant": variant[0]} if variant else {}),
            "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
            "config": {"Cmd": ["sh"]},
        }
        layer = {"mediaType": OCI_LAYER_GZIP, **self.blob(packed)}
        document = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": OCI_CONFIG, **self.blob(json.dumps(config).encode())},
            "layers": [layer],
        }
        if media_type == DOCKER_MANIFEST:
            document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"  # type: ignore[index]
            layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        return self.manifest(document, *tags, media_type=media_type)

    def layered(self, trees: Sequence[bytes], *tags: str) -> dict[str, Any]:
        """Add an image with a layer for each archive, the base first; return its manifest's descriptor."""
        rootfs = {"type": "layers", "diff_ids": [digest(tree) for tree in trees]}
        config = {"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": {"Cmd": ["sh"]}}
        layers = [{"mediaType": OCI_LAYER_GZIP, **self.blob(gzip.compress(tree, 1, mtime=0))} for tree in trees]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, **self.blob(json.dumps(config).encode())},
            "layers": layers,
        }
        return self.manifest(document, *tags)

    def index(self, manifests: list[dict[str, Any]], *tags: str) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return self.manifest(document, *tags, media_type=OCI_INDEX)


class Request(BaseHTTPRequestHandler):
    """One request to a `Registry`; `answer` is what its table gives back, with short words for common answers."""

    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        try:
            for rule in self.server.rules:
                if rule(self):
                    return
            self.honest()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

    def reply(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """Answer; header names are written with underscores. Returns True: the request is done."""
        self.send_response(status)
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | named).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def honest(self) -> bool:
        """Answer as a registry does."""
        content = self.server.content
        kind, _, name = self.path.partition("?")[0].rpartition("/")
        if self.path == "/v2/":
            return self.reply(200, b"{}")
        if kind.endswith("/manifests") and name in content.manifests:
            media_type, data = content.manifests[name]
            return self.reply(200, data, content_type=media_type, docker_content_digest=digest(data))
        if kind.endswith("/blobs") and name in content.blobs:
            data = content.blobs[name]
            first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            if not first:
                return self.reply(200, data)
            end = min(int(last or len(data)) + 1, len(data))
            return self.reply(206, data[int(first) : end], content_range=f"bytes {first}-{end - 1}/{len(data)}")
        return self.reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')


Rule = Callable[[Request], bool]


class Registry(ThreadingHTTPServer):
    """A registry on loopback. rules: asked first, in turn; one that returns True has answered."""

    daemon_threads = True

    def __init__(
        self, content: Content, *rules: Rule, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__((host, 0), Request)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.content = content
        self.rules = list(rules)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return f"{self.server_address[0]!s}:{self.server_address[1]}"

    def fetched(self, part: str) -> int:
        """Return how many GET requests had this in their path."""
        return sum(method == "GET" and part in path for method, path, _ in self.requests)

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


def handle_error(*_: object) -> None:
    """A client that leaves in the middle is what these tests do."""


Registry.handle_error = handle_error  # type: ignore[method-assign,assignment]

CONFIGURATION = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: "of a test"}}
{more}
"""


@contextmanager
def debian_registry(program: Path, place: Path, near: Near, more: str = "") -> Iterator[str]:
    """Run docker-registry with its data below place, in the network of an engine; yield its host and port."""
    place.mkdir(parents=True, exist_ok=True)
    port = near.inside(_free_port)
    configuration = place / "config.yml"
    configuration.write_text(CONFIGURATION.format(root=place / "data", port=port, more=more))
    with (place / "log").open("wb") as log:
        started = near.inside(
            lambda: subprocess.Popen(
                [program, "serve", configuration], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        )
    try:
        near.inside(lambda: _wait_for_port(port, started, place / "log"))
        yield f"127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait(READY_S_MAX)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


class Cutter:
    """A TCP proxy in front of a registry that cuts a connection after it has carried so many bytes to it, some times.

    Start it where both ends can be reached: `Environment.inside`.
    """

    def __init__(self, target: str, after_bytes: int, times: int) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._after, self._times = after_bytes, times
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._ends: list[socket.socket] = []
        # Sockets belong to the network they are made in, and threads to that of their maker.
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._ends += [near, far]
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        carried = 0
        try:
            while data := source.recv(65536):
                carried += len(data)
                if counted and carried > self._after and self.cuts < self._times:
                    self.cuts += 1
                    time.sleep(0.2)  # what was sent is stored by now
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        # A listener that another thread waits on is woken by shutdown, not by close.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for end in self._ends:
            end.close()
