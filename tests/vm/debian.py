"""Boot the Debian image of vm.image with this checkout in it, and have it do a job; it may reboot in between.

    done = run("systemctl is-system-running; cat /sys/module/apparmor/parameters/enabled", timeout_s=120)

The job is a script for bash, as root, started when the machine is up: systemd is process 1, cgroup v2 is mounted alone,
AppArmor enforces, USER lingers and has ids. `as_user WORDS...` runs a command as USER. BOOT counts from 1: after
`systemctl reboot` (or a reset by sysrq, which is a power cut) the same job is started again on the same disk.
A panic stops the machine until the time is up: it would boot again.

Emulated as vm.guest's is; that one boots in a tenth of the time, and is enough where no systemd is needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from devtools import peers
from vm import guest, image, initramfs, kernel

CHECKOUT = initramfs.CHECKOUT
USER, UID = image.USER, image.UID
TESTS_MEMORY_MIB, TESTS_CPUS = 4096, 4
# no_timer_check, nowatchdog: on a busy machine an emulated clock is late, which is no fault of the guest's.
_KERNEL_WORDS = (
    "console=ttyS0 quiet no_timer_check nowatchdog mitigations=off random.trust_cpu=on systemd.show_status=0 "
    "lsm=landlock,yama,apparmor,bpf"
)
_INIT = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
for module in /boot/*.ko; do busybox insmod "$module"; done
until [ -b /dev/vda ]; do busybox sleep 0.05; done
busybox mount -t ext4 /dev/vda /newroot || exec busybox sh
busybox mount -t tmpfs -o mode=755 tree /newroot/orlop
busybox cp -a /orlop/. /newroot/orlop/
busybox mount --move /dev /newroot/dev
exec busybox switch_root /newroot /sbin/init
"""
_START = """#!/bin/bash
for port in 1 2 3; do stty -F /dev/ttyS$port raw; done
BOOT=$(($(cat /var/lib/boots 2>/dev/null || echo 0) + 1))
echo $BOOT >/var/lib/boots
as_user() {{ runuser -u {user} -- env -C /home/{user} XDG_RUNTIME_DIR=/run/user/{uid} HOME=/home/{user} "$@"; }}
export BOOT HOME=/root LANG=C.UTF-8 PATH=/orlop:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /orlop
(. /orlop/.job/script) >/dev/ttyS1 2>/dev/ttyS2
status=$?
# A reboot ends what asked for it: the outcome is that of the last boot.
[ "$(systemctl is-system-running)" = stopping ] && exit 0
printf '{{"status": %d}}' $status >/dev/ttyS3
stty -F /dev/ttyS3 -a >/dev/null
exec systemctl poweroff --force --force
"""


def run(
    script: str,
    *,
    timeout_s: float,
    files: Mapping[str, bytes | Path] | None = None,
    with_tests: bool = False,
    stream: bool = False,
) -> guest.Completed:
    """Boot, run the script, and return how it ended.

    files: path below CHECKOUT -> content, or a file of this machine; they are executable.
    with_tests: with the packages that this checkout's tests need, for `.venv/bin/python -m pytest`; such a machine is
        larger.

    Raises TimeoutError after timeout_s, from the start of qemu; GuestError; RuntimeError when there is no image.
    """
    linux = kernel.prepare()
    disk = image.prepare(linux)
    archive = _archive(linux, script, with_tests)
    for path, content in (files or {}).items():
        archive.file(f"{CHECKOUT}/{path}", content, 0o755)
    with tempfile.TemporaryFile() as file, tempfile.TemporaryDirectory(prefix="orlop-vm-") as directory:
        archive.write(file)
        file.flush()
        started = time.monotonic()
        words = guest.argv(linux, file.fileno(), Path(directory), _KERNEL_WORDS)
        if with_tests:
            # The last of two counts: several engines and their attackers, side by side.
            words += ["-m", str(TESTS_MEMORY_MIB), "-smp", str(TESTS_CPUS)]
        # What is written goes to a file without a name below TMPDIR: the image stays as it is.
        words += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
        words.remove("-no-reboot")
        output = guest.follow(guest.start(words, file.fileno()), Path(directory), timeout_s, stream)
    return guest.Completed(["script"], guest.status(output), output, time.monotonic() - started)


def _archive(linux: kernel.Kernel, script: str, with_tests: bool) -> initramfs.Archive:
    archive = initramfs.Archive()
    busybox = peers.find("busybox")
    if busybox is None:
        raise RuntimeError("busybox is missing: apt-get install busybox-static")
    archive.file("/init", _INIT.encode(), 0o755)
    archive.file("/bin/busybox", busybox, 0o755)
    order = dict.fromkeys(name for wanted in image.DISK_MODULES for name in _with_needs(linux, wanted))
    for number, name in enumerate(order):
        archive.file(f"/boot/{number:02}-{name}.ko", linux.modules[name])
    for path in ("/dev", "/newroot", "/proc"):
        archive.directory(path)
    archive.device("/dev/console", 5, 1)
    initramfs.add_checkout(archive)
    compiled = initramfs.ROOT / ".cache/pycache" / str(initramfs.ROOT / "src").lstrip("/")
    if compiled.is_dir():
        # Python takes what another one of its minor version compiled: less to do for a slow machine.
        archive.tree(compiled, f"{CHECKOUT}/.cache/pycache{CHECKOUT}/src")
    if with_tests:
        initramfs.add_packages(archive, "/usr/bin/python3", image.PYTHON_MINOR)
    start = _START.format(user=USER, uid=UID)
    archive.file(f"{CHECKOUT}/.job/start", start.encode(), 0o755)
    archive.file(f"{CHECKOUT}/.job/script", script.encode(), 0o755)
    return archive


def _with_needs(linux: kernel.Kernel, name: str) -> list[str]:
    return [*kernel.dependencies(linux.modules, [name]).get(name, []), name]
