"""Debian packages: installed when a chore can't do without, or unpacked aside so that the machine stays as it was.

Unpacking aside needs no root and runs no maintainer script: docker.io's would start its daemon.
`apt-get update` runs at most once in a process, and only after the package lists at hand did not suffice.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .failure import Failure

_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def is_here() -> bool:
    """Return whether this machine has apt and dpkg."""
    return all(map(shutil.which, ("apt-get", "dpkg-deb")))


def install(packages: Sequence[str]) -> None:
    """Install packages on the machine itself. Raises Failure; the caller is root."""
    for _ in _attempts():
        done = _apt("install", "-y", "-q", "--no-install-recommends", *packages)
        if done.returncode == 0:
            return
    raise Failure(f"apt-get could not install {' '.join(packages)}:\n{done.stderr.strip()}")


def unpack(packages: Sequence[str], directory: Path) -> None:
    """Unpack packages, and those they need that the machine lacks, below directory. Raises Failure."""
    archives = directory / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    for _ in _attempts():
        simulated = _apt("install", "--simulate", "--no-install-recommends", *packages)
        # "Inst runc (1.1.5+ds1-1 Debian:12/stable [amd64])"; an upgrade has the old version in brackets before.
        wanted = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", simulated.stdout, re.MULTILINE)
        # What is already installed is not in the plan; it is on PATH and stays there.
        exact = [f"{name}={version}" for name, version in wanted]
        done = _apt("download", *exact, cwd=archives) if exact else simulated
        if simulated.returncode == 0 and done.returncode == 0:
            break
    else:
        detail = (simulated.stderr if simulated.returncode else done.stderr).strip()
        raise Failure(f"apt-get could not fetch {' '.join(packages)}:\n{detail}")
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", archive, directory], check=True)
    shutil.rmtree(archives)


def _attempts() -> Iterator[None]:
    """Yield once, and once more when the package lists could be refreshed."""
    yield
    if update():
        yield


@functools.cache
def update() -> bool:
    """Refresh the package lists, once in a process. Returns whether that worked; root only."""
    return os.geteuid() == 0 and _apt("update", "-q").returncode == 0


def _apt(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *words],
        cwd=cwd,
        env=os.environ | _QUIET,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
