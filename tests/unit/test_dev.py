"""`./dev` itself: what it lists, what it refuses, which Python it takes, how it reads apt's plans."""

import os
import subprocess
from pathlib import Path

import pytest

from devtools import debian, peers
from devtools.__main__ import CHORES

ROOT = Path(__file__).parents[2]


def dev(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "dev", *words], env=os.environ | environment, capture_output=True, text=True, check=False, cwd="/"
    )


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_it_lists_every_chore_from_anywhere(words: list[str]) -> None:
    done = dev(*words)
    assert done.returncode == 0
    assert all(f"\n  {chore} " in done.stdout for chore in CHORES)


def test_a_word_it_does_not_know_is_refused() -> None:
    done = dev("tset")
    assert done.returncode == 2
    assert "'tset'" in done.stderr
    assert "./dev help" in done.stderr


@pytest.mark.parametrize(
    "words", [["fuzz", "-s"], ["fuzz", "-s", "soon"], ["bench", "nosuch", "-n", "1"], ["bench", "-n", "x"]]
)
def test_a_wrong_argument_is_told_without_a_traceback(words: list[str]) -> None:
    done = dev(*words)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_without_a_python_it_says_what_to_install(tmp_path: Path) -> None:
    # A machine whose only interpreter is too old.
    for name in ("dirname", "head", "pwd"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    script = (ROOT / "dev").read_text().replace("/usr/bin/python3", "/nonexistent/python3")
    (tmp_path / "dev").write_text(script)
    done = subprocess.run(
        ["/bin/sh", tmp_path / "dev", "test"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "apt-get install" in done.stderr
    assert "ORLOP_PYTHON" in done.stderr


def test_apts_plan_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = (
        "NOTE: This is only a simulation!\n"
        "Inst libx [1.0-1] (1.1-1+b2 Debian:12.1/stable, Debian-Security:12/stable-security [amd64])\n"
        "Inst podman (4.3.1+ds1-8 Debian:12/stable [amd64]) []\n"
        "Conf podman (4.3.1+ds1-8 Debian:12/stable [amd64])\n"
    )
    called: list[tuple[str, ...]] = []

    def apt(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        called.append(words)
        return subprocess.CompletedProcess(words, 0, plan if "--simulate" in words else "", "")

    monkeypatch.setattr(debian, "_apt", apt)
    debian.unpack(["podman"], tmp_path)
    assert called[1] == ("download", "libx=1.1-1+b2", "podman=4.3.1+ds1-8")


def test_every_package_of_the_table_is_told_apart_by_a_program_or_a_stamp() -> None:
    wanted = {package for packages in peers.PACKAGES.values() for package in packages}
    assert wanted <= set(peers.TOOLS.values())
