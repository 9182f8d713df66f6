"""What `orlop-runtime run` imports until it has a plan: start-up is a feature, so the whole list is pinned.

Every module is 0.2 ms of a start. Add one only with a measurement (`python -X importtime`), or import it where it is
needed: as what a profile, a scheduling policy or a terminal needs.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.engine import CHECKOUT

# A bundle that is not there ends the command when everything is imported; the plan is compiled as the command does it.
SHOW = """
import sys
before = set(sys.modules)
sys.path.append({src!r})
from orlop.runtime.cli.main import main
assert main(["--root", "/dev/null/root", "run", "--bundle", "/dev/null", "x"]) == 1
from orlop.runtime import host, plan
from orlop.spec.runtime import Spec
plan.compile(Spec.from_json({spec!r}), host.facts())
print(*(set(sys.modules) - before))
"""
SPEC = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "process": {"args": ["true"], "cwd": "/", "user": {}, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 8}]},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {
        "cgroupsPath": "/x",
        "namespaces": [{"type": "pid"}, {"type": "mount"}],
        "resources": {"memory": {"limit": 1 << 30}, "devices": [{"allow": False, "access": "rwm"}]},
    },
}
PROFILE = {"defaultAction": "SCMP_ACT_ALLOW"}

PINNED = {
    f"orlop.{package}{name and '.'}{name}"
    for package, names in {
        "spec": "errors jsonio record runtime",
        "linux": "abi capability ffi interface mount path pidfd process signals tty executable",
        "linux.cgroup": "counters devices directory entered layout settings tree v1",
        "runtime": "birth channel command gate hooks host init launch plan reaper resources rootfs",
        "runtime.cli": "call create descriptors flags foreground log main removal store",
        "runtime.operations": "cgroup_view cgroups devices hooks identity idmap limits masks mount_options"
        " mounts names namespaces process reaper root terminal",
        "runtime.planning": "mounts namespaces process",
    }.items()
    for name in ["", *names.split()]
} | {"orlop", "orlop.frozen"}
# Which of the standard library's are built into the interpreter differs: these may come, others may not.
STANDARD = set(
    """
    __future__ _collections_abc _ctypes _json _socket _stat _struct _typing abc errno fcntl gc
    genericpath io math ntpath os os.path posixpath resource select stat termios time
    """.split()
)
COMPILER = {"orlop.linux.bpf", "orlop.linux.seccomp", "orlop.linux.syscalls", "orlop.runtime.seccomp"}


def loaded(spec: dict[str, object]) -> set[str]:
    """Return the modules that a run loads into a bare interpreter."""
    code = SHOW.format(src=str(CHECKOUT / "src"), spec=json.loads(json.dumps(spec)))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_run_loads_what_is_pinned():
    found = loaded(SPEC)
    own = {name for name in found if name.partition(".")[0] == "orlop"}
    assert own == PINNED
    assert found - own <= STANDARD


def test_a_profile_alone_loads_its_compiler():
    assert not COMPILER & loaded(SPEC)
    assert loaded(SPEC | {"linux": {**SPEC["linux"], "seccomp": PROFILE}}) >= COMPILER


def test_a_copy_up_is_loaded_by_the_plan_that_asks_for_it():
    """The container's first process, in the middle of its mounts, is no place to look for a module."""
    copied = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    assert "orlop.runtime.copyup" in loaded(SPEC | {"mounts": [*SPEC["mounts"], copied]})


LIGHT = """
import sys
sys.path.append({src!r})
from orlop.runtime.cli.main import main
assert main(["--root", "/dev/null/root", {verb!r}, "x"]) == 1
print(*sys.modules)
"""


@pytest.mark.parametrize("verb", ["start", "delete", "state", "pause"])
def test_verbs_that_make_nothing_load_nothing_that_makes(verb: str) -> None:
    """A container's life is three processes of ours: what create needs must not be paid for by start and delete."""
    code = LIGHT.format(src=str(CHECKOUT / "src"), verb=verb)
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    modules = set(found.stdout.split())
    heavy = {"_ctypes", "enum", "re", "orlop.runtime.plan", "orlop.runtime.launch", "orlop.runtime.operations"}
    assert not modules & heavy
    assert verb == "state" or "orlop.spec.runtime" not in modules
    assert verb != "start" or "orlop.linux.cgroup" not in modules
