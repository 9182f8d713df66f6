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


def test_a_size_bounds_volumes_and_layers() -> None:
    done = guest.run(["sh", "-c", STORY], timeout_s=400)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and (lines[0], lines[4], lines[5]) == ("small", "fits", "small"), done
    small, free, layer = map(int, lines[1:4])
    assert 2 << 20 < small <= 3 << 20 and free == 8 << 20 and 3 << 20 < layer <= 4 << 20, done
