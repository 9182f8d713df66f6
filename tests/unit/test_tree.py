"""What the tracked files may say, and that what they name exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from devtools.__main__ import CHORES
from devtools.testing import GROUPS
from orlop.frontends.cli import commands

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]

# Written in halves, so that this file does not contain them. Docker Hub is not here: its names are words of the
# reference grammar, and its host is where the protocol puts them.
REGISTRIES = [
    name + "." + rest
    for name, rest in (
        ("ghcr", "io"),
        ("quay", "io"),
        ("gcr", "io"),
        ("registry.k8s", "io"),
        ("mcr.microsoft", "com"),
        ("public.ecr", "aws"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("proxy.golang", "org"),
    )
]
SHARED_FOLDERS = ("/", "/tmp", "/root", "/home", "/srv", "/opt", "/usr/src", "/var/tmp")


def tracked() -> list[Path]:
    """Return the tracked files that exist; a source tree without git has no such list, and nothing to say."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def forbidden_words() -> list[str]:
    """Return what no file may contain: registries, and where this checkout and its owner's files lie."""
    above = str(ROOT.parent)
    places = [] if above in SHARED_FOLDERS else [above + "/"]
    return [*REGISTRIES, *places, f"{Path.home()}/."]


def breaches(text: str, words: list[str]) -> list[str]:
    """Return the words that stand in text."""
    return [word for word in words if word in text]


def test_no_file_names_a_registry_or_a_place_of_this_machine() -> None:
    words = forbidden_words()
    found = {path.relative_to(ROOT).as_posix(): breaches(_text(path), words) for path in tracked()}
    assert {name: words for name, words in found.items() if words} == {}


def test_a_forbidden_word_is_found() -> None:
    assert breaches(f"pull {REGISTRIES[0]}/library", REGISTRIES) == [REGISTRIES[0]]


def test_no_file_is_larger_than_a_reader_expects() -> None:
    assert [path for path in tracked() if path.stat().st_size > 1024 * 1024] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_names_exists(document: Path) -> None:
    assert missing_from(document.read_text(), document.parent) == []


def test_a_document_that_names_what_is_not_there_is_found() -> None:
    text = """Run `./dev tset` or `./dev test untit`, `./orlop rnu host` or `./orlop engine pause`,
    see [that](no-such.md) and `tests/unit/test_nothing.py`."""
    assert len(missing_from(text, ROOT)) == 6


def missing_from(text: str, directory: Path) -> list[str]:
    """Return each chore, test group, verb, link target and file of ours that text names and that does not exist."""
    missing = []
    for chore, word in re.findall(r"\./dev ([a-z]+)(?: ([a-z]+)\b(?![|\]]))?", text):
        if chore not in CHORES:
            missing.append(f"./dev {chore}")
        elif chore == "test" and word and word not in (*GROUPS, "all"):
            missing.append(f"./dev test {word}")
    for word, second in re.findall(r"\./orlop ([a-z-]+)(?: ([a-z-]+))?", text):
        known = commands.find(word, second) if word in commands.GROUPS else commands.find("", word)
        if not known:
            missing.append(f"./orlop {word} {second}".rstrip())
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing += [target for target in targets if not (directory / target).exists()]
    files = re.findall(r"`((?:src|tests|tools|docs|bench)/[\w./-]+)`", text)
    missing += [name for name in files if not (ROOT / name).exists()]
    return missing


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")
