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
# A neighbour on a cable, also in VLAN 7: what lies on a link of the machine, of kinds that not every kernel has.
NETWORKS = """
ip link add up0 type veth peer name far; ip netns add peer; ip link set far netns peer
ip addr add 192.0.2.1/24 dev up0; ip link set up0 up
far() { ip -n peer "$@"; }
far addr add 192.0.2.2/24 dev far; far link set far up; far route add 10.9.0.0/24 via 192.0.2.1
far link add link far name far.7 type vlan id 7; far addr add fd00:7::1/64 dev far.7 nodad; far link set far.7 up
ip netns exec peer .venv/bin/python -c '
import socket
listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    client, who = listener.accept()
    client.sendall(who[0].removeprefix("::ffff:").encode() + b"\\n")
    client.close()' &
ask() { ./orlop exec $1 timeout 60 bash -c "exec 3<>/dev/tcp/$2/9000; cat <&3"; }
shows() { ./orlop exec $1 ip -d link show eth0 | grep -o "ipvlan  mode [a-z0-9]* [a-z]*"; }
create="./orlop network create -d ipvlan"
$create -o ipvlan_mode=l3s --subnet 10.9.0.0/24 -o parent=up0 routed >/dev/null
./orlop run -d --name r --network routed --ip 10.9.0.5 host sleep 10000 >/dev/null
ask r 192.0.2.2; shows r; ./orlop exec r ip route | head -n 1
$create -o parent=up0 same 2>&1 | grep -o 'network routed is already using parent interface up0'
six='--ipv4=false --ipv6 --subnet fd00:7::/64 --gateway fd00:7::1'
$create -o ipvlan_flag=private $six -o parent=up0.7 vlan >/dev/null
./orlop run -d --name v --network vlan host sleep 10000 >/dev/null
ask v fd00:7::1; shows v; pids=$(./orlop inspect -f '{{.State.Pid}}' v r)
./orlop engine stop; sleep 1; ip -o link | grep -c 'up0.7@'  # its parent stays with it, and goes with it
kill -9 $pids
gone() { ! ip link show up0.7 2>/dev/null >&2; }
for n in $(busybox seq 40); do gone && break; sleep 1; done; gone && echo swept
./orlop rm -f r v; ./orlop network rm routed vlan; ip -o link | grep -c up0
"""
# This kernel's tables have no owner that keeps them: what others flush while no engine is there comes back.
FLUSHED = """
rules() { PYTHONPATH=src .venv/bin/python -c '
import sys
from orlop.linux.netlink.nftables import Batch, Nftables
with Nftables() as socket:
    batch, found = Batch(), [table for table in socket.tables() if table[1] == "orlop"]
    if sys.argv[1:]:
        for table in found:
            batch.delete_table(*table)
        socket.commit(batch)
    print(len(found))' "$@"; }
./orlop run -d --name b host sleep 10000 >/dev/null
./orlop engine stop; sleep 1; rules flush
for n in $(busybox seq 40); do [ $(rules) = 2 ] && break; sleep 1; done; rules
./orlop rm -f b
"""


def test_containers_are_limited_changed_explained_and_leave_nothing() -> None:
    done = guest.run(["sh", "-c", STORY + LIVE + SHARED + NETWORKS + FLUSHED], timeout_s=900)
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
        *("10.9.0.5", "ipvlan  mode l3s bridge", "default dev eth0 scope link "),
        "network routed is already using parent interface up0",
        *("fd00:7::2", "ipvlan  mode l2 private"),
        *("1", "swept", "r", "v", "routed", "vlan", "1"),
        *("2", "2", "b"),
    ], done
