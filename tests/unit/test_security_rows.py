"""The tables of attacks: each row has a test, a door or a reason, a guard or a reason, and all of it is there."""

from __future__ import annotations

import ast
from pathlib import Path

from devtools import weakened
from support import guards

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
# Those of SECURITY.md that apply; the others are named with their reasons in support.guards.table.
WANTED = {
    f"SEC-{number:02}"
    for number in (*range(1, 37), *range(40, 53), *range(60, 68), *range(70, 80), *range(90, 95))
}  # fmt: skip


def test_no_row_is_without_a_test() -> None:
    rows = guards.rows()
    assert rows.keys() >= WANTED
    assert all(tests for _, tests in rows.values())
    assert not set(rows) & set(guards.NOT_APPLICABLE)


def test_every_test_that_is_named_exists() -> None:
    missing = []
    named = {name for _, tests in guards.rows().values() for name in tests}
    named |= {test.partition("[")[0] for guard in guards.GUARDS for test in guard.tests}
    for name in named:
        file, _, function = name.partition("::")
        defined = [
            node.name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, ast.FunctionDef)
        ]
        if function not in defined:
            missing.append(name)
    assert not missing


def test_every_row_has_a_door_and_a_guard_or_a_reason() -> None:
    assert guards.missing(guards.rows(), guards.GUARDS) == []


def test_what_takes_a_guard_out_still_applies() -> None:
    """Whoever changes the lines of a guard changes support.guards too, and sees its tests red once more."""
    wrong = []
    for guard in guards.GUARDS:
        texts: dict[str, str] = {}
        for file, old, new in guard.changes:
            text = texts.get(file) or (ROOT / "src/orlop" / file).read_text()
            if text.count(old) != 1:
                wrong.append(f"{guard.name}: {file} has {text.count(old)} times: {old.strip()[:80]}")
            texts[file] = text.replace(old, new)
            compile(texts[file], file, "exec")
        if not guard.changes or not guard.tests:
            wrong.append(f"{guard.name}: nothing is taken out, or nobody sees it")
    assert not wrong
    assert len({guard.name for guard in guards.GUARDS}) == len(guards.GUARDS)


def test_the_report_is_of_these_tables() -> None:
    text = weakened.REPORT.read_text()
    assert [guard.name for guard in guards.GUARDS if f"**{guard.name}**" not in text] == []
    assert [row for row in (*guards.rows(), *guards.NOT_APPLICABLE) if row not in text] == []
