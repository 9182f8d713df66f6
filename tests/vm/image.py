"""A Debian image for a guest that boots as machines do: systemd, D-Bus, AppArmor, Python, a user who lingers.

mmdebstrap makes it on first use, from where this machine gets its packages, below `.cache/vm`; its name is a hash of
the recipe, and whoever changes a word of that gets another one. It is never written to: a machine writes beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from devtools import debian, peers
from support import netns
from support.debian import ALONE
from vm import kernel

RELEASE = "bookworm"
PYTHON_MINOR = 11  # of its python3
USER, UID = "tester", 1000
SIZE = "1500M"  # of a sparse file
PACKAGES = (
    "systemd,systemd-sysv,dbus-user-session,libpam-systemd,python3,uidmap,apparmor,passt,slirp4netns,iproute2,iptables,"
    "nftables,busybox-static,procps,kmod,iputils-ping,bsdutils,bsdextrautils"
)
# Containers' modules come with kernel.MODULES; systemd wants autofs4, the disk the rest.
DISK_MODULES = ("virtio_pci", "virtio_blk")
MODULES = (*kernel.MODULES, *DISK_MODULES, "autofs4", "cls_bpf", "xt_bpf", "nft_limit")
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/lib/python3/test/*",
)
_MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer "
    "systemd-update-utmp.service systemd-update-utmp-runlevel.service getty@tty1.service serial-getty@ttyS0.service "
    "systemd-pstore.service systemd-firstboot.service ldconfig.service systemd-binfmt.service "
    "proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount apparmor.service"
).split()
FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n",
    "etc/fstab": "",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    f"var/lib/systemd/linger/{USER}": "",
    "etc/subuid": f"{USER}:100000:65536\norlop:1879048192:268435456\n",
    "etc/subgid": f"{USER}:100000:65536\norlop:1879048192:268435456\n",
    # udev's rules for these two; without udev a boot is shorter.
    "etc/tmpfiles.d/devices.conf": "z /dev/net/tun 0666\nz /dev/fuse 0666\n",
    # What a boot is for: vm.debian puts the job beside the checkout.
    "etc/systemd/system/job.service": (
        "[Unit]\nAfter=multi-user.target systemd-user-sessions.service user@1000.service\n"
        "[Service]\nType=exec\nExecStart=/orlop/.job/start\nStandardInput=null\n"
        "[Install]\nWantedBy=default.target\n"
    ),
}
_LINKS = {
    "etc/systemd/system/default.target.wants/job.service": "/etc/systemd/system/job.service",
    "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
    "usr/bin/orlop": "/orlop/orlop",
    "usr/bin/orlop-runtime": "/orlop/orlop-runtime",
    **{f"etc/systemd/system/{name}": "/dev/null" for name in _MASKED},
}


def prepare(linux: kernel.Kernel) -> Path:
    """Return the image for this kernel, made on first use. Raises RuntimeError with the words of what failed."""
    source = Path(__file__).read_bytes()
    recipe = hashlib.sha256(source + json.dumps([linux.version, RELEASE, MODULES]).encode()).hexdigest()[:16]
    image = kernel.CACHE / f"debian-{recipe}.ext4"
    # Minutes, for which nobody waits who wants a kernel alone. Not called debian-*: that is swept.
    with kernel.locked("image.lock"):
        if not image.exists():
            for old in kernel.CACHE.glob("debian-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            _make(image, linux)
    return image


def _make(image: Path, linux: kernel.Kernel) -> None:
    tree, partial = image.with_suffix(".tree"), image.with_suffix(".new")
    program = peers.find("mmdebstrap")
    if program is None:
        raise RuntimeError("mmdebstrap is missing: apt-get install mmdebstrap")
    options = [f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED]
    # The tree is thrown away: nothing has to survive a power cut while it is made.
    options += ["--variant=minbase", "--mode=root", "--dpkgopt=force-unsafe-io", f"--include={PACKAGES}"]
    argv = [
        *ALONE,
        str(program),
        "--quiet",
        *options,
        RELEASE,
        str(tree),
        f"deb [signed-by={debian.KEYRING}] {debian.mirror()} {RELEASE} main",
    ]
    try:
        netns.on_the_machine(lambda: _run(argv))
        _customize(tree)
        _add_modules(tree, linux)
        partial.unlink(missing_ok=True)
        _run(["mkfs.ext4", "-q", "-m", "0", "-L", "guest", "-d", str(tree), str(partial), SIZE])
        partial.rename(image)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _customize(tree: Path) -> None:
    _run(["chroot", str(tree), "useradd", "--create-home", "--uid", str(UID), "--shell", "/bin/bash", USER])
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    for name, target in _LINKS.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).unlink(missing_ok=True)
        (tree / name).symlink_to(target)
    (tree / "orlop").mkdir()


def _add_modules(tree: Path, linux: kernel.Kernel) -> None:
    for name in kernel.dependencies(linux.modules, MODULES):
        found = linux.modules[name]
        target = tree / found.relative_to(linux.image.parents[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, target)
    _run(["chroot", str(tree), "depmod", linux.version])


def _run(argv: list[str]) -> None:
    environment = os.environ | {"LC_ALL": "C", "PATH": peers.path(), "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-4000:]}")
