"""The command line's grammar against docker's: the same words are the same request, or the same refusal.

docker_cli_28.json holds what the docker CLI 28 did with the words below. Ours is compared with the file on every
machine; the file is compared with the docker CLI that is here. `python tests/contract/test_cli_grammar.py` records it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.frontends.cli import commands
from orlop.frontends.cli.containers import run
from orlop.frontends.cli.main import main
from orlop.frontends.cli.request import container_request
from orlop.spec.container import BindRequest, ContainerRequest
from support.fake_docker import FakeDocker

RECORDED = Path(__file__).with_name("docker_cli_28.json")
VERSION = "28."
# What the docker CLI 20.10 (Debian 12) does differently.
NEWER_THAN_20 = {
    "-v ./here:/b x",
    "-v .:/b x",
    "--cap-add SYS_ADMIN --cap-drop ALL x",
    "--cap-add=net_raw x",
    "--quiet x",
}
COMMANDS = [
    "run", "create", "exec", "ps", "logs", "stop", "kill", "rm", "images", "attach", "restart", "pause", "unpause",
    "rename", "update", "top", "stats", "port", "wait", "events", "info", "version",
]  # fmt: skip

ACCEPTED = [
    "x",
    "x true",
    "x sh -c 'echo a; exit 3'",
    "-i x",
    "-t x",
    "-it x sh",
    "-ti x sh",
    "-i=false -t x",
    "-it=false x",
    "-i=true -t=1 x",
    "--interactive --tty x",
    "--interactive=F --tty=T x",
    "--rm x",
    "--rm=true x",
    "--rm=false x",
    "--rm=0 x",
    "--rm --rm=false x",
    "-a stdout x",
    "-a STDIN -i x",
    "-a stdin -a stderr x",
    "--attach=stdout x",
    "-e A=1 x",
    "-eA=1 x",
    "-e=A=1 x",
    "-e A=1 -e B= -e C=a=b x",
    "--env A=1 --env=B=2 x",
    "-e HOME_OF_TEST x",
    "-e NOT_SET_ANYWHERE x",
    "-e -x x",
    "-e 'a b' x",
    "--env-file env1 x",
    "--env-file env1 --env-file env2 -e A=strong x",
    "-w /tmp x",
    "-w/tmp x",
    "--workdir=/tmp x",
    "-u 1000 x",
    "-u 1000:1000 x",
    "--user=nobody:nogroup x",
    "--group-add 5 --group-add audio x",
    "-h deck x",
    "-h= x",
    "--hostname=deck x",
    "-v /a:/b x",
    "-v /a:/b:ro x",
    "-v /a:/b:ro,z -v /c:/d x",
    "-v ./here:/b x",
    "-v .:/b x",
    "--tmpfs /t x",
    "--tmpfs /t:size=64m,noexec x",
    "--read-only x",
    "-m 512m x",
    "-m512m x",
    "-m=512m x",
    "--memory 1g x",
    "--memory=1.5GiB x",
    "--memory 64kb x",
    "--memory 0 x",
    "-m '64 m' x",
    "-m 1073741824 x",
    "-m 10b x",
    "-m 6M --memory-swap 12M x",
    "--memory-swap -1 x",
    "--memory-swap=-1 -m 64m x",
    "--cpus 1.5 x",
    "--cpus .5 x",
    "--cpus 2 x",
    "--cpus 3/2 x",
    "--cpus 1e-1 x",
    "--cpus=0.000000001 x",
    "--pids-limit 100 x",
    "--pids-limit=-1 x",
    "--pids-limit 0x10 x",
    "--pids-limit 010 x",
    "--pids-limit 1_000 x",
    "--cap-add SYS_ADMIN --cap-drop ALL x",
    "--cap-add=net_raw x",
    "--privileged x",
    "--security-opt seccomp=unconfined x",
    "--security-opt no-new-privileges x",
    "--security-opt no-new-privileges=true --security-opt apparmor=unconfined x",
    "--security-opt seccomp:unconfined x",
    "--security-opt seccomp=profile.json x",
    "--network none x",
    "--network=host x",
    "--net host x",
    "--entrypoint /bin/sh x -c true",
    "--entrypoint= x",
    "-l a=1 x",
    "-l a -l b=c=d x",
    "--label=com.example.x=y x",
    "--stop-signal SIGINT --stop-timeout 3 x",
    "--stop-timeout=-1 x",
    "--name web x",
    "--name= x",
    "--restart no x",
    "--quiet x",
    "-- x",
    "-- x -- y",
    "--rm -- x -e",
    "x -- y",
    "x --rm -it",
    "x -",
]

REFUSED = [
    ["run"],
    ["run", "--rm"],
    ["run", "--"],
    ["run", "--bogus", "x"],
    ["run", "--hel"],
    ["run", "-z", "x"],
    ["run", "-itz", "x"],
    ["run", "-itx=y"],
    ["run", "-=x", "y"],
    ["run", "--=x", "y"],
    ["run", "---x", "y"],
    ["run", "--name"],
    ["run", "-e"],
    ["run", "-ite"],
    ["run", "--rm=maybe", "x"],
    ["run", "--rm=", "x"],
    ["run", "-i=2", "x"],
    ["run", "-m", "12q", "x"],
    ["run", "-mfoo", "x"],
    ["run", "--memory=", "x"],
    ["run", "--memory=-1", "x"],
    ["run", "--memory", "1.2.3m", "x"],
    ["run", "--memory", "1mb2", "x"],
    ["run", "--memory", "12mbb", "x"],
    ["run", "--memory-swap", "-2", "x"],
    ["run", "--cpus", "abc", "x"],
    ["run", "--cpus", "", "x"],
    ["run", "--cpus", "1/0", "x"],
    ["run", "--cpus", "0.0000000001", "x"],
    ["run", "-a", "foo", "x"],
    ["run", "-e", "=x", "x"],
    ["run", "-e", "", "x"],
    ["run", "-l", "=x", "x"],
    ["run", "--label", "", "x"],
    ["run", "--stop-timeout", "abc", "x"],
    ["run", "--stop-timeout", "1.5", "x"],
    ["run", "--stop-timeout", "99999999999999999999", "x"],
    ["run", "--pids-limit", "", "x"],
    ["run", "--network", "foo=bar", "x"],
    ["run", "-d", "-a", "stdout", "x"],
    ["run", "-it", "x"],
    ["create", "--bogus", "x"],
    ["exec"],
    ["exec", "c"],
    ["exec", "--bogus", "c", "true"],
    ["exec", "-e", "=a", "c", "true"],
    ["ps", "c"],
    ["ps", "--bogus"],
    ["ps", "-f", "foo"],
    ["ps", "--last", "abc"],
    ["container", "ls", "c"],
    ["container", "ls", "--bogus"],
    ["container", "run"],
    ["container", "bogus"],
    ["image", "bogus"],
    ["images", "a", "b"],
    ["logs"],
    ["logs", "a", "b"],
    ["stop"],
    ["stop", "-t", "abc", "c"],
    ["kill"],
    ["kill", "--signal"],
    ["wait"],
    ["wait", "--bogus"],
    ["rm", "-f"],
    ["start"],
    ["start", "-ai", "a", "b"],
    ["attach"],
    ["inspect"],
    ["import"],
    ["version", "x"],
    ["info", "x"],
    ["bogus"],
    ["--bogus"],
    ["-D", "--bogus"],
]


@pytest.fixture(scope="module")
def docker(peer: Any) -> Iterator[FakeDocker]:
    with FakeDocker(peer("docker")) as fake:
        yield fake


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(RECORDED.read_text())


def prepare(directory: Path) -> dict[str, str]:
    """Write the files that the words name; return the variables that they name."""
    (directory / "env1").write_text("# a comment\n\nA=1\n  B=two words \nHOME_OF_TEST\nNOT_SET_ANYWHERE\nC=\n")
    (directory / "env2").write_bytes("\ufeffA=3\r\nD=ä#x\n".encode())
    (directory / "profile.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}')
    return {"HOME_OF_TEST": "/h o"}


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    values = prepare(tmp_path)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def body_of(docker: FakeDocker, line: str, variables: dict[str, str]) -> dict[str, object]:
    words = shlex.split(line)
    sent = docker.create_body(words, env=variables)
    assert sent is not None, docker("create", *words).stderr
    return dockers(sent[1], sent[0])


def refusal_of(docker: FakeDocker, words: list[str]) -> list[object]:
    done = docker(*words)
    return [done.returncode, done.stderr.splitlines()[0].replace("docker", "orlop")]


def flags_of(docker: FakeDocker, name: str) -> dict[str, list[str]]:
    """Return flag -> [letter, type] as `docker NAME --help` lists them."""
    listed = {}
    for line in docker(name, "--help").stdout.splitlines():
        letter, text, rest = line[2:6].strip(" ,-"), line[6:].lstrip(), ""
        if line.startswith("  ") and text.startswith("--"):
            long, _, rest = text[2:].partition(" ")
            listed[long] = [letter, rest.partition("  ")[0] if rest[:1] != " " else ""]
    return listed


def dockers(body: dict[str, Any], query: dict[str, list[str]]) -> dict[str, object]:
    """Return docker's request in the terms of `ours`."""
    host = body["HostConfig"]
    security = [_compact(option) for option in host["SecurityOpt"] or ()]
    return {
        "image": body["Image"],
        "name": query.get("name", [""])[0],
        "args": body["Cmd"],
        "entrypoint": body["Entrypoint"],
        "env": sorted(body["Env"] or []),  # the docker CLI sends them in no order
        "user": body["User"],
        "working_dir": body["WorkingDir"],
        "hostname": body["Hostname"],
        "labels": body["Labels"] or {},
        "terminal": body["Tty"],
        "open_stdin": body["OpenStdin"],
        "stdin_once": body["StdinOnce"],
        "attached": [name for name in ("stderr", "stdin", "stdout") if body[f"Attach{name.capitalize()}"]],
        "stop_signal": body.get("StopSignal", ""),
        "stop_timeout": body.get("StopTimeout"),
        "auto_remove": host["AutoRemove"],
        "binds": sorted(bind.replace(os.getcwd(), "$PWD") for bind in host["Binds"] or []),
        "tmpfs": host.get("Tmpfs") or {},
        "read_only": host["ReadonlyRootfs"],
        "memory": host["Memory"],
        "memory_swap": host["MemorySwap"],
        "cpus": host["NanoCpus"],
        "pids": max(host["PidsLimit"] or 0, 0),
        "cap_add": host["CapAdd"] or [],
        "cap_drop": host["CapDrop"] or [],
        "privileged": host["Privileged"],
        "security": security,
        "groups": host["GroupAdd"] or [],
        "network": host["NetworkMode"].replace("default", ""),
    }


def ours(wanted: ContainerRequest, attached: frozenset[str]) -> dict[str, object]:
    return {
        "image": wanted.image,
        "name": wanted.name,
        "args": list(wanted.args) if wanted.args else None,
        "entrypoint": list(wanted.entrypoint) if wanted.entrypoint else None,
        "env": sorted(wanted.env),
        "user": wanted.user,
        "working_dir": wanted.working_dir,
        "hostname": wanted.hostname,
        "labels": wanted.labels,
        "terminal": wanted.terminal,
        "open_stdin": wanted.open_stdin,
        "stdin_once": wanted.stdin_once,
        "attached": sorted(attached),
        "stop_signal": wanted.stop_signal,
        "stop_timeout": wanted.stop_timeout_s,
        "auto_remove": wanted.auto_remove,
        "binds": sorted(map(_bind, wanted.binds)),
        "tmpfs": {t.target: ",".join(t.options) for t in wanted.tmpfs},
        "read_only": wanted.read_only,
        "memory": wanted.memory_bytes,
        "memory_swap": wanted.memory_swap_bytes,
        "cpus": wanted.cpu_nanos,
        "pids": wanted.pids_max or 0,
        # The docker CLI spells capabilities in full and sorts them; here that is the engine's business.
        "cap_add": sorted(map(_full, wanted.cap_add)),
        "cap_drop": sorted(map(_full, wanted.cap_drop)),
        "privileged": wanted.privileged,
        "security": [_compact(option) for option in wanted.security_opt],
        "groups": list(wanted.group_add),
        "network": wanted.network,
    }


def _bind(wanted: BindRequest) -> str:
    source = wanted.source.replace(os.getcwd(), "$PWD")
    return ":".join((source, wanted.target, *([",".join(wanted.options)] if wanted.options else ())))


def _full(capability: str) -> str:
    name = capability.upper().removeprefix("CAP_")
    return name if name == "ALL" else f"CAP_{name}"


def _compact(option: str) -> str:
    key, _, value = option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
    return f"{key}={json.dumps(json.loads(value))}" if value.startswith("{") else f"{key}={value}"


@pytest.mark.parametrize("line", ACCEPTED)
def test_the_same_words_ask_for_the_same_container(recorded: Any, variables: dict[str, str], line: str) -> None:
    options, arguments = run.CREATE.parse(shlex.split(line))
    attached = run.attached_streams(options)
    assert ours(container_request(options, arguments, attached), attached) == recorded["bodies"][line]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_the_same_words_are_refused_alike(
    recorded: Any, words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.isatty", lambda _: False)
    code = main(list(words))
    told = capfd.readouterr().err.splitlines()
    assert [code, told[0]] == recorded["refusals"][shlex.join(words)]
    assert any(line.startswith(("Next: ", "Run 'orlop")) for line in told)


# What docker does not have.
OURS = frozenset(
    # podman's, of verbs where docker has no such flag
    "all cidfile color condition filter ignore interval env-host names noheading pidfile pod read-only-tmpfs replace"
    " rmi timeout tz umask unsetenv"
    " chmod chown cni depends-on disk dry-run egress egress-allow env-file-format health-http health-on-failure"
    " grep health-tcp help host-access json landlock mount-add mount-rm nested nesting"
    " publish-add publish-rm rootfs secret timens".split()
)


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_have_dockers_names_letters_and_types(recorded: Any, name: str) -> None:
    row = commands.find("", name)
    assert row is not None
    command = commands.load(row)
    listed = recorded["flags"][name]
    for flag in command.flags:
        if not flag.hidden and flag.name not in OURS:
            assert listed.get(flag.name) == [flag.short, flag.kind.name], flag.name
    missing = set(listed) - {flag.name for flag in command.flags}
    assert missing <= set(command.refused), "a flag of docker's is neither there nor refused by name"


def test_what_is_recorded_is_what_the_real_cli_does(
    docker: FakeDocker, recorded: Any, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = subprocess.run([docker.program, "--version"], capture_output=True, text=True, check=True).stdout
    same = f"version {VERSION}" in version
    for line in ACCEPTED:
        if same or line not in NEWER_THAN_20:
            assert body_of(docker, line, variables) == recorded["bodies"][line], line
    if same:
        assert {shlex.join(words): refusal_of(docker, words) for words in REFUSED} == recorded["refusals"]
        assert {name: flags_of(docker, name) for name in COMMANDS} == recorded["flags"]


def test_a_flag_of_dockers_that_is_not_there_yet_says_so(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORLOP_RUN", str(tmp_path / "none" / "run"))  # no engine is asked, least of all the machine's
    assert main(["start", "--checkpoint", "one", "x"]) == 125
    told = capfd.readouterr().err
    assert told.startswith("unsupported flag: --checkpoint\nNext: docker has this flag")


def record(program: Path) -> None:
    with tempfile.TemporaryDirectory() as name, FakeDocker(program) as docker:
        os.chdir(name)
        variables = prepare(Path(name))
        found = {
            "bodies": {line: body_of(docker, line, variables) for line in ACCEPTED},
            "refusals": {shlex.join(words): refusal_of(docker, words) for words in REFUSED},
            "flags": {name: flags_of(docker, name) for name in COMMANDS},
        }
    rows = (f" {json.dumps(key)}: {{\n{_lines(value)}\n }}" for key, value in found.items())
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def _lines(table: dict[str, Any]) -> str:
    return ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())


if __name__ == "__main__":
    record(Path(shutil.which("docker") or "docker"))
