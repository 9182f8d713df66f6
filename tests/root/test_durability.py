"""What is visible has survived a power failure: the order of the calls that promise it, seen from outside (strace)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Peer = Callable[[str], Path]

SCRIPT = """
import io, sys
from orlop.content import Store
from orlop.image import Images
from orlop.snapshot import Snapshots
from support.archives import Archive
images = Images(Store(sys.argv[1] + "/content"))
snapshots = Snapshots(sys.argv[1] + "/snapshots")
image = images.import_tar(io.BytesIO(bytes(Archive().file(b"a/b"))), "x")
snapshots.unpack(images.layer_openers(image))
"""


def calls(peer: Peer, directory: Path) -> list[str]:
    """Return the calls that matter, each with the paths it is about, in order."""
    trace = directory / "trace"
    wanted = "fsync,fdatasync,syncfs,rename,renameat,renameat2"
    strace = [peer("strace"), "-f", "-y", "-s", "300", "-o", trace, "-e", f"trace={wanted}"]
    subprocess.run(
        [*strace, sys.executable, "-c", SCRIPT, directory], env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=True
    )
    lines = trace.read_text().splitlines()
    return [re.sub(r"^\d+ +", "", line).replace(str(directory), "") for line in lines if "(" in line]


def test_blobs_names_and_layers_are_durable_before_they_are_visible(tmp_path: Path, peer: Peer) -> None:
    seen = calls(peer, tmp_path)

    def at(pattern: str, start: int = 0) -> int:
        for index in range(start, len(seen)):
            if re.search(pattern, seen[index]):
                return index
        raise AssertionError(f"{pattern} does not come after call {start} of\n" + "\n".join(seen))

    renamed = [index for index, call in enumerate(seen) if re.search(r"rename.*/content/ingest/.*blobs/sha256", call)]
    assert len(renamed) == 3  # layer, configuration, manifest
    for index in renamed:
        name = re.search(r"/content/ingest/([0-9a-f]{32})", seen[index])
        assert name is not None
        assert at(rf"fsync\(\d+</content/ingest/{name[1]}>") < index
        assert index < at(r"fsync\(\d+</content/blobs/sha256>", index)
    manifest_durable = at(r"fsync\(\d+</content/blobs/sha256>", renamed[-1])
    index_written = at(r"fsync\(\d+</content/index.json.new>", manifest_durable)
    index_renamed = at(r"rename.*index.json.new.*index.json", index_written)
    at(r"fsync\(\d+</content>", index_renamed)
    synced = at(r"syncfs\(\d+</snapshots/unpacking/")
    layer_renamed = at(r"rename.*/snapshots/unpacking/.*/snapshots/layers/", synced)
    at(r"fsync\(\d+</snapshots/layers>", layer_renamed)
