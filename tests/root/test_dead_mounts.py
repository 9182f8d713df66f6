"""P44: a mount whose server never answers holds up whoever uses it, and nobody else."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.linux import mount
from support.engine import Environment

PROMPT_S_MAX = 60.0  # a bound for a hang: the mount would never end
FUSE_ROOT_MODE = 0o40755


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A FUSE file system whose server holds the connection and reads no request."""
    place = tmp_path / "dead"
    place.mkdir()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs: /dev/fuse")
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={server},rootmode={FUSE_ROOT_MODE:o},user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"dead", bytes(place), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    try:
        yield place
    finally:
        os.close(server)  # which ends every request with ENOTCONN
        mount.umount2(str(place), mount.MNT_DETACH)


def test_a_dead_mount_holds_up_nobody_else(orlop: Environment, dead: Path) -> None:
    orlop("run", "-d", "--network", "none", "--name", "other", "host", "sleep", "1000")
    stuck = orlop.popen("run", "--network", "none", "--name", "stuck", "-v", f"{dead}/in:/m", "host", "true", stderr=-1)
    try:
        for _ in range(3):
            assert "other" in orlop("ps", "-a", timeout=PROMPT_S_MAX).stdout
        assert orlop("inspect", "-f", "{{.Name}}", "other", timeout=PROMPT_S_MAX).stdout == "/other\n"
        assert orlop("exec", "other", "echo", "on", timeout=PROMPT_S_MAX).stdout == "on\n"
        orlop("run", "--rm", "--network", "none", "host", "true", timeout=PROMPT_S_MAX)
        orlop("stop", "-t", "0", "other", timeout=PROMPT_S_MAX)
        orlop("rm", "other", timeout=PROMPT_S_MAX)
        assert stuck.poll() is None
    finally:
        stuck.kill()
        stuck.communicate()
