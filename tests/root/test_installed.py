"""What pip installs: a wheel of this checkout in an environment of its own, called as a user calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.engine import CHECKOUT, Environment

PLUGINS = ("bridge", "firewall", "host-local", "loopback", "portmap")
NOBODY = 65534


class Installation:
    """A virtual environment with our wheel in it and nothing else, not even pip."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        self.bin = directory / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "-q", "--no-input"]
        subprocess.run([*pip, "install", "--no-index", "--no-deps", "--no-compile", str(wheel)], check=True)
        (self.packages,) = directory.glob("lib/python3*/site-packages")
        self.cache = self.packages / ".orlop-cache"

    def run(
        self,
        *words: str,
        program: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: int = 0,
        cwd: Path = Path("/"),
    ) -> subprocess.CompletedProcess[str]:
        argv = [str(program or self.bin / "orlop"), *words]
        path = {"PATH": "/usr/bin:/bin", **(env or {})}
        ids = {"user": user, "group": user, "extra_groups": []} if user else {}
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            argv, env=path, capture_output=True, text=True, check=False, timeout=60, cwd=cwd, **ids
        )
        return done

    def kept(self) -> set[str]:
        return {path.name for path in self.cache.iterdir()} if self.cache.exists() else set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--no-input", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(place), str(CHECKOUT)],
        check=True,
        stderr=subprocess.PIPE,
    )
    (found,) = place.glob("orlop-*.whl")
    return found


@contextmanager
def open_to_all() -> Iterator[Path]:
    """Yield a directory that an ordinary user reaches, which pytest's own are not."""
    place = Path(tempfile.mkdtemp(prefix="orlop-", dir="/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture
def place() -> Iterator[Path]:
    with open_to_all() as directory:
        yield directory


@pytest.fixture(scope="module")
def installation(wheel: Path) -> Iterator[Installation]:
    with open_to_all() as directory:
        yield Installation(directory / "env", wheel)


@pytest.fixture
def installed(installation: Installation) -> Installation:
    shutil.rmtree(installation.cache, ignore_errors=True)
    return installation


def test_it_runs_a_container_and_keeps_what_it_compiles(installed: Installation, orlop_env: Environment) -> None:
    words = ("run", "--rm", "host", "echo", "from a wheel")
    done = orlop_env.inside(lambda: installed.run(*words, env=orlop_env.variables))
    assert (done.returncode, done.stdout) == (0, "from a wheel\n"), done.stderr
    assert installed.kept() >= {"frozen", "pycache", "python"}
    assert {path.name for path in (installed.cache / "frozen").iterdir()} >= {"orlop", "engine", "spawner"}
    assert not list(installed.packages.glob("orlop/**/.orlop-cache"))


def test_its_programs_are_there_also_through_links(installed: Installation, tmp_path: Path) -> None:
    assert installed.run("--version").stdout.startswith("Orlop version ")
    runtime = tmp_path / "sbin/runc"
    runtime.parent.mkdir()
    link = runtime.with_name("orlop-runtime")
    link.symlink_to(os.path.relpath(installed.bin / "orlop-runtime", link.parent))
    assert installed.run("--version", program=link).stdout.startswith("orlop-runtime version ")
    for name in PLUGINS:
        done = installed.run(program=installed.bin / f"orlop-cni-{name}", env={"CNI_COMMAND": "VERSION"})
        assert done.returncode == 0 and "supportedVersions" in done.stdout, done


def test_nothing_of_the_caller_is_code(installed: Installation, tmp_path: Path) -> None:
    """Neither PYTHONPATH, nor what would be imported at a start, nor a .pth of the environment."""
    evil = tmp_path / "evil"
    (evil / "orlop").mkdir(parents=True)
    for name in ("orlop/__init__.py", "sitecustomize.py", "usercustomize.py", "os.py"):
        (evil / name).write_text("raise SystemExit('evil')\n")
    pth = installed.packages / "evil.pth"
    pth.write_text("import os; os._exit(66)\n")
    done = installed.run(
        "--version", env={"PYTHONPATH": str(evil), "PYTHONHOME": str(evil), "PYTHONSTARTUP": str(evil)}
    )
    pth.unlink()
    assert (done.returncode, done.stderr) == (0, ""), done


def test_a_user_of_an_installation_of_roots_has_a_cache_of_his_own(installed: Installation, place: Path) -> None:
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    before = sorted(installed.packages.rglob("*"))
    for env in ({"HOME": str(home)}, {"HOME": str(home)}, {"HOME": "/nowhere"}, {"HOME": "here"}, {}):
        done = installed.run("--version", env=env, user=NOBODY, cwd=home)
        assert done.returncode == 0 and done.stdout.startswith("Orlop version "), done
    assert [path.name for path in home.iterdir()] == [".cache"]
    (own,) = (home / ".cache/orlop").iterdir()
    assert own.name == "installed" + str(installed.packages).replace("/", "-") and (own / "frozen/orlop").exists()
    assert sorted(installed.packages.rglob("*")) == before
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, NOBODY, NOBODY)
    installed.run("--version", env={"HOME": str(home), "XDG_CACHE_HOME": str(elsewhere)}, user=NOBODY)
    assert (elsewhere / "orlop" / own.name / "python").exists()


def test_root_executes_nothing_of_somebodys_home(installed: Installation, tmp_path: Path) -> None:
    """As with `sudo`, which may leave HOME as it was; here the installation can't be written to."""
    script = 'mount --bind -o ro "$1" "$1" && exec "$2" --version'
    call = ["sh", "-c", script, "sh", str(installed.packages), str(installed.bin / "orlop")]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run(["unshare", "-m", *call], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.startswith("Orlop version "), done
    assert list((tmp_path / "home").iterdir()) == [] and installed.kept() == set()


def test_a_script_without_its_package_says_so(installed: Installation, tmp_path: Path) -> None:
    alone = tmp_path / "alone/bin/orlop"
    alone.parent.mkdir(parents=True)
    alone.write_bytes((installed.bin / "orlop").read_bytes())
    alone.chmod(0o755)
    done = installed.run("--version", program=alone)
    assert done.returncode == 1 and "there is no package orlop below" in done.stderr and "Next: " in done.stderr
