"""The starter's machine code against the assembler, and what it does at a gate: it opens it, or leaves it whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orlop.runtime import channel, starter
from support import assembled
from support.engine import CHECKOUT, COMMAND

SOURCES = Path(starter.__file__).parent
READER = """
import socket, sys
number = next(word for word in sys.argv if word.startswith("-Xgate="))[7:]
print(number.isdigit() and socket.socket(fileno=int(number)).recv(99), sys.argv[2:])
"""
ENDS = {
    "executed": [channel.ENTERED],
    "failed": [channel.ENTERED, channel.FAILED + b"{}"],
    "another was faster": [],
    "no gate of ours": [b"X"],
}


@pytest.mark.parametrize("machine", starter.PROGRAM.machines())
def test_the_code_is_what_the_assembler_makes_of_the_source(
    machine: str, peer: Callable[[str], Path], tmp_path: Path
) -> None:
    code = assembled.text(SOURCES / f"{machine}.S", peer, tmp_path)
    assert starter.PROGRAM.image(machine).endswith(code)


@pytest.fixture(params=starter.PROGRAM.machines())
def program(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The words that execute the program: by itself, or that of another machine in an emulator."""
    return assembled.words(starter.PROGRAM, request.param, request.getfixturevalue("peer"), tmp_path / "starter")


@pytest.fixture
def interpreter(tmp_path: Path) -> list[str]:
    return [assembled.interpreter(READER, tmp_path), "-Xgate=---", "start", "web"]


@contextmanager
def gate(path: str, messages: list[bytes]) -> Iterator[None]:
    """What a created container's init has: it says these messages to the first who comes, and is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as caller:
                for message in messages:
                    caller.send(message)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.fixture
def place(tmp_path: Path) -> str:
    return os.path.relpath(tmp_path / "plain.sock")  # a socket's name is short, a test's directory may not be


def run(argv: list[str], pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, pass_fds=pass_fds)


@pytest.mark.parametrize("end", ENDS)
def test_only_a_success_is_its_own(program: list[str], interpreter: list[str], place: str, end: str) -> None:
    with gate(place, ENDS[end]):
        told = run([*program, place, *interpreter])
    assert told.returncode == 0, told
    if end == "executed":
        assert told.stdout == "" and not os.path.exists(place)
        return
    rest = repr(channel.FAILED + b"{}") if end == "failed" else "False"
    assert told.stdout.startswith(f"{rest} ["), told
    assert told.stdout.endswith("'start', 'web']\n"), "the call is given on as it was"
    assert os.path.exists(place), "the interpreter removes it when it has looked"


@pytest.mark.parametrize("name", ["nothing", "file", "x" * 108], ids=("nothing", "a file", "a long name"))
def test_without_a_gate_the_interpreter_looks(
    program: list[str], interpreter: list[str], place: str, name: str
) -> None:
    path = os.path.join(os.path.dirname(place), name)
    if name == "file":
        Path(path).touch()
    told = run([*program, path, *interpreter])
    assert told.stdout.startswith("False ["), told


def test_too_few_words_are_an_error(program: list[str]) -> None:
    assert run([*program, "a", "b"]).returncode == 127


def test_the_number_of_the_connection_has_three_digits(program: list[str], interpreter: list[str], place: str) -> None:
    with ExitStack() as stack, gate(place, ENDS["failed"]):
        many = [stack.enter_context(open(os.devnull)).fileno() for _ in range(120)]
        told = run([*program, place, *interpreter], pass_fds=many)
    assert told.stdout.startswith(repr(channel.FAILED + b"{}")), told


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return assembled.clone(tmp_path)


LINES = {
    "as podman calls": (["--root", "STATE", "start", "web"], True),
    "as containerd calls": (["--root", "STATE", "--log", "l", "--log-format", "json", "start", "web"], True),
    "with equals": (["--root=STATE", "--log=l", "--log-format=json", "--systemd-cgroup", "start", "web"], True),
    "a wrong format": (["--root", "STATE", "--log-format", "x", "start", "web"], False),
    "a flag of its own": (["--root", "STATE", "start", "--help", "web"], False),
    "unusual": (["--debug", "--root", "STATE", "start", "web"], False),
    "no flag": (["-root", "STATE", "start", "web"], False),
    "a path": (["--root", "STATE", "start", "../state/web"], False),
    "two": (["--root", "STATE", "start", "web", "web"], False),
    "none": (["--root", "STATE", "start"], False),
    "no such": (["--root", "STATE", "start", "other"], False),
    "another verb": (["--root", "STATE", "delete", "start"], False),
}


@pytest.mark.parametrize("line", LINES)
def test_the_script_leaves_to_it_what_it_knows(clone: Path, tmp_path: Path, line: str) -> None:
    words, known = LINES[line]
    state = tmp_path / "state"
    (state / "web").mkdir(parents=True)
    (clone / ".cache").mkdir()
    told = clone / ".cache" / starter.PROGRAM.file
    told.write_text("#!/bin/sh\nexec printf '%s\\n' \"$@\"\n")
    told.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        listener.bind(os.path.relpath(state / "web/plain.sock"))
    argv = [str(clone / "orlop-runtime"), *(word.replace("STATE", str(state)) for word in words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    found = done.stdout.splitlines()
    assert (found[:1] == [str(state / "web/plain.sock")]) == known, done
    if known:
        assert found[2] == "-Xgate=---" and found[-len(words) :] == argv[1:], "the interpreter gets the call as it was"


def test_the_first_start_without_it_leaves_it(clone: Path, tmp_path: Path) -> None:
    place = clone / ".cache" / starter.PROGRAM.file
    assert starter.PROGRAM.file in COMMAND.read_text()
    path = str(CHECKOUT / "src")
    code = f"import sys; sys.path.append({path!r}); from orlop.runtime import starter; starter.PROGRAM.keep()"
    for _ in range(2):
        run([sys.executable, "-I", "-S", "-X", f"pycache_prefix={clone}/.cache/pycache", "-c", code])
        assert place.read_bytes() == starter.PROGRAM.image() and place.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(starter.PROGRAM.file)] == [
        starter.PROGRAM.file
    ]
