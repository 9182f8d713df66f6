"""orlop-runtime with --systemd-cgroup where systemd is process 1 and cgroup v2 is alone, for root and for a user.

The machine takes minutes to say this much, so it is asked in the long form only: ORLOP_TEST_SYSTEMD_V2=1.
"""

from __future__ import annotations

import json

import pytest

from devtools import peers
from vm import debian

pytestmark = pytest.mark.xdist_group("debian")

# In the machine: one container's life, told as JSON.
LIFE = """
import json, pathlib, shutil, subprocess, sys

HOME = pathlib.Path("/run/box")

def run(*argv, check=True):
    null = subprocess.DEVNULL
    done = subprocess.run(argv, stdin=null, capture_output=True, text=True)
    assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout

def orlop(*words, check=True):
    return run("/orlop/orlop-runtime", "--systemd-cgroup", "--root", str(HOME / "state"), *words, check=check)

def shown(*names):
    told = run("systemctl", "show", "orlop-box.scope", "-p", ",".join(names))
    return dict(line.split("=", 1) for line in told.splitlines())

HOME.mkdir()
for name in ("bin", "dev", "proc", "sys", "tmp"):
    (HOME / "rootfs" / name).mkdir(parents=True)
shutil.copy("/orlop/.job/busybox", HOME / "rootfs/bin")
for name in ("cat", "sleep"):
    (HOME / "rootfs/bin" / name).symlink_to("busybox")
orlop("spec", "--bundle", str(HOME))
config = json.loads((HOME / "config.json").read_text())
config["process"].update(terminal=False, args=["sleep", "1000"], rlimits=[])
config["mounts"] = [row for row in config["mounts"] if row["destination"] != "/dev/mqueue"]
config["linux"]["cgroupsPath"] = "machine.slice:orlop:box"
config["linux"].setdefault("resources", {}).update(
    memory={"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
    cpu={"shares": 512, "quota": 50000, "period": 100000},
    pids={"limit": 20},
)
(HOME / "config.json").write_text(json.dumps(config))
argv = ["/orlop/orlop-runtime", "--systemd-cgroup", "--root", str(HOME / "state"), "--log", str(HOME / "log")]
null = subprocess.DEVNULL
done = subprocess.run([*argv, "create", "--bundle", str(HOME), "box"], stdin=null, stdout=null, stderr=null)
assert done.returncode == 0, (HOME / "log").read_text()
told = {"created": shown("ActiveState", "Slice", "Delegate", "TasksMax", "MemoryMax", "MemoryLow", "CPUWeight")}
orlop("start", "box")
scope = pathlib.Path("/sys/fs/cgroup" + shown("ControlGroup")["ControlGroup"])
FILES = "memory.max memory.swap.max memory.low cpu.weight cpu.max pids.max".split()
told["files"] = {name: (scope / name).read_text().strip() for name in FILES}
told["members"] = [json.loads(orlop("ps", "-f", "json", "box")), [json.loads(orlop("state", "box"))["pid"]]]
orlop("update", "--memory", "128m", "--memory-swap", "-1", "--pids-limit", "9", "--cpu-quota", "20000", "box")
run("systemctl", "daemon-reload")
told["updated"] = {name: (scope / name).read_text().strip() for name in FILES}
told["known"] = shown("TasksMax", "MemoryMax")
orlop("pause", "box")
told["paused"] = [json.loads(orlop("state", "box"))["status"], "frozen 1" in (scope / "cgroup.events").read_text()]
orlop("resume", "box")
told["inside"] = orlop("exec", "box", "cat", "/proc/self/cgroup").strip()
orlop("delete", "--force", "box")
told["left"] = [str(path) for path in (scope, HOME / "state/box") if path.exists()] + [shown("LoadState")["LoadState"]]
json.dump(told, sys.stdout)
"""
# The same for a user: with the user's own systemd, and with a plain path below a service that delegates its cgroup.
USER_LIFE = """
import json, pathlib, subprocess, sys, time

HOME = pathlib.Path("/home/tester/box")
STATE = "/run/user/1000/state"

def run(*argv, check=True):
    null = subprocess.DEVNULL
    done = subprocess.run(argv, stdin=null, capture_output=True, text=True)
    assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout

def shown(*names):
    told = run("systemctl", "--user", "show", "orlop-box.scope", "-p", ",".join(names))
    return dict(line.split("=", 1) for line in told.splitlines())

def life(*flags):
    def orlop(*words, check=True):
        return run("/orlop/orlop-runtime", *flags, "--root", STATE, *words, check=check)

    argv = ["/orlop/orlop-runtime", *flags, "--root", STATE, "--log", str(HOME / "log")]
    null = subprocess.DEVNULL
    done = subprocess.run([*argv, "create", "--bundle", str(HOME), "box"], stdin=null, stdout=null, stderr=null)
    assert done.returncode == 0, (HOME / "log").read_text()
    entry = json.loads((pathlib.Path(STATE) / "box/state.json").read_text())
    cgroup = pathlib.Path(entry["delegated"] + entry["cgroup"])
    orlop("start", "box")
    told = {"files": [(cgroup / name).read_text().strip() for name in ("memory.max", "cpu.max", "pids.max")]}
    subprocess.run([*argv, "exec", "--detach", "box", "sleep", "1000"], stdin=null, stdout=null, stderr=null)
    found = json.loads(orlop("ps", "-f", "json", "box"))
    told["members"] = [len(found), found == [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]]
    orlop("update", "--memory", "128m", "--pids-limit", "9", "box")
    told["updated"] = [(cgroup / name).read_text().strip() for name in ("memory.max", "pids.max")]
    orlop("pause", "box")
    frozen = "frozen 1" in (cgroup / "cgroup.events").read_text()
    told["paused"] = [json.loads(orlop("state", "box"))["status"], frozen]
    orlop("resume", "box")
    told["stats"] = json.loads(orlop("events", "--stats", "box"))["data"]["pids"]
    told["inside"] = orlop("exec", "box", "cat", "/proc/self/cgroup").strip()
    if flags:
        told["unit"] = shown("ActiveState", "Slice", "TasksMax", "MemoryMax", "TimeoutStopUSec")
    orlop("delete", "--force", "box")
    told["left"] = [str(path) for path in (cgroup, pathlib.Path(STATE) / "box") if path.exists()]
    return told

for name in ("bin", "dev", "proc", "sys", "tmp"):
    (HOME / "rootfs" / name).mkdir(parents=True, exist_ok=True)
if not (HOME / "rootfs/bin/cat").exists():
    (HOME / "rootfs/bin/busybox").write_bytes(pathlib.Path("/orlop/.job/busybox").read_bytes())
    (HOME / "rootfs/bin/busybox").chmod(0o755)
    for name in ("cat", "sleep"):
        (HOME / "rootfs/bin" / name).symlink_to("busybox")
    run("/orlop/orlop-runtime", "spec", "--rootless", "--bundle", str(HOME))
    config = json.loads((HOME / "config.json").read_text())
    config["process"].update(terminal=False, args=["sleep", "1000"], rlimits=[])
    config["mounts"] = [row for row in config["mounts"] if row["destination"] != "/dev/mqueue"]
    config["annotations"] = {"org.systemd.property.TimeoutStopSec": "uint64 7"}
    config["linux"].setdefault("resources", {}).update(
        memory={"limit": 64 << 20}, cpu={"quota": 50000, "period": 100000}, pids={"limit": 20}
    )
    (HOME / "config.json").write_text(json.dumps(config))
told = life(*sys.argv[1:])
if sys.argv[1:]:
    told["left"] += [shown("LoadState")["LoadState"]]
json.dump(told, sys.stdout)
"""
SCRIPT = f"""
cat > /tmp/life.py <<'END'
{LIFE}
END
cat > /tmp/user.py <<'END'
{USER_LIFE}
END
chmod 755 /tmp/user.py
python3 /tmp/life.py && echo &&
as_user systemctl --user is-system-running --wait >/dev/null &&
as_user python3 /tmp/user.py --systemd-cgroup && echo &&
as_user systemd-run --user --wait --quiet --pipe -p Delegate=yes python3 /tmp/user.py
"""


@pytest.fixture(scope="module")
def told() -> list[dict[str, object]]:
    """What the lives said of themselves: root's, a user's with systemd, a user's below a delegated cgroup."""
    busybox = peers.find("busybox")
    assert busybox is not None
    done = debian.run(SCRIPT, timeout_s=900, files={".job/busybox": busybox.resolve()})
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_user_has_scopes_of_the_users_own_systemd(told: list[dict[str, object]]) -> None:
    found = told[1]
    assert found.pop("unit") == {
        "ActiveState": "active", "Slice": "user.slice", "TasksMax": "9", "MemoryMax": str(128 << 20),
        "TimeoutStopUSec": "7s",
    }  # fmt: skip
    assert found.pop("left") == ["not-found"]
    assert_life(found)


def test_a_user_has_cgroups_below_one_that_is_delegated(told: list[dict[str, object]]) -> None:
    assert told[2].pop("left") == []
    assert_life(told[2])


def assert_life(found: dict[str, object]) -> None:
    assert found == {
        "files": [str(64 << 20), "50000 100000", "20"], "members": [2, True], "updated": [str(128 << 20), "9"],
        "paused": ["paused", True], "stats": {"current": 2, "limit": 9}, "inside": "0::/",
    }  # fmt: skip


def test_a_scope_has_the_limits_and_the_life_of_its_container(told: list[dict[str, object]]) -> None:
    found = told[0]
    assert found["created"] == {
        "ActiveState": "active", "Slice": "machine.slice", "Delegate": "yes", "TasksMax": "20",
        "MemoryMax": str(64 << 20), "MemoryLow": str(32 << 20), "CPUWeight": "59",
    }  # fmt: skip
    files = {
        "memory.max": str(64 << 20), "memory.swap.max": "0", "memory.low": str(32 << 20), "cpu.weight": "59",
        "cpu.max": "50000 100000", "pids.max": "20",
    }  # fmt: skip
    assert found["files"] == files
    members, first = found["members"]
    assert members == first
    updated = {"memory.max": str(128 << 20), "memory.swap.max": "max", "cpu.max": "20000 100000", "pids.max": "9"}
    assert found["updated"] == files | updated
    assert found["known"] == {"TasksMax": "9", "MemoryMax": str(128 << 20)}
    assert found["paused"] == ["paused", True]
    assert found["inside"] == "0::/"
    assert found["left"] == ["not-found"]
