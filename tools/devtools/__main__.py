"""./dev: one table of chores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from . import check, clean, environment, testing
from .failure import Failure


def _setup(words: Sequence[str]) -> int:
    environment.prepare()
    return 0


def _lock(words: Sequence[str]) -> int:
    environment.lock()
    return _setup(words)


def _bench(words: Sequence[str]) -> int:
    # Behind the other chores: it imports the tests' support.
    from bench import command

    return command.main(words)


def _help(words: Sequence[str]) -> int:
    print("usage: ./dev CHORE [ARGUMENTS]\n")
    print("\n".join(f"  {name:<8}{text}" for name, (_, text) in CHORES.items()))
    return 0


CHORES: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "check": (check.main, "format, lint, types, the import law, size budgets; `check --fix` mends what can be mended"),
    "test": (
        testing.main,
        f"[{'|'.join(testing.GROUPS)}] [pytest arguments]; without a group: all; `security --weakened`",
    ),
    "fuzz": (testing.fuzz, "[-s SECONDS] [--keep] [pytest arguments]: the parsers against random input, for longer"),
    "bench": (_bench, "[NAME ...] [-n RUNS] [--write]: whole-process times of ours and of the peers, in turn"),
    "clean": (clean.main, "remove caches and build output; `clean --all` the prepared .venv and .cache too"),
    "setup": (_setup, "only prepare .venv"),
    "lock": (_lock, "write requirements-dev.txt anew from pyproject.toml"),
    "help": (_help, "this list"),
}


def main(words: Sequence[str]) -> int:
    """Run one chore; return the exit status: 0, 1 for findings and failures, 2 for a word we do not know."""
    os.environ.pop("PYTHONPATH", None)  # ours, from ./dev: no child needs it
    name, *rest = words or ["help"]
    if name in ("-h", "--help"):
        name = "help"
    if name not in CHORES:
        print(f"dev: there is no chore {name!r}; `./dev help` lists them", file=sys.stderr)
        return 2
    try:
        return CHORES[name][0](rest)
    except Failure as failure:
        print(f"dev: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
