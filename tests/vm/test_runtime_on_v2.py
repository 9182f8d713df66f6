"""orlop-runtime on pure v2: the runtime's own tests, and its verbs on the files that v1 machines do not have.

ORLOP_TEST_GUEST=long runs all of the runtime's tests inside, which takes half an hour.
"""

from __future__ import annotations

import json
import os
import shlex

import pytest

from vm import guest

LONG_S_MAX = 7200
# What differs on v2 or on the older kernel, and what only a machine shows whose root may do everything.
TESTS = (
    "tests/root/test_runtime_launch.py",
    "tests/root/test_runtime_exec.py",
    "tests/root/test_runtime_process.py::test_joined_namespaces",
    "tests/root/test_runtime_process.py::test_rlimits_and_clamping",
    "tests/root/test_runtime_process.py::test_the_cgroup_view",
    "tests/root/test_runtime_process.py::test_sysctls_are_set_inside_and_not_outside",
    "tests/root/test_runtime_mounts.py::test_recursive_read_only_reaches_the_mounts_below",
    "tests/security/test_runtime_escapes.py::test_sec_30_no_control_file_can_be_written",
    "tests/security/test_runtime_escapes.py::test_sec_30_release_agent_in_a_user_namespace",
)
ALL = ("tests/root/test_runtime_*.py", "tests/security/test_runtime_*.py", "tests/unit/test_runtime_*.py")
PYTEST = "/orlop/.venv/bin/python -m pytest --color=no --timeout=0"
MARK = "== the life of a container"


@pytest.fixture(scope="module")
def machine_said() -> guest.Completed:
    """What one machine says of both: a boot is dearer than most of what is looked at."""
    life = f"echo; echo {MARK!r}; python3 -c {shlex.quote(LIFE)}"
    script = f"{PYTEST} {' '.join(TESTS)}; status=$?; {life} || exit; exit $status"
    return guest.run(["sh", "-c", script], timeout_s=900)


def test_the_runtime_holds_on_pure_v2(machine_said: guest.Completed) -> None:
    assert machine_said.returncode == 0, repr(machine_said)
    assert " passed" in machine_said.stdout


if os.environ.get("ORLOP_TEST_GUEST") == "long":

    @pytest.mark.timeout(LONG_S_MAX)
    def test_all_tests_of_the_runtime_hold_on_pure_v2() -> None:
        words, modules = f"{PYTEST} {' '.join(ALL)}", ("overlay", "loop")
        done = guest.run(["sh", "-c", words], timeout_s=LONG_S_MAX - 60, modules=modules)
        assert done.returncode == 0, repr(done)


LIFE = """
import json, pathlib, subprocess, sys

def call(*words, check=True):
    null = subprocess.DEVNULL
    done = subprocess.run(["./orlop-runtime", "--root", "/run/r", *words], stdin=null, capture_output=True, text=True)
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout

bundle = pathlib.Path("/tmp/bundle")
bundle.mkdir()
call("spec", "--bundle", str(bundle))
config = json.loads((bundle / "config.json").read_text())
config["process"].update(terminal=False, args=["sleep", "1000"])
config["root"] = {"path": "/", "readonly": True}
config["mounts"] = [row for row in config["mounts"] if row["destination"] != "/dev/mqueue"]
config["linux"]["cgroupsPath"] = "/box"
config["linux"]["resources"].update(
    memory={"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
    cpu={"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
    pids={"limit": 20},
    unified={"memory.high": "50331648", "pids.max": "30"},
)
(bundle / "config.json").write_text(json.dumps(config))
argv = ["./orlop-runtime", "--root", "/run/r", "create", "--bundle", str(bundle), "box"]
subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
box = pathlib.Path("/sys/fs/cgroup/box")
FILES = "memory.max memory.swap.max memory.low memory.high cpu.weight cpu.max cpuset.cpus pids.max".split()
told = {"created": {name: (box / name).read_text().strip() for name in FILES}}
call("start", "box")
call("update", "--memory", "128m", "--memory-swap", "-1", "--pids-limit", "9", "--cpu-quota", "20000", "box")
told["updated"] = {name: (box / name).read_text().strip() for name in FILES}
call("pause", "box")
told["paused"] = [json.loads(call("state", "box"))["status"], (box / "cgroup.events").read_text()]
call("resume", "box")
stats = json.loads(call("events", "--stats", "box"))["data"]
told["stats"] = [stats["pids"], stats["memory"]["usage"]["limit"], stats["cpu"]["usage"]["total"] > 0]
script = "cat /proc/self/cgroup; echo 1 > /sys/fs/cgroup/pids.max || echo refused; cat /dev/ttyS1 || echo denied"
told["inside"] = call("exec", "box", "sh", "-c", script)
call("kill", "box", "KILL")
call("delete", "--force", "box")
told["left"] = [str(path) for path in (box, pathlib.Path("/run/r/box")) if path.exists()]
json.dump(told, sys.stdout)
"""


def test_limits_are_those_of_v2(machine_said: guest.Completed) -> None:
    _, _, life = machine_said.stdout.partition(MARK)
    assert life, machine_said
    told = json.loads(life)
    created = {
        "memory.max": "67108864", "memory.swap.max": "0", "memory.low": "33554432", "memory.high": "50331648",
        "cpu.weight": "59", "cpu.max": "50000 100000", "cpuset.cpus": "0", "pids.max": "30",
    }  # fmt: skip
    assert told["created"] == created
    updated = {"memory.max": "134217728", "memory.swap.max": "max", "cpu.max": "20000 100000", "pids.max": "9"}
    assert told["updated"] == created | updated
    assert told["paused"][0] == "paused" and "frozen 1" in told["paused"][1]
    assert told["stats"] == [{"current": 1, "limit": 9}, 134217728, True]
    assert told["inside"].split() == ["0::/", "refused", "denied"]
    assert told["left"] == []
