"""A container's user owns its cgroup on pure v2, makes cgroups below, and can't touch its limits."""

from __future__ import annotations

from vm import guest

STORY = """
set -e
mkdir -p /b/root/bin /b/root/proc /b/root/dev /b/root/sys /b/root/tmp /b/root/etc
cp "$(command -v busybox)" /b/root/bin/busybox
for name in sh mkdir echo cat ls stat sleep; do ln -s busybox /b/root/bin/$name; done
cd /b
RUNTIME spec
python3 - <<'END'
import json
config = json.load(open("config.json"))
config["process"].update(terminal=False, user={"uid": 1000, "gid": 1000}, args=["/bin/sh", "-c", '''
cd /sys/fs/cgroup
stat -c "%u %n" . cgroup.procs cgroup.subtree_control memory.max
mkdir sub && echo made && echo 0 >sub/cgroup.procs && cat /proc/self/cgroup
(echo 1 >memory.max) 2>/dev/null && echo raised || echo kept
'''])
config["root"] = {"path": "root"}
config["linux"]["resources"]["memory"] = {"limit": 1 << 26}
for mount in config["mounts"]:
    if mount["destination"] == "/sys/fs/cgroup":
        mount["options"] = ["nosuid", "noexec", "nodev"]
json.dump(config, open("config.json", "w"))
END
RUNTIME run -b /b delegated
""".replace("RUNTIME", f"{guest.initramfs.CHECKOUT}/orlop-runtime")


def test_the_user_of_a_container_makes_cgroups_below_its_own() -> None:
    done = guest.run(["sh", "-c", STORY], timeout_s=300)
    assert done.stdout.splitlines() == [
        *("1000 .", "1000 cgroup.procs", "1000 cgroup.subtree_control", "0 memory.max"),
        *("made", "0::/sub", "kept"),
    ], done
