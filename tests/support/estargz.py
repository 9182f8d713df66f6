"""Images for lazy pulls: of one eStargz layer, as a registry holds them, and a registry that has little bandwidth."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import Any

from orlop.image.parts.estargz import convert
from orlop.spec.image import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from orlop.spec.tar.estargz import FOOTER_BYTES, TOC_DIGEST, toc_offset, unpack_toc

from .registries import Content, Request

PIECE_BYTES = 64 * 1024
WHOLE_S_MAX = 120.0


def packed(tar: bytes) -> tuple[bytes, str, str]:
    """Return an archive as eStargz, its diff_id, and the digest of its table of contents."""
    out = bytearray()
    diff_id, toc = convert(io.BytesIO(tar).read, out.extend, "an archive of a test")
    return bytes(out), str(diff_id), str(toc)


def table(blob: bytes, toc: str) -> dict[str, Any]:
    """Return the table of contents of a layer."""
    from orlop.spec.digest import Digest

    begin = toc_offset(blob[-FOOTER_BYTES:], len(blob))
    found: dict[str, Any] = json.loads(unpack_toc(blob[begin:-FOOTER_BYTES], Digest(toc), "toc"))
    return found


def add_image(content: Content, tars: list[bytes], *tags: str) -> list[bytes]:
    """Add an image with an eStargz layer for each archive; return the layers' blobs."""
    layers, diff_ids, blobs = [], [], []
    for tar in tars:
        blob, diff_id, toc = packed(tar)
        layers.append({"mediaType": OCI_LAYER_GZIP, **content.blob(blob), "annotations": {TOC_DIGEST: toc}})
        diff_ids.append(diff_id)
        blobs.append(blob)
    add_manifest(content, layers, diff_ids, *tags)
    return blobs


def add_manifest(content: Content, layers: list[dict[str, Any]], diff_ids: list[str], *tags: str) -> None:
    """Add an image of layers that are there."""
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = {"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": {"Cmd": ["/bin/busybox"]}}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, **content.blob(json.dumps(config).encode())},
        "layers": layers,
    }
    content.manifest(document, *tags)


class Narrow:
    """A rule that sends blobs with so many bytes a second, all connections together.

    sent: bytes of blobs so far. whole: cleared, nothing but closed ranges is sent, and everything else waits.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self.sent = 0
        self.whole = threading.Event()
        self.whole.set()
        self._rate = bytes_per_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> bool:
        name = request.path.rpartition("/")[2]
        data = request.server.content.blobs.get(name)
        if request.command != "GET" or data is None:
            return False
        first, _, last = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not last and len(data) > PIECE_BYTES:
            self.whole.wait(WHOLE_S_MAX)
        at, end = int(first or 0), min(int(last or len(data)) + 1, len(data))
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {at}-{end - 1}/{len(data)}")
        request.send_header("Content-Length", str(end - at))
        request.end_headers()
        while at < end:
            piece = data[at : min(at + PIECE_BYTES, end)]
            at += len(piece)
            with self._lock:
                self._free_at = max(self._free_at, time.monotonic()) + len(piece) / self._rate
                wait = self._free_at - time.monotonic()
                self.sent += len(piece)
            time.sleep(max(wait, 0))
            request.wfile.write(piece)
        return True
