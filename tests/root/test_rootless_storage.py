"""Storage drivers of an ordinary user: with subordinate ids and with one id, the same is seen, changed and told."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from devtools import peers
from support import rootless
from support.engine import COMMAND
from support.rootless import User

CHANGE = "rm /usr/bin/awk; echo x > /n; mkdir /opt; chmod 700 /etc/alternatives"
TOLD = "C /etc\nC /etc/alternatives\nA /n\nA /opt\nC /usr\nC /usr/bin\nD /usr/bin/awk\n"


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "one id"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    fuse = "mount -t tmpfs -o mode=755 tmpfs {0}; mknod -m 666 {0}/fuse c 10 229; mount --bind {0}/fuse /dev/fuse"
    has_fuse = os.path.exists("/dev/fuse")
    with rootless.user(ids=request.param, setup=fuse.format("/mnt") if has_fuse else "") as somebody:
        yield somebody


def needs(driver: str) -> None:
    if driver == "fuse-overlayfs":
        if peers.find("fuse-overlayfs") is None:
            pytest.skip("needs: fuse-overlayfs")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("needs: /dev/fuse")


@pytest.mark.parametrize("driver", ["vfs", "fuse-overlayfs"])
def test_the_containers_of_an_image_have_their_own_files(user: User, driver: str) -> None:
    needs(driver)

    def orlop(*words: str, code: int = 0) -> str:
        done = user.run("env", f"ORLOP_STORAGE_DRIVER={driver}", COMMAND, *words)
        assert done.code == code, done
        return done.stdout

    orlop("engine", "stop")
    assert orlop("info", "-f", "{{.Driver}}") == f"{driver}\n"
    orlop("run", "--network", "none", "--name", driver, "host", "sh", "-c", CHANGE)
    assert orlop("diff", driver) == TOLD
    assert orlop("run", "--rm", "--network", "none", "host", "test", "-e", "/usr/bin/awk") == ""
    orlop("commit", driver, f"made-{driver}")
    seen = orlop(
        "run", "--rm", "--network", "none", f"made-{driver}", "sh", "-c", "cat /n; stat -c %a /etc/alternatives"
    )
    assert seen == "x\n700\n"
    orlop("rm", driver)
    assert orlop("system", "fsck") == "Everything is in order.\n"


@pytest.mark.parametrize("driver", ["erofs", "btrfs"])
def test_what_a_user_can_not_have_is_told(user: User, driver: str) -> None:
    user.orlop("engine", "stop")
    done = user.run("env", f"ORLOP_STORAGE_DRIVER={driver}", COMMAND, "info")
    assert done.code != 0 and f"cannot use storage driver {driver}" in done.stderr and "Next: " in done.stderr, done
