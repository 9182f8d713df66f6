"""A failed test of CI is repeated: judged here in runs of pytest of their own, by one process and by workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import repeats

TESTS = Path(__file__).parents[1]
CONFTEST = """
from support import repeats

def pytest_configure(config):
    global unsteady
    unsteady = repeats.register(config)

def pytest_sessionfinish(session):
    if unsteady is not None and (complaint := unsteady.complaint()):
        print("complaint:", complaint)
        session.exitstatus = 1
"""
# `first` tells whether a test of this name runs for the first time.
MODULE = """
import pathlib
import pytest

def first(name):
    place = pathlib.Path(__file__).with_name(name)
    was = place.exists()
    place.touch()
    return not was

@pytest.fixture(scope="module")
def shared():
    yield pathlib.Path(__file__).with_name("shared.log").open("a")

@pytest.fixture
def untidy():
    yield
    assert not first("untidy"), "left behind"

def test_steady(shared):
    assert first("steady")
"""
CALL = "\ndef test_call(shared):\n    assert not first('call'), 'it came late'\n"
TEARDOWN = "\ndef test_teardown(untidy):\n    assert True\n"
BROKEN = "\ndef test_broken(shared):\n    assert False, f'always, {first(\"broken\")}'\n"


def run(place: Path, module: str, *args: str, switch: str | None = "1") -> tuple[int, str]:
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_it.py").write_text(module)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "ORLOP_TEST"))}
    environment["PYTHONPATH"] = str(TESTS)
    if switch is not None:
        environment[repeats.SWITCH] = switch
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(place)]
    argv += ["--basetemp", str(place / "base"), *args, str(place)]
    done = subprocess.run(argv, cwd=place, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "workers"])
@pytest.mark.parametrize(
    ("module", "told"), [(CALL, "it came late"), (TEARDOWN, "left behind")], ids=["call", "teardown"]
)
def test_one_that_passes_then_is_named_with_its_failure(
    module: str, told: str, workers: tuple[str, ...], tmp_path: Path
) -> None:
    status, output = run(tmp_path, MODULE + module, *workers)
    assert status == 0, output
    assert "2 passed, 1 unsteady" in output and "passed when repeated" in output and told in output


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "workers"])
def test_one_that_fails_twice_has_failed(workers: tuple[str, ...], tmp_path: Path) -> None:
    status, output = run(tmp_path, MODULE + BROKEN, *workers)
    assert status == 1 and "1 failed, 1 passed" in output and "passed when repeated" not in output, output
    assert "always, True" in output and "always, False" in output


def test_more_of_them_than_an_accident_fail_the_run(tmp_path: Path) -> None:
    status, output = run(tmp_path, MODULE + CALL + TEARDOWN)
    assert status == 1 and "complaint: 2 tests are unsteady, more than 1" in output, output


def test_a_developer_sees_the_failure_at_once(tmp_path: Path) -> None:
    status, output = run(tmp_path, MODULE + CALL, switch=None)
    assert status == 1 and "1 failed, 1 passed" in output and "unsteady" not in output, output
