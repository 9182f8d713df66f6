"""The guest's kernel: Debian's cloud kernel, unpacked below `.cache/vm`, and the modules that containers need.

Nothing is installed on the machine: the package's maintainer scripts would touch its boot loader.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support import netns

CACHE = Path(__file__).resolve().parents[2] / ".cache/vm"
PACKAGE = "linux-image-cloud-amd64"

# What containers use and Debian builds as modules; each brings what it depends on.
MODULES = (
    "overlay fuse loop squashfs erofs veth bridge br_netfilter macvlan ipvlan dummy tun vxlan nf_tables nft_chain_nat "
    "nft_ct nft_nat nft_masq nft_redir nft_reject_inet nft_fib_inet nft_log nft_dup_ipv4 nft_dup_ipv6 nft_compat "
    "nf_conntrack_netlink xt_MASQUERADE "
    "xt_addrtype xt_conntrack xt_comment xt_mark iptable_nat iptable_filter ip6table_nat ip6table_filter "
    "sch_tbf sch_netem cls_u32 ifb zram quota_v2"
).split()


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
    files = directory.glob(f"lib/modules/{version}/kernel/**/*.ko")
    return Kernel(version, image, {_name(path.stem): path for path in files})


def dependencies(modules: dict[str, Path], wanted: Iterable[str]) -> dict[str, list[str]]:
    """Return for each wanted module, and each it needs, the modules to load before it, in order.

    A name that this kernel has no module for is built in, or not there; it is left out.
    """
    needs: dict[str, list[str]] = {}
    pending = [name for name in wanted if name in modules]
    while pending:
        name = pending.pop()
        if name not in needs:
            needs[name] = [_name(need) for need in _info(modules[name], "depends")[0].split(",") if need]
            pending += needs[name]
    return {name: _before(name, needs)[:-1] for name in needs}


def aliases(path: Path) -> list[str]:
    """Return the names under which the kernel asks for a module ("fs-overlay")."""
    return _info(path, "alias")


def _before(name: str, needs: dict[str, list[str]]) -> list[str]:
    order = [member for need in needs[name] for member in _before(need, needs)]
    return [*dict.fromkeys(order), name]


def _info(path: Path, key: str) -> list[str]:
    """Return the values of one key of a module's .modinfo section (NUL-separated "key=value")."""
    found = re.findall(rb"\0" + key.encode() + rb"=([^\0]*)", b"\0" + path.read_bytes())
    return [value.decode() for value in found] or [""]


def _name(stem: str) -> str:
    return stem.replace("-", "_")


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
