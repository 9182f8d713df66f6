"""That the tests of attacks see what they are there for: a few guards taken out, one of each kind.

All of them, at every door, take a quarter of an hour: `./dev test security --weakened`, or ORLOP_TEST_WEAKENED=1 here.
docs/SECURITY-REPORT.md is what that said last.
"""

from __future__ import annotations

import os

import pytest

from devtools import weakened
from support import guards
from support.guards import Guard

SHORT = (
    "directories of state are closed to others",
    "a member's name that leads out is refused",
    "labels of an image are left out",
)
CHOSEN = [
    guard
    for guard in guards.GUARDS
    if os.environ.get("ORLOP_TEST_WEAKENED") or guard.name in SHORT
]  # fmt: skip


@pytest.mark.timeout(weakened.TIMEOUT_S + 30)
@pytest.mark.parametrize("guard", CHOSEN, ids=lambda guard: guard.name)
def test_without_its_guard_a_test_is_red(guard: Guard) -> None:
    outcome = weakened.without(guard)
    assert outcome.red and not outcome.failed(), "\n".join(outcome.failed())


def test_a_guard_that_is_none_is_told() -> None:
    """Taking out nothing makes no test red, and what does not apply is no weakened build."""
    name = "unit/test_platform.py::test_spellings"
    nothing = Guard(
        "nothing", (), (name,), (("spec/digest.py", "class Digest(str):", "class Digest(str):"),), runs=False
    )
    assert weakened.without(nothing).failed() == [f"nothing: not red without it: {name}"]
    absent = Guard("absent", (), (name,), (("spec/digest.py", "no such line", ""),))
    assert "has 0 times" in weakened.without(absent).failed()[0]
    change = ("spec/platform.py", "from .errors import Invalid", "from .nosuch import Invalid")
    for runs in (False, True):
        assert weakened.without(Guard("broken", (), (name,), (change,), runs=runs)).failed()
