"""The programs that we are compared with, and where they lie: on PATH, or unpacked below `.cache/peers`.

PACKAGES is the one table that says which chore needs which Debian packages; TOOLS which package holds which program.
A test asks for a program with `find`; without it the test skips with "needs: <package>".
Invariant: nothing here is installed on the machine, so no daemon starts and nothing has to be removed afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from . import debian
from .environment import CACHE, ROOT, only_one

# fmt: off
PACKAGES: dict[str, tuple[str, ...]] = {
    "unit":        (),
    "contract":    ("runc", "buildah", "skopeo", "umoci", "docker.io", "docker.io-26", "docker-compose",
                    "docker-compose-1", "docker-buildx", "docker-registry", "podman", "podman-remote", "quadlet",
                    "openssl", "busybox-static", "binutils", "binutils-aarch64-linux-gnu", "mmdebstrap",
                    "qemu-user-static", "openssh-client"),
    "root":        ("btrfs-progs", "busybox-static", "containernetworking-plugins", "docker-registry", "erofs-utils",
                    "fuse-overlayfs", "iproute2", "iptables", "nftables", "passt", "podman-remote", "procps",
                    "slirp4netns", "strace", "uidmap"),
    "security":    ("busybox-static", "procps"),
    "conformance": ("runc", "crun", "podman", "buildah", "docker.io", "criu", "busybox-static"),
    "vm":          ("qemu-system-x86", "mmdebstrap", "busybox-static", "iproute2", "procps"),
    "bench":       ("docker.io", "docker-buildx", "buildah", "docker-compose", "docker-registry", "podman", "runc",
                    "crun", "bubblewrap", "curl", "busybox-static", "iperf3", "iptables", "passt", "uidmap",
                    "netavark", "aardvark-dns", "slirp4netns"),
}
TOOLS: dict[str, str] = {
    "runc": "runc",
    "crun": "crun",
    "criu": "criu",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "podman": "podman",
    "podman-remote": "podman-remote",
    "quadlet": "quadlet",
    "conmon": "conmon",
    "buildah": "buildah",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "dockerd-26": "docker.io-26",
    "docker-buildx": "docker-buildx",
    "docker-compose": "docker-compose",
    "docker-compose-1": "docker-compose-1",
    "docker-registry": "docker-registry",
    "containerd": "containerd",
    "curl": "curl",
    "openssl": "openssl",
    "ctr": "containerd",
    "bwrap": "bubblewrap",
    "busybox": "busybox-static",
    "mkfs.btrfs": "btrfs-progs",
    "fsck.erofs": "erofs-utils",
    "fuse-overlayfs": "fuse-overlayfs",
    "as": "binutils",
    "aarch64-linux-gnu-as": "binutils-aarch64-linux-gnu",
    "qemu-aarch64-static": "qemu-user-static",
    "ssh-add": "openssh-client",
    "ssh-agent": "openssh-client",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "strace": "strace",
    "newuidmap": "uidmap",
    "newgidmap": "uidmap",
    "pasta": "passt",
    "slirp4netns": "slirp4netns",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "bridge": "iproute2",
    "nft": "nftables",
    "host-local": "containernetworking-plugins",
    "iptables": "iptables",
    "kill": "procps",
    "ps": "procps",
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
}
# Not from the machine's own release: Debian 12's CRIU 3.17 can't read the vDSO of a kernel from 6.16 on, and its
# Compose is the old one in Python; podman-remote is the client of podman 5, beside the podman 4 of `podman`;
# docker.io-26 has the dockerd that speaks API 1.45, beside the 1.41 of `docker.io`.
RELEASES: dict[str, str] = {
    "criu": "trixie",
    "docker.io-26": "trixie",
    "docker-compose": "trixie",
    "docker-buildx": "trixie",
    "podman-remote": "trixie",
    "quadlet": "trixie",
}
# Names of our own for one file of a package, without what else that needs: podman 5's generator of units.
PARTS: dict[str, tuple[str, str]] = {"quadlet": ("podman", "usr/libexec/podman/quadlet")}
# Names of our own for packages that lie in a place of their own, because another one here has their programs' names.
ASIDE: dict[str, str] = {"docker-compose-1": "docker-compose"}
# Names of our own for packages and programs of another release that the machine's own release has, too.
LATER: dict[str, str] = {"docker.io-26": "docker.io", "dockerd-26": "dockerd"}
# fmt: on

DIRECTORY = CACHE / "peers"
_PROGRAMS = (
    "usr/bin",
    "usr/sbin",
    "bin",
    "sbin",
    "usr/libexec/podman",
    "usr/lib/podman",
    "usr/lib/cni",
    "usr/libexec/docker/cli-plugins",
)


# What update-alternatives(1) would have linked, had the package been installed.
ALTERNATIVES = {
    f"{family}{verb}": f"{family}-nft{verb}"
    for family in ("iptables", "ip6tables")
    for verb in ("", "-save", "-restore")
}


def prepare(chores: Iterable[str]) -> None:
    """Make the programs of these rows of PACKAGES available. Raises Failure."""
    packages = sorted({package for chore in chores for package in PACKAGES.get(chore, ())})
    with only_one("peers"):
        missing = [package for package in packages if not _has(package)]
        if not missing:
            _choose_alternatives()
            return
        print(f"dev: unpacking {' '.join(missing)} below {DIRECTORY.relative_to(ROOT)}", file=sys.stderr, flush=True)
        plain = [name for name in missing if name not in RELEASES and name not in ASIDE]
        debian.unpack([*plain, "patchelf"], DIRECTORY)
        for name in set(missing) & set(ASIDE):
            debian.unpack([ASIDE[name]], _place(name))
        _point_to_libraries()
        for release in {RELEASES[name] for name in missing if name in RELEASES}:
            wanted = [name for name in missing if RELEASES.get(name) == release]
            parts = dict(PARTS[name] for name in wanted if name in PARTS)
            whole = [LATER.get(name, name) for name in wanted if name not in PARTS]
            debian.unpack_release(release, whole, _place(release), parts)
            _point_to_release(_place(release))
        _choose_alternatives()
        for package in missing:
            _stamp(package).touch()


def _choose_alternatives() -> None:
    """Have them call what they stand for, with its modules, which it looks for where they would have been installed."""
    place = DIRECTORY / "usr/sbin"
    for name, chosen in ALTERNATIVES.items():
        modules = next(DIRECTORY.glob("usr/lib/*/xtables"), None)
        if modules is not None and (place / chosen).exists() and not (place / name).exists():
            text = f'#!/bin/sh\nXTABLES_LIBDIR={modules} exec {place / chosen} "$@"\n'
            (place / name).write_text(text)
            (place / name).chmod(0o755)


def path() -> str:
    """Return PATH with the unpacked programs behind the machine's own."""
    own = os.environ.get("PATH", os.defpath).split(":")
    places = [DIRECTORY, *(_place(release) for release in sorted(set(RELEASES.values())))]
    return ":".join(
        [*own, "/usr/sbin", "/sbin", *(str(place / part) for place in places for part in _PROGRAMS), "/usr/lib/cni"]
    )


def find(program: str) -> Path | None:
    """Return where a program lies, or None when neither the machine nor the cache has it."""
    if program in ASIDE:
        place = _place(program) / "usr/bin" / ASIDE[program]
        return place if place.exists() else None
    release = RELEASES.get(TOOLS.get(program, ""), "")
    own = ":".join(str(_place(release) / part) for part in _PROGRAMS)
    found = shutil.which(LATER.get(program, program), path=own if release else path())
    return Path(found) if found else None


def _point_to_libraries() -> None:
    """Let unpacked programs find unpacked libraries by themselves.

    LD_LIBRARY_PATH would not do: podman starts its helpers with an environment of their own. The run path is absolute,
    because crun runs as a copy of itself in a memfd, which has no $ORIGIN.
    """
    libraries = ":".join(str(place) for top in ("usr/lib", "lib") for place in DIRECTORY.glob(f"{top}/*-linux-*"))
    patchelf = DIRECTORY / "usr/bin/patchelf"
    for program in (path for part in _PROGRAMS for path in (DIRECTORY / part).glob("*") if _is_elf(path)):
        if "not found" in subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout:
            subprocess.run([patchelf, "--force-rpath", "--set-rpath", libraries, program], check=True)


def _point_to_release(place: Path) -> None:
    """Let programs of another release find its libraries, and the loader that belongs to them."""
    libraries = ":".join(str(found) for found in place.glob("usr/lib/*-linux-*"))
    loader = next(place.glob("usr/lib/*-linux-*/ld-linux*"))
    patch: list[str | Path] = [
        DIRECTORY / "usr/bin/patchelf",
        "--set-interpreter",
        loader,
        "--force-rpath",
        "--set-rpath",
        libraries,
    ]
    for program in (path for part in _PROGRAMS for path in (place / part).glob("*") if _is_elf(path)):
        subprocess.run([*patch, program], check=False, capture_output=True)  # a static one has no interpreter


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _has(package: str) -> bool:
    if package in RELEASES or package in ASIDE:
        return _stamp(package).exists()
    programs = [program for program, owner in TOOLS.items() if owner == package]
    return _stamp(package).exists() or (bool(programs) and all(shutil.which(name) for name in programs))


def _place(release: str) -> Path:
    return DIRECTORY / release


def _stamp(package: str) -> Path:
    return DIRECTORY / f".{package}"
