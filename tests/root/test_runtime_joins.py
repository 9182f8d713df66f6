"""Namespaces that exist already: every kind by its path, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.bundles import RUNTIME, Config, Runtime, base, busybox_root
from support.tasks import wait_until

FILES = {"mount": "mnt", "network": "net"}
KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time")
SHOW = "for n in cgroup ipc mnt net pid time user uts; do echo $n $(readlink /proc/self/ns/$n); done; id -u"
MAP = "0 0 65536\n"


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    return busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))


@pytest.fixture(scope="module")
def holder() -> Iterator[int]:
    """A process in a new namespace of every kind but pid, whose child is in a new one of that, too: its pid."""
    flags = "--user --net --uts --ipc --mount --cgroup --time --pid --fork --kill-child --propagation unchanged".split()
    process = subprocess.Popen(["unshare", *flags, "sleep", "1000"])
    try:
        here = os.readlink("/proc/self/ns/user")
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/user") != here)
        for file in ("gid_map", "uid_map"):
            Path(f"/proc/{process.pid}/{file}").write_text(MAP)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: bool(children.read_text().split()))
        yield int(children.read_text().split()[0])
    finally:
        process.kill()
        process.wait()


def namespaces(pid: int, *joined: str, made: tuple[str, ...] = KINDS[:6]) -> list[dict[str, str]]:
    rows = [{"type": kind} for kind in made if kind not in joined]
    return rows + [{"type": kind, "path": f"/proc/{pid}/ns/{FILES.get(kind, kind)}"} for kind in joined]


def config(rootfs: Path, rows: list[dict[str, str]]) -> Config:
    value = base(rootfs)
    value["process"]["args"] = ["/bin/sh", "-c", SHOW]  # type: ignore[index]
    value["linux"]["namespaces"] = rows  # type: ignore[index]
    value.pop("hostname")
    # A sysfs belongs to the user namespace of its network namespace: not every combination may mount one.
    value["mounts"] = [row for row in value["mounts"] if not row["destination"].startswith("/sys")]  # type: ignore[attr-defined]
    return value


def run(tmp_path: Path, value: Config) -> subprocess.CompletedProcess[str]:
    return Runtime(RUNTIME, tmp_path / "state").run(tmp_path / "bundle", value, "joins")


@pytest.mark.parametrize(
    "joined",
    [(kind,) for kind in KINDS if kind != "pid"]
    + [("user", "pid"), ("user", "network", "uts"), tuple(kind for kind in KINDS if kind != "mount")],
    ids="+".join,
)
def test_a_namespace_is_joined(joined: tuple[str, ...], holder: int, rootfs: Path, tmp_path: Path) -> None:
    told = run(tmp_path, config(rootfs, namespaces(holder, *joined)))
    assert told.returncode == 0, told
    seen = dict(line.split(" ", 1) for line in told.stdout.splitlines()[:-1])
    for kind in KINDS:
        name = FILES.get(kind, kind)
        theirs = os.readlink(f"/proc/{holder}/ns/{name}")
        assert (seen[name] == theirs) == (kind in joined), kind
    assert told.stdout.splitlines()[-1] == "0"


def test_a_new_user_namespace_with_namespaces_of_the_host(rootfs: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["unshare", "--net", "--uts", "sleep", "1000"]) as process:
        try:
            here = os.readlink("/proc/self/ns/uts")
            wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/uts") != here)
            value = config(rootfs, namespaces(process.pid, "network", "uts", made=(*KINDS[:6], "user")))
            mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]
            value["linux"].update(uidMappings=mapping, gidMappings=mapping)  # type: ignore[attr-defined]
            told = run(tmp_path, value)
            theirs = os.readlink(f"/proc/{process.pid}/ns/net")
        finally:
            process.kill()
    assert told.returncode == 0, told
    assert theirs in told.stdout
    assert os.readlink("/proc/self/ns/user") not in told.stdout


def test_exec_enters_a_container_in_joined_namespaces(holder: int, rootfs: Path, tmp_path: Path) -> None:
    value = config(rootfs, namespaces(holder, "user", "network"))
    value["process"]["args"] = ["/bin/sh", "-c", "exec sleep 1000 >/dev/null 2>&1 </dev/null"]  # type: ignore[index]
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    runtime = Runtime(RUNTIME, tmp_path / "state")
    (bundle / "config.json").write_text(json.dumps(value))
    try:
        assert runtime("run", "--detach", "--bundle", str(bundle), "joined").returncode == 0
        told = runtime("exec", "joined", "/bin/sh", "-c", SHOW)
        assert os.readlink(f"/proc/{holder}/ns/user") in told.stdout, told
        assert os.readlink(f"/proc/{holder}/ns/net") in told.stdout, told
    finally:
        runtime("delete", "--force", "joined")


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        ("network", "/proc/self/ns/uts", "it is a uts namespace, and no network namespace"),
        ("user", "/proc/self/ns/pid", "it is a pid namespace, and no user namespace"),
        ("time", "/etc/passwd", "it is no namespace"),
        ("network", "/no/such", "there is no network namespace at /no/such"),
        ("mount", "/proc/self/ns/mnt", "it is the host's own mount namespace"),
    ],
)
def test_another_thing_at_the_path_is_refused(kind: str, path: str, words: str, rootfs: Path, tmp_path: Path) -> None:
    rows = [*({"type": each} for each in KINDS[:6] if each != kind), {"type": kind, "path": path}]
    told = run(tmp_path, config(rootfs, rows))
    assert told.returncode == 1
    assert words in told.stderr, told


def test_a_fifo_at_the_path_hangs_nobody(rootfs: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    rows = [
        *({"type": each} for each in KINDS[:6] if each != "network"),
        {"type": "network", "path": f"{tmp_path}/fifo"},
    ]
    assert "it is no namespace" in run(tmp_path, config(rootfs, rows)).stderr
