"""The image `host` as a root file system: its programs run in it, on this host and on one that has only busybox."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.content import Store
from orlop.image import Images, host
from orlop.image.closure import from_binaries
from orlop.snapshot import Snapshots

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    base = tmp_path_factory.mktemp("host")
    images = Images(Store(str(base / "content")))
    snapshots = Snapshots(str(base / "snapshots"))
    chain = snapshots.unpack(images.layer_openers(host.ensure(images)))
    snapshots.close()
    assert chain is not None
    return f"{base}/snapshots/layers/{chain.hex}/fs"


MOUNT_PROC = 'mount -t proc proc "$1/proc" && exec chroot "$@"'


def inside(root: str, *command: str, proc: bool = False) -> str:
    """Return what a command says with this root; proc: with /proc, as any host has it, mounted for it alone."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "xterm"}
    enter = ["unshare", "--mount", "sh", "-c", MOUNT_PROC, "-"] if proc else ["chroot"]
    done = subprocess.run([*enter, root, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo $((6 * 7))", "42\n"),
        ("id", "uid=0(root) gid=0(root) groups=0(root)\n"),
        ("cd /; pwd", "/\n"),
        ("printf 'b\\na\\n' | sort | head -n 1", "a\n"),
        ("echo abc | sed s/b/x/ | grep -c axc", "1\n"),
        ("awk 'BEGIN { print 1 + 1 }'", "2\n"),
        ("find /tmp", "/tmp\n"),
        ("echo x > /tmp/f && tar -C /tmp -c f | tar -t; rm /tmp/f", "f\n"),
        ("echo zip | gzip -c | gzip -dc", "zip\n"),
        ("env -i A=1 env", "A=1\n"),
        ("stat -c %a /tmp /root", "1777\n700\n"),
        ("ls -ld /proc | cut -c 1-10", "dr-xr-xr-x\n"),
        ("cat /etc/group | tail -n 1", "nogroup:x:65534:\n"),
    ],
)
def test_programs_of_the_image_run_in_it(root: str, script: str, said: str) -> None:
    assert inside(root, "sh", "-c", script) == said


def test_every_program_finds_its_libraries(root: str) -> None:
    """The loader is asked inside: it maps all of them, or says which one is missing."""
    if not os.path.exists(f"{root}/lib64/ld-linux-x86-64.so.2"):
        loader = next(name for name in os.listdir(f"{root}/lib") if name.startswith("ld-"))
        loader = f"/lib/{loader}"
    else:
        loader = "/lib64/ld-linux-x86-64.so.2"
    programs = [
        f"/usr/{place}/{name}"
        for place in ("bin", "sbin")
        if os.path.isdir(f"{root}/usr/{place}")
        for name in os.listdir(f"{root}/usr/{place}")
    ]
    checked = 0
    for program in programs:
        real = os.path.realpath(f"{root}{program}")
        path = f"{root}{program}" if real.startswith(root) else ""
        if not path or os.path.islink(path) or Path(path).read_bytes()[:4] != b"\x7fELF":
            continue
        done = subprocess.run(["chroot", root, loader, "--list", program], capture_output=True, text=True)
        assert "not found" not in done.stdout + done.stderr, program
        checked += done.returncode == 0
    assert checked > 50


def test_isolation_speaks_in_lines(root: str) -> None:
    lines = inside(root, "isolation").splitlines()
    subjects = [line.partition(":")[0] for line in lines]
    for subject in ("process 1", "processes seen", "host name", "root directory", "mounts", "memory limit"):
        assert subject in subjects
    assert {"processes limit", "capabilities", "seccomp", "user", "new privileges"} <= set(subjects)


BUSYBOX_HOST = """
import sys
sys.path.insert(0, "/src")
from orlop.content import Store
from orlop.image import Images, host
from orlop.snapshot import Snapshots
images = Images(Store("/data/content"))
image = host.ensure(images)
assert host.ensure(images) == image
chain = Snapshots("/data/snapshots").unpack(images.layer_openers(image))
print(image.config.config.cmd[0], chain.hex)
"""


def test_a_host_of_busybox_alone(tmp_path: Path, peer: Callable[[str], Path]) -> None:
    """A small host, made with our own from_binaries: no merged /usr, no bash, no coreutils; busybox and a Python."""
    busybox = peer("busybox")
    small = tmp_path / "small"
    python = os.path.realpath(sys.executable)
    extensions = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    from_binaries([python], str(small))
    (small / "bin").mkdir(exist_ok=True)
    shutil.copy2(busybox, small / "bin/busybox")
    (small / "bin/ls").symlink_to("busybox")
    for directory in (Path(sysconfig.get_path("stdlib")), extensions):
        shutil.copytree(
            directory, f"{small}{directory}", dirs_exist_ok=True, symlinks=True,
            ignore=shutil.ignore_patterns("test", "site-packages", "dist-packages", "__pycache__", "config-*"),
        )  # fmt: skip
    for extension in extensions.glob("_*.so"):
        if extension.name.startswith(("_ctypes", "_hashlib", "_struct", "_json")):
            for library in subprocess.run(["ldd", extension], capture_output=True, text=True).stdout.split():
                if library.startswith("/") and not os.path.lexists(f"{small}{library}"):
                    os.makedirs(f"{small}{os.path.dirname(library)}", exist_ok=True)
                    shutil.copy2(library, f"{small}{library}")
    shutil.copytree(SOURCE, small / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("proc", "etc", "data"):
        (small / name).mkdir(exist_ok=True)
    said = inside(str(small), python, "-I", "-S", "-B", "-c", BUSYBOX_HOST, proc=True)
    shell, chain = said.split()
    made = f"{small}/data/snapshots/layers/{chain}/fs"
    assert shell == "sh"
    assert not os.path.islink(f"{made}/bin")
    assert os.readlink(f"{made}/bin/ls") == "busybox"
    assert inside(made, "sh", "-c", "ls / | grep -c bin; id -u; echo a b | awk '{ print $2 }'") == "1\n0\nb\n"


def test_the_applets_of_a_busybox_are_those_it_lists(peer: Callable[[str], Path]) -> None:
    busybox = peer("busybox")
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert host._busybox_applets(str(busybox)) == set(listed)
    assert host._busybox_applets("/bin/sh") & {"ls", "awk", "mount"} == set()
