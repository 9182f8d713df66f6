"""Scopes made by a real systemd: it is process 1 of a container of ours, and our runtime is called inside.

Without systemd as process 1, which is how most machines of tests are, --systemd-cgroup is refused in so many words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux import capability
from support.bundles import RUNTIME, Config, Runtime, base, busybox_root, mount
from support.engine import CHECKOUT
from support.tasks import wait_until

pytestmark = pytest.mark.xdist_group("systemd in a container")
SYSTEMD = Path("/usr/lib/systemd/systemd")
TARGET = "[Unit]\nDescription=nothing but systemd itself\n"


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    return busybox_root(tmp_path_factory.mktemp("busybox"), peer("busybox"))


class Machine:
    """A container with systemd in it."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.runtime = Runtime(RUNTIME, directory / "state")
        self.bundle = directory / "inner"
        self.bundle.mkdir()
        outer = directory / "outer"
        outer.mkdir()
        (outer / "config.json").write_text(json.dumps(_systemd_config(_root(directory), directory, rootfs)))
        with (directory / "console").open("wb") as console:
            argv = [*self.runtime.argv, "run", "--detach", "--bundle", str(outer), "machine"]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return self.runtime("exec", "--cwd", "/", "machine", *argv)

    def orlop(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run our runtime inside."""
        return self(str(RUNTIME), "--root", "/run/orlop-runtime", "--systemd-cgroup", *argv)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        told = self("/usr/bin/systemctl", "show", unit, "-p", ",".join(names)).stdout
        return dict(line.split("=", 1) for line in told.splitlines())

    def configure(self, rootfs: Path, path: str, **resources: object) -> None:
        """Write the inner bundle, which is at the same place inside."""
        value = base(rootfs)
        value["process"]["args"] = ["/bin/sh", "-c", "exec sleep 1000 >/dev/null 2>&1 </dev/null"]  # type: ignore[index]
        value["linux"]["cgroupsPath"] = path  # type: ignore[index]
        value["linux"]["resources"].update(resources)  # type: ignore[index]
        (self.bundle / "config.json").write_text(json.dumps(value))

    def end(self) -> None:
        told = self.runtime("delete", "--force", "machine")
        assert told.returncode == 0, told


def _root(directory: Path) -> Path:
    root = directory / "root"
    for name in ("usr", "etc/systemd/system", "proc", "sys", "dev", "run", "tmp", "var"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/systemd/system/default.target").write_text(TARGET)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/machine-id").write_text("")
    shutil.copy("/etc/ld.so.cache", root / "etc")
    return root


def _systemd_config(root: Path, directory: Path, rootfs: Path) -> Config:
    value = base(root)
    names = list(capability.names_of(capability.bounding_set(capability.last())))
    value["process"].update(  # type: ignore[attr-defined]
        args=[str(SYSTEMD), "--system"],
        env=["container=orlop", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        capabilities=dict.fromkeys(("bounding", "effective", "permitted"), names),
        noNewPrivileges=False,
        rlimits=[],
    )
    changed = ("/sys/fs/cgroup", "/sys", "/tmp")
    value["mounts"] = [
        *(row for row in value["mounts"] if row["destination"] not in changed),  # type: ignore[attr-defined]
        mount("/sys", "sysfs", "sysfs", "nosuid"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "rw"),
        *(mount(place, "tmpfs", "tmpfs") for place in ("/run", "/tmp", "/var")),
        mount("/usr", "bind", "/usr", "rbind", "ro"),
        *(mount(str(place), "bind", str(place), "rbind") for place in (CHECKOUT, directory, rootfs)),
    ]
    value["linux"].update(  # type: ignore[attr-defined]
        maskedPaths=[], readonlyPaths=[], resources={"devices": [{"allow": True, "access": "rwm"}]}
    )
    return value


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Iterator[Machine]:
    if not SYSTEMD.exists():
        pytest.skip("needs: systemd")
    machine = Machine(tmp_path_factory.mktemp("machine"), rootfs)
    try:
        wait_until(lambda: machine("/usr/bin/systemctl", "is-system-running").stdout.strip() in ("running", "degraded"))
        yield machine
    finally:
        machine.end()


def test_a_scope_lives_and_dies_with_its_container(machine: Machine, rootfs: Path) -> None:
    machine.configure(
        rootfs,
        "a-b.slice:orlop:one",
        memory={"limit": 64 << 20},
        pids={"limit": 50},
        cpu={"shares": 512, "quota": 50000},
    )
    told = machine.orlop("run", "--detach", "--bundle", str(machine.bundle), "one")
    assert told.returncode == 0, told
    scope = machine.show(
        "orlop-one.scope", "ActiveState", "Slice", "ControlGroup", "Delegate", "TasksMax", "DevicePolicy"
    )
    assert scope == {
        "ActiveState": "active", "Slice": "a-b.slice", "Delegate": "yes", "TasksMax": "50", "DevicePolicy": "strict",
        "ControlGroup": "/a.slice/a-b.slice/orlop-one.scope",
    }  # fmt: skip
    # The stand-in has gone: the container's own process is alone, in every hierarchy.
    pids = json.loads(machine.orlop("ps", "-f", "json", "one").stdout)
    state = json.loads(machine.orlop("state", "one").stdout)
    assert pids == [state["pid"]]
    memberships = machine("/bin/cat", f"/proc/{pids[0]}/cgroup").stdout.splitlines()
    assert all(line.endswith(":/a.slice/a-b.slice/orlop-one.scope") for line in memberships), memberships

    assert machine.orlop("update", "--memory", "96m", "--pids-limit", "77", "one").returncode == 0
    assert machine("/usr/bin/systemctl", "daemon-reload").returncode == 0
    assert machine.show("orlop-one.scope", "TasksMax") == {"TasksMax": "77"}
    limits = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
    limits += " || cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max"
    assert machine.orlop("exec", "one", "/bin/sh", "-c", limits).stdout.split() == ["77", str(96 << 20)]

    assert machine.orlop("delete", "--force", "one").returncode == 0
    assert machine.show("orlop-one.scope", "LoadState") == {"LoadState": "not-found"}
    assert machine("/usr/bin/find", "/sys/fs/cgroup", "-name", "*orlop-one*").stdout == ""


def test_annotations_are_properties_of_the_scope(machine: Machine, rootfs: Path) -> None:
    machine.configure(rootfs, "system.slice:orlop:noted", pids={"limit": 50})
    config = json.loads((machine.bundle / "config.json").read_text())
    prefix = "org.systemd.property."
    config["annotations"] = {prefix + "TimeoutStopSec": "uint64 7", prefix + "TasksMax": "uint64 60"}
    (machine.bundle / "config.json").write_text(json.dumps(config))
    assert machine.orlop("run", "--detach", "--bundle", str(machine.bundle), "noted").returncode == 0
    told = machine.show("orlop-noted.scope", "TimeoutStopUSec", "TasksMax")
    assert told == {"TimeoutStopUSec": "7s", "TasksMax": "60"}
    assert machine.orlop("delete", "--force", "noted").returncode == 0
    for name, value in (("TimeoutStopSec", "seven"), ("NoSuchProperty", "true")):
        config["annotations"] = {prefix + name: value}
        (machine.bundle / "config.json").write_text(json.dumps(config))
        told = machine.orlop("run", "--bundle", str(machine.bundle), "noted")
        assert told.returncode == 1 and name in told.stderr and told.stderr.count("\n") == 1, told
    assert machine.show("orlop-noted.scope", "LoadState") == {"LoadState": "not-found"}


def test_a_start_that_fails_leaves_no_scope(machine: Machine, rootfs: Path) -> None:
    machine.configure(rootfs, ":orlop:two")
    config = json.loads((machine.bundle / "config.json").read_text())
    config["process"]["args"] = ["/no/such/command"]
    (machine.bundle / "config.json").write_text(json.dumps(config))
    told = machine.orlop("run", "--bundle", str(machine.bundle), "two")
    assert told.returncode == 1 and "/no/such/command" in told.stderr, told
    assert machine.show("orlop-two.scope", "LoadState") == {"LoadState": "not-found"}


def test_create_start_and_a_name_that_is_taken(machine: Machine, rootfs: Path) -> None:
    machine.configure(rootfs, "system.slice:orlop:three")
    created = machine(
        "/bin/sh", "-c", f"{RUNTIME} --root /run/orlop-runtime --systemd-cgroup create -b {machine.bundle} three"
        " </dev/null >/dev/null 2>&1",
    )  # fmt: skip
    assert created.returncode == 0, created
    assert machine.orlop("start", "three").returncode == 0
    again = machine.orlop("run", "--bundle", str(machine.bundle), "four")
    assert again.returncode == 1 and "already" in again.stderr, again
    assert machine.show("orlop-three.scope", "ActiveState") == {"ActiveState": "active"}
    assert machine.orlop("delete", "--force", "three").returncode == 0
    assert machine.orlop("list", "-q").stdout == ""


def test_a_wrong_path_is_told(machine: Machine, rootfs: Path) -> None:
    for path in ("/plain/path", "a:b", "a.slice:b:c/d"):
        machine.configure(rootfs, path)
        told = machine.orlop("run", "--bundle", str(machine.bundle), "wrong")
        assert told.returncode == 1 and "linux.cgroupsPath" in told.stderr, told


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="needs: a machine without systemd")
def test_without_systemd_it_is_refused(rootfs: Path, tmp_path: Path) -> None:
    value = base(rootfs)
    value["linux"]["cgroupsPath"] = "system.slice:orlop:nobody"  # type: ignore[index]
    runtime = Runtime(RUNTIME, tmp_path / "state")
    runtime.argv.append("--systemd-cgroup")
    told = runtime.run(tmp_path / "bundle", value, "nobody")
    assert told.returncode == 1 and "systemd is not running here" in told.stderr, told
    assert runtime("list", "-q").stdout == ""


@pytest.mark.parametrize("start", ["", "/"])
def test_without_the_flag_a_colon_is_a_character(
    start: str, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    """As runc: a path of the cgroup file systems."""
    name = f"orlop-test-{os.getpid()}.slice:colon:name"
    value = base(rootfs)
    value["linux"]["cgroupsPath"] = start + name  # type: ignore[index]
    value["process"]["args"] = ["/bin/cat", "/proc/self/cgroup"]  # type: ignore[index]
    value["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "uts")]  # type: ignore[index]
    for program in (RUNTIME, peer("runc")):
        told = Runtime(program, tmp_path / "state").run(tmp_path / "bundle", value, "colon")
        assert f"/{name}\n" in told.stdout, told
        assert not list(Path("/sys/fs/cgroup").glob(f"*/{name}"))
