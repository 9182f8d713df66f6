"""The sealer's machine code against the assembler, and what it does: an interpreter nobody can write, started once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orlop.linux import abi, executable, mount
from orlop.runtime import sealer
from support import assembled
from support.engine import CHECKOUT, COMMAND

SOURCES = Path(sealer.__file__).parent
PYTHON = os.path.realpath(sys.executable)
SEALED = f"""
import os, sys
sys.path.append({str(CHECKOUT / "src")!r})
from orlop.linux.executable import is_sealed
print(is_sealed(), os.readlink("/proc/self/exe"), sys.argv[1:], os.environ.get("WORD"), os.listdir("/proc/self/fd"))
"""


@pytest.mark.parametrize("machine", sealer.PROGRAM.machines())
def test_the_code_is_what_the_assembler_makes_of_the_source(machine, peer, tmp_path):
    code = assembled.text(SOURCES / f"{machine}.S", peer, tmp_path)
    assert sealer.PROGRAM.image(machine).endswith(code)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "sealer"
    path.write_bytes(sealer.PROGRAM.image(abi.MACHINE))
    path.chmod(0o755)
    return path


def run(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env={"WORD": "x", **env}, capture_output=True, text=True, timeout=60, check=False)


MAY_MOUNT = os.geteuid() == 0


def test_an_interpreter_runs_from_a_mount_of_its_own(program: Path) -> None:
    told = run(program, PYTHON, "-I", "-S", "-c", SEALED, "a", "b c")
    exe = f"/{os.path.basename(PYTHON)}" if MAY_MOUNT else "/memfd:orlop-runtime (deleted)"
    assert told.stdout.startswith(f"True {exe} ['a', 'b c'] x "), told
    assert told.stdout.count("'") == 2 * (2 + 4), "a descriptor stayed open"
    assert (told.returncode, told.stderr) == (0, "")


def test_where_it_can_not_it_runs_from_sealed_memory(program: Path, tmp_path: Path) -> None:
    """A name that leads out of its directory, one that is too long, none."""
    link = tmp_path / "python"
    link.symlink_to(PYTHON)
    far = tmp_path / ("x" * 230)
    far.mkdir()
    (far / "python").symlink_to(PYTHON)
    for path, cwd in ((link, "/"), (far / "python", "/"), (Path("python"), tmp_path)):
        argv = [program, path, "-I", "-S", "-c", SEALED, "a"]
        told = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
        assert told.stdout.startswith("True /memfd:orlop-runtime (deleted) ['a'] "), told
        assert told.stdout.count("'") == 2 * (1 + 4), "a descriptor stayed open"


ATTACK = f"""
import errno, os, sys
sys.path.append({str(CHECKOUT / "src")!r})
from orlop.linux import abi, mount
exe = os.open("/proc/self/exe", os.O_RDONLY)
AT_EMPTY_PATH, FSPICK = 0x1000, 0x8
attacks = (
    lambda: os.open("/proc/self/exe", os.O_WRONLY),
    lambda: os.open("/proc/self/exe", os.O_RDWR | os.O_TRUNC),
    lambda: os.open(f"/proc/self/fd/{{exe}}", os.O_RDWR | os.O_APPEND),
    lambda: os.truncate("/proc/self/exe", 0),
    lambda: os.fchmod(exe, 0o777),
    lambda: os.fchown(exe, 1, 1),
    lambda: os.setxattr(exe, "trusted.x", b"x"),
    lambda: os.utime(exe),
    lambda: mount.mount_setattr(exe, clear=1),
    lambda: mount.mount("", "/proc/self/exe", "", mount.MS_REMOUNT),
    lambda: abi.syscall("fspick", exe, b"", FSPICK),
    lambda: mount.clone_tree(exe),
    lambda: os.open("..", os.O_PATH, dir_fd=exe),
)
for attack in attacks:
    try:
        attack()
        print("DONE")
    except OSError as refused:
        print(errno.errorcode[refused.errno])
"""


@pytest.mark.skipif(not MAY_MOUNT, reason="needs: root")
def test_root_itself_can_not_write_it_or_make_it_writable(program: Path) -> None:
    """As a privileged container would try, which reaches it as /proc/PID/exe of who enters it (CVE-2019-5736)."""
    before = Path(PYTHON).stat()
    told = run(program, PYTHON, "-I", "-S", "-c", ATTACK).stdout.split()
    assert told == ["EROFS"] * 8 + ["EINVAL"] * 4 + ["ENOTDIR"], told
    assert Path(PYTHON).stat() == before


@pytest.mark.skipif(not MAY_MOUNT, reason="needs: root")
def test_only_an_overlay_that_stands_nowhere_counts(tmp_path: Path) -> None:
    """A read-only one that is mounted somewhere may have a writable side."""
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    shutil.copy("/bin/true", upper / "program")
    writable = mount.overlay([os.path.dirname(PYTHON)], str(upper), str(work))
    fd = os.open("program", os.O_RDONLY, dir_fd=writable)
    os.close(writable)
    try:
        assert not executable.is_sealed(f"/proc/self/fd/{fd}"), "it can be written"
    finally:
        os.close(fd)
    assert not executable.is_sealed("/bin/true")


def test_the_exit_status_is_the_interpreters(program: Path) -> None:
    assert run(program, PYTHON, "-I", "-S", "-c", "raise SystemExit(7)").returncode == 7


def test_it_fails_as_a_shell_does(program: Path) -> None:
    assert run(program).returncode == 127
    assert run(program, "/no/such/interpreter", "-c", "x").returncode == 127


def test_a_program_in_another_ones_argument_is_not_changed(program: Path) -> None:
    before = Path(PYTHON).stat()
    assert run(program, PYTHON, "-I", "-S", "-c", "open('/proc/self/exe', 'wb')").returncode == 1
    assert Path(PYTHON).stat().st_mtime_ns == before.st_mtime_ns


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return assembled.clone(tmp_path)


def test_the_script_uses_what_the_first_run_left(clone: Path) -> None:
    def entering() -> int:
        told = run(
            clone / "orlop-runtime", "--root", clone / "state", "run", "--bundle", "/no/such", "x", PATH="/usr/bin:/bin"
        )
        assert "/no/such/config.json not found" in told.stderr, told
        return told.returncode

    place = clone / ".cache" / sealer.PROGRAM.file
    assert sealer.PROGRAM.file in COMMAND.read_text()
    assert run(clone / "orlop-runtime", "--version", PATH="/usr/bin:/bin").returncode == 0
    assert not place.exists(), "only who enters a container needs it"
    assert entering() == 1
    assert place.read_bytes() == sealer.PROGRAM.image(abi.MACHINE) and place.stat().st_mode & 0o777 == 0o755
    # Whether it was used shows in what is traced: one execve of the interpreter by the script, one from memory.
    assert entering() == 1
    place.chmod(0o644)
    assert entering() == 1, "without it the interpreter seals itself"
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(sealer.PROGRAM.file)] == [
        sealer.PROGRAM.file
    ]


def test_an_interpreter_that_was_sealed_is_not_executed_again(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
import os, sys
sys.path.append({str(CHECKOUT / "src")!r})
def never(*_): raise SystemExit(9)
os.execve = never
from orlop.linux import executable
executable.execute_sealed("x")
"""
    assert run(program, PYTHON, "-I", "-S", "-c", code).returncode == 0
    assert run(PYTHON, "-I", "-S", "-c", code).returncode == 9
    assert not executable.is_sealed()
