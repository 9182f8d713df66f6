"""`rootfs from-binaries`: what is copied, and what is said when it can't be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.image.closure import Closure, find_program, from_binaries
from orlop.spec.errors import Conflict, Denied, Invalid, NotFound, OrlopError
from support import elves


def make(path: Path, data: bytes | str, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    return str(path)


def test_the_exercise_of_bash_and_ls(tmp_path: Path) -> None:
    copied = from_binaries(["/bin/bash", "/bin/ls"], str(tmp_path / "new/root"))
    assert {"/bin/bash", "/bin/ls"} <= set(copied)
    assert copied == sorted(copied)
    for name in copied:
        assert os.path.lexists(f"{tmp_path}/new/root{name}")
    assert {path.name for path in (tmp_path / "new/root").iterdir()} <= {"bin", "lib", "lib64", "etc"}
    for directory, names, files in os.walk(tmp_path / "new/root"):
        for name in [*names, *files]:
            path = Path(directory, name)
            if path.is_symlink():  # every link leads to something that was copied
                target = os.path.normpath(
                    os.path.join(f"/{path.parent.relative_to(tmp_path / 'new/root')}", path.readlink())
                )
                assert os.path.lexists(f"{tmp_path}/new/root{target}")


def test_modes_are_kept_and_a_second_run_replaces(tmp_path: Path) -> None:
    program = make(tmp_path / "static", elves.elf(), 0o4751)
    for _ in range(2):
        assert from_binaries([program], str(tmp_path / "root")) == [program]
    assert stat.S_IMODE(os.stat(f"{tmp_path}/root{program}").st_mode) == 0o4751


def test_links_in_the_directory_never_lead_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("outside", "root"):
        (tmp_path / name).mkdir()
    for name in ("bin", "lib", "lib64", "usr"):
        (tmp_path / "root" / name).symlink_to(outside)
    from_binaries(["/bin/ls"], str(tmp_path / "root"))
    assert list(outside.iterdir()) == []
    assert Path(f"{tmp_path}/root{outside}/ls").is_file()


def test_a_chain_of_links_is_kept(tmp_path: Path) -> None:
    real = make(tmp_path / "real/tool-1.0", elves.elf())
    (tmp_path / "bin").mkdir()
    (tmp_path / "alternatives").symlink_to("real/tool-1.0")
    (tmp_path / "bin/tool").symlink_to("../alternatives")
    copied = from_binaries([f"{tmp_path}/bin/tool"], str(tmp_path / "root"))
    assert copied == sorted([f"{tmp_path}/alternatives", f"{tmp_path}/bin/tool", real])
    assert os.readlink(f"{tmp_path}/root{tmp_path}/bin/tool") == "../alternatives"


def test_a_directory_link_becomes_a_directory_or_stays(tmp_path: Path) -> None:
    make(tmp_path / "usr/bin/tool", elves.elf())
    (tmp_path / "bin").symlink_to("usr/bin")
    flat, faithful = Closure(faithful=False), Closure(faithful=True)
    for closure in (flat, faithful):
        closure.add_program(f"{tmp_path}/bin/tool")
    assert (flat.links, list(flat.files)) == ({}, [f"{tmp_path}/bin/tool"])
    assert (faithful.links, list(faithful.files)) == ({f"{tmp_path}/bin": "usr/bin"}, [f"{tmp_path}/usr/bin/tool"])


def test_scripts_bring_their_interpreter(tmp_path: Path) -> None:
    interpreter = make(tmp_path / "interpreter", elves.elf())
    inner = make(tmp_path / "inner", f"#!{interpreter} -x\n")
    outer = make(tmp_path / "outer", f"#! {inner}\necho\n")
    assert from_binaries([outer], str(tmp_path / "root")) == sorted([inner, interpreter, outer])


def test_env_brings_its_program(tmp_path: Path) -> None:
    script = make(tmp_path / "script", "#!/usr/bin/env -S sh\n")
    copied = from_binaries([script], str(tmp_path / "root"))
    assert {os.path.basename(name) for name in copied} >= {"env", "sh", "script"}


def test_programs_are_found_as_a_shell_finds_them(tmp_path: Path) -> None:
    make(tmp_path / "first/tool", elves.elf(), 0o644)
    (tmp_path / "second/tool").mkdir(parents=True)
    third = make(tmp_path / "third/tool", elves.elf())
    directories = [f"{tmp_path}/{name}" for name in ("missing", "first", "second", "third")]
    assert find_program("tool", directories) == third


def script_of_itself(directory: Path) -> str:
    return make(directory / "itself", f"#!{directory}/itself\n")


def link_to_itself(directory: Path) -> str:
    (directory / "loop").symlink_to("loop")
    return f"{directory}/loop"


def with_a_broken_library(directory: Path) -> str:
    make(directory / "lib/libneeds.so", elves.elf(needed=("libgone.so.9",)))
    return make(directory / "program", elves.elf(needed=("libneeds.so",), runpath=f"{directory}/lib"))


Mistake = tuple[Callable[[Path], str], type[OrlopError], str]
NEITHER = "it is neither an ELF program nor a script that names its interpreter"
MISTAKES: dict[str, Mistake] = {
    "unknown name": (lambda _: "no-such-program", NotFound, "program no-such-program is in none of /usr/local/sbin"),
    "missing path": (lambda directory: f"{directory}/none", NotFound, "does not exist"),
    "loop": (link_to_itself, NotFound, "does not exist"),
    "directory": (lambda directory: f"{directory}/", Invalid, "it is a directory"),
    "not executable": (lambda at: make(at / "plain", "#!/bin/sh\n", 0o644), Denied, "it is not executable"),
    "empty": (lambda at: make(at / "empty", ""), Invalid, NEITHER),
    "text": (lambda at: make(at / "text", "echo hi\n"), Invalid, NEITHER),
    "empty #!": (lambda at: make(at / "bang", "#!\n"), Invalid, NEITHER),
    "CRLF": (lambda at: make(at / "x", "#!/bin/sh\r\n"), Invalid, "its first line ends with a carriage return"),
    "no interpreter": (lambda at: make(at / "x", "#!/no/such\n"), NotFound, "needs the interpreter '/no/such'"),
    "script of itself": (script_of_itself, Invalid, "whose interpreter is a script, and so on"),
    "cut": (lambda at: make(at / "cut", elves.elf()[:100]), Invalid, "it is not a proper ELF file: it is cut off"),
    "another machine": (
        lambda at: make(at / "s390", elves.elf(machine=elves.EM_S390, order=">")),
        Invalid,
        "it is a program for s390, this machine is",
    ),
    "no loader": (
        lambda at: make(at / "a", elves.elf(interpreter="/lib/ld-missing.so.1")),
        NotFound,
        "its interpreter /lib/ld-missing.so.1 is not there",
    ),
    "no library": (
        lambda at: make(at / "b", elves.elf(needed=("libgone.so.9",))),
        NotFound,
        "needs libgone.so.9, which none of the loader's directories has",
    ),
    "no library of a library": (with_a_broken_library, NotFound, "libneeds.so needs libgone.so.9"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_the_object_and_the_cause(tmp_path: Path, name: str) -> None:
    program, kind, cause = MISTAKES[name]
    with pytest.raises(kind) as wrong:
        from_binaries([program(tmp_path)], str(tmp_path / "root"))
    assert cause in str(wrong.value)
    assert wrong.value.hint
    assert not (tmp_path / "root").exists()


def test_no_program_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="none is named"):
        from_binaries([], str(tmp_path / "root"))


def test_directories_that_can_not_be_used(tmp_path: Path) -> None:
    program = make(tmp_path / "static", elves.elf())
    file = make(tmp_path / "file", "")
    with pytest.raises(Conflict, match="it is a file") as taken:
        from_binaries([program], file)
    assert "name a directory" in taken.value.hint
    with pytest.raises(OrlopError, match="Not a directory"):
        from_binaries([program], file + "/below")
    with pytest.raises(Denied, match="cannot copy into directory /sys/kernel/orlop"):
        from_binaries([program], "/sys/kernel/orlop")
