"""The import law of docs/ARCHITECTURE.md, read from the source: imports inside functions count too.

Every rule is a function from parsed source to findings. Each is shown to bite on a broken sample first, then applied
to every module of src/orlop.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

RANK = {
    "frontends": 0,
    "build": 1,
    "engine": 2,
    "supervise": 3,
    "network": 3,
    "snapshot": 3,
    "image": 3,
    "runtime": 4,
    "content": 4,
    "spec": 5,
    "linux": 5,
}

# Which package may import what from outside the standard library. DEPENDENCIES of pyproject.toml without a row here are
# used by nobody; a row for linux, runtime or supervise is never right: they run as root and forked.
THIRD_PARTY: dict[str, frozenset[str]] = {
    "content": frozenset({"compression"}),  # zstd: in the standard library from 3.14
    # BuildKit's protocol, compose files, docker-py for `orlop.docker`; imported when they are needed
    "frontends": frozenset({"docker", "h2", "yaml"}),
}

# Start-up is paid by every command and every container: these cost more than the rest of such a module together.
EXPENSIVE = frozenset(
    "argparse asyncio concurrent dataclasses email enum http inspect ipaddress logging pathlib re shutil subprocess "
    "tempfile typing urllib uuid".split()
)
CHEAP_PACKAGES = frozenset({"linux", "runtime", "spec", "supervise"})

FORBIDDEN_MODULES = frozenset({"dbm", "marshal", "pickle", "pty", "shelve", "pdb", "commands"})
FORBIDDEN_CALLS = frozenset({"eval", "exec", "compile", "__import__", "input", "breakpoint"})
# A command line finds a verb's module in a table of constants, and so does the package the library's names; importlib
# alone would cost as much as the module.
# `orlop.frozen` is an importer: what it reads is as good as __pycache__, which the interpreter reads.
PERMITTED = frozenset(
    {
        ("orlop.frontends.cli.commands", "__import__"),
        ("orlop.runtime.cli.main", "__import__"),
        ("orlop", "__import__"),
        ("orlop.docker", "__import__"),
        ("orlop.frozen", "exec"),
        ("orlop.frozen", "marshal"),
    }
)
# What `import orlop` offers without importing it: named for type checkers only.
LIBRARY = ("orlop.frontends.sdk.", "orlop.spec.errors.")
FORBIDDEN_ATTRIBUTES = frozenset({("os", "system"), ("os", "popen"), ("importlib", "import_module")})
FORBIDDEN_METHODS = frozenset({"extractall"})
FORBIDDEN_KEYWORDS = frozenset({"shell", "preexec_fn"})


class Module:
    """One source file: its dotted name, its package below orlop ("" for orlop itself), its syntax tree."""

    def __init__(self, name: str, text: str, *, is_package: bool = False) -> None:
        self.name = name
        self.is_package = is_package
        parts = name.split(".")
        self.package = parts[1] if len(parts) > 1 else ""
        self.tree = ast.parse(text)

    def imports(self) -> Iterator[tuple[str, ast.stmt]]:
        """Yield each imported dotted name, absolute, with its statement; `from a import b` yields a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield from ((f"{base}.{alias.name}", node) for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parents = self.name.split(".")
        parents = parents[: len(parents) - node.level + self.is_package]
        return ".".join([*parents, *([node.module] if node.module else [])])

    def import_time(self) -> set[ast.stmt]:
        """Return the statements that run when the module is imported; the body of `if TYPE_CHECKING` does not."""
        found: set[ast.stmt] = set()
        waiting: list[ast.stmt] = list(self.tree.body)
        while waiting:
            node = waiting.pop()
            found.add(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                waiting += node.orelse
                continue
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            for handler in getattr(node, "handlers", ()):
                waiting += handler.body
        return found


Rule = Callable[[Module], Iterator[str]]


def points_right(module: Module) -> Iterator[str]:
    """A package imports itself and what stands to its right; orlop itself imports nothing, and names the library."""
    at_import = module.import_time()
    for name, node in module.imports():
        if not module.package and node not in at_import and name.startswith(LIBRARY):
            continue
        parts = name.split(".")
        if parts[0] != "orlop" or len(parts) < 2 or parts[1] not in RANK or parts[1] == module.package:
            continue
        if not module.package or RANK[parts[1]] <= RANK[module.package]:
            yield f"line {node.lineno}: {module.package or 'orlop itself'} imports {parts[1]}"


def standard_library_only(module: Module) -> Iterator[str]:
    """What is neither ours nor in the standard library stands in THIRD_PARTY."""
    allowed = THIRD_PARTY.get(module.package, frozenset())
    for name, node in module.imports():
        top = name.partition(".")[0]
        if top != "orlop" and top not in sys.stdlib_module_names and top not in allowed:
            yield f"line {node.lineno}: {top} is not in the standard library"


def imports_cheaply(module: Module) -> Iterator[str]:
    """The packages on the start path import nothing expensive before it is needed."""
    if module.package not in CHEAP_PACKAGES:
        return
    at_import = module.import_time()
    for name, node in module.imports():
        if node in at_import and name.partition(".")[0] in EXPENSIVE:
            yield f"line {node.lineno}: {name} is imported at import time"


def nothing_dangerous(module: Module) -> Iterator[str]:
    """No code from data, no shell, no unpacking by path, no Python between somebody else's fork and exec."""
    for name, node in module.imports():
        top = name.partition(".")[0]
        if top in FORBIDDEN_MODULES and (module.name, top) not in PERMITTED:
            yield f"line {node.lineno}: {name} is forbidden"
    for call in ast.walk(module.tree):
        if not isinstance(call, ast.Call):
            continue
        yield from (
            f"line {call.lineno}: {word.arg}= is forbidden" for word in call.keywords if word.arg in FORBIDDEN_KEYWORDS
        )
        function = call.func
        if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
            if (module.name, function.id) in PERMITTED:
                continue
            yield f"line {call.lineno}: {function.id}() is forbidden"
        elif isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if (owner, function.attr) in FORBIDDEN_ATTRIBUTES or function.attr in FORBIDDEN_METHODS:
                yield f"line {call.lineno}: {owner}.{function.attr}() is forbidden"


def kernel_stays_in_linux(module: Module) -> Iterator[str]:
    """ctypes only in linux/; fork only there and in supervise/ (a fork of the threaded engine would hang)."""
    for name, node in module.imports():
        if name.partition(".")[0] in ("ctypes", "_ctypes") and module.package != "linux":
            yield f"line {node.lineno}: ctypes outside linux"
    if module.package in ("linux", "supervise"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("fork", "forkpty") and ast.unparse(node.value) == "os":
            yield f"line {node.lineno}: os.{node.attr} outside linux and supervise"


RULES: tuple[Rule, ...] = (
    points_right,
    standard_library_only,
    imports_cheaply,
    nothing_dangerous,
    kernel_stays_in_linux,
)

# fmt: off
BROKEN = [
    (points_right, "orlop.linux.mount", "from orlop.spec import errors"),
    (points_right, "orlop.spec.digest", "import orlop.linux.path"),
    (points_right, "orlop.image.images", "from orlop import snapshot"),
    (points_right, "orlop.content.store", "def late():\n    from ..engine import core"),
    (points_right, "orlop.runtime.plan", "from orlop.content.store import Store"),
    (points_right, "orlop.engine.core", "if TYPE_CHECKING:\n    from orlop.frontends.cli import main"),
    (points_right, "orlop", "from orlop.engine import core"),
    (standard_library_only, "orlop.engine.core", "import yaml"),
    (standard_library_only, "orlop.linux.abi", "def late():\n    from cffi import FFI"),
    (imports_cheaply, "orlop.linux.abi", "import pathlib"),
    (imports_cheaply, "orlop.spec.digest", "class Digest:\n    import re"),
    (imports_cheaply, "orlop.runtime.plan", "try:\n    pass\nexcept ImportError:\n    import enum"),
    (imports_cheaply, "orlop.supervise.monitor", "if TYPE_CHECKING:\n    pass\nelse:\n    from typing import Any"),
    (nothing_dangerous, "orlop.content.store", "import pickle"),
    (nothing_dangerous, "orlop.content.store", "eval('1')"),
    (nothing_dangerous, "orlop.engine.core", "__import__(name)"),
    (nothing_dangerous, "orlop.content.store", "subprocess.run('x', shell=True)"),
    (nothing_dangerous, "orlop.content.store", "subprocess.Popen('x', preexec_fn=f)"),
    (nothing_dangerous, "orlop.content.store", "os.system('x')"),
    (nothing_dangerous, "orlop.snapshot.tree", "tarfile.open(x).extractall('/')"),
    (kernel_stays_in_linux, "orlop.runtime.init", "import ctypes"),
    (kernel_stays_in_linux, "orlop.engine.core", "pid = os.fork()"),
]
LAWFUL = [
    ("orlop.engine.core", "from orlop.runtime import plan\nfrom orlop.spec.errors import Conflict\nimport threading"),
    ("orlop.spec.record", "if TYPE_CHECKING:\n    from typing import Any\nfrom .errors import Invalid"),
    ("orlop.linux.path", "def rare():\n    import shutil\nfrom . import abi"),
    ("orlop.supervise.spawner", "import os\npid = os.fork()"),
]
# fmt: on


@pytest.mark.parametrize(("rule", "name", "text"), BROKEN)
def test_a_rule_finds_its_breach(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Module(name, text)))


@pytest.mark.parametrize(("name", "text"), LAWFUL)
def test_lawful_source_passes_every_rule(name: str, text: str) -> None:
    assert [found for rule in RULES for found in rule(Module(name, text))] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_law(rule: Rule) -> None:
    modules = list(_modules())
    assert modules
    assert [f"{module.name}: {found}" for module in modules for found in rule(module)] == []


def test_every_package_has_a_rank() -> None:
    assert {path.parent.name for path in SOURCE.glob("orlop/*/__init__.py")} == set(RANK)


def test_the_architecture_names_every_package() -> None:
    """By its path, dotted or not, or in quotes: a word of the text that happens to be spelled so names nothing."""
    told = (SOURCE.parent / "docs/ARCHITECTURE.md").read_text()
    for place in SOURCE.glob("orlop/*/**/__init__.py"):
        *_, above, name = place.parent.relative_to(SOURCE).parts
        assert re.search(rf"\b{above}[./]{name}\b|`{name}[`/]", told), f"{above}.{name} is named nowhere"


def _modules() -> Iterator[Module]:
    for path in sorted(SOURCE.glob("orlop/**/*.py")):
        parts = list(path.relative_to(SOURCE).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        yield Module(name, path.read_text(), is_package=is_package)
