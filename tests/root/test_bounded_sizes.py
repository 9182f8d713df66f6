"""Sizes where the file system keeps no quotas (P29): a file system of that size in a sparse file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from orlop.runtime.loop import device
from orlop.snapshot import disk
from support.engine import Environment

NO_NETWORK = ("--network", "none")
MIB = 1 << 20
FILL = (
    "dd if=/dev/zero of={0}/f bs=1M count=90 2>&1 | grep -c 'No space'; stat -c %s {0}/f;"
    " df -k {0} | tail -1 | tr -s ' ' | cut -d' ' -f2"
)


def within(value: int, limit: int) -> bool:
    return abs(value - limit) <= limit * 0.05


def attached(root: Path) -> list[str]:
    """Return the files below a directory that a loop device has."""
    texts = (path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file"))
    return [text for text in texts if text.startswith(f"{root}/")]


def await_none_attached(root: Path) -> None:
    deadline = time.monotonic() + 10
    while attached(root):
        assert time.monotonic() < deadline, attached(root)
        time.sleep(0.02)


def test_a_layer_is_full_when_it_is_full_and_gives_all_back(orlop: Environment) -> None:
    done = orlop(
        "run", *NO_NETWORK, "--name", "one", "--disk", "60m", "host", "sh", "-c", FILL.format("/.")
    ).stdout.split()
    assert done[0] == "1" and within(int(done[1]), 60 * MIB) and within(int(done[2]) * 1024, 60 * MIB), done
    await_none_attached(orlop.root)
    (image,) = (orlop.root / "snapshots/active").glob("*/disk.ext4")
    assert image.stat().st_blocks * 512 < 66 * MIB
    # What reads a layer reads this one: nobody has to know where it lies.
    assert orlop("diff", "one").stdout == "A /f\n"
    assert within(len(orlop("cp", "one:/f", "-").raw_stdout), 60 * MIB)
    orlop("cp", "/etc/hostname", "one:/f")
    # It has been shortened, and the file of the machine with it.
    deadline = time.monotonic() + 10
    while image.stat().st_blocks * 512 > 8 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        os.sync()
    assert orlop("commit", "one", "kept").stdout.startswith("sha256:")
    assert orlop("run", *NO_NETWORK, "--rm", "kept", "cat", "/f").stdout == Path("/etc/hostname").read_text()
    orlop("rm", "one")
    await_none_attached(orlop.root)
    assert not list((orlop.root / "snapshots/active").iterdir())


def test_a_running_ones_disk_is_one_for_all_who_look_and_goes_when_all_are_killed(orlop: Environment) -> None:
    orlop("run", "-d", *NO_NETWORK, "--name", "one", "--disk", "40m", "-v", "hold:/hold", "host", "sleep", "1000")
    orlop("volume", "create", "--opt", "size=30m", "cargo")
    orlop("update", "--mount-add", "type=volume,src=cargo,dst=/cargo", "one")
    orlop("exec", "one", "sh", "-c", "echo rum >/cargo/barrel; echo log >/book")
    assert len(attached(orlop.root)) == 2
    assert orlop("cp", "one:/book", "-").raw_stdout.count(b"log\n") == 1
    orlop("commit", "one", "kept")
    assert len(attached(orlop.root)) == 2, "two devices of one file destroy each other's work"
    assert not any("/dev/loop" in line for line in Path("/proc/mounts").read_text().splitlines()), "I4"
    for pid in orlop.processes():
        os.kill(pid, signal.SIGKILL)
    await_none_attached(orlop.root)
    assert orlop("start", "one").stdout == "one\n"
    assert orlop("exec", "one", "cat", "/cargo/barrel", "/book").stdout == "rum\nlog\n"
    orlop("rm", "-f", "one")
    await_none_attached(orlop.root)


def test_a_volume_has_a_size_and_all_that_volumes_have(orlop: Environment) -> None:
    orlop("volume", "create", "--opt", "size=60m", "cargo")
    shell = ("run", "--rm", *NO_NETWORK)
    done = orlop(*shell, "-v", "cargo:/v", "host", "sh", "-c", FILL.format("/v") + "; rm /v/f; ls -A /v | wc -l").stdout
    words = done.split()
    assert words[0] == "1" and within(int(words[1]), 60 * MIB) and within(int(words[2]) * 1024, 60 * MIB), done
    assert words[3] == "0", "the file system's own directory is not the user's"
    made = "mkdir /v/deck; echo rum >/v/deck/barrel; stat -c %a:%u:%g /v"
    assert orlop(*shell, "-v", "cargo:/v", "host", "sh", "-c", made).stdout == "755:0:0\n"
    refused = orlop(*shell, "-v", "cargo:/v:ro", "host", "touch", "/v/x", check=False)
    assert "Read-only file system" in refused.stderr
    part = "type=volume,src=cargo,dst=/v,volume-subpath=deck"
    assert orlop(*shell, "--mount", part, "host", "ls", "/v").stdout == "barrel\n"
    shown = orlop(
        *shell, "-u", "7", "-v", "cargo:/v:as=7", "host", "sh", "-c", "touch /v/mine; stat -c %u /v/mine"
    ).stdout
    assert shown == "7\n"
    orlop("volume", "snapshot", "cargo", "before")
    orlop(*shell, "-v", "cargo:/v", "host", "rm", "/v/deck/barrel")
    assert orlop("volume", "diff", "cargo", "before").stdout.splitlines() == ["D /deck/barrel"]
    orlop("volume", "rollback", "cargo", "before")
    orlop("create", *NO_NETWORK, "--name", "user", "-v", "cargo:/v", "host", "cat", "/v/deck/barrel")
    orlop("volume", "mv", "cargo", "freight")
    assert orlop("start", "-a", "user").stdout == "rum\n"
    assert b"deck/barrel" in orlop("volume", "export", "freight").raw_stdout
    filled = "type=volume,src=new,dst=/etc,volume-opt=size=20m"
    assert int(orlop(*shell, "--mount", filled, "host", "sh", "-c", "ls /etc | wc -l").stdout) > 2
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
    orlop("rm", "user")
    orlop("volume", "rm", "freight", "before", "new")
    await_none_attached(orlop.root)


@pytest.mark.parametrize("missing", ["mkfs.ext4", "loop"])
def test_where_it_can_not_be_had_the_error_says_what_is_missing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "loop":
        monkeypatch.setattr(device, "CONTROL", "/dev/loop-control-that-is-not-there")
    else:
        monkeypatch.setattr(disk, "_SEARCHED", (str(tmp_path),))
    with pytest.raises(disk.NoDisk) as told:
        disk.make(str(tmp_path / "disk.ext4"), MIB, lambda root: None)
    assert missing in told.value.cause and told.value.hint and not list(tmp_path.iterdir())
