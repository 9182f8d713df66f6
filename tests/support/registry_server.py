"""Registries for one test, ours and Debian's docker-registry, each a process on loopback, and raw requests to them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .engine import COMMAND, Environment

READY_S_MAX = 30.0
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


class Answer:
    """An HTTP answer. codes: of the distribution specification's errors, in order."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, {name.lower(): value for name, value in headers.items()}, body

    @property
    def codes(self) -> list[str]:
        return [error["code"] for error in json.loads(self.body)["errors"]]

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:500]!r}"


class Registry:
    """A running registry. Every request is a connection of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.host = f"127.0.0.1:{port}"

    def __call__(self, method: str, path: str, body: bytes | Iterator[bytes] = b"", **headers: str) -> Answer:
        """Send one request; the keywords are headers with _ for -. An iterator as the body is sent in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method,
                path,
                body,
                {name.replace("_", "-"): value for name, value in headers.items()},
                encode_chunked=not isinstance(body, bytes),
            )
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Send bytes, end the sending side, and return all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as stream:
            stream.sendall(request)
            stream.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: stream.recv(65536), b""))

    def upload(self, name: str, content: bytes, digest: str) -> Answer:
        """Push a blob in two requests, as docker does."""
        started = self("POST", f"/v2/{name}/blobs/uploads/")
        place = re.sub(r"^http://[^/]*", "", started.headers["location"])
        sent = self("PATCH", place, content, Content_Type="application/octet-stream")
        place = re.sub(r"^http://[^/]*", "", sent.headers["location"])
        return self("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@contextmanager
def ours(root: Path, *flags: str, port: int = 0) -> Iterator[Registry]:
    """Run `./orlop registry serve`; on a free port unless one is given."""
    argv = [COMMAND, "registry", "serve", "--root", root, "--address", f"127.0.0.1:{port}", *flags]
    environment = os.environ | {"ORLOP_ROOT": str(root / "unused"), "ORLOP_RUN": str(root / "unused")}
    log = root.parent / "registry.log"
    with (
        log.open("ab") as errors,
        subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            assert line, log.read_text()
            yield Registry(process, int(line.rpartition(":")[2]))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


@contextmanager
def beside(orlop: Environment, root: Path, *flags: str) -> Iterator[str]:
    """Run `./orlop registry serve` where an engine of the tests is; yield its address."""
    words = [str(COMMAND), "registry", "serve", "--root", str(root), "--address", "127.0.0.1:0", *flags]
    server = orlop.inside(lambda: subprocess.Popen(words, env=orlop.variables, stdout=subprocess.PIPE))
    assert server.stdout is not None
    try:
        yield f"127.0.0.1:{int(server.stdout.readline().rpartition(b':')[2])}"
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


@contextmanager
def theirs(program: Path, directory: Path) -> Iterator[Registry]:
    """Run Debian's docker-registry."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\nstorage:\n"
        f"  filesystem: {{rootdirectory: {directory}/data}}\n  delete: {{enabled: true}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (
        (directory / "log").open("wb") as errors,
        subprocess.Popen([program, "serve", config], stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        try:
            _await(port, process)
            yield Registry(process, port)
        finally:
            process.terminate()
            process.wait(30)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the registry does not answer")
