"""A day of podman 5's client with an ordinary user's engine, on the user's own docker.sock."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import builds, rootless
from support.engine import COMMAND
from support.rootless import User

# The machine's own configuration of podman may be root's alone.
READABLE = "[ ! -d /etc/containers ] || mount -t tmpfs -o mode=755 tmpfs /etc/containers"


@pytest.fixture(scope="module")
def somebody(peer: Callable[[str], Path]) -> Iterator[User]:
    peer("podman-remote")
    with rootless.user(setup=READABLE) as user:
        builds.base_archive(user.directory / "base.tar", peer("busybox"))
        assert user.orlop("import", user.directory / "base.tar", "box:1").code == 0
        yield user
        user.orlop("rm", "-f", "-a")
        user.orlop("engine", "stop")


def test_podman_5_and_a_users_engine(somebody: User, peer: Callable[[str], Path]) -> None:
    """Red: without keep-id's word of podman's; with a mount that only the engine would see."""
    argv = [peer("podman-remote"), "--url", f"unix://{somebody.runtime}/orlop/docker.sock"]

    def podman(line: str, code: int = 0) -> str:
        done = somebody.run(*argv, *shlex.split(line))
        assert done.code == code, (line, done)
        return (done.stdout if code == 0 else done.stderr).strip()

    assert podman("info --format '{{.Host.Security.Rootless}}'") == "true"
    assert podman("run --rm box:1 echo hi") == "hi"
    assert podman("run --rm --userns keep-id box:1 id -u") == str(rootless.UID)
    podman("secret create word /etc/hostname")
    kept = Path("/etc/hostname").read_text().strip()
    assert podman("run --rm --secret word,type=env,target=W box:1 sh -c 'echo $W'") == kept
    podman("run -d --name web -p 18080:80 -v data:/d box:1 sleep 1000")
    assert podman("exec web sh -c 'echo x >/d/x; cat /d/x'") == "x"
    assert podman("port web") == "80/tcp -> 0.0.0.0:18080"
    assert podman("ps --format '{{.Names}} {{.Networks}}'") == "web podman"
    assert "sleep 1000" in podman("top web")
    assert "orlop doctor" in podman("pause web", 125)  # this user has no cgroup to freeze it in
    podman("network create n1")
    podman("network connect n1 web")
    assert set(json.loads(podman("inspect web"))[0]["NetworkSettings"]["Networks"]) == {"podman", "n1"}
    podman("commit -q web made:1")
    (somebody.directory / "c").mkdir()
    (somebody.directory / "c/Containerfile").write_text("FROM made:1\nRUN echo built >/b\n")
    podman(f"build -q -t app:1 {somebody.directory}/c")
    assert podman("run --rm app:1 cat /b") == "built"
    podman("create --name later box:1 echo ran")
    podman("init later")
    assert podman("inspect -f {{.State.Status}} later") == "initialized"
    assert podman("start -a later") == "ran"
    podman("run --timeout 1 box:1 sleep 100", 255)
    (somebody.directory / "podman").symlink_to(COMMAND)
    refused = somebody.run(somebody.directory / "podman", "mount", "web")
    assert refused.code == 125 and "namespace of its own" in refused.stderr
    podman("rm -f -a -t 0 -v")
    podman("network rm n1")
    podman("rmi app:1 made:1")
    podman("secret rm word")
    podman("volume rm data")
