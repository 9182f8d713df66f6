"""`orlop machine`: docker's client speaks to a virtual machine's engine, whose end, kind or not, leaves nothing half.

One boot serves what looks only; it is then killed, and started again from its disk.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools import peers
from support import processes
from support.engine import Environment
from vm import kernel


class Box:
    """A machine called `box` of an engine's directories, and docker's client with a context for it."""

    def __init__(self, root: Path, emulator: Path, docker: Path) -> None:
        self.orlop = Environment(root / "data")
        self.sockets = self.orlop.socket.parent / "machines/box"
        self._docker = docker
        programs = root / "bin"
        programs.mkdir()
        wrapper = programs / "qemu-system-x86_64"
        places = (peers.DIRECTORY / "usr/share" / part for part in ("qemu", "seabios"))
        firmware = [f"-L {place}" for place in places if place.is_dir()]
        wrapper.write_text(f'#!/bin/sh\nexec {emulator} {" ".join(firmware)} "$@"\n')
        wrapper.chmod(0o755)
        self.variables = self.orlop.variables | {"DOCKER_CONFIG": str(root / "docker"), "DOCKER_CONTEXT": ""}
        self.variables["PATH"] = f"{programs}:{os.environ['PATH']}"

    def __call__(self, *words: str, data: bytes = b"", code: int = 0) -> str:
        done = self.run(*words, data=data)
        assert done.returncode == code, done
        return done.stdout.decode()

    def run(self, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [str(Path("orlop").absolute()), "machine", *words]
        return subprocess.run(argv, env=self.variables, input=data, capture_output=True, timeout=400)

    def docker(self, *words: str, data: bytes = b"") -> str:
        argv = [str(self._docker), *words]
        done = subprocess.run(argv, env=self.variables, input=data, capture_output=True, timeout=200)
        assert done.returncode == 0, done
        return done.stdout.decode()

    def owner(self) -> int:
        return int((self.sockets / "lock").read_text().split()[0])

    def state(self) -> str:
        state: str = json.loads(self("inspect", "box"))["state"]
        return state


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, machine: Path) -> Iterator[Box]:
    docker = peers.find("docker")
    if docker is None:
        pytest.skip("needs: docker")
    made = Box(tmp_path_factory.mktemp("m"), machine, docker)
    linux = kernel.prepare()
    assert made("init", "--accel", "tcg", "--kernel", str(linux.image), "--disk-size", "1g", "box") == "box\n"
    try:
        assert made("start", "box") == f"unix://{made.sockets}/docker.sock\n"
        made.docker("context", "create", "orlop-box", "--docker", f"host=unix://{made.sockets}/docker.sock")
        yield made
    finally:
        made.run("rm", "-f", "box")
        assert made.orlop.close() == []


def test_dockers_client_runs_containers_in_it(box: Box) -> None:
    info = json.loads(box.docker("--context", "orlop-box", "info", "--format", "{{json .}}"))
    assert (info["Name"], info["NCPU"], info.get("ServerErrors")) == ("box", 2, None)
    assert info["KernelVersion"] == kernel.prepare().version != os.uname().release
    words = ("run", "--rm", "-i", "host", "sh", "-c", "cat; uname -r")
    told = box.docker("--context", "orlop-box", *words, data=b"typed\n")
    assert told.split() == ["typed", info["KernelVersion"]]


def test_a_container_may_be_let_into_the_machine_and_knows_its_name(box: Box) -> None:
    words = ("run", "--rm", "--privileged", "--pid=host", "--add-host", "host.docker.internal:host-gateway", "host")
    inside = "nsenter -t 1 -a ps -e -o args; getent hosts host.docker.internal"
    told = box.docker("--context", "orlop-box", *words, "sh", "-c", inside)
    assert "-IS /init" in told and "host.docker.internal" in told.splitlines()[-1]


def test_nobody_else_reaches_it(box: Box) -> None:
    for place in (box.sockets, box.sockets.parent, Path(json.loads(box("inspect", "box"))["data"])):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    # Wherever the modes come to be others, who asks is looked at.
    opened = {box.sockets / "docker.sock": 0o600, **dict.fromkeys((box.sockets, *box.sockets.parents[:2]), 0o700)}
    try:
        for place in opened:
            place.chmod(0o777)
        said = [_asked_as(uid, box.sockets / "docker.sock") for uid in (12345, 0)]
    finally:
        for place, mode in opened.items():
            place.chmod(mode)
    assert [b"200 OK" in one for one in said] == [False, True], said


_ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"GET /_ping HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
sys.stdout.buffer.write(s.recv(100))
"""


def _asked_as(uid: int, place: Path) -> bytes:
    argv = ["setpriv", f"--reuid={uid}", "python3", "-c", _ASK, str(place)]
    return subprocess.run(argv, capture_output=True, check=False).stdout


def test_a_command_in_it_has_its_streams_and_its_status(box: Box) -> None:
    done = box.run("ssh", "box", "sh", "-c", "cat; echo wrong >&2; exit 7", data=b"typed\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"typed\n", b"wrong\n")
    content = os.urandom(3_000_000)
    assert box.run("ssh", "box", "cat", data=content).stdout == content
    assert box("ssh", "box", "sh", "-c", "kill -TERM $$", code=143) == ""
    assert "no-such-thing" in box.run("ssh", "box", "no-such-thing").stderr.decode()


def test_who_does_not_read_holds_up_nobody(box: Box) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(box.sockets / "shell.sock"))
        deaf.sendall(b'{"command": ["cat", "/dev/zero"], "terminal": false}\n')
        deaf.recv(1)
        assert box("ssh", "box", "echo", "there") == "there\n"
    while box("ssh", "box", "sh", "-c", "pgrep -x cat >/dev/null && echo on || echo off") == "on\n":
        time.sleep(0.1)


def test_what_is_on_stays_and_is_said(box: Box) -> None:
    again, removed, twice = box.run("start", "box"), box.run("rm", "box"), box.run("init", "box")
    assert [b"it is on" in done.stderr for done in (again, removed)] == [True, True]
    assert b"there is one already" in twice.stderr
    assert box("ls", "-q") == "box\n"


def test_a_killed_owner_leaves_a_whole_machine(box: Box) -> None:
    docker = ("--context", "orlop-box")
    box.docker(*docker, "run", "-d", "--restart", "always", "--name", "kept", "host", "sleep", "100000")
    box("ssh", "box", "sync")
    owner = box.owner()
    emulators = [pid for pid in processes.pids() if processes.parent(pid) == owner]
    assert emulators
    os.kill(owner, signal.SIGKILL)
    while box.state() != "off":
        time.sleep(0.05)
    assert not [pid for pid in emulators if processes.is_alive(pid)]
    refused = box.run("ssh", "box", "true")
    assert b"it is off" in refused.stderr
    box("start", "box")
    names = "{{.Names}} {{.State}}"
    while box.docker(*docker, "ps", "-a", "--format", names) != "kept running\n":
        time.sleep(0.1)
    assert box("stop", "box") == "box\n"
    assert (box.state(), sorted(os.listdir(box.sockets))) == ("off", ["lock"])
    assert box("rm", "box") == "box\n"
    assert box("ls", "-q") == "" and not box.sockets.exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    orlop = Environment(tmp_path / "data")
    bare = orlop.variables | {"PATH": "/nonexistent"}
    done = subprocess.run(["./orlop", "machine", "init", "box"], env=bare, capture_output=True, text=True)
    assert done.returncode == 1 and "QEMU, which is not installed" in done.stderr
    assert "there is no machine box" in orlop("machine", "start", "box", check=False).stderr
    orlop("ps")
    (orlop.root / "machines").mkdir(mode=0o700)
    assert "none of Orlop's files" not in orlop("system", "fsck").stdout
    assert "choose another name" in orlop("machine", "rm", "../box", check=False).stderr
    assert orlop.close() == []
