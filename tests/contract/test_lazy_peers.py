"""Images that can be read in part, between our writer, Debian's docker-registry, skopeo and a lazy run."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import processes
from support.archives import Archive
from support.engine import Environment
from support.pace import SLOW
from support.registries import debian_registry

Peer = Callable[[str], Path]
WANTED = random.Random(1).randbytes(300_000)


@pytest.mark.usefixtures("trusting")
def test_an_image_is_converted_pushed_checked_by_skopeo_and_run_lazily(
    orlop: Environment, peer: Peer, tmp_path: Path
) -> None:
    busybox = peer("busybox").read_bytes()
    tree = Archive().directory(b"bin", mode=0o755).file(b"bin/busybox", busybox, mode=0o755).file(b"wanted", WANTED)
    (tmp_path / "root.tar").write_bytes(bytes(tree.file(b"rest", random.Random(2).randbytes(3_000_000))))
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as host:
        plain, lazy = f"{host}/lib/x:plain", f"{host}/lib/x:lazy"
        orlop("import", str(tmp_path / "root.tar"), plain)
        orlop("push", plain)
        orlop("image", "copy", "--compression", "estargz", f"docker://{plain}", f"docker://{lazy}")
        orlop("rmi", plain)
        kept = tmp_path / "kept"
        skopeo = [str(peer("skopeo")), "copy", "--src-tls-verify=false", f"docker://{lazy}", f"dir:{kept}"]
        orlop.inside(lambda: subprocess.run(skopeo, check=True, capture_output=True))
        manifest = json.loads((kept / "manifest.json").read_bytes())
        (layer,) = manifest["layers"]
        assert layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].startswith("sha256:")
        gunzip = subprocess.run(["gzip", "-dc", kept / layer["digest"][7:]], check=True, capture_output=True).stdout
        config = json.loads((kept / manifest["config"]["digest"][7:]).read_bytes())
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(gunzip).hexdigest()}"]

        shown = orlop("run", "--rm", "--network", "none", "--pull", "lazy", lazy, "/bin/busybox", "md5sum", "/wanted")
        assert "Runs before it is here" in shown.stderr
        assert shown.stdout.split() == [hashlib.md5(WANTED).hexdigest(), "/wanted"]
        deadline = time.monotonic() + 60 * SLOW
        while any(processes.title(pid).startswith("orlop: lazy") for pid in orlop.processes()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "Everything is in order" in orlop("system", "fsck").stdout


def test_an_image_without_tables_is_pulled_the_ordinary_way(orlop: Environment, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(bytes(Archive().file(b"bin/busybox", peer("busybox").read_bytes(), mode=0o755)))
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as host:
        name = f"{host}/lib/x:1"
        orlop("import", str(tmp_path / "root.tar"), name)
        orlop("push", name)
        orlop("rmi", name)
        shown = orlop("run", "--rm", "--network", "none", "--pull", "lazy", name, "/bin/busybox", "echo", "it runs")
        assert "Not lazily: its manifest names no table of contents" in shown.stderr and shown.stdout == "it runs\n"
