"""`./orlop` in the repository's root: finds a real interpreter, runs from anywhere, says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orlop import __version__
from support.engine import CHECKOUT, COMMAND

VERSION = f"Orlop version {__version__}\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone without a cache, in a directory whose name a careless script breaks at."""
    place = tmp_path / 'a clone\'s $HOME; "x"'
    place.mkdir()
    shutil.copy(COMMAND, place / "orlop")
    (place / "src").symlink_to(CHECKOUT / "src")
    return place


def run(*argv: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False, timeout=60)


def test_it_runs_from_a_clone_with_nothing_prepared(clone):
    done = run(clone / "orlop", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")
    python = (clone / ".cache/python").read_text().strip()
    assert Path(python).is_absolute() and os.access(python, os.X_OK)
    assert list((clone / ".cache/pycache").rglob("main.*.pyc")), "nothing was compiled"


def test_it_compiles_although_the_environment_forbids_it(clone):
    run(clone / "orlop", "--version", PYTHONDONTWRITEBYTECODE="1")
    assert list((clone / ".cache/pycache").rglob("main.*.pyc"))
    assert not list((CHECKOUT / "src/orlop").rglob("__pycache__/main.cpython-*.pyc.*"))


def test_it_runs_from_any_directory_and_through_links(clone, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "absolute").symlink_to(clone / "orlop")
    (elsewhere / "relative").symlink_to(os.path.relpath(clone / "orlop", elsewhere))
    (elsewhere / "twice").symlink_to("relative")
    (tmp_path / "linked").symlink_to(clone)
    for argv, cwd in (
        (["./orlop"], clone),
        ([f"../{clone.name}/orlop"], elsewhere),
        (["./absolute"], elsewhere),
        (["./relative"], elsewhere),
        (["./twice"], Path(elsewhere)),
        ([elsewhere / "twice"], Path("/")),
        (["linked/orlop"], tmp_path),
        (["sh", "orlop"], clone),
    ):
        done = run(*argv, "--version", cwd=cwd)
        assert (done.returncode, done.stdout) == (0, VERSION), (argv, done.stderr)
    done = run("twice", "--version", PATH=f"{elsewhere}:{os.environ['PATH']}")
    assert done.stdout == VERSION


def test_a_shim_is_seen_through(clone, tmp_path):
    """What is remembered is the interpreter, not the script that finds it."""
    text = (clone / "orlop").read_text().replace("likely=/usr/bin/python3", "likely=")
    (clone / "orlop").write_text(text)
    real = Path("/usr/bin/python3")
    shims = tmp_path / "shims"
    shims.mkdir()
    shim = shims / "python3"
    shim.write_text(f'#!/bin/sh\nexec "{real if real.exists() else shutil.which("python3")}" "$@"\n')
    shim.chmod(0o755)
    assert run(clone / "orlop", "--version", PATH=f"{shims}:{os.environ['PATH']}").stdout == VERSION
    assert not (clone / ".cache/python").read_text().startswith(str(shims))


def test_an_interpreter_that_went_away_is_searched_again(clone):
    (clone / ".cache").mkdir()
    for left in ("/no/such/python3", "", "/etc/passwd", "/tmp"):
        (clone / ".cache/python").write_text(f"{left}\n")
        done = run(clone / "orlop", "--version")
        assert (done.returncode, done.stdout) == (0, VERSION), (left, done.stderr)


def test_without_a_python_it_says_what_to_do(clone, tmp_path):
    text = (clone / "orlop").read_text().replace("likely=/usr/bin/python3", "likely=/no/such/python3")
    (clone / "orlop").write_text(text.replace("/usr/local/bin/python3", "/no/such/python3"))
    old = tmp_path / "old"
    old.mkdir()
    (old / "python3").write_text("#!/bin/sh\nexit 1\n")
    (old / "python3").chmod(0o755)
    done = run("/bin/sh", clone / "orlop", "--version", PATH=str(old))
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("orlop: cannot run: there is no complete Python 3.11 or newer here")
    assert second.startswith("Next: ") and "apt-get install python3" in second


def test_neither_the_environment_nor_the_directory_adds_code(clone, tmp_path):
    (tmp_path / "os.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "fcntl.py").write_text("raise SystemExit('hijacked')")
    done = run(
        clone / "orlop",
        "run",
        "--help",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
        PYTHONSTARTUP="x",
        PYTHONHOME="/nowhere",
    )
    assert done.returncode == 0 and "hijacked" not in done.stdout + done.stderr


def test_a_clone_that_can_not_be_written_to_works(clone):
    if os.geteuid() == 0:
        (clone / ".cache").write_text("a file where the directory should be: root ignores modes")
    else:
        clone.chmod(0o555)
    done = run(clone / "orlop", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")
    clone.chmod(0o755)


def test_words_reach_the_command_line_unchanged(clone):
    done = run(clone / "orlop", "run", "-m", "a  b'\"$(c)*", "x")
    assert 'invalid argument "a  b\'\\"$(c)*" for "-m, --memory" flag' in done.stderr
