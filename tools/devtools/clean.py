"""./dev clean: remove what the chores leave behind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from .environment import CACHE, ROOT, VENV

NAMES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "dist", "build-out")


def main(words: Sequence[str]) -> int:
    """Remove caches; with --all also `.venv` and `.cache`, which the next chore makes again."""
    places = [ROOT / name for name in NAMES]
    places += [place for top in ("src", "tests", "tools", "bench") for place in (ROOT / top).rglob("__pycache__")]
    if "--all" in words:
        places += [VENV, CACHE]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    return 0
