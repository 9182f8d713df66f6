""".dockerignore: docker's patterns, one by one; many files and hostile patterns in time."""

from __future__ import annotations

import time

import pytest

from orlop.build.ignore import PATTERN_CHARACTERS_MAX, PATTERNS_MAX, Matcher, names_for, parse_lines
from orlop.spec.errors import Invalid


@pytest.mark.parametrize(
    ("patterns", "excluded", "kept"),
    [
        ("a", "a a/b a/b/c", "b b/a ab"),
        ("/a", "a a/b", "b/a"),
        ("a/", "a a/b", "b/a"),
        ("./a/../b", "b b/c", "a a/b"),
        ("*", "a a/b .x", ""),
        ("*.md", "a.md .md a.md/x", "a/b.md md a.mdx"),
        ("*/*.md", "a/b.md", "b.md a/b/c.md"),
        ("**/*.md", "a.md a/b.md a/b/c.md", "a.mdx"),
        ("**", "a a/b", ""),
        ("**/a", "a b/a b/c/a b/a/x", "ba b/ba"),
        ("a/**", "a/b a/b/c", "b"),
        ("a/**/b", "a/b a/x/b a/x/y/b a/b/c", "a a/xb b"),
        ("a**", "a ab a/b abc/d", "b"),
        ("a**b", "ab a/b ax/b a/x/b", "axb"),
        ("?", "a b", "ab a?"),
        ("a?c", "abc axc", "a/c ac"),
        ("[ab]", "a b", "c ab"),
        ("[^ab]", "c d", "a b"),
        ("[a-c]x", "ax bx", "dx x"),
        ("[a\\]]", "a ]", "b"),
        ("\\*", "*", "a"),
        ("\\!a", "!a", "a"),
        ("a.b", "a.b", "axb"),
        ("a+(b)|{c}$^", "a+(b)|{c}$^", "aab"),
        ("# comment\n\n  a  ", "a", "b #"),
        (" #a", "#a", "a"),
        ("a\n!a/b", "a a/c", "a/b a/b/c"),
        ("*\n!a\n!b/c", "x b b/d", "a a/x b/c b/c/d"),
        ("*\n!a\na/x", "b a/x a/x/y", "a a/y"),
        ("!a\na", "a a/b", "b"),
        ("a\n!  a/b ", "a/c", "a/b"),
        ("*\n!**/*.go\nvendor", "x vendor vendor/a.go a/b", "m.go a/b.go"),
        (".", "", "a a/b"),
        ("/", "", "a"),
        ("../a", "", "a ../b"),
        ("a\r\nb\r\n", "a b", "c"),
        ("\ufeffa", "a", "b"),
        ("é*", "éa", "a"),
        (
            "node_modules\n*.log\n**/.git\n!keep.log",
            "node_modules/x a.log x/.git/HEAD",
            "keep.log src/a.log .gitignore",
        ),
    ],
)
def test_docker_s_patterns(patterns: str, excluded: str, kept: str) -> None:
    matcher = Matcher(parse_lines(patterns))
    assert [path for path in excluded.split() if not matcher.excludes(path)] == []
    assert [path for path in kept.split() if matcher.excludes(path)] == []


@pytest.mark.parametrize(
    ("pattern", "cause"),
    [
        ("!", "illegal exclusion pattern"),
        ("[", "a bracket is not closed"),
        ("[]", "a bracket is not closed"),
        ("[a", "a bracket is not closed"),
        ("[z-a]", "a range goes backwards"),
        ("[a-]", "a bracket is not closed"),
        ("a\\", "nothing follows the backslash"),
        ("x" * (PATTERN_CHARACTERS_MAX + 1), "more than"),
    ],
)
def test_refusals(pattern: str, cause: str) -> None:
    with pytest.raises(Invalid, match=cause):
        Matcher(parse_lines(pattern))


def test_too_many() -> None:
    with pytest.raises(Invalid, match="more than"):
        Matcher(["a"] * (PATTERNS_MAX + 1))


def test_directories_that_nobody_needs_to_look_into() -> None:
    matcher = Matcher(parse_lines("a\nb\n*.d\n!b/keep/x\n!c*/y\n!z/**"))
    assert matcher.prunes("a")
    assert matcher.prunes("x.d")
    assert not matcher.prunes("b")
    assert not matcher.prunes("b/keep")
    assert matcher.prunes("b/other")
    assert not matcher.prunes("src")  # it is not excluded
    assert not Matcher(parse_lines("*\n!**/x")).prunes("a")
    assert Matcher(parse_lines("*")).prunes("a")


def test_what_is_surely_a_mistake_to_copy() -> None:
    assert Matcher(["a"]).surely_excludes("a/b")
    assert not Matcher(["a"]).surely_excludes(".")
    assert Matcher(["*"]).surely_excludes(".")
    assert not Matcher(["a", "!a/b"]).surely_excludes("a")


def test_names() -> None:
    assert names_for("build/prod.Dockerfile") == ("build/prod.Dockerfile.dockerignore", ".dockerignore")


def test_fifty_thousand_files() -> None:
    patterns = "\n".join(
        ["node_modules", "**/*.pyc", "**/__pycache__", "*.log", "dist/**", "!dist/keep", "docs/*/build"]
    )
    matcher = Matcher(parse_lines(patterns + "\n" + "\n".join(f"dir{n}/*.tmp" for n in range(50))))
    paths = [f"src/package{n % 100}/sub/module{n}.py" for n in range(50_000)]
    before = time.process_time()
    assert not any(matcher.excludes(path) for path in paths)
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 500 + "b", "a" * 255),
        ("**/a/" * 300 + "b", "a/" * 1000 + "a"),
        ("**/" * 1000 + "b", "a/" * 1000 + "a"),
        ("*" * 4000 + "b", "a" * 255),
        ("[a-z]" * 800, "a" * 799),
        ("**a" * 1000, "a/" * 1000),
        ("a" * 4000, "a" * 4000),
    ],
)
def test_hostile_patterns_end_in_time(pattern: str, path: str) -> None:
    matcher = Matcher([pattern])
    before = time.process_time()
    matcher.excludes(path)
    assert time.process_time() - before < 10


def test_both_ways_of_matching_agree() -> None:
    from orlop.build import ignore

    paths = ["a", "b", "ab", "a/b", "a/b/c", "b/a/c", "c/a/b/a", "aa/bb", "x/y/z/a", ""]
    for pattern in ("a", "*", "a*", "**/a", "a/**", "a/**/c", "?", "[ab]", "*/b", "**", "a**b", "*a*"):
        tokens = ignore._tokens(pattern)
        one = ignore._matches_one_of([tokens])
        assert [one(path) for path in paths] == [ignore._follow(tokens, path) for path in paths], pattern
