"""Every real client's usual day, a cell for each verb that it has: at a terminal, following, copying, watching.

docker's command line, Compose v2, docker-compose 1.29 and podman-compose each hold one container of their own; DAY says
which verbs a client has at all. docker-py's and testcontainers' days are in their own files, five services coming up in
order in test_compose_clients.py.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.docker_http import box_engine
from support.engine import COMMAND, Environment
from support.terminal import Terminal

WAIT_S_MAX = 60.0
LOOP = "echo first; while read line; do echo got $line; done"
PROJECT = f"""
services:
  one:
    image: box:1
    command: ["sh", "-c", "{LOOP.replace("$", "$$")}"]
    tty: true
    stdin_open: true
    stop_signal: KILL
    network_mode: none
    volumes: ["kept:/kept"]
volumes: {{kept: {{}}}}
"""
DAY = {
    "docker": "run exec logs attach cp commit events stats volumes networks top",
    "docker-compose": "run exec logs attach cp events stats volumes top images ls",
    "docker-compose-1": "run exec logs events volumes top images",
    "podman-compose": "run exec logs stats volumes images",
}
CELLS = [(client, verb) for client, verbs in DAY.items() for verb in verbs.split()]


class Client:
    """A program, and the container that it made. argv: with the words that name the project."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], environment: Environment, place: Path) -> None:
        self.name, self.argv, self.env, self.environment, self.place = name, argv, env, environment, place

    @property
    def container(self) -> str:
        """The container's name, as the engine has it."""
        label = "name=^/one$" if self.name == "docker" else f"label=day={self.name}"
        (found,) = self.environment("ps", "-a", "--filter", label, "--format", "{{.Names}}").stdout.split()
        return found

    def __call__(self, *words: str, check: bool = True) -> str:
        def act() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*self.argv, *words], cwd=self.place, env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=110, check=False,
            )  # fmt: skip

        done = self.environment.inside(act)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def following(self, *words: str) -> Iterator[Callable[..., None]]:
        """Run the client until the block ends. What is given waits for a text, and calls `poke` until it has come."""
        pipe = subprocess.PIPE
        process = self.environment.inside(
            lambda: subprocess.Popen(
                [*self.argv, *words], cwd=self.place, env=self.env, stdin=subprocess.DEVNULL, stdout=pipe
            )
        )
        assert process.stdout is not None
        stream, seen = process.stdout.fileno(), bytearray()

        def expect(text: str, poke: Callable[[], object] = lambda: None) -> None:
            deadline = time.monotonic() + WAIT_S_MAX
            while text.encode() not in seen:
                assert time.monotonic() < deadline, (text, seen)
                poke()
                if select.select([stream], [], [], 1.0)[0]:
                    data = os.read(stream, 65536)
                    assert data, (text, seen, process.wait())
                    seen.extend(data)

        try:
            yield expect
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def terminal(self, *words: str) -> Terminal:
        argv = ["env", "-C", str(self.place), *self.argv, *words]
        return self.environment.inside(lambda: Terminal(argv, self.env))


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        yield environment


@pytest.fixture(scope="module")
def opened(
    environment: Environment, peer: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Client]]:
    """What gives each client with its container running; each is made once."""
    made: dict[str, Client] = {}

    def client(name: str) -> Client:
        if name not in made:
            made[name] = _made(name, environment, peer, tmp_path_factory.mktemp("day"))
        return made[name]

    yield client
    for one in made.values():
        one(*(("rm", "-f", "one") if one.name == "docker" else ("down", "-v")))
    environment("volume", "rm", "-f", "kept")


def _made(name: str, environment: Environment, peer: Callable[[str], Path], place: Path) -> Client:
    env = os.environ | {
        "DOCKER_HOST": f"unix://{environment.run}/docker.sock",
        "DOCKER_CONFIG": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "xterm",
    }
    label = f"    labels: {{day: {name}}}\n"
    (place / "compose.yaml").write_text(PROJECT.replace("    tty: true\n", f"    tty: true\n{label}"))
    program = Path(sys.executable).parent / name if name == "podman-compose" else peer(name)
    argv = [str(program)] if name == "docker" else [str(program), "-p", name.replace("-", "")]
    if name == "docker-compose-1":
        argv = ["/usr/bin/python3", str(program), "--ansi", "never", "-p", "composeone"]
        env["PYTHONPATH"] = str(program.parents[1] / "lib/python3/dist-packages")
    elif name == "podman-compose":
        (place / "bin").mkdir()
        (place / "bin/podman").symlink_to(COMMAND)
        env |= environment.variables | {"PATH": f"{place}/bin:{os.environ['PATH']}"}
    client = Client(name, argv, env, environment, place)
    if name == "docker":
        words = ("--network", "none", "--stop-signal", "KILL", "-v", "kept:/kept", "box:1", "sh", "-c", LOOP)
        client("run", "-dit", "--name", "one", *words)
    else:
        client("up", "-d")
    return client


@pytest.mark.parametrize(("name", "verb"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_verb_of_a_client(opened: Callable[[str], Client], name: str, verb: str) -> None:
    _CELLS[verb](opened(name))


def _run(client: Client) -> None:
    """A command of its own, with input from a terminal; docker's words for it differ from Compose's."""
    words = ["run", "--rm", "-it", "--network", "none", "box:1"] if client.name == "docker" else ["run", "--rm", "one"]
    with client.terminal(*words, "sh", "-c", "read x; echo said $x; exit 5") as screen:
        screen.send("hello\r")
        screen.expect("said hello")
        assert screen.wait(WAIT_S_MAX) == 5


def _exec(client: Client) -> None:
    with client.terminal("exec", *(["-it"] if client.name == "docker" else []), "one", "sh") as screen:
        screen.send("echo a$((1+1))b; [ -t 0 ] && echo a terminal; exit 7\r")
        screen.expect("a2b")
        screen.expect("a terminal\r\n")
        assert screen.wait(WAIT_S_MAX) == 7


def _logs(client: Client) -> None:
    with client.following("logs", "-f", "one") as expect:
        expect("first")
        client.environment("exec", client.container, "sh", "-c", "echo later >/proc/1/fd/1")
        expect("later")


def _attach(client: Client) -> None:
    with client.terminal("attach", "--detach-keys", "ctrl-x,x", "one") as screen:
        name = f"container={client.container}"
        attached = ("events", "--since", "1h", "--until", "0s", "--filter", "event=attach", "--filter", name)
        deadline = time.monotonic() + WAIT_S_MAX
        while not client.environment(*attached).stdout:  # what is typed before goes nowhere
            assert time.monotonic() < deadline
            time.sleep(0.05)
        screen.send("typed\r")
        screen.expect("got typed")
        screen.send(b"\x18x")
        screen.wait(WAIT_S_MAX)
    assert client.environment("inspect", "-f", "{{.State.Running}}", client.container).stdout == "true\n"


def _cp(client: Client) -> None:
    (client.place / "sent").mkdir()
    (client.place / "sent/file").write_text("in")
    client("cp", "sent", "one:/tmp/got")
    assert client.environment("exec", client.container, "cat", "/tmp/got/file").stdout == "in"
    client("cp", "one:/tmp/got", "back")
    assert (client.place / "back/file").read_text() == "in"
    client("cp", "one:/tmp/got/file", "alone")
    assert (client.place / "alone").read_text() == "in"


def _commit(client: Client) -> None:
    client.environment("exec", client.container, "sh", "-c", "echo kept >/kept-file")
    client("commit", "-m", "why", "one", "day:1")
    assert client("run", "--rm", "--network", "none", "day:1", "cat", "/kept-file") == "kept\n"
    client("save", "-o", "day.tar", "day:1")
    with tarfile.open(client.place / "day.tar") as archive:
        assert "manifest.json" in archive.getnames()
    client("rmi", "day:1")


def _events(client: Client) -> None:
    words = ["--format", "json"] if client.name == "docker" else ["--json"]
    with client.following("events", *words) as expect:  # it listens at some time
        expect("pause", poke=lambda: [client.environment(verb, client.container) for verb in ("pause", "unpause")])


def _stats(client: Client) -> None:
    assert client.container in client("stats", "--no-stream", *(["one"] if client.name != "podman-compose" else []))


def _volumes(client: Client) -> None:
    client.environment("exec", client.container, "sh", "-c", "echo data >/kept/f")
    if client.name == "docker":
        client("volume", "create", "more")
        assert {"kept", "more"} <= set(client("volume", "ls", "-q").split())
        assert json.loads(client("volume", "inspect", "kept"))[0]["Name"] == "kept"
        assert "more" in client("volume", "rm", "more")
        said = client("run", "--rm", "--network", "none", "--volumes-from", "one", "box:1", "cat", "/kept/f")
    else:
        said = client("run", "--rm", "-T", "one", "cat", "/kept/f")
    assert said.strip() == "data"


def _networks(client: Client) -> None:
    client("network", "create", "--label", "a=b", "day")
    client("run", "-d", "--name", "peer", "--stop-signal", "KILL", "--network", "day", "box:1", "sleep", "1000")
    assert "peer" in client("run", "--rm", "--network", "day", "box:1", "busybox", "nslookup", "peer")
    client("network", "create", "other")
    client("network", "connect", "--alias", "known", "other", "peer")
    assert "known" in client("run", "--rm", "--network", "other", "box:1", "busybox", "nslookup", "known")
    client("network", "disconnect", "other", "peer")
    assert list(json.loads(client("inspect", "peer"))[0]["NetworkSettings"]["Networks"]) == ["day"]
    assert client("network", "ls", "-q", "--filter", "label=a=b").count("\n") == 1
    client("rm", "-f", "peer")
    client("network", "rm", "day", "other")


def _top(client: Client) -> None:
    assert "sh -c" in client("top", "one")


def _images(client: Client) -> None:
    assert "box" in client("images")


def _ls(client: Client) -> None:
    assert [one["Name"] for one in json.loads(client("ls", "--format", "json"))] == ["dockercompose"]


_CELLS: dict[str, Callable[[Client], None]] = {
    "run": _run, "exec": _exec, "logs": _logs, "attach": _attach, "cp": _cp, "commit": _commit, "events": _events,
    "stats": _stats, "volumes": _volumes, "networks": _networks, "top": _top, "images": _images, "ls": _ls,
}  # fmt: skip
