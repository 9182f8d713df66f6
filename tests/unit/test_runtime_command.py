"""The command: found as a shell finds it; told in docker's words when it is not, with the cause when it can't run."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from pathlib import Path

import pytest

from orlop.linux import abi
from orlop.runtime import command
from orlop.spec import catalog
from orlop.spec.errors import CommandFailed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path


def script(path: Path, text: str | bytes = "#!/bin/sh\n", mode: int = 0o755) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def failure(name: str, search_path: str = "") -> tuple[int, str]:
    with pytest.raises(CommandFailed) as caught:
        command.lookup(name, search_path)
    return caught.value.exit_code, caught.value.cause


def test_the_first_directory_that_has_it_wins(place: Path) -> None:
    search = f"{place}/missing:{place}/one:{place}/two"
    second = script(place / "two/tool")
    assert command.lookup("tool", search) == second
    (place / "one/tool").mkdir()
    assert command.lookup("tool", search) == second
    (place / "one/tool").rmdir()
    script(place / "one/tool", mode=0o644)
    assert command.lookup("tool", search) == second
    first = script(place / "one/tool")
    assert command.lookup("tool", search) == first


def test_a_path_is_not_looked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = script(place / "one/tool")
    assert command.lookup(tool, "") == tool
    monkeypatch.chdir(place)
    assert command.lookup("one/tool", "") == "one/tool"
    assert command.lookup("./one/../one/tool", "/bin") == "./one/../one/tool"


def test_dockers_words(place: Path) -> None:
    plain = script(place / "plain", mode=0o644)
    assert failure("nosuch", "/bin") == (127, 'exec: "nosuch": executable file not found in $PATH')
    assert failure("sh", "") == (127, 'exec: "sh": executable file not found in $PATH')
    assert failure("", "/bin") == (127, 'exec: "": executable file not found in $PATH')
    assert failure("/nosuch") == (127, 'exec: "/nosuch": stat /nosuch: no such file or directory')
    assert failure(f"{plain}/x") == (127, f'exec: "{plain}/x": stat {plain}/x: not a directory')
    assert failure(str(place)) == (126, f'exec: "{place}": is a directory')
    assert failure(plain) == (126, f'exec: "{plain}": permission denied')
    assert failure("/" + "x" * 300)[0] == 126


def refused(path: str, number: int) -> str:
    """Return the cause of an execve that the kernel would refuse so."""
    error = command.refused(path, (os.fsencode(path),), number)
    assert error.exit_code == (127 if number == errno.ENOENT else 126)
    return error.cause


def real(path: str) -> int:
    """Return the errno of a true execve, made in a child."""
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(path, [path], {})
        except OSError as failure:
            os._exit(failure.errno or 0)
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"#!/bin/sh\r\necho hi\r\n", 'its "#!" line ends with CR LF'),
        (b"#!/nosuch/bash -e\n", "its interpreter /nosuch/bash does not exist in the container"),
        (b"#!\n", 'its "#!" line names no interpreter'),
        (b"", "the file is empty"),
        (b"echo hi\n", 'neither a program for this machine nor a script with a "#!" line'),
        (b"\x7fELF", ""),
        (b"\x7fELF\x02\x01\x01" + bytes(57), "it is a program for machine 0"),
    ],
)
def test_scripts_and_other_files(place: Path, content: bytes, cause: str) -> None:
    path = script(place / "tool", content)
    number = real(path)
    assert number in (errno.ENOENT, errno.ENOEXEC)
    text = refused(path, number)
    assert text.startswith(f'exec: "{path}": ') and cause in text


def test_a_program_for_another_machine(place: Path) -> None:
    other, name = (183, "aarch64") if abi.MACHINE == "x86_64" else (62, "x86_64")
    head = bytearray(Path("/bin/true").resolve().read_bytes())
    head[18:20] = struct.pack("<H", other)
    path = script(place / "tool", bytes(head))
    text = refused(path, real(path))
    assert f"it is a program for {name}, this machine is {abi.MACHINE}" in text


def test_a_program_whose_loader_is_missing(place: Path) -> None:
    data = Path("/bin/true").resolve().read_bytes()
    at = data.index(b"/ld-linux")
    path = script(place / "tool", data[: at + 1] + b"XX" + data[at + 3 :])
    text = refused(path, real(path))
    assert "its loader " in text and "does not exist in the container" in text


@pytest.mark.parametrize("size", [5, 40, 64, 100, 200])
def test_broken_program_headers_are_survived(place: Path, size: int) -> None:
    data = Path("/bin/true").resolve().read_bytes()
    path = script(place / "tool", data[:size])
    refused(path, errno.ENOENT)
    script(place / "tool", data[:32] + b"\xff" * 64 + data[96:])
    refused(path, errno.ENOENT)


def test_too_many_arguments_and_unknown_causes(place: Path) -> None:
    error = command.refused("/bin/true", (b"x" * 10,), errno.E2BIG)
    assert "argument list too long" in error.cause and error.exit_code == 126
    assert command.refused("/bin/true", (), errno.EIO).cause == 'exec: "/bin/true": input/output error'
    assert "ETXTBSY" not in command.refused("/nosuch", (), errno.ENOENT).cause


def test_a_fifo_in_its_place_does_not_hang(place: Path) -> None:
    os.mkfifo(place / "tool")
    assert command.refused(str(place / "tool"), (), errno.ENOEXEC).exit_code == 126


def test_an_interpreter_that_can_not_be_executed(place: Path) -> None:
    interpreter = script(place / "interpreter", mode=0o644)
    path = script(place / "tool", f"#!{interpreter}\n")
    if shutil.which("sh"):
        assert f"its interpreter {interpreter} is not executable" in refused(path, errno.EACCES)


@pytest.mark.parametrize(
    ("content", "number", "code"),
    [
        (b"", errno.ENOEXEC, "E0310"),
        (b"text\n", errno.ENOEXEC, "E0310"),
        (b"#!/bin/sh\r\n", errno.ENOENT, "E0305"),
        (b"#!\n", errno.ENOEXEC, "E0310"),
        (b"#!/no/such\n", errno.ENOENT, "E0306"),
        (b"#!/etc\n", errno.ENOEXEC, "E0307"),
        (b"#!/etc/passwd\n", errno.EACCES, "E0307"),
        (b"plain", errno.EACCES, "E0303"),
        (b"plain", errno.E2BIG, "E0311"),
    ],
)
def test_who_computes_the_cause_gives_its_code(place: Path, content: bytes, number: int, code: str) -> None:
    found = command.refused(script(place / "x", content), (b"x",), number)
    assert found.code == code == catalog.code_of(CommandFailed("start", "x", found.cause))
    assert catalog.find(found.code)


def test_a_search_gives_codes_too(place: Path) -> None:
    plain = script(place / "plain", mode=0o644)
    for name, code in (("nosuch", "E0301"), (f"{place}/nosuch", "E0301"), (str(place), "E0302"), (plain, "E0303")):
        with pytest.raises(CommandFailed) as caught:
            command.lookup(name, "/bin")
        assert caught.value.code == code
