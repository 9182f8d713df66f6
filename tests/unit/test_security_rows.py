"""tests/security/rows.txt: each attack on the runtime and on images has a test, and what it names is there."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = TESTS / "security/rows.txt"
WANTED = {f"SEC-{number:02}" for number in (*range(1, 32), 36, *range(40, 48), 49, 51, 52, *range(60, 66), 67)}


def rows() -> dict[str, list[str]]:
    """Return row -> the tests it names."""
    lines = [line for line in ROWS.read_text().splitlines() if line and not line.startswith("#")]
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    assert all(len(cell) == 3 for cell in cells)
    assert len({row for row, _, _ in cells}) == len(cells)
    return {row: tests.split() for row, _, tests in cells}


def test_no_row_is_without_a_test() -> None:
    assert rows().keys() >= WANTED
    assert all(rows().values())


def test_every_test_that_is_named_exists() -> None:
    missing = []
    for name in {name for names in rows().values() for name in names}:
        file, _, function = name.partition("::")
        defined = [
            node.name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, ast.FunctionDef)
        ]
        if function not in defined:
            missing.append(name)
    assert not missing
