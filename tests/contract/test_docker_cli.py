"""The real docker CLI against our docker.sock and against Debian 13's dockerd: the same commands, the same answers.

A script is a list of command lines; IN: before one gives it that standard input. What differs by nature (ids, times,
sizes, process ids) is replaced before the comparison; every other difference stands in `DIFFERENT`, with its reason.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, cast

import pytest

from bench.workspace import Workspace
from support.engine import COMMAND, Environment
from support.registries import debian_registry

Peer = Callable[[str], Path]
T = TypeVar("T")


class Cli:
    """The docker CLI with one daemon. call: how a process is started so that it reaches the daemon."""

    def __init__(
        self,
        program: Path,
        socket: Path,
        config: Path,
        inside: Callable[..., object],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._argv = [str(program)]
        own = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(config), "TZ": "UTC"}
        self._env = os.environ | own | variables
        self._inside = inside
        self.registry = ""

    def inside(self, work: Callable[[], T]) -> T:
        """Return what work returns where the daemon's network is."""
        return cast("T", self._inside(work))

    def __call__(self, line: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [*self._argv, *shlex.split(line)]
        return self.inside(
            lambda: subprocess.run(argv, env=self._env, input=data, capture_output=True, timeout=120, check=False)
        )

    def popen(self, line: str) -> subprocess.Popen[bytes]:
        argv = [*self._argv, *shlex.split(line)]
        pipe = subprocess.PIPE
        return self.inside(lambda: subprocess.Popen(argv, env=self._env, stdin=pipe, stdout=pipe, stderr=pipe))


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as work:
        yield work


@pytest.fixture(scope="module")
def them(workspace: Workspace, peer: Peer) -> Cli:
    daemon = workspace.dockerd("d", program=peer("dockerd-26"))
    return loaded(Cli(peer("docker"), daemon.socket, daemon.home, lambda work: work()), workspace)


@pytest.fixture(scope="module")
def ours(workspace: Workspace, peer: Peer) -> Iterator[Cli]:
    environment = Environment(workspace.path("o") / "root")
    environment("info")
    yield loaded(
        Cli(peer("docker"), environment.run / "docker.sock", workspace.path("oc"), environment.inside), workspace
    )
    left = environment.close()
    assert not left, left


@pytest.fixture(scope="module")
def own(workspace: Workspace) -> Iterator[Cli]:
    """orlop itself, with an engine of its own: the scripts of all three are played side by side."""
    environment = Environment(workspace.path("own") / "root")
    config = workspace.path("ownc")
    yield loaded(Cli(COMMAND, config / "none", config, environment.inside, environment.variables), workspace)
    left = environment.close()
    assert not left, left


def loaded(cli: Cli, workspace: Workspace) -> Cli:
    done = cli("import --change 'ENV FROM=image' --change 'CMD [\"sh\"]' - box:1", workspace.archive().read_bytes())
    assert done.returncode == 0, done.stderr
    return cli


READY_S_MAX = 60.0
HELD = "run -d --name held --network none box:1 sh -c 'trap exit\\ 3 TERM; echo up; while :; do sleep 0.1; done'"
IDS = "while read a b; do case $a in Uid:|Gid:) echo $a $b;; esac; done </proc/self/status"
LIMITS = "memory/memory.limit_in_bytes pids/pids.max"
SCRIPTS: dict[str, list[str]] = {
    "echo": ["run --rm --network none box:1 echo hello"],
    "streams and status": ["run --rm --network none box:1 sh -c 'echo out; echo err >&2; exit 7'"],
    "input": ["IN:b\\na\\n run -i --rm --network none box:1 cat", "IN: run -i --rm --network none box:1 cat"],
    "image's environment": ["run --rm --network none -e A=1 -e FROM box:1 sh -c 'echo $A $FROM; pwd'"],
    "user and place": [f"run --rm --network none -u 5:6 -w /tmp box:1 sh -c '{IDS}; pwd'"],
    "entrypoint": [
        "run --rm --network none --entrypoint echo box:1 a b",
        "run --rm --network none --entrypoint '' box:1 echo c",
    ],
    "no such command": ["run --rm --network none box:1 nosuch"],
    "not executable": ["run --rm --network none box:1 /etc"],
    "no such image": ["create --pull never nosuch:1 true", "image inspect nosuch:1", "rmi nosuch:1"],
    "no such container": [
        f"{verb} nosuch" for verb in "start stop kill rm logs inspect pause unpause restart top diff".split()
    ],
    "detached": [
        "run -d --name one --network none box:1 sh -c 'echo said; exit 4'",
        "wait one",
        "logs one",
        "inspect -f '{{.State.ExitCode}} {{.State.Status}}' one",
        "rm one",
    ],
    "stop and status": [
        HELD,
        "stop -t 20 held",
        "inspect -f '{{.State.ExitCode}}' held",
        "start held",
        "kill held",
        "wait held",
        "rm held",
    ],
    "name taken": ["create --name same --network none box:1", "create --name same --network none box:1", "rm same"],
    "bad names": [
        "create --name a/b --network none box:1",
        "create --name '' --network none box:1 true",
        "run --rm --network none -w x box:1",
    ],
    "running is not removed": [HELD, "rm held", "rm -f held", "rm held"],
    "exec": [
        HELD,
        "exec held echo inside",
        "IN:piped exec -i held cat",
        "exec held sh -c 'exit 9'",
        "exec -e X=y -w /tmp -u 3 held sh -c 'echo $X; pwd'",
        "exec -d held true",
        "rm -f held",
        "exec held true",
    ],
    "pause": [HELD, "pause held", "pause held", "exec held true", "unpause held", "unpause held", "rm -f held"],
    "rename": [HELD, "rename held other", "rename nosuch x", "exec other echo renamed", "rm -f other"],
    "labels and filters": [
        "create --name l1 -l a=1 -l b --network none box:1",
        "ps -a --filter label=a=1 --format '{{.Names}} {{.Image}} {{.Status}}'",
        "ps -a --filter label=a=2 -q",
        "ps -aq --filter name=l1 --filter nosuch=1",
        "inspect -f '{{json .Config.Labels}}' l1",
        "rm l1",
    ],
    "logs": [
        "run --name lg --network none box:1 sh -c 'echo a; echo b; echo c'",
        "logs lg",
        "logs --tail 1 lg",
        "logs --tail 0 lg",
        "rm lg",
    ],
    "diff": ["run --name df --network none box:1 sh -c 'echo x >/new; echo y >/etc/more'", "diff df", "rm df"],
    "copy": [
        "create --name cp --network none box:1",
        "cp /etc/hostname cp:/copied",
        "cp cp:/nosuch -",
        "rm cp",
    ],
    "commit": [
        "run --name cm --network none box:1 sh -c 'echo kept >/kept'",
        'commit -c \'CMD ["cat", "/kept"]\' cm made:1',
        "run --rm --network none made:1",
        "rm cm",
        "rmi made:1",
    ],
    "tag and remove": [
        "tag box:1 other:2",
        "image ls other --format '{{.Repository}}:{{.Tag}}'",
        "rmi other:2",
        "tag nosuch:1 x:1",
        "tag box:1 UPPER",
    ],
    "volumes": [
        "volume create vol",
        "run --rm --network none -v vol:/v box:1 sh -c 'echo in >/v/f'",
        "run --rm --network none -v vol:/v:ro box:1 sh -c 'cat /v/f; echo x >/v/g'",
        "volume ls -q",
        "volume rm vol",
        "volume rm vol",
        "volume inspect nosuch",
    ],
    "binds and tmpfs": [
        "run --rm --network none -v /etc/hostname:/h:ro --tmpfs /t box:1 sh -c 'echo x >/h; echo y >/t/y && cat /t/y'"
    ],
    "limits": [f"run --rm --network none -m 64m --pids-limit 50 box:1 sh -c 'cd /sys/fs/cgroup; cat {LIMITS}'"],
    "update": [
        HELD,
        "update -m 100m --memory-swap 200m held",
        "inspect -f '{{.HostConfig.Memory}}' held",
        "rm -f held",
    ],
    "host config": [
        "create --name hc --network none --cap-add NET_ADMIN --cap-drop ALL --read-only --ulimit nofile=100:200"
        " --shm-size 1m --stop-signal INT --hostname deck --init=false --sysctl net.ipv4.ip_forward=1 box:1",
        "inspect -f '{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}}' hc",
        "inspect -f '{{json .HostConfig.Ulimits}} {{.HostConfig.ShmSize}} {{json .HostConfig.Sysctls}}' hc",
        "inspect -f '{{.Config.StopSignal}} {{.Config.Hostname}}' hc",
        "rm hc",
    ],
    "bad limits": [
        "create --network none -m 1k box:1",
        "create --network none --cpus 1000 box:1",
        "create --network none --cap-add NOSUCH box:1",
    ],
    "prune": [
        "create --name pr --network none box:1",
        "container prune -f --filter label=nosuch",
        "container prune -f",
        "ps -aq",
    ],
    "save and load": [
        "run --rm --network none box:1 true",  # an image that was never run has no layers that could be named
        "save -o /tmp/ARCHIVE box:1",
        "rmi box:1",
        "load -i /tmp/ARCHIVE",
        "run --rm --network none box:1 echo back",
    ],
}
# Where standard error says something else, and why. The daemon that we compare with is 26.1, the client 28.
NEWER = "docker 28's words"
DIFFERENT = {
    "run --rm --network none box:1 /etc": "newer runc's words: is a directory",
    "image inspect nosuch:1": NEWER,
    "create --name same --network none box:1": "the hint stands on a line of its own",
    "kill nosuch": NEWER,
    "rm held": NEWER,
    "ps -aq --filter name=l1 --filter nosuch=1": NEWER,
    "create --network none --cpus 1000 box:1": NEWER,
}
_REPLACED = [
    (re.compile(r"\b[0-9a-f]{64}\b"), "<ID>"),
    (re.compile(r"/tmp/orlop-\d+-\d\.tar"), "ARCHIVE"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\nNext: [^\n]*"), ""),  # ours: the next step
    (re.compile(r"Total reclaimed space: .*"), "Total reclaimed space: <SIZE>"),
    (
        re.compile(r"docker: Error response from daemon: failed to create (shim task|task for container): .*?exec: "),
        "docker: Error response from daemon: exec: ",
    ),
    (re.compile(r"OCI runtime exec failed: exec failed: .*?exec: "), "exec: "),
    (re.compile(r"OCI runtime create failed: .*?exec: "), "exec: "),
    (re.compile(r": unknown\.?$", re.MULTILINE), ""),
    (re.compile(r"\.$", re.MULTILINE), ""),
    (re.compile(r"(WARNING: )?IPv4 forwarding is disabled[^\n]*\n"), ""),  # the daemon's machine, which we have none of
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<TIME>"),
    (re.compile(r"^Flag --\w+ has been deprecated[^\n]*\n"), ""),
]
_PREFIX = re.compile(r"(Error response from daemon: )([A-Z])")  # docker's texts begin small since 23


def told(text: bytes) -> str:
    out = text.decode(errors="replace")
    for pattern, replacement in _REPLACED:
        out = pattern.sub(replacement, out)
    return _PREFIX.sub(lambda match: match[1] + match[2].lower(), out)


def sections() -> dict[str, list[str]]:
    """Return the scripts of docker_commands.txt by their names."""
    found: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "docker_commands.txt").read_text().split("\n\n", 1)[1].splitlines():
        if line.startswith("# "):
            current = found.setdefault(line[2:], [])
        elif line:
            current.append(line)
    return found


MORE = sections()
WHAT, OWN = ("status", "output", "error"), ("orlop's status", "orlop's output", "orlop's error")


class Accepted:
    """The lines of docker_command_differences.txt: COMMAND | WHAT | reason, where * stands for anything."""

    def __init__(self, text: str) -> None:
        lines = [line.rsplit(" | ", 2) for line in text.splitlines() if line and not line.startswith("#")]
        self.rules = [Rule(command, what) for command, what, _ in lines]

    def judge(self, line: str, what: str) -> bool:
        return any(rule.of(line) and rule.what in (what, "all") for rule in self.rules)


class Rule:
    def __init__(self, command: str, what: str) -> None:
        self.command, self.what = command, what
        self._pattern = re.compile(".*".join(map(re.escape, command.split("*"))))

    def __repr__(self) -> str:
        return self.command

    def of(self, line: str) -> bool:
        return bool(self._pattern.fullmatch(line))


ACCEPTED = Accepted((Path(__file__).parent / "docker_command_differences.txt").read_text())


def play(cli: Cli, script: list[str], archive: str) -> list[tuple[str, int, str, str]]:
    answers = []
    begun = f"{time.time():.9f}"
    for asked in script:
        line = (
            HELD
            if asked == "$HELD"
            else asked.replace("ARCHIVE", archive).replace("BEGUN", begun).replace("NOW", f"{time.time():.9f}")
        ).replace("REGISTRY", cli.registry)
        data, until = b"", None
        if line.startswith("IN:"):
            text, line = line[3:].split(" ", 1)
            data = text.encode().decode("unicode_escape").encode()
        if line.startswith("UNTIL:"):
            until, line = line[6:].split(" ", 1)
        done = cli(line, data)
        deadline = time.monotonic() + READY_S_MAX
        while until is not None and done.stdout.decode().split() != until.replace("\\s", " ").split():
            assert time.monotonic() < deadline, (line, until, done)
            time.sleep(0.05)
            done = cli(line, data)
        output, error = (
            told(text).replace(cli.registry or "REGISTRY", "REGISTRY") for text in (done.stdout, done.stderr)
        )
        if line.startswith("diff "):  # dockerd walks maps where it can't ask overlayfs itself: any order
            output = "".join(sorted(output.splitlines(keepends=True)))
        answers.append((asked, done.returncode, output, error))
        if line == HELD:  # its handler stands when it says so; before, a signal ends it otherwise
            deadline = time.monotonic() + READY_S_MAX
            while b"up" not in cli("logs held").stdout:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    return answers


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_commands_have_the_same_answers(ours: Cli, them: Cli, name: str, tmp_path: Path) -> None:
    archive = f"orlop-{os.getpid()}.tar"
    try:
        mine, other = (play(cli, SCRIPTS[name], archive) for cli in (ours, them))
    finally:
        Path(f"/tmp/{archive}").unlink(missing_ok=True)
    for ours_said, they_said in zip(mine, other, strict=True):
        if ours_said[0] in DIFFERENT:
            assert bool(ours_said[3]) == bool(they_said[3])
            ours_said, they_said = ours_said[:3], they_said[:3]
        assert ours_said == they_said


@pytest.fixture(scope="module")
def players(ours: Cli, them: Cli, own: Cli, peer: Peer, workspace: Workspace) -> Iterator[tuple[Cli, Cli, Cli]]:
    with ExitStack() as stack:
        for number, cli in enumerate((ours, them, own)):
            place = workspace.path(f"registry{number}")
            cli.registry = stack.enter_context(debian_registry(peer("docker-registry"), place, cli))
        yield ours, them, own


def forget(cli: Cli) -> None:
    """Remove what earlier scripts have left, which not all three have played."""
    if ids := cli("ps -aq").stdout.decode().split():
        assert cli(f"rm -f {' '.join(ids)}").returncode == 0


@pytest.mark.parametrize("name", MORE)
def test_every_verb_with_its_flags(players: tuple[Cli, Cli, Cli], name: str) -> None:
    """docker with our daemon, docker with its own, and orlop: the same output and status; of orlop's errors that it has
    said something."""
    archives = [f"orlop-{os.getpid()}-{index}.tar" for index in range(len(players))]
    try:
        with ThreadPoolExecutor(len(players)) as threads:
            list(threads.map(forget, players))
            said = list(threads.map(play, players, [MORE[name]] * len(players), archives))
    finally:
        for archive in archives:
            Path(f"/tmp/{archive}").unlink(missing_ok=True)
    different = []
    for (line, *ours), (_, *theirs), (_, *own) in zip(*said, strict=True):
        own[2], told_at_all = bool(own[2]), bool(ours[2])
        for what, one, other in (
            *zip(WHAT, ours, theirs, strict=True),
            *zip(OWN, own, (*ours[:2], told_at_all), strict=True),
        ):
            if one != other and not ACCEPTED.judge(line, what):
                different.append(f"{line} | {what} | ours {one!r} | docker {other!r}")
    assert not different, "\n".join(different)


def test_the_list_of_accepted_differences_has_only_what_is_different(players: tuple[Cli, Cli, Cli]) -> None:
    played = {line for script in MORE.values() for line in script}
    unused = [rule for rule in ACCEPTED.rules if not any(rule.of(line) for line in played)]
    assert not unused, unused


def test_the_list_of_differences_has_only_what_is_played() -> None:
    played = {line for script in SCRIPTS.values() for line in script}
    assert set(DIFFERENT) <= played


def test_events_and_stats(ours: Cli) -> None:
    follower = ours.popen("events --since 1 --format '{{json .}}' --filter container=watched")
    assert ours(HELD.replace("held", "watched")).returncode == 0
    stats = json.loads(ours("stats --no-stream --format '{{json .}}' watched").stdout)
    assert stats["Name"] == "watched" and stats["PIDs"] != "0"
    assert ours("rm -f watched").returncode == 0
    assert follower.stdout is not None
    seen: list[str] = []
    for line in follower.stdout:
        seen.append(json.loads(line)["Action"])
        if seen[-1] == "destroy":
            break
    follower.terminate()
    follower.communicate()
    assert [action for action in seen if action in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip


NOT_FOUND = (
    b"OCI runtime exec failed: exec failed: unable to start container process:"
    b' exec: "nosuch": executable file not found in $PATH: unknown\r\n'
)


def test_an_attached_start_and_a_command_that_is_not_there(ours: Cli) -> None:
    # Not compared: dockerd 20.10 loses an end of input that comes before the start, and says 126 for both.
    assert ours("create --name two -i --network none box:1 cat").returncode == 0
    done = ours("start -ai two", b"typed\n")
    assert (done.returncode, done.stdout) == (0, b"typed\n")
    assert ours("rm two").returncode == 0
    assert ours(HELD).returncode == 0
    done = ours("exec held nosuch")
    assert (done.returncode, done.stdout) == (127, NOT_FOUND)
    assert ours("exec held /etc").returncode == 126
    assert ours("rm -f held").returncode == 0
