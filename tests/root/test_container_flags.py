"""The flags of run, seen from inside a container and from the kernel's side; HostConfig beside the real dockerd's."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.workspace import Workspace
from orlop.linux.cgroup import Cgroup, detect
from support import processes
from support.engine import Environment


def inside(orlop: Environment, *flags: str, script: str) -> list[str]:
    """Return the lines that a script prints in a container with these flags."""
    return orlop("run", "--rm", "--network", "none", *flags, "host", "sh", "-c", script).stdout.splitlines()


def inspected(orlop: Environment, container: str) -> dict:
    found: dict = json.loads(orlop("inspect", "--type", "container", container).stdout)[0]
    return found


def a_device() -> str:
    """Return a device of this machine that no container may open unasked, and that anybody may."""
    known = ("/dev/loop-control", "/dev/fuse", "/dev/net/tun")
    return next(path for path in known if os.path.exists(path))


def test_a_process_has_what_the_flags_say(orlop):
    flags = ["--ulimit", "nofile=512:1024", "--ulimit", "core=0", "--oom-score-adj", "77", "--group-add", "5"]
    flags += ["--sysctl", "net.core.somaxconn=321", "--sysctl", "kernel.msgmax=4321", "--domainname", "dom.example"]
    flags += ["--shm-size", "5m", "--device", f"{a_device()}:/dev/hole:r", "-e", "A=b", "--annotation", "x=y"]
    script = """
        ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; id -G
        cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/kernel/domainname
        df -k /dev/shm | tail -1 | { read -r _ size _; echo $size; }
        : < /dev/hole && echo opened; (echo x > /dev/hole) 2>/dev/null || echo refused
    """
    assert inside(orlop, *flags, script=script) == [
        "512", "1024", "0", "77", "0 5", "321", "4321", "dom.example", "5120", "opened", "refused",
    ]  # fmt: skip


def test_cgroups_have_what_the_flags_say(orlop):
    flags = ["-m", "64m", "--memory-reservation", "32m", "--cpu-shares", "512", "--cpu-period", "50000"]
    flags += ["--cpu-quota", "25000", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "33"]
    flags += ["--device-cgroup-rule", "c 42:7 rw"]
    container = orlop("run", "-d", "--network", "none", *flags, "host", "sleep", "300").stdout.strip()
    layout = detect()
    cgroup = Cgroup(layout, f"/orlop/{container}")
    assert cgroup.text("pids", "pids.max") == "33"
    assert cgroup.text("cpuset", "cpuset.cpus") == "0"
    if layout.version("memory") == 1:
        assert cgroup.text("memory", "memory.limit_in_bytes") == str(64 << 20)
        assert cgroup.text("memory", "memory.soft_limit_in_bytes") == str(32 << 20)
    if layout.version("cpu") == 1:
        assert cgroup.text("cpu", "cpu.cfs_quota_us") == "25000"
        assert cgroup.text("cpu", "cpu.shares") == "512"
    if layout.version("devices") == 1:
        assert "c 42:7 rw" in (cgroup.text("devices", "devices.list") or "")


def test_namespaces_of_the_machine_are_shared_by_name_only(orlop):
    names = ["pid", "ipc", "uts", "cgroup"]
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in names)
    own = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert not set(inside(orlop, script=script)) & set(own)
    flags = ["--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"]
    assert inside(orlop, *flags, script=script) == own
    assert inside(orlop, "--ipc", "none", script="ls -d /dev/shm 2>/dev/null || echo none") == ["none"]


def test_all_processes_of_a_container_end_with_it_in_the_machines_pid_namespace(orlop):
    container = orlop(
        "run", "-d", "--pid", "host", "--network", "none", "host", "sh", "-c", "sleep 300 & exec sleep 301"
    ).stdout.strip()
    cgroup = Cgroup(detect(), f"/orlop/{container}")
    deadline = time.monotonic() + 30
    while len(pids := cgroup.procs()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    orlop("rm", "-f", container)
    while set(pids) & set(processes.pids()):
        assert time.monotonic() < deadline, "they go with the container's cgroup"
        time.sleep(0.02)


def test_a_pid_namespace_is_joined_while_its_container_runs(orlop):
    orlop("run", "-d", "--network", "none", "--name", "base", "host", "sleep", "300")
    first = inside(orlop, "--pid", "container:base", script="cat /proc/1/cmdline | tr '\\0' ' '")
    assert first == ["sleep 300 "]
    orlop("run", "-d", "--network", "none", "--name", "side", "--pid", "container:base", "host", "sleep", "301")
    orlop("restart", "-t", "0", "side")
    orlop("rm", "-f", "side")
    orlop("create", "--network", "none", "--name", "late", "--pid", "container:base", "host", "sleep", "302")
    orlop("stop", "base")
    done = orlop("start", "late", check=False)
    assert done.code == 1 and "cannot join PID namespace of a non running container" in done.stderr


def test_a_cgroup_parent_holds_the_container(orlop):
    parent = f"/orlop-test-{os.getpid()}"
    container = orlop(
        "run", "-d", "--network", "none", "--cgroup-parent", parent, "host", "sleep", "300"
    ).stdout.strip()
    cgroup = Cgroup(detect(), f"{parent}/{container}")
    try:
        assert cgroup.procs() == [inspected(orlop, container)["State"]["Pid"]]
        orlop("pause", container)
        orlop("rm", "-f", container)
        with pytest.raises(FileNotFoundError):
            cgroup.procs()
    finally:
        Cgroup(detect(), parent).remove()


def test_the_parents_made_for_a_cgroup_go_with_the_last_container_that_names_them(orlop):
    layout, parent = detect(), f"/orlop-test-{os.getpid()}"
    mounts = list(layout.hierarchies())
    there = lambda path: [Path(f"{mount}{path}").is_dir() for mount in mounts]  # noqa: E731
    try:
        Path(f"{mounts[0]}{parent}").mkdir()  # somebody's own: it stays
        for name in ("one", "two"):
            words = ("--name", name, "--network", "none", "--cgroup-parent", f"{parent}/made/deep", "host", "true")
            orlop("create" if name == "one" else "run", *words)
        orlop("rm", "two")
        assert all(there(f"{parent}/made/deep")), "one that does not run may come back"
        orlop("start", "-a", "one")
        orlop("rm", "one")
        assert not any(there(f"{parent}/made")) and there(parent) == [True, *[False] * (len(mounts) - 1)]
        orlop("run", "--rm", "--network", "none", "--cgroup-parent", f"{parent}/made", "host", "true")
        assert not any(there(f"{parent}/made"))
    finally:
        Cgroup(layout, parent).remove()


def test_labels_come_from_files_and_flags(orlop, tmp_path):
    (tmp_path / "labels").write_text("# a comment\na=1\nb=2\nbare\n")
    orlop(
        "create",
        "--network",
        "none",
        "--name",
        "web",
        "--label-file",
        str(tmp_path / "labels"),
        "-l",
        "b=3",
        "host",
        "x",
    )
    labels = inspected(orlop, "web")["Config"]["Labels"]
    assert {key: labels[key] for key in ("a", "b", "bare")} == {"a": "1", "b": "3", "bare": ""}


# -- beside dockerd ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docker(peer: Callable[[str], Path]) -> Iterator[Callable[..., str]]:
    """`docker(*words)` runs the docker CLI against a dockerd of our own, which has the image `bb`."""
    with Workspace() as work:
        env = work.dockerd("d", program=peer("dockerd")).env

        def call(*words: str, input: bytes = b"") -> str:
            done = subprocess.run([peer("docker"), *words], env=env, input=input, capture_output=True, check=True)
            return done.stdout.decode()

        call("import", "-", "bb", input=bytes(10240))  # an empty tar
        yield call


# What dockerd 20.10 answers otherwise, and why that is right here.
_OURS = {
    "CgroupnsMode": "ours is private on every machine",
    "LogConfig": "ours are capped",
    "MaskedPaths": "ours are more",
    "PidsLimit": "ours has one",
    "Runtime": "ours",
    "KernelMemory": "gone from the API since 1.42",
    "KernelMemoryTCP": "gone from the API since 1.42",
    "SecurityOpt": "dockerd 20.10 writes label=disable beside",
    "NetworkMode": "asked of each in its own words",
}
FLAGS: dict[str, list[str]] = {
    "nothing": [],
    "memory": ["-m", "64m", "--memory-swap", "-1", "--memory-reservation", "32m", "--memory-swappiness", "5"],
    "cpu": ["--cpu-period", "50000", "--cpu-quota", "25000", "-c", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0"],
    "cpus": ["--cpus", "1.5"],
    "devices": ["--device", "/dev/null:/dev/x:r", "--device-cgroup-rule", "c 42:* rmw"],
    "block": ["--device-read-bps", "/dev/null:1mb", "--device-write-iops", "/dev/zero:7"],
    "namespaces": ["--pid", "host", "--ipc", "shareable", "--uts", "host"],
    "process": ["--ulimit", "nofile=1:2", "--ulimit", "core=0", "--oom-score-adj", "9", "--group-add", "5"],
    "more": ["--sysctl", "net.core.somaxconn=9", "--shm-size", "5m", "--cgroup-parent", "/x", "--read-only"],
    "rights": ["--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--privileged"],
    "restart": ["--restart", "on-failure:3"],
}


@pytest.mark.parametrize("case", FLAGS)
def test_host_config_is_what_dockerd_makes_of_the_same_flags(orlop, docker, case):
    flags = ["--network", "none", "--name", f"c{list(FLAGS).index(case)}", *FLAGS[case]]
    docker("create", *flags, "bb", "x")
    orlop("create", *flags, "host", "x")
    theirs = json.loads(docker("inspect", flags[3]))[0]["HostConfig"]
    ours = inspected(orlop, flags[3])["HostConfig"]
    different = {
        key: (ours.get(key), value) for key, value in theirs.items() if key not in _OURS and ours.get(key) != value
    }
    assert different == {}
