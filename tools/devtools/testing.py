"""./dev test and ./dev fuzz: prepare what a group of tests needs, then one pytest run over all of it.

A group is a folder of tests. One run for all groups, not one for each: the workers stay busy to the end, the host is
compared once, before and after, and pytest's last line counts everything.

In CI a failed test is repeated, and named unsteady when it passes then (tests/support/repeats.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from . import debian, peers
from .environment import PYTHON, ROOT, prepare
from .failure import Failure

# The slowest first: its tests boot machines, and the others fill the time.
GROUPS = ("vm", "root", "security", "conformance", "contract", "unit", "fuzz")
UNSTEADY_MAX = 8  # more than these are no accident of a busy machine


def main(words: Sequence[str]) -> int:
    """Run the named groups and return pytest's exit status; words that name no group go to pytest."""
    if "--weakened" in words:
        # Behind the other groups: it imports the tests' support.
        from . import weakened

        peers.prepare(GROUPS)
        return weakened.main([word for word in words if word not in ("security", "--weakened")])
    named = [word for word in words if word in (*GROUPS, "all")]
    groups = GROUPS if "all" in named else tuple(named) or GROUPS
    arguments = [word for word in words if word not in named]
    python = prepare()
    _prepare_peers(groups)
    places = [f"tests/{group}" for group in groups if any((ROOT / "tests" / group).rglob("test_*.py"))]
    if not places:
        raise Failure(f"there are no tests in {', '.join(groups)} yet")
    explicit = any(word.startswith("tests/") for word in arguments)
    workers = [] if any(word.startswith(("-n", "--pdb", "-p")) for word in arguments) else _workers()
    if not words:
        os.environ["ORLOP_TEST_WHOLE"] = "1"  # then, and only then, an unused entry of tests/skips.txt is a finding
    run = [str(python), "-m", "pytest", *workers, *([] if explicit else places), *arguments]
    if os.environ.get("CI"):
        os.environ["ORLOP_TEST_REPEAT"] = str(UNSTEADY_MAX)  # tests/support/repeats.py
    return _pytest(run)


def fuzz(words: Sequence[str]) -> int:
    """Run tests/fuzz with a new seed, each target for -s SECONDS (60). --keep: what is answered anew is kept."""
    prepare()
    arguments = [word for word in words if word != "--keep"]
    if "--keep" in words:
        os.environ["ORLOP_FUZZ_KEEP"] = "1"
    seconds = "60"
    if "-s" in arguments:
        at = arguments.index("-s")
        seconds = arguments[at + 1] if at + 1 < len(arguments) else ""
        del arguments[at : at + 2]
    if not seconds.isdecimal():
        raise Failure("-s wants a number of seconds")
    os.environ["ORLOP_FUZZ_SECONDS"] = seconds
    return _pytest([str(PYTHON), "-m", "pytest", *_workers(), "tests/fuzz", "--timeout=0", *arguments])


def _prepare_peers(groups: Sequence[str]) -> None:
    try:
        if not debian.is_here():
            raise Failure("this machine has no apt-get")
        peers.prepare(groups)
    except Failure as failure:
        # On a developer's machine the tests that compare us with a missing peer skip, each with its name;
        # in CI a machine that can't fetch them is the failure.
        if os.environ.get("CI"):
            raise
        print(f"dev: {failure}\ndev: going on without; tests that need these programs skip", file=sys.stderr)


def _workers() -> list[str]:
    # loadgroup keeps tests with one xdist_group (a shared daemon) in one worker.
    # Half as many again as there are processors: most tests wait for somebody half of their time.
    return ["-n", str(min(8, (os.cpu_count() or 1) * 3 // 2)), "--dist", "loadgroup"]


def _pytest(argv: list[str]) -> int:
    environment = os.environ | {"PATH": peers.path()}
    return subprocess.run(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
