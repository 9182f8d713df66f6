"""A container from the command line on pure v2 and on the oldest kernel that we test: 6.1, of Debian 12."""

from __future__ import annotations

from vm import guest

STORY = """
run='./orlop run --rm --network none'
$run -m 64m --pids-limit 20 --cpus 0.5 host sh -c 'cd /sys/fs/cgroup && cat memory.max memory.swap.max pids.max cpu.max'
$run host sh -c 'cat /proc/self/cgroup; mknod /tmp/disk b 7 0 && cat /tmp/disk 2>/dev/null || echo denied'
$run --pids-limit 5 host sh -c 'for n in 1 2 3 4 5 6; do sleep 9 & done; echo forked' 2>/dev/null
echo $?
$run host sh -c 'exit 42'
echo $?
find /sys/fs/cgroup/orlop -mindepth 1 -type d
"""


def test_containers_are_limited_and_leave_nothing() -> None:
    done = guest.run(["sh", "-c", STORY], timeout_s=400)
    assert done.stdout.splitlines() == [
        *("67108864", "67108864", "20", "50000 100000"),
        *("0::/", "denied"),
        *("2", "42"),  # dash ends with 2 when it can't fork
    ], done
