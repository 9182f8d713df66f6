"""`volume create --opt size=`: a bound on btrfs; where the file system keeps none, the size is refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools import peers
from support.engine import Environment

BTRFS_BYTES = 256 << 20
FILL = "dd if=/dev/zero of={}/f bs=64k count=640 conv=fsync"
RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def on_btrfs(orlop: Environment, tmp_path: Path) -> Iterator[Environment]:
    """An engine whose volumes lie on a btrfs of the test's own."""
    program = peers.find("mkfs.btrfs")
    if program is None:
        pytest.skip("needs: mkfs.btrfs")
    if "btrfs" not in Path("/proc/filesystems").read_text() or not Path("/dev/loop-control").exists():
        pytest.skip("needs: btrfs and loop devices")
    image, place = tmp_path / "btrfs.img", orlop.root / "volumes"
    with image.open("wb") as file:
        file.truncate(BTRFS_BYTES)
    subprocess.run([program, "-q", image], check=True, capture_output=True)
    orlop.root.mkdir(mode=0o700)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    place.chmod(0o700)
    try:
        yield orlop
    finally:
        orlop("engine", "stop", check=False)
        subprocess.run(["umount", place], check=True)


def test_a_size_bounds_a_volume_on_btrfs(on_btrfs: Environment) -> None:
    orlop, volumes = on_btrfs, on_btrfs.root / "volumes"
    orlop("volume", "create", "--opt", "size=10m", "small")
    orlop("volume", "create", "free")
    full = orlop(*RUN, "-v", "small:/v", "host", "sh", "-c", FILL.format("/v"), check=False)
    assert full.code != 0 and ("quota exceeded" in full.stderr or "No space left" in full.stderr), full
    assert 9 << 20 < (volumes / "small/_data/f").stat().st_size <= 10 << 20
    orlop(*RUN, "-v", "free:/v", "host", "sh", "-c", FILL.format("/v"))
    # A copy has a bound of its own, and what comes back from a snapshot has it again.
    orlop("volume", "snapshot", "small", "kept")
    orlop(*RUN, "-v", "small:/v", "host", "rm", "/v/f")
    orlop("volume", "rollback", "small", "kept")
    again = orlop(*RUN, "-v", "small:/v", "host", "sh", "-c", "dd if=/dev/zero of=/v/g bs=64k count=64", check=False)
    assert again.code != 0, again
    orlop("volume", "rm", "small", "kept", "free")
    assert os.listdir(volumes) == []


def test_a_bounded_volume_begins_with_what_the_image_has(on_btrfs: Environment) -> None:
    orlop = on_btrfs
    orlop("volume", "create", "--opt", "size=8m", "small")
    assert "passwd" in orlop(*RUN, "-v", "small:/etc", "host", "ls", "/etc").stdout
    assert orlop(*RUN, "-v", "small:/v", "host", "sh", "-c", FILL.format("/v"), check=False).code != 0
