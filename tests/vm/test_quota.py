"""Project quotas on a kernel that has them: a volume and a container's own layer are full when they are full."""

from __future__ import annotations

from vm import guest

STORY = """
set -e
modprobe loop
modprobe quota_v2
truncate -s 96M /disk
mkfs.ext4 -q -O quota,project -E quotatype=prjquota /disk
mkdir /bounded
mount -o prjquota "$(losetup -f --show /disk)" /bounded
export ORLOP_ROOT=/bounded/root
./orlop volume create --opt size=3m small
./orlop run --rm --network none -v small:/small -v free:/free --storage-opt size=4m host sh -c '
    for where in /small /free /; do
        dd if=/dev/zero of=$where/file bs=1M count=8 2>/dev/null; sync; stat -c %s $where/file
    done
    rm /small/file; dd if=/dev/zero of=/small/file bs=1M count=2 2>/dev/null && echo fits'
./orlop volume rm small
"""

# Without quotas: a file system of its own, in a loop device, below an overlayfs of a kernel before 6.15.
WITHOUT = """
set -e
modprobe loop
truncate -s 96M /disk
mkfs.ext4 -q /disk
mkdir /plain
mount "$(losetup -f --show /disk)" /plain
export ORLOP_ROOT=/plain/root
./orlop volume create --opt size=3m small
./orlop run --network none --name one -v small:/small --disk 8m host sh -c '
    for where in /small /; do
        dd if=/dev/zero of=$where/file bs=1M count=12 2>/dev/null; sync; stat -c %s $where/file
    done'
./orlop diff one
./orlop rm one
./orlop volume rm small
losetup -a | wc -l
"""


def test_a_size_bounds_volumes_and_layers() -> None:
    done = guest.run(["sh", "-c", STORY], timeout_s=400)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and (lines[0], lines[4], lines[5]) == ("small", "fits", "small"), done
    small, free, layer = map(int, lines[1:4])
    assert 2 << 20 < small <= 3 << 20 and free == 8 << 20 and 3 << 20 < layer <= 4 << 20, done


def test_a_size_bounds_where_there_are_no_quotas() -> None:
    done = guest.run(["sh", "-c", WITHOUT], timeout_s=400)
    lines = done.stdout.splitlines()
    assert len(lines) == 7 and (lines[0], *lines[3:]) == ("small", "A /file", "one", "small", "1"), done
    volume, layer = map(int, lines[1:3])
    assert 2 << 20 < volume <= 4 << 20 and 7 << 20 < layer <= 9 << 20, done
