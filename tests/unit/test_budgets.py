"""Size budgets of the source. tests/budgets.txt holds the exceptions; it may only shrink.

An exception names its present size: growing past it fails, and so does shrinking without lowering it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXCEPTIONS = ROOT / "tests/budgets.txt"

MODULE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
PUBLIC_METHODS_MAX = 20
PARAMETERS_MAX = 6
MODULES_IN_PACKAGE_MAX = 20
FOLDER_DEPTH_MAX = 3

BUDGETS = {
    "module lines": MODULE_LINES_MAX,
    "function lines": FUNCTION_LINES_MAX,
    "public methods": PUBLIC_METHODS_MAX,
    "parameters": PARAMETERS_MAX,
    "modules": MODULES_IN_PACKAGE_MAX,
    "folder depth": FOLDER_DEPTH_MAX,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Size = tuple[str, str, int]  # the budget, what is measured, its size


def sizes_of_source(name: str, text: str) -> Iterator[Size]:
    """Yield everything measured in one module."""
    yield "module lines", name, text.count("\n")
    for path, node in _definitions(ast.parse(text)):
        where = f"{name}:{path}"
        if isinstance(node, ast.ClassDef):
            public = [item for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]
            yield "public methods", where, len(public)
        else:
            yield "function lines", where, (node.end_lineno or node.lineno) - node.lineno + 1
            yield "parameters", where, _parameters(node)


def sizes_of_tree(root: Path) -> Iterator[Size]:
    """Yield everything measured below a source folder."""
    for directory in [root, *(path for path in root.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        name = directory.relative_to(root.parent).as_posix()
        yield "modules", name, len([path for path in directory.glob("*.py") if path.name != "__init__.py"])
        yield "folder depth", name, len(directory.relative_to(root).parts)
    for path in root.rglob("*.py"):
        yield from sizes_of_source(path.relative_to(root.parent).as_posix(), path.read_text())


def too_large(sizes: Iterator[Size], exceptions: dict[tuple[str, str], int]) -> list[str]:
    """Return a line for each size above its budget and exception, and for each exception that no longer fits."""
    measured = {(budget, name): size for budget, name, size in sizes}
    found = [
        f"{name}: {size} {budget}, the budget is {BUDGETS[budget]}"
        for (budget, name), size in measured.items()
        if size > max(BUDGETS[budget], exceptions.get((budget, name), 0))
    ]
    for key, allowed in exceptions.items():
        size = measured.get(key, 0)
        if size < allowed:
            found.append(f"{key[1]}: {size} {key[0]}, the exception says {allowed}: lower or remove it")
    return found


def test_the_source_stays_within_its_budgets() -> None:
    assert too_large(sizes_of_tree(ROOT / "src/orlop"), _exceptions()) == []


def test_the_median_function_is_short() -> None:
    lengths = sorted(size for budget, _, size in sizes_of_tree(ROOT / "src/orlop") if budget == "function lines")
    assert lengths[len(lengths) // 2] <= 12


def _lines(count: int) -> str:
    return "    pass\n" * count


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ("module lines", "\n" * (MODULE_LINES_MAX + 1)),
        ("function lines", "def f():\n" + _lines(FUNCTION_LINES_MAX)),
        ("function lines", "class C:\n  async def f():\n" + _lines(FUNCTION_LINES_MAX)),
        ("public methods", "class C:\n" + "".join(f"  def m{n}(self): pass\n" for n in range(PUBLIC_METHODS_MAX + 1))),
        ("parameters", "def f(a, b, c, /, d, *e, g, h): pass\n"),
    ],
)
def test_a_breach_of_each_budget_is_found(budget: str, text: str) -> None:
    found = too_large(sizes_of_source("m.py", text), {})
    assert len(found) == 1
    assert budget in found[0]


def test_self_and_the_limit_itself_are_within_the_budget() -> None:
    text = "class C:\n  def f(self, a, b, c, d, e, f):\n" + _lines(FUNCTION_LINES_MAX - 1)
    assert too_large(sizes_of_source("m.py", text), {}) == []


def test_the_named_fields_of_a_value_are_no_parameters() -> None:
    text = "class C:\n  def __init__(self, a, b, c, d, e, f, *, g, h=1): pass\n"
    assert too_large(sizes_of_source("m.py", text), {}) == []
    assert too_large(sizes_of_source("m.py", text.replace("*, ", "")), {}) != []


def test_an_exception_may_only_shrink() -> None:
    text = "def f():\n" + _lines(FUNCTION_LINES_MAX)
    key = ("function lines", "m.py:f")
    assert too_large(sizes_of_source("m.py", text), {key: FUNCTION_LINES_MAX + 1}) == []
    assert too_large(sizes_of_source("m.py", text), {key: FUNCTION_LINES_MAX + 2}) != []
    assert too_large(sizes_of_source("m.py", text), {key: FUNCTION_LINES_MAX}) != []
    assert too_large(sizes_of_source("m.py", "pass\n"), {key: FUNCTION_LINES_MAX + 1}) != []


def _definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield prefix + node.name, node
            yield from _definitions(node, f"{prefix}{node.name}.")
        else:
            yield from _definitions(node, prefix)


def _parameters(node: Function) -> int:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args]
    if node.name != "__init__":  # there, what has to be named is a field of a value, as in a dataclass
        named += arguments.kwonlyargs
    bound = bool(named) and named[0].arg in ("self", "cls")
    return len(named) - bound + (arguments.vararg is not None) + (arguments.kwarg is not None)


def _exceptions() -> dict[tuple[str, str], int]:
    """Read lines of `SIZE BUDGET | WHAT`."""
    found: dict[tuple[str, str], int] = {}
    for line in EXCEPTIONS.read_text().splitlines():
        if line and not line.startswith("#"):
            left, _, name = line.partition(" | ")
            size, _, budget = left.partition(" ")
            assert budget in BUDGETS, f"{line!r} is not `SIZE BUDGET | WHAT`"
            found[budget, name] = int(size)
    return found
