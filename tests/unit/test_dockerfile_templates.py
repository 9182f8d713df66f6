"""Dockerfiles put together from parts: what comes out, where errors are, what has no end."""

from __future__ import annotations

import pytest

from orlop.build.dockerfile.parse import parse
from orlop.build.dockerfile.source import DockerfileError, Source
from orlop.build.dockerfile.templates import composed
from orlop.spec.errors import Invalid

HEAD = "# syntax=orlop/dockerfile:1\n"
PLATFORM = {"TARGETARCH": "arm64", "BUILDARCH": "amd64"}


def made(text: str, files: dict[str, str] | None = None, **given: str) -> list[str]:
    """Return the lines that a template becomes, empty ones left out."""
    found = {name: data.encode() for name, data in (files or {}).items()}
    source = composed(Source("Dockerfile", HEAD + text), found.get, {**PLATFORM, **given}, given)
    return [line for line in source.lines[1:] if line.strip()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b\n", ["FROM a", "RUN b"]),
        ("IF $TARGETARCH == arm64\nFROM a\nELSE\nFROM b\nEND\n", ["FROM a"]),
        ("IF $TARGETARCH != arm64\nFROM a\nELSE\nFROM b\nEND\n", ["FROM b"]),
        ("if $NOTHING\nFROM a\nelse\nFROM b\nend\n", ["FROM b"]),
        ("IF ! $NOTHING\nFROM a\nEND\nFROM c", ["FROM a", "FROM c"]),
        ("ARG D=1 E=${D}2\nIF $E == 12\nFROM a\nEND\n", ["ARG D=1 E=${D}2", "FROM a"]),
        ("ARG D=0\nIF $D\nFROM a\nEND\nFROM b", ["ARG D=0", "FROM b"]),
        ("FOR x IN a b\nRUN echo $x ${x}y $xy\nEND\n", ["RUN echo a ay $xy", "RUN echo b by $xy"]),
        ("ARG L=c\nFOR x IN a $L\nRUN $x\nEND", ["ARG L=c", "RUN a", "RUN c"]),
        ("FOR x IN 1 2\nFOR y IN a b\nRUN $x$y\nEND\nEND", ["RUN 1a", "RUN 1b", "RUN 2a", "RUN 2b"]),
        ("FOR x IN 1 2\nIF $x == 2\nRUN $x\nELSE\nRUN other\nEND\nEND", ["RUN other", "RUN 2"]),
        ("FOR x IN\nRUN $x\nEND\nFROM a", ["FROM a"]),
        ("RUN a \\\nIF b\nRUN <<E\nEND\nFOR x\nE", ["RUN a \\", "IF b", "RUN <<E", "END", "FOR x", "E"]),
        ("# IF x\nFROM a\n# END\n", ["# IF x", "FROM a", "# END"]),
    ],
)  # fmt: skip
def test_templates(text: str, expected: list[str]) -> None:
    assert made(text) == expected


def test_build_arguments_win() -> None:
    text = "ARG D=1\nIF $D == 2\nFROM two\nEND\nIF $TARGETARCH == x\nFROM x\nEND"
    assert made(text, D="2", TARGETARCH="x") == ["ARG D=1", "FROM two", "FROM x"]


def test_files_are_included_from_where_they_are() -> None:
    files = {
        "parts/base": "FROM a\nINCLUDE more/tools\nINCLUDE /top\n",
        "parts/more/tools": "FOR t IN x y\nRUN $t\nEND",
        "top": "# only a comment\n",
        "arm64.part": "RUN of arm",
    }
    text = "INCLUDE parts/base\nINCLUDE $TARGETARCH.part\nCMD z"
    assert made(text, files) == ["FROM a", "RUN x", "RUN y", "# only a comment", "RUN of arm", "CMD z"]


@pytest.mark.parametrize(
    ("text", "files", "place", "told"),
    [
        ("INCLUDE a\n", {"a": "INCLUDE b\n", "b": "\nINCLUDE a\n"}, "b:2", "each other: Dockerfile -> a -> b -> a"),
        ("FROM a\nINCLUDE Dockerfile\n", {}, "Dockerfile:3", "include each other"),
        ("INCLUDE none", {}, "Dockerfile:2", "there is no file none"),
        ("INCLUDE ../x", {}, "Dockerfile:2", "leads out of the context"),
        ("INCLUDE a b", {}, "Dockerfile:2", "the name of one file"),
        ("INCLUDE", {}, "Dockerfile:2", "the name of one file"),
        ("FROM a\nIF x\nRUN b", {}, "Dockerfile:3", "IF without END"),
        ("FROM a\nEND", {}, "Dockerfile:3", "END without IF or FOR"),
        ("ELSE", {}, "Dockerfile:2", "ELSE without IF or FOR"),
        ("FOR x IN a\nELSE\nEND", {}, "Dockerfile:3", "ELSE stands once in an IF"),
        ("IF a\nELSE\nELSE\nEND", {}, "Dockerfile:4", "ELSE stands once in an IF"),
        ("IF\nEND", {}, "Dockerfile:2", "IF needs a word"),
        ("IF a = b\nEND", {}, "Dockerfile:2", "IF needs a word"),
        ("FOR x a b\nEND", {}, "Dockerfile:2", "FOR needs a name"),
        ("FOR 1x IN a b\nEND", {}, "Dockerfile:2", "FOR needs a name"),
        ("INCLUDE a", {"a": "FROM x\nIF y\n"}, "a:2", "IF without END"),
        ("INCLUDE a", {"a": "\0"}, "Dockerfile:2", "a can't be included"),
        ("IF ${x\nEND", {}, "Dockerfile:2", ""),
        ("IF x\n" * 40 + "END\n" * 40, {}, "Dockerfile", "nested more than"),
        ("FOR x IN 1 2 3 4 5 6 7 8 9\n" * 20 + "END\n" * 20, {}, "Dockerfile", "opens more than"),
        ("FOR x IN 1 2 3 4 5 6 7 8 9\n" * 2 + "RUN a\n" * 3000 + "END\n" * 2, {}, "Dockerfile", "becomes more than"),
        ("FOR x IN 1 2 3 4 5 6 7 8 9\n" * 7 + "RUN a\n" + "END\n" * 7, {}, "Dockerfile", "opens more than"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_place(text: str, files: dict[str, str], place: str, told: str) -> None:
    with pytest.raises((DockerfileError, Invalid)) as caught:
        made(text, files)
    assert caught.value.subject.startswith(place) and told in caught.value.cause


def test_only_where_the_syntax_says_so_and_errors_below_have_their_place() -> None:
    files = {"part": b"RUN ok\nRUN --mount=type=nosuch x\nNOSUCH a\n"}

    def compose(source: Source, language: str) -> Source:
        assert language == "orlop/dockerfile"
        return composed(source, files.get, {}, {})

    with pytest.raises(DockerfileError, match="INCLUDE"):
        parse("FROM a\nINCLUDE part\n", "D", compose)
    with pytest.raises(DockerfileError) as caught:
        parse(HEAD + "FROM a\nINCLUDE part\n", "D", compose)
    assert str(caught.value).startswith("part:3: ")
    assert caught.value.excerpt.startswith("part:3\n")
    plain, template = parse("FROM a\nRUN x\nRUN y\n"), parse(HEAD + "FROM a\nFOR v IN x y\nRUN $v\nEND\n", "D", compose)
    assert [one.words for one in plain.stages[0].instructions] == [one.words for one in template.stages[0].instructions]
