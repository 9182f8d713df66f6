"""The guest's kernel: Debian's cloud kernel, unpacked below `.cache/vm`, and the modules that containers need.

Nothing is installed on the machine: the package's maintainer scripts would touch its boot loader.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.frontends.machine import modules
from support import netns

CACHE = Path(__file__).resolve().parents[2] / ".cache/vm"
PACKAGE = "linux-image-cloud-amd64"
MODULES = modules.FOR_CONTAINERS
dependencies = modules.dependencies


class Kernel:
    """version: as uname -r says it. image: bzImage. modules: name -> file."""

    def __init__(self, version: str, image: Path, modules: dict[str, Path]) -> None:
        self.version, self.image, self.modules = version, image, modules


@contextmanager
def locked(name: str = "lock") -> Iterator[None]:
    """One process at a time changes the cache: that part of it which has a lock of this name."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare() -> Kernel:
    """Return the kernel, fetched with apt on first use. Raises RuntimeError with apt's words."""
    with locked():
        directory = CACHE / "kernel"
        if not directory.exists():
            _fetch(directory)
    (image,) = directory.glob("boot/vmlinuz-*")
    version = image.name.removeprefix("vmlinuz-")
    return Kernel(version, image, modules.find(directory / "lib/modules" / version))


def _fetch(directory: Path) -> None:
    depends = _run(["apt-cache", "depends", "--important", PACKAGE])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        raise RuntimeError(f"apt knows no {PACKAGE}, so there is no kernel for the guest: {depends}")
    work = CACHE / "kernel.new"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # The tests' own network leads nowhere.
    netns.on_the_machine(lambda: _run(["apt-get", "download", "-q", found[1]], cwd=work))
    (archive,) = work.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(archive), str(work)])
    archive.unlink()
    work.rename(directory)


def _run(argv: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        argv, cwd=cwd, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
