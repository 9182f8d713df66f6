"""A Debian's root file system, made by mmdebstrap from where this machine gets its packages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from devtools import debian, peers

from .netns import on_the_machine

RELEASE = "bookworm"
MAKE_S_MAX = 600
ALONE = ("unshare", "--mount")  # it mounts /proc and /sys in the tree, which nobody undoes when it is killed
_APT = ('Acquire::Languages "none"', 'Acquire::Check-Valid-Until "false"', 'APT::Sandbox::User "root"')


def archive(peer: Callable[[str], Path], target: Path, variant: str, options: Sequence[str] = ()) -> None:
    """Write the archive of a root file system of one of mmdebstrap's variants. target: its name ends in .tar."""
    argv: list[str | Path] = [*ALONE, peer("mmdebstrap"), "--quiet", "--mode=root", f"--variant={variant}"]
    source = f"deb [signed-by={debian.KEYRING}] {debian.mirror()} {RELEASE} main"
    argv += ["--dpkgopt=force-unsafe-io", *options, *(f"--aptopt={one}" for one in _APT), RELEASE, target, source]
    env = os.environ | {"PATH": peers.path(), "TMPDIR": str(target.parent)}
    on_the_machine(lambda: subprocess.run(argv, env=env, check=True, capture_output=True, timeout=MAKE_S_MAX))
