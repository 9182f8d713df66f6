"""Images that run before they are here (`--pull lazy`, `pull --lazy`)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from support import processes
from support.archives import Archive
from support.engine import Environment
from support.estargz import Narrow, add_image
from support.pace import SLOW
from support.registries import Content, Registry

WANTED = random.Random(1).randbytes(1_500_000)
REST = 24_000_000
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def content(peer: Callable[[str], Path]) -> Content:
    base = Archive().directory(b"bin", mode=0o755).file(b"bin/busybox", peer("busybox").read_bytes(), mode=0o755)
    base.directory(b"data", mode=0o755).file(b"data/wanted", WANTED).file(b"data/old", b"old").file(
        b"data/gone", b"gone"
    )
    rest = random.Random(2).randbytes(REST)
    for number in range(0, REST, MEGABYTE):
        base.file(b"data/rest%d" % number, rest[number : number + MEGABYTE])
    above = Archive().file(b"data/old", b"new").file(b"data/.wh.gone").directory(b"tmp", mode=0o1777)
    above.symlink(b"data/link", b"wanted").hard(b"data/same", b"data/old")
    made = Content()
    add_image(made, [bytes(base), bytes(above)], "1")
    return made


@pytest.fixture
def narrow() -> Narrow:
    return Narrow(20 * MEGABYTE)


@pytest.fixture
def registry(content: Content, narrow: Narrow, orlop: Environment) -> Iterator[Registry]:
    with orlop.inside(lambda: Registry(content, narrow)) as served:
        yield served
        wait(lambda: not servers(orlop))


def servers(orlop: Environment) -> list[int]:
    return [pid for pid in orlop.processes() if processes.title(pid).startswith("orlop: lazy")]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60 * SLOW
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lazily(orlop: Environment, registry: Registry, *command: str, name: str = "c") -> str:
    image = f"{registry.name}/lib/x:1"
    told = orlop("run", "--pull", "lazy", "--network", "none", "--name", name, image, "/bin/busybox", *command)
    return told.stdout


def test_a_container_prints_before_its_image_is_here(orlop: Environment, registry: Registry, narrow: Narrow) -> None:
    script = "md5sum /data/wanted; cat /data/old /data/same; ls /data/gone; cat /data/link | wc -c; stat -c %a /tmp"
    narrow.whole.clear()
    shown = lazily(orlop, registry, "sh", "-c", script)
    assert narrow.sent < (len(WANTED) + REST) * 0.2
    narrow.whole.set()
    assert shown.split() == [hashlib.md5(WANTED).hexdigest(), "/data/wanted", f"newnew{len(WANTED)}", "1777"]
    wait(lambda: not servers(orlop))
    # Now it is an ordinary image: the same container starts from its layers, and all of it is proven.
    assert orlop("start", "--attach", "c").stdout == shown
    assert "Everything is in order" in orlop("system", "fsck").stdout
    assert narrow.sent > REST


def test_who_needs_all_of_it_waits(orlop: Environment, registry: Registry, tmp_path: Path) -> None:
    lazily(orlop, registry, "sh", "-c", "echo more >/data/more")
    assert "Everything is in order" in orlop("system", "fsck").stdout
    assert orlop("diff", "c").stdout.splitlines() == ["C /data", "A /data/more"]
    orlop("commit", "c", "whole:1")
    orlop("save", "--output", str(tmp_path / "saved.tar"), f"{registry.name}/lib/x:1")
    assert (tmp_path / "saved.tar").stat().st_size > REST


READER = "echo ready; read line; md5sum /data/rest9000000 /data/wanted; cat /data/rest* | md5sum"


@contextmanager
def waiting(orlop: Environment, registry: Registry, script: str) -> Iterator[Callable[[], IO[bytes]]]:
    """A shell of the image with a script that says "ready" and reads a line: call it to give that, and for the rest.

    Whoever fetches waits for the whole meanwhile (`narrow.whole`), or it would have ended where others are faster.
    """
    with orlop.popen(
        "run", "-i", "--pull", "lazy", "--network", "none", "--name", "c", f"{registry.name}/lib/x:1",
        "/bin/busybox", "sh", "-c", script, stdin=-1, stdout=-1, stderr=-3,
    ) as running:  # fmt: skip
        assert running.stdin is not None and running.stdout is not None
        assert running.stdout.readline() == b"ready\n"

        def go() -> IO[bytes]:
            assert running.stdin is not None and running.stdout is not None
            running.stdin.write(b"\n")
            running.stdin.close()
            return running.stdout

        yield go


def worker(orlop: Environment) -> list[int]:
    """Return the process that serves, without the one that keeps it."""
    return [pid for pid in orlop.processes() if processes.title(pid) == "orlop: lazy"]


def test_readers_notice_neither_the_end_of_a_server_nor_of_an_engine(
    orlop: Environment, registry: Registry, narrow: Narrow
) -> None:
    rest = random.Random(2).randbytes(REST)
    whole = b"".join(rest[n : n + MEGABYTE] for n in sorted(range(0, REST, MEGABYTE), key=lambda n: f"rest{n}"))
    narrow.whole.clear()
    with waiting(orlop, registry, READER) as go:
        output = go()
        for number in range(4):
            read = (number + 1) * 4 * MEGABYTE
            wait(lambda read=read: narrow.sent > read)  # type: ignore[misc]
            wait(lambda: bool(worker(orlop)))
            os.kill(worker(orlop)[0], signal.SIGKILL)
            engine = orlop.engine_pid()
            if number == 2 and engine is not None:
                os.kill(engine, signal.SIGKILL)
        narrow.whole.set()
        shown = output.read().split()
    one = hashlib.md5(rest[9 * MEGABYTE : 10 * MEGABYTE]).hexdigest()
    assert [one, hashlib.md5(WANTED).hexdigest(), hashlib.md5(whole).hexdigest()] == [
        word.decode() for word in shown[::2]
    ]
    wait(lambda: not servers(orlop))
    assert "Everything is in order" in orlop("system", "fsck").stdout


def test_a_server_lives_on_without_its_keeper(orlop: Environment, registry: Registry, narrow: Narrow) -> None:
    narrow.whole.clear()
    with waiting(orlop, registry, READER) as go:
        (served,) = worker(orlop)
        (keeper,) = set(servers(orlop)) - {served}
        os.kill(keeper, signal.SIGKILL)
        lock = next((orlop.run / "lazy").iterdir()) / "lock"
        wait(lambda: lock.read_text().strip() == str(served))
        output = go()
        assert output.readline().startswith(
            hashlib.md5(random.Random(2).randbytes(REST)[9000000:10000000]).hexdigest().encode()
        )
        narrow.whole.set()
        output.read()
    wait(lambda: not servers(orlop))
    assert not list((orlop.run / "lazy").iterdir())


def test_what_is_here_in_part_is_shown(orlop: Environment, registry: Registry, narrow: Narrow) -> None:
    image = f"{registry.name}/lib/x:1"
    narrow.whole.clear()
    lazily(orlop, registry, "true")
    partial = json.loads(orlop("image", "inspect", image).stdout)[0]["Partial"]
    assert len(partial["MissingLayers"]) == 2 and partial["MissingBytes"] > REST // 2 and partial["Served"]
    assert image.rpartition(":")[0] in orlop("images", "--filter", "partial=true").stdout
    assert "P" in orlop("images", "--tree").stdout.splitlines()[1].split()[-1]
    told = orlop("system", "df", "--verify").stdout
    assert "layers that run, or ran, before they were here" in told and "unknown" not in told
    narrow.whole.set()
    wait(lambda: not servers(orlop))
    assert "Partial" not in json.loads(orlop("image", "inspect", image).stdout)[0]
    assert image not in orlop("images", "--filter", "partial=true").stdout
    wait(lambda: "image whole" in orlop("events", "--since", "5m", "--until", "0s").stdout)
    assert f"image partial {image}" in orlop("events", "--since", "5m", "--until", "0s").stdout


def test_reads_fail_where_all_of_the_server_was_killed(orlop: Environment, registry: Registry, narrow: Narrow) -> None:
    script = "cat /data/wanted >/dev/null; echo ready; read line; cat /data/rest9000000 >/dev/null; echo status $?"
    narrow.whole.clear()
    with waiting(orlop, registry, script) as go:
        for pid in servers(orlop):
            os.kill(pid, signal.SIGKILL)
        assert b"status 1" in go().read()
    narrow.whole.set()
    wait(lambda: "image interrupted" in orlop("events", "--since", "5m", "--until", "0s").stdout)
    assert "who read it was killed" in orlop("why", "c").stdout
    assert orlop("start", "c").code == 0  # it is served again, by itself
    orlop("rm", "-f", "c")
    wait(lambda: not servers(orlop))
    assert "Everything is in order" in orlop("system", "fsck").stdout


def test_what_a_dead_engine_had_served_is_served_again(
    orlop: Environment, registry: Registry, narrow: Narrow, tmp_path: Path
) -> None:
    """After a reboot nothing is served: the next engine does it again, and says who can where it can't.

    What the user has for a private registry is looked up again, each time: it may have been put there meanwhile.

    red: with ANONYMOUS in `engine.lazy.verb._orders`, or what was looked up kept, the last start is refused.
    """
    auth = base64.b64encode(b"me:secret").decode()
    registry.rules.insert(
        0,
        lambda request: (
            request.headers.get("Authorization") != f"Basic {auth}"
            and request.reply(401, www_authenticate='Basic realm="mine"')
        ),
    )
    config, kept = tmp_path / "docker/config.json", {"DOCKER_CONFIG": str(tmp_path / "docker")}
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {registry.name: {"auth": auth}}}))
    narrow.whole.clear()
    image = f"{registry.name}/lib/x:1"
    told = orlop("run", "--pull", "lazy", "--network", "none", "--name", "c", image, "/bin/busybox", "true", env=kept)
    assert "Runs before it is here" in told.stderr
    config.rename(tmp_path / "away")
    for pid in (orlop.engine_pid(), *servers(orlop)):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    refused = orlop("start", "c", env=kept, check=False)
    assert refused.code and f"orlop pull {image}" in refused.stderr
    (tmp_path / "away").rename(config)
    assert orlop("start", "--attach", "c", env=kept).code == 0
    narrow.whole.set()
    wait(lambda: not servers(orlop))
    assert "Everything is in order" in orlop("system", "fsck").stdout


def test_containers_go_on_without_the_engine(orlop: Environment, registry: Registry) -> None:
    script = "echo ready; read line; md5sum /data/wanted"
    lazily(orlop, registry, "true", name="first")
    pid = orlop.engine_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    shown = orlop(
        "run", "--rm", "-i", "--network", "none", f"{registry.name}/lib/x:1", "/bin/busybox", "sh", "-c", script,
        input="\n",
    )  # fmt: skip
    assert hashlib.md5(WANTED).hexdigest() in shown.stdout


def test_an_image_that_is_removed_is_not_brought(orlop: Environment, registry: Registry, narrow: Narrow) -> None:
    narrow.whole.clear()
    orlop("pull", "--lazy", f"{registry.name}/lib/x:1")
    orlop("rmi", f"{registry.name}/lib/x:1")
    narrow.whole.set()
    wait(lambda: not servers(orlop))
    assert narrow.sent < REST / 2
