"""orlop-runtime with --systemd-cgroup where systemd is process 1 and cgroup v2 is alone.

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
SCRIPT = f"""
cat > /tmp/life.py <<'END'
{LIFE}
END
python3 /tmp/life.py
"""


def test_a_scope_has_the_limits_and_the_life_of_its_container() -> None:
    busybox = peers.find("busybox")
    assert busybox is not None
    done = debian.run(SCRIPT, timeout_s=550, files={".job/busybox": busybox.resolve()})
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
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
