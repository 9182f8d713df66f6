"""./dev test security --weakened: every test of an attack, seen red without the guard that it is there for.

The product has no switch that weakens it. A copy of this tree is made for each guard of support.guards, the guard's few
lines are taken out of the copy, and the tests that must see it run there, in a mount namespace in which the machine's
own directories are read-only: attacks that succeed meet nothing of value. A test counts as red when it failed by an
assertion or in the product, not when it could not begin, and not when the weakened copy does not even run. All copies
are of one, which is taken first and must run: what somebody edits meanwhile makes no test red, and none green.

Words: rows (SEC-30) or parts of guards' names; without any, all. `--write` writes docs/SECURITY-REPORT.md anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import peers
from .environment import CACHE, PYTHON, ROOT, VENV, prepare
from .failure import Failure

if TYPE_CHECKING:
    from support.guards import Guard

REPORT = ROOT / "docs/SECURITY-REPORT.md"
COPIED = (
    "src",
    "tests",
    "tools",
    "bench",
    "docs",
    "dev",
    "orlop",
    "pyproject.toml",
    "requirements-dev.txt",
    "README.md",
)
READ_ONLY = (
    "/bin",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/root",
    "/sbin",
    "/srv",
    "/usr",
    str(ROOT),
    str(VENV.resolve().parent),
)
WRITABLE = "/tmp /run /var"  # all else of the root directory is read-only too
SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory")
JOBS = 3
TIMEOUT_S = 560
# What a copy says that is broken, not weakened: a failure with these words proves nothing.
BROKEN = (
    "SyntaxError",
    "NameError",
    "ImportError",
    "ModuleNotFoundError",
    "UnboundLocalError",
    "a defect of the engine",
)


class Outcome(NamedTuple):
    """What the tests of one guard said without it. red, green: ids of tests; doubtful: red for another reason.

    date: when.
    """

    guard: Guard
    red: tuple[str, ...]
    green: tuple[str, ...]
    doubtful: tuple[str, ...]
    trouble: str = ""
    date: str = ""

    def unseen(self) -> list[str]:
        """Return the tests that should have been red and were not, in no variant."""
        seen = {one.partition("[")[0] for one in self.red} | set(self.red)
        return [test for test in self.guard.tests if test not in seen]

    def failed(self) -> list[str]:
        """Return a line for each thing that is wrong."""
        lines = [f"{self.guard.name}: {self.trouble}"] if self.trouble else []
        if self.unseen():
            lines += [f"{self.guard.name}: not red without it: {test}" for test in self.unseen()]
            lines += [f"{self.guard.name}: red for another reason: {test}" for test in self.doubtful]
        return lines


def main(words: Sequence[str]) -> int:
    """Run the tests of the guards without them; return 1 when one of them is not red."""
    from support.guards import GUARDS

    prepare()
    chosen = [word for word in words if not word.startswith("-")]
    guards = [one for one in GUARDS if not chosen or any(word in one.rows or word in one.name for word in chosen)]
    started = time.monotonic()
    before = {name: Path(name).read_text() for name in SETTINGS if os.path.exists(name)}
    try:
        with frozen() as source, ThreadPoolExecutor(JOBS) as pool:
            outcomes = list(pool.map(lambda guard: _tell(guard, source), guards))
    finally:
        for name, text in before.items():
            if Path(name).read_text() != text:
                Path(name).write_text(text)
    failed = [line for outcome in outcomes for line in outcome.failed()]
    print("\n".join(failed))
    print(f"{len(guards)} guards, {len(failed)} complaints, {time.monotonic() - started:.0f} s")
    if "--write" in words and not failed:
        known = [found for guard in GUARDS if (found := _recall(guard)) is not None]
        if len(known) < len(GUARDS):
            names = ", ".join(sorted({one.name for one in GUARDS} - {one.guard.name for one in known}))
            raise Failure(f"nothing is written: these were not seen red yet as they are now: {names}")
        REPORT.write_text(report(known))
    return int(bool(failed))


def _place(guard: Guard) -> Path:
    """Return where is kept what was seen without a guard, as long as its entry is the same."""
    return CACHE / "weakened" / f"{hashlib.sha256(repr(guard).encode()).hexdigest()[:16]}.json"


def _recall(guard: Guard) -> Outcome | None:
    try:
        found = json.loads(_place(guard).read_text())
    except FileNotFoundError:
        return None
    return Outcome(guard, tuple(found["red"]), tuple(found["green"]), (), "", found["date"])


@contextmanager
def frozen() -> Iterator[Path]:
    """Yield a copy of the tree as it is now. Raises Failure when it does not run a container."""
    place = Path(tempfile.mkdtemp(prefix="orlop-weak-", dir="/tmp"))
    place.chmod(0o755)
    try:
        copy_tree(place / "tree", ROOT)
        done = _in_private(place / "tree", ["true"], runs=True)
        if done.returncode:
            raise Failure(f"nothing is weakened: the tree as it is runs no container: {done.stdout[-2000:]}")
        yield place / "tree"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _tell(guard: Guard, source: Path) -> Outcome:
    started = time.monotonic()
    outcome = without(guard, source)
    word = "RED" if not outcome.failed() else "BROKEN" if outcome.trouble else "NOT RED"
    if not outcome.failed():
        _place(guard).parent.mkdir(exist_ok=True)
        date = time.strftime("%Y-%m-%d", time.gmtime())
        _place(guard).write_text(json.dumps({"red": outcome.red, "green": outcome.green, "date": date}))
    print(f"{word:<8}{time.monotonic() - started:6.1f} s  {guard.name} ({len(outcome.red)} red)", flush=True)
    return outcome


def without(guard: Guard, source: Path = ROOT) -> Outcome:
    """Run a guard's tests in a copy of a tree that lacks it."""
    place = Path(tempfile.mkdtemp(prefix="orlop-weak-", dir="/tmp"))
    place.chmod(0o755)
    try:
        copy_tree(place / "tree", source)
        trouble = guard.remove(place / "tree")
        if trouble:
            return Outcome(guard, (), (), (), trouble)
        return _run(guard, place)
    except subprocess.TimeoutExpired:
        return Outcome(guard, (), (), (), f"its tests took more than {TIMEOUT_S} s")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def copy_tree(place: Path, source: Path) -> None:
    """Copy what the tests need; programs of others and the interpreter's packages are shared."""
    place.mkdir()
    for name in COPIED:
        part = source / name
        if part.is_dir():
            shutil.copytree(part, place / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.exists():
            shutil.copy2(part, place / name)
    (place / "orlop-runtime").symlink_to("orlop")
    (place / ".venv").symlink_to(VENV)
    (place / ".cache").mkdir()
    for name in ("peers", "vm"):
        (place / ".cache" / name).symlink_to(CACHE / name)


def _run(guard: Guard, place: Path) -> Outcome:
    tree, told = place / "tree", place / "told.xml"
    tests = [f"tests/{test}" for test in guard.tests]
    pytest = [str(PYTHON), "-m", "pytest", "-n", "0", "--timeout", "120", f"--junitxml={told}", *tests]
    done = _in_private(tree, pytest, runs=guard.runs)
    if os.environ.get("ORLOP_WEAKENED_SHOW"):
        sys.stderr.write(done.stdout)
    if not told.exists():
        return Outcome(guard, (), (), (), f"the tests did not run: {done.stdout[-2000:]}")
    return _judge(guard, told)


def _in_private(tree: Path, command: Sequence[str], *, runs: bool) -> subprocess.CompletedProcess[str]:
    """Run a command in a copy, where the machine's own directories are read-only; before it, when `runs`, a container.

    Raises subprocess.TimeoutExpired.
    """
    place = tree.parent
    shut = " ".join(f"{path}" for path in READ_ONLY if os.path.isdir(path) and not os.path.islink(path))
    smoke = (
        'export ORLOP_ROOT="$0/../root" ORLOP_RUN="$0/../run"\nmkdir -m 700 "$ORLOP_RUN"\n'
        "unshare --net sh -c './orlop run --rm --network none host true; code=$?; ./orlop engine stop; exit $code' || "
        "exit 98\nunset ORLOP_ROOT ORLOP_RUN\n"
    )
    script = (
        f"for d in {WRITABLE}; do mount --bind $d $d || exit 99; done\n"
        f"for d in {shut}; do mount --bind $d $d && mount -o remount,bind,ro $d || exit 99; done\n"
        f"mount -o remount,bind,ro / || exit 99\n"
        f'cd "$0" || exit 98\n{smoke * runs}"$@"'
    )
    if os.geteuid() == 0:
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(tree), *command]
    else:
        argv = list(command)
    # A run of its own: nothing of the one that may be around it (ORLOP_TEST_FAILED, PYTEST_XDIST_WORKER) is its.
    foreign = ("ORLOP_TEST_", "PYTEST_", "CI")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment["PATH"] = peers.path()
    # What its tests leave in temporary files goes with it; where tests' own files lie, paths are short enough.
    environment |= {"TMPDIR": str(place), "PYTEST_DEBUG_TEMPROOT": "/tmp"}
    return subprocess.run(
        argv, cwd=tree, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip


def _judge(guard: Guard, told: Path) -> Outcome:
    red: list[str] = []
    green: list[str] = []
    doubtful: list[str] = []
    for case in ElementTree.parse(told).getroot().iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.').replace('.', '/')}.py::{case.get('name')}"
        failure = case.find("failure")
        if failure is None:
            (doubtful if case.find("error") is not None else green).append(name)
        elif any(word in (failure.text or "") for word in BROKEN):
            doubtful.append(name)
        else:
            red.append(name)
    return Outcome(guard, tuple(red), tuple(green), tuple(doubtful))


# -- the report -----------------------------------------------------------------------------------------------------


def report(outcomes: Sequence[Outcome]) -> str:
    """Return docs/SECURITY-REPORT.md: row by row, which tests hold it, at which doors, and without what it is red."""
    from support import guards

    date = " to ".join(sorted({min(one.date for one in outcomes), max(one.date for one in outcomes)}))
    lines = [
        "# Attacks, and how it is known that they are held off", "",
        f"Written by `./dev test security --weakened --write`; each red was seen on {date}, and is seen anew when its",
        "guard's entry has changed. Doors: the ways into a container at which the same attack is tried, and refused",
        "(tests/support/doors.py). *Red without*: the guard that was taken out of a copy of the source",
        "(tests/support/guards), whereupon the tests named failed; in parentheses the doors at which that was seen.",
        "Where there are none, it was seen below the doors, at the code that all of them go through.", "",
    ]  # fmt: skip
    for row, (title, tests) in guards.rows().items():
        lines += [f"## {row}: {title}", ""]
        doors_tried = guards.doors_of(tests)
        lines += [f"- tests: {', '.join(sorted({one.partition('::')[2] for one in tests}))}"]
        lines += [f"- doors: {', '.join(doors_tried)}"]
        if len(doors_tried) < len(guards.DOORS):
            lines.append(f"- not at the others: {guards.ELSEWHERE[row]}")
        for outcome in outcomes:
            if row in outcome.guard.rows:
                doors = guards.doors_seen(outcome.red)
                shown = ", ".join(sorted({one.partition("::")[2].partition("[")[0] for one in outcome.red}))
                lines.append(f"- red without **{outcome.guard.name}**: {shown}" + (f" (doors: {doors})" * bool(doors)))
        if reason := guards.NEVER_RED.get(row):
            lines.append(f"- nothing to take out: {reason}")
        lines.append("")
    lines += ["## Parsers", "", "Each lacked one check, and the inputs that CI shows it found that:", ""]
    lines += [
        f"- red without **{outcome.guard.name}**, a check in `{outcome.guard.changes[0][0]}`"
        for outcome in outcomes
        if not outcome.guard.rows
    ]
    lines.append("")
    lines += ["## Rows that do not apply", ""]
    lines += [f"- {row}: {reason}" for row, reason in guards.NOT_APPLICABLE.items()]
    return "\n".join(lines) + "\n"
