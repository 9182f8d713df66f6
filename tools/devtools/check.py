"""./dev check: all that needs no run of the program. The steps run at once; each prints only what it finds."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .environment import ROOT, VENV, prepare

PLACES = ("src", "tests", "tools", "bench")
LAWS = ("test_import_law.py", "test_budgets.py", "test_tree.py")


def main(words: Sequence[str]) -> int:
    """Run every check, or with --fix first let ruff mend what it can. Returns 0 when nothing was found."""
    prepare()
    places = [place for place in PLACES if (ROOT / place).is_dir()]
    ruff = str(VENV / "bin/ruff")
    if "--fix" in words:
        subprocess.run([ruff, "check", "--quiet", "--fix", *places], cwd=ROOT, check=False)
        subprocess.run([ruff, "format", "--quiet", *places], cwd=ROOT, check=False)
    laws = [f"tests/unit/{name}" for name in LAWS]
    steps = {
        "lint": [ruff, "check", "--quiet", *places],
        "format": [ruff, "format", "--quiet", "--diff", *places],
        "types": [str(VENV / "bin/mypy"), "--no-error-summary"],
        "laws": [str(VENV / "bin/python"), "-m", "pytest", "--no-header", *laws],
    }
    with ThreadPoolExecutor() as pool:
        results = dict(zip(steps, pool.map(_run, steps.values()), strict=True))
    for name, (status, seconds, output) in results.items():
        if status != 0:
            print(output.rstrip())
        print(f"{name:<8}{'ok' if status == 0 else 'FAILED':<8}{seconds:6.1f} s", flush=True)
    return int(any(status for status, _, _ in results.values()))


def _run(argv: list[str]) -> tuple[int, float, str]:
    started = time.monotonic()
    done = subprocess.run(
        argv, cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, stdin=subprocess.DEVNULL, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, time.monotonic() - started, done.stdout
