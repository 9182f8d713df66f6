"""The watch over the host sees each kind of leftover, and only ours."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import host, netns, processes


@pytest.fixture
def left_by(monkeypatch: pytest.MonkeyPatch) -> Iterator["Left"]:
    # A second watch inside a watched run: what it is shown is undone before the outer one looks.
    with ExitStack() as undo:
        yield Left(monkeypatch, undo)


class Left:
    """`left(make)` returns what a watch of its own session says after make() ran; undo holds what takes it back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, undo: ExitStack) -> None:
        monkeypatch.setattr(host, "SETTLE_S_MAX", 0.5)
        monkeypatch.setattr(host.Watch, "_is_alone", lambda self: True)
        self.undo = undo
        self.session = secrets.token_hex(8)
        self.watch = host.Watch(self.session)

    def __call__(self, name: str) -> list[str]:
        """Return the findings that hold the name: other tests run at the same time and make things of their own."""
        return [line for line in self.watch.finish() if name in line]

    def start(self, argv: list[str], **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, env={"PATH": os.defpath, **environment}, start_new_session=True)
        self.undo.callback(process.wait)
        self.undo.callback(process.send_signal, signal.SIGKILL)
        # execve closes what tells us of its success before the kernel shows the new environment.
        while not processes.environment(process.pid):
            assert process.poll() is None
        return process


@pytest.fixture
def name() -> str:
    return f"orlop-leak-{secrets.token_hex(4)}"


def test_a_mount_is_found(left_by: Left, name: str, tmp_path: Path) -> None:
    point = tmp_path / name
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    left_by.undo.callback(subprocess.run, ["umount", point], check=True)
    assert left_by(name) == [f"mount {point} (tmpfs none)"]


def test_a_cgroup_is_found_in_any_hierarchy(left_by: Left, name: str) -> None:
    hierarchies = [path for path in Path("/sys/fs/cgroup").iterdir() if (path / "cgroup.procs").exists()]
    place = (hierarchies[0] if hierarchies else Path("/sys/fs/cgroup")) / name
    place.mkdir()
    left_by.undo.callback(place.rmdir)
    assert left_by(name) == [f"cgroup {place}"]


def test_a_network_device_and_a_namespace_are_found(left_by: Left, name: str) -> None:
    device = f"orlop{secrets.token_hex(3)}"

    def link(*words: str, check: bool = True) -> int:
        # The tests have a network of their own; sysfs shows the machine's.
        argv = ["ip", "link", *words]
        return netns.on_the_machine(lambda: subprocess.run(argv, capture_output=True, check=check).returncode)

    if link("add", device, "type", "dummy", check=False):
        link("add", device, "type", "bridge")
    left_by.undo.callback(link, "del", device)
    subprocess.run(["ip", "netns", "add", name], check=True)
    left_by.undo.callback(shutil.rmtree, "/run/netns", ignore_errors=True)
    left_by.undo.callback(subprocess.run, ["umount", "/run/netns"], check=False, capture_output=True)
    left_by.undo.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
    found = left_by("")
    assert f"network device /sys/class/net/{device}" in found
    assert f"network namespace /run/netns/{name}" in found


def test_shared_memory_and_a_socket_are_found(left_by: Left, name: str, tmp_path: Path) -> None:
    memory = Path("/dev/shm", name)
    memory.touch()
    left_by.undo.callback(memory.unlink)
    bound = left_by.undo.enter_context(socket.socket(socket.AF_UNIX))
    bound.bind(f"\0{name}")
    assert left_by(name) == [f"shared memory /dev/shm/{name}", f"socket @{name}"]


def test_a_process_of_this_session_is_found(left_by: Left) -> None:
    process = left_by.start(["sleep", "1000"], **{host.SESSION: left_by.session})
    # It is our child here, which a watch does not count; an orphan's line of ancestors would not hold us.
    assert left_by.watch.session == left_by.session
    assert host._owner(process.pid) == left_by.session


def test_an_orphan_of_this_session_is_named(left_by: Left) -> None:
    shell = subprocess.run(
        ["setsid", "-f", "sh", "-c", "sleep 1000 >/dev/null & echo $!"],
        env={"PATH": os.defpath, host.SESSION: left_by.session}, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    pid = int(shell.stdout)
    left_by.undo.callback(processes.kill, pid, processes.start_time(pid))
    assert left_by(str(pid)) == [f"process {pid}: sleep 1000"]


def test_a_stranger_is_not_ours(left_by: Left) -> None:
    process = left_by.start(["sleep", "1000"])
    assert host._owner(process.pid) not in ("", left_by.session)
    assert left_by(str(process.pid)) == []


def test_a_temporary_file_and_a_directory_of_sockets_are_found(
    left_by: Left, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    scratch = host.Scratch()
    file = Path(subprocess.run(["mktemp"], capture_output=True, check=True, text=True).stdout.strip())
    assert scratch.finish() == [f"temporary file {file}"]
    file.unlink()
    assert scratch.finish() == [] and os.listdir(tmp_path) == []
    place = Path("/tmp", name)
    place.mkdir()
    left_by.undo.callback(place.rmdir)
    assert left_by(name) == [f"state {place}"]
