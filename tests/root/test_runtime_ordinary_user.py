"""orlop-runtime called by an ordinary user, with the bundle that `spec --rootless` writes, and runc beside it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import rootless
from support.bundles import RUNTIME, busybox_root
from support.rootless import RANGE, UID, User

# Names of namespaces and mounts are each runtime's own; ids, rights and devices are what the user asked for.
PROBE = """
id; pwd; hostname; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; ls /dev
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status
for f in /x /tmp/x /proc/sys/kernel/domainname /sys/x; do
    ( : >> $f ) 2>/dev/null && echo writable $f || echo refused $f
done
cut -d' ' -f5 /proc/self/mountinfo | sort
stat -c '%u:%g %n' /bin /proc/self
"""


class Box:
    """A user with a bundle."""

    def __init__(self, user: User, busybox: Path) -> None:
        self.user = user
        self.bundle = user.home / "bundle"
        self.bundle.mkdir()
        busybox_root(self.bundle / "rootfs", busybox)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", str(self.bundle)], check=True)
        done = user.run(RUNTIME, "spec", "--rootless", "--bundle", self.bundle)
        assert done.code == 0, done
        self.config = json.loads((self.bundle / "config.json").read_text())

    def write(self, *args: str) -> None:
        self.config["process"].update(terminal=False, args=list(args), rlimits=[])
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def call(self, runtime: str | Path, verb: str, *words: str) -> tuple[int, str, str]:
        """Run a verb; what a container would hold open goes to a file."""
        streams = [self.user.home / name for name in ("out", "err")]
        root = self.user.home / f"state-{Path(runtime).name}"
        with streams[0].open("wb") as out, streams[1].open("wb") as err:
            done = subprocess.run(
                self.user.argv(runtime, "--root", root, verb, *words), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                timeout=60, check=False, cwd="/",
            )  # fmt: skip
        return (done.returncode, *(path.read_text() for path in streams))  # type: ignore[return-value]

    def must(self, runtime: str | Path, verb: str, *words: str) -> str:
        code, out, err = self.call(runtime, verb, *words)
        assert code == 0, err
        return out


@pytest.fixture
def box(peer: Callable[[str], Path]) -> Iterator[Box]:
    with rootless.user() as user:
        yield Box(user, peer("busybox"))


RANGES = {
    "the own id": [{"hostID": UID, "containerID": 0, "size": 1}],
    "subordinate ids": [
        {"hostID": UID, "containerID": 0, "size": 1},
        {"hostID": int(RANGE.split(":")[0]), "containerID": 1, "size": 1000},
    ],
}


@pytest.mark.parametrize("ids", RANGES)
def test_the_container_is_as_runc_makes_it(box: Box, ids: str, peer: Callable[[str], Path]) -> None:
    box.config["linux"].update(uidMappings=RANGES[ids], gidMappings=RANGES[ids])
    box.config["hostname"] = "box"
    box.write("sh", "-c", PROBE)
    ours = box.must(RUNTIME, "run", "--bundle", str(box.bundle), "one")
    assert ours == box.must(peer("runc"), "run", "--bundle", str(box.bundle), "one")
    assert "uid=0" in ours and f"{UID}" in ours


def test_a_life(box: Box) -> None:
    box.write("sleep", "1000")
    box.must(RUNTIME, "create", "--bundle", str(box.bundle), "one")
    box.must(RUNTIME, "start", "one")
    state = json.loads(box.must(RUNTIME, "state", "one"))
    assert state["status"] == "running" and os.stat(f"/proc/{state['pid']}").st_uid in (0, UID)
    assert box.must(RUNTIME, "exec", "one", "sh", "-c", "id -u; cat /proc/1/comm").split() == ["0", "sleep"]
    assert box.call(RUNTIME, "exec", "one", "sh", "-c", "exit 7")[0] == 7
    box.must(RUNTIME, "kill", "one", "KILL")
    box.must(RUNTIME, "delete", "--force", "one")
    assert os.listdir(box.user.home / f"state-{RUNTIME.name}") == []


def test_what_can_not_be_is_told(box: Box) -> None:
    box.config["linux"]["resources"] = {"pids": {"limit": 5}}
    box.write("true")
    code, _, told = box.call(RUNTIME, "run", "--bundle", str(box.bundle), "one")
    assert code == 1 and ("linux.resources" in told or "cgroup" in told), told
    del box.config["linux"]["resources"]
    rows = box.config["linux"]["namespaces"]
    box.config["linux"]["namespaces"] = [row for row in rows if row["type"] != "user"]
    box.write("true")
    code, _, told = box.call(RUNTIME, "run", "--bundle", str(box.bundle), "one")
    assert code == 1 and "rootless container requires user namespaces" in told, told
    box.config["linux"]["namespaces"] = rows
    box.config["linux"]["uidMappings"] = [{"hostID": 1, "containerID": 0, "size": 1}]
    box.write("true")
    code, _, told = box.call(RUNTIME, "run", "--bundle", str(box.bundle), "one")
    assert code == 1 and "a user namespace" in told, told
