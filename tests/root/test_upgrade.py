"""`orlop upgrade`: another image below a container; all else stays, and the old one is back when the new one fails."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from support.engine import COMMAND, Environment
from support.tasks import wait_until


def inspect(orlop: Environment, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(orlop("inspect", name).stdout)[0]
    return found


@pytest.fixture
def images(orlop: Environment) -> None:
    """app:1, app:2 that says so in a variable, and app:3 whose program fails."""
    orlop("create", "--name", "made", "--network", "none", "host", "sleep", "1000")
    orlop("commit", "--change", "ENV VERSION=1", "made", "app:1")
    orlop("commit", "--change", "ENV VERSION=2", "made", "app:2")
    orlop("commit", "--change", 'ENTRYPOINT ["sh", "-c", "echo no licence; exit 9"]', "made", "app:3")
    orlop("rm", "made")


@pytest.fixture
def web(orlop: Environment, images: None) -> dict[str, Any]:
    orlop("network", "create", "front")
    words = (
        "--name",
        "web",
        "--network",
        "front",
        "--label",
        "kept=yes",
        "-v",
        "/data",
        "-v",
        "named:/named",
        "-m",
        "64m",
    )
    orlop("run", "-d", *words, "app:1", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    orlop("exec", "web", "sh", "-c", "echo precious > /data/file")
    return inspect(orlop, "web")


def address(facts: dict[str, Any]) -> str:
    return str(facts["NetworkSettings"]["Networks"]["front"]["IPAddress"])


def test_all_but_the_image_stays(orlop: Environment, web: dict[str, Any]) -> None:
    """red: without the memory of addresses, or without the nameless volume, each at its line."""
    done = orlop("upgrade", "-t", "0", "--settle", "0", "web", "app:2")
    after = inspect(orlop, "web")
    assert done.stdout.strip() == after["Id"] != web["Id"]
    assert after["State"]["Running"] and "VERSION=2" in after["Config"]["Env"]
    assert address(after) == address(web)
    assert orlop("exec", "web", "cat", "/data/file").stdout == "precious\n"
    assert after["Config"]["Labels"]["kept"] == "yes" and after["HostConfig"]["Memory"] == 64 << 20
    assert after["Config"]["Cmd"] == web["Config"]["Cmd"]
    assert orlop("ps", "-aq", "--no-trunc").stdout.split() == [after["Id"]], "the old one is gone"
    same = orlop("upgrade", "web", "app:2")
    assert same.stdout.strip() == after["Id"] and "has this image already" in same.stderr
    assert orlop("upgrade", "-t", "0", "--settle", "0", "--force", "--keep", "web").stdout.strip() != after["Id"]
    kept = orlop("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}").stdout.strip()
    assert kept.startswith("web-before-") and inspect(orlop, kept)["Id"] == after["Id"]


def test_a_tag_that_moved_is_followed(orlop: Environment, web: dict[str, Any]) -> None:
    orlop("tag", "app:2", "app:1")
    orlop("upgrade", "-t", "0", "--settle", "0", "web")
    assert "VERSION=2" in inspect(orlop, "web")["Config"]["Env"]


def test_one_that_fails_leaves_the_old_one(orlop: Environment, web: dict[str, Any]) -> None:
    """red: without the undo of any of the steps but the last, which has nothing to end here."""
    refused = orlop("upgrade", "-t", "0", "--settle", "60", "web", "app:3", check=False)
    assert refused.code == 1 and "the new one failed" in refused.stderr and "no licence" in refused.stderr, refused
    back = inspect(orlop, "web")
    assert back["Id"] == web["Id"] and back["State"]["Running"] and address(back) == address(web)
    assert orlop("ps", "-aq", "--no-trunc").stdout.split() == [web["Id"]]
    missing = orlop("upgrade", "--pull", "never", "web", "app:9", check=False)
    assert "No such image: app:9" in missing.stderr and inspect(orlop, "web")["State"]["Running"]


def test_one_that_is_not_healthy_leaves_the_old_one(orlop: Environment, images: None) -> None:
    check = ("--health-cmd", "test $VERSION = 1", "--health-interval", "100ms", "--health-retries", "1")
    orlop("run", "-d", "--name", "web", "--network", "none", *check, "app:1", "sleep", "1000")
    before = inspect(orlop, "web")["Id"]
    refused = orlop("upgrade", "-t", "0", "--settle", "0", "web", "app:2", check=False)
    assert refused.code == 1 and "unhealthy" in refused.stderr, refused
    assert inspect(orlop, "web")["Id"] == before and inspect(orlop, "web")["State"]["Running"]
    orlop("tag", "app:1", "app:same")
    orlop("upgrade", "-t", "0", "--settle", "0", "--force", "web", "app:same")
    assert inspect(orlop, "web")["State"]["Health"]["Status"] == "healthy"


def test_an_interruption_leaves_the_old_one(orlop: Environment, images: None) -> None:
    """A check that never says anything: the command waits, and is interrupted there."""
    check = ("--health-cmd", "test $VERSION = 1 || sleep 1000", "--health-interval", "100ms")
    orlop("run", "-d", "--name", "web", "--network", "none", *check, "app:1", "sleep", "1000")
    before = inspect(orlop, "web")["Id"]
    argv = [COMMAND, "upgrade", "-t", "0", "web", "app:2"]
    waiting = orlop.inside(lambda: subprocess.Popen(argv, env=orlop.variables, stderr=subprocess.PIPE))

    def replaced() -> bool:
        found = orlop("inspect", "-f", "{{.Id}} {{.State.Running}}", "web", check=False).stdout.split()
        return len(found) == 2 and found[0] != before and found[1] == "true"

    wait_until(replaced)
    waiting.send_signal(2)
    waiting.communicate(timeout=60)
    back = inspect(orlop, "web")
    assert back["Id"] == before and back["State"]["Running"]
    assert orlop("ps", "-aq", "--no-trunc").stdout.split() == [before]


def test_what_does_not_run_is_made_and_not_started(orlop: Environment, images: None) -> None:
    orlop("create", "--name", "web", "--network", "none", "app:1", "true")
    orlop("upgrade", "web", "app:2")
    after = inspect(orlop, "web")
    assert after["State"]["Status"] == "created" and "VERSION=2" in after["Config"]["Env"]
    orlop("run", "-d", "--rm", "--name", "fleeting", "--network", "none", "app:1", "sleep", "1000")
    refused = orlop("upgrade", "fleeting", "app:2", check=False)
    assert refused.code == 1 and "no way back" in refused.stderr and inspect(orlop, "fleeting")["State"]["Running"]


def test_who_shares_its_network_is_named(orlop: Environment, web: dict[str, Any]) -> None:
    orlop("run", "-d", "--name", "side", "--network", "container:web", "app:1", "sleep", "1000")
    assert (
        "side shares namespaces with the old one" in orlop("upgrade", "-t", "0", "--settle", "0", "web", "app:2").stderr
    )
