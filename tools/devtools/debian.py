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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .failure import Failure

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
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


def unpack_release(release: str, packages: Sequence[str], directory: Path, parts: Mapping[str, str]) -> None:
    """Unpack packages of another Debian release, with everything they need down to the C library. Raises Failure.

    parts: package -> the one file of it that is wanted, which needs no more than the C library.
    apt keeps the lists of that release below directory; the machine's own lists and packages stay as they are.
    """
    state = directory / "apt"
    for name in ("lists/partial", "cache/archives/partial", "archives"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {release} main\n")
    places = {
        "Dir::State": state, "Dir::State::status": state / "status", "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache", "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null", "APT::Sandbox::User": "root", "Acquire::Languages": "none",
    }  # fmt: skip
    options = [word for name, value in places.items() for word in ("-o", f"{name}={value}")]
    updated = _apt(*options, "update", "-q")
    plan = _apt(*options, "install", "--simulate", "--no-install-recommends", *packages)
    names = re.findall(r"^Inst (\S+) ", plan.stdout, re.MULTILINE) if packages else []
    done = _apt(*options, "download", *names, *parts, cwd=state / "archives")
    if plan.returncode != 0 or done.returncode != 0 or not (names or parts):
        detail = (updated.stderr + plan.stderr + done.stderr).strip()
        raise Failure(f"apt-get could not fetch {' '.join(packages)} of {release}:\n{detail}")
    for archive in sorted((state / "archives").glob("*.deb")):
        _extract(archive, directory, parts.get(archive.name.partition("_")[0], ""))
    shutil.rmtree(state)


def _extract(archive: Path, directory: Path, part: str) -> None:
    """Unpack a package, or the one file of it that is wanted."""
    if not part:
        subprocess.run(["dpkg-deb", "--extract", archive, directory], check=True)
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "-C", directory, f"./{part}"], stdin=tar.stdout, check=True)


def mirror() -> str:
    """Return where this machine gets Debian from."""
    told = _apt("indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages").stdout
    mirrors = re.findall(r"^Debian (\S+)$", told, re.MULTILINE)
    if not mirrors:
        raise Failure("this machine has no source of Debian packages")
    return str(mirrors[0])


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
