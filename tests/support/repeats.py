"""What becomes of a test that fails beside others and passes when it is repeated: CI names it unsteady and goes on.

An unsteady test is a defect, of the test or of what it tests: its failure stands in the output, whole, for somebody to
mend, but it is no reason to refuse what lands. A test that fails twice has failed, and so have more unsteady ones than
an accident of a busy machine explains. On a developer's machine nothing is repeated.

In a worker, `Repeater` runs a failed test a second time and passes the first failure on with an outcome of its own;
`Unsteady` gathers these where all reports come together.
"""

from __future__ import annotations

import os
import time

import pytest
from _pytest.runner import runtestprotocol

SWITCH = "ORLOP_TEST_REPEAT"  # in the environment: the number of unsteady tests that a run may have
UNSTEADY = "unsteady"
# pytest-timeout's clock covers both tries: what took longer than this may not have the time for a second one.
REPEATED_S_MAX = 120.0


def register(config: pytest.Config) -> Unsteady | None:
    """Repeat failed tests in this process if the run is to; return what gathers them, also of worker processes."""
    if SWITCH not in os.environ:
        return None
    config.pluginmanager.register(Repeater(), "orlop-repeater")
    unsteady = Unsteady(int(os.environ[SWITCH]))
    config.pluginmanager.register(unsteady, "orlop-unsteady")
    return unsteady


class Repeater:
    """Runs the tests of one process."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        began = time.monotonic()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if any(report.failed for report in reports) and time.monotonic() - began < REPEATED_S_MAX:
            for report in reports:
                if report.failed:
                    report.outcome = UNSTEADY  # type: ignore[assignment]
                    item.ihook.pytest_runtest_logreport(report=report)
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


class Unsteady:
    """The first failures of repeated tests. tests_max: more of them than these fail the run."""

    def __init__(self, tests_max: int) -> None:
        self.tests_max = tests_max
        self.failures: dict[str, str] = {}
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == UNSTEADY:
            told = self.failures.get(report.nodeid, "")
            self.failures[report.nodeid] = f"{told}{report.when}:\n{report.longreprtext}\n"
        elif report.failed:
            self._failed.add(report.nodeid)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return (UNSTEADY, "U", "UNSTEADY") if report.outcome == UNSTEADY else None

    def complaint(self) -> str:
        """Return why the run fails for them, or nothing."""
        number = len(self.names)
        return f"{number} tests are unsteady, more than {self.tests_max}" if number > self.tests_max else ""

    @property
    def names(self) -> list[str]:
        """The ids of the tests that passed when they were repeated."""
        return sorted(self.failures.keys() - self._failed)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.names:
            terminalreporter.section("unsteady: failed beside others, passed when repeated; to be mended")
            for name in self.names:
                terminalreporter.line(f"{name}\n{self.failures[name]}")
        if twice := sorted(self.failures.keys() & self._failed):
            terminalreporter.section("the first failures of those that failed twice")
            for name in twice:
                terminalreporter.line(f"{name}\n{self.failures[name]}")
