"""What a test of the runtime starts: a root file system of the host's programs, and a spec as docker writes it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from orlop.spec.runtime import Capabilities, Linux, Mount, Namespace, Process, Resources, Root, Spec

PROGRAMS = (
    "sh cat ls true false sleep echo hostname id stat mount umount touch mkdir rm ln grep readlink dd env pwd head "
    "kill chmod mknod mkfifo tty stty ps wc tr sort nproc"
).split()
DIRECTORIES = ("proc", "sys", "dev", "tmp", "etc", "root", "run", "var", "usr/bin", "bin")

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
)
CAPABILITIES_MASK = 0xA80425FB
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES = ("mount", "network", "uts", "pid", "ipc", "cgroup")
ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box")
_PLAIN = ("nosuid", "noexec", "nodev")
MOUNTS = (
    Mount(destination="/proc", type="proc", source="proc", options=_PLAIN),
    Mount(
        destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")
    ),
    Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount(destination="/sys", type="sysfs", source="sysfs", options=(*_PLAIN, "ro")),
    Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=("ro", *_PLAIN)),
    Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=_PLAIN),
    Mount(destination="/dev/shm", type="tmpfs", source="shm", options=(*_PLAIN, "mode=1777", "size=67108864")),
)


def make_root(directory: Path, programs: Sequence[str] = PROGRAMS) -> Path:
    """Fill a directory with programs of the host, their libraries, and what /etc must have; return it."""
    from devtools import peers  # here: a test's helper process imports this module without tools on its path

    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    places = []
    for program in programs:
        # The interpreter that runs this, because `python3` on PATH may be a script that looks for one.
        found = Path(sys.executable) if program == "python3" else peers.find(program)
        assert found, f"neither the host nor .cache/peers has {program}"
        copy(found.resolve(), directory / "bin" / program)
        places.append(str(found))
    for library in libraries(*places):
        copy(library, directory / str(library).lstrip("/"))
    if "python3" in programs:
        library_root = Path(sysconfig.get_path("stdlib"))
        shutil.copytree(
            library_root,
            directory / str(library_root).lstrip("/"),
            dirs_exist_ok=True,
            symlinks=True,
            ignore=shutil.ignore_patterns("test", "idlelib", "lib2to3", "dist-packages", "__pycache__", "config-*"),
        )
    (directory / "tmp").chmod(0o1777)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\ntty:x:5:\nann:x:1000:\nwheel:x:10:ann\n")
    return directory


def make_spec(*args: str, **changes: object) -> Spec:
    """Return docker's default spec for a command; changes replace fields of the process, of linux or of the spec."""
    process = Process(
        cwd="/",
        args=args or ("true",),
        env=ENVIRONMENT,
        capabilities=Capabilities(bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES),
    )
    linux = Linux(
        namespaces=tuple(Namespace(type=kind) for kind in NAMESPACES),
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
        resources=Resources(),
    )
    spec = Spec(
        oci_version="1.2.0", root=Root(path="rootfs"), mounts=MOUNTS, process=process, hostname="box", linux=linux
    )
    for name, value in changes.items():
        if name in Process._fields:
            process = process.replace(**{name: value})
        elif name in Linux._fields:
            linux = linux.replace(**{name: value})
        else:
            spec = spec.replace(**{name: value})
    return spec.replace(process=process, linux=linux)


@functools.cache
def libraries(*programs: str) -> tuple[Path, ...]:
    """Return the shared libraries of programs of the host, their loader among them."""
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    words = [word for line in done.stdout.splitlines() for word in line.split() if word.startswith("/")]
    return tuple(dict.fromkeys(Path(word) for word in words if not word.endswith(":")))


def copy(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(os.path.realpath(source), target)
        target.chmod(0o755)
