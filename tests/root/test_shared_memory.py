"""What several containers see of memory: IPC namespaces with their /dev/shm, and volumes with type=tmpfs."""

from __future__ import annotations

import os
import signal
import time

import pytest

from support import processes
from support.engine import Environment

WAIT_S_MAX = 60.0
SLEEP = ("host", "sleep", "1000")


def start(orlop: Environment, name: str, *flags: str) -> None:
    orlop("run", "-d", "--network", "none", "--name", name, *flags, *SLEEP)


def inside(orlop: Environment, name: str, script: str) -> str:
    return orlop("exec", name, "sh", "-c", script).stdout


def kill(orlop: Environment, name: str) -> None:
    """End a container's process as somebody else would, and wait until its policy has started it again."""
    pid = int(orlop("inspect", "-f", "{{.State.Pid}}", name).stdout)
    begun = processes.start_time(pid)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S_MAX
    while True:
        now, count = orlop("inspect", "-f", "{{.State.Pid}} {{.RestartCount}}", name).stdout.split()
        if int(now) and count != "0" and (int(now), processes.start_time(int(now))) != (pid, begun):
            return
        assert time.monotonic() < deadline, f"{name} is not restarted"
        time.sleep(0.05)


SHM = "readlink /proc/self/ns/ipc; stat -c %d /dev/shm; cat /dev/shm/said"


def test_an_ipc_namespace_is_joined_with_its_shared_memory(orlop: Environment) -> None:
    start(orlop, "lender", "--ipc", "shareable", "--shm-size", "3m", "--restart", "always")
    inside(orlop, "lender", "echo hello > /dev/shm/said")
    start(orlop, "guest", "--ipc", "container:lender")
    start(orlop, "second", "--ipc", "container:guest", "--restart", "always")
    own = inside(orlop, "lender", SHM)
    assert own.endswith("hello\n")
    assert inside(orlop, "guest", SHM) == inside(orlop, "second", SHM) == own
    assert inside(orlop, "guest", "stat -f -c '%b %S' /dev/shm").split() == ["768", "4096"]
    kill(orlop, "second")
    assert inside(orlop, "second", SHM) == own
    assert "/dev/shm rw,nosuid,nodev,noexec" in inside(orlop, "guest", "cat /proc/self/mountinfo")
    lender = orlop("inspect", "-f", "{{.Id}}", "lender").stdout
    assert orlop("inspect", "-f", "{{.HostConfig.IpcMode}}", "guest").stdout == f"container:{lender}"
    kill(orlop, "lender")
    assert inside(orlop, "lender", "cat /dev/shm/said") == "hello\n"


@pytest.mark.parametrize("mode", ["private", "none", ""])
def test_what_is_not_shareable_is_not_joined(orlop: Environment, mode: str) -> None:
    start(orlop, "own", *(("--ipc", mode) if mode else ()))
    words = ("run", "--rm", "--network", "none", "--ipc", "container:own", "host", "true")
    done = orlop(*words, check=False)
    assert done.code == 125
    assert "can't join IPC of container own: non-shareable IPC (hint: use IpcMode:shareable" in done.stderr
    orlop("stop", "-t", "0", "own")
    done = orlop(*words, check=False)
    assert done.code == 125 and "can't join IPC of container own: container " in done.stderr
    assert "Next: start it first: orlop start own" in done.stderr
    orlop("rm", "own")
    assert "No such container: own" in orlop(*words, check=False).stderr


def test_the_machines_ipc_is_joined_through_who_shares_it(orlop: Environment) -> None:
    start(orlop, "open", "--ipc", "host")
    joined = ("--rm", "--network", "none", "--ipc", "container:open", "host", "readlink", "/proc/self/ns/ipc")
    assert orlop("run", *joined).stdout.strip() == os.readlink("/proc/self/ns/ipc")


def test_a_tmpfs_volume_is_one_for_all_who_use_it(orlop: Environment) -> None:
    orlop("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=7,noexec", "mem")
    start(orlop, "first", "-v", "mem:/m:ro", "--restart", "always")
    start(orlop, "second", "-v", "mem:/m", "-v", "mem:/n/m", "--restart", "always")
    inside(orlop, "second", "echo shared > /m/said")
    assert inside(orlop, "first", "cat /m/said; stat -c %u /m") == "shared\n7\n"
    assert inside(orlop, "second", "cat /n/m/said") == "shared\n"
    assert orlop("exec", "first", "touch", "/m/x", check=False).stderr.endswith("Read-only file system\n")
    kill(orlop, "first")
    assert inside(orlop, "first", "cat /m/said") == "shared\n"
    kill(orlop, "second")
    inside(orlop, "second", "echo again > /m/said")
    assert inside(orlop, "first", "cat /m/said; grep -c ' /m ro,noexec' /proc/self/mountinfo") == "again\n1\n"
    orlop("run", "-d", "--network", "none", "--name", "third", *SLEEP)
    orlop("update", "--mount-add", "type=volume,src=mem,dst=/late", "third")
    assert inside(orlop, "third", "cat /late/said") == "again\n"
    for name in ("first", "second", "third"):
        orlop("rm", "-f", name)
    assert orlop("run", "--rm", "--network", "none", "-v", "mem:/m", "host", "ls", "-A", "/m").stdout == ""


def test_many_who_start_at_once_share_one_tmpfs(orlop: Environment) -> None:
    orlop("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem")
    names = [f"c{number}" for number in range(6)]
    begun = [
        orlop.popen("run", "-d", "--network", "none", "--name", name, "-v", "mem:/m", *SLEEP, stdout=-3)
        for name in names
    ]
    assert [one.wait(WAIT_S_MAX) for one in begun] == [0] * len(names)
    assert len({inside(orlop, name, "stat -c %d /m") for name in names}) == 1
