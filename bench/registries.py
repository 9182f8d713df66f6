"""Registry servers, ours and Debian's docker-registry, with the same blob, which eight clients fetch at once."""

from __future__ import annotations

import hashlib
import http.client
import re
import shlex
from contextlib import ExitStack

from devtools import peers
from devtools.failure import Failure
from support import registry_server

from .measure import Subject
from .workspace import Workspace

BLOB_BYTES = 200 * 1024 * 1024
CLIENTS = 8
_PIECE = bytes(range(256)) * 4096


def subjects(work: Workspace, stack: ExitStack) -> list[Subject]:
    """Return a subject for each server; they run until the stack is closed. Raises Failure."""
    curl, theirs = peers.find("curl"), peers.find("docker-registry")
    if curl is None or theirs is None:
        raise Failure("curl or docker-registry is missing")
    servers = {
        "orlop registry serve": stack.enter_context(registry_server.ours(work.path("registry") / "root")),
        "docker-registry": stack.enter_context(registry_server.theirs(theirs, work.path("docker-registry"))),
    }
    found = []
    for name, server in servers.items():
        url = f"http://{server.host}/v2/bench/blobs/{_fill(server.port)}"
        fetch = f"{shlex.quote(str(curl))} -fs -o /dev/null {url} &"
        script = "\n".join([*[fetch] * CLIENTS, "wait"])
        found.append(Subject(name, ["/bin/sh", "-c", script], work.environment()))
    return found


def _fill(port: int) -> str:
    """Push the blob and return its digest."""
    hashed = hashlib.sha256()
    for _ in range(BLOB_BYTES // len(_PIECE)):
        hashed.update(_PIECE)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v2/bench/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    place = re.sub(r"^http://[^/]*", "", answer.getheader("Location", ""))
    digest = f"sha256:{hashed.hexdigest()}"
    pieces = (_PIECE for _ in range(BLOB_BYTES // len(_PIECE)))
    headers = {"Content-Length": str(BLOB_BYTES)}
    connection.request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", pieces, headers)
    status = connection.getresponse().status
    connection.close()
    if status != 201:
        raise Failure(f"the registry at port {port} answered {status} to a push")
    return digest
