"""Initial file systems for the guest: cpio archives made of programs, libraries and trees of this machine.

Later ones are unpacked over earlier ones, so a large cached one serves under a small one for each run.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from devtools import peers
from orlop.frontends.machine import cpio, modules
from vm import kernel

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = "/orlop"  # where this checkout lies in the guest
PROGRAMS = (
    "bash busybox cat chmod chown chroot cmp comm cp cut date dd diff du echo env expr false find getcap getent grep "
    "groups head hostname id ip kill ldd ln losetup ls mkdir mkfifo mkfs.ext4 mknod mount mv nft nice nproc nsenter od "
    "printf prlimit ps pwd readlink rm rmdir sed seq setpriv setsid sh sleep sort stat strace stty tac tail tar tee "
    "test timeout touch tr true truncate tty umount uname uniq unshare wc which whoami xargs"
).split()
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "os-release": "ID=orlop-guest\n",
}
# Names that begin so are large and of no use to a test.
_STDLIB_UNUSED = ("test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "config-")
_SITE_UNUSED = (
    *("mypy", "ruff", "pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"),
    *("ast_serialize", "librt", "6ec57f84c680d3a3778b__mypyc", "pathspec"),
    *("docker", "testcontainers", "podman_compose", "requests", "urllib3", "wrapt", "charset_normalizer", "certifi"),
)


class Archive(cpio.Archive):
    """An archive that knows this machine."""

    def host(self, path: str) -> None:
        """Add a file of this machine under its own name, with every symbolic link on the way to it."""
        place = ""
        names = path.strip("/").split("/")
        while names:
            place += "/" + names.pop(0)
            if os.path.islink(place):
                target = os.readlink(place)
                self.link(place, target)
                rest = os.path.join(os.path.dirname(place), target, *names)
                return self.host(os.path.normpath(rest))
        if os.path.isdir(place):
            return self.directory(place)
        info = os.stat(place)
        return self.file(place, Path(place), stat.S_IMODE(info.st_mode), int(info.st_mtime))

    def extensions(self) -> list[str]:
        """Return the Python extension modules of this machine that are in the archive."""
        contents = (content for _, _, content, _ in self.entries.values())
        return [str(path) for path in contents if isinstance(path, Path) and path.suffix == ".so"]

    def digest(self) -> str:
        """Return a hash of everything in the archive."""
        total = hashlib.sha256()
        for path, (mode, mtime, content, device) in self.entries.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            total.update(f"{path} {mode} {mtime} {device} {hashlib.sha256(data).hexdigest()}\n".encode())
        return total.hexdigest()


def base(linux: kernel.Kernel) -> Path:
    """Return the cached archive with Python, its packages, programs and kernel modules; built when it has changed."""
    archive = Archive()
    _add_python(archive)
    programs = {name: str(found) for name in PROGRAMS if (found := peers.find(name))}
    for name, path in programs.items():
        if Path(path).is_relative_to(peers.DIRECTORY):
            archive.file(f"/usr/bin/{name}", Path(path), 0o755)
        else:
            archive.host(path)
    for path in _libraries(_interpreter(), *programs.values(), *archive.extensions()):
        archive.host(path)
    _add_modules(archive, linux)
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        archive.host(name)
    for name, text in ETC.items():
        archive.file(f"/etc/{name}", text.encode())
    for path in ("/proc", "/sys", "/dev", "/run", "/root", "/mnt", "/newroot"):
        archive.directory(path)
    archive.directory("/tmp", 0o1777)
    archive.device("/dev/console", 5, 1)
    cached = kernel.CACHE / f"base-{archive.digest()[:16]}.cpio"
    with kernel.locked():
        if not cached.exists():
            for old in kernel.CACHE.glob("base-*"):
                old.unlink()
            partial = cached.with_suffix(".new")
            with partial.open("wb") as file:
                archive.write(file)
            partial.rename(cached)
    return cached


def checkout(files: Mapping[str, bytes | Path]) -> Archive:
    """Return the small archive: process 1, this checkout at CHECKOUT, and further files by their path in the guest."""
    archive = Archive()
    init = Path(__file__).with_name("init.py").read_bytes()
    archive.file("/init", f"#!{_interpreter()} -IS\n".encode() + init, 0o755)
    add_checkout(archive)
    for path, content in files.items():
        archive.file(path, content, 0o755)
    return archive


def add_checkout(archive: Archive) -> None:
    """Add this checkout at CHECKOUT."""
    for name in ("src", "tests", "tools", "docs", "bench"):
        archive.tree(ROOT / name, f"{CHECKOUT}/{name}")
    for name in ("pyproject.toml", "README.md", "dev", "orlop", "orlop-runtime"):
        if (ROOT / name).exists():
            archive.file(f"{CHECKOUT}/{name}", ROOT / name, 0o755)


def add_packages(archive: Archive, interpreter: str, minor: int) -> None:
    """Add the packages of this machine's Python that tests need, as a virtual environment for that interpreter."""
    venv = f"{CHECKOUT}/.venv"
    archive.tree(Path(sysconfig.get_path("purelib")), f"{venv}/lib/python3.{minor}/site-packages", _SITE_UNUSED)
    archive.link(f"{venv}/bin/python", interpreter)
    archive.file(f"{venv}/pyvenv.cfg", f"home = {os.path.dirname(interpreter)}\n".encode())


def _add_python(archive: Archive) -> None:
    archive.host(_interpreter())
    stdlib = Path(os.__file__).parent
    archive.tree(stdlib, str(stdlib), _STDLIB_UNUSED)
    if not _dynload().is_relative_to(stdlib):
        archive.tree(_dynload(), str(_dynload()))
    add_packages(archive, _interpreter(), sys.version_info.minor)
    for name in ("python3", "python"):
        archive.link(f"/usr/local/bin/{name}", _interpreter())


def _add_modules(archive: Archive, linux: kernel.Kernel) -> None:
    order = kernel.dependencies(linux.modules, (*kernel.MODULES, "8021q", "nft_reject_ipv4", "nfnetlink_log"))
    lines = []
    for name, before in order.items():
        archive.file(f"/lib/modules/{name}.ko", linux.modules[name])
        lines += [" ".join([alias, *before, name]) for alias in (name, *modules.aliases(linux.modules[name])) if alias]
    # One line for each name that the kernel may ask for: the name, then what to load, in order.
    archive.file("/lib/modules/index", "\n".join(lines).encode())


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _dynload() -> Path:
    return Path(sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}), "lib-dynload")


@functools.cache
def _libraries(*files: str) -> list[str]:
    """Return the shared libraries and the program interpreters that ELF files need, by ldd(1)."""
    done = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
    return sorted(set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE)))
