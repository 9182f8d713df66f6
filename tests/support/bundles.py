"""Bundles for runtimes: one config.json, changed in one place by each test, and a probe that tells what it led to."""

from __future__ import annotations

import copy
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .engine import CHECKOUT
from .pace import SLOW

RUNTIME = CHECKOUT / "orlop-runtime"
Config = dict[str, object]

# Everything a process can see of what the runtime did. busybox only: no library, no file of a distribution.
PROBE = r"""
echo "## identity"; id; pwd; umask; echo "home=$HOME path=$PATH"; hostname; dnsdomainname 2>/dev/null
echo "## status"
grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap[A-Z][a-z]+|Cpus_allowed_list|SigBlk|SigIgn):' /proc/self/status
echo "## personality"; cat /proc/self/personality; cat /proc/self/oom_score_adj
echo "## limits"; cat /proc/self/limits
echo "## namespaces"; for n in cgroup ipc mnt net pid time user uts; do echo $n $(readlink /proc/self/ns/$n); done
echo "## maps"; cat /proc/self/uid_map /proc/self/gid_map
echo "## mounts"; cut -d' ' -f4- /proc/self/mountinfo
echo "## devices"
for f in $(ls /dev | sort); do
    [ -h /dev/$f ] && echo "$f -> $(readlink /dev/$f)" || stat -c '%n %F %t:%T %a %u:%g' /dev/$f
done
echo "## cgroup"
for f in cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus cpuset/cpuset.mems \
    memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.swappiness pids/pids.max \
    blkio/blkio.weight; do
    [ -e /sys/fs/cgroup/$f ] && echo $f $(cat /sys/fs/cgroup/$f)
done
cat /sys/fs/cgroup/devices/devices.list 2>/dev/null | sort
echo "## masked"
for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do [ -e $f ] && stat -c '%n %F %t:%T' $f; done
for d in /proc/acpi /proc/scsi /sys/firmware; do [ -d $d ] && echo $d $(ls $d | wc -l); done
for f in /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname; do echo $f $(cat $f); done
echo "## writes"
for f in /x /etc/x /tmp/x /proc/sys/kernel/shmmax /dev/x; do
    ( : >> $f ) 2>/dev/null && echo writable $f || echo refused $f
done
echo "## descriptors"; ls /proc/self/fd
echo "## calls"; mkdir /tmp/d 2>&1; chmod 700 /tmp 2>&1; ln -s a /tmp/l 2>&1; mknod /tmp/n c 1 3 2>&1
echo "## network"; cat /proc/net/dev | cut -d: -f1 | tail -n +3
"""


def busybox_root(directory: Path, busybox: Path) -> Path:
    """Fill a directory with busybox, its applets and the least that /etc must have; return it."""
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc", "root", "mnt", "run"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")
    (directory / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return directory


def base(rootfs: Path) -> Config:
    """Return a config.json as `spec` writes it, with the probe as its command."""
    masked = "/proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/scsi /sys/firmware"
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    plain = ("nosuid", "noexec", "nodev")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", PROBE],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": "probe",
        "mounts": [
            mount("/proc", "proc", "proc"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "devpts", *plain[:2], "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            mount("/dev/shm", "tmpfs", "shm", *plain, "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", *plain),
            mount("/sys", "sysfs", "sysfs", *plain, "ro"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", *plain, "relatime", "ro"),
            mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev"),
        ],
        "linux": {
            "cgroupsPath": f"/orlop-probe-{secrets.token_hex(6)}",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": masked.split(),
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, object]:
    """Return one entry of `mounts`."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


# Behind these words a program sees a machine with v1 hierarchies alone; what is mounted elsewhere stays as it is.
V1_ONLY = ("unshare", "--mount", "sh", "-c", 'umount -l /sys/fs/cgroup/unified && exec "$@"', "-")


class Runtime:
    """A runc-compatible command with a state directory of its own. before: words that stand before the command."""

    def __init__(self, command: Path, root: Path, before: Sequence[str] = ()) -> None:
        self.argv = [*before, str(command), "--root", str(root)]

    def __call__(self, *args: str, input: str = "", timeout: float = 60 * SLOW) -> subprocess.CompletedProcess[str]:
        """Run one call."""
        return subprocess.run(
            [*self.argv, *args], input=input, capture_output=True, text=True, timeout=timeout, check=False
        )

    def run(self, bundle: Path, config: Config, name: str) -> subprocess.CompletedProcess[str]:
        """Write the config into the bundle, run it, remove it."""
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(config))
        try:
            return self("run", "--bundle", str(bundle), name)
        finally:
            self("delete", "--force", name)


def cgroups(config: Config) -> list[Path]:
    """Return the directories that there are of a config's cgroup."""
    linux = config["linux"]
    assert isinstance(linux, dict)
    return list(Path("/sys/fs/cgroup").glob(f"*{linux['cgroupsPath']}"))


def changed(config: Config, change: Callable[[Config], object]) -> Config:
    """Return a copy with one change."""
    new = copy.deepcopy(config)
    change(new)
    return new


def normalised(text: str) -> list[str]:
    """Return the probe's lines without what differs from run to run: inode and mount numbers, orders, host devices."""
    lines, section = [], ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line
        if section == "## mounts" and line != section:
            line = _mount(line)
        if section == "## namespaces" and line != section:
            line = _namespace(line)
        lines.append(re.sub(r"^(SigIgn:\s+)\w+", r"\1", line))
    return sorted_sections(lines)


def sorted_sections(lines: list[str]) -> list[str]:
    """Return the lines with the mounts in one order: the kernel's follows no rule that a runtime could keep."""
    start = lines.index("## mounts") if "## mounts" in lines else len(lines)
    end = next((at for at in range(start + 1, len(lines)) if lines[at].startswith("## ")), len(lines))
    return [*lines[: start + 1], *sorted(lines[start + 1 : end]), *lines[end:]]


def _mount(line: str) -> str:
    where, _, filesystem = line.partition(" - ")
    root, point, options, *propagation = where.split()
    kind, source, *_ = filesystem.split()
    if kind in ("devtmpfs", "tmpfs") and root in ("/null",):
        return f"{point} is masked by {root}"
    flags = ",".join(sorted(options.split(",")))
    peers = " ".join(item.partition(":")[0] for item in propagation)
    return f"{point} {kind} {source if kind != 'ext4' else ''} {flags} {peers}"


def _namespace(line: str) -> str:
    kind, _, name = line.partition(" ")
    return f"{kind} {'the host' if name == os.readlink(f'/proc/self/ns/{kind}') else 'its own'}"
