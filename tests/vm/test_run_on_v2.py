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
LIVE = """
set -e
own() { cat /sys/fs/cgroup/orlop/*/$1; }
./orlop run -d --name c --network none -m 64m host sleep 10000 >/dev/null
./orlop pause c; own cgroup.freeze
./orlop update -m 32m --memory-swap 32m --pids-limit 7 c; own memory.max; own pids.max
./orlop unpause c; own cgroup.freeze
./orlop stats --no-stream --format '{{.PIDs}} {{.MemUsage}}' c | sed 's/ .* / /'
./orlop run --name o --network none -m 16m --memory-swap 16m host dd if=/dev/zero of=/dev/null bs=64M count=1 || echo $?
./orlop why o | head -n 1 | grep -o 'the kernel killed it, because it needed more memory than its limit'
"""
# Before Linux 6.15 a detached mount can't be cloned: a tmpfs is lent by whoever has it.
SHARED = """
./orlop volume create -o type=tmpfs -o device=tmpfs -o o=size=1m mem
write='echo shared > /m/said; echo memory > /dev/shm/said; exec sleep 10000'
./orlop run -d --name a --network none --ipc shareable -v mem:/m host sh -c "$write" >/dev/null
./orlop run --rm --network none --ipc container:a -v mem:/m host cat /m/said /dev/shm/said
./orlop rm -f a c
"""


def test_containers_are_limited_changed_explained_and_leave_nothing() -> None:
    done = guest.run(["sh", "-c", STORY + LIVE + SHARED], timeout_s=550)
    assert done.stdout.splitlines() == [
        *("67108864", "67108864", "20", "50000 100000"),
        *("0::/", "denied"),
        *("2", "42"),  # dash ends with 2 when it can't fork
        *("c", "1"),
        *("c", str(32 * 1024**2), "7"),
        *("c", "0"),
        "1 32MiB",
        *("137", "the kernel killed it, because it needed more memory than its limit"),
        *("mem", "shared", "memory"),
        *("a", "c"),
    ], done
