"""A guard: what holds an attack off, as the lines that a weakened copy of the source lacks, and the tests that see it.

A guard is removed from a copy of the tree (devtools.weakened), never in the product, which has no switch for it
(docs/adr/0017). A change whose old text is not there exactly once fails: it is corrected when the source moves on.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[2]
ROWS = TESTS / "security/rows.txt"
DOORS = ("root", "rootless", "api", "build", "nested")

Change = tuple[str, str, str]  # file below src/orlop, what stands there, what stands there instead


class Guard(NamedTuple):
    """rows: the attacks that it holds off. tests: ids below tests/ of which each is red without it.

    runs: whether containers run without it; else what is weak can't be told from what is broken by running one.
    """

    name: str
    rows: tuple[str, ...]
    tests: tuple[str, ...]
    changes: tuple[Change, ...]
    runs: bool = True

    def remove(self, tree: Path) -> str:
        """Take it out of a copy of the tree; return what is wrong with a change, "" when all is done."""
        for file, old, new in self.changes:
            place = tree / "src/orlop" / file
            text = place.read_text()
            if text.count(old) != 1:
                return f"{file} has {text.count(old)} times: {old.strip()[:80]}"
            place.write_text(text.replace(old, new))
            try:
                compile(place.read_text(), str(place), "exec")
            except SyntaxError as wrong:
                return f"{file} is no Python without it: {wrong}"
        return ""


def rows() -> dict[str, tuple[str, list[str]]]:
    """Return row -> (what is held, the tests that hold it), as tests/security/rows.txt says."""
    lines = [line for line in ROWS.read_text().splitlines() if line and not line.startswith("#")]
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {row: (held, tests.split()) for row, held, tests in cells}


def doors_seen(tests: tuple[str, ...]) -> str:
    """Return the doors among the parameters of tests, in their order."""
    words = {word for test in tests if "test_doors" in test for word in test.partition("[")[2].split("-", 1)[:1]}
    return ", ".join(door for door in DOORS if door in {word.rstrip("]") for word in words})


def inside(*attacks: str, doors: tuple[str, ...] = DOORS) -> tuple[str, ...]:
    """Return the ids of attacks from inside (security/attacker.py), one for each door."""
    test = "security/test_doors.py::test_from_inside_nothing_is_reached"
    return tuple(f"{test}[{door}-{attack}]" for door in doors for attack in attacks)


def by_doors(test: str, *variants: str, doors: tuple[str, ...] = DOORS) -> tuple[str, ...]:
    """Return the ids of one test of security/test_doors.py, one for each door (and variant)."""
    place = f"security/test_doors.py::{test}"
    return tuple(f"{place}[{door}{variant and '-' + variant}]" for door in doors for variant in variants or ("",))
