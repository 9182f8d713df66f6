"""Message queues of the machine in containers whose root has no power over them: --ipc host in user namespaces."""

from __future__ import annotations

import os
import uuid

import pytest

from support import rootless
from support.engine import Environment

MQUEUE_MAGIC = "mqueue"


@pytest.fixture
def queue() -> str:
    return f"orlop-test-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("userns", ["keep-id", "auto:uidmapping=0:700000:1000,gidmapping=0:700000:1000,size=1000"])
def test_the_machines_queues_are_shown(orlop: Environment, userns: str, queue: str) -> None:
    script = f"stat -f -c %T /dev/mqueue; touch /dev/mqueue/{queue} && ls /dev/mqueue; readlink /proc/self/ns/ipc"
    words = ("run", "--rm", "--network", "none", "--ipc", "host", "host", "sh", "-c")
    try:
        done = orlop(*words[:2], "--userns", userns, *words[2:], script)
        assert done.code == 0, done
        kind, *shown, namespace = done.stdout.split()
        assert (kind, namespace) == (MQUEUE_MAGIC, os.readlink("/proc/self/ns/ipc")) and queue in shown
        assert queue in orlop(*words, "ls /dev/mqueue").stdout.split()  # the same, as root
    finally:
        orlop(*words, f"rm -f /dev/mqueue/{queue}")


def test_who_joins_one_that_has_them_sees_them(orlop: Environment) -> None:
    made = orlop("run", "-d", "--name", "lender", "--network", "none", "--ipc", "host", "host", "sleep", "1000")
    assert made.code == 0, made
    words = ("run", "--rm", "--network", "none", "--userns", "keep-id", "--ipc", "container:lender", "host")
    done = orlop(*words, "stat", "-f", "-c", "%T", "/dev/mqueue")
    assert done.stdout.split() == [MQUEUE_MAGIC], done


@pytest.mark.parametrize("ids", [True, False])
def test_a_user_sees_what_is_mounted_there_and_can_not_write_where_nothing_is(ids: bool) -> None:
    with rootless.user(ids=ids) as user:
        try:
            script = "stat -f -c %T /dev/mqueue; touch /dev/mqueue/x 2>&1; ls -ld /dev/shm"
            done = user.orlop("run", "--rm", "--network", "none", "--ipc", "host", "host", "sh", "-c", script)
            assert done.code == 0, done
            if not os.path.ismount("/dev/mqueue"):
                kind, told, _ = done.stdout.splitlines()
                assert kind == "tmpfs" and "Read-only file system" in told
            else:
                assert done.stdout.split()[0] == MQUEUE_MAGIC
        finally:
            user.orlop("engine", "stop")
