"""`${x#p}` and its like as bash understands them: random values and patterns through both."""

from __future__ import annotations

import random
import subprocess

import pytest

from orlop.image.expand import expand

CASES = 400
FORMS = ("${x#P}", "${x##P}", "${x%P}", "${x%%P}", "${x/P/R}", "${x//P/R}")
# Where a match may be empty bash goes its own way: it replaces before, behind or not at all.
ALPHABET = "aab./"


def cases() -> list[tuple[str, str]]:
    chosen = random.Random(20)
    found = []
    while len(found) < CASES:
        value = "".join(chosen.choice(ALPHABET) for _ in range(chosen.randrange(9)))
        pattern = "".join(chosen.choice("aab.?*") for _ in range(chosen.randrange(1, 5)))
        form = chosen.choice(FORMS)
        if "/P/" in form and not pattern.strip("*"):
            continue
        text = form.replace("P", pattern).replace("R", chosen.choice(("", "r", "rr")))
        found.append((value, text))
    return found


def test_patterns_are_those_of_bash() -> None:
    asked = cases()
    script = "".join(f"x='{value}'; printf '%s\\n' \"{text}\"\n" for value, text in asked)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=100, check=True)
    answers = done.stdout.split("\n")[:-1]
    different = [
        (value, text, mine, theirs)
        for (value, text), theirs in zip(asked, answers, strict=True)
        if (mine := expand(text, {"x": value})) != theirs
    ]
    assert different == []


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("${x#\\*}", "*a", "a"),
        ("${x%\\?}", "a?", "a"),
        ("${x//\\//-}", "a/b/c", "a-b-c"),
        ("${x/a\\/b/c}", "a/b", "c"),
        ("${x%%${y}*}", "a-b-c", "a"),
        ("${x#'a'}", "ab", "b"),
        ("${x/$y/${x}}", "a-b", "aa-bb"),
        ("${x}`$x`\\", "v", "v`v`"),
        ("`$x", "v", "`v"),
    ],
)
def test_patterns_with_escapes_and_variables(text: str, value: str, expected: str) -> None:
    assert expand(text, {"x": value, "y": "-"}) == expected


def test_the_other_escape() -> None:
    assert expand("`$x C:\\dir\\$x", {"x": "v"}, escape="`") == "$x C:\\dir\\v"
