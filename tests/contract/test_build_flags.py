"""Every flag that others' builds have is ours too, or docs/dockerfile.md says why not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.engine import Environment

DOCS = Path(__file__).parents[2] / "docs/dockerfile.md"
SHOWN_ONLY = {"--help"}
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


def flags(text: str) -> set[str]:
    """Return the flags that a help text lists at the beginnings of its lines."""
    found = (re.match(r"\s+(?:-\w, )?(--[a-z][a-z0-9-]+)", line) for line in text.splitlines())
    return {match[1] for match in found if match} - SHOWN_ONLY


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("docker", ("build",)),
        ("docker-buildx", ("build",)),
        ("docker-buildx", ("bake",)),
        ("buildah", ("build",)),
        ("podman", ("build",)),
    ],
)
def test_flags_are_here_or_explained(
    orlop: Environment, peer: Callable[[str], Path], program: str, words: tuple[str, ...]
) -> None:
    argv = [str(peer(program)), *words, "--help"]
    env = os.environ | {"DOCKER_BUILDKIT": "0", "COLUMNS": "200"}
    told = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False).stdout
    theirs = flags(told)
    assert len(theirs) > 10, told
    ours = flags(orlop(*words, "--help").stdout)
    explained = set(_FLAG.findall(DOCS.read_text().partition("## Flags of others")[2].partition("\n## ")[0]))
    assert not theirs - ours - explained
    assert not explained & ours - {"--allow", "--platform", "--security", "--squash"}, "explained, and here"
