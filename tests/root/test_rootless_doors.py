"""An ordinary user's builder, and docker's own client at an ordinary user's socket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import rootless
from support.rootless import User


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "one id"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with rootless.user(ids=request.param) as somebody:
        yield somebody


def test_an_image_is_built(user: User) -> None:
    context = user.home / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM host\nRUN id -u >/made && ls /nothing || echo made >>/made\nCOPY file /copied\n"
        "RUN --mount=type=cache,target=/c echo x >/c/x && ls /c >>/made\n"
    )
    (context / "file").write_text("copied\n")
    for path in (context, *context.iterdir()):
        path.chmod(0o755)
    assert user.orlop("run", "--rm", "host", "true").code == 0
    done = user.orlop("build", "-t", "built:1", str(context))
    assert done.code == 0, done
    shown = user.orlop("run", "--rm", "built:1", "cat", "/made", "/copied")
    assert shown.stdout.split() == ["0", "made", "x", "copied"], shown
    assert user.orlop("rmi", "built:1").code == 0


@pytest.mark.parametrize("flag", [("-m", "64m"), ("--cpu-quota", "5000"), ("--cpuset-cpus", "0")], ids="".join)
def test_a_limit_of_a_build_that_nobody_enforces_is_an_error(user: User, flag: tuple[str, str]) -> None:
    context = user.home / "limited"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM host\nRUN true\n")
    for path in (context, *context.iterdir()):
        path.chmod(0o755)
    done = user.orlop("build", *flag, str(context))
    assert done.code == 1, done
    assert "is delegated to you, so the limit can't be enforced" in done.stderr


def test_an_rlimit_of_a_build_that_only_root_may_give_is_told(user: User) -> None:
    context = user.home / "raised"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM host\nRUN ulimit -H -n >/made\n")
    for path in (context, *context.iterdir()):
        path.chmod(0o755)
    done = user.orlop("build", "--no-cache", "--progress", "plain", "--ulimit", "nofile=100:99999999", str(context))
    assert done.code == 0, done
    assert re.search("WARNING: The limit RLIMIT_NOFILE is [0-9]+: only root may raise it to 99999999", done.stderr), (
        done
    )
    done = user.orlop("build", "--no-cache", "--progress", "plain", "--ulimit", "nofile=100:200", str(context))
    assert done.code == 0 and "WARNING: The limit" not in done.stderr, done


def test_dockers_client_finds_the_users_socket(user: User, peer: Callable[[str], Path]) -> None:
    docker = peer("docker")
    socket = f"unix://{user.runtime}/orlop/docker.sock"

    def ask(*words: str) -> str:
        done = user.run(docker, "-H", socket, *words)
        assert done.code == 0, done
        return done.stdout

    assert user.orlop("ps").code == 0
    assert ask("run", "--rm", "host", "id", "-u").split() == ["0"]
    ask("run", "-d", "--name", "d", "-p", "18077:80", "host", "sleep", "1000")
    assert ask("exec", "d", "id", "-u").split() == ["0"]
    assert "18077" in ask("port", "d")
    assert "name=rootless" in ask("info", "-f", "{{.SecurityOptions}}")
    ask("rm", "-f", "d")
