"""What each command asks the engine for and prints of its answer, through the real command."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from orlop import __version__
from orlop.frontends.cli import commands
from orlop.spec import errors
from support.fake_engine import FakeEngine

STEPS = [
    {"subject": "mounts", "words": "mount a new proc at /proc", "call": 'fsopen("proc")'},
    {"subject": "mounts", "words": "mask /proc/kcore", "call": "mount"},
    {"subject": "start", "words": "execute true", "call": ""},
]
TOLD = """\
mounts
  mount a new proc at /proc
      fsopen("proc")
  mask /proc/kcore
      mount

start
  execute true
"""


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with FakeEngine() as fake:
        yield fake


def missing(args: dict[str, Any], _: list[int]) -> object:
    name = args.get("container") or args.get("image")
    if name == "gone":
        raise errors.NotFound("find", "container gone", "No such container: gone", hint="orlop ps -a lists them")
    return {"exit_code": 3} if "condition" in args else {}


# -- several containers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "verb", "args"),
    [
        (["stop"], "containers.stop", {"timeout_s": None, "signal": ""}),
        (["stop", "-t", "3", "-s", "INT"], "containers.stop", {"timeout_s": 3, "signal": "INT"}),
        (["stop", "--time=4"], "containers.stop", {"timeout_s": 4, "signal": ""}),
        (["container", "stop", "--timeout", "0"], "containers.stop", {"timeout_s": 0, "signal": ""}),
        (["kill"], "containers.kill", {"signal": ""}),
        (["kill", "--signal=HUP"], "containers.kill", {"signal": "HUP"}),
        (["rm"], "containers.remove", {"force": False, "volumes": False}),
        (["rm", "-fv"], "containers.remove", {"force": True, "volumes": True}),
        (["wait"], "containers.wait", {"condition": "exited"}),
        (["start"], "containers.start", {"attached": False, "console_size": None}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_container_is_done_and_each_failure_told(engine, words, verb, args):
    engine.answers[verb] = missing
    done = engine(*words, "a", "gone", "b")
    shown = "3\n3\n" if "wait" in words else "a\nb\n"
    assert done.stdout == shown
    assert done.stderr == "orlop: No such container: gone\nNext: orlop ps -a lists them (E0101)\n"
    assert done.code == (0 if "-fv" in words else 1), "rm -f forgives what is not there"
    assert sorted(engine.calls, key=str) == sorted(
        ((verb, {"container": c, **args}) for c in ("a", "b", "gone")), key=str
    )


def test_many_containers_are_stopped_at_the_same_time(engine):
    import threading

    together = threading.Barrier(10)

    def stop(*_: object) -> object:
        together.wait(20)  # comes to an end only when all ten are being stopped
        return {}

    engine.answers["containers.stop"] = stop
    assert engine("stop", *"abcdefghij").stdout == "".join(f"{name}\n" for name in "abcdefghij")


# -- starts without a session ----------------------------------------------------------------------------------------


def test_a_detached_run_prints_the_id_and_warnings(engine):
    engine.answers["containers.run"] = {"id": "f" * 64, "warnings": ["no swap"]}
    done = engine("run", "-d", "--name", "web", "x", "sleep", "9")
    assert (done.code, done.stdout, done.stderr) == (0, "f" * 64 + "\n", "WARNING: no swap\n")
    ((verb, args),) = engine.calls
    assert verb == "containers.run"
    assert args["request"] == {"image": "x", "name": "web", "args": ["sleep", "9"], "restartPolicy": "no"}
    assert (args["attached"], args["console_size"]) == (False, None)


def test_a_detached_run_whose_command_is_missing_has_its_status(engine):
    def refuse(*_: object) -> object:
        raise errors.CommandFailed("start", "container web", "not found", hint="install it", exit_code=127)

    engine.answers["containers.run"] = engine.answers["containers.create"] = engine.answers["containers.start"] = refuse
    assert engine("run", "-d", "x", "nosuch").code == 127
    assert engine("create", "x", "nosuch").code == 1
    assert engine("start", "web").code == 1


def test_rootfs_stands_in_for_the_image(engine):
    engine.answers["containers.create"] = {"id": "f" * 64, "warnings": []}
    assert engine("create", "--rootfs", "/srv/../srv/root", "-i", "/bin/true", "-x").code == 0
    assert engine.calls[0][1]["request"] == {
        "rootfs": "/srv/root",
        "args": ["/bin/true", "-x"],
        "openStdin": True,
        "stdinOnce": True,
        "restartPolicy": "no",
        "attach": ["stderr", "stdin", "stdout"],
    }


def test_a_dry_run_prints_the_plan_and_starts_nothing(engine):
    engine.answers["containers.plan"] = STEPS
    for words in (["run", "--dry-run", "x"], ["run", "-it", "--dry-run", "x"], ["create", "--dry-run", "x"]):
        done = engine(*words)
        assert (done.code, done.stdout) == (0, TOLD)
    assert {verb for verb, _ in engine.calls} == {"containers.plan"}


def test_explain(engine):
    engine.answers["containers.explain"] = STEPS
    assert engine("explain", "a").stdout == TOLD
    assert engine("container", "explain", "a", "b").stdout == f"a:\n{TOLD}\nb:\n{TOLD}"


def test_a_detached_exec_prints_nothing(engine):
    engine.answers["containers.exec"] = {"exec_id": "e", "pid": 7}
    done = engine("exec", "-d", "-u", "5", "-w", "/tmp", "-e", "A=b", "--privileged", "web", "sh", "-c", "true")
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    assert engine.calls[0][1] == {
        "container": "web",
        "request": {
            "args": ["sh", "-c", "true"],
            "user": "5",
            "workingDir": "/tmp",
            "env": ["A=b"],
            "privileged": True,
        },
        "attached": False,
        "console_size": None,
    }


# -- lists and descriptions ------------------------------------------------------------------------------------------


def test_ps_passes_the_filters_on(engine):
    engine.answers["containers.list"] = []
    engine("ps", "-a", "-f", "status=exited", "--filter", "label=a=b", "-f", "status=created", "-f", "")
    engine("ps", "-n", "2")
    assert engine.calls == [
        (
            "containers.list",
            {"all": True, "filters": {"status": ["exited", "created"], "label": ["a=b"]}, "size": False},
        ),
        ("containers.list", {"all": True, "filters": {}, "size": False}),
    ]


def test_ps_shows_the_last_ones(engine):
    engine.answers["containers.list"] = [
        {"Id": str(at) * 64, "Created": created} for at, created in enumerate([30, 50, 10, 40])
    ]
    assert engine("ps", "-qn", "3").stdout == f"{'1' * 12}\n{'3' * 12}\n{'0' * 12}\n"
    assert engine("ps", "-ql").stdout == f"{'1' * 12}\n"


IMAGES = [
    {
        "id": "sha256:" + "a" * 64,
        "names": ["host:latest", "port:5000/x/y:1"],
        "created": "2026-01-01T00:00:00Z",
        "size": 7_000_000,
    },
    {"id": "sha256:" + "b" * 64, "names": [], "created": "", "size": None},
    {"id": "sha256:" + "c" * 64, "names": ["z@sha256:" + "d" * 64], "created": "?", "size": 5},
]


def test_images(engine):
    engine.answers["images.list"] = IMAGES
    form = "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}} {{.CreatedAt}}"
    assert engine("images", "--format", form, env={"TZ": "UTC"}).stdout.splitlines() == [
        "host latest aaaaaaaaaaaa 7MB 2026-01-01 00:00:00 +0000 UTC",
        "port:5000/x/y 1 aaaaaaaaaaaa 7MB 2026-01-01 00:00:00 +0000 UTC",
        "<none> <none> bbbbbbbbbbbb N/A N/A",
        "z <none> cccccccccccc 5B N/A",
    ]
    assert engine("image", "ls", "-q", "host").stdout == "aaaaaaaaaaaa\n"
    assert engine("images", "-q", "--no-trunc", "port:5000/x/y:1").stdout == f"sha256:{'a' * 64}\n"
    assert engine("images", "-q", "host:2").stdout == ""
    assert engine("images", "nosuch").stdout == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"


def test_import_passes_the_archive_itself(engine, tmp_path):
    received: list[bytes] = []

    def take(_: dict[str, Any], fds: list[int]) -> object:
        with os.fdopen(fds[0], "rb") as archive:
            received.append(archive.read())
        return {"id": "sha256:abc"}

    engine.answers["images.import"] = take
    (tmp_path / "a.tar").write_bytes(b"from a file")
    done = engine("import", "-c", "CMD x", "-c", "ENV a=b", "-m", "why", str(tmp_path / "a.tar"), "name:1")
    assert (done.code, done.stdout) == (0, "sha256:abc\n")
    assert engine("import", "-", input=b"from the input").stdout == "sha256:abc\n"
    assert received == [b"from a file", b"from the input"]
    assert [args for _, args in engine.calls] == [
        {"name": "name:1", "changes": ["CMD x", "ENV a=b"], "message": "why"},
        {"name": "", "changes": [], "message": ""},
    ]


def test_inspect_looks_among_containers_images_networks_and_volumes(engine):
    engine.answers["containers.inspect"] = lambda args, _: (
        {"Kind": "c"} if args["container"] == "web" else missing({"container": "gone"}, [])
    )
    engine.answers["images.inspect"] = lambda args, _: (
        {"Kind": "i"} if args["image"] == "host" else missing({"image": "gone"}, [])
    )
    for kind in ("networks", "volumes"):
        engine.answers[f"{kind}.inspect"] = lambda args, _: missing({"container": "gone"}, [])
    done = engine("inspect", "web", "nosuch", "host")
    assert done.code == 1
    assert json.loads(done.stdout) == [{"Kind": "c"}, {"Kind": "i"}]
    assert done.stderr.startswith("orlop: No such object: nosuch\nNext: ")
    assert engine("inspect", "-f", "{{.Kind}}", "host", "web").stdout == "i\nc\n"
    assert engine("image", "inspect", "web").code == 1
    assert engine("container", "inspect", "host").code == 1
    assert engine("inspect", "nosuch").stdout == "[]\n"


# -- the engine itself -----------------------------------------------------------------------------------------------


def test_the_engines_state_is_asked_and_never_started(engine, tmp_path):
    engine.answers["engine.ping"] = {"pid": 42, "version": "0.9"}
    assert engine("engine", "status").stdout == "running, pid 42, version 0.9\n"
    engine.answers["engine.version"] = {"Version": "0.9", "ApiVersion": "1.50", "MinAPIVersion": "1.40", "Os": "linux"}
    shown = engine("version").stdout
    assert f" Version:           {__version__}\n" in shown and "API version:      1.50 (minimum version 1.40)" in shown
    assert engine("version", "-f", "{{.Server.Version}} {{.Client.Version}}").stdout == f"0.9 {__version__}\n"
    nowhere = {"ORLOP_RUN": str(tmp_path / "run"), "ORLOP_ROOT": str(tmp_path / "root")}
    assert engine("engine", "status", env=nowhere).code == 1
    assert engine("engine", "stop", env=nowhere).code == 0
    assert "Server: none runs" in engine("version", env=nowhere).stdout
    assert not (tmp_path / "run").exists()


def test_stopping_the_engine_waits_for_its_end(engine):
    engine.answers["engine.ping"] = {"pid": os.getpid(), "version": "0.9"}
    engine.answers["engine.stop"] = {"pid": os.getpid()}
    with engine.popen("engine", "stop") as stop:
        while "engine.stop" not in [verb for verb, _ in engine.calls]:
            assert stop.poll() is None
        assert stop.poll() is None, "the connection is open: the engine still runs"
        stop.kill()


def test_info(engine):
    engine.answers["engine.info"] = {
        "Containers": 3,
        "ContainersRunning": 1,
        "ServerVersion": "0.9",
        "MemTotal": 1 << 30,
        "Swarm": {"LocalNodeState": "inactive"},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Warnings": ["WARNING: No swap limit support"],
    }
    done = engine("info")
    lines = done.stdout.splitlines()
    for line in (" Containers: 3", "  Running: 1", " Total Memory: 1GiB", " Swarm: inactive", "   Profile: builtin"):
        assert line in lines
    assert done.stderr == "WARNING: No swap limit support\n"
    assert engine("system", "info", "-f", "{{.Swarm.LocalNodeState}} {{.Containers}}").stdout == "inactive 3\n"
    assert json.loads(engine("info", "-f", "json").stdout)["ClientInfo"]["Version"] == __version__


# -- help ------------------------------------------------------------------------------------------------------------


def every_command() -> list[list[str]]:
    top = [[word] for word in (*commands.COMMON, *commands.COMMANDS)]
    return top + [[group, word] for group, (_, rows) in commands.GROUPS.items() for word in rows]


def test_every_command_has_help_in_one_layout(engine):
    from orlop.frontends.cli import help

    for words in every_command():
        row = commands.find(words[0] if len(words) == 2 else "", words[-1])
        assert row is not None
        command = commands.load(row)
        name = " ".join(["orlop", *words])
        text = help.of_command(name, command)
        assert text.startswith(f"Usage:  {name}{' ' + command.usage if command.usage else ''}\n\n{command.summary}\n")
        assert max(map(len, text.splitlines()[:1])) <= 100
        letters = [flag.short for flag in command.flags if flag.short]
        names = [flag.name for flag in command.flags]
        assert len(set(letters)) == len(letters) and len(set(names)) == len(names), name
        assert not set(command.refused) & {*letters, *names}, f"{name} refuses a flag that it has"


def test_the_ways_to_help(engine):
    text = engine("run", "--help").stdout
    assert text == engine("help", "run").stdout == engine("run", "--rm", "--help", "x").stdout
    assert "\n  -d, --detach                           Run container in background and\n" in text
    assert engine("help").stdout == engine().stdout == engine("--help").stdout
    assert "\n  builder     Manage builds\n" in engine().stdout
    assert engine("container").stderr == engine("container", "--help").stdout == engine("help", "container").stdout
    assert engine("container", "ls", "--help").stdout.startswith("Usage:  orlop container ls [OPTIONS]\n")
    engine.answers["containers.plan"] = STEPS
    assert engine("run", "--dry-run", "x", "--help").stdout == TOLD, "a flag after the image is the command's"
    assert engine("--version").stdout == engine("-v").stdout == f"Orlop version {__version__}\n"


def test_a_full_disk_is_told(engine):
    engine.answers["containers.list"] = []
    with open("/dev/full", "wb") as full, engine.popen("ps", stdout=full, stderr=-1) as ps:
        _, told = ps.communicate()
    assert ps.returncode == 1
    assert b"cannot write the output: No space left on device" in told


def test_a_closed_pipe_ends_quietly(engine):
    engine.answers["containers.list"] = [{"Id": "f" * 64}] * 50_000
    ours, theirs = socket.socketpair()
    with theirs, engine.popen("ps", "-q", stdout=theirs, stderr=-1) as ps:
        ours.close()
        _, told = ps.communicate()
    assert (ps.returncode, told) == (141, b"")
