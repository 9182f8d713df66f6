"""What every test gets. A group of tests is a folder; its marker is set here, and its needs stand in devtools.peers.

Fixtures: `orlop_env` a private engine's directories, emptied and proven empty at the end; `orlop(*args)` runs the real
`./orlop` in it; `terminal(*args)` the same on a pseudo-terminal; `peer(program)` a program of somebody else, or a skip.
For the whole run: the host is compared before and after (support.host), every skip is judged (support.skips).
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from devtools import peers
from support import engine, host, netns, repeats, skips
from support.terminal import Terminal

TESTS = Path(__file__).parent
GROUPS = sorted(path.name for path in TESTS.iterdir() if path.is_dir() and any(path.glob("test_*.py")))
DEAREST_SHOWN = 40
NEED_ROOT = ("root", "security", "conformance", "contract", "vm")  # contract: runc and its like run containers


# -- groups ---------------------------------------------------------------------------------------------------------


# No test depends on time: an example that a busy machine delays is no failure.
hypothesis.settings.register_profile("orlop", deadline=None)
hypothesis.settings.load_profile("orlop")


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0:
        netns.isolate()
    for group in GROUPS:
        config.addinivalue_line("markers", f"{group}: tests/{group}")
    unsteady = repeats.register(config)
    if not hasattr(config, "workerinput"):
        # Only the controller judges, and workers and their children inherit the session's name.
        os.environ[host.SESSION] = session = secrets.token_hex(8)
        config.pluginmanager.register(Judge(config, session, unsteady), "orlop-judge")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(_group(item.nodeid))
        if os.geteuid() != 0 and _group(item.nodeid) in NEED_ROOT:
            item.add_marker(pytest.mark.skip(reason="needs: root"))


# What makes something dear once for many tests. Marks of xdist_group say it too, but xdist 3.8 writes them into an
# attribute that pytest 9.2 reads no more. FILE -> what of a test's id tests have in common that one worker runs.
TOGETHER = {
    "tests/contract/test_build_newer.py": re.compile(""),
    "tests/contract/test_build_peers.py": re.compile(""),
    "tests/contract/test_real_builds.py": re.compile(""),
    "tests/root/test_nesting.py": re.compile(""),
    "tests/root/test_rootless.py": re.compile(""),
    "tests/root/test_rootless_doors.py": re.compile(r"\[(ids|one id)"),
    "tests/root/test_rootless_single.py": re.compile(""),
    "tests/root/test_rootless_ways.py": re.compile(""),
    "tests/root/test_runtime_systemd.py": re.compile(""),
    "tests/vm/test_debian.py": re.compile(""),
    "tests/vm/test_runtime_on_v2.py": re.compile(""),
    "tests/security/test_doors.py": re.compile(r"\[[a-z]+"),
    "tests/security/test_doors_deep.py": re.compile(""),
}


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadGroupScheduling

    class Together(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, rest = nodeid.partition("::")
            found = TOGETHER[file].search(rest) if file in TOGETHER else None
            return f"{file} {found[0]}" if found else nodeid

    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None


def _group(nodeid: str) -> str:
    return nodeid.removeprefix("tests/").partition("/")[0]


# -- the run as a whole ---------------------------------------------------------------------------------------------


class Judge:
    """Fails a run whose tests passed but that skipped what it may not skip, or left something on the host."""

    def __init__(self, config: pytest.Config, session: str, unsteady: repeats.Unsteady | None) -> None:
        self.config = config
        self.unsteady = unsteady
        self.scratch = host.Scratch()
        self.watch = host.Watch(session)
        self.skips = skips.Skips(skips.LIST.read_text())
        self.counts: dict[str, dict[str, int]] = {}
        self.seconds: dict[str, float] = {}
        self.durations: dict[str, float] = {}
        self.started = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        group = _group(report.nodeid)
        self.seconds[group] = self.seconds.get(group, 0.0) + report.duration
        self.durations[report.nodeid] = self.durations.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or report.outcome != "passed":
            counts = self.counts.setdefault(group, {})
            counts[report.outcome] = counts.get(report.outcome, 0) + 1
        if report.failed and os.environ.get("ORLOP_TEST_TELL"):
            print(f"\n{report.longreprtext}", file=sys.__stdout__, flush=True)  # the run may not come to its end
        self._judge_skip(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._judge_skip(report)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield  # the workers have ended; the terminal's summary comes after this
        if self.config.option.collectonly:
            self.scratch.finish()
            return
        if os.environ.get("ORLOP_TEST_WHOLE"):
            for reason in self.skips.stale():
                self._fail("tests/skips.txt", f"no test skips for {reason!r} any more: remove the entry")
        left = self.watch.finish() + self.scratch.finish()
        if left:
            self._fail("the host after the run", "the tests left behind:\n  " + "\n  ".join(left))
        if self.unsteady is not None and (complaint := self.unsteady.complaint()):
            self._fail("unsteady tests", complaint)
        if self._failed and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.watch.note:
            terminalreporter.line(f"host: {self.watch.note}")
        if len(self.counts) < 2:
            return
        terminalreporter.section("groups")
        for group, counts in sorted(self.counts.items()):
            told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
            terminalreporter.line(f"{group:<12} {told:<44} {self.seconds[group]:7.1f} s of work")
        terminalreporter.line(f"{'in all':<57} {time.monotonic() - self.started:7.1f} s")
        terminalreporter.section("dearest, with their set-up")
        dearest = sorted(self.durations.items(), key=lambda one: -one[1])[:DEAREST_SHOWN]
        for nodeid, seconds in dearest:
            terminalreporter.line(f"{seconds:7.1f} s {nodeid}")

    _failed = False

    def _judge_skip(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
        wrong = self.skips.judge(reason)
        if wrong:
            self._fail(report.nodeid, f"skipped with {reason!r}: {wrong}")

    def _fail(self, nodeid: str, text: str) -> None:
        self._failed = True
        report = pytest.TestReport(nodeid, (nodeid, None, nodeid), {}, "failed", text, "teardown")
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        reporter.stats.setdefault("error", []).append(report)


# -- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def orlop_env(tmp_path: Path) -> Iterator[engine.Environment]:
    """A private ORLOP_ROOT and ORLOP_RUN. At the end its engine and containers are ended and proven gone."""
    environment = engine.Environment(tmp_path / "root")
    yield environment
    left = environment.close()
    assert not left, "the engine left behind:\n  " + "\n  ".join(left)


@pytest.fixture
def orlop(orlop_env: engine.Environment) -> engine.Environment:
    """`orlop(*args, input=None, check=True, timeout=60)` runs the real command and returns code, stdout and stderr."""
    return orlop_env


@pytest.fixture
def terminal(orlop_env: engine.Environment) -> Iterator[Callable[..., Terminal]]:
    """`terminal(*args, rows=24, columns=80)` runs `./orlop args` on a new terminal, which is closed after the test."""
    with ExitStack() as stack:
        yield lambda *args, **size: stack.enter_context(
            orlop_env.inside(lambda: Terminal([engine.COMMAND, *args], orlop_env.variables, **size))
        )


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with the policy that skopeo and podman want: not each machine has theirs in /etc/containers."""
    place = tmp_path / "home/.config/containers"
    place.mkdir(parents=True)
    (place / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def peer() -> Callable[[str], Path]:
    """`peer("runc")` returns where somebody else's program lies; without it the test skips."""

    def find(program: str) -> Path:
        assert program in peers.TOOLS, f"{program} is not in devtools.peers.TOOLS"
        found = peers.find(program)
        if found is None:
            pytest.skip(f"needs: {program}")
        return found

    return find
