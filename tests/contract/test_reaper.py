"""The reaper's machine code against the assembler, and the reaper itself, also as another machine's program."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from orlop.linux import executable
from orlop.runtime import reaper
from orlop.runtime.reaper.program import PROGRAM
from support import assembled

SOURCES = Path(reaper.__file__).parent


@pytest.mark.parametrize("machine", PROGRAM.machines())
def test_the_code_is_what_the_assembler_makes_of_the_source(machine, peer, tmp_path):
    code = assembled.text(SOURCES / f"{machine}.S", peer, tmp_path)
    assert PROGRAM.image(machine).endswith(code)
    assert len(PROGRAM.image(machine)) < 1024


@pytest.fixture(params=PROGRAM.machines())
def run(request, peer, tmp_path):
    """Run the reaper with arguments; as another machine's program it runs in an emulator."""
    program = assembled.words(PROGRAM, request.param, peer, tmp_path / "reaper")

    def start(*args, **options):
        return subprocess.Popen([*program, *args], stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)

    return start


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_it_ends_as_its_program_does(run):
    assert ended(run("/bin/sh", "sh", "-c", "echo $0 $1; exit 7", "name", "word")) == (7, b"name word\n", b"")
    assert ended(run("/bin/sh", "sh", "-c", "kill -9 $$")) == (137, b"", b"")
    assert ended(run("/bin/true", "true"))[0] == 0


def test_the_environment_passes(run):
    _, out, _ = ended(run("/usr/bin/env", "env", env={"A": "b", "LC_ALL": "C"}))
    assert sorted(out.splitlines()) == [b"A=b", b"LC_ALL=C"]  # the emulator has an order of its own


def test_what_can_not_be_executed_is_told(run, tmp_path):
    assert ended(run("/no/such", "such")) == (127, b"", b"orlop-init: the program can't be executed\n")
    assert ended(run("/etc/passwd", "passwd"))[0] == 126
    assert ended(run("/bin/true"))[0] == 125
    assert ended(run())[0] == 125


def test_signals_are_forwarded(run):
    waiting = run("/bin/sh", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert waiting.stdout.readline() == b"ready\n"
    waiting.send_signal(signal.SIGTERM)
    assert ended(waiting)[0] == 5
    waiting = run("/bin/sh", "sh", "-c", "echo ready; exec sleep 1000")
    assert waiting.stdout.readline() == b"ready\n"
    waiting.send_signal(signal.SIGTERM)
    assert ended(waiting)[0] == 143


def test_its_name_tells_who_sent_the_last_signal(run):
    waiting = run("/bin/sh", "sh", "-c", "trap : HUP; trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert waiting.stdout.readline() == b"ready\n"
    comm = Path(f"/proc/{waiting.pid}/comm")
    assert reaper.sender(comm.read_text().rstrip("\n")) is None
    # si_uid is the real one.
    code = "import os, sys; os.setresuid(54321, 0, 0); print(os.getpid()); os.kill(int(sys.argv[1]), int(sys.argv[2]))"
    for number in (signal.SIGHUP, signal.SIGTERM):
        told = subprocess.run(
            ["python3", "-c", code, str(waiting.pid), str(int(number))], capture_output=True, check=True
        )
        if number == signal.SIGTERM:  # of one that has ended and nobody has waited for, it can still be read
            os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
        deadline = time.monotonic() + 60
        wanted = (number, 54321, int(told.stdout))
        while (found := reaper.sender(comm.read_text().rstrip("\n"))) != wanted:
            assert time.monotonic() < deadline, (found, wanted)
            time.sleep(0.01)
    assert ended(waiting)[0] == 5


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("?000003e800002a", (15, 1000, 42)),
        ("?000003e8000002a", None),
        ("?ffffffff3fffff", (15, 0xFFFFFFFF, 0x3FFFFF)),
        ("p00000000000000", (64, 0, 0)),
        ("000000000000000", None),
        ("q00000000000000", None),
        ("?0000000000000g", None),
        ("?00000000-00001", None),
        ("orlop-init", None),
        ("", None),
    ],
)
def test_only_a_name_of_that_form_tells_a_sender(name, found):
    assert reaper.sender(name) == found


def test_a_sealed_program_can_not_be_changed():
    fd = executable.sealed(PROGRAM.image(), reaper.NAME)
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
    finally:
        os.close(fd)
