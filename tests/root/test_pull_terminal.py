"""What a pull shows on a terminal: a line for each layer that is written over, docker's last lines below."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable

from support.archives import Archive
from support.engine import Environment
from support.registries import Content, Registry, Request
from support.terminal import Terminal

TAR = bytes(Archive().file(b"f", os.urandom(3_000_000)))


def test_layers_are_written_over(orlop: Environment, terminal: Callable[..., Terminal]) -> None:
    content = Content()
    content.image(TAR, gzip.compress(TAR, 1), "1")

    def slow(request: Request) -> bool:
        name = request.path.rpartition("/")[2]
        if request.command != "GET" or "blobs" not in request.path or len(content.blobs[name]) < 100_000:
            return False
        data = content.blobs[name]
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        half = len(data) // 2
        request.wfile.write(data[:half])
        time.sleep(1)  # longer than the engine waits between two looks
        request.wfile.write(data[half:])
        return True

    with orlop.inside(lambda: Registry(content, slow)) as registry:
        orlop("info")  # the engine runs, in the network of the registry
        shown = orlop.inside(lambda: terminal("pull", f"{registry.name}/lib/x:1", columns=120))
        shown.expect("1: Pulling from lib/x\r\n")
        shown.expect("\x1b[2K")
        shown.expect("Downloading [=====")
        shown.expect("Pull complete")
        shown.expect("Digest: sha256:")
        shown.expect(f"Status: Downloaded newer image for {registry.name}/lib/x:1\r\n")
