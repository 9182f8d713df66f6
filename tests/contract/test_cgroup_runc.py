"""What we write into a cgroup against what runc writes, file by file, for the same `linux.resources`."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.linux.cgroup import Cgroup, detect
from orlop.runtime.resources import settings
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import Resources

MIB = 1024 * 1024
LAYOUT = detect()
DENY_ALL = {"allow": False, "access": "rwm"}
DISK = {"major": 7, "minor": 0}

# controller -> the files that hold limits; what only counts differs from run to run.
FILES = {
    "memory": (
        *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness"),
        *("memory.oom_control", "memory.kmem.tcp.limit_in_bytes", "memory.use_hierarchy"),
    ),
    "cpu": (
        *("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle"),
        *("cpu.rt_period_us", "cpu.rt_runtime_us"),
    ),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "pids": ("pids.max",),
    "blkio": (
        *("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"),
        *("blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"),
    ),
    "devices": ("devices.list",),
}
# runc 1.1 lets every container open /dev/net/tun; newer ones (1.2) do not, and neither do we.
RUNC_ALONE = "c 10:200 rwm"

# memory.kernelTCP is not among them: runc drops it silently, we write it.
ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "memory": {"memory": {"limit": 64 * MIB}},
    "memory and swap": {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}},
    "memory without swap": {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
    "memory, any swap": {"memory": {"limit": 64 * MIB, "swap": -1}},
    "any memory": {"memory": {"limit": -1}},
    "zeros": {"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0}, "pids": {"limit": 0}},
    "reservation": {"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}},
    "swappiness": {"memory": {"swappiness": 0}},
    "no OOM killer": {"memory": {"limit": 64 * MIB, "disableOOMKiller": True}},
    "shares": {"cpu": {"shares": 512}},
    "least shares": {"cpu": {"shares": 2}},
    "quota": {"cpu": {"quota": 50_000}},
    "quota and period": {"cpu": {"quota": 5_000, "period": 20_000}},
    "period": {"cpu": {"period": 20_000}},
    "any quota": {"cpu": {"quota": -1, "period": 50_000}},
    "cpuset": {"cpu": {"cpus": "0", "mems": "0"}},
    "pids": {"pids": {"limit": 17}},
    "any pids": {"pids": {"limit": -1}},
    "throttles": {
        "blockIO": {
            "throttleReadBpsDevice": [{**DISK, "rate": MIB}],
            "throttleWriteBpsDevice": [{**DISK, "rate": 2 * MIB}],
            "throttleReadIOPSDevice": [{**DISK, "rate": 100}],
            "throttleWriteIOPSDevice": [{**DISK, "rate": 200}],
        }
    },
    "no devices": {"devices": [DENY_ALL]},
    "all devices": {"devices": [{"allow": True, "access": "rwm"}]},
    "one device": {"devices": [DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]},
    "a device for reading": {
        "devices": [DENY_ALL, {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "r"}]
    },
    "access in two rules": {
        "devices": [
            DENY_ALL,
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]
    },
    "access taken back": {
        "devices": [
            DENY_ALL,
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]
    },
    "a whole major": {"devices": [DENY_ALL, {"allow": True, "type": "c", "major": 10, "access": "rw"}]},
    "one device less": {
        "devices": [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        ]
    },
    "what a later rule for all forgets": {
        "devices": [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}, DENY_ALL]
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "too few shares": {"cpu": {"shares": 1}},
    "too many shares": {"cpu": {"shares": 300_000}},
    "swap less than memory": {"memory": {"limit": 64 * MIB, "swap": 32 * MIB}},
    "a CPU that is not there": {"cpu": {"cpus": "4095"}},
    "a short period": {"cpu": {"quota": 5_000, "period": 10}},
    "a hole in a rule": {
        "devices": [
            DENY_ALL,
            {"allow": True, "type": "c", "major": 10, "access": "rw"},
            {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]
    },
    "a unified file": {"unified": {"memory.high": "1000000"}},
}


@pytest.fixture(autouse=True)
def v1() -> None:
    if "memory" not in LAYOUT.v1:
        pytest.skip("needs: cgroup v1")


@pytest.fixture
def parent() -> Iterator[Cgroup]:
    """A cgroup of this test, in which runc's and ours stand side by side."""
    parent = Cgroup(LAYOUT, f"/orlop-test-{secrets.token_hex(4)}")
    parent.create()
    yield parent
    parent.kill()
    parent.remove()


@pytest.fixture
def runc(peer: Callable[[str], Path], parent: Cgroup, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Cgroup]]:
    """`runc(resources)` creates a container with them and returns its cgroup; it is deleted at the end."""
    program, busybox = peer("runc"), peer("busybox")
    words = [str(program), "--root", str(tmp_path / "state")]
    bundle = tmp_path / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    (bundle / "rootfs/proc").mkdir()
    shutil.copy(busybox, bundle / "rootfs/bin/sh")
    path = f"{parent.path}/runc"

    def create(resources: dict[str, Any]) -> Cgroup:
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"args": ["/bin/sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}],
                "cgroupsPath": path,
                "resources": resources,
            },
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        subprocess.run(
            [*words, "create", "--bundle", str(bundle), "orlop-test"],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return Cgroup(LAYOUT, path)

    yield create
    subprocess.run([*words, "delete", "--force", "orlop-test"], check=False, capture_output=True)


def ours(parent: Cgroup, resources: dict[str, Any]) -> Cgroup:
    cgroup = Cgroup(LAYOUT, f"{parent.path}/ours")
    cgroup.create()
    cgroup.apply(settings(Resources.from_json(resources), LAYOUT))
    return cgroup


def limits(cgroup: Cgroup) -> dict[str, list[str]]:
    """Return the lines of every file of FILES, in no order."""
    found = {}
    for controller, files in FILES.items():
        for file in files:
            path = Path(LAYOUT.directory(controller) + cgroup.path, file)
            if path.exists():
                lines = path.read_text().splitlines()
                found[file] = sorted(line for line in lines if line != RUNC_ALONE and not line.startswith("oom_kill "))
    return found


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_limits_are_those_of_runc(name: str, parent: Cgroup, runc: Callable[[dict[str, Any]], Cgroup]) -> None:
    resources = ACCEPTED[name]
    theirs = limits(runc(resources))
    assert len(theirs) > 15
    assert limits(ours(parent, resources)) == theirs


@pytest.mark.parametrize("name", REFUSED)
def test_what_runc_refuses_is_refused(name: str, parent: Cgroup, runc: Callable[[dict[str, Any]], Cgroup]) -> None:
    resources = REFUSED[name]
    with pytest.raises(subprocess.CalledProcessError):
        runc(resources)
    with pytest.raises((OrlopError, OSError)):
        ours(parent, resources)


def test_the_comparison_sees_what_runc_wrote(parent: Cgroup, runc: Callable[[dict[str, Any]], Cgroup]) -> None:
    theirs = runc({"pids": {"limit": 23}})
    assert limits(theirs)["pids.max"] == ["23"]
    assert theirs.procs()
    assert all(os.path.isdir(mount + theirs.path) for mount in LAYOUT.v1.values())


def test_a_limit_that_runc_drops_is_written(parent: Cgroup) -> None:
    cgroup = ours(parent, {"memory": {"kernelTCP": 16 * MIB}})
    assert limits(cgroup)["memory.kmem.tcp.limit_in_bytes"] == [str(16 * MIB)]
