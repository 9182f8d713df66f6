"""The repository's own Python environment: `.venv`, made from requirements-dev.txt and remade when that file changes.

Invariants: `.venv/.prepared` names the interpreter and the lock file that the environment was made from, and is written
last; two chores started together prepare it once (flock on `.cache/venv.lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import debian
from .failure import Failure

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements-dev.txt"
LOCK_HEADER = "# Written by `./dev lock` from pyproject's group `dev`; `./dev` installs exactly this into .venv."
STAMP = VENV / ".prepared"


def prepare() -> Path:
    """Make `.venv` what requirements-dev.txt says, if it is not, and return its interpreter. Raises Failure."""
    if _is_prepared():
        return PYTHON
    with only_one("venv"):
        if not _is_prepared():
            _build()
    return PYTHON


def lock() -> None:
    """Write requirements-dev.txt anew: the newest versions that pyproject's group `dev` and this index allow."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    fresh = CACHE / "lock-venv"
    _make_venv(fresh)
    run([fresh / "bin/python", "-m", "pip", "install", "--quiet", *wanted])
    frozen = run([fresh / "bin/python", "-m", "pip", "freeze", "--all"], capture=True).splitlines()
    pins = sorted(line for line in frozen if re.match(r"(?!pip=|setuptools=)[\w.-]+==", line))
    LOCK.write_text("\n".join([LOCK_HEADER, *pins, ""]))


def run(
    argv: Sequence[str | Path],
    *,
    capture: bool = False,
    env: dict[str, str] | None = None,
    check: bool = True,
) -> str:
    """Run a command in the root; return its standard output, "" unless capture. Raises Failure if check."""
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        cwd=ROOT,
        env=env,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
    )
    if check and done.returncode != 0:
        raise Failure(f"`{' '.join(map(str, argv))}` ended with status {done.returncode}")
    return done.stdout or ""


def _is_prepared() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == _fingerprint()


def _fingerprint() -> str:
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    return f"{sys.version_info.major}.{sys.version_info.minor} {os.path.realpath(sys.executable)} {digest}\n"


def _build() -> None:
    print("dev: preparing .venv from requirements-dev.txt", file=sys.stderr)
    if not _runs_same_version():
        _make_venv(VENV)
    pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "-r", str(LOCK)]
    run(pip, env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""})
    STAMP.write_text(_fingerprint())


def _runs_same_version() -> bool:
    code = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    with contextlib.suppress(OSError):
        return subprocess.run([PYTHON, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0
    return False


def _make_venv(directory: Path) -> None:
    # Debian and Ubuntu ship `venv` without ensurepip, and it says so only half-way through.
    missing = subprocess.run([sys.executable, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL, check=False)
    if missing.returncode != 0:
        package = f"python3.{sys.version_info.minor}-venv"
        if not debian.is_here() or os.geteuid() != 0:
            raise Failure(f"this Python has no ensurepip: as root, `apt-get install {package}`, then again")
        debian.install([package])
    run([sys.executable, "-m", "venv", "--clear", str(directory)])


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold the lock `.cache/NAME.lock`: of two chores that prepare the same thing, the second waits for the first."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
